"""Output of the commands: text on stdout, a progress line, and an error as one sentence on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from ...backend.errors import UserError
from ..tasks.task import Snapshot

LARGE = 10**6  # a stage that counts so many is a download, in bytes


def say(text: str) -> None:
    print(text, flush=True)


def warn(text: str) -> None:
    print(text, file=sys.stderr)


def with_user_errors(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Run a command; -> its exit code. An error that the user can fix goes to stderr as one sentence, with code 1."""
    try:
        return run(arguments)
    except UserError as error:
        warn(f"Error: {error}")
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        warn(f"Error: '{error.filename}' cannot be read or written ({error.strerror or error}): check the path.")
        return 1
    except SystemExit as end:  # argparse has printed its message; 0 is --help
        return int(end.code or 0)


class ProgressLine:
    """The progress of a task. A terminal shows one line that is overwritten; a log gets each stage, and each tenth of a download."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, snapshot: Snapshot) -> None:
        if sys.stdout.isatty():
            print(f"\r{snapshot.text:<60}", end="", flush=True)
            self._shown = snapshot.text
            return
        text = f"{snapshot.stage} {int(10 * snapshot.fraction) * 10} %" if snapshot.total >= LARGE else snapshot.stage
        if text != self._shown:
            say(text)
        self._shown = text

    def end(self) -> None:
        """Start a new line for the output that follows."""
        if self._shown and sys.stdout.isatty():
            print()

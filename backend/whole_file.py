"""Writes files beside their place and moves them there, so that a full disk or an error never leaves half a file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import UserError, first_line


@contextmanager
def whole_file(path: str | Path, what: str = "file") -> Iterator[Path]:
    """Yield a path in the same folder to write to. At the end of the block it replaces `path`, or what `path` links to.

    After an error nothing is left of it, and `path` is as before. what: the noun of the sentence. Raises UserError if it cannot be
    written. A device, such as /dev/null, is written to as it is.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]  # the longest names have no room for more
    part = target.with_name(f".{name}-{os.getpid()}.part{target.suffix}")
    try:
        yield part
        if target.is_file():
            with suppress(OSError):
                shutil.copymode(target, part)
        part.replace(target)
    except OSError as error:
        raise UserError(
            f"The {what} '{path}' cannot be written ({error.strerror or first_line(error)}): choose another folder, or another place with more room."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def write_whole(path: str | Path, content: bytes | str, what: str = "file") -> None:
    """Write a file at once or not at all; text as UTF-8 with line ends as they are. Raises UserError as `whole_file`."""
    with whole_file(path, what) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)

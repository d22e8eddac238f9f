"""The progress of long work: the values that generators yield, and the bar that command lines draw from them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """The progress of a stage: `done` of `total`. stage: its name for the user. unit: of the count, '' if it means nothing to a user.

    so_far: what the work would return if it ended before this stage, or None if there is nothing yet.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = "frame"
    so_far: Any = None


def result_of(work: Generator[object, None, T]) -> T:
    """Run a generator to its end without output. -> its result."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def staged(
    stage: str, work: Generator[tuple[int, int], None, T], unit: str = "frame", size: int = 0
) -> Generator[Progress, None, T]:
    """Yield the (done, total) of a generator as Progress of a stage, and return its result. size: the total if it yields 0."""
    with closing(work):
        while True:
            try:
                done, total = next(work)
            except StopIteration as stop:
                return stop.value
            yield Progress(stage, done, total or size, unit)


def changed(work: Generator[Progress, None, T], change: Callable[[Progress], Progress]) -> Generator[Progress, None, T]:
    """Yield each Progress of a generator as `change` returns it, and return its result."""
    with closing(work):
        while True:
            try:
                progress = next(work)
            except StopIteration as stop:
                return stop.value
            yield change(progress)


def drained(work: Generator[Progress, None, T]) -> T:
    """Run a generator of Progress to its end with a bar on stderr. -> its result."""
    shown, unfinished = "", False
    while True:
        try:
            progress = next(work)
        except StopIteration as stop:
            return stop.value
        except UserError:
            if unfinished:  # the sentence gets a line of its own
                print(file=sys.stderr)
            raise
        text = bar(progress)
        if text != shown:
            show_bar(progress)
        shown, unfinished = text, progress.done < progress.total


def show_bar(progress: Progress) -> None:
    """Draw the bar on stderr, over the one before."""
    print(bar(progress), end="\n" if progress.done >= progress.total else "", file=sys.stderr, flush=True)


def bar(progress: Progress) -> str:
    """A line of text with the stage, a bar and the numbers."""
    filled = 24 * progress.done // max(progress.total, 1)
    large = progress.total >= 10**6  # bytes
    done, total = (size_text(count) if large else count for count in (progress.done, progress.total))
    return f"\r{progress.stage:<22} [{'#' * filled:<24}] {done}/{total} "


Bytes = tuple[int, int]  # done, and in all (0: unknown)


def size_text(count: int) -> str:
    """A number of bytes as text: 464 MB, 1.22 GB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} bytes"

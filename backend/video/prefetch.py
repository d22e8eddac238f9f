"""Runs a generator ahead on another thread, to decode frames while the network runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

T = TypeVar("T")

DEPTH = 4  # items


def prefetch(source: Generator[T, None, None], depth: int = DEPTH) -> Generator[T, None, None]:
    """Yield the items of `source` in order. The source runs on one other thread, at most `depth` items ahead.

    An error of the source is raised here, after the items before it. Closing this ends the thread, then closes the source.
    """
    end = object()
    with closing(source), ThreadPoolExecutor(1, "anyrig-ahead") as worker:
        pending: deque[Future[T | object]] = deque()
        try:
            for _ in range(depth):
                pending.append(worker.submit(next, source, end))
            while (item := pending.popleft().result()) is not end:
                pending.append(worker.submit(next, source, end))
                yield item  # type: ignore[misc]
        finally:
            for future in pending:
                future.cancel()

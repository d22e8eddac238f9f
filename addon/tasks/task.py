"""Steps a generator of Progress to its end, on a worker thread or on the caller's own.

The worker never touches bpy: plain values go in with the generator, a plain value comes out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ...backend.errors import UserError
from ...backend.progress import Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """How far a task has come. `started` and `now` are seconds of one clock; `started` is when the stage began."""

    stage: str = "Starting"
    done: int = 0
    total: int = 0
    started: float = 0.0
    now: float = 0.0
    unit: str = ""

    @property
    def fraction(self) -> float:
        """Of the stage, 0..1."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds until the stage ends at its pace so far; None as long as nothing is done."""
        if self.done <= 0 or self.total <= 0:
            return None
        return (self.now - self.started) / self.done * max(self.total - self.done, 0)

    @property
    def text(self) -> str:
        """One line for the panel: stage, frame i of n and time left."""
        if self.total <= 0:
            return self.stage
        left = "" if self.eta is None else f", {int(self.eta) // 60}:{int(self.eta) % 60:02d} left"
        counted = f": {self.unit} {self.done} of {self.total}" if self.unit else ""
        return f"{self.stage}{counted}{left}"


class Task:
    """Runs a generator once, by `start`, by `drain` or by calls of `step`; afterwards `result` returns its value or raises its error."""

    def __init__(self, steps: Generator[Progress, None, Any]) -> None:
        self.error: UserError | None = None
        self._result: Any = None
        self._so_far: Any = None
        self._steps = steps
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._snapshot = Snapshot(started=time.monotonic())
        self._thread = threading.Thread(target=self._run, name="AnyRig", daemon=True)

    def start(self) -> Task:
        """Run on the worker thread; returns at once."""
        self._thread.start()
        return self

    def drain(self, report: Callable[[Snapshot], None] | None = None) -> Task:
        """Run on this thread until the end and call `report` after every step; for background mode and scripts."""
        self._run(report)
        return self

    def step(self) -> None:
        """Run one step on this thread, for work that needs Blender's own. The last step, or the first after `cancel`, ends the task."""
        more = False
        with self._catching_errors():
            more = self._advance()
        if not more:
            with self._catching_errors():
                self._steps.close()
            self._ended.set()

    def cancel(self) -> None:
        """Ask the task to stop before its next step; the thread that steps the generator closes it."""
        self._stop.set()

    def stop(self) -> None:
        """Cancel, and wait for the worker thread; a task that has none is closed here."""
        self.cancel()
        self.join()
        if not self.done:
            self.step()

    def join(self) -> None:
        """Wait until the worker thread has ended."""
        if self._thread.is_alive():
            self._thread.join()

    def result(self) -> Any:
        """What the generator returned; None if it was cancelled before its end. Raises UserError, with its fix, if it failed."""
        if self.error is not None:
            # a new one each time: the traceback of a raised error would keep the caller's arrays alive as long as the task
            raise UserError(str(self.error), self.error.fix)
        return self._result

    @property
    def so_far(self) -> Any:
        """What a cancelled task has found that can be used (Progress.so_far); None for nothing, and for a task that was not cancelled."""
        return self._so_far if self.cancelled else None

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop. It counts also after the last step, as long as nothing is written."""
        return self._stop.is_set()

    @property
    def progress(self) -> Snapshot:
        """The latest step, with the clock read now."""
        with self._lock:
            return replace(self._snapshot, now=time.monotonic())

    def _run(self, report: Callable[[Snapshot], None] | None = None) -> None:
        try:
            with self._catching_errors(), closing(self._steps):
                while self._advance():
                    if report is not None:
                        report(self.progress)
        finally:
            self._ended.set()

    @contextmanager
    def _catching_errors(self) -> Iterator[None]:
        """Store an exception of the block as the task's error, without its traceback, which holds the generator's tensors."""
        try:
            yield
        except UserError as error:
            self.error = UserError(str(error), error.fix)
        except Exception as error:  # the one broad except: whatever breaks must reach the panel, and the task must end
            log.exception("the task failed")
            message = f"Unexpected {type(error).__name__} ({error}): see the system console and report it."
            self.error = UserError(message, "copy_diagnostics")

    def _advance(self) -> bool:
        """Run the next step; False if there is none or the task was cancelled."""
        if self._stop.is_set():
            return False
        try:
            progress = next(self._steps)
        except StopIteration as end:
            self._result = end.value
            return False
        if progress.so_far is not None:
            self._so_far = progress.so_far
        now = time.monotonic()
        with self._lock:
            started = self._snapshot.started if progress.stage == self._snapshot.stage else now
            self._snapshot = Snapshot(progress.stage, progress.done, progress.total, started, unit=progress.unit)
        return True

"""Steps a generator of progress: on one worker thread in the background, or drained where there is none. turns.py steps the third way.

The worker never touches bpy: plain values go in with the generator, a plain value comes out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ...backend.errors import UserError

log = logging.getLogger(__name__)


class Progress(Protocol):
    """What the generator yields (backend.capture.Progress)."""

    @property
    def stage(self) -> str: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...


@dataclass(frozen=True)
class Snapshot:
    """Where a job stands. `started` and `now` are seconds of one clock; `started` is when the stage began."""

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
        """Seconds until the stage ends at the pace so far; None while there is no pace yet."""
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
    """Runs a generator to its end once, by `start`, `drain` or `turn`; then there is a `result` or an `error`, unless `cancelled`."""

    def __init__(self, steps: Generator[Progress, None, Any]) -> None:
        self.result: Any = None
        self.error: str | None = None
        self.fix = ""
        self._steps = steps
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._snapshot = Snapshot(started=time.monotonic())
        self._thread = threading.Thread(target=self._run, name="AnyRig", daemon=True)

    def start(self) -> Task:
        """Step on the worker thread; returns at once."""
        self._thread.start()
        return self

    def drain(self, report: Callable[[Snapshot], None] | None = None) -> Task:
        """Step on this thread until the end, telling `report` of every step; for background mode and scripts."""
        self._run(report)
        return self

    def cancel(self) -> None:
        """Ask the job to stop before its next step; the generator is closed by the thread that steps it."""
        self._stop.set()

    def turn(self) -> None:
        """One step on this thread, for work that needs Blender's own. The last one, or the first after `cancel`, ends the job."""
        more = False
        with self._kept():
            more = self._step()
        if not more:
            with self._kept():
                self._steps.close()
            self._ended.set()

    def stop(self) -> None:
        """Cancel, and wait until the worker has gone; what takes turns is closed here."""
        self.cancel()
        self.join()
        if not self.done:
            self.turn()

    def join(self) -> None:
        """Wait until the worker has gone."""
        if self._thread.is_alive():
            self._thread.join()

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop: as long as nothing is written, also after the last step."""
        return self._stop.is_set()

    @property
    def progress(self) -> Snapshot:
        """The latest step, with the clock read now."""
        with self._lock:
            return replace(self._snapshot, now=time.monotonic())

    def _run(self, report: Callable[[Snapshot], None] | None = None) -> None:
        try:
            with self._kept(), closing(self._steps):
                while self._step():
                    if report is not None:
                        report(self.progress)
        finally:
            self._ended.set()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """What breaks inside becomes the job's error."""
        try:
            yield
        except UserError as error:
            self.error, self.fix = str(error), error.fix
        except Exception as error:  # the one broad except: whatever breaks must reach the panel, and the job must end
            log.exception("the job failed")
            self.error = f"Unexpected {type(error).__name__} ({error}): see the system console and report it."
            self.fix = "copy_diagnostics"

    def _step(self) -> bool:
        """Whether there was one more."""
        if self._stop.is_set():
            return False
        try:
            progress = next(self._steps)
        except StopIteration as end:
            self.result = end.value
            return False
        self._note(progress)
        return True

    def _note(self, progress: Progress) -> None:
        now = time.monotonic()
        with self._lock:
            started = self._snapshot.started if progress.stage == self._snapshot.stage else now
            unit = getattr(progress, "unit", "frame")
            self._snapshot = Snapshot(progress.stage, progress.done, progress.total, started, unit=unit)

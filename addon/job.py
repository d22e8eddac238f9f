"""Steps a generator of progress: on one worker thread beside the window, or drained where there is none. turns.py steps the third way.

The worker never touches bpy: plain values go in with the generator, a plain value comes out.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import bpy

from ..backend.errors import UserError

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


class Job:
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

    def start(self) -> Job:
        """Step on the worker thread; returns at once."""
        self._thread.start()
        return self

    def drain(self, report: Callable[[Snapshot], None] | None = None) -> Job:
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


@dataclass
class _Window:
    """The one job that runs beside the window, who is told when it ends, and the last sentence for the panel."""

    job: Job | None = None
    finished: Callable[[Job], None] | None = None
    message: str = ""
    is_error: bool = False
    fix: str = ""


_window = _Window()
INTERVAL = 0.1


def current() -> Job | None:
    """The job that runs beside the window."""
    return _window.job


def message() -> tuple[str, bool]:
    """The last sentence for the panel, and whether it is an error."""
    return _window.message, _window.is_error


def fix() -> str:
    """The name of the fix that goes with the last sentence (addon/fixes.py), or ''."""
    return _window.fix


def tell(text: str, *, is_error: bool = False, fix: str = "") -> None:
    """Set the sentence that the panel shows, and the button below it."""
    _window.message, _window.is_error, _window.fix = text, is_error, fix


def tell_error(error: UserError) -> None:
    tell(str(error), is_error=True, fix=error.fix)


def run_beside_window(job: Job, finished: Callable[[Job], None]) -> None:
    """Start the job, poll it from a timer, and call `finished` on the main thread when it has ended by itself, by Cancel or by Esc."""
    occupy(job, finished)
    job.start()
    bpy.app.timers.register(tick, first_interval=INTERVAL)
    watch_for_escape()


def occupy(job: Job, finished: Callable[[Job], None]) -> None:
    """Make it the window's job, whoever steps it. Raises UserError if there is one already."""
    if _window.job is not None:
        raise UserError("A capture is already running: wait for it or cancel it.")
    _window.job, _window.finished = job, finished
    tell("")


def tick() -> float | None:
    """One turn of the timer: redraw, and hand over when the job has ended. Returns the seconds until the next turn."""
    job, finished = _window.job, _window.finished
    if job is None or finished is None:
        return None
    redraw()
    if not job.done:
        return INTERVAL
    job.join()
    _window.job = _window.finished = None
    finished(job)
    redraw()
    return None


def redraw() -> None:
    """Tag the sidebars of all 3D views, where the panel is; the views themselves may be slow to draw."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if area.type == "VIEW_3D" and region.type == "UI":
                    region.tag_redraw()


def abandon() -> None:
    """Stop the running job and wait for its thread; nobody is told. For disabling, loading a file and quitting."""
    job = _window.job
    _window.job = _window.finished = None
    if job is not None:
        job.stop()
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)


class ANYRIG_OT_cancel(bpy.types.Operator):
    bl_idname = "anyrig.cancel"
    bl_label = "Cancel Capture"
    bl_description = "Stop the running capture, as Esc does; nothing is changed"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return current() is not None

    def execute(self, _context: bpy.types.Context) -> set[str]:
        running = current()
        if running is not None:
            running.cancel()
        return {"FINISHED"}


class ANYRIG_OT_watch_escape(bpy.types.Operator):
    """Lives as long as a capture does and lets everything but Esc through to the rest of Blender."""

    bl_idname = "anyrig.watch_escape"
    bl_label = "Cancel Capture on Esc"
    bl_description = "Wait for Esc while a capture runs"
    bl_options = {"INTERNAL"}

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, _context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        running = current()
        if running is None:
            return {"CANCELLED", "PASS_THROUGH"}
        if event.type == "ESC" and event.value == "PRESS":
            running.cancel()
            return {"CANCELLED"}
        return {"PASS_THROUGH"}


def watch_for_escape() -> None:
    """Let Esc cancel the capture that was just started beside the window; also from a timer, which has no window of its own."""
    if not bpy.app.background:
        with bpy.context.temp_override(window=bpy.context.window or bpy.context.window_manager.windows[0]):
            bpy.ops.anyrig.watch_escape("INVOKE_DEFAULT")


@bpy.app.handlers.persistent
def _before_load(*_: Any) -> None:
    abandon()
    tell("")


CLASSES = (ANYRIG_OT_cancel, ANYRIG_OT_watch_escape)


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.app.handlers.load_pre.append(_before_load)
    # a torch thread still alive when the interpreter ends aborts the process
    atexit.register(abandon)


def unregister() -> None:
    abandon()
    tell("")
    atexit.unregister(abandon)
    bpy.app.handlers.load_pre.remove(_before_load)
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)

"""Runs one task at a time in the background: a timer polls it, the panel shows it, Cancel and Esc stop it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy

from ...backend.errors import UserError
from .task import Task


@dataclass
class _Window:
    """The one job that runs in the background, who is told when it ends, and the last sentence for the panel."""

    job: Task | None = None
    finished: Callable[[Task], None] | None = None
    message: str = ""
    is_error: bool = False
    fix: str = ""


_window = _Window()
INTERVAL = 0.1


def current() -> Task | None:
    """The job that runs in the background."""
    return _window.job


def status() -> tuple[str, bool]:
    """The last sentence for the panel, and whether it is an error."""
    return _window.message, _window.is_error


def status_fix() -> str:
    """The name of the fix that goes with the last sentence (addon/fixes.py), or ''."""
    return _window.fix


def set_status(text: str, *, is_error: bool = False, fix: str = "") -> None:
    """Set the sentence that the panel shows, and the button below it."""
    _window.message, _window.is_error, _window.fix = text, is_error, fix


def set_error(error: UserError) -> None:
    set_status(str(error), is_error=True, fix=error.fix)


def run_in_background(job: Task, finished: Callable[[Task], None]) -> None:
    """Start the job, poll it from a timer, and call `finished` on the main thread when it has ended by itself, by Cancel or by Esc."""
    claim(job, finished)
    job.start()
    bpy.app.timers.register(poll_current, first_interval=INTERVAL)
    watch_escape()


def claim(job: Task, finished: Callable[[Task], None]) -> None:
    """Make it the window's job, whoever steps it. Raises UserError if there is one already."""
    if _window.job is not None:
        raise UserError("A capture is already running: wait for it or cancel it.")
    _window.job, _window.finished = job, finished
    set_status("")


def poll_current() -> float | None:
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


def cancel_current() -> None:
    """Stop the running job and wait for its thread; nobody is told. For disabling, loading a file and quitting."""
    job = _window.job
    _window.job = _window.finished = None
    if job is not None:
        job.stop()
    if bpy.app.timers.is_registered(poll_current):
        bpy.app.timers.unregister(poll_current)


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


def watch_escape() -> None:
    """Let Esc cancel the capture that was just started in the background; also from a timer, which has no window of its own."""
    if not bpy.app.background:
        with bpy.context.temp_override(window=bpy.context.window or bpy.context.window_manager.windows[0]):
            bpy.ops.anyrig.watch_escape("INVOKE_DEFAULT")


@bpy.app.handlers.persistent
def _before_load(*_: Any) -> None:
    cancel_current()
    set_status("")


CLASSES = (ANYRIG_OT_cancel, ANYRIG_OT_watch_escape)


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.app.handlers.load_pre.append(_before_load)
    # a torch thread still alive when the interpreter ends aborts the process
    atexit.register(cancel_current)


def unregister() -> None:
    cancel_current()
    set_status("")
    atexit.unregister(cancel_current)
    bpy.app.handlers.load_pre.remove(_before_load)
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)


def has_window(context: bpy.types.Context) -> bool:
    """Whether a job can run beside one."""
    # a background Blender has a window in its startup file, yet its timers never fire
    return not bpy.app.background and context.window is not None

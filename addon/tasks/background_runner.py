"""Runs one task at a time in the background: a timer polls it, the panel shows it, Cancel and Esc stop it."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy

from ...backend.errors import UserError
from .registration import register_with_reset
from .task import Task

INTERVAL = 0.1  # seconds between two polls
DONE, CANCELLED, FAILED = "done", "cancelled", "failed"


@dataclass
class _State:
    """The running task, the function to call when it has ended, and the panel's status: a sentence and the name of its fix."""

    task: Task | None = None
    finished: Callable[[Task], None] | None = None
    wait: Callable[[], str] = str
    message: str = ""
    is_error: bool = False
    fix: str = ""


@dataclass(frozen=True)
class TaskOutcome:
    """How a task ended. status: DONE, CANCELLED or FAILED. message: the sentence that the panel shows."""

    status: str
    message: str


_state = _State()


def current() -> Task | None:
    """The running task, whoever steps it."""
    return _state.task


def status() -> tuple[str, bool]:
    """The sentence that the panel shows, and whether it is an error."""
    return _state.message, _state.is_error


def status_fix() -> str:
    """The name of the button below the sentence (ui/fix_buttons.py), or ''."""
    return _state.fix


def set_status(text: str, *, is_error: bool = False, fix: str = "") -> None:
    """Set the sentence that the panel shows, and the button below it."""
    _state.message, _state.is_error, _state.fix = text, is_error, fix


def set_error(error: UserError) -> None:
    set_status(str(error), is_error=True, fix=error.fix)


def conclude(task: Task, cancelled: str, done: Callable[[Any], str]) -> TaskOutcome:
    """Show in the panel how a task ended, and return it. Main thread.

    cancelled: the sentence for a cancelled task. done: uses the result of a task that succeeded and returns the sentence for it; it
    may raise UserError, and the task counts as failed then.
    """
    if task.cancelled:
        outcome = TaskOutcome(CANCELLED, cancelled)
    else:
        try:
            outcome = TaskOutcome(DONE, done(task.result()))
        except UserError as error:
            set_error(error)
            return TaskOutcome(FAILED, str(error))
    set_status(outcome.message)
    return outcome


def run_in_background(task: Task, finished: Callable[[Task], None], wait: Callable[[], str] = str) -> None:
    """Start the task on its thread and call `finished` on the main thread when it has ended by itself, by Cancel or by Esc.

    wait: what its result has to wait for, as a sentence for the panel, or ''. It is asked again until nothing is left.
    Raises UserError if another task runs.
    """
    claim(task, finished)
    _state.wait = wait
    task.start()
    bpy.app.timers.register(poll_current, first_interval=INTERVAL)
    watch_escape()


def claim(task: Task, finished: Callable[[Task], None]) -> None:
    """Make it the running task, whoever steps it. Raises UserError if another one runs."""
    if _state.task is not None:
        raise UserError("A task is already running: wait for it or cancel it.")
    _state.task, _state.finished, _state.wait = task, finished, str
    set_status("")


def poll_current() -> float | None:
    """Redraw, and call `finished` when the task has ended. The timer; returns the seconds until it polls again."""
    task, finished = _state.task, _state.finished
    if task is None or finished is None:
        return None
    redraw()
    if not task.done:
        return INTERVAL
    task.join()
    if not task.cancelled and task.error is None and (reason := _state.wait()):
        set_status(reason)
        return INTERVAL
    _state.task = _state.finished = None
    finished(task)
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
    """Stop the running task and wait for its thread, without calling `finished`. For disabling, loading a file and quitting."""
    task = _state.task
    _state.task = _state.finished = None
    if task is not None:
        task.stop()
    if bpy.app.timers.is_registered(poll_current):
        bpy.app.timers.unregister(poll_current)


class ANYRIG_OT_cancel(bpy.types.Operator):
    bl_idname = "anyrig.cancel"
    bl_label = "Cancel Task"
    bl_description = "Stop the running capture, download or movie, as Esc does"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return current() is not None

    def execute(self, _context: bpy.types.Context) -> set[str]:
        task = current()
        if task is not None:
            task.cancel()
        return {"FINISHED"}


class ANYRIG_OT_watch_escape(bpy.types.Operator):
    """Runs as long as a task on a thread does, and passes all events but Esc on to Blender."""

    bl_idname = "anyrig.watch_escape"
    bl_label = "Cancel Task on Esc"
    bl_description = "Wait for Esc while a task runs"
    bl_options = {"INTERNAL"}

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, _context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        task = current()
        if task is None:
            return {"CANCELLED", "PASS_THROUGH"}
        # a take that waits to be keyed is not lost to an Esc that was meant for something else
        if event.type == "ESC" and event.value == "PRESS" and not task.done:
            task.cancel()
            return {"CANCELLED"}
        return {"PASS_THROUGH"}


def watch_escape() -> None:
    """Let Esc cancel the task that was just started in the background."""
    if not bpy.app.background:
        # a timer, such as the queue's, has no window of its own
        with bpy.context.temp_override(window=bpy.context.window or bpy.context.window_manager.windows[0]):
            bpy.ops.anyrig.watch_escape("INVOKE_DEFAULT")


def has_window(context: bpy.types.Context) -> bool:
    """Whether a task can run in the background."""
    # a background Blender has a window in its startup file, yet its timers never fire
    return not bpy.app.background and context.window is not None


def reset() -> None:
    """Stop the running task and clear the status."""
    cancel_current()
    set_status("")


CLASSES = (ANYRIG_OT_cancel, ANYRIG_OT_watch_escape)
_register_classes, _unregister_classes = register_with_reset(CLASSES, reset)


def register() -> None:
    _register_classes()
    # a torch thread still alive when the interpreter ends aborts the process
    atexit.register(cancel_current)


def unregister() -> None:
    _unregister_classes()
    atexit.unregister(cancel_current)

"""Runs a task that needs Blender's own thread, as rendering does: one step between two redraws, with only Esc passing through.

A step may leave something in the scene that the next one removes, so the user must not change or undo anything in between. If that
happens from another window, the task is closed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import background_runner
from .task import Task

INTERVAL = 0.01  # seconds between two steps, in which the window is drawn


@dataclass
class _State:
    """The task that is stepped here, and the window's timer for its steps."""

    task: Task | None = None
    timer: Any = None


_state = _State()


def running() -> Task | None:
    """The running task if it is stepped here."""
    return _state.task if _state.task is background_runner.current() else None


def run_modal(task: Task, finished: Callable[[Task], None]) -> None:
    """Step the task from the window's timer, and call `finished` when it has ended by itself or by Esc.

    Raises UserError if another task runs.
    """
    background_runner.claim(task, finished)
    _state.task = task
    if not bpy.app.background:
        bpy.ops.anyrig.run_modal("INVOKE_DEFAULT")


def step_once() -> Task | None:
    """Run one step, and call `finished` if it was the last. Returns the task if there is more to do."""
    task = running()
    if task is not None:
        task.step()
        background_runner.poll_current()
    _state.task = running()
    return _state.task


class ANYRIG_OT_run_modal(bpy.types.Operator):
    """Runs as long as the task does, and keeps all events but Esc from the rest of Blender."""

    bl_idname = "anyrig.run_modal"
    bl_label = "Wait for a Task"
    bl_description = "Step a task on Blender's own thread, and wait for Esc"
    bl_options = {"INTERNAL"}

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        window = context.window or context.window_manager.windows[0]
        _state.timer = context.window_manager.event_timer_add(INTERVAL, window=window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        task = running()
        if task is not None and event.type == "ESC" and event.value == "PRESS":
            task.cancel()
        if task is None or event.type == "TIMER":
            task = step_once()
            if task is None:
                self.cancel(context)
                return {"CANCELLED"}
            context.workspace.status_text_set(f"{task.progress.text}   {iface_('Esc: Cancel')}")
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file, or quitting."""
        reset()
        if context.workspace is not None:
            context.workspace.status_text_set(None)


def reset() -> None:
    """Close the task, if it has not ended, which restores what it changed; and remove the timer."""
    if running():
        background_runner.cancel_current()
    _state.task = None
    if _state.timer is not None:
        bpy.context.window_manager.event_timer_remove(_state.timer)
        _state.timer = None


@bpy.app.handlers.persistent
def _before_undo(*_: Any) -> None:
    if running():
        reset()
        background_runner.set_status("Cancelled: nothing was changed.")


HANDLERS = (bpy.app.handlers.undo_pre, bpy.app.handlers.redo_pre)


def register() -> None:
    bpy.utils.register_class(ANYRIG_OT_run_modal)
    for each in HANDLERS:
        each.append(_before_undo)


def unregister() -> None:
    reset()
    for each in HANDLERS:
        each.remove(_before_undo)
    bpy.utils.unregister_class(ANYRIG_OT_run_modal)

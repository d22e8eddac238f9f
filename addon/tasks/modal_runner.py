"""Jobs that need Blender's own thread, as rendering does: a step at a time between redraws, while nothing but Esc gets through.

The step before may have left something in the scene that the next one takes away, so the user must not change or undo anything
meanwhile; if another window does, the job is closed first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from . import background_runner, task

INTERVAL = 0.01  # seconds between two steps, in which the window is drawn


@dataclass
class _Modal:
    """The job that takes turns, and the window's timer that gives them."""

    job: job.Job | None = None
    timer: Any = None


_turns = _Modal()


def running() -> task.Task | None:
    """The current job, if it is one that takes turns."""
    return _turns.job if _turns.job is background_runner.current() else None


def run_modal(work: task.Task, finished: Callable[[task.Task], None]) -> None:
    """Step the job from the window's timer, and call `finished` when it has ended by itself or by Esc. Raises UserError if one runs."""
    background_runner.claim(work, finished)
    _turns.job = work
    if not bpy.app.background:
        bpy.ops.anyrig.take_turns("INVOKE_DEFAULT")


def step_once() -> task.Task | None:
    """One step; hands over when it was the last. Returns the job if there is more to do."""
    work = running()
    if work is not None:
        work.turn()
        background_runner.poll_current()
    _turns.job = running()
    return _turns.job


class ANYRIG_OT_run_modal(bpy.types.Operator):
    """Lives as long as the job does and keeps everything but Esc from the rest of Blender."""

    bl_idname = "anyrig.take_turns"
    bl_label = "Wait for a Job"
    bl_description = "Step a job on Blender's own thread, and wait for Esc"
    bl_options = {"INTERNAL"}

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        window = context.window or context.window_manager.windows[0]
        _turns.timer = context.window_manager.event_timer_add(INTERVAL, window=window)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        work = running()
        if work is not None and event.type == "ESC" and event.value == "PRESS":
            work.cancel()
        if work is None or event.type == "TIMER":
            work = step_once()
            if work is None:
                self.cancel(context)
                return {"CANCELLED"}
            context.workspace.status_text_set(f"{work.progress.text}   {iface_('Esc: Cancel')}")
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file, or quitting."""
        cancel_current()
        if context.workspace is not None:
            context.workspace.status_text_set(None)


def cancel_current() -> None:
    """Close the job, if it has not ended: what it changed is put back."""
    if running():
        background_runner.cancel_current()
    _turns.job = None
    if _turns.timer is not None:
        bpy.context.window_manager.event_timer_remove(_turns.timer)
        _turns.timer = None


@bpy.app.handlers.persistent
def _before_undo(*_: Any) -> None:
    if running():
        cancel_current()
        background_runner.set_status("Cancelled: nothing was changed.")


HANDLERS = (bpy.app.handlers.undo_pre, bpy.app.handlers.redo_pre)


def register() -> None:
    bpy.utils.register_class(ANYRIG_OT_run_modal)
    for each in HANDLERS:
        each.append(_before_undo)


def unregister() -> None:
    cancel_current()
    for each in HANDLERS:
        each.remove(_before_undo)
    bpy.utils.unregister_class(ANYRIG_OT_run_modal)

"""Capture from Video, and Cancel."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import bpy

from ..backend.errors import UserError
from . import estimate, job, panels
from .props import armatures_from_context, params_from_context

if TYPE_CHECKING:
    from .capture import Result, Take


class ANYRIG_OT_capture(bpy.types.Operator):
    bl_idname = "anyrig.capture"
    bl_label = "Capture from Video"
    bl_description = "Key the motion seen in the video onto the armature, or all selected ones in one run, as new actions"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = _obstacle(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Blocks until the keys are there: background mode and scripts."""
        try:
            capture = _load()
            take, results, _ = capture.run_capture(context, armatures_from_context(context), params_from_context(context))
        except UserError as error:
            return self._refuse(error)
        _succeeded(take, results)
        return {"FINISHED"}

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        """Starts the job and returns; the keys and their undo step come when it has ended."""
        if not _has_window(context):
            return self.execute(context)
        try:
            capture = _load()
            take = capture.gather(context, armatures_from_context(context), params_from_context(context))
            job.run_beside_window(job.Job(capture.steps(take)), lambda ended: finish(take, ended))
        except UserError as error:
            return self._refuse(error)
        watch_for_escape()
        # nothing has changed yet, so there must be no undo step yet
        return {"CANCELLED"}

    def _refuse(self, error: UserError) -> set[str]:
        job.tell_error(error)
        self.report({"ERROR"}, str(error))
        return {"CANCELLED"}


class ANYRIG_OT_cancel(bpy.types.Operator):
    bl_idname = "anyrig.cancel"
    bl_label = "Cancel Capture"
    bl_description = "Stop the running capture, as Esc does; nothing is changed"

    @classmethod
    def poll(cls, _context: bpy.types.Context) -> bool:
        return job.current() is not None

    def execute(self, _context: bpy.types.Context) -> set[str]:
        running = job.current()
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
        running = job.current()
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


def finish(take: Take, ended: job.Job) -> None:
    """Main thread, when a job beside the window has ended: write the keys as one undo step, or say why there are none."""
    if ended.cancelled:
        job.tell("Cancelled: nothing was changed.")
        return
    try:
        if ended.error is not None:
            raise UserError(ended.error, ended.fix)
        _load().write(take, ended.result)
    except UserError as error:
        job.tell_error(error)
        return
    _push_undo()
    _succeeded(take, ended.result)


def _has_window(context: bpy.types.Context) -> bool:
    # a background Blender has a window in its startup file, yet its timers never fire
    return not bpy.app.background and context.window is not None


def _load() -> ModuleType:
    """The capture module; it needs OpenCV, which a wrong zip may lack."""
    try:
        from . import capture
    except ImportError as error:
        raise UserError(f"A library is missing ({error}): install the AnyRig zip made for this system.") from error
    return capture


def _obstacle(context: bpy.types.Context) -> str:
    """Why a capture cannot start, or ''."""
    if job.current() is not None:
        return "A capture is running"
    if not armatures_from_context(context):
        return "Pick an armature"
    return "" if context.scene.anyrig.video else "Pick a video"


def _push_undo() -> None:
    # a timer has no window of its own, which the operator's poll asks for
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        bpy.ops.ed.undo_push(message=ANYRIG_OT_capture.bl_label)


def _succeeded(take: Take, results: list[Result]) -> None:
    panels.show_view(results[0].view.picture)
    _learn(take, results)
    frames = len(results[0].motion)
    names = [subject.rig.name for subject in take.subjects]
    onto = "" if len(names) == 1 else f" onto {', '.join(names)}"
    notes = "".join(f" {note}" for note in results[0].motion.provenance.get("notes", ()))
    job.tell(f"'{take.name}': {frames} frames of video keyed{onto} from frame {take.start_frame} on.{notes}")


def _learn(take: Take, results: list[Result]) -> None:
    """What the capture took makes the next estimate better."""
    props, settings = bpy.context.scene.anyrig, take.params.settings
    seconds = results[0].motion.provenance.get("seconds")
    if not seconds or bpy.path.abspath(props.video) != take.params.clip.path:  # another video was chosen meanwhile
        return
    size, joints = (props.video_size[0], props.video_size[1]), sum(len(subject.rig.names) for subject in take.subjects)
    work = estimate.Work(len(results[0].motion), size, len(results), joints, settings.model, settings.device)
    estimate.RATES.learn(work, seconds)


CLASSES = (ANYRIG_OT_capture, ANYRIG_OT_cancel, ANYRIG_OT_watch_escape)


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)


def unregister() -> None:
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)

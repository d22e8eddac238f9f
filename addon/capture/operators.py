"""Capture from Video."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import bpy

from ...backend.errors import UserError
from ..settings.capture_params import params_from_context
from ..settings.chosen_armatures import armatures_from_context
from ..tasks import background_runner, task
from ..ui.operator_base import AnyRigOperator
from . import estimate, panels

if TYPE_CHECKING:
    from .run_capture import CaptureRequest, CaptureResult


class ANYRIG_OT_capture(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.capture"
    bl_label = "Capture from Video"
    bl_description = "Key the motion seen in the video onto the armature, or all selected ones in one run, as new actions"
    bl_options = {"REGISTER", "UNDO"}

    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        missing = "" if armatures_from_context(context) else "Pick an armature"
        return super().obstacle(context) or missing or ("" if context.scene.anyrig.video else "Pick a video")

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        done = self.execute(context)
        # a capture that was started has changed nothing yet, so there must be no undo step yet
        return {"CANCELLED"} if self.in_background else done

    def run(self, context: bpy.types.Context) -> str:
        """Start the capture if a user clicked; its keys and their undo step come when it has ended. Else wait for the keys."""
        capture = load_capture()
        objects, params = armatures_from_context(context), params_from_context(context)
        if self.in_background:
            take = capture.gather(context, objects, params)
            background_runner.run_in_background(task.Task(capture.steps(take)), lambda ended: finish(take, ended))
        else:
            take, results, _ = capture.run_capture(context, objects, params)
            _succeeded(take, results)
        return ""


def finish(take: CaptureRequest, ended: task.Task) -> None:
    """Main thread, when a job in the background has ended: write the keys as one undo step, or say why there are none."""
    if ended.cancelled:
        background_runner.set_status("Cancelled: nothing was changed.")
        return
    try:
        if ended.error is not None:
            raise UserError(ended.error, ended.fix)
        load_capture().write(take, ended.result)
    except UserError as error:
        background_runner.set_error(error)
        return
    _push_undo()
    _succeeded(take, ended.result)


def load_capture() -> ModuleType:
    """The capture module; it needs OpenCV, which a wrong zip may lack."""
    try:
        from . import run_capture
    except ImportError as error:
        raise UserError(f"A library is missing ({error}): install the AnyRig zip made for this system.") from error
    return run_capture


def _push_undo() -> None:
    # a timer has no window of its own, which the operator's poll asks for
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        bpy.ops.ed.undo_push(message=ANYRIG_OT_capture.bl_label)


def _succeeded(take: CaptureRequest, results: list[CaptureResult]) -> None:
    panels.show_view(results[0].view.image)
    _learn(take, results)
    frames = len(results[0].motion)
    names = [subject.rig.name for subject in take.subjects]
    onto = "" if len(names) == 1 else f" onto {', '.join(names)}"
    notes = "".join(f" {note}" for note in results[0].motion.provenance.get("notes", ()))
    background_runner.set_status(f"'{take.name}': {frames} frames of video keyed{onto} from frame {take.start_frame} on.{notes}")


def _learn(take: CaptureRequest, results: list[CaptureResult]) -> None:
    """What the capture took makes the next estimate better."""
    props, settings = bpy.context.scene.anyrig, take.params.settings
    seconds = results[0].motion.provenance.get("seconds")
    if not seconds or bpy.path.abspath(props.video) != take.params.clip.path:  # another video was chosen meanwhile
        return
    size, joints = (props.video_size[0], props.video_size[1]), sum(len(subject.rig.names) for subject in take.subjects)
    work = estimate.Work(len(results[0].motion), size, len(results), joints, settings.model, settings.device)
    estimate.RATES.learn(work, seconds)


CLASSES = (ANYRIG_OT_capture,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

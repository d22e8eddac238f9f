"""The operator Capture from Video."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import bpy

from ...backend.errors import missing_library
from ..settings import view_sides
from ..settings.capture_params import params_from_context
from ..settings.chosen_armatures import armatures_from_context
from ..tasks import background_runner
from ..tasks.task import Task
from ..ui.operator_base import AnyRigOperator
from . import estimate, keep_unrefined

if TYPE_CHECKING:
    from .run_capture import CaptureRequest, CaptureResult

CANCELLED = "Cancelled: nothing was changed."


class ANYRIG_OT_capture(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.capture"
    bl_label = "Capture from Video"
    bl_description = "Key the motion of the video onto the armature, or onto all selected ones in one run, as new actions"
    bl_options = {"REGISTER", "UNDO"}

    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        missing = "" if armatures_from_context(context) else "Pick an armature"
        return super().obstacle(context) or missing or ("" if context.scene.anyrig.video else "Pick a video")

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        done = self.execute(context)
        # a capture that has only started changed nothing, so there must be no undo step yet
        return {"CANCELLED"} if self.in_background else done

    def run(self, context: bpy.types.Context) -> str:
        """Start the capture in the background if a user clicked; `finish` writes the keys. Otherwise wait for the keys."""
        capture = load_capture()
        objects, params = armatures_from_context(context), params_from_context(context)
        if self.in_background:
            request = capture.gather(context, objects, params)
            keep_unrefined.reset()
            background_runner.run_in_background(
                Task(capture.steps(request)), lambda task: _finish_and_push_undo(request, task), lambda: waits_for(request)
            )
        else:
            request, results, _ = capture.run_capture(context, objects, params)
            background_runner.set_status(_describe(request, results))
        return ""


def finish(request: CaptureRequest, task: Task) -> background_runner.TaskOutcome:
    """Write the keys of a capture that ran in the background, show in the panel how it ended, and return it. Main thread.

    The undo step is the caller's: the queue changes its list in the same step.
    """
    return background_runner.conclude(task, CANCELLED, lambda results: write_results(request, results))


def write_results(request: CaptureRequest, results: list[CaptureResult]) -> str:
    """Write the keys of a capture. Returns the panel's sentence. Raises UserError; nothing is changed then."""
    load_capture().write(request, results)
    return _describe(request, results)


def _finish_and_push_undo(request: CaptureRequest, task: Task) -> None:
    """As `finish`, with an undo step; after Cancel while the take was refined, the user may keep it as it was before that."""
    outcome = finish(request, task)
    if outcome.status == background_runner.DONE:
        push_undo()
    elif outcome.status == background_runner.CANCELLED and task.so_far is not None:
        keep_unrefined.offer(*load_capture().unrefined(request, task.so_far))
        background_runner.set_status(keep_unrefined.OFFER)


def waits_for(request: CaptureRequest) -> str:
    """What the keys of a capture have to wait for, in a sentence: a render, or an armature in edit mode. '' for nothing."""
    if is_rendering():
        return "The take is ready: it is keyed when the render ends."
    uids = {subject.uid for subject in request.subjects}
    edited = [obj for obj in bpy.data.objects if obj.session_uid in uids and obj.type == "ARMATURE" and obj.data.is_editmode]
    return f"The take is ready: leave edit mode of armature '{edited[0].name}' to key it." if edited else ""


def is_rendering() -> bool:
    return bpy.app.is_job_running("RENDER")


def load_capture() -> ModuleType:
    """Import run_capture. Raises UserError if a library is missing, as in a zip made for another system."""
    try:
        from . import run_capture
    except ImportError as error:
        raise missing_library(error) from error
    return run_capture


def push_undo(message: str = "Capture from Video") -> None:
    """Make an undo step of work that ran in the background."""
    # a timer has no window of its own, which the operator's poll asks for
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=window):
        bpy.ops.ed.undo_push(message=message)


def _describe(request: CaptureRequest, results: list[CaptureResult]) -> str:
    """The panel's sentence for a capture that succeeded; also shows its view and learns from its times."""
    view_sides.show_capture(results[0].view.image)
    _learn(request, results)
    frames = len(results[0].motion)
    names = [subject.rig.name for subject in request.subjects]
    onto = "" if len(names) == 1 else f" onto {', '.join(names)}"
    notes = "".join(f" {note}" for note in results[0].motion.provenance.get("notes", ()))
    return f"'{request.name}': {frames} frames of video keyed{onto} from frame {request.start_frame} on.{notes}"


def _learn(request: CaptureRequest, results: list[CaptureResult]) -> None:
    """Let the times that the capture took improve the next estimate."""
    about, settings = results[0].motion.provenance, request.params.settings
    seconds = about.get("seconds")
    if seconds and any(request.video_size):
        joints = sum(len(subject.rig.names) for subject in request.subjects)
        frames, size = len(results[0].motion), request.video_size
        looks = estimate.looks_for(request.params.clip.matte or "", about.get("settings", {}).get("isnet", settings.isnet))
        how = (settings.model, settings.device, settings.refine_mode, looks)
        work = estimate.Work(frames, size, len(results), joints, *how)
        estimate.RATES.learn(work, seconds)


CLASSES = (ANYRIG_OT_capture,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

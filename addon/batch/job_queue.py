"""The queue of jobs in the panel: armatures, a video and settings each, captured one after another in the background.

A job keeps the settings with which it was added. The reference views of all rigs are rendered when the queue starts, before the
first keys are written, so that the second video onto a rig does not start from the pose of the first.
"""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import CollectionProperty, EnumProperty, IntProperty, PointerProperty, StringProperty

from ...backend.capture_settings import Settings
from ...backend.errors import UserError
from ...backend.video.clip import Clip
from ..capture import operators
from ..rig.keyed_bones import SELECTED, chosen_bones
from ..settings.capture_params import CaptureParams
from ..tasks import background_runner
from ..tasks.registration import register_with_reset
from ..tasks.task import Task
from . import jobs_file

if TYPE_CHECKING:
    from ..capture.run_capture import ArmatureInput, CaptureRequest

WAITING, DONE, FAILED = "WAITING", "DONE", "FAILED"
STATES = ((WAITING, "Waiting", ""), (DONE, "Done", ""), (FAILED, "Failed", ""))
PAUSE = 0.05  # seconds between two jobs, in which the window is drawn


class ANYRIG_QueueArmature(bpy.types.PropertyGroup):
    object: PointerProperty(name="Armature", description="Armature that the job animates", type=bpy.types.Object)
    bones: StringProperty(name="Bones", description="Bones that were selected when the job was added, as a JSON list")


class ANYRIG_QueueJob(bpy.types.PropertyGroup):
    key: StringProperty(name="Key", description="Identifies the job")
    armatures: CollectionProperty(type=ANYRIG_QueueArmature)
    video: StringProperty(name="Video", description="File name of the video")
    params: StringProperty(name="Settings", description="Settings of the capture, under the keys of a jobs file")
    state: EnumProperty(name="State", description="Whether the job waits, is done or failed", items=STATES)
    message: StringProperty(name="Message", description="Why the job failed")


class ANYRIG_Queue(bpy.types.PropertyGroup):
    jobs: CollectionProperty(type=ANYRIG_QueueJob)
    index: IntProperty(name="Job", description="Job chosen in the list")


# ---- the content of a job


def params_from_json(text: str) -> CaptureParams:
    """The settings of a job, from the values that a jobs file holds. Raises UserError if they are damaged or of a newer version."""
    try:
        values = json.loads(text)
        if "clip" in values:
            return _params_of_version_0_1(**values)
        faults = jobs_file.faults_in(values)
        if faults:
            raise ValueError(faults[0])
        return jobs_file.params_of(values)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"The queued job's settings cannot be read ({error}): remove it and add it again.") from error


def _params_of_version_0_1(clip: dict[str, Any], settings: dict[str, Any], **others: Any) -> CaptureParams:
    """Queues that version 0.1 saved hold the fields of the settings' classes."""
    box = clip.pop("box", None)
    return CaptureParams(Clip(**clip, box=box and tuple(box)), Settings(**settings), **others)


def add(scene: bpy.types.Scene, objects: Sequence[bpy.types.Object], params: CaptureParams) -> ANYRIG_QueueJob:
    """Add a job at the end. It stores the current frame and the selected bones, if the settings refer to them.

    Raises UserError if an armature has no selected bones, or not the bone collection, that the settings refer to.
    """
    bones = [chosen_bones(obj, params.bones, params.collection) for obj in objects]
    start = scene.frame_current if params.start_frame is None else params.start_frame
    queue = scene.anyrig_queue
    item = queue.jobs.add()
    item.key, item.params = uuid.uuid4().hex, json.dumps(jobs_file.values_of(replace(params, start_frame=start), str))
    item.video = Path(params.clip.path.replace("\\", "/")).name
    for obj, names in zip(objects, bones, strict=True):
        each = item.armatures.add()
        # a collection is looked up again when the job runs
        each.object, each.bones = obj, json.dumps(names) if params.bones == SELECTED else ""
    queue.index = len(queue.jobs) - 1
    return item


def objects_of(item: ANYRIG_QueueJob) -> list[bpy.types.Object]:
    """The job's armatures. Raises UserError if one is gone."""
    found = [each.object for each in item.armatures]
    if not found or any(obj is None or not obj.users_scene for obj in found):
        raise UserError("An armature of this job was deleted: remove the job, or undo the deletion.")
    return found


def bones_of(item: ANYRIG_QueueJob) -> list[list[str] | None]:
    """The bones that were selected in each armature when the job was added; None where the settings choose others."""
    return [json.loads(each.bones) if each.bones else None for each in item.armatures]


def names_of(item: ANYRIG_QueueJob) -> str:
    return ", ".join(each.object.name if each.object else "(deleted)" for each in item.armatures)


def waiting(scene: bpy.types.Scene) -> list[ANYRIG_QueueJob]:
    return [item for item in scene.anyrig_queue.jobs if item.state == WAITING]


# ---- running


@dataclass
class _Run:
    """The running queue: the jobs still to do, the current one, and the states of those that ended. No bpy objects."""

    todo: list[tuple[str, CaptureRequest]] = field(default_factory=list)
    scene_uid: int = 0
    key: str = ""
    task: Task | None = None
    ended: dict[str, str] = field(default_factory=dict)


_run = _Run()


def running_key() -> str:
    """The key of the queue's job that is being captured now, or ''."""
    return _run.key if _run.task is not None and _run.task is background_runner.current() else ""


def find(key: str) -> ANYRIG_QueueJob | None:
    """The job of the running queue, unless it was removed meanwhile."""
    scene = next((each for each in bpy.data.scenes if each.session_uid == _run.scene_uid), None)
    return None if scene is None else next((item for item in scene.anyrig_queue.jobs if item.key == key), None)


def gather_all(context: bpy.types.Context) -> list[tuple[str, CaptureRequest]]:
    """The requests of all waiting jobs. A job that cannot start fails at once; equal views are rendered once."""
    capture = operators.load_capture()
    known: dict[Any, tuple[ArmatureInput, ...]] = {}
    requests = []
    for item in waiting(context.scene):
        try:
            objects, bones = objects_of(item), bones_of(item)
            params = capture.with_preferences(context, params_from_json(item.params))
            # the views of a rig do not depend on the video
            alike = (
                tuple(obj.session_uid for obj in objects),
                tuple(each.bones for each in item.armatures),
                replace(params, clip=Clip(""), settings=Settings(), start_frame=0),
            )
            if alike not in known:
                known[alike] = capture.gather(context, objects, params, bones).subjects
            requests.append((item.key, capture.request_of(context.scene, params, known[alike])))
        except UserError as error:
            set_state(item.key, FAILED, str(error))
    return requests


def set_state(key: str, state: str, message: str = "") -> None:
    """Store the state of a job, also in the list if the job is still there."""
    _run.ended[key] = state
    item = find(key)
    if item is not None:
        item.state, item.message = state, message


def start(context: bpy.types.Context) -> None:
    """Start to run the waiting jobs in the background. Raises UserError if a library is missing."""
    _begin(context)
    step()


def _begin(context: bpy.types.Context) -> None:
    _run.todo, _run.ended, _run.scene_uid = [], {}, context.scene.session_uid
    _run.todo = gather_all(context)


def step() -> float | None:
    """Start the next job, or show how the queue ended. Also a timer, which repeats while another task runs."""
    if background_runner.current() is not None:
        return PAUSE
    while _run.todo:
        _run.key, request = _run.todo.pop(0)
        if find(_run.key) is None:  # removed meanwhile
            continue
        try:
            _run.task = Task(operators.load_capture().steps(request))
            background_runner.run_in_background(
                _run.task,
                lambda task, request=request: _finish(request, task),
                lambda request=request: operators.waits_for(request),
            )
            return None
        except UserError as error:
            set_state(_run.key, FAILED, str(error))
    _run.task = None
    _report_end()
    return None


def _finish(request: CaptureRequest, task: Task) -> None:
    """Write the keys of the job that has ended, and its state in the same undo step; then go on with the next."""
    outcome = operators.finish(request, task)
    if outcome.status == background_runner.CANCELLED:
        set_state(_run.key, WAITING)
        reset()
        return
    if outcome.status == background_runner.DONE:
        set_state(_run.key, DONE)
        operators.push_undo()
    else:
        set_state(_run.key, FAILED, outcome.message)
    bpy.app.timers.register(step, first_interval=PAUSE)


def run_here(context: bpy.types.Context) -> None:
    """Run the waiting jobs and wait; for background mode and scripts. Raises UserError if a library is missing."""
    _begin(context)
    capture = operators.load_capture()
    while _run.todo:
        key, request = _run.todo.pop(0)
        try:
            capture.write(request, Task(capture.steps(request)).drain().result())
            set_state(key, DONE)
        except UserError as error:
            set_state(key, FAILED, str(error))
    _report_end()


def _report_end() -> None:
    background_runner.set_status(summary(), is_error=FAILED in _run.ended.values())


def summary() -> str:
    states = list(_run.ended.values())
    failed = states.count(FAILED)
    ending = f", {failed} failed: see the list." if failed else "."
    return f"Queue: {states.count(DONE)} of {len(states)} {'job' if len(states) == 1 else 'jobs'} done{ending}"


def reset() -> None:
    """Forget the jobs that are still to do: one was cancelled, another file is loaded, or the add-on is disabled."""
    _run.todo, _run.task, _run.key = [], None, ""
    if bpy.app.timers.is_registered(step):
        bpy.app.timers.unregister(step)


CLASSES = (ANYRIG_QueueArmature, ANYRIG_QueueJob, ANYRIG_Queue)
_register_classes, _unregister_classes = register_with_reset(CLASSES, reset)


def register() -> None:
    _register_classes()
    bpy.types.Scene.anyrig_queue = PointerProperty(type=ANYRIG_Queue)


def unregister() -> None:
    reset()
    del bpy.types.Scene.anyrig_queue
    _unregister_classes()

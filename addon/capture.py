"""A capture in three steps: gather from the armatures, compute away from bpy, write the keys.

Between the first step and the last the user may undo, rename or delete, so objects are held by session_uid and name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np

from ..backend.camera import side_azimuths
from ..backend.errors import UserError
from ..backend.motion import Motion
from ..backend.rig import Reference, Rig
from ..backend.rotation import Array
from .job import Job, Snapshot
from .keying import write_motion
from .props import CaptureParams
from .rig import rig_from_armature
from .view import draw_capsules, render_meshes

if TYPE_CHECKING:
    from ..backend.capture import Progress

INSTALL = "install the AnyRig zip made for this system, which brings it along"
# a pose bone's own channels and how many numbers each has
CHANNELS = {"location": 3, "rotation_quaternion": 4, "rotation_euler": 3, "rotation_axis_angle": 4, "scale": 3}


@dataclass(frozen=True, eq=False)
class Subject:
    """One armature of a take.

    pose: (J, 4, 4) the reference pose. azimuths: the sides to see it from, several or the one that the user chose.
    references: the views of its meshes; none of an armature without, which the job draws as capsules.
    """

    uid: int
    rig: Rig
    pose: Array
    azimuths: tuple[float, ...]
    references: tuple[Reference, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What the capture found for one armature, and the view of it that looked most like the video."""

    motion: Motion
    view: Reference


@dataclass(frozen=True, eq=False)
class Take:
    """All that the job and the writing of its keys need, without any bpy object."""

    params: CaptureParams
    subjects: tuple[Subject, ...]
    scene_uid: int
    start_frame: int

    @property
    def name(self) -> str:
        """What the actions are called: the video's file name without its ending."""
        return Path(self.params.clip.path).stem


def gather(context: bpy.types.Context, objects: Sequence[bpy.types.Object], params: CaptureParams) -> Take:
    """Read rigs and poses and render the reference views. Main thread; changes nothing.

    Raises UserError: no armature, or what `rig_from_armature` and `render_meshes` raise.
    """
    if not objects:
        raise UserError("No armature is chosen: select one, or pick one in the AnyRig panel.")
    azimuths = tuple(side_azimuths()) if params.azimuth is None else (params.azimuth,)
    subjects = []
    for obj in objects:
        rig = rig_from_armature(obj)
        pose, references = render_meshes(obj, rig, azimuths, frame=params.reference_frame, engine=params.engine)
        subjects.append(Subject(obj.session_uid, rig, pose, azimuths, tuple(references)))
    scene = context.scene
    start = scene.frame_current if params.start_frame is None else params.start_frame
    return Take(params, tuple(subjects), scene.session_uid, start)


def steps(take: Take) -> Generator[Progress, None, list[Result]]:
    """The computation; safe on any thread. torch is loaded here, so that the window does not wait for it either."""
    try:
        from ..backend.capture import Target, capture
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load (Windows)
        raise UserError(f"PyTorch cannot be loaded ({error}): {INSTALL}.") from error
    targets = []
    for subject in take.subjects:
        references = subject.references or tuple(draw_capsules(subject.rig, subject.pose, subject.azimuths))
        targets.append(Target(subject.rig, references))
    motions = yield from capture(targets, take.params.clip, take.params.settings)
    return [Result(motion, target.references[motion.provenance["view"]]) for motion, target in zip(motions, targets, strict=True)]


def write(take: Take, results: Sequence[Result]) -> list[bpy.types.Action]:
    """Key every armature; all of them or, when one raises UserError, none. Main thread."""
    scene = _find(bpy.data.scenes, take.scene_uid)
    if scene is None:
        raise UserError("The scene was deleted during the capture: undo that, then capture again.")
    objects = []
    for subject in take.subjects:
        obj = _find(bpy.data.objects, subject.uid)
        if obj is None:
            raise UserError(f"Armature '{subject.rig.name}' was deleted during the capture: undo that, then capture again.")
        objects.append(obj)
    fps = scene.render.fps / scene.render.fps_base
    actions = []
    with _all_or_none(objects):
        for obj, subject, result in zip(objects, take.subjects, results, strict=True):
            where = {"name": take.name, "start_frame": take.start_frame, "fps": fps}
            actions.append(write_motion(obj, subject.rig, result.motion, subject.pose, **where))
    return actions


def run_capture(
    context: bpy.types.Context,
    objects: Sequence[bpy.types.Object],
    params: CaptureParams,
    report: Callable[[Snapshot], None] | None = None,
) -> tuple[Take, list[Result], list[bpy.types.Action]]:
    """Capture onto the armatures and wait for it; for background mode and scripts. `report` is told of every step.

    Raises UserError with what went wrong; the file is then as it was.
    """
    take = gather(context, objects, params)
    job = Job(steps(take)).drain(report)
    if job.error is not None:
        raise UserError(job.error)
    return take, job.result, write(take, job.result)


def _find(collection: bpy.types.bpy_prop_collection, uid: int) -> bpy.types.ID | None:
    return next((item for item in collection if item.session_uid == uid), None)


@contextmanager
def _all_or_none(objects: Sequence[bpy.types.Object]) -> Iterator[None]:
    """Put animation and poses back as they were, and drop new actions, if the block raises."""
    before = [_Animation.of(obj) for obj in objects]
    actions = set(bpy.data.actions)
    try:
        yield
    except BaseException:
        for obj, animation in zip(objects, before, strict=True):
            animation.restore(obj)
        bpy.data.batch_remove(set(bpy.data.actions) - actions)
        raise


@dataclass(frozen=True, eq=False)
class _Animation:
    """Which action an object used, and its bones' own channels, which playing another action overwrites.

    Held only while keys are written.
    """

    exists: bool
    action: bpy.types.Action | None
    slot: Any
    fake_user: bool
    channels: dict[str, Array]

    @classmethod
    def of(cls, obj: bpy.types.Object) -> _Animation:
        data, bones = obj.animation_data, obj.pose.bones
        channels = {name: np.empty(width * len(bones), np.float32) for name, width in CHANNELS.items()}
        for name, values in channels.items():
            bones.foreach_get(name, values)
        action = data and data.action
        return cls(data is not None, action, getattr(data, "action_slot", None), bool(action and action.use_fake_user), channels)

    def restore(self, obj: bpy.types.Object) -> None:
        if not self.exists:
            obj.animation_data_clear()
        elif obj.animation_data.action != self.action:
            obj.animation_data.action = self.action
            if self.slot is not None:
                obj.animation_data.action_slot = self.slot
        if self.action is not None:
            self.action.use_fake_user = self.fake_user
        for name, values in self.channels.items():
            obj.pose.bones.foreach_set(name, values)
        obj.update_tag()

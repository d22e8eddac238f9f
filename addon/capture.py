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

from ..backend.errors import UserError
from ..backend.motion import Motion
from ..backend.rig import Reference, Rig
from ..backend.rotation import Array
from .job import Job, Snapshot
from .keying import write_motion
from .props import SIDES, CaptureParams
from .rig import rig_from_armature
from .view import render_views

if TYPE_CHECKING:
    from ..backend.capture import Progress

INSTALL = "install the AnyRig zip made for this system, which brings it along"
# a pose bone's own channels and how many numbers each has
CHANNELS = {"location": 3, "rotation_quaternion": 4, "rotation_euler": 3, "rotation_axis_angle": 4, "scale": 3}


@dataclass(frozen=True, eq=False)
class Subject:
    """One armature of a take. references: the pose from several sides, or from the one that the user chose."""

    uid: int
    rig: Rig
    references: tuple[Reference, ...]


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

    Raises UserError: no armature, or what `rig_from_armature` and `render_views` raise.
    """
    if not objects:
        raise UserError("No armature is chosen: select one, or pick one in the AnyRig panel.")
    turn = 2 * np.pi / SIDES
    azimuths = [index * turn for index in range(SIDES)] if params.azimuth is None else [params.azimuth]
    subjects = []
    for obj in objects:
        rig = rig_from_armature(obj)
        references = render_views(obj, rig, azimuths, frame=params.reference_frame, engine=params.engine)
        subjects.append(Subject(obj.session_uid, rig, tuple(references)))
    scene = context.scene
    start = scene.frame_current if params.start_frame is None else params.start_frame
    return Take(params, tuple(subjects), scene.session_uid, start)


def steps(take: Take) -> Generator[Progress, None, list[Motion]]:
    """The computation; safe on any thread. torch is loaded here, so that the window does not wait for it either."""
    try:
        from ..backend.capture import Target, capture
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load (Windows)
        raise UserError(f"PyTorch cannot be loaded ({error}): {INSTALL}.") from error
    targets = [Target(subject.rig, subject.references) for subject in take.subjects]
    return (yield from capture(targets, take.params.clip, take.params.settings))


def write(take: Take, motions: Sequence[Motion]) -> list[bpy.types.Action]:
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
        for obj, subject, motion in zip(objects, take.subjects, motions, strict=True):
            pose = subject.references[0].pose
            action = write_motion(obj, subject.rig, motion, pose, name=take.name, start_frame=take.start_frame, fps=fps)
            actions.append(action)
    return actions


def run_capture(
    context: bpy.types.Context,
    objects: Sequence[bpy.types.Object],
    params: CaptureParams,
    report: Callable[[Snapshot], None] | None = None,
) -> tuple[Take, list[Motion], list[bpy.types.Action]]:
    """Capture onto the armatures and wait for it; for background mode and scripts. `report` is told of every step.

    Raises UserError with what went wrong; the file is then as it was.
    """
    take = gather(context, objects, params)
    job = Job(steps(take)).drain(report)
    if job.error is not None:
        raise UserError(job.error)
    return take, job.result, write(take, job.result)


def chosen_view(take: Take, motion: Motion) -> Reference:
    """The reference of the first armature that the capture found to look most like the video."""
    return take.subjects[0].references[int(motion.provenance.get("view", 0))]


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

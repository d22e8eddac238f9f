"""Saves the animation and pose of armatures, and restores them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from ...backend.arrays import Array
from ..rig import control_rigs
from ..rig.actions import set_action

# a pose bone's own channels, and the number of values of each
CHANNELS = {"location": 3, "rotation_quaternion": 4, "rotation_euler": 3, "rotation_axis_angle": 4, "scale": 3}


@dataclass(frozen=True, eq=False)
class Animation:
    """The action of an armature, and its bones' own channels, which another action would overwrite.

    It holds Blender's data, so it must not outlive the operation that made it.
    """

    exists: bool
    action: bpy.types.Action | None
    slot: Any
    fake_user: bool
    tracks: int
    channels: dict[str, Array]
    controls: dict[str, Any]

    @classmethod
    def of(cls, obj: bpy.types.Object) -> Animation:
        data, bones = obj.animation_data, obj.pose.bones
        channels = {name: np.empty(width * len(bones), np.float32) for name, width in CHANNELS.items()}
        for name, values in channels.items():
            bones.foreach_get(name, values)
        action = data and data.action
        tracks = 0 if data is None else len(data.nla_tracks)
        kept = bool(action and action.use_fake_user)
        return cls(
            data is not None,
            action,
            getattr(data, "action_slot", None),
            kept,
            tracks,
            channels,
            control_rigs.control_pose_of(obj),
        )

    def restore(self, obj: bpy.types.Object) -> None:
        if not self.exists:
            obj.animation_data_clear()
        else:
            self._restore_data(obj.animation_data)
        if self.action is not None:
            self.action.use_fake_user = self.fake_user
        for name, values in self.channels.items():
            obj.pose.bones.foreach_set(name, values)
        control_rigs.restore_controls(obj, self.controls)
        obj.update_tag()

    def _restore_data(self, data: bpy.types.AnimData) -> None:
        for track in data.nla_tracks[self.tracks :]:
            data.nla_tracks.remove(track)
        if data.action != self.action:
            set_action(data, self.action, self.slot)


@contextmanager
def all_or_none(objects: Sequence[bpy.types.Object]) -> Iterator[None]:
    """Restore the animation and the poses, and remove new actions, if the block raises."""
    before = [Animation.of(obj) for obj in objects]
    actions = set(bpy.data.actions)
    with ExitStack() as undo:
        undo.callback(lambda: bpy.data.batch_remove(set(bpy.data.actions) - actions))
        for obj, animation in zip(objects, before, strict=True):
            undo.callback(animation.restore, obj)
        yield
        undo.pop_all()

"""Writing a take and reading it back from the evaluated bones; shared by the tests of keying."""

from __future__ import annotations

import bpy
import numpy as np
from anyrig.addon.keying.write_action import write_motion
from anyrig.addon.rig.armature import pose_of
from anyrig.backend.geometry.rotations import Array
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig

TOLERANCE = 1e-4
MODERN = bpy.app.version >= (4, 4)


def write(
    obj: bpy.types.Object, rig: Rig, motion: Motion, start: float = 1, fps: float = 30, name: str = "take", **how: float
) -> bpy.types.Action:
    return write_motion(obj, rig, motion, pose_of(obj, rig), name=name, start_frame=start, fps=fps, **how)


def curves_of(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    if not MODERN:
        return list(action.fcurves)
    return [c for layer in action.layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]


def paths_of(action: bpy.types.Action) -> set[str]:
    return {curve.data_path for curve in curves_of(action)}


def keys_of(curve: bpy.types.FCurve) -> Array:
    keys = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", keys)
    return keys.reshape(-1, 2)


def played(obj: bpy.types.Object, rig: Rig, frames: Array) -> Array:
    """(F, J, 4, 4) poses as the evaluated file shows them."""
    poses = []
    for frame in frames:
        bpy.context.scene.frame_set(int(np.floor(frame)), subframe=float(frame % 1))
        poses.append(pose_of(obj, rig))
    return np.array(poses)


def assert_shows(obj: bpy.types.Object, rig: Rig, frames: Array, rotations: Array, positions: Array) -> Array:
    """Asserts that the animation shows these turns (F, J, 3, 3) and the heads of translating joints, and that joints that hang on
    another bone than in the armature stay at its end; returns the poses.
    """
    poses = played(obj, rig, frames)
    moves = ~rig.static
    assert np.abs(rig.rotations(poses) - rotations)[:, moves].max() < TOLERANCE
    heads = poses[:, :, :3, 3] - poses[:, :1, :3, 3]
    assert np.abs(heads - positions)[:, rig.translates].max(initial=0) < TOLERANCE
    assert_hung(rig, poses)
    return poses


def assert_hung(rig: Rig, poses: Array) -> None:
    """Asserts that in these poses (F, J, 4, 4) the joints that the rig hangs are where their parents take them."""
    size = np.ptp(rig.heads, axis=0).max()
    for joint in np.flatnonzero(rig.hung & ~rig.static):
        parent = rig.parents[joint]
        taken = poses[:, parent] @ np.linalg.inv(rig.rest[parent]) @ np.append(rig.heads[joint], 1)
        assert np.abs(poses[:, joint, :3, 3] - taken[:, :3]).max() < TOLERANCE * size, rig.names[joint]

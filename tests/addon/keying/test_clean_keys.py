"""The keys of a take that was cleaned up: the root goes along with the travel, and fewer keys stay under their error."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest
from anyrig.addon.keying.write_action import EULER_MODES
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, matrix_to_quaternion
from anyrig.backend.motion.feet import size_of
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import local_to_global
from anyrig.tests.addon.fixtures import RIGS, random_motion
from anyrig.tests.addon.playback import curves_of, keys_of, played, write

FRAMES = 49


def swinging(rig: Rig) -> Motion:
    """Every joint swings smoothly about an axis of its own, and the root goes along a curve."""
    random, times = np.random.default_rng(3), np.arange(FRAMES) / 30
    axes = random.normal(size=(len(rig.names), 3))
    angles = 0.5 * np.sin(2 * np.pi * times[:, None] + random.uniform(0, 6, len(rig.names)))
    local = axis_angle_to_matrix(np.broadcast_to(axes, (FRAMES, *axes.shape)), angles)
    travel = size_of(rig) * np.stack([times, np.sin(2 * times), 0.1 * np.sin(7 * times)], axis=1)
    motion = random_motion(rig, FRAMES, seed=1)
    return replace(motion, rotations=matrix_to_quaternion(local_to_global(rig.parents, local)), travel=travel)


@pytest.mark.parametrize("name", RIGS)
def test_the_root_goes_along(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    obj.pose.bones[rig.names[0]].location = (0, 0, 0)
    bpy.context.view_layer.update()
    start, motion = pose_of(obj, rig)[0, :3, 3], swinging(rig)
    write(obj, rig, motion, start=1)
    played(obj, rig, [20])
    write(obj, rig, motion, start=1)  # from the middle of the first one, as when a take is applied again
    poses = played(obj, rig, 1 + np.arange(FRAMES))
    assert np.abs(poses[:, 0, :3, 3] - start - motion.travel).max() < 1e-4 * size_of(rig)


@pytest.mark.parametrize("mode", ["QUATERNION", "AXIS_ANGLE", *EULER_MODES])
def test_fewer_keys_stay_under_their_error(mode: str) -> None:
    obj = RIGS["human"]()
    for bone in obj.pose.bones:
        bone.rotation_mode = mode
    rig = rig_from_armature(obj)
    motion = swinging(rig)
    write(obj, rig, motion, start=1)
    every, whole = played(obj, rig, 1 + np.arange(FRAMES)), count(obj)
    write(obj, rig, motion, start=1, degrees=2.0, percent=2.0)
    fewer = played(obj, rig, 1 + np.arange(FRAMES))
    assert count(obj) < 0.6 * whole
    local = [np.swapaxes(each[:, np.maximum(rig.parents, 0), :3, :3], -1, -2) @ each[..., :3, :3] for each in (every, fewer)]
    assert np.degrees(geodesic_angle(*local)).max() < 2.0
    ends = [each[..., :3, 3] - each[:, :1, :3, 3] for each in (every, fewer)]
    assert np.linalg.norm(ends[0] - ends[1], axis=-1).max() < 0.02 * size_of(rig)
    root = np.linalg.norm(every[:, 0, :3, 3] - fewer[:, 0, :3, 3], axis=-1)
    assert root.max() < 0.02 * size_of(rig)


def count(obj: bpy.types.Object) -> int:
    """The keys of all curves."""
    return sum(len(keys_of(curve)) for curve in curves_of(obj.animation_data.action))

"""The arithmetic of keying: whole frames, sampling, and rotation channels without jumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from anyrig.addon.keying.write_action import EULER_MODES, rotation_channel, sample, whole_frames
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import Array, axis_angle_to_matrix
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import random_motion
from mathutils import Euler, Matrix, Quaternion
from scipy.spatial.transform import Rotation


def test_whole_frames_of_rounded_short_and_late_takes() -> None:
    milliseconds = np.round(np.arange(31) / 29.97, 3)
    assert whole_frames(milliseconds, 1, 29.97).tolist() == list(range(1, 32))
    assert whole_frames(np.array([0.0, 1 / 60]), 1, 24).tolist() == [1]
    assert whole_frames(np.array([0.01, 0.02]), 1, 24).tolist() == [2]
    assert whole_frames(np.array([2.0]), 1, 24).tolist() == [49]


def test_sampling_holds_outside_and_at_one_frame() -> None:
    rig = rig_from_armature(fixtures.no_mesh())
    motion = random_motion(rig, 5, seed=0)
    rotations, positions = sample(motion, np.array([-1.0, 9.0]))
    assert np.allclose(np.abs((rotations * motion.rotations[[0, -1]]).sum(-1)), 1)
    assert np.allclose(positions, motion.positions[[0, -1]])
    one = random_motion(rig, 1, seed=0)
    assert np.array_equal(sample(one, np.array([0.0, 3.0]))[0], one.rotations[[0, 0]])


def test_sampling_takes_the_shorter_way_and_equal_frames() -> None:
    rig = rig_from_armature(fixtures.no_mesh())
    rotations = np.tile([1.0, 0, 0, 0], (3, 3, 1))
    rotations[1, 0] = -np.array([np.cos(0.4), np.sin(0.4), 0, 0])
    motion = replace(random_motion(rig, 3, seed=0), rotations=rotations)
    halfway, _ = sample(motion, motion.times[:2] + np.diff(motion.times) / 2)
    assert np.allclose(np.abs(halfway[0, 0]), [np.cos(0.2), np.sin(0.2), 0, 0])
    assert np.array_equal(halfway[:, 1:], rotations[:2, 1:])


SPIN = np.linspace(-9.0, 11.0, 120)


def spin(axis: list[float]) -> Array:
    return axis_angle_to_matrix(np.tile(axis, (len(SPIN), 1)), SPIN)


@pytest.mark.parametrize("mode", EULER_MODES)
@pytest.mark.parametrize("axis", range(3))
def test_eulers_do_not_wrap(mode: str, axis: int) -> None:
    values = rotation_channel("b", mode, spin(np.eye(3)[axis].tolist())).values
    assert np.abs(np.diff(values, axis=0)).max() < 0.2
    assert abs(np.ptp(values[:, axis]) - np.ptp(SPIN)) < 1e-4


@pytest.mark.parametrize("axis", [[0, 0, 1.0], [0.6, 0, 0.8], [0, -1.0, 0]])
def test_quaternions_and_axis_angles_do_not_flip(axis: list[float]) -> None:
    quaternions = rotation_channel("b", "QUATERNION", spin(axis)).values
    assert np.abs(np.diff(quaternions, axis=0)).max() < 0.1
    values = rotation_channel("b", "AXIS_ANGLE", spin(axis)).values
    assert np.abs(np.diff(values, axis=0)).max() < 0.2
    assert abs(np.ptp(values[:, 0]) - np.ptp(SPIN)) < 1e-5


def test_axis_angle_at_rest_keeps_its_axis() -> None:
    rotations = axis_angle_to_matrix(np.tile([0, 0, 1.0], (5, 1)), np.array([0.0, 0.3, 0.0, -0.3, 0.0]))
    values = rotation_channel("b", "AXIS_ANGLE", rotations).values
    assert np.allclose(values[:, 0], [0, 0.3, 0, -0.3, 0])
    assert np.allclose(values[1:, 1:], [0, 0, 1])


@pytest.mark.parametrize("mode", ["QUATERNION", "AXIS_ANGLE", *EULER_MODES])
def test_channels_mean_what_blender_means(mode: str) -> None:
    random = np.random.default_rng(4)
    rotations = Rotation.random(50, random_state=4).as_matrix()
    rotations[::7] = np.eye(3)
    rotations[1::7] = axis_angle_to_matrix(random.normal(size=(len(rotations[1::7]), 3)), np.full(len(rotations[1::7]), np.pi))
    channel = rotation_channel("b", mode, rotations)
    for values, turn in zip(channel.values, rotations):
        if mode == "QUATERNION":
            shown = Quaternion(values).to_matrix()
        elif mode == "AXIS_ANGLE":
            shown = Matrix.Rotation(values[0], 3, values[1:])
        else:
            shown = Euler(values, mode).to_matrix()
        assert np.abs(np.array(shown) - turn).max() < 1e-5


def test_an_unknown_rotation_mode_is_refused() -> None:
    with pytest.raises(UserError, match="Bone 'b'.*'SPLINE'"):
        rotation_channel("b", "SPLINE", np.eye(3)[None])

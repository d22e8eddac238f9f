"""Fewer keys: curves stay within their bound."""

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.geometry.rotations import (
    axis_angle_to_matrix,
    continuous,
    geodesic_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
    rotvec_to_matrix,
)
from anyrig.backend.motion.feet import end_points, limbs_of, size_of
from anyrig.backend.motion.key_reduction import (
    axis_angle_error,
    distance,
    joint_tolerances,
    quaternion_error,
    reduced,
)
from anyrig.backend.rig.skeleton import global_to_local
from anyrig.backend.train.creatures.creatures import creature

from .walkers import motion_of_locals, walk

FRAMES = np.arange(91.0)


def curve(frames: Array = FRAMES) -> Array:
    """(F, 2) a swing, and a hit."""
    return np.stack([np.sin(frames / 12), np.exp(-(((frames - 40) / 3) ** 2))], axis=1)


def bezier(keys: Array, left: Array, right: Array, frame: float) -> float:
    """One Bezier curve at a frame, by bisection for the parameter, as editors of curves do. keys: (2, 2), right, left: the handles between."""
    points = np.array([keys[0], right, left, keys[1]])
    low, high = 0.0, 1.0
    for _ in range(60):
        s = (low + high) / 2
        at = np.array([(1 - s) ** 3, 3 * s * (1 - s) ** 2, 3 * s * s * (1 - s), s**3]) @ points
        low, high = (s, high) if at[0] < frame else (low, s)
    return float(at[1])


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 0.001])
def test_curves_stay_within_their_bound(tolerance: float) -> None:
    noisy = curve() + np.random.default_rng(0).normal(0, 0.02, (91, 2))
    for values in (curve(), noisy):
        keys = reduced(FRAMES, values, distance, tolerance)
        assert distance(keys.at(FRAMES), values).max() <= tolerance
        assert np.isin(keys.frames, FRAMES).all() and keys.frames[0] == 0 and keys.frames[-1] == 90
    assert len(reduced(FRAMES, curve(), distance, 0.01)) < 25


def test_less_error_takes_more_keys() -> None:
    counts = [len(reduced(FRAMES, curve(), distance, each)) for each in (0.2, 0.05, 0.01, 0.002)]
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_handles_give_the_same_curve() -> None:
    keys = reduced(FRAMES, curve(), distance, 0.01)
    left, right = keys.handles()
    points = np.stack([keys.frames, keys.values[:, 1]], axis=1)
    for frame in (0.5, 17.3, 38.0, 41.7, 88.1):
        first = int(np.searchsorted(keys.frames, frame, side="right")) - 1
        found = bezier(points[first : first + 2], left[first + 1, 1], right[first, 1], frame)
        assert found == pytest.approx(keys.at(np.array([frame]))[0, 1], abs=1e-9)


def test_a_still_channel_takes_one_key_and_no_tolerance_keeps_all() -> None:
    assert len(reduced(FRAMES, np.full((91, 3), 0.7), distance, 1e-6)) == 1
    all_of_them = reduced(FRAMES, curve(), distance, 0.0)
    assert np.array_equal(all_of_them.at(FRAMES), curve())


def test_a_cubic_takes_two_keys() -> None:
    cubic = ((FRAMES / 90) ** 3 - FRAMES / 90)[:, None]
    assert len(reduced(FRAMES, cubic, distance, 1e-4)) == 2


def test_time_reversal_keeps_the_bound_and_about_as_many_keys() -> None:
    forth, back = (len(reduced(FRAMES, each, distance, 0.01)) for each in (curve(), curve()[::-1]))
    assert abs(forth - back) <= 2


def test_errors_are_angles() -> None:
    random = np.random.default_rng(1)
    left, right = (rotvec_to_matrix(random.normal(size=(50, 3))) for _ in range(2))
    quaternions = [matrix_to_quaternion(each) * random.uniform(0.5, 2, (50, 1)) for each in (left, right)]
    assert np.allclose(quaternion_error(*quaternions), geodesic_angle(left, right))
    angles, axes = random.uniform(-3, 3, (2, 50)), random.normal(size=(2, 50, 3))
    pairs = [np.concatenate([angles[i][:, None], axes[i]], axis=1) for i in range(2)]
    true = geodesic_angle(axis_angle_to_matrix(axes[0], angles[0]), axis_angle_to_matrix(axes[1], angles[1]))
    assert (axis_angle_error(*pairs) >= true - 1e-9).all()


@pytest.mark.parametrize(("plan", "seed"), [("biped", 2), ("quadruped", 3)])
def test_joints_and_ends_stay_under_the_stated_error(plan: str, seed: int) -> None:
    rig, motion = walk(creature(seed, plan), "Walk")
    local = global_to_local(rig.parents, motion.matrices)
    frames, tolerances = np.arange(float(len(motion))), joint_tolerances(rig, 2.0, 2.0)
    fitted, count = np.array(local), 0
    for joint, tolerance in enumerate(tolerances):
        values = continuous(matrix_to_quaternion(local[:, joint]))
        keys = reduced(frames, values, quaternion_error, tolerance)
        fitted[:, joint], count = quaternion_to_matrix(keys.at(frames)), count + len(keys)
    assert np.degrees(geodesic_angle(fitted, local)).max() <= 2.0
    rough = motion_of_locals(rig, fitted, motion.times, travel=motion.travel)
    limbs = limbs_of(rig)
    off = np.linalg.norm(end_points(rig, rough, limbs) - end_points(rig, motion, limbs), axis=-1).max()
    assert off <= 0.02 * size_of(rig) and count < 0.5 * len(motion) * len(rig.names)

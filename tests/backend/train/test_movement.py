"""Figures of movement: known answers for movements that are known, and properties."""

import numpy as np
import pytest
from anyrig.backend.geometry.rotations import axis_angle_to_matrix
from anyrig.backend.rig.rig import Rig
from anyrig.backend.train.evaluation.movement import bone_errors, centred, kind_of_motion, mean_travel, motion_correlation
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = np.ones(4, bool)


def heads(seed: int = 0, frames: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(frames, 4, 3))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 5), st.floats(-3, 3))
def test_correlation_knows_neither_extent_nor_place(seed: int, extent: float, shift: float) -> None:
    true = centred(heads(seed), ALL)
    moved = centred(heads(seed) * extent + shift, ALL)
    assert motion_correlation(moved, true, 1.0) == pytest.approx(1.0)
    assert motion_correlation(-moved, true, 1.0) == pytest.approx(-1.0)


def test_correlation_ignores_a_pose_that_is_wrong_on_all_frames() -> None:
    true = centred(heads(), ALL)
    assert motion_correlation(true + np.random.default_rng(1).normal(size=(4, 3)), true, 1.0) == pytest.approx(1.0)


def test_unrelated_and_still_takes_have_none() -> None:
    true = centred(heads(frames=400), ALL)
    assert abs(motion_correlation(centred(heads(7, 400), ALL), true, 1.0)) < 0.1
    assert motion_correlation(np.repeat(true[:1], 400, axis=0), true, 1.0) == 0.0


def test_a_clip_that_hardly_moves_says_nothing() -> None:
    true = centred(heads(), ALL)
    assert motion_correlation(true, true, 200.0) is None and motion_correlation(true, true, 100.0) is not None


def test_half_the_movement_is_half_the_travel() -> None:
    true = centred(heads(), ALL)
    assert mean_travel(true * 0.5) == pytest.approx(mean_travel(true) / 2) and mean_travel(true[:1]) == 0.0


def arm(world: np.ndarray | None = None) -> Rig:
    """A bone upwards, one sideways, and a leaf too short to have a direction; tails of bones with children lie anywhere."""
    rest = np.tile(np.eye(4), (3, 1, 1))
    rest[1:, 2, 3] = 1
    rest[2, 0, 3] = 1
    tails = rest[:, :3, 3] + np.array([[0, 0.3, 0], [0, 0, 0], [0, 0, 1e-3]])
    nothing = np.zeros(3, bool)
    return Rig("arm", ("a", "b", "c"), np.array([-1, 0, 1]), rest, tails, nothing, nothing, np.eye(3) if world is None else world)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 3.1), st.integers(0, 100))
def test_twist_about_a_bone_is_no_error_of_its_direction(angle: float, seed: int) -> None:
    rig, random = arm(), np.random.default_rng(seed)
    true = axis_angle_to_matrix(random.normal(size=(5, 3, 3)), random.uniform(-2, 2, (5, 3)))
    # network axes: armature (x, y, z) is (x, z, -y), so the bone upwards points along y and the one sideways along x
    along = np.array([[0, 1.0, 0], [1, 0, 0], [1, 0, 0]])
    twisted = true @ axis_angle_to_matrix(along, np.full(3, angle))
    direction, twist = bone_errors(rig, twisted, true, np.ones(3, bool))
    assert direction == pytest.approx(0, abs=1e-5) and twist == pytest.approx(np.rad2deg(angle), abs=1e-4)


def test_swing_is_an_error_of_direction_and_no_twist() -> None:
    rig, true = arm(), np.tile(np.eye(3), (5, 3, 1, 1))
    swung = true @ axis_angle_to_matrix(np.array([0, 0, 1.0]), 0.3)
    direction, twist = bone_errors(rig, swung, true, np.ones(3, bool))
    assert direction == pytest.approx(np.rad2deg(0.3)) and twist == pytest.approx(0, abs=1e-6)


def test_the_direction_of_a_tiny_bone_does_not_count() -> None:
    rig, true = arm(), np.tile(np.eye(3), (5, 3, 1, 1))
    swung = true.copy()
    swung[:, 2] = axis_angle_to_matrix(np.array([1.0, 0, 0]), 1.0)
    assert bone_errors(rig, swung, true, np.ones(3, bool)) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("clip", "kind"),
    [
        ("Gallop_Jump", "locomotion"), ("TRex_Run", "locomotion"), ("Walk_Holding", "locomotion"), ("RunFast", "locomotion"),
        ("Frog_Death", "death or fall"), ("Idle_2", "idle"), ("SwordSlash", "attack or gesture"), ("Run_Shoot", "locomotion"),
    ],
)  # fmt: skip
def test_kinds_of_motion_by_the_words_of_a_clip(clip: str, kind: str) -> None:
    assert kind_of_motion(clip) == kind

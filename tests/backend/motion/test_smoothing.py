"""Smoothing: jitter goes, movement stays."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle, rotvec_to_matrix
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.smoothing import bell, smoothed

from .walkers import motion_of_locals, spine

SECONDS = 0.1


def swing(times: Array) -> Array:
    """(T, 3, 3) rotation vectors of three joints that swing once a second, 30 degrees to either side."""
    return np.radians(30) * np.sin(2 * np.pi * times[:, None, None] + np.arange(3)[:, None]) * np.eye(3)


def punch(times: Array) -> Array:
    """(T, 3, 3) as `swing`, of joints that rest, then hit within 0.12 s and go back."""
    bump = np.clip(1 - np.abs(times - 1.0) / 0.12, 0, 1)
    return np.radians(80) * bump[:, None, None] * np.ones((3, 1)) * np.eye(3)


def take(rotvecs: Array, times: Array) -> Motion:
    return motion_of_locals(spine(), rotvec_to_matrix(rotvecs), times)


def noise(times: Array, degrees: float) -> Array:
    return np.random.default_rng(0).normal(0, np.radians(degrees), (len(times), 3, 3))


def error(left: Motion, right: Motion) -> Array:
    """(T, J) degrees."""
    return np.degrees(geodesic_angle(left.matrices, right.matrices))


def test_strength_0_is_the_identity() -> None:
    times = np.arange(40) / 30
    motion = take(swing(times) + noise(times, 2), times)
    for same in (smoothed(spine(), motion, SECONDS, 0.0), smoothed(spine(), motion, 0.0)):
        assert np.array_equal(same.rotations, motion.rotations) and np.array_equal(same.positions, motion.positions)


def test_a_still_pose_stays_still() -> None:
    times = np.arange(40) / 30
    motion = take(np.broadcast_to(swing(times)[7], (40, 3, 3)), times)
    assert error(smoothed(spine(), motion, SECONDS), motion).max() < 1e-5


def test_a_perfect_movement_is_changed_by_less_than_half_a_degree() -> None:
    times = np.arange(90) / 30
    motion = take(swing(times), times)
    assert error(smoothed(spine(), motion, SECONDS), motion).max() < 0.5


@pytest.mark.parametrize("fps", [24, 30, 60])
def test_jitter_goes(fps: int) -> None:
    times = np.arange(3 * fps) / fps
    true = take(swing(times), times)
    noisy = take(swing(times) + noise(times, 2), times)
    before, after = (float(np.mean(error(each, true) ** 2)) for each in (noisy, smoothed(spine(), noisy, SECONDS)))
    assert after < 0.35 * before


def test_a_hit_keeps_its_peak() -> None:
    times = np.arange(60) / 30
    noisy = take(punch(times) + noise(times, 1), times)
    smooth = smoothed(spine(), noisy, SECONDS)
    peaks = [np.degrees(geodesic_angle(each.matrices[30, 0], np.eye(3))) for each in (noisy, smooth)]
    assert peaks[1] > 0.95 * peaks[0]
    plain = bell(times, SECONDS) @ np.degrees(punch(times)[:, 0, 0])
    assert plain[30] < 0.75 * peaks[0]  # a plain bell of this width takes more than a quarter of it
    still = np.abs(times - 1.0) > 0.5
    true = take(punch(times), times)
    assert error(smooth, true)[still].mean() < 0.6 * error(noisy, true)[still].mean()


def test_time_reversal_commutes() -> None:
    times = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.05, 50))
    rotvecs = punch(times) + noise(times, 2)
    forth = smoothed(spine(), take(rotvecs, times), SECONDS)
    back = smoothed(spine(), take(rotvecs[::-1], (times[-1] - times)[::-1]), SECONDS)
    assert np.degrees(geodesic_angle(forth.matrices, back.matrices[::-1])).max() < 1e-5


def test_a_limb_has_its_own_width() -> None:
    times = np.arange(60) / 30
    motion = take(swing(times) + noise(times, 2), times)
    kept = smoothed(spine(), motion, SECONDS, limbs={"b": 0.0})
    local = [np.swapaxes(each.matrices[:, 0], -1, -2) @ each.matrices[:, 1] for each in (motion, kept)]
    assert geodesic_angle(*local).max() < 1e-6 and error(kept, motion)[:, 0].max() > 0.5
    with pytest.raises(UserError, match="no bone 'tail'"):
        smoothed(spine(), motion, SECONDS, limbs={"tail": 2.0})


def test_the_unit_of_the_rig_does_not_matter() -> None:
    times = np.arange(40) / 30
    small, large = spine(), spine(100.0)
    motion = replace(take(swing(times), times), travel=noise(times, 20)[:, 0])
    big = replace(motion, travel=100 * motion.travel, positions=100 * motion.positions)
    first, second = smoothed(small, motion, SECONDS), smoothed(large, big, SECONDS)
    assert np.allclose(second.travel, 100 * first.travel) and np.allclose(second.positions, 100 * first.positions)


def test_a_bell_is_a_mean() -> None:
    times = np.cumsum(np.random.default_rng(2).uniform(0.01, 0.1, 30))
    assert np.allclose(bell(times, 0.1) @ np.ones(30), 1) and np.allclose(bell(times, 0.0).toarray(), np.eye(30))


def test_signs_stay_those_of_the_take() -> None:
    times = np.arange(40) / 30
    motion = take(swing(times) + noise(times, 1), times)
    turned = replace(motion, rotations=-motion.rotations)
    assert np.allclose(smoothed(spine(), turned, SECONDS).rotations, -smoothed(spine(), motion, SECONDS).rotations)

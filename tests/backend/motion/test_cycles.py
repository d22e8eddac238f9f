"""Cycles: the period is found, loops close, hidden limbs follow the other side."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.geometry.rotations import geodesic_angle, rotvec_to_matrix
from anyrig.backend.motion.cycles import fill_hidden, find_period, one_loop
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import local_to_global

from .walkers import hopper, motion_of_locals, with_noise

PERIOD = 0.8
SPEED = np.array([0.0, -1.5, 0.0])


def locals_of(times: Array) -> Array:
    """(T, 5, 3, 3) of a hopper that walks: its left leg half a period after its right one."""
    phase = 2 * np.pi * times / PERIOD
    angles = np.zeros((len(times), 5, 3))
    for first, shift in ((1, 0.0), (3, np.pi)):
        angles[:, first, 0] = 0.5 * np.sin(phase + shift) + 0.2 * np.sin(2 * (phase + shift))
        angles[:, first + 1, 0] = 0.4 + 0.4 * np.cos(phase + shift)
        # legs spread to their own sides
        angles[:, first, 1] = (0.1 if first == 1 else -0.1) * np.sin(phase + shift)
    return rotvec_to_matrix(angles)


def walking(seconds: float = 2.9, fps: float = 30.0) -> tuple[Rig, Motion]:
    rig, times = hopper(), np.arange(round(seconds * fps)) / fps
    bob = 0.05 * np.cos(4 * np.pi * times / PERIOD)
    travel = times[:, None] * SPEED + bob[:, None] * (0, 0, 1)
    return rig, motion_of_locals(rig, locals_of(times), times, travel=travel - travel[0])


def apart(rig: Rig, motion: Motion, times: Array) -> float:
    """Degrees that the take is off the true walk at these times, at most."""
    return float(np.degrees(geodesic_angle(motion.matrices, local_to_global(rig.parents, locals_of(times))).max()))


@pytest.mark.parametrize("fps", [24.0, 30.0, 60.0])
@pytest.mark.parametrize("seconds", [1.4, 2.9, 5.0])
def test_the_period_is_found(seconds: float, fps: float) -> None:
    rig, motion = walking(seconds, fps)
    assert find_period(rig, motion) == pytest.approx(PERIOD, rel=0.02)
    assert find_period(rig, with_noise(rig, motion, 3.0)) == pytest.approx(PERIOD, rel=0.03)


def test_what_does_not_repeat_has_no_period() -> None:
    rig, times = hopper(), np.arange(60) / 30
    once = motion_of_locals(rig, rotvec_to_matrix(times[:, None, None] * np.full((5, 3), 0.3)), times)
    still = motion_of_locals(rig, np.broadcast_to(np.eye(3), (60, 5, 3, 3)), times)
    for motion in (once, still):
        assert find_period(rig, motion) is None and one_loop(rig, motion) is motion


@pytest.mark.parametrize("seconds", [1.1, 1.4, 2.9, 5.0])
def test_a_loop_closes_and_is_the_walk(seconds: float) -> None:
    rig, motion = walking(seconds)
    loop = one_loop(rig, motion)
    assert len(loop) == round(PERIOD * 30) + 1 and loop.times[-1] == pytest.approx(PERIOD, rel=0.02)
    assert geodesic_angle(loop.matrices[0], loop.matrices[-1]).max() < 1e-9
    assert apart(rig, loop, loop.times) < 3
    assert np.allclose(loop.travel[-1], PERIOD * SPEED, atol=0.05)
    # the step over the seam is like those beside it
    step = np.degrees(geodesic_angle(loop.matrices[1:], loop.matrices[:-1])).max(1)
    inner, seam = np.abs(np.diff(step)), abs(step[0] - step[-1])
    assert seam < 2 * inner.max() + 0.5


def test_a_mean_of_cycles_is_nearer_to_the_truth_than_any() -> None:
    rig, motion = walking(5.0)
    noisy = with_noise(rig, motion, 4.0)
    loop = one_loop(rig, noisy, PERIOD)
    errors = [geodesic_angle(each.matrices[:24], motion.matrices[:24]).mean() for each in (noisy, loop)]
    assert errors[1] < 0.7 * errors[0]


def test_hidden_limbs_follow_the_other_side() -> None:
    rig, motion = walking()
    wrong = locals_of(motion.times)
    wrong[:, 3:] = np.eye(3)
    confidence = np.ones((len(motion), 5))
    confidence[:, 3:] = 0.3
    hidden = replace(motion_of_locals(rig, wrong, motion.times), confidence=confidence)
    assert apart(rig, hidden, motion.times) > 30
    filled = fill_hidden(rig, hidden)
    assert apart(rig, filled, motion.times) < 4
    assert np.allclose(filled.rotations[:, :3], hidden.rotations[:, :3], atol=1e-9)
    assert fill_hidden(rig, hidden, 0.0) is hidden


def test_limbs_that_are_seen_stay() -> None:
    rig, motion = walking()
    assert fill_hidden(rig, motion) is motion

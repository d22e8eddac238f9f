"""The heading: flips are repaired, true turns stay."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.errors import UserError
from anyrig.backend.motion.heading import front_views, headings, repair_heading, steady_heading, sudden_turns, turned
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.mirror import mirror_of
from anyrig.backend.rig.rig import Rig
from anyrig.backend.train.creatures.creatures import creature

from .walkers import hopper, spine, walk

TIMES = np.arange(60) / 30


def facing(yaw: Array, times: Array = TIMES) -> tuple[Rig, Motion]:
    """A stiff body that faces `yaw` (T,) radians."""
    rig, count = hopper(), len(times)
    joints = len(rig.names)
    motion = Motion(
        rig.names, times, np.tile([1.0, 0, 0, 0], (count, joints, 1)), np.tile(rig.heads - rig.heads[0], (count, 1, 1)),
        np.zeros((count, 4)), np.ones((count, joints)),
    )  # fmt: skip
    return rig, turned(rig, motion, yaw)


def off(rig: Rig, motion: Motion, yaw: Array) -> float:
    """Degrees by which a take faces elsewhere at most."""
    return float(np.degrees(np.abs((headings(rig, motion) - yaw + np.pi) % (2 * np.pi) - np.pi).max()))


def test_a_take_is_turned_as_it_says() -> None:
    yaw = np.sin(TIMES)
    rig, motion = facing(yaw)
    assert off(rig, motion, yaw) < 1e-9
    left = motion.positions[:, 1] - motion.positions[:, 0]
    assert np.allclose(np.arctan2(-left[:, 1], -left[:, 0]), yaw)


@pytest.mark.parametrize("flipped", [(20, 30), (0, 15), (45, 60)])
@pytest.mark.parametrize("angle", [180.0, 150.0])
def test_flips_are_repaired(flipped: tuple[int, int], angle: float) -> None:
    true = 0.4 * np.sin(2 * TIMES)
    wrong = true.copy()
    wrong[slice(*flipped)] += np.radians(angle)
    rig, motion = facing(wrong)
    assert off(rig, motion, true) > 100
    assert off(rig, repair_heading(rig, motion), true) < 6


def test_a_fast_spin_stays() -> None:
    spin = np.radians(700) * TIMES
    rig, motion = facing(spin)
    assert not sudden_turns(rig, motion).any() and repair_heading(rig, motion) is motion


@pytest.mark.parametrize("change", [repair_heading, lambda r, m, s=1.0: steady_heading(r, m, "smoothed", s)])
def test_strength_0_is_the_identity_and_stillness_stays(change: object) -> None:
    rig, motion = facing(0.4 * np.sin(2 * TIMES))
    assert change(rig, motion, 0.0) is motion
    rig, still = facing(np.full(60, 0.3))
    assert np.allclose(change(rig, still).rotations, still.rotations, atol=1e-9)


def test_a_smoothed_heading_keeps_a_turn_and_loses_its_trembling() -> None:
    true = 0.8 * np.sin(1.5 * TIMES)
    rig, motion = facing(true + 0.15 * np.sin(40 * TIMES))
    assert off(rig, motion, true) > 8 and off(rig, steady_heading(rig, motion, "smoothed"), true) < 5
    back = replace(motion, rotations=motion.rotations[::-1], positions=motion.positions[::-1])
    ways = steady_heading(rig, motion, "smoothed"), steady_heading(rig, back, "smoothed")
    assert np.allclose(headings(rig, ways[0]), headings(rig, ways[1])[::-1])


def test_a_locked_heading_is_one() -> None:
    rig, motion = facing(0.5 + 0.8 * np.sin(np.pi * TIMES))
    locked = steady_heading(rig, motion, "locked")
    assert np.ptp(headings(rig, locked)) < 1e-9 and headings(rig, locked)[0] == pytest.approx(0.5, abs=0.05)
    with pytest.raises(UserError, match="Heading 'north' is unknown"):
        steady_heading(rig, motion, "north")


def test_front_views_are_told() -> None:
    rig, motion = facing(np.zeros(60))
    for azimuth, front in ((0.0, True), (np.pi, True), (np.pi / 2, False), (-np.pi / 2, False)):
        seen = replace(motion, provenance={"azimuth": azimuth})
        assert (front_views(rig, seen) == front).all(), azimuth
    quarter = facing(np.full(60, np.pi / 2))[1]
    assert not front_views(rig, quarter).any() and not front_views(spine(), facing(np.zeros(60))[1]).any()


def test_sides_mirror_each_other() -> None:
    mirror = mirror_of(hopper())
    assert mirror is not None and mirror.partner.tolist() == [0, 3, 4, 1, 2] and np.allclose(np.abs(mirror.across), (1, 0, 0))
    assert mirror_of(spine()) is None
    rig, _ = walk(creature(2, "biped"), "Walk")
    found = mirror_of(rig)
    assert found is None or (found.partner[found.partner[found.partner >= 0]] == np.flatnonzero(found.partner >= 0)).all()

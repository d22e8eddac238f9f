"""Feet: found, however many there are, and held where they stand."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle, slerp
from anyrig.backend.motion.feet import contacts_of, find_contacts, foot_slide, limbs_of, travel_by_feet
from anyrig.backend.motion.foot_pins import MOST, pin_feet, pose_change
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.smoothing import smoothed, with_posed_positions
from anyrig.backend.rig.rig import Rig
from anyrig.backend.train.creatures.creatures import creature

from .walkers import walk, with_noise

WALKS = [("biped", 2, "Walk", 2), ("quadruped", 3, "Walk", 4), ("insect", 9, "Sneak", 6), ("spider", 1, "Sneak", 8)]


def biped() -> tuple[Rig, Motion]:
    return walk(creature(2, "biped"), "Walk")


def scaled(rig: Rig, unit: float) -> Rig:
    rest = np.array(rig.rest)
    rest[:, :3, 3] *= unit
    return replace(rig, rest=rest, tails=rig.tails * unit)


def twice_the_rate(rig: Rig, motion: Motion) -> Motion:
    """The take with a frame more between every two."""
    between = slerp(motion.rotations[:-1], motion.rotations[1:], 0.5)
    rotations = np.insert(motion.rotations, np.arange(1, len(motion)), between, axis=0)
    times = np.linspace(0, motion.times[-1], len(rotations))
    travel = np.stack([np.interp(times, motion.times, column) for column in motion.travel.T], axis=1)
    count, joints = rotations.shape[:2]
    blank = Motion(motion.names, times, rotations, np.zeros((count, joints, 3)), np.zeros((count, 4)), np.ones((count, joints)))
    return with_posed_positions(rig, replace(blank, travel=travel))


@pytest.mark.parametrize(("plan", "seed", "clip", "legs"), WALKS)
def test_the_slide_of_feet_is_taken_away(plan: str, seed: int, clip: str, legs: int) -> None:
    rig, true = walk(creature(seed, plan), clip)
    contacts = find_contacts(rig, true)
    assert len(np.unique(contacts[:, 0])) == legs and foot_slide(rig, true, contacts) < 0.6
    smooth = smoothed(rig, with_noise(rig, true, 3.0), 0.1)
    pinned = pin_feet(rig, replace(smooth, contacts=contacts))
    before, after = (foot_slide(rig, each, contacts) for each in (smooth, pinned))
    assert before > 0.4 and after < 0.1 * before
    mean, most = pose_change(rig, smooth, pinned)
    assert mean < 2 and most <= 2 * np.degrees(MOST) + 1e-6
    found = pin_feet(rig, smooth)
    assert foot_slide(rig, found, find_contacts(rig, smooth)) < 0.1 * before


def test_strength_0_is_the_identity_and_half_of_it_takes_half() -> None:
    rig, true = biped()
    noisy = replace(with_noise(rig, true, 3.0), contacts=find_contacts(rig, true))
    assert pin_feet(rig, noisy, 0.0) is noisy
    before, half, whole = (foot_slide(rig, pin_feet(rig, noisy, each), noisy.contacts) for each in (0.0, 0.5, 1.0))
    assert whole < half < before and abs(half - before / 2) < 0.2 * before


def test_a_perfect_walk_is_hardly_changed() -> None:
    rig, true = biped()
    mean, _ = pose_change(rig, true, pin_feet(rig, true))
    assert mean < 0.5


@pytest.mark.parametrize("slower", [3, 8])
def test_the_swing_of_a_slow_walk_is_no_stand(slower: int) -> None:
    rig, true = walk(creature(3, "quadruped"), "Walk")
    slow = replace(true, times=slower * true.times)
    usual, found = find_contacts(rig, true), find_contacts(rig, slow)
    assert len(np.unique(found[:, 0])) == 4 and len(found) >= len(usual)
    mean, _ = pose_change(rig, slow, pin_feet(rig, slow))
    assert mean < 0.6


def test_a_still_pose_stays_still() -> None:
    rig, true = biped()
    still = replace(true, **{key: np.repeat(getattr(true, key)[:1], len(true), axis=0) for key in ("rotations", "travel")})
    pinned = pin_feet(rig, still)
    assert geodesic_angle(pinned.matrices, still.matrices).max() < 1e-6
    assert len(find_contacts(rig, still)) and np.ptp(find_contacts(rig, still)[0, 1:]) == pytest.approx(still.times[-1])


def test_the_unit_and_the_frame_rate_do_not_matter() -> None:
    rig, true = biped()
    contacts = find_contacts(rig, true)
    large = replace(true, travel=50 * true.travel, positions=50 * true.positions)
    assert np.allclose(find_contacts(scaled(rig, 50), large), contacts)
    assert np.allclose(find_contacts(rig, twice_the_rate(rig, true)), contacts, atol=1.5 * float(true.times[1]))


def test_a_take_on_the_spot_is_pinned_as_it_would_travel() -> None:
    rig, true = biped()
    spot = replace(true, travel=np.zeros((0, 3)))
    way = travel_by_feet(rig, spot)
    level = rig.world.T @ (1, 1, 0)
    assert np.abs((way - true.travel) * level).max() < 0.05 * np.linalg.norm(true.travel[-1])
    pinned = pin_feet(rig, with_noise(rig, spot, 3.0))
    assert not len(pinned.travel) and pose_change(rig, with_noise(rig, spot, 3.0), pinned)[0] > 0.05


def test_the_animators_contacts_count() -> None:
    rig, true = biped()
    foot = int(limbs_of(rig).feet[-1])
    own = replace(true, contacts=np.array([[foot, 0.2, 0.5]]))
    assert np.array_equal(contacts_of(rig, own), own.contacts)
    back = Motion.from_json(own.to_json())
    assert np.array_equal(back.contacts, own.contacts) and np.array_equal(back.travel, own.travel)
    with pytest.raises(UserError, match="contacts do not name joints"):
        replace(true, contacts=np.array([[99.0, 0.0, 1.0]]))
    with pytest.raises(UserError, match="contacts are not a joint"):
        replace(true, contacts=np.zeros((2, 2)))

"""Left and right exchanged: twice is the identity, a symmetric walk becomes the walk half a period later, the rest is left alone."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.geometry.rotations import continuous, geodesic_angle, matrix_to_quaternion, rotvec_to_matrix
from anyrig.backend.motion.motion import Motion, fk_heads
from anyrig.backend.motion.swap_sides import swap_sides
from anyrig.backend.rig.limb_pairs import limb_pair
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import local_to_global, network_axes
from anyrig.tests.backend.rig.test_limb_pairs import IMAGES, biped

PERIOD = 16
MIRROR = np.diag([-1.0, 1, 1])


def motion_of(rig: Rig, local: np.ndarray) -> Motion:
    """A take of local rotations (T, J, 3, 3), with the positions that they give."""
    frames, joints = local.shape[:2]
    rotations = continuous(matrix_to_quaternion(local_to_global(rig.parents, local)))
    sure = np.linspace(0.1, 1, frames * joints).reshape(frames, joints)
    motion = Motion(rig.names, np.arange(frames) / 24, rotations, np.zeros((frames, joints, 3)), np.zeros((frames, 4)), sure)
    return replace(motion, positions=fk_heads(rig, motion) @ network_axes(rig))


def random_take(rig: Rig, seed: int = 0, frames: int = 9) -> Motion:
    rng = np.random.default_rng(seed)
    return motion_of(rig, rotvec_to_matrix(rng.normal(size=(frames, 8, 3))))


def symmetric_walk(rig: Rig) -> Motion:
    """Limbs that do what their counterparts do half a period later, mirrored; the trunk sways as symmetrically."""
    rng, phase = np.random.default_rng(3), 2 * np.pi * np.arange(PERIOD) / PERIOD
    waves = rng.normal(size=(2, 8, 3)) * 0.5
    vectors = waves[0] * np.cos(phase)[:, None, None] + waves[1] * np.sin(phase)[:, None, None]
    local = rotvec_to_matrix(vectors)
    half = np.roll(local, -PERIOD // 2, axis=0)
    for joint, image in enumerate(IMAGES):
        if image < joint:
            local[:, joint] = MIRROR @ half[:, image] @ MIRROR
    # half a period later the trunk is mirrored: it tilts about x with even harmonics, and about y and z with odd ones
    sway = np.stack([np.cos(2 * phase), np.cos(phase), np.sin(phase)], axis=-1) * 0.3
    local[:, 0], local[:, 1] = rotvec_to_matrix(sway), rotvec_to_matrix(-0.5 * sway)
    return motion_of(rig, local)


def same(left: Motion, right: Motion) -> None:
    assert np.degrees(geodesic_angle(left.matrices, right.matrices)).max() < 1e-5
    assert np.allclose(left.positions, right.positions, atol=1e-9)


@pytest.mark.parametrize("frames", [None, (2, 6)])
@pytest.mark.parametrize("name", ["shin.L", "arm.R"])
def test_twice_is_the_identity(frames: tuple[int, int] | None, name: str) -> None:
    rig = biped()
    motion = replace(random_take(rig), pins=np.array([[3, 2], [8, 4], [3, 0]]), raw=random_take(rig, 1))
    pair = limb_pair(rig, name)
    once = swap_sides(motion, rig, pair, frames)
    twice = swap_sides(once, rig, pair, frames)
    same(twice, motion)
    same(twice.raw, motion.raw)
    assert np.degrees(geodesic_angle(once.matrices, motion.matrices)).max() > 10
    assert np.array_equal(twice.confidence, motion.confidence) and np.array_equal(twice.pins, motion.pins)


def test_a_symmetric_walk_becomes_itself_half_a_period_later() -> None:
    rig = biped()
    walk = symmetric_walk(rig)
    swapped = swap_sides(swap_sides(walk, rig, limb_pair(rig, "thigh.L")), rig, limb_pair(rig, "arm.L"))
    later = np.roll(walk.matrices, -PERIOD // 2, axis=0)
    limbs = [2, 3, 4, 5, 6, 7]
    # relative to the trunk, which the swap leaves where it is
    for joint in limbs:
        parent = 0 if joint in (2, 4) else 1 if joint > 5 else joint - 1
        now = np.swapaxes(swapped.matrices[:, parent], -1, -2) @ swapped.matrices[:, joint]
        then = np.swapaxes(later[:, parent], -1, -2) @ later[:, joint]
        assert np.degrees(geodesic_angle(now, then)).max() < 1e-5
    expected = fk_heads(rig, swapped) @ network_axes(rig)
    assert np.allclose(swapped.positions, expected, atol=1e-9), "positions agree with the rotations"


@pytest.mark.parametrize("seed", range(3))
def test_all_but_the_limbs_and_the_frames_stays_as_it_is(seed: int) -> None:
    rig = biped()
    motion = random_take(rig, seed)
    swapped = swap_sides(motion, rig, limb_pair(rig, "shin.R"), (2, 6))
    others = [0, 1, 6, 7]
    assert np.array_equal(swapped.rotations[:, others], motion.rotations[:, others])
    assert np.array_equal(swapped.positions[:, others], motion.positions[:, others])
    outside = [0, 1, 6, 7, 8]
    assert np.degrees(geodesic_angle(swapped.matrices, motion.matrices))[outside].max() < 1e-5
    assert np.array_equal(swapped.positions[outside], motion.positions[outside])
    assert np.array_equal(swapped.confidence[outside], motion.confidence[outside])
    assert np.degrees(geodesic_angle(swapped.matrices, motion.matrices))[2:6, [2, 3, 4, 5]].max() > 1


def test_a_pin_goes_along_with_its_pose() -> None:
    rig = biped()
    motion = replace(random_take(rig), pins=np.array([[1, 2], [4, 2], [4, 1]]))
    assert swap_sides(motion, rig, limb_pair(rig, "shin.R"), (2, 6)).pins.tolist() == [[1, 2], [4, 4], [4, 1]]

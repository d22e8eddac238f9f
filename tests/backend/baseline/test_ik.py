"""The V1 baseline's inverse kinematics: exact on exact positions but for the twist, and better for the descent on noisy ones."""

import numpy as np
from anyrig.backend.baseline.ik import Descent, analytic_ik, geometric_ik
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, matrix_to_quaternion
from anyrig.backend.rig.skeleton import Skeleton, forward_kinematics, global_to_local

NONE = Descent(steps=0)
# a trunk 0-1-2, two arms that leave joint 2 to the sides and have two bones each, a tail at the root, a foot that slides
PARENTS = np.array([-1, 0, 1, 2, 3, 2, 5, 0, 0])
OFFSETS = np.array(
    [
        [0, 0, 0],
        [0, 1, 0],
        [0, 0.8, 0.1],
        [0.6, 0.2, 0],
        [0.5, -0.1, 0],
        [-0.6, 0.2, 0],
        [-0.5, -0.1, 0],
        [0, 0.1, -0.7],
        [0.2, -1, 0],
    ]
)


def skeleton_of(slides: bool = True) -> Skeleton:
    count, nothing = len(PARENTS), np.zeros(len(PARENTS), bool)
    free = nothing.copy()
    free[-1] = slides
    return Skeleton(tuple(f"j{i}" for i in range(count)), PARENTS, OFFSETS.astype(float), nothing, free, nothing)


def motion(frames: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth L, G and positions of the skeleton; the foot stays where it is."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(len(PARENTS), 3))
    time = np.arange(frames)[:, None] / 4 + rng.uniform(0, 6, len(PARENTS))
    local = axis_angle_to_matrix(np.broadcast_to(axes, (frames, *axes.shape)), 0.7 * np.sin(time))
    rotations, positions = forward_kinematics(PARENTS, OFFSETS, local)
    positions[:, -1] = [0.3, -1.0, 0.1]
    return local, rotations, positions


def heads(skeleton: Skeleton, rotations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    found = forward_kinematics(PARENTS, skeleton.offsets, global_to_local(PARENTS, rotations))[1]
    return np.where(skeleton.translates[:, None], positions, found)


def test_exact_positions_give_them_back_and_all_but_the_twist() -> None:
    skeleton = skeleton_of()
    _, rotations, positions = motion()
    found = analytic_ik(skeleton, positions, NONE)
    assert np.abs(heads(skeleton, found, positions) - positions).max() < 1e-4
    # bones point where they should, though joints with one child are twisted
    child = np.array([1, 2, 3, 5, 4, 6, 7])
    direction = found[:, PARENTS[child]] @ OFFSETS[child][:, :, None] - rotations[:, PARENTS[child]] @ OFFSETS[child][:, :, None]
    assert np.abs(direction).max() < 1e-4
    # two children that do not lie on one line leave no twist
    assert np.rad2deg(geodesic_angle(found[:, (0, 2)], rotations[:, (0, 2)])).max() < 0.05
    assert np.rad2deg(geodesic_angle(found[:, 1], rotations[:, 1])).max() > 5


def test_rest_is_rest_and_leaves_stay_unturned() -> None:
    skeleton = skeleton_of()
    assert np.allclose(geometric_ik(skeleton, skeleton.rest[None]), np.eye(3), atol=1e-9)
    local = geometric_ik(skeleton, motion()[2])
    assert np.allclose(local[:, (4, 6, 7, 8)], np.eye(3))


def test_one_child_takes_the_least_turn() -> None:
    chain = Skeleton(("a", "b"), np.array([-1, 0]), np.array([[0, 0, 0], [0, 2.0, 0]]), *(np.zeros(2, bool),) * 3)
    seen = np.array([[[0, 0, 0], [0.0, 0.0, 3.0]]])
    assert np.allclose(
        geometric_ik(chain, seen)[0, 0], axis_angle_to_matrix(np.array([1.0, 0, 0]), np.array(np.pi / 2)), atol=1e-5
    )


def test_descent_helps_with_noise_and_keeps_exact_answers() -> None:
    skeleton = skeleton_of()
    _, _, positions = motion()
    exact = analytic_ik(skeleton, positions, Descent(steps=40))
    assert np.abs(heads(skeleton, exact, positions) - positions).max() < 0.02
    noisy = positions + np.random.default_rng(1).normal(scale=0.06, size=positions.shape)
    noisy[:, 0] = 0
    error = [
        np.linalg.norm(heads(skeleton, analytic_ik(skeleton, noisy, way), noisy) - noisy, axis=-1).mean()
        for way in (NONE, Descent())
    ]
    assert error[1] < 0.75 * error[0]


def test_a_warm_start_is_smoother() -> None:
    skeleton = skeleton_of()
    noisy = motion()[2] + np.random.default_rng(1).normal(scale=0.06, size=(12, len(PARENTS), 3))
    speed = []
    for way in (Descent(steps=15), Descent(steps=15, warm_start=True)):
        local = global_to_local(PARENTS, analytic_ik(skeleton, noisy, way))
        speed.append(geodesic_angle(local[:-1], local[1:]).mean())
    assert speed[1] < speed[0]


def test_the_twist_term_lowers_the_twist() -> None:
    """Of joint 2, whose two arms show it; its mean bone points up."""
    skeleton = skeleton_of()
    positions = motion()[2]
    twists = []
    for weight in (0.0, 1.0):
        local = global_to_local(PARENTS, analytic_ik(skeleton, positions, Descent(twist=weight)))[:, 2]
        twists.append(np.abs(matrix_to_quaternion(local)[:, 2]).mean())
    assert twists[1] < 0.9 * twists[0]


def test_without_a_sliding_foot_the_root_sees_it() -> None:
    positions = motion()[2]
    assert not np.allclose(
        geometric_ik(skeleton_of(), positions)[:, 0], geometric_ik(skeleton_of(slides=False), positions)[:, 0], atol=0.05
    )

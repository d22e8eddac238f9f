"""Left and right limbs: found by names, else by the rest pose."""

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.rig.joint_names import side_and_rest
from anyrig.backend.rig.limb_pairs import limb_pair, mirror_images
from anyrig.backend.rig.rig import Rig

PARENTS = np.array([-1, 0, 0, 2, 0, 4, 1, 1])
NAMES = ("hips", "chest", "thigh.L", "shin.L", "thigh.R", "shin.R", "arm.L", "arm.R")
HEADS = np.array(
    [[0, 0, 1], [0, 0, 1.5], [0.2, 0, 0.9], [0.25, 0.05, 0.5], [-0.2, 0, 0.9], [-0.25, 0.05, 0.5], [0.3, 0, 1.5], [-0.3, 0, 1.5]]
)
TAILS = np.array(
    [[0, 0, 1.5], [0, 0, 1.9], [0.25, 0.05, 0.5], [0.25, 0, 0], [-0.25, 0.05, 0.5], [-0.25, 0, 0], [0.9, 0, 1.4], [-0.9, 0, 1.4]]
)
IMAGES = [0, 1, 4, 5, 2, 3, 7, 6]


def biped(names: tuple[str, ...] = NAMES, turn: np.ndarray | None = None) -> Rig:
    """Two legs of two bones and two arms. turn: (3, 3), rotates all of it at rest."""
    turn = np.eye(3) if turn is None else turn
    rest = np.tile(np.eye(4), (8, 1, 1))
    rest[:, :3, 3] = HEADS @ turn.T
    nothing = np.zeros(8, bool)
    return Rig("biped", names, PARENTS, rest, TAILS @ turn.T, nothing, nothing)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("thigh.L", "thigh.R"),
        ("mixamorig:LeftUpLeg", "mixamorig:RightUpLeg"),
        ("L_foot_001", "R_foot_001"),
        ("footL", "footR"),
        ("left_hand.2", "right_hand.2"),
        ("upperleg_l", "upperleg_r"),
        ("左足", "右足"),
    ],
)
def test_names_of_a_pair_differ_in_the_side_alone(left: str, right: str) -> None:
    assert side_and_rest(left)[0] == "left" and side_and_rest(right)[0] == "right"
    assert side_and_rest(left)[1] == side_and_rest(right)[1]


@pytest.mark.parametrize("name", ["spine", "Bone.003", "roller", "Lid", "tail_12"])
def test_other_names_have_no_side(name: str) -> None:
    assert side_and_rest(name)[0] == ""


def test_numbers_tell_limbs_of_one_side_apart() -> None:
    assert side_and_rest("leg1.L")[1] != side_and_rest("leg2.L")[1]


def test_names_decide_and_the_rest_pose_where_they_say_nothing() -> None:
    assert mirror_images(biped()).tolist() == IMAGES
    nameless = tuple(f"Bone.{number:03d}" for number in range(8))
    assert mirror_images(biped(nameless)).tolist() == IMAGES
    sideways = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert mirror_images(biped(nameless, sideways)).tolist() == IMAGES
    swapped = tuple(name.translate(str.maketrans("LR", "RL")) for name in NAMES)
    assert mirror_images(biped(swapped)).tolist() == IMAGES


def test_a_limb_is_taken_as_far_up_as_there_are_two() -> None:
    for name in ("shin.L", "thigh.R"):
        pair = limb_pair(biped(), name)
        assert sorted(pair.roots) == [2, 4] and pair.joints.tolist() == [2, 3, 4, 5] and pair.others.tolist() == [4, 5, 2, 3]
        assert np.flatnonzero(pair.sides.any(0)).tolist() == [2, 3, 4, 5] and np.array_equal(np.abs(pair.normal), [1, 0, 0])
    assert limb_pair(biped(), "arm.R").joints.tolist() == [6, 7]


def test_the_plane_of_symmetry_turns_with_the_rig() -> None:
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert abs(limb_pair(biped(turn=turn), "arm.L").normal @ turn[:, 0]) == pytest.approx(1)


def test_a_bone_of_the_trunk_is_a_sentence() -> None:
    with pytest.raises(UserError, match="Bone 'chest' belongs to no limb with a left and a right"):
        limb_pair(biped(), "chest")
    with pytest.raises(UserError, match="Rig 'biped' has no bone 'wing'"):
        limb_pair(biped(), "wing")

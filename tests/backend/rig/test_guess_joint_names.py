"""What joints are, from the skeleton's shape alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.rig.guess_joint_names import guess_names, names_or_guesses
from anyrig.backend.rig.joint_names import clean_name
from anyrig.backend.rig.rig import Rig


def rig(joints: dict[str, tuple[str, Sequence[float]]]) -> Rig:
    """name -> (parent, head); tails at the first child or a little further."""
    names = list(joints)
    heads = np.array([head for _, head in joints.values()], float)
    parents = np.array([names.index(parent) if parent else -1 for parent, _ in joints.values()])
    rest = np.tile(np.eye(4), (len(names), 1, 1))
    rest[:, :3, 3] = heads
    tails = heads + [0, 0, 0.02]
    for joint, parent in reversed(list(enumerate(parents))):
        if parent >= 0:
            tails[parent] = heads[joint]
    nothing = np.zeros(len(names), bool)
    return Rig("rig", tuple(names), parents, rest, tails, nothing, nothing)


def mirrored(joints: dict[str, tuple[str, Sequence[float]]]) -> dict[str, tuple[str, Sequence[float]]]:
    """Every joint whose name begins with "Left" again on the right."""
    right = {
        name.replace("Left", "Right"): (parent.replace("Left", "Right"), (-head[0], *head[1:]))
        for name, (parent, head) in joints.items()
        if name.startswith("Left")
    }
    return joints | right


HUMAN = mirrored({
    "Hips": ("", (0, 0, 1)), "Spine": ("Hips", (0, 0, 1.15)), "Chest": ("Spine", (0, 0, 1.3)), "Neck": ("Chest", (0, 0, 1.5)),
    "Head": ("Neck", (0, 0, 1.6)),
    "Left Thigh": ("Hips", (0.1, 0, 0.95)), "Left Knee": ("Left Thigh", (0.1, -0.02, 0.5)), "Left Foot": ("Left Knee", (0.1, 0, 0.08)),
    "Left Toe": ("Left Foot", (0.1, -0.15, 0.02)),
    "Left Shoulder": ("Chest", (0.03, 0, 1.45)), "Left Upper Arm": ("Left Shoulder", (0.18, 0, 1.45)),
    "Left Forearm": ("Left Upper Arm", (0.45, 0, 1.45)), "Left Hand": ("Left Forearm", (0.7, 0, 1.45)),
})  # fmt: skip
FINGERS = HUMAN | {
    f"{side} Finger{n}": (f"{side} Hand", (x * 0.78, 0.02 * n, 1.45))
    for side, x in (("Left", 1), ("Right", -1))
    for n in (1, 2, 3)
}
HORSE = mirrored({
    "Hips": ("", (0, 0.6, 1.3)), "Spine": ("Hips", (0, 0.2, 1.35)), "Chest": ("Spine", (0, -0.4, 1.35)), "Neck": ("Chest", (0, -0.7, 1.6)),
    "Head": ("Neck", (0, -0.9, 1.9)), "Tail": ("Hips", (0, 0.8, 1.2)), "Tail2": ("Tail", (0, 0.95, 0.9)),
    "Left Front Thigh": ("Chest", (0.2, -0.4, 1.1)), "Left Front Knee": ("Left Front Thigh", (0.2, -0.4, 0.6)),
    "Left Front Foot": ("Left Front Knee", (0.2, -0.42, 0.1)),
    "Left Hind Thigh": ("Hips", (0.2, 0.6, 1.2)), "Left Hind Knee": ("Left Hind Thigh", (0.2, 0.5, 0.7)),
    "Left Hind Foot": ("Left Hind Knee", (0.2, 0.7, 0.1)),
    "Left Ear": ("Head", (0.06, -0.88, 2.05)), "Jaw": ("Head", (0, -1.0, 1.8)),
})  # fmt: skip
BIRD = mirrored({
    "Hips": ("", (0, 0.1, 0.5)), "Chest": ("Hips", (0, -0.05, 0.55)), "Neck": ("Chest", (0, -0.25, 0.62)), "Head": ("Neck", (0, -0.35, 0.7)),
    "Tail": ("Hips", (0, 0.3, 0.5)),
    "Left Wing": ("Chest", (0.08, 0, 0.6)), "Left Wing2": ("Left Wing", (0.4, 0, 0.62)), "Left Wing3": ("Left Wing2", (0.8, 0.1, 0.6)),
    "Left Thigh": ("Hips", (0.06, 0.1, 0.42)), "Left Knee": ("Left Thigh", (0.06, 0.05, 0.2)), "Left Foot": ("Left Knee", (0.06, 0.08, 0.02)),
})  # fmt: skip
SPIDER = mirrored({
    "Hips": ("", (0, 0, 0.5)), "Head": ("Hips", (0, -0.4, 0.55)),
    **{
        f"Left {rank} {part}{n}": (f"Left {rank} Thigh{n}" if part == "Knee" else "Hips", (x, 0.3 * (n - 1.5), z))
        for n, rank in enumerate(("Front", "Middle", "Middle", "Hind"))
        for part, x, z in (("Thigh", 0.15, 0.5), ("Knee", 0.7, 0.02))
    },
})  # fmt: skip
SNAKE = {
    f"{word}{n}": (f"{before}" if before else "", (0, 0.2 * n, 0.05))
    for n, (word, before) in enumerate(
        [("Head", ""), ("Spine", "Head0"), ("Spine", "Spine1"), ("Spine", "Spine2"), ("Tail", "Spine3"), ("Tail", "Tail4")]
    )
}
RIGS = {"human": HUMAN, "fingers": FINGERS, "horse": HORSE, "bird": BIRD, "spider": SPIDER, "snake": SNAKE}


@pytest.mark.parametrize("name", RIGS)
def test_every_joint_of_a_common_body_is_named(name: str) -> None:
    """The fixtures' joints are called what they are; the guess sees their places alone."""
    made = rig(RIGS[name])
    hidden = replace(made, names=tuple(f"Bone.{place:03}" for place in range(len(made.names))))
    assert guess_names(hidden) == names_or_guesses(hidden) == tuple(map(clean_name, made.names))


def test_the_guess_turns_with_the_armature() -> None:
    """An armature that lies on its side in its own space stands up in the world."""
    made = rig(HUMAN)
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    rest = made.rest.copy()
    rest[:, :3, 3] = made.heads @ turn
    lying = replace(made, rest=rest, tails=made.tails @ turn, world=turn)
    assert guess_names(lying) == guess_names(made)


def test_meaningful_names_are_kept() -> None:
    made = rig(HUMAN)
    names = ("mixamorig:Pelvis", *(f"Bone.{place:03}" for place in range(1, len(made.names))))
    assert names_or_guesses(replace(made, names=names))[:3] == ("Pelvis", "Spine", "Chest")
    assert names_or_guesses(made) == tuple(map(clean_name, made.names))


def test_odd_skeletons_do_not_fail() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 10, 40):
        joints: dict[str, tuple[str, Sequence[float]]] = {"b0": ("", (0, 0, 0))}
        for joint in range(1, count):
            joints[f"b{joint}"] = (f"b{rng.integers(joint)}", tuple(rng.normal(size=3)))
        assert len(guess_names(rig(joints))) == count
    rope = {f"b{n}": (f"b{n - 1}" if n else "", (0, 0.01 * n, 1)) for n in range(1200)}
    assert len(guess_names(rig(rope))) == 1200  # deeper than Python's calls may nest
    flat = rig({"a": ("", (0, 0, 0)), "b": ("a", (0, 0, 0))})
    assert len(guess_names(flat)) == 2

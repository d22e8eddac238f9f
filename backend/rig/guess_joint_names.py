"""Guesses joint names from the skeleton's shape, for rigs whose bones are called "Bone.012".

A character is assumed to stand on the ground and to face Blender's front (-y), so its left is +x. Chains on one side are limbs; the rest
is the trunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..geometry.rotations import Array
from .joint_names import clean_name
from .rig import Rig

NEAR = 0.02  # of the character's size: joints this close to the middle plane are on it
GROUND = 0.2  # of its height: a limb that reaches down to here is a leg
LEG = ("Thigh", "Knee", "Foot", "Toe")
ARM = ("Shoulder", "Upper Arm", "Forearm", "Hand")


def names_or_guesses(rig: Rig) -> tuple[str, ...]:
    """The cleaned bone name of each joint, or a guess where the name means nothing."""
    clean = tuple(map(clean_name, rig.names))
    return clean if all(clean) else tuple(own or guess for own, guess in zip(clean, guess_names(rig), strict=True))


def guess_names(rig: Rig) -> tuple[str, ...]:
    """Guess each joint's name from its place alone ("Left Knee"); '' where there is no guess."""
    shape = _Shape.of(rig)
    limbs = shape.limbs()
    labels: dict[int, str] = {}
    _name_trunk(shape, limbs, labels)
    _name_limbs(shape, limbs, labels)
    for joint, parent in enumerate(shape.parents):  # parents come first
        if joint not in labels:
            labels[joint] = labels.get(int(parent), "")
    return tuple(labels[joint] for joint in range(len(shape.parents)))


@dataclass(frozen=True, eq=False)
class _Limb:
    """A limb on one side. base: the trunk's joint that it is attached to. chain: its joints up to the end or the first fork. rest: the
    joints below, such as fingers and toes. reach: its length from the first joint. leg: whether it is one."""

    side: str
    base: int
    chain: list[int]
    rest: list[int]
    reach: float
    leg: bool


@dataclass(frozen=True, eq=False)
class _Shape:
    """The rig at rest. points, tails: (J, 3) in world axes, the ground at z = 0. size: largest extent. side: per joint "Left", "Right" or
    '' for the trunk."""

    parents: NDArray[np.integer]
    points: Array
    tails: Array
    size: float
    children: list[list[int]] = field(default_factory=list)
    side: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, rig: Rig) -> _Shape:
        """The shape of a rig, with its middle at x = 0."""
        points, tails = rig.heads @ rig.world.T, rig.tails @ rig.world.T
        ends = np.concatenate([points, tails])
        origin = np.array([(points[:, 0].min() + points[:, 0].max()) / 2, 0, ends[:, 2].min()])
        shape = cls(rig.parents, points - origin, tails - origin, float(np.ptp(ends, axis=0).max()) or 1.0)
        shape.children.extend([] for _ in points)
        for joint, parent in enumerate(rig.parents):
            if parent >= 0:
                shape.children[parent].append(joint)
        shape.side.extend(map(shape.side_of, range(len(points))))
        return shape

    def below(self, joint: int) -> Iterator[int]:
        """The joint and all its descendants."""
        waiting = [joint]
        while waiting:
            yield (joint := waiting.pop())
            waiting += reversed(self.children[joint])

    def side_of(self, joint: int) -> str:
        """The side that the joint and its descendants are on; '' if they are on both, or on the middle plane."""
        across = self.points[list(self.below(joint)), 0] / self.size
        for name, values in (("Left", across), ("Right", -across)):
            if values.min() > -NEAR and values.max() > 1.5 * NEAR and values.mean() > NEAR:
                return name
        return ""

    def limbs(self) -> list[_Limb]:
        """All limbs. Feet that are parented to the root for inverse kinematics are joined to their legs."""
        parts = {}
        for joint, parent in enumerate(self.parents):
            if parent >= 0 and self.side[joint] and not self.side[parent]:
                parts[joint] = self._chain(joint), list(self.below(joint))
        feet = [root for root, (_, joints) in parts.items() if not self.parents[root] and self._is_low(joints)]
        for foot in feet:
            legs = [leg for leg in parts if leg not in feet]
            nearest = min(legs, key=lambda leg: self._gap(parts[leg][0][-1], foot), default=foot)
            if nearest != foot and self._gap(parts[nearest][0][-1], foot) < 0.25 * self.size:
                chain, everything = parts.pop(foot)
                parts[nearest] = parts[nearest][0] + chain, parts[nearest][1] + everything
        return [self._limb(chain, everything) for chain, everything in parts.values()]

    def _chain(self, root: int) -> list[int]:
        chain = [root]
        while len(self.children[chain[-1]]) == 1:
            chain.append(self.children[chain[-1]][0])
        return chain

    def _is_low(self, joints: Sequence[int]) -> bool:
        return bool(self.points[joints, 2].max() < GROUND * self.height)

    def _gap(self, end: int, start: int) -> float:
        """Distance between two joints of the same side, infinite for others."""
        return float(np.linalg.norm(self.points[end] - self.points[start])) if self.side[end] == self.side[start] else np.inf

    def _limb(self, chain: list[int], everything: list[int]) -> _Limb:
        root = chain[0]
        points = np.concatenate([self.points[everything], self.tails[everything]])
        reach = float(np.linalg.norm(points - self.points[root], axis=1).max())
        lowest, start = points[:, 2].min(), self.points[root, 2]
        leg = bool(lowest < GROUND * self.height and start - lowest > 0.3 * start and reach > 0.1 * self.size)
        rest = [joint for joint in everything if joint not in chain]
        return _Limb(self.side[root], int(self.parents[root]), chain, rest, reach, leg)

    @property
    def height(self) -> float:
        """The height of the highest joint above the ground."""
        return float(self.points[:, 2].max())

    def path(self, joint: int) -> list[int]:
        """The joints from the root to this one."""
        found = [joint]
        while self.parents[found[-1]] >= 0:
            found.append(int(self.parents[found[-1]]))
        return found[::-1]

    def trunk_ends(self) -> list[int]:
        """The joints of the trunk without children in it."""
        trunk = [joint for joint, side in enumerate(self.side) if not side]
        return [joint for joint in trunk if not any(not self.side[child] for child in self.children[joint])]


# Trunk


def _name_trunk(shape: _Shape, limbs: Sequence[_Limb], labels: dict[int, str]) -> None:
    ends = shape.trunk_ends()
    forward = [float(shape.points[end, 2] - shape.points[end, 1]) for end in ends]
    path = shape.path(ends[int(np.argmax(forward))])
    legs, arms = _legs_and_arms(shape, limbs)
    if not limbs and len(ends) == 1:
        _name_worm(shape, path, labels)
        return
    # with four legs, the front ones are at the chest; with two, only arms and wings are
    front = arms or [leg for leg in legs if len(legs) > 2]
    chest = _chest_index(path, [limb.base for limb in front if limb.base in path[:-1]])
    _name_spine(shape, path, chest, labels)
    hips = min((path.index(leg.base) for leg in legs if leg.base in path), default=0)
    _name_branches(shape, ends, path, hips, labels)


def _legs_and_arms(shape: _Shape, limbs: Sequence[_Limb]) -> tuple[list[_Limb], list[_Limb]]:
    """The legs, and the other long limbs: arms or wings."""
    legs = [limb for limb in limbs if limb.leg]
    others = [limb for limb in limbs if not limb.leg and limb.reach > 0.15 * shape.size]
    return legs, others


def _chest_index(path: Sequence[int], bases: Sequence[int]) -> int:
    """The index on the path of the chest: the last joint that carries a front limb, or three quarters along if none does."""
    return max(map(path.index, bases)) if bases else max(len(path) * 3 // 4 - 1, 0)


def _name_spine(shape: _Shape, path: Sequence[int], chest: int, labels: dict[int, str]) -> None:
    """Name hips, spine, chest, neck and head along the path to the head."""
    above = list(range(chest + 1, len(path)))
    # the head is the joint with eyes, ears or a jaw; without those it is the last one
    head = next((place for place in above if len(shape.children[path[place]]) > 1), len(path) - 1)
    for place, joint in enumerate(path):
        if place == 0:
            labels[joint] = "Hips"
        elif place <= chest:
            labels[joint] = "Chest" if place == chest else "Spine"
        else:
            labels[joint] = "Neck" if place < head else "Head" if place == head else _past_head(shape, path[head], joint)


def _past_head(shape: _Shape, head: int, joint: int) -> str:
    return "Jaw" if shape.points[joint, 2] < shape.points[head, 2] else "Head Top"


def _name_branches(shape: _Shape, ends: Sequence[int], path: Sequence[int], hips: int, labels: dict[int, str]) -> None:
    """Name the branches of the trunk: tails at the hips, jaws at the head."""
    for end in ends:
        branch = [joint for joint in shape.path(end) if joint not in path]
        if not branch:
            continue
        base = path.index(int(shape.parents[branch[0]])) if shape.parents[branch[0]] in path else -1
        if 0 <= base <= hips:
            word = "Tail" if shape.points[end, 1] >= shape.points[branch[0], 1] - NEAR * shape.size else "Spine"
        elif base >= 0 and labels[path[base]] == "Head":
            word = _past_head(shape, path[base], end)
        else:
            continue
        labels.update(dict.fromkeys(branch, word))


def _name_worm(shape: _Shape, path: Sequence[int], labels: dict[int, str]) -> None:
    """Name a single chain without limbs. Its head is in front or on top."""
    first, last = shape.points[path[0]], shape.points[path[-1]]
    order = list(path) if last[1] - last[2] > first[1] - first[2] else list(path)[::-1]
    for place, joint in enumerate(order):
        labels[joint] = "Head" if place == 0 else "Tail" if place >= len(order) * 2 / 3 else "Spine"


# Limbs


def _name_limbs(shape: _Shape, limbs: Sequence[_Limb], labels: dict[int, str]) -> None:
    legs, arms = _legs_and_arms(shape, limbs)
    ranks = _leg_ranks(shape, legs)
    hips, head = shape.points[0], shape.points[int(np.argmax(shape.points[:, 2] - shape.points[:, 1]))]
    upright = head[2] - hips[2] > hips[1] - head[1]
    for limb in limbs:
        if limb in legs:
            words, end = (
                [" ".join((rank, word)).strip() for rank in ranks[id(limb)] for word in _leg_words(len(limb.chain))],
                "Toe",
            )
        elif limb in arms and upright and len(legs) <= 2:
            words, end = _arm_words(len(limb.chain)), "Finger"
        elif limb in arms:
            word = "Wing" if legs else "Fin"
            words, end = [word] * len(limb.chain), word
        else:
            word = _short_limb_word(shape, limb, labels)
            words, end = [word] * len(limb.chain), word
        rank = next(iter(ranks.get(id(limb), ("",))))
        named = zip([*limb.chain, *limb.rest], [*words, *[f"{rank} {end}".strip()] * len(limb.rest)], strict=True)
        labels.update({joint: f"{limb.side} {word}".strip() for joint, word in named})


def _leg_ranks(shape: _Shape, legs: Sequence[_Limb]) -> dict[int, tuple[str]]:
    """For the id of each leg: "Front", "Middle" or "Hind" if there are several pairs, otherwise ''."""
    ranks: dict[int, tuple[str]] = {}
    for side in ("Left", "Right"):
        row = sorted((leg for leg in legs if leg.side == side), key=lambda leg: shape.points[leg.chain, 1].mean())
        for place, leg in enumerate(row):
            ranks[id(leg)] = ("" if len(row) == 1 else "Front" if place == 0 else "Hind" if place == len(row) - 1 else "Middle",)
    return ranks


def _leg_words(count: int) -> list[str]:
    if count == 1:
        return ["Leg"]
    return list(LEG[:count]) if count <= 4 else ["Hip", *LEG[:2], *["Ankle"] * (count - 5), *LEG[2:]]


def _arm_words(count: int) -> list[str]:
    if count == 1:
        return ["Arm"]
    return list(ARM[1 : count + 1]) if count < 4 else [*ARM, *["Finger"] * (count - 4)]


def _short_limb_word(shape: _Shape, limb: _Limb, labels: dict[int, str]) -> str:
    """The name of a short limb: an ear or an eye on the head; elsewhere the name of the joint it is attached to."""
    place = labels.get(limb.base, "")
    if not place.startswith("Head"):
        return place or "Side"
    top = shape.points[[*limb.chain, *limb.rest], 2].max()
    return "Ear" if top > shape.points[limb.base, 2] + 2 * NEAR * shape.size else "Eye"

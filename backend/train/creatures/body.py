"""The bones of a creature in a neutral standing pose, in chains.

Body frame: x to the creature's left, -y ahead, z up, the floor at z = 0. A creature is about one unit tall or long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...geometry.rotations import Array

SIDES = (("L", 1.0), ("R", -1.0))
# the largest rotation away from the neutral pose, in degrees, by part; root and wheels are free
LIMITS = {
    "root": 360, "wheel": 360, "spine": 35, "neck": 50, "head": 70, "jaw": 40, "ear": 45, "horn": 4, "antenna": 50, "tail": 50,
    "leg": 125, "arm": 150, "finger": 95, "wing": 85, "fin": 60, "tentacle": 65, "abdomen": 40, "turret": 130, "barrel": 35,
    "joint": 100, "plate": 15, "segment": 16,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Bone:
    """A bone from `head` to `tail` (3,), with radii `thick` and `thin` there.

    part: a key of LIMITS, for the motions. role: for its name. limb: "front", "hind", a number or "", for its name.
    index: its place among the bones of its chain with its role. alone: whether it is the only one of these.
    flat: factors of the radius along `across`, and along the axis perpendicular to it and the bone.
    """

    part: str
    role: str
    side: str
    limb: str
    index: int
    alone: bool
    parent: int
    head: Array
    tail: Array
    thick: float
    thin: float
    flat: tuple[float, float] = (1.0, 1.0)
    across: tuple[float, float, float] = (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Chain:
    """A chain of bones. row: the number of its pair from front to back. first: the index of a leg's thigh in `joints`; -1 without IK."""

    part: str
    side: str
    joints: tuple[int, ...]
    row: int = 0
    first: int = -1


@dataclass(frozen=True, eq=False)
class Body:
    """A creature in its neutral pose. Bone 0 is the root, and parents come before children."""

    plan: str
    bones: tuple[Bone, ...]
    chains: tuple[Chain, ...]

    @cached_property
    def parents(self) -> NDArray[np.int32]:
        """(J,) -1 for the root."""
        return np.array([bone.parent for bone in self.bones], np.int32)

    @cached_property
    def heads(self) -> Array:
        """(J, 3)."""
        return np.stack([bone.head for bone in self.bones])

    @cached_property
    def tails(self) -> Array:
        """(J, 3)."""
        return np.stack([bone.tail for bone in self.bones])

    @cached_property
    def offsets(self) -> Array:
        """(J, 3) from the parent's head to the head; zero for the root."""
        return self.heads - self.heads[np.maximum(self.parents, 0)]

    @cached_property
    def limits(self) -> Array:
        """(J,) largest rotations away from neutral, radians."""
        return np.radians([float(LIMITS[bone.part]) for bone in self.bones])

    @cached_property
    def size(self) -> float:
        """Largest extent."""
        return float(np.ptp(np.concatenate([self.heads, self.tails]), axis=0).max())

    def of(self, *parts: str) -> list[Chain]:
        """The chains of these parts."""
        return [chain for chain in self.chains if chain.part in parts]

    @property
    def legs(self) -> list[Chain]:
        """The legs that have IK."""
        return [chain for chain in self.of("leg") if chain.first >= 0]


def upper_arm(arm: Chain) -> int:
    """The joint of the upper arm: the first of the last three, after a collar bone if there is one."""
    return arm.joints[max(len(arm.joints) - 3, 0)]


def leg_length(body: Body, leg: Chain) -> float:
    """The length of thigh and shin together."""
    thigh, shin = leg.joints[leg.first : leg.first + 2]
    lengths = np.linalg.norm(body.tails - body.heads, axis=1)
    return float(lengths[thigh] + lengths[shin])


def curve(start: ArrayLike, direction: ArrayLike, length: float, count: int, bend: ArrayLike = (0.0, 0.0, 0.0)) -> Array:
    """Points (count + 1, 3) of a curve of this length from `start`. bend: change of the unit direction along it."""
    along = np.asarray(direction, float) + np.linspace(0, 1, count)[:, None] * np.asarray(bend, float)
    steps = along / np.linalg.norm(along, axis=1, keepdims=True) * length / count
    return np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]) + np.asarray(start, float)


@dataclass(eq=False)
class Sketch:
    """Collects the chains of a body."""

    plan: str
    bones: list[Bone] = field(default_factory=list)
    chains: list[Chain] = field(default_factory=list)

    def grow(
        self, part: str, roles: str | Sequence[str], points: Array, radii: ArrayLike, parent: int, side: str = "", limb: str = "",
        row: int = 0, first: int = -1, flat: tuple[float, float] = (1.0, 1.0), across: tuple[float, float, float] = (1.0, 0.0, 0.0),
    ) -> tuple[int, ...]:  # fmt: skip
        """Add n bones through points (n + 1, 3), with radii (n + 1,) or the first and last of them -> the indices of the bones."""
        count = len(points) - 1
        roles = [roles] * count if isinstance(roles, str) else list(roles)
        wide = np.asarray(radii, float)
        wide = np.linspace(wide[0], wide[-1], count + 1) if len(wide) == 2 else wide
        start = len(self.bones)
        for k in range(count):
            above = parent if k == 0 else start + k - 1
            index, alone = roles[:k].count(roles[k]), roles.count(roles[k]) == 1
            self.bones.append(
                Bone(
                    part, roles[k], side, limb, index, alone, above, points[k], points[k + 1], wide[k], wide[k + 1], flat, across
                )
            )
        joints = tuple(range(start, start + count))
        self.chains.append(Chain(part, side, joints, row, first))
        return joints

    def body(self) -> Body:
        """The finished body."""
        return Body(self.plan, tuple(self.bones), tuple(self.chains))

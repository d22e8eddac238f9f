"""Finds the left and right limbs of a rig: which joint is the mirror image of which, by names, else by the rest pose. numpy only."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import UserError
from .joint_names import side_and_rest
from .rig import Rig

NEAR = 0.03  # joints closer than this share of the rig's size to each other's mirror images are a pair
SNAP = 0.985  # cosine of the angle within which the normal of the plane of symmetry is an axis of the armature

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LimbPair:
    """A limb, its counterpart on the other side, and all that hangs on them.

    roots: the joints that the two begin with. joints: (N,) those of both that have a counterpart; others: (N,) these counterparts.
    sides: (2, J) bool, all joints of each limb. normal: (3,) of the plane of symmetry, in armature axes.
    """

    roots: tuple[int, int]
    joints: Indices
    others: Indices
    sides: NDArray[np.bool_]
    normal: Array


def limb_pair(rig: Rig, name: str) -> LimbPair:
    """The pair of limbs that a bone belongs to, as far up as they are two: a foot stands for the whole leg.

    Raises UserError if the rig lacks the bone, or if it has no counterpart on the other side.
    """
    if name not in rig.names:
        raise UserError(f"Rig '{rig.name}' has no bone '{name}': check the name.")
    images, joint = mirror_images(rig), rig.names.index(name)
    while joint > 0 and images[joint] == joint:  # a finger without a counterpart stands for its arm
        joint = int(rig.parents[joint])
    while joint > 0 and images[rig.parents[joint]] != rig.parents[joint]:
        joint = int(rig.parents[joint])
    if images[joint] == joint:
        raise UserError(f"Bone '{name}' belongs to no limb with a left and a right: choose a bone of an arm, a leg or a wing.")
    roots = (joint, int(images[joint]))
    sides = np.stack([_below(rig, root) for root in roots])
    paired = np.flatnonzero(images != np.arange(len(images)))
    across = (sides[:, paired] & sides[::-1, images[paired]]).any(0)
    joints = paired[across & ~rig.static[paired] & ~rig.static[images[paired]]]
    return LimbPair(roots, joints, images[joints], sides, _normal(rig, images))


def mirror_images(rig: Rig) -> Indices:
    """(J,) the joint on the other side of each joint; itself for one that has none.

    Names that differ in left and right alone are a pair. The rest pose decides for bones whose names know no sides.
    """
    images = np.arange(len(rig.names))
    found = defaultdict[tuple[str, ...], list[tuple[str, int]]](list)
    sides = [side_and_rest(name) for name in rig.names]
    for joint, (side, rest) in enumerate(sides):
        if side:
            found[rest].append((side, joint))
    for pair in found.values():
        if sorted(side for side, _ in pair) == ["left", "right"]:
            (_, left), (_, right) = pair
            images[left], images[right] = right, left
    shaped = _images_by_shape(rig)
    for joint, other in enumerate(shaped):
        if not sides[joint][0] and not sides[other][0]:
            images[joint] = other
    return images


def _images_by_shape(rig: Rig) -> Indices:
    """(J,) as `mirror_images`, from the heads and tails at rest alone, for the upright plane that pairs most joints."""
    up = int(np.argmax(np.abs(rig.world.T @ [0.0, 0.0, 1.0])))
    planes = [_images_across(rig, axis) for axis in range(3) if axis != up]
    return max(planes, key=lambda images: int((images != np.arange(len(images))).sum()))


def _images_across(rig: Rig, axis: int) -> Indices:
    """(J,) the joint nearest to each joint's mirror image across the plane through the root, if each is the other's nearest."""
    flip = np.ones(3)
    flip[axis] = -1.0
    points = np.stack([rig.heads, rig.tails], axis=1) - rig.heads[0]
    apart = np.linalg.norm(points[:, None] * flip - points[None], axis=-1).max(-1)
    size, count = np.ptp(rig.heads, axis=0).max() + 1e-12, len(rig.names)
    nearest = apart.argmin(1)
    images = np.arange(count)
    for joint in range(1, count):
        other, parent = int(nearest[joint]), rig.parents[joint]
        mutual = nearest[other] == joint and apart[joint, other] < NEAR * size
        if mutual and other and images[parent] == rig.parents[other]:
            images[joint] = other
    return images


def _normal(rig: Rig, images: Indices) -> Array:
    """(3,) the mean direction between the joints of all pairs, taken to the same side; an axis of the armature if it is near one."""
    paired = np.flatnonzero(images != np.arange(len(images)))
    across = (rig.heads + rig.tails)[paired] - (rig.heads + rig.tails)[images[paired]]
    # every pair is in it twice, once with each sign: the largest eigenvector of the sum of outer products knows no sign
    normal = np.linalg.eigh(across.T @ across)[1][:, -1]
    axis = int(np.argmax(np.abs(normal)))
    return np.eye(3)[axis] if abs(normal[axis]) > SNAP else normal


def _below(rig: Rig, joint: int) -> NDArray[np.bool_]:
    """(J,) the joint and all that hangs on it."""
    below = np.zeros(len(rig.names), np.bool_)
    below[joint] = True
    for child in range(joint + 1, len(rig.names)):
        below[child] = below[rig.parents[child]]
    return below

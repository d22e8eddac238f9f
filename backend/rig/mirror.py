"""Left and right of a rig, told from its rest pose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..arrays import Array
from .rig import Rig
from .skeleton import network_axes

NEAR = 0.04  # share of the rig's diagonal by which a joint may miss its mirror image
PAIRED = 0.8  # share of joints that must have one


@dataclass(frozen=True, eq=False)
class Mirror:
    """partner: (J,) the joint on the other side, itself in the middle, -1 without one. across: (3,) unit axis to the side, y up."""

    partner: NDArray[np.int64]
    across: Array


def mirror_of(rig: Rig) -> Mirror | None:
    """How left and right mirror each other; None for a rig without such sides.

    A joint and its partner have heads and tails that mirror each other, and parents that are partners.
    """
    axes = network_axes(rig)
    heads, tails = rig.heads @ axes.T, rig.tails @ axes.T
    size = float(np.linalg.norm(np.ptp(np.concatenate([heads, tails]), axis=0))) or 1.0
    best: tuple[float, Mirror] | None = None
    for across in (np.array([1.0, 0, 0]), np.array([0, 0, 1.0])):
        partner, miss = _paired(rig, heads, across, size)
        sides = (partner >= 0) & (partner != np.arange(len(partner)))
        if (partner >= 0).mean() >= PAIRED and sides.any() and (best is None or miss < best[0]):
            best = miss, Mirror(partner, across)
    return None if best is None else best[1]


def _paired(rig: Rig, heads: Array, across: Array, size: float) -> tuple[NDArray[np.int64], float]:
    """The partner of each joint, and how far heads miss their mirror images, as a mean share of the size."""
    middle = np.median(heads @ across)
    mirrored = heads - 2 * ((heads @ across) - middle)[:, None] * across
    count = len(heads)
    distance = np.linalg.norm(mirrored[:, None] - heads[None], axis=-1) / size
    partner = np.full(count, -1, np.int64)
    partner[0] = 0
    children: list[list[int]] = [[] for _ in range(count)]
    for joint, parent in enumerate(rig.parents[1:], start=1):
        children[parent].append(joint)
    for joint in range(count):
        if partner[joint] < 0:
            continue
        mine, theirs = children[joint], children[int(partner[joint])]
        if mine and theirs:
            rows, columns = linear_sum_assignment(np.minimum(distance[np.ix_(mine, theirs)], 1))
            for row, column in zip(rows, columns, strict=True):
                if distance[mine[row], theirs[column]] < NEAR:
                    partner[mine[row]] = theirs[column]
    found = np.flatnonzero(partner >= 0)
    partner[found[partner[partner[found]] != found]] = -1
    found = np.flatnonzero(partner >= 0)
    return partner, float(distance[found, partner[found]].mean())

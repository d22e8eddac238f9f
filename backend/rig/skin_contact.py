"""The skin of a character as points that bones move, and whose skin touches whose. numpy and scipy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]

REACH = 0.015  # how near points are that touch, of the body's size; 0.008 to 0.02 give the same on the zoo


@dataclass(frozen=True, eq=False)
class Skin:
    """P points spread evenly over the surface at rest, in the space of the bones.

    points: (P, 3). joints: (P, K) int, the bones that move each point, each at most once unless its weight is 0.
    weights: (P, K), rows sum to 1, or to 0 for a point that no bone moves.
    """

    points: Array
    joints: NDArray[np.integer]
    weights: Array

    def __post_init__(self) -> None:
        for key, kind in (("points", np.float64), ("joints", np.int64), ("weights", np.float64)):
            object.__setattr__(self, key, np.array(getattr(self, key), kind))
        rows = len(self.points)
        if self.points.shape != (rows, 3) or self.joints.shape != self.weights.shape or len(self.joints) != rows:
            raise UserError("The skin's points, joints and weights do not belong together: export the rig again.")


def sampled(
    vertices: Array, triangles: NDArray[np.integer], joints: NDArray[np.integer], weights: Array, points: int = 24000
) -> Skin:
    """A mesh as `Skin`: as many points on its triangles, by area.

    vertices: (V, 3). triangles: (K, 3) indices of vertices. joints, weights: (V, n) as in Skin.
    """
    corners = vertices[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    if not area.sum() > 0:
        return Skin(np.zeros((0, 3)), np.zeros((0, 1)), np.zeros((0, 1)))
    edges = np.cumsum(area) / area.sum()
    random = np.random.default_rng(0)
    chosen = np.minimum(np.searchsorted(edges, (np.arange(points) + 0.5) / points), len(area) - 1)
    # uniform in a triangle: the square root keeps points from crowding at the first corner (Osada et al. 2002)
    r, s = np.sqrt(random.random(points)), random.random(points)
    share = np.column_stack([1 - r, r * (1 - s), r * s])
    moved_by = joints[triangles[chosen]].reshape(points, -1)
    by = (share[..., None] * weights[triangles[chosen]]).reshape(points, -1)
    return Skin((share[..., None] * corners[chosen]).sum(1), moved_by, _merged(moved_by, by))


def _merged(joints: NDArray[np.integer], weights: Array) -> Array:
    """(P, K): the weight of a joint that occurs several times in a row is all in its first place."""
    same = joints[:, :, None] == joints[:, None]
    first = ~np.tril(same, -1).any(2)
    return np.where(first, (same * weights[:, None]).sum(2), 0.0)


class SkinContact:
    """Whose skin touches whose. middle: (3,) and size: of the body, the unit of lengths. count: J bones.

    centres: (J, 3) the middle of each bone's skin, in units of the body's size from its middle.
    """

    def __init__(self, skin: Skin, middle: Array, size: float, count: int) -> None:
        from scipy.spatial import KDTree

        self.points = (skin.points - middle) / size
        self.joints, self.weights, self.count = skin.joints, skin.weights, count
        self.owner = np.take_along_axis(skin.joints, skin.weights.argmax(1)[:, None], 1)[:, 0]
        self.owned = skin.weights.max(1) > 0
        self.tree = KDTree(self.points)
        moved, places = np.zeros(count), np.zeros((count, 3))
        np.add.at(moved, skin.joints, skin.weights)
        for column, weight in zip(skin.joints.T, skin.weights.T):
            np.add.at(places, column, weight[:, None] * self.points)
        self.centres = places / np.maximum(moved, 1e-12)[:, None]

    def touched(self, first: Mask, part: Mask) -> Array:
        """(J,) of the skin that the bones `first` move, the share that each bone outside `part` moves too or lies near to."""
        mine = (self.weights * first[self.joints]).sum(1)
        rows = np.flatnonzero(mine > 0)
        if not len(rows):
            return np.zeros(self.count)
        keys, near = rows[:, None] * self.count + self.joints[rows], self._near(rows[mine[rows] >= 0.5], part)
        shared = np.minimum(self.weights[rows], mine[rows, None]) * ~part[self.joints[rows]] * ~np.isin(keys, near)
        total = np.bincount(self.joints[rows].ravel(), shared.ravel(), self.count)
        total += np.bincount(near % self.count, mine[near // self.count], self.count)
        return total / mine.sum()

    def _near(self, rows: NDArray[np.integer], part: Mask) -> NDArray[np.integer]:
        """Point times J plus bone, for every pair of one of these points and a bone outside `part` with skin near it."""
        groups = self.tree.query_ball_point(self.points[rows], REACH)
        found = np.concatenate([np.array(group, np.int64) for group in groups] or [np.zeros(0, np.int64)])
        point = np.repeat(rows, [len(group) for group in groups])
        other = self.owned[found] & ~part[self.owner[found]]
        return np.unique(point[other] * self.count + self.owner[found[other]])

"""Which points of a mesh are worth keeping: those that can be seen, evenly spread, closer together where the body is thin.

Points are drawn as discs as wide as their spacing. On a leg no thicker than a disc they would make a sausage of it, and points
inside the body, between its shells, show through at every edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mathutils.bvhtree import BVHTree
from numpy.typing import NDArray

from ...backend.geometry.rotations import Array

RAYS = 16  # that must all be blocked for a point to count as hidden
SKIN = 1e-3  # how far from the surface rays start, of the body's size
THIN = 0.35  # spacing over thickness, where the body is thin
FINEST = 2.5  # how many times closer than on thick parts points may lie
DART = 0.8  # least distance of points over their spacing: with ten candidates a point, about as many fit as are wanted
TRIES = 6


def thickness(tree: BVHTree, points: Array, normals: Array, size: float) -> Array:
    """(P,) how deep a body of this size is below points with outward unit normals (P, 3); infinite under sheets."""
    start = points - normals * (SKIN / 10 * size)
    hits = (tree.ray_cast(place, way)[3] for place, way in zip(start.tolist(), (-normals).tolist()))
    return np.array([np.inf if hit is None else hit for hit in hits])


def is_exposed(tree: BVHTree, points: Array, normals: Array, size: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(P,) whether something outside the meshes of `tree`, a body of this size, can see the points."""
    start = points + normals * (SKIN * size)
    seen = np.zeros(len(points), bool)
    for ray in rng.normal(size=(RAYS, 3)):
        left = np.flatnonzero(~seen)
        # into the half of space that the point faces
        facing = ray * np.where(normals[left] @ ray < 0, -1, 1)[:, None]
        seen[left] = [tree.ray_cast(place, way)[0] is None for place, way in zip(start[left].tolist(), facing.tolist())]
    return seen


def poisson_disc_sample(
    points: Array, normals: Array, depth: Array, area: float, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices, ascending, of `count` of the candidates (P, 3), which are spread at random over `area`; all if there are fewer.

    depth: (P,) thickness of the body below each. Candidates are taken in random order unless one lies too close that is taken
    already (dart throwing; Cook 1986). The sides of a sheet do not see each other.
    """
    if len(points) <= count:
        return np.arange(len(points))
    base = np.sqrt(area / count)
    wish = np.clip(THIN * depth, base / FINEST, base)
    # a point with spacing s has s^2 to itself: a scale k makes the sum of (area / P) / (k s)^2 the count
    wish *= np.sqrt((area / len(points) / wish**2).sum() / count)
    order = rng.permutation(len(points))
    best: NDArray[np.int64] = order[:0]
    scale = DART
    for _ in range(TRIES):
        best = _reject_close(points, normals, wish * scale, order)
        if 0 <= len(best) - count <= 0.03 * count:
            break
        scale *= np.sqrt(max(len(best), 1) / (1.015 * count))
    taken = best[:count]
    rest = np.setdiff1d(order, taken)
    filling = rng.choice(rest, count - len(taken), replace=False)
    return np.sort(np.concatenate([taken, filling]))


def _reject_close(points: Array, normals: Array, apart: Array, order: NDArray[np.int64]) -> NDArray[np.int64]:
    from scipy.spatial import KDTree

    pairs = KDTree(points).query_pairs(float(apart.max()), output_type="ndarray")
    i, j = pairs.T
    close = np.linalg.norm(points[i] - points[j], axis=1) < (apart[i] + apart[j]) / 2
    close &= (normals[i] * normals[j]).sum(1) > 0
    i, j = np.concatenate([pairs[close], pairs[close][:, ::-1]]).T
    neighbours = j[np.argsort(i, kind="stable")]
    starts = np.searchsorted(np.sort(i), np.arange(len(points) + 1))
    blocked = np.zeros(len(points), bool)
    taken = []
    for candidate in order:
        if not blocked[candidate]:
            taken.append(candidate)
            blocked[neighbours[starts[candidate] : starts[candidate + 1]]] = True
    return np.array(taken, np.int64)


def bvh_trees(positions: Sequence[Array], triangles: Sequence[NDArray[np.int64]]) -> BVHTree:
    """One tree of meshes: vertices (V, 3) and triangles (K, 3) each."""
    starts = np.cumsum([0, *(len(part) for part in positions)])
    corners = np.concatenate([part + start for part, start in zip(triangles, starts)])
    return BVHTree.FromPolygons(np.concatenate(positions).tolist(), corners.tolist())

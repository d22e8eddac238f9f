"""Chooses points of a mesh: those that can be seen, spread evenly, and closer together where the body is thin.

Points are drawn as discs as wide as their spacing. Discs as wide as a leg would hide its shape, and points inside the body, between
its shells, would show through at every edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mathutils.bvhtree import BVHTree
from numpy.typing import NDArray

from ...backend.arrays import Array

RAYS = 16  # a point is hidden if all of them are blocked
SKIN = 1e-3  # distance from the surface at which rays start, of the body's size
THIN = 0.35  # spacing over thickness on thin parts
FINEST = 2.5  # points of thin parts are at most so many times closer than those of thick parts
DART = 0.8  # least distance of points over their spacing: with ten candidates per point, this gives about the wanted number
TRIES = 6


def thickness(tree: BVHTree, points: Array, normals: Array, size: float) -> Array:
    """(P,) depth of a body of this size below points with outward unit normals (P, 3); infinite under sheets."""
    start = points - normals * (SKIN / 10 * size)
    hits = (tree.ray_cast(place, way)[3] for place, way in zip(start.tolist(), (-normals).tolist()))
    return np.array([np.inf if hit is None else hit for hit in hits])


def is_exposed(tree: BVHTree, points: Array, normals: Array, size: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(P,) True for points that can be seen from outside the meshes of `tree`, a body of this size."""
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
    """Choose `count` of the candidates (P, 3), which are spread at random over `area` -> their indices, ascending; all if fewer.

    depth: (P,) thickness of the body below each. Candidates are tried in random order, and one is kept unless it lies too close to one
    that is kept already (dart throwing; Cook 1986). Points on opposite sides of a sheet never count as close.
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
    """Build one tree of several meshes with vertices (V, 3) and triangles (K, 3)."""
    starts = np.cumsum([0, *(len(part) for part in positions)])
    corners = np.concatenate([part + start for part, start in zip(triangles, starts)])
    return BVHTree.FromPolygons(np.concatenate(positions).tolist(), corners.tolist())

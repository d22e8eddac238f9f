"""Capsules along a rig's bones: a body for rigs that have no mesh. numpy only."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.rotations import Array
from ..rig.point_cloud import Surface
from ..rig.rig import Rig

SHORTEST = 0.004  # of the rig's size: shorter bones get no capsule of their own
BURIED = 0.35  # points this far inside another capsule, as a part of its radius, are never seen


@dataclass(frozen=True, eq=False)
class _Segments:
    """S tapered capsules. start, end: (S, 3). thick, thin: (S,) radii there. joint: (S,) the bone that carries it.

    before, after: (S,) the joints that share the start and the end with it.
    """

    start: Array
    end: Array
    thick: Array
    thin: Array
    joint: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def capsules(rig: Rig, count: int = 6000, seed: int = 0) -> Surface:
    """`count` points on capsules along the bones, in armature space: head to tail, and on to the heads of the children.

    Radii follow what hangs on a bone and how long the bones around it are; every chain has a muted colour of its own.
    """
    rng = np.random.default_rng(seed)
    segments = _segments(rig)
    points, normals, owner = _sample(segments, 3 * count, rng)
    kept = np.flatnonzero(~_buried(segments, points, owner))
    kept = np.sort(rng.choice(kept, count, replace=len(kept) < count))
    points, normals, owner = points[kept], normals[kept], owner[kept]
    joints, weights = _bind(segments, points, owner)
    colours = _colours(rig)[segments.joint[owner]] + rng.normal(0, 0.012, (count, 1))
    colours = np.clip(colours, 0, 1).astype(np.float32)
    joints, weights = joints.astype(np.int32), weights.astype(np.float32)
    return Surface(points.astype(np.float32), normals.astype(np.float32), colours, joints, weights)


def _size(rig: Rig) -> float:
    """Largest extent of the bones; 1 for a rig without any."""
    ends = np.concatenate([rig.heads, rig.tails])
    extent = float(np.ptp(ends, axis=0).max())
    return extent if extent > 0 else 1.0


def _segments(rig: Rig) -> _Segments:
    size = _size(rig)
    heads, tails, parents = rig.heads, rig.tails, rig.parents
    children = [np.flatnonzero((parents == joint) & ~rig.translates).tolist() for joint in range(len(parents))]
    rows: list[tuple[Array, Array, int, int, int]] = []
    for joint, below in enumerate(children):
        before = joint if parents[joint] < 0 or rig.translates[joint] else int(parents[joint])
        reached = [child for child in below if np.linalg.norm(heads[child] - tails[joint]) < 0.02 * size]
        # a tail that leads to no child and yet is not a tip is a guess of some importer: the children say where the bone goes
        if reached or not below:
            rows.append((heads[joint], tails[joint], joint, before, reached[0] if reached else joint))
        rows += [(heads[joint], heads[child], joint, before, child) for child in below if child not in reached]
    rows = [row for row in rows if np.linalg.norm(row[1] - row[0]) > SHORTEST * size]
    if _stands_below(rig, size):
        rows = [row for row in rows if row[2] != 0] or rows
    if not rows:
        rows = [(heads[0], heads[0] + [0, 0, 0.1 * size], 0, 0, 0)]
    start, end, joint, before, after = (np.array(column) for column in zip(*rows, strict=True))
    radii = _radii(rig, size)
    side = joint != after
    # towards a child the capsule narrows to the child's radius; one of several children gets a branch as thin as itself
    first = np.array([np.argmax(joint == j) == i for i, j in enumerate(joint)])
    thick = np.where(first | ~side, radii[joint], np.minimum(radii[joint], 1.2 * radii[after]))
    thin = np.where(side, np.minimum(thick, radii[after]), 0.7 * thick)
    return _Segments(start, end, thick, thin, joint, before, after)


def _stands_below(rig: Rig, size: float) -> bool:
    """Whether the root is a handle near the floor, with a body above it and feet beside it, and no part of the body."""
    heights, tips = rig.heads @ rig.world[2], rig.tails @ rig.world[2]
    others, children = np.minimum(heights, tips)[1:], heights[(rig.parents == 0) & ~rig.translates]
    if not len(children):
        return False
    floor, top, rise = min(heights.min(), others.min()), heights.max(), children.max() - heights[0]
    low = heights[0] < floor + 0.3 * (top - floor)
    feet = others.min() < heights[0] + rise / 2  # on a stalk that stands on the floor nothing is lower than the first bone's end
    return bool(low and feet and rise > 0.15 * size)


def _radii(rig: Rig, size: float) -> Array:
    """(J,) radius at every head: as a tree's branch, thicker the more hangs on it, within what the bones' lengths allow."""
    heads, tails, parents = rig.heads, rig.tails, rig.parents
    bone = np.linalg.norm(tails - heads, axis=1)
    offset = np.linalg.norm(heads - heads[np.maximum(parents, 0)], axis=1) * ~rig.translates
    leaf = ~np.isin(np.arange(len(parents)), parents)
    hanging = np.where(leaf, bone, 0.0)
    for joint in range(len(parents) - 1, 0, -1):
        hanging[parents[joint]] += (hanging[joint] + offset[joint]) * (not rig.translates[joint])
    local = _local_length(parents, offset, np.where(leaf, bone, 0.0))
    # 0.047 sqrt(hanging size): a human's shank, thigh and pelvis come out right, and a tail thins out towards its tip
    radius = np.maximum(0.047 * np.sqrt(hanging * size), 0.16 * local)
    return np.clip(np.minimum(radius, 0.9 * local), 0.006 * size, 0.13 * size)


def _local_length(parents: NDArray[np.integer], offset: Array, tip: Array) -> Array:
    """(J,) mean length of the bones that meet at a joint: to its parent, to its children, to its tail if it is a leaf."""
    total, number = offset + tip, (offset > 0).astype(float) + (tip > 0)
    child = np.flatnonzero((parents >= 0) & (offset > 0))
    np.add.at(total, parents[child], offset[child])
    np.add.at(number, parents[child], 1.0)
    return total / np.maximum(number, 1)


def _sample(segments: _Segments, count: int, rng: np.random.Generator) -> tuple[Array, Array, NDArray[np.int64]]:
    """(count, 3) points and normals, evenly over the capsules' area, and the capsule that each is on."""
    axis = segments.end - segments.start
    length = np.linalg.norm(axis, axis=1)
    axis = axis / length[:, None]
    # areas, less pi, of the hemisphere at the start, the side (nearly) and the hemisphere at the end
    areas = np.stack([2 * segments.thick**2, (segments.thick + segments.thin) * length, 2 * segments.thin**2], axis=1)
    # one stratum for each point: sampled evenly, with little clumping
    where = (np.arange(count) + rng.random(count)) / count * areas.sum()
    part = np.minimum(np.searchsorted(np.cumsum(areas), where), areas.size - 1)
    owner, kind = np.divmod(part, 3)
    thick, thin = segments.thick[owner], segments.thin[owner]
    # across the side, area grows with the radius: invert the integral of thick + (thin - thick) t
    even = rng.random(count)
    root = np.sqrt(thick**2 + even * (thin**2 - thick**2))
    along = np.where(np.abs(thin - thick) > 1e-6 * thick, (root - thick) / np.where(thin == thick, 1, thin - thick), even)
    # height on the unit sphere is even too (Archimedes); on the side it is the cone's slope
    slope = np.clip((thick - thin) / length[owner], -0.9, 0.9)
    height = np.select([kind == 0, kind == 1], [-even, slope], even)
    along = np.select([kind == 0, kind == 1], [0.0, along], 1.0)
    turn = rng.random(count) * 2 * np.pi
    across, over = _frame(axis[owner])
    ring = np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * over
    normals = np.sqrt(1 - height**2)[:, None] * ring + height[:, None] * axis[owner]
    radius = thick + (thin - thick) * along
    centre = segments.start[owner] + (along * length[owner])[:, None] * axis[owner]
    return centre + radius[:, None] * normals, normals, owner


def _frame(axis: Array) -> tuple[Array, Array]:
    """Two unit vectors (N, 3) across each unit axis (N, 3)."""
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
    across = np.cross(axis, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return across, np.cross(axis, across)


def _buried(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) points deep inside of another capsule. Not those near its surface: a bend may bring them out."""
    buried = np.zeros(len(points), np.bool_)
    for index in range(len(segments.joint)):
        along, distance = _to_axis(segments, points, np.full(len(points), index))
        radius = segments.thick[index] + (segments.thin[index] - segments.thick[index]) * along
        buried |= (distance < (1 - BURIED) * radius) & (owner != index)
    return buried


def _to_axis(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> tuple[Array, Array]:
    """(P,) where along its capsule's axis, 0..1, and (P,) how far from it each point is."""
    axis = (segments.end - segments.start)[owner]
    relative = points - segments.start[owner]
    along = np.clip((relative * axis).sum(1) / (axis * axis).sum(1), 0, 1)
    return along, np.linalg.norm(relative - along[:, None] * axis, axis=1)


def _bind(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """(P, 4) joints and weights: one bone, shared half and half with the neighbour where two bones meet."""
    length = np.linalg.norm(segments.end - segments.start, axis=1)[owner]
    axis = (segments.end - segments.start)[owner] / length[:, None]
    along = ((points - segments.start[owner]) * axis).sum(1)
    thick = np.minimum(segments.thick[owner], length / 2)
    thin = np.minimum(segments.thin[owner], length / 2)
    before = 0.5 * np.clip(1 - along / thick, 0, 1) * (segments.before != segments.joint)[owner]
    after = 0.5 * np.clip(1 - (length - along) / thin, 0, 1) * (segments.after != segments.joint)[owner]
    joints = np.stack([segments.joint, segments.before, segments.after, segments.joint], axis=1)[owner]
    return joints, np.stack([1 - before - after, before, after, np.zeros_like(after)], axis=1)


def _colours(rig: Rig) -> Array:
    """(J, 3) display colours: a hue for each kind of chain; chains that are alike, as left and right legs, differ slightly."""
    chain = _chains(rig)
    members = [np.flatnonzero(chain == index) for index in range(int(chain.max()) + 1)]
    kinds: dict[tuple[int, int], list[int]] = {}
    for index, joints in enumerate(members):
        above = rig.parents[joints[0]]
        kinds.setdefault((int(chain[above]) if above >= 0 else -1, len(joints)), []).append(index)
    colours = np.zeros((len(members), 3))
    for number, alike in enumerate(kinds.values()):
        for rank, index in enumerate(alike):
            hue = (0.07 + 0.618 * number + 0.045 * rank) % 1
            value = 0.62 + 0.1 * (-1) ** rank * (len(alike) > 1) + 0.08 * (-1) ** number
            colours[index] = colorsys.hsv_to_rgb(hue, 0.38, value)
    return colours[chain]


def _chains(rig: Rig) -> NDArray[np.int64]:
    """(J,) number of the chain of every joint: at a fork the largest branch goes on, the others begin chains of their own."""
    count = len(rig.parents)
    below = np.ones(count)
    for joint in range(count - 1, 0, -1):
        below[rig.parents[joint]] += below[joint]
    chain = np.zeros(count, np.int64)
    for joint in range(1, count):
        parent = rig.parents[joint]
        siblings = np.flatnonzero(rig.parents == parent)
        heir = siblings[np.argmax(below[siblings])]
        alone = np.sum(below[siblings] == below[heir]) == 1  # twins both begin one: left and right are alike
        chain[joint] = chain[parent] if joint == heir and alone else chain.max() + 1
    return chain

"""Makes a surface of capsules along a rig's bones, for rigs without a mesh. numpy only."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..geometry.rotations import Array
from ..rig.point_cloud import Surface
from ..rig.rig import Rig

SHORTEST = 0.004  # of the rig's size: shorter bones get no capsule
BURIED = 0.35  # of a capsule's radius: points of others that are deeper inside never show


@dataclass(frozen=True, eq=False)
class _Segments:
    """S tapered capsules. start, end: (S, 3). thick, thin: (S,) radii there. joint: (S,) the bone that moves the capsule.

    before, after: (S,) the joints of the capsules that meet it at its start and at its end.
    """

    start: Array
    end: Array
    thick: Array
    thin: Array
    joint: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def capsules(rig: Rig, count: int = 6000, seed: int = 0) -> Surface:
    """Sample `count` points on capsules along the bones of a rig, in armature space.

    Capsules go from head to tail, and on to the heads of the children. A bone is thicker the more bones it carries and the longer they
    are. Every chain has a muted colour of its own.
    """
    rng = np.random.default_rng(seed)
    segments = _bone_segments(rig)
    points, normals, owner = _sample_points(segments, 3 * count, rng)
    kept = np.flatnonzero(~_is_buried(segments, points, owner))
    kept = np.sort(rng.choice(kept, count, replace=len(kept) < count))
    points, normals, owner = points[kept], normals[kept], owner[kept]
    joints, weights = _bind_points(segments, points, owner)
    colours = _chain_colours(rig)[segments.joint[owner]] + rng.normal(0, 0.012, (count, 1))
    colours = np.clip(colours, 0, 1).astype(np.float32)
    joints, weights = joints.astype(np.int32), weights.astype(np.float32)
    return Surface(points.astype(np.float32), normals.astype(np.float32), colours, joints, weights)


def _rig_size(rig: Rig) -> float:
    """Largest extent of the bones; 1 if they have none."""
    ends = np.concatenate([rig.heads, rig.tails])
    extent = float(np.ptp(ends, axis=0).max())
    return extent if extent > 0 else 1.0


def _bone_segments(rig: Rig) -> _Segments:
    size = _rig_size(rig)
    heads, tails, parents = rig.heads, rig.tails, rig.parents
    children = [np.flatnonzero((parents == joint) & ~rig.translates).tolist() for joint in range(len(parents))]
    rows: list[tuple[Array, Array, int, int, int]] = []
    for joint, below in enumerate(children):
        before = joint if parents[joint] < 0 or rig.translates[joint] else int(parents[joint])
        reached = [child for child in below if np.linalg.norm(heads[child] - tails[joint]) < 0.02 * size]
        # a tail at no child's head, on a bone with children, is an importer's guess: the bone goes to its children instead
        if reached or not below:
            rows.append((heads[joint], tails[joint], joint, before, reached[0] if reached else joint))
        rows += [(heads[joint], heads[child], joint, before, child) for child in below if child not in reached]
    rows = [row for row in rows if np.linalg.norm(row[1] - row[0]) > SHORTEST * size]
    if _stands_below(rig, size):
        rows = [row for row in rows if row[2] != 0] or rows
    if not rows:
        rows = [(heads[0], heads[0] + [0, 0, 0.1 * size], 0, 0, 0)]
    start, end, joint, before, after = (np.array(column) for column in zip(*rows, strict=True))
    radii = _bone_radii(rig, size)
    side = joint != after
    # towards a child the capsule narrows to the child's radius; one of several children gets a branch as thin as itself
    first = np.array([np.argmax(joint == j) == i for i, j in enumerate(joint)])
    thick = np.where(first | ~side, radii[joint], np.minimum(radii[joint], 1.2 * radii[after]))
    thin = np.where(side, np.minimum(thick, radii[after]), 0.7 * thick)
    return _Segments(start, end, thick, thin, joint, before, after)


def _stands_below(rig: Rig, size: float) -> bool:
    """Whether the root is a handle near the floor, with the body above it, and not a part of the body."""
    heights, tips = rig.heads @ rig.world[2], rig.tails @ rig.world[2]
    others, children = np.minimum(heights, tips)[1:], heights[(rig.parents == 0) & ~rig.translates]
    if not len(children):
        return False
    floor, top, rise = min(heights.min(), others.min()), heights.max(), children.max() - heights[0]
    low = heights[0] < floor + 0.3 * (top - floor)
    feet = others.min() < heights[0] + rise / 2  # a stalk on the floor has nothing below the end of its first bone
    return bool(low and feet and rise > 0.15 * size)


def _bone_radii(rig: Rig, size: float) -> Array:
    """(J,) radius at each head: thicker the more bones it carries, as a branch of a tree, within limits from the bones' lengths."""
    heads, tails, parents = rig.heads, rig.tails, rig.parents
    bone = np.linalg.norm(tails - heads, axis=1)
    offset = np.linalg.norm(heads - heads[np.maximum(parents, 0)], axis=1) * ~rig.translates
    leaf = ~np.isin(np.arange(len(parents)), parents)
    carried = np.where(leaf, bone, 0.0)  # length of all bones below
    for joint in range(len(parents) - 1, 0, -1):
        carried[parents[joint]] += (carried[joint] + offset[joint]) * (not rig.translates[joint])
    local = _local_length(parents, offset, np.where(leaf, bone, 0.0))
    # 0.047 sqrt(carried size) fits a human's shank, thigh and pelvis, and makes a tail thinner towards its tip
    radius = np.maximum(0.047 * np.sqrt(carried * size), 0.16 * local)
    return np.clip(np.minimum(radius, 0.9 * local), 0.006 * size, 0.13 * size)


def _local_length(parents: NDArray[np.integer], offset: Array, tip: Array) -> Array:
    """(J,) mean length of the bones at each joint: to its parent, to its children, and to its tail if it is a leaf."""
    total, number = offset + tip, (offset > 0).astype(float) + (tip > 0)
    child = np.flatnonzero((parents >= 0) & (offset > 0))
    np.add.at(total, parents[child], offset[child])
    np.add.at(number, parents[child], 1.0)
    return total / np.maximum(number, 1)


def _sample_points(segments: _Segments, count: int, rng: np.random.Generator) -> tuple[Array, Array, NDArray[np.int64]]:
    """Points and normals (count, 3), spread evenly over the capsules' area, and (count,) the capsule of each."""
    axis = segments.end - segments.start
    length = np.linalg.norm(axis, axis=1)
    axis = axis / length[:, None]
    # areas, divided by pi, of the hemisphere at the start, the side (nearly) and the hemisphere at the end
    areas = np.stack([2 * segments.thick**2, (segments.thick + segments.thin) * length, 2 * segments.thin**2], axis=1)
    # one stratum per point, so that points clump little
    where = (np.arange(count) + rng.random(count)) / count * areas.sum()
    part = np.minimum(np.searchsorted(np.cumsum(areas), where), areas.size - 1)
    owner, kind = np.divmod(part, 3)
    thick, thin = segments.thick[owner], segments.thin[owner]
    # across the side, area grows with the radius: invert the integral of thick + (thin - thick) t
    even = rng.random(count)
    root = np.sqrt(thick**2 + even * (thin**2 - thick**2))
    along = np.where(np.abs(thin - thick) > 1e-6 * thick, (root - thick) / np.where(thin == thick, 1, thin - thick), even)
    # area on the unit sphere is proportional to height (Archimedes); on the side, the normal's height is the cone's slope
    slope = np.clip((thick - thin) / length[owner], -0.9, 0.9)
    height = np.select([kind == 0, kind == 1], [-even, slope], even)
    along = np.select([kind == 0, kind == 1], [0.0, along], 1.0)
    angle = rng.random(count) * 2 * np.pi
    across, over = _perpendicular(axis[owner])
    ring = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * over
    normals = np.sqrt(1 - height**2)[:, None] * ring + height[:, None] * axis[owner]
    radius = thick + (thin - thick) * along
    centre = segments.start[owner] + (along * length[owner])[:, None] * axis[owner]
    return centre + radius[:, None] * normals, normals, owner


def _perpendicular(axis: Array) -> tuple[Array, Array]:
    """Two unit vectors (N, 3) perpendicular to each unit axis (N, 3) and to each other."""
    helper = np.eye(3)[np.argmin(np.abs(axis), axis=1)]
    across = np.cross(axis, helper)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return across, np.cross(axis, across)


def _is_buried(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) whether a point is deep inside another capsule. Points near its surface may show when the joint bends."""
    buried = np.zeros(len(points), np.bool_)
    for index in range(len(segments.joint)):
        along, distance = _project_on_axis(segments, points, np.full(len(points), index))
        radius = segments.thick[index] + (segments.thin[index] - segments.thick[index]) * along
        buried |= (distance < (1 - BURIED) * radius) & (owner != index)
    return buried


def _project_on_axis(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> tuple[Array, Array]:
    """(P,) the place of each point along its capsule's axis, 0..1, and (P,) its distance from the axis."""
    axis = (segments.end - segments.start)[owner]
    relative = points - segments.start[owner]
    along = np.clip((relative * axis).sum(1) / (axis * axis).sum(1), 0, 1)
    return along, np.linalg.norm(relative - along[:, None] * axis, axis=1)


def _bind_points(segments: _Segments, points: Array, owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """(P, 4) joints and weights: the bone of the capsule, blended with the neighbour to half and half where two bones meet."""
    length = np.linalg.norm(segments.end - segments.start, axis=1)[owner]
    axis = (segments.end - segments.start)[owner] / length[:, None]
    along = ((points - segments.start[owner]) * axis).sum(1)
    thick = np.minimum(segments.thick[owner], length / 2)
    thin = np.minimum(segments.thin[owner], length / 2)
    before = 0.5 * np.clip(1 - along / thick, 0, 1) * (segments.before != segments.joint)[owner]
    after = 0.5 * np.clip(1 - (length - along) / thin, 0, 1) * (segments.after != segments.joint)[owner]
    joints = np.stack([segments.joint, segments.before, segments.after, segments.joint], axis=1)[owner]
    return joints, np.stack([1 - before - after, before, after, np.zeros_like(after)], axis=1)


def _chain_colours(rig: Rig) -> Array:
    """(J, 3) colours as displayed: a hue for each kind of chain. Chains of one kind, such as left and right legs, differ slightly."""
    chain = _chain_numbers(rig)
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


def _chain_numbers(rig: Rig) -> NDArray[np.int64]:
    """(J,) the number of each joint's chain. At a fork the largest branch continues the chain, and the others start new ones."""
    count = len(rig.parents)
    below = np.ones(count)
    for joint in range(count - 1, 0, -1):
        below[rig.parents[joint]] += below[joint]
    chain = np.zeros(count, np.int64)
    for joint in range(1, count):
        parent = rig.parents[joint]
        siblings = np.flatnonzero(rig.parents == parent)
        heir = siblings[np.argmax(below[siblings])]
        # of equal branches, such as left and right legs, none continues it
        only_one = np.sum(below[siblings] == below[heir]) == 1
        chain[joint] = chain[parent] if joint == heir and only_one else chain.max() + 1
    return chain

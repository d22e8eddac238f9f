"""Makes a skin for a body: tapered tubes with oval cross-sections, eyes, and weights that blend at the joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array
from .body import Body
from .paint import paint
from .parts import Rng

BURIED = 0.65  # of a tube's radius: points of others closer to its axis are left out
RING = 64
EYE_POINTS = 45


@dataclass(frozen=True, eq=False)
class Skin:
    """P points on the neutral body, body frame.

    points, normals, colours: (P, 3). joints, weights: (P, 4), indices of the body's bones; the last column is unused.
    owner: (P,) the bone of each point. along: (P,) 0..1 from that bone's head to its tail.
    """

    points: Array
    normals: Array
    colours: Array
    joints: NDArray[np.int64]
    weights: Array
    owner: NDArray[np.int64]
    along: Array


def skin_of(body: Body, rng: Rng, count: int) -> Skin:
    """Sample about `count` points, evenly by area, but with some on every bone."""
    tubes = _tubes_of(body)
    points, normals, owner, along = _sample_tubes(tubes, 2 * count, rng)
    kept = np.flatnonzero(~_is_inside(tubes, points, owner))
    kept = np.sort(rng.choice(kept, min(count, len(kept)), replace=False))
    points, normals, owner, along = points[kept], normals[kept], owner[kept], along[kept]
    colours = paint(body, rng, points, normals, owner, along)
    joints, weights = _bind_to_bones(body, tubes, owner, along)
    eyes = _sample_eyes(body, rng)
    bound = np.tile(eyes[3][:, None], (1, 4)), np.tile([1.0, 0, 0, 0], (len(eyes[3]), 1))
    return Skin(
        np.concatenate([points, eyes[0]]), np.concatenate([normals, eyes[1]]), np.concatenate([colours, eyes[2]]),
        np.concatenate([joints, bound[0]]), np.concatenate([weights, bound[1]]), np.concatenate([owner, eyes[3]]),
        np.concatenate([along, np.full(len(eyes[3]), 0.5)]),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Tubes:
    """A tube for each bone. axis, across, over: (J, 3) unit, along the bone and perpendicular. flat: (J, 2) factors of the radius across
    and over. thick, thin: (J,) radii at start and end."""

    start: Array
    length: Array
    axis: Array
    across: Array
    over: Array
    thick: Array
    thin: Array
    flat: Array


def _tubes_of(body: Body) -> _Tubes:
    span = body.tails - body.heads
    length = np.linalg.norm(span, axis=1)
    axis = span / length[:, None]
    across = np.array([bone.across for bone in body.bones], float)
    across -= axis * (across * axis).sum(1, keepdims=True)
    lost = np.linalg.norm(across, axis=1) < 0.2  # the bone points along its own `across`
    across[lost] = np.cross(axis[lost], [0.3, 0.9, 0.3])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    wide = np.array([(bone.thick, bone.thin, *bone.flat) for bone in body.bones])
    return _Tubes(body.heads, length, axis, across, np.cross(axis, across), wide[:, 0], wide[:, 1], wide[:, 2:])


def _sample_tubes(tubes: _Tubes, count: int, rng: Rng) -> tuple[Array, Array, NDArray[np.int64], Array]:
    """Points and normals (N, 3), the bone (N,) of each and its place along the bone (N,), 0..1."""
    ring = np.linspace(0, 2 * np.pi, RING + 1)
    edge = np.hypot(tubes.flat[:, :1] * np.sin(ring), tubes.flat[:, 1:] * np.cos(ring))
    around = np.cumsum(np.column_stack([np.zeros(len(edge)), (edge[:, 1:] + edge[:, :-1]) / 2]), axis=1)
    # areas, divided by pi, of the hemisphere at the head, the side and the hemisphere at the tail; ovals by their mean radius
    mean = around[:, -1] / RING
    areas = np.stack([2 * tubes.thick**2, (tubes.thick + tubes.thin) * tubes.length, 2 * tubes.thin**2], axis=1) * mean[:, None]
    areas[:, 1] += 0.2 * areas.sum() / len(areas)  # more points for thin bones, whose outlines would be rough
    where = (np.arange(count) + rng.random(count)) / count * areas.sum()
    owner, kind = np.divmod(np.minimum(np.searchsorted(np.cumsum(areas), where), areas.size - 1), 3)
    thick, thin = tubes.thick[owner], tubes.thin[owner]
    even = rng.random(count)
    # on the side, area is proportional to the radius: invert the integral of thick + (thin - thick) t
    root = np.sqrt(thick**2 + even * (thin**2 - thick**2))
    along = np.where(np.abs(thin - thick) > 1e-6 * thick, (root - thick) / np.where(thin == thick, 1, thin - thick), even)
    along = np.select([kind == 0, kind == 1], [0.0, along], 1.0)
    slope = np.clip((thick - thin) / tubes.length[owner], -0.9, 0.9)
    height = np.select([kind == 0, kind == 1], [-even, slope], even)
    share, angle = rng.random(count), np.empty(count)
    for bone in range(len(edge)):
        own = owner == bone
        angle[own] = np.interp(share[own] * around[bone, -1], around[bone], ring)
    return _points_on_tubes(tubes, owner, along, height, angle)


def _points_on_tubes(
    tubes: _Tubes, owner: NDArray[np.int64], along: Array, height: Array, angle: Array
) -> tuple[Array, Array, NDArray[np.int64], Array]:
    """Points as from `_sample_tubes`. height: -1..1, the normal's component along the axis. angle: radians around the axis."""
    first, second = np.cos(angle)[:, None] * tubes.across[owner], np.sin(angle)[:, None] * tubes.over[owner]
    flat = tubes.flat[owner]
    rim = np.sqrt(1 - height**2)[:, None]
    lift = height[:, None] * tubes.axis[owner]
    radius = tubes.thick[owner] * (1 - along) + tubes.thin[owner] * along
    # a ball squeezed by (a, b) has the normal of the unit ball divided by (a, b); caps are as deep as their mean radius
    points = rim * (first * flat[:, :1] + second * flat[:, 1:]) + lift * flat.min(1, keepdims=True)
    normals = rim * (first / flat[:, :1] + second / flat[:, 1:]) + lift / flat.min(1, keepdims=True)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    centre = tubes.start[owner] + (along * tubes.length[owner])[:, None] * tubes.axis[owner]
    return centre + radius[:, None] * points, normals, owner, along


def _is_inside(tubes: _Tubes, points: Array, owner: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(P,) whether a point is deep inside another bone's tube."""
    buried = np.zeros(len(points), np.bool_)
    for bone in range(len(tubes.length)):
        relative = points - tubes.start[bone]
        along = np.clip(relative @ tubes.axis[bone] / tubes.length[bone], 0, 1)
        relative = relative - (along * tubes.length[bone])[:, None] * tubes.axis[bone]
        flat = tubes.flat[bone]
        scaled = np.stack(
            [
                relative @ tubes.across[bone] / flat[0],
                relative @ tubes.over[bone] / flat[1],
                relative @ tubes.axis[bone] / flat.min(),
            ]
        )
        radius = tubes.thick[bone] + (tubes.thin[bone] - tubes.thick[bone]) * along
        buried |= (np.linalg.norm(scaled, axis=0) < BURIED * radius) & (owner != bone)
    return buried


def _bind_to_bones(body: Body, tubes: _Tubes, owner: NDArray[np.int64], along: Array) -> tuple[NDArray[np.int64], Array]:
    """(P, 4) joints and weights: at its ends, a bone blends to half and half with its parent and with the child that continues it."""
    before, after = np.maximum(body.parents, 0), np.arange(len(body.bones))
    for joint in range(len(body.bones) - 1, 0, -1):
        parent = body.parents[joint]
        if np.linalg.norm(body.heads[joint] - body.tails[parent]) < 1e-6:
            after[parent] = joint
    length = tubes.length
    near = np.clip(np.maximum(tubes.thick, 0.3 * length), 1e-6, 0.5 * length)
    far = np.clip(np.maximum(tubes.thin, 0.3 * length), 1e-6, 0.5 * length)
    place = along * length[owner]
    first = 0.5 * np.clip(1 - place / near[owner], 0, 1) * (before[owner] != owner)
    last = 0.5 * np.clip(1 - (length[owner] - place) / far[owner], 0, 1) * (after[owner] != owner)
    weights = np.stack([1 - first - last, first, last, np.zeros_like(first)], axis=1)
    return np.stack([owner, before[owner], after[owner], owner], axis=1), weights


def _sample_eyes(body: Body, rng: Rng) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """Points, normals, colours (N, 3) and bones (N,) of eyes on the head: bright balls with a dark pupil ahead."""
    heads = [index for index, bone in enumerate(body.bones) if bone.role in ("head", "turret")][:1]
    if not heads:
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0, np.int64)
    bone = body.bones[heads[0]]
    along = (bone.tail - bone.head) / np.linalg.norm(bone.tail - bone.head)
    wide = 0.5 * (bone.thick + bone.thin)
    size, white = wide * rng.uniform(0.2, 0.36), rng.uniform(0.75, 1, 3)
    dark = rng.uniform(0, 0.15, 3)
    parts = []
    for sign in (1.0, -1.0):
        level = abs(along[2]) < 0.7
        # at the sides of a level head, at the front of an upright one
        way = np.array([0.8 * sign, 0.0, 0.6]) if level else np.array([0.45 * sign, -0.9, 0.0])
        way -= along * (way @ along)
        way /= np.linalg.norm(way)
        centre = bone.head + (bone.tail - bone.head) * (0.6 if level else 0.5) + way * wide * 0.9
        ball = rng.normal(0, 1, (EYE_POINTS, 3))
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        gaze = (way + [0, -0.7, 0]) / np.linalg.norm(way + [0, -0.7, 0])
        parts.append((centre + size * ball, ball, np.where((ball @ gaze > 0.72)[:, None], dark, white)))
    points, normals, colours = (np.concatenate(column) for column in zip(*parts, strict=True))
    return points, normals, colours, np.full(len(points), heads[0], np.int64)

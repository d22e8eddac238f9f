"""Builds a pack of a body, its motions and its skin: rest pose, bone axes, helper bones, order, heading, size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array, rotvec_to_matrix
from ...rig.point_cloud import Surface
from ...rig.rig import Rig
from ..packs.rig_packs import Pack
from .body import Body, Bone, upper_arm
from .motions import TAU
from .naming import names_of
from .parts import Rng, chance
from .score import Score, Y, Z, solve_legs
from .skin import Skin

BITS = 2.0**15  # matrices rounded to 1 / BITS compress to half the size


@dataclass(frozen=True, eq=False)
class Figure:
    """A rig while it is built: J joints with matrices (J, 4, 4) at rest and (F, J, 4, 4) in clips, body frame.

    source: (J,) the body's bone of each joint, -1 for helpers. tails: (J, 3) at rest. twists: for twist bones, the bone that they belong to.
    """

    bones: tuple[Bone, ...]
    source: NDArray[np.int64]
    parents: NDArray[np.int64]
    rest: Array
    tails: Array
    clips: dict[str, Array]
    twists: dict[int, int]


def rest_pose(body: Body, rng: Rng) -> tuple[Array, Array]:
    """Draw a rest pose: global rotations away from neutral (J, 3, 3) and positions (J, 3).

    Arms are in a T, an A or down, legs straight or bent, wings spread or folded.
    """
    score = Score(body, 1)
    raise_ = np.radians(rng.choice([95, 80, 45, 30, 5, 0], p=[0.25, 0.15, 0.2, 0.1, 0.15, 0.15]))
    for arm in body.of("arm"):
        upper = upper_arm(arm)
        score.bend(upper, (-Y if arm.side == "L" else Y), raise_ * (1.2 if body.plan == "biped" else 0.3))
    hip = body.heads[0, 2]
    score.shift[:, 2] = hip * rng.choice([0.04, 0.0, -0.04, -0.1], p=[0.35, 0.35, 0.2, 0.1])
    for leg in body.legs:
        score.plant(leg)
    fold = rng.choice([0.0, 0.5, 0.9])
    for wing in body.of("wing"):
        score.bend(wing.joints[0], (Z if wing.side == "L" else -Z), 1.15 * fold)
    if chance(rng, 0.3):
        noise = rng.normal(0, np.radians(4), (len(body.bones), 3)) * np.minimum(body.limits, 1)[:, None]
        noise[0] = 0
        score.bends[0] += noise
    rotations, places = solve_legs(score)
    return rotations[0], places[0]


def figure_of(body: Body, rng: Rng, rest: tuple[Array, Array], clips: dict[str, tuple[Array, Array]]) -> Figure:
    """A figure of the body's own bones. rest: as from `rest_pose`. clips: the same with frames, (F, J, ...), by name."""
    axes, along = _bone_axes(body, rng)
    # a point of bone j at x in its own axes is at p + G N x, with N the bone's axes in the neutral pose: P = [G N | p]
    matrices = {name: _affine(rotations @ axes, places) for name, (rotations, places) in clips.items()}
    still = _affine(rest[0] @ axes, rest[1])
    length = np.linalg.norm(body.tails - body.heads, axis=1)
    if along:
        tails = rest[1] + (rest[0] @ (body.tails - body.heads)[..., None])[..., 0]
    else:  # as Blender's importers make them: along the bone's own y, wherever the next joint is
        tails = rest[1] + still[:, :3, 1] * length[:, None]
    if chance(rng, 0.15):
        tails = rest[1] + still[:, :3, 1] * 0.01 * body.size
    count = len(body.bones)
    return Figure(body.bones, np.arange(count), body.parents.astype(np.int64), still, tails, matrices, {})


def _bone_axes(body: Body, rng: Rng) -> tuple[Array, bool]:
    """(J, 3, 3) the bones' axes in the neutral pose, and whether their y points along the bone, as in Blender."""
    kind = rng.choice(["y", "y", "y", "x", "z", "world", "random"])
    if kind == "world":
        return np.tile(np.eye(3), (len(body.bones), 1, 1)), False
    if kind == "random":
        return rotvec_to_matrix(rng.normal(0, 1.5, (len(body.bones), 3))), False
    along = body.tails - body.heads
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, np.where(np.abs(along[:, 1:2]) > 0.9, Z, Y))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    roll = np.full(len(along), rng.choice([0, 0, np.pi / 2, np.pi, rng.uniform(-3, 3)]))
    roll += rng.normal(0, 1, len(along)) * chance(rng, 0.2)
    second = np.cos(roll)[:, None] * side + np.sin(roll)[:, None] * np.cross(along, side)
    third = np.cross(second, along)
    columns = {"y": (second, along, third), "x": (along, third, second), "z": (third, second, along)}[str(kind)]
    return np.stack(columns, axis=-1), kind == "y"


def _affine(rotation: Array, place: Array) -> Array:
    matrix = np.zeros((*place.shape[:-1], 4, 4))
    matrix[..., :3, :3], matrix[..., :3, 3], matrix[..., 3, 3] = rotation, place, 1
    return matrix


def dress(figure: Figure, body: Body, rng: Rng) -> Figure:
    """Add peculiarities of real rigs: twist bones, end bones, another order."""
    if chance(rng, 0.25):
        figure = _with_twists(figure, body, rng)
    if chance(rng, 0.25):
        figure = _with_ends(figure, body)
    return _shuffle_joints(figure, rng) if chance(rng, 0.4) else figure


def _append(figure: Figure, bone: Bone, parent: int, rest: Array, tail: Array, clips: Mapping[str, Array]) -> Figure:
    return replace(
        figure,
        bones=(*figure.bones, bone), source=np.append(figure.source, -1), parents=np.append(figure.parents, parent),
        rest=np.concatenate([figure.rest, rest[None]]), tails=np.concatenate([figure.tails, tail[None]]),
        clips={name: np.concatenate([pose, clips[name][:, None]], axis=1) for name, pose in figure.clips.items()},
    )  # fmt: skip


def _reordered(figure: Figure, order: NDArray[np.int64]) -> Figure:
    """Put joint order[i] at index i."""
    place = np.argsort(order)
    parents = figure.parents[order]
    return Figure(
        tuple(figure.bones[joint] for joint in order), figure.source[order], np.where(parents < 0, -1, place[np.maximum(parents, 0)]),
        figure.rest[order], figure.tails[order], {name: pose[:, order] for name, pose in figure.clips.items()},
        {int(place[joint]): int(place[other]) for joint, other in figure.twists.items()},
    )  # fmt: skip


def _with_twists(figure: Figure, body: Body, rng: Rng) -> Figure:
    """Add bones from the middle of upper arms and thighs, which twist a little and take half of their skin."""
    roles = [role for role in ("upper_arm", "forearm", "thigh", "upper_leg") if chance(rng, 0.6)]
    for joint, source in enumerate(figure.source.tolist()):
        bone = figure.bones[joint]
        if source < 0 or bone.role not in roles or not bone.side:
            continue
        middle = np.eye(4)
        # a bone's end in its own axes is the same in every pose: R^-1 (tail - head), from the neutral lengths at rest
        child = next((k for k, above in enumerate(figure.parents) if above == joint), -1)
        end = figure.rest[child, :3, 3] if child >= 0 else figure.tails[joint]
        middle[:3, 3] = 0.5 * figure.rest[joint, :3, :3].T @ (end - figure.rest[joint, :3, 3])
        axis = middle[:3, 3] / max(np.linalg.norm(middle[:3, 3]), 1e-9)
        clips = {}
        for name, pose in figure.clips.items():
            angle = rng.uniform(0, 0.35) * np.sin(TAU * (rng.uniform(0.5, 2) * np.linspace(0, 1, len(pose)) + rng.random()))
            roll = _affine(rotvec_to_matrix(angle[:, None] * axis), np.zeros((len(pose), 3)))
            clips[name] = pose[:, joint] @ middle @ roll
        helper = replace(bone, role=f"{bone.role}_twist", index=0, alone=True)
        figure = _append(figure, helper, joint, figure.rest[joint] @ middle, end, clips)
        figure.twists[len(figure.bones) - 1] = joint
    return figure


def _with_ends(figure: Figure, body: Body) -> Figure:
    """Add a bone without skin at the end of each chain, as exporters do."""
    for joint in np.setdiff1d(np.arange(len(figure.bones)), figure.parents).tolist():
        source = int(figure.source[joint])
        if source < 0 or body.bones[source].part in ("wheel", "jaw"):
            continue
        end = np.eye(4)
        end[:3, 3] = figure.rest[joint, :3, :3].T @ (figure.tails[joint] - figure.rest[joint, :3, 3])
        clips = {name: pose[:, joint] @ end for name, pose in figure.clips.items()}
        helper = replace(figure.bones[joint], role=f"{figure.bones[joint].role}_end", index=0, alone=True)
        tail = figure.tails[joint] + 0.5 * (figure.tails[joint] - figure.rest[joint, :3, 3])
        figure = _append(figure, helper, joint, figure.rest[joint] @ end, tail, clips)
    return figure


def _shuffle_joints(figure: Figure, rng: Rng) -> Figure:
    """Put the joints in a random order with parents before children."""
    order, ready = [], [0]
    while ready:
        joint = ready.pop(int(rng.integers(len(ready))))
        order.append(joint)
        ready += np.flatnonzero(figure.parents == joint).tolist()
    return _reordered(figure, np.array(order))


def surface_of(figure: Figure, body: Body, skin: Skin, rest: tuple[Array, Array]) -> Surface:
    """Move the neutral skin to the rest pose, and bind it to the figure's joints."""
    # neutral to rest, by bone: x -> G (x - h) + p, with h the neutral head; the weighted mean of these moves the point
    moved = (rest[0][skin.joints] @ (skin.points[:, None] - body.heads[skin.joints])[..., None])[..., 0] + rest[1][skin.joints]
    normals = np.einsum("pk,pkij,pj->pi", skin.weights, rest[0][skin.joints], skin.normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    place = np.zeros(len(body.bones), np.int64)
    own = figure.source >= 0
    place[figure.source[own]] = np.flatnonzero(own)
    joints, weights = place[skin.joints], skin.weights.copy()
    for twist, bone in figure.twists.items():
        mine = np.flatnonzero(place[skin.owner] == bone)
        share = np.clip(2 * skin.along[mine] - 0.5, 0, 1) * weights[mine, 0]
        joints[mine, 3], weights[mine, 3] = twist, share
        weights[mine, 0] -= share
    points = np.asarray((skin.weights[..., None] * moved).sum(1), np.float32)
    return Surface(
        points,
        np.asarray(normals, np.float32),
        np.asarray(skin.colours, np.float32),
        joints.astype(np.int32),
        weights.astype(np.float32),
    )


def pack_of(name: str, figure: Figure, surface: Surface, rng: Rng, style: str | None, fps: float) -> Pack:
    """Rotate the figure to a random heading, scale it, and make a pack of it."""
    yaw = rng.choice([0, np.pi / 2, -np.pi / 2, np.pi, rng.uniform(-np.pi, np.pi)], p=[0.76, 0.06, 0.06, 0.06, 0.06])
    world, scale = rotvec_to_matrix(yaw * Z), float(np.exp(rng.uniform(-0.5, 1.5)))

    # a point x of the body frame is at s W x in the world; a bone's axes rotate by W and keep their length
    def placed(matrices: Array) -> Array:
        return _affine(world @ matrices[..., :3, :3], scale * matrices[..., :3, 3] @ world.T)

    rig = Rig(
        name, names_of(figure.bones, rng, style), figure.parents, placed(figure.rest), scale * figure.tails @ world.T,
        np.zeros(len(figure.bones), np.bool_), np.zeros(len(figure.bones), np.bool_),
    )  # fmt: skip
    clips = {clip: (np.round(placed(pose) * BITS) / BITS).astype(np.float32) for clip, pose in figure.clips.items()}
    to_world = world.T.astype(np.float32)
    moved = replace(surface, points=np.float32(scale) * surface.points @ to_world, normals=surface.normals @ to_world)
    return Pack(name, rig, moved, clips, fps)

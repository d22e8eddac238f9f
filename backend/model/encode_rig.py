"""From a rig and its reference pairs to the tensors of `inputs.NetworkInputs`, for one rig or a padded batch of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..encoders.crops import to_crop
from ..errors import UserError
from ..geometry.camera import project, view_yaw
from ..geometry.rotations import Array, matrix_to_rot6d
from ..rig.guess_joint_names import names_or_guesses
from ..rig.joint_names import hashed_embedding
from ..rig.rig import Rig
from ..rig.skeleton import (
    Skeleton,
    ancestor_mask,
    global_to_local,
    graph_relations,
    leaf_joints,
    network_axes,
    pose_to_network,
    scale_of,
    skeleton_of,
)
from .config import Config
from .inputs import NetworkInputs, SkeletonGraph

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

IDENTITY = np.array([1.0, 0, 0, 0, 1, 0])


@dataclass(frozen=True, eq=False)
class SkeletonFeatures:
    """What of a rig does not depend on the reference: K joints, tips included where the model wants them.

    relation (K, K) int, ancestors (K, K) bool, names (K, E), static_position and static_rotation (K,) bool.
    """

    skeleton: Skeleton
    relation: NDArray[np.int64]
    ancestors: NDArray[np.bool_]
    names: NDArray[np.float32]
    static_position: NDArray[np.bool_]
    static_rotation: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReferencePairs:
    """N reference pairs of one rig in their cameras' frames, divided by `scale` (rig units per normalised unit).

    position (N, K, 3), rot6d (N, K, 6), uv (K, 2) and unit as in inputs.NetworkInputs, for the first pair.
    """

    scale: float
    position: Array
    rot6d: Array
    uv: Array
    unit: float


def encode_skeleton(rig: Rig, config: Config, embed: Embed | None = None) -> SkeletonFeatures:
    """embed: names (K) -> (K, E), needed for models whose names are not hashed. Raises UserError where it is missing."""
    if config.names != "hashed" and embed is None:
        raise UserError(
            f"The model's joint names need the encoder '{config.names}', which is not installed: choose the lite model."
        )
    skeleton = skeleton_of(rig, config.tips)
    hop, edge = graph_relations(skeleton.parents)
    ancestors = ancestor_mask(skeleton.parents)
    held = skeleton.static | skeleton.tip
    # a position relative to the root stays put only if nothing above it turns
    moved_by = (ancestors & ~held[None] & ~np.eye(len(held), dtype=np.bool_)).any(1)
    names = embed(_words(rig, config)) if embed else hashed_embedding(_words(rig, config), config.name_width)
    return SkeletonFeatures(skeleton, 6 * hop + edge, ancestors, names, skeleton.static & ~moved_by, held)


def _words(rig: Rig, config: Config) -> tuple[str, ...]:
    """What the K joints are called: as the bones are; for the released network as the user says, or guessed where a name means nothing."""
    words = rig.names if config.names == "hashed" else rig.labels or names_or_guesses(rig)
    leaves = leaf_joints(rig.parents) if config.tips else ()
    return words + tuple(f"{words[leaf]} tip" for leaf in leaves)


def encode_reference_pairs(
    rig: Rig, poses: Array, azimuths: Sequence[float], projection: Array, square: Array, config: Config
) -> ReferencePairs:
    """poses (N, J, 4, 4) in armature space, seen from azimuths (N); projection (3, 4) armature space -> pixels and the crop's
    square (4,) belong to the image of the first pair.

    A pair enters the network in its camera's frame (docs/network.md, Conventions): p -> Y p and L_root -> Y L_root.
    """
    rotations, positions = pose_to_network(rig, poses, config.tips)
    rest = skeleton_of(rig, tips=False).rest
    scale = scale_of(rest, positions[0, : len(rig.names)])
    yaw = np.stack([view_yaw(azimuth) for azimuth in azimuths])
    local = global_to_local(skeleton_of(rig, config.tips).parents, rotations)
    local[:, 0] = yaw @ local[:, 0]
    # network axes -> armature space, where the projection starts: p_armature = A^T p + root
    points = positions[0] @ network_axes(rig) + poses[0, 0, :3, 3]
    uv = to_crop(square, project(projection, points))
    unit = (square[2] - square[0]) / 2 / pixels_per_unit(projection, poses[0, 0, :3, 3]) / scale
    return ReferencePairs(scale, positions @ yaw.swapaxes(-1, -2) / scale, matrix_to_rot6d(local), uv, float(unit))


def pixels_per_unit(projection: Array, point: Array) -> float:
    """How many pixels one unit across the line of sight covers at `point`: the root mean square of the projection's derivative."""
    u, v, depth = projection[:, :3] @ point + projection[:, 3]
    # d(u/w)/dp = (P_u - (u/w) P_w) / w
    derivative = (projection[:2, :3] - np.array([[u], [v]]) / depth * projection[2:, :3]) / depth
    return float(np.sqrt((derivative**2).sum() / 2))


def collate(bodies: Sequence[SkeletonFeatures], pairs: Sequence[ReferencePairs], tokens: Tensor) -> NetworkInputs:
    """B rigs -> NetworkInputs padded to the largest, on the device and in the dtype of tokens (B, S, C).

    All rigs must bring the same number of reference pairs.
    """
    joints = max(len(body.skeleton) for body in bodies)
    count = [joints - len(body.skeleton) for body in bodies]
    scales = [pair.scale for pair in pairs]

    def stack(values: Sequence[NDArray[np.generic]], axes: tuple[int, ...], fill: float | NDArray[np.float64] = 0) -> Tensor:
        stacked = _stack(values, count, axes, fill)
        # narrowed before it moves: Metal has no float64
        return (stacked.to(tokens.dtype) if stacked.is_floating_point() else stacked).to(tokens.device)

    graph = SkeletonGraph(
        relation=stack([body.relation for body in bodies], (0, 1), 6 * 5 + 4),
        ancestors=stack([body.ancestors for body in bodies], (0, 1)),
        mask=stack([np.ones(len(body.skeleton), np.bool_) for body in bodies], (0,)),
        parents=_parents(bodies, joints).to(tokens.device),
    )
    offsets = [body.skeleton.offsets / scale for body, scale in zip(bodies, scales, strict=True)]
    return NetworkInputs(
        graph=graph,
        names=stack([body.names for body in bodies], (0,)),
        offsets=stack(offsets, (0,)),
        position=stack([pair.position for pair in pairs], (1,)),
        rot6d=stack([pair.rot6d for pair in pairs], (1,), IDENTITY),
        tokens=tokens,
        static_position=stack([body.static_position for body in bodies], (0,)),
        static_rotation=stack([body.static_rotation for body in bodies], (0,)),
        uv=stack([pair.uv for pair in pairs], (0,)),
        unit=torch.tensor([pair.unit for pair in pairs]).to(tokens),
    )


def _parents(bodies: Sequence[SkeletonFeatures], joints: int) -> Tensor:
    """(B, joints): a root and every padded joint is its own parent."""
    parents = np.tile(np.arange(joints), (len(bodies), 1))
    for row, body in zip(parents, bodies, strict=True):
        row[: len(body.skeleton)] = np.where(body.skeleton.parents < 0, row[: len(body.skeleton)], body.skeleton.parents)
    return torch.from_numpy(parents)


def _stack(
    values: Sequence[NDArray[np.generic]], padding: Sequence[int], axes: tuple[int, ...], fill: float | NDArray[np.float64]
) -> Tensor:
    padded = []
    for value, extra in zip(values, padding, strict=True):
        shape = [size + extra if axis in axes else size for axis, size in enumerate(value.shape)]
        full = np.full(shape, fill, value.dtype)
        full[tuple(slice(size) for size in value.shape)] = value
        padded.append(full)
    return torch.from_numpy(np.stack(padded))

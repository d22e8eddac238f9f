"""Encodes rigs and their reference pairs as the tensors of `inputs.NetworkInputs`.

Rigs are encoded one by one, as numpy arrays of K joints (the J joints of the rig and, if the model uses them, its leaf tips), then padded
and stacked to a batch of tensors.
"""

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
    MAX_HOP,
    UNRELATED,
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
    """The part of a rig's network input that does not depend on the reference pose.

    relation: (K, K) int, 6 * hop + edge. ancestors: (K, K) bool. names: (K, E).
    static_position, static_rotation: (K,) bool, joints that keep the reference's position and rotation.
    """

    skeleton: Skeleton
    relation: NDArray[np.int64]
    ancestors: NDArray[np.bool_]
    names: NDArray[np.float32]
    static_position: NDArray[np.bool_]
    static_rotation: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReferencePairs:
    """N reference pairs of one rig, in their cameras' frames and divided by `scale`, the rig units in a unit of the network.

    position: (N, K, 3). rot6d: (N, K, 6), local. uv: (K, 2) and unit: those of the first pair (inputs.NetworkInputs).
    """

    scale: float
    position: Array
    rot6d: Array
    uv: Array
    unit: float


def encode_skeleton(rig: Rig, config: Config, embed: Embed | None = None) -> SkeletonFeatures:
    """Encode what does not depend on the reference pose.

    embed: encodes the K names as (K, E), for models that do not hash them. Raises UserError if such a model has none.
    """
    if config.names != "hashed" and embed is None:
        raise UserError(
            f"The model's joint names need the encoder '{config.names}', which is not installed: choose the lite model."
        )
    skeleton = skeleton_of(rig, config.tips)
    hop, edge = graph_relations(skeleton.parents)
    ancestors = ancestor_mask(skeleton.parents)
    held = skeleton.static | skeleton.tip
    # a static joint still moves if a joint above it, which is not held, rotates
    moved_by = (ancestors & ~held[None] & ~np.eye(len(held), dtype=np.bool_)).any(1)
    words = _joint_words(rig, config)
    names = embed(words) if embed else hashed_embedding(words, config.name_width)
    return SkeletonFeatures(skeleton, 6 * hop + edge, ancestors, names, skeleton.static & ~moved_by, held)


def _joint_words(rig: Rig, config: Config) -> tuple[str, ...]:
    """The K joints' names: those of the bones for hashing; otherwise the user's labels, or guesses where a bone's name means nothing."""
    words = rig.names if config.names == "hashed" else rig.labels or names_or_guesses(rig)
    leaves = leaf_joints(rig.parents) if config.tips else ()
    return words + tuple(f"{words[leaf]} tip" for leaf in leaves)


def encode_reference_pairs(
    rig: Rig, poses: Array, azimuths: Sequence[float], projection: Array, square: Array, config: Config
) -> ReferencePairs:
    """Encode N poses (N, J, 4, 4) in armature space, each seen by a camera at its azimuth (radians).

    projection: (3, 4) from armature space to pixels, and square: (4,) the crop in pixels; both belong to the first pair's image.
    Raises UserError for a skeleton without extent.
    """
    rotations, positions = pose_to_network(rig, poses, config.tips)
    rest = skeleton_of(rig, config.tips).rest
    # without the tips, if the joints alone have an extent: a rig of one bone has not
    counted = slice(len(rig.names)) if rest[: len(rig.names)].any() else slice(None)
    scale = scale_of(rest[counted], positions[0, counted])
    yaw = np.stack([view_yaw(azimuth) for azimuth in azimuths])
    local = global_to_local(skeleton_of(rig, config.tips).parents, rotations)
    # into the camera's frame (docs/network.md, Conventions): p -> Y p, and of the local rotations only the root's, L -> Y L
    local[:, 0] = yaw @ local[:, 0]
    # network axes -> armature space, where the projection starts: p_armature = A^T p + root; as rows, p A + root
    points = positions[0] @ network_axes(rig) + poses[0, 0, :3, 3]
    uv = to_crop(square, project(projection, points))
    unit = (square[2] - square[0]) / 2 / pixels_per_unit(projection, poses[0, 0, :3, 3]) / scale
    return ReferencePairs(scale, positions @ yaw.swapaxes(-1, -2) / scale, matrix_to_rot6d(local), uv, float(unit))


def pixels_per_unit(projection: Array, point: Array) -> float:
    """Pixels per unit of length at `point` (3,), for a length across the line of sight. projection: (3, 4)."""
    u, v, depth = projection[:, :3] @ point + projection[:, 3]
    # d(u/w)/dp = (P_u - (u/w) P_w) / w; the root mean square over the two directions of the image
    derivative = (projection[:2, :3] - np.array([[u], [v]]) / depth * projection[2:, :3]) / depth
    return float(np.sqrt((derivative**2).sum() / 2))


def collate(bodies: Sequence[SkeletonFeatures], pairs: Sequence[ReferencePairs], tokens: Tensor) -> NetworkInputs:
    """Stack B rigs, padded to the one with most joints, on the device and in the dtype of tokens (B, S, C).

    All rigs must have the same number of reference pairs.
    """
    joints = max(len(body.skeleton) for body in bodies)
    count = [joints - len(body.skeleton) for body in bodies]
    scales = [pair.scale for pair in pairs]

    def stack(values: Sequence[NDArray[np.generic]], axes: tuple[int, ...], fill: float | NDArray[np.float64] = 0) -> Tensor:
        stacked = _pad_and_stack(values, count, axes, fill)
        # to float32 before the transfer: Metal has no float64
        return (stacked.to(tokens.dtype) if stacked.is_floating_point() else stacked).to(tokens.device)

    graph = SkeletonGraph(
        relation=stack([body.relation for body in bodies], (0, 1), 6 * MAX_HOP + UNRELATED),
        ancestors=stack([body.ancestors for body in bodies], (0, 1)),
        mask=stack([np.ones(len(body.skeleton), np.bool_) for body in bodies], (0,)),
        parents=_pad_parents(bodies, joints).to(tokens.device),
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


def _pad_parents(bodies: Sequence[SkeletonFeatures], joints: int) -> Tensor:
    """(B, joints): a root and every padded joint is its own parent."""
    parents = np.tile(np.arange(joints), (len(bodies), 1))
    for row, body in zip(parents, bodies, strict=True):
        row[: len(body.skeleton)] = np.where(body.skeleton.parents < 0, row[: len(body.skeleton)], body.skeleton.parents)
    return torch.from_numpy(parents)


def _pad_and_stack(
    values: Sequence[NDArray[np.generic]], padding: Sequence[int], axes: tuple[int, ...], fill: float | NDArray[np.float64]
) -> Tensor:
    """Stack arrays whose `axes` are joints, each filled up by its number in `padding`."""
    padded = []
    for value, extra in zip(values, padding, strict=True):
        shape = [size + extra if axis in axes else size for axis, size in enumerate(value.shape)]
        full = np.full(shape, fill, value.dtype)
        full[tuple(slice(size) for size in value.shape)] = value
        padded.append(full)
    return torch.from_numpy(np.stack(padded))

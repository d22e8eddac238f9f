"""The skeleton as the network sees it: y-up axes, offsets, leaf tips, graph relations, forward kinematics.

All changes of frame between a rig (armature axes) and the network's axes are here (docs/network.md, Conventions). In formulas, G is a
joint's global rotation away from rest and L its local one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..geometry.camera import Y_UP
from ..geometry.rotations import Array
from .rig import Rig

MAX_HOP = 5
SELF, PARENT, CHILD, SIBLING, UNRELATED, END = range(6)


@dataclass(frozen=True, eq=False)
class Skeleton:
    """K joints in the network's axes (y up) and the rig's units: the J joints of the rig, then the leaf tips, if any.

    parents: (K,) int, -1 for the root, joint 0.
    offsets: (K, 3) from the parent's head to the joint's head at rest; zero for the root.
    tip: (K,) bool, joints at the tails of leaf bones, which have a position but no rotation of their own.
    translates, static: (K,) bool as in Rig; False for tips.
    """

    names: tuple[str, ...]
    parents: NDArray[np.integer]
    offsets: Array
    tip: NDArray[np.bool_]
    translates: NDArray[np.bool_]
    static: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rest(self) -> Array:
        """(K, 3) positions at rest, relative to the root."""
        return forward_kinematics(self.parents, self.offsets, np.broadcast_to(np.eye(3), (len(self), 3, 3)))[1]


def network_axes(rig: Rig) -> Array:
    """(3, 3) matrix A from armature axes to the network's. It maps points p to A p, and rotations G to A G A^T."""
    return Y_UP @ rig.world


def skeleton_of(rig: Rig, tips: bool = True) -> Skeleton:
    """The rig's skeleton in the network's axes. tips: add a joint at the tail of every leaf bone."""
    axes = network_axes(rig)
    parents = np.array(rig.parents)
    offsets = rig.heads - rig.heads[np.maximum(parents, 0)]
    leaves = leaf_joints(parents) if tips else np.zeros(0, np.int64)
    count = len(leaves)
    none = np.zeros(count, np.bool_)
    return Skeleton(
        names=rig.names + tuple(f"{rig.names[leaf]} tip" for leaf in leaves),
        parents=np.concatenate([parents, leaves]).astype(np.int32),
        offsets=np.concatenate([offsets, rig.tails[leaves] - rig.heads[leaves]]) @ axes.T,
        tip=np.concatenate([np.zeros(len(parents), np.bool_), ~none]),
        translates=np.concatenate([rig.translates, none]),
        static=np.concatenate([rig.static, none]),
    )


def leaf_joints(parents: NDArray[np.integer]) -> NDArray[np.integer]:
    """Indices of the joints without children."""
    return np.setdiff1d(np.arange(len(parents)), parents)


def pose_to_network(rig: Rig, pose: Array, tips: bool = True) -> tuple[Array, Array]:
    """Joint matrices (..., J, 4, 4) in armature space -> global rotations (..., K, 3, 3) away from rest, and positions (..., K, 3)
    relative to the root, both in the network's axes. A tip has the rotation of its bone."""
    axes = network_axes(rig)
    rotations = axes @ rig.rotations(pose) @ axes.T
    heads = (pose[..., :3, 3] - pose[..., :1, :3, 3]) @ axes.T
    if not tips:
        return rotations, heads
    leaves = leaf_joints(rig.parents)
    offsets = (rig.tails - rig.heads)[leaves] @ axes.T
    tails = heads[..., leaves, :] + (rotations[..., leaves, :, :] @ offsets[..., None])[..., 0]
    return np.concatenate([rotations, rotations[..., leaves, :, :]], axis=-3), np.concatenate([heads, tails], axis=-2)


def global_to_local(parents: NDArray[np.integer], rotations: Array) -> Array:
    """Global rotations (..., J, 3, 3) -> local rotations, relative to the parent's: L_j = G_parent^-1 G_j, L_root = G_root."""
    local = np.swapaxes(rotations[..., np.maximum(parents, 0), :, :], -1, -2) @ rotations
    local[..., 0, :, :] = rotations[..., 0, :, :]
    return local


def local_to_global(parents: NDArray[np.integer], local: Array) -> Array:
    """Local rotations (..., J, 3, 3) -> global rotations. The inverse of `global_to_local`."""
    rotations = np.array(local)
    for joint in range(1, len(parents)):
        rotations[..., joint, :, :] = rotations[..., parents[joint], :, :] @ local[..., joint, :, :]
    return rotations


def forward_kinematics(parents: NDArray[np.integer], offsets: Array, local: Array) -> tuple[Array, Array]:
    """Offsets (J, 3) and local rotations (..., J, 3, 3) -> global rotations (..., J, 3, 3) and positions (..., J, 3) relative to the
    root."""
    # p_j = p_parent + G_parent offset_j
    rotations = local_to_global(parents, local)
    positions = np.zeros((*rotations.shape[:-2], 3), rotations.dtype)
    for joint in range(1, len(parents)):
        parent = parents[joint]
        positions[..., joint, :] = positions[..., parent, :] + rotations[..., parent, :, :] @ offsets[joint]
    return rotations, positions


def posed_heads(skeleton: Skeleton, rotations: Array, predicted: Array) -> Array:
    """Global rotations (T, J, 3, 3) and predicted positions (T, J, 3) -> the heads (T, J, 3) of the posed rig, relative to the root.

    Bones keep their rest length. Only joints that translate take the predicted position, and their children follow.
    """
    heads = np.zeros_like(predicted)
    for joint in range(1, len(skeleton)):
        parent = skeleton.parents[joint]
        rigid = heads[:, parent] + rotations[:, parent] @ skeleton.offsets[joint]
        heads[:, joint] = predicted[:, joint] if skeleton.translates[joint] else rigid
    return heads


def scale_of(rest: Array, reference: Array) -> float:
    """The rig units in a unit of the network: the largest coordinate, without its sign, of the rest and reference positions.

    rest, reference: (J, 3) relative to the root, not rotated by a view. Raises UserError for a skeleton without extent.
    """
    scale = float(max(np.abs(rest).max(), np.abs(reference).max()))
    if not scale > 1e-9:
        raise UserError("All bones of the rig begin in one point: pick an armature whose bones hang on one another's ends.")
    return scale


def graph_relations(parents: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Parents (J,) -> hop (J, J) and edge (J, J): the steps from joint i to joint j, and what j is to i (docs/network.md, Graph inputs)."""
    count = len(parents)
    child = np.arange(count)[parents >= 0]
    parent = parents[parents >= 0]
    hop = np.full((count, count), MAX_HOP, np.int64)
    hop[child, parent] = hop[parent, child] = 1
    np.fill_diagonal(hop, 0)
    for _ in range(MAX_HOP - 2):  # one more step through the tree each time
        through_parent = np.where(parents[:, None] >= 0, hop[np.maximum(parents, 0)] + 1, MAX_HOP)
        step = np.minimum(hop, through_parent)
        np.minimum.at(step, parent, hop[child] + 1)
        hop = np.minimum(step, step.T)
    edge = np.full((count, count), UNRELATED, np.int64)
    edge[(parents[:, None] == parents[None]) & (parents[:, None] >= 0)] = SIBLING
    edge[child, parent] = PARENT
    edge[parent, child] = CHILD
    np.fill_diagonal(edge, SELF)
    leaves = leaf_joints(parents)
    edge[leaves, leaves] = END
    return hop, edge


def ancestor_mask(parents: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Parents (J,) -> (J, J) bool: whether joint j is joint i or one of its ancestors."""
    mask = np.eye(len(parents), dtype=np.bool_)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            mask[joint] |= mask[parent]
    return mask

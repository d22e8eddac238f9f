"""The V1 baseline's inverse kinematics: rotations from joint positions alone (docs/network.md, Inverse kinematics of V1).

Bone directions give a first solution, and gradient descent refines it. Without a reference pair, the twist of a bone about its own axis
is unknown and stays near the rest pose. All in the network's axes (y up).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..geometry.rotations import Array, matrix_to_rotvec
from ..geometry.torch_kinematics import local_to_global, positions_from_rotations, rotvec_to_matrix
from ..rig.skeleton import Skeleton, ancestor_mask, scale_of
from ..rig.skeleton import local_to_global as global_of

SMALL = 1e-9  # a bone shorter than this has no direction
NEAR = 1e-6  # weight of the identity beside the bones' directions, which settles the twist


@dataclass(frozen=True)
class Descent:
    """How the solution is refined. The paper names neither the weights nor the optimiser.

    steps: per frame with warm_start, otherwise for all frames together. rate: of Adam.
    prior: weight of staying near the first solution. twist: weight of not rotating about the bone's own axis.
    warm_start: solve one frame after the other, each from the one before, as the paper does. Otherwise all frames at once, which is
    several times faster and less smooth.
    """

    steps: int = 100
    rate: float = 0.02
    prior: float = 1e-3
    twist: float = 1e-3
    warm_start: bool = False


def analytic_ik(skeleton: Skeleton, positions: Array, descent: Descent | None = None) -> Array:
    """Positions (T, J, 3) relative to the root, in the skeleton's axes and units -> global rotations (T, J, 3, 3) away from rest.

    Joints that translate have no influence on the rotation of their parents.
    """
    scale = scale_of(skeleton.rest, skeleton.rest)
    local = geometric_ik(skeleton, positions)
    theta = _descend(skeleton, positions / scale, scale, matrix_to_rotvec(local), descent or Descent())
    return global_of(skeleton.parents, rotvec_to_matrix(torch.from_numpy(theta)).numpy())


def geometric_ik(skeleton: Skeleton, positions: Array) -> Array:
    """Positions (T, J, 3) -> local rotations (T, J, 3, 3) that bring the rest directions to a joint's children onto the given ones.

    From the root down, orthogonal Procrustes over the children. For a single child the best rotation is not unique: the smallest one is
    taken, as in V1. Joints without children keep their rest rotation.
    """
    frames, parents = len(positions), skeleton.parents
    rotations = np.tile(np.eye(3), (frames, len(parents), 1, 1))
    local = rotations.copy()
    for joint, children in enumerate(_children(skeleton)):
        above = rotations[:, parents[joint]] if parents[joint] >= 0 else rotations[:, 0]
        if len(children):
            directions = _unit_vectors(positions[:, children] - positions[:, joint : joint + 1])
            own = directions @ above  # in the parent's axes: G_parent^T d, as rows
            moment = own.swapaxes(-1, -2) @ _unit_vectors(skeleton.offsets[children]) + NEAR * np.eye(3)
            local[:, joint] = _nearest_rotation(moment)
        rotations[:, joint] = above @ local[:, joint]
    return local


def _nearest_rotation(moment: Array) -> Array:
    """(T, 3, 3) -> the rotations R (T, 3, 3) with the greatest trace of R^T moment."""
    u, _, vt = np.linalg.svd(moment)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def _children(skeleton: Skeleton) -> list[list[int]]:
    """For each joint, its children at the end of a bone: not those that translate, or whose bone has no length."""
    found: list[list[int]] = [[] for _ in skeleton.parents]
    for child, parent in enumerate(skeleton.parents):
        if parent >= 0 and not skeleton.translates[child] and np.linalg.norm(skeleton.offsets[child]) > SMALL:
            found[parent].append(child)
    return found


def _unit_vectors(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SMALL)


def _descend(skeleton: Skeleton, positions: Array, scale: float, geometry: Array, descent: Descent) -> Array:
    """Refine rotation vectors (T, J, 3) of the first solution. positions: (T, J, 3) divided by `scale`."""
    problem = _Problem.of(skeleton, scale)
    target, start = torch.from_numpy(np.ascontiguousarray(positions)), torch.from_numpy(geometry)
    if not descent.warm_start:
        return _minimise(problem, target, start, start, descent).numpy()
    solved = [start[:1]]
    for frame in range(len(target)):
        here = slice(frame, frame + 1)
        solved.append(_minimise(problem, target[here], start[here], solved[-1], descent))
    return torch.cat(solved[1:]).numpy()


@dataclass(frozen=True, eq=False)
class _Problem:
    """The skeleton as tensors with a leading batch of one. own: (1, J, 3), the mean direction at rest from a joint to its children.
    held: (1, J) bool, joints that translate."""

    parents: Tensor
    ancestors: Tensor
    offsets: Tensor
    own: Tensor
    held: Tensor

    @classmethod
    def of(cls, skeleton: Skeleton, scale: float) -> _Problem:
        count = len(skeleton)
        own = np.zeros((count, 3))
        for joint, children in enumerate(_children(skeleton)):
            if children:
                own[joint] = _unit_vectors(skeleton.offsets[children].mean(0))
        # a joint that translates is at its given position, and the joints below it start from there
        free = skeleton.translates & (skeleton.parents >= 0)
        below = ancestor_mask(skeleton.parents)
        for joint in np.flatnonzero(free):
            below[np.ix_(below[:, joint], below[joint] & ~np.eye(count, dtype=bool)[joint])] = False
        values = (np.where(skeleton.parents < 0, np.arange(count), skeleton.parents), below, skeleton.offsets / scale, own, free)
        parents, ancestors, offsets, own_bones, held = (torch.from_numpy(np.asarray(value))[None] for value in values)
        return cls(parents.long(), ancestors, offsets.double(), own_bones, held)

    def heads(self, theta: Tensor, target: Tensor) -> Tensor:
        """Rotation vectors (T, J, 3) -> heads (T, J, 3). Joints that translate are at their `target` (T, J, 3)."""
        rotations = local_to_global(self.parents, rotvec_to_matrix(theta)[None])
        offsets = torch.where(self.held[..., None], 0.0, self.offsets)
        rigid = positions_from_rotations(self.parents, self.ancestors, offsets, rotations)[0]
        placed = torch.where(self.held[0, :, None], target, 0.0)
        return rigid + self.ancestors[0].to(target.dtype) @ placed


def _minimise(problem: _Problem, target: Tensor, prior: Tensor, start: Tensor, descent: Descent) -> Tensor:
    """Minimise L_pos + prior |theta - theta_geo|^2 + twist (theta . u)^2 by Adam, each a mean over the joints, all frames at once."""
    theta = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([theta], lr=descent.rate)
    for _ in range(descent.steps):
        apart = (problem.heads(theta, target) - target).square().sum(-1)
        moved = (theta - prior).square().sum(-1)
        twisted = (theta * problem.own[0]).sum(-1).square()
        loss = (apart + descent.prior * moved + descent.twist * twisted).mean(-1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return theta.detach()

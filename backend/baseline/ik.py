"""Rotations from joint positions alone, as the V1 baseline finds them (docs/network.md, Inverse kinematics of V1): bone directions, then descent.

No reference pair: how a bone is twisted about itself is free, and stays near the rest pose. y-up network axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..geometry.rotations import Array, matrix_to_quaternion
from ..geometry.torch_kinematics import local_to_global, positions_from_turns
from ..rig.skeleton import Skeleton, ancestor_mask, scale_of
from ..rig.skeleton import local_to_global as global_of

SMALL = 1e-9  # a bone shorter than this has no direction
NEAR = 1e-6  # how much staying unturned counts beside pointing the right way: it settles the twist


@dataclass(frozen=True)
class Descent:
    """The second step. prior: weight of staying near the geometric solution. twist: of not turning about the own bone.

    The paper names neither these nor the optimiser. warm_start: one frame after the other, each from the one before, as the
    paper does; otherwise all frames at once, which is several times faster and less smooth. steps: per frame, or for all.
    """

    steps: int = 100
    rate: float = 0.02
    prior: float = 1e-3
    twist: float = 1e-3
    warm_start: bool = False


def analytic_ik(skeleton: Skeleton, positions: Array, descent: Descent | None = None) -> Array:
    """Positions (T, J, 3) relative to the root, in the skeleton's axes and units -> G (T, J, 3, 3), turns away from rest.

    Joints that translate say nothing of how their parents turn.
    """
    scale = scale_of(skeleton.rest, skeleton.rest)
    local = geometric(skeleton, positions)
    theta = _descend(skeleton, positions / scale, scale, _axis_angles(local), descent or Descent())
    return global_of(skeleton.parents, axis_angle_to_matrix(torch.from_numpy(theta)).numpy())


def geometric(skeleton: Skeleton, positions: Array) -> Array:
    """Positions (T, J, 3) -> L (T, J, 3, 3): each joint turns its children's rest directions onto the seen ones, root first.

    Orthogonal Procrustes over the children. With one child the best rotation is not unique, and the one nearest to no turn is
    the least that leads from one direction to the other, V1's choice for it. Joints without children stay unturned.
    """
    frames, parents = len(positions), skeleton.parents
    rotations = np.tile(np.eye(3), (frames, len(parents), 1, 1))
    local = rotations.copy()
    for joint, children in enumerate(_children(skeleton)):
        above = rotations[:, parents[joint]] if parents[joint] >= 0 else rotations[:, 0]
        if len(children):
            seen = _unit(positions[:, children] - positions[:, joint : joint + 1]) @ above  # G_parent^T d, as rows
            moment = seen.swapaxes(-1, -2) @ _unit(skeleton.offsets[children]) + NEAR * np.eye(3)
            local[:, joint] = _nearest(moment)
        rotations[:, joint] = above @ local[:, joint]
    return local


def _nearest(moment: Array) -> Array:
    """(T, 3, 3) -> the rotations R with the greatest trace of R^T moment."""
    u, _, vt = np.linalg.svd(moment)
    u[..., 2] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return u @ vt


def _children(skeleton: Skeleton) -> list[list[int]]:
    """Of every joint, those that hang on it by a bone."""
    found: list[list[int]] = [[] for _ in skeleton.parents]
    for child, parent in enumerate(skeleton.parents):
        if parent >= 0 and not skeleton.translates[child] and np.linalg.norm(skeleton.offsets[child]) > SMALL:
            found[parent].append(child)
    return found


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), SMALL)


def _axis_angles(matrices: Array) -> Array:
    """(..., 3, 3) -> (..., 3): the axis times the angle, at most pi."""
    quaternion = matrix_to_quaternion(matrices)
    length = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    return quaternion[..., 1:] * (2 * np.arctan2(length, quaternion[..., :1]) / np.maximum(length, SMALL))


def axis_angle_to_matrix(theta: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) by Rodrigues' formula, with a finite gradient at zero."""
    angle = (theta.square().sum(-1) + 1e-18).sqrt()[..., None, None]
    x, y, z = theta.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    half = torch.sin(angle / 2) / angle
    return torch.eye(3, dtype=theta.dtype) + torch.sin(angle) / angle * cross + 2 * half.square() * (cross @ cross)


def _descend(skeleton: Skeleton, positions: Array, scale: float, geometry: Array, descent: Descent) -> Array:
    """Axis-angles (T, J, 3) of the geometric solution -> refined. Positions in units of `scale`."""
    problem = _Problem.of(skeleton, scale)
    seen, start = torch.from_numpy(np.ascontiguousarray(positions)), torch.from_numpy(geometry)
    if not descent.warm_start:
        return _minimise(problem, seen, start, start, descent).numpy()
    solved = [start[:1]]
    for frame in range(len(seen)):
        here = slice(frame, frame + 1)
        solved.append(_minimise(problem, seen[here], start[here], solved[-1], descent))
    return torch.cat(solved[1:]).numpy()


@dataclass(frozen=True, eq=False)
class _Problem:
    """What stays the same for all frames, with a leading batch of one. own: (J, 3) unit, each joint's mean bone at rest."""

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
                own[joint] = _unit(skeleton.offsets[children].mean(0))
        # a translating joint is where it is seen: it and what hangs on it start from there
        free = skeleton.translates & (skeleton.parents >= 0)
        below = ancestor_mask(skeleton.parents)
        for joint in np.flatnonzero(free):
            below[np.ix_(below[:, joint], below[joint] & ~np.eye(count, dtype=bool)[joint])] = False
        values = (np.where(skeleton.parents < 0, np.arange(count), skeleton.parents), below, skeleton.offsets / scale, own, free)
        parents, ancestors, offsets, own_bones, held = (torch.from_numpy(np.asarray(value))[None] for value in values)
        return cls(parents.long(), ancestors, offsets.double(), own_bones, held)

    def heads(self, theta: Tensor, seen: Tensor) -> Tensor:
        """Where the turns (T, J, 3) put the joints: (T, J, 3); `seen` places the translating ones."""
        rotations = local_to_global(self.parents, axis_angle_to_matrix(theta)[None])
        offsets = torch.where(self.held[..., None], 0.0, self.offsets)
        hung = positions_from_turns(self.parents, self.ancestors, offsets, rotations)[0]
        placed = torch.where(self.held[0, :, None], seen, 0.0)
        return hung + self.ancestors[0].to(seen.dtype) @ placed


def _minimise(problem: _Problem, seen: Tensor, prior: Tensor, start: Tensor, descent: Descent) -> Tensor:
    """Adam on L_pos + prior |theta - theta_geo|^2 + twist (theta . u)^2, each a mean over the joints, all frames at once."""
    theta = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([theta], lr=descent.rate)
    for _ in range(descent.steps):
        apart = (problem.heads(theta, seen) - seen).square().sum(-1)
        moved = (theta - prior).square().sum(-1)
        twisted = (theta * problem.own[0]).sum(-1).square()
        loss = (apart + descent.prior * moved + descent.twist * twisted).mean(-1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return theta.detach()

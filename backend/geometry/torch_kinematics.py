"""Kinematics on torch tensors, batched over rigs of different topology, without loops over joints.

Shapes: B rigs, T frames, J joints (padded joints are their own parents and carry no weight). rot6d as in rotations.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def rot6d_to_matrix(rot6d: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt on the two rows."""
    first = F.normalize(rot6d[..., :3], dim=-1)
    second = rot6d[..., 3:]
    second = F.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def matrix_to_rot6d(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6), the first two rows."""
    return matrix[..., :2, :].flatten(-2)


def rotvec_to_matrix(rotvec: Tensor) -> Tensor:
    """Rotation vectors (..., 3), radians -> (..., 3, 3) by Rodrigues' formula, with a finite gradient at zero."""
    angle = (rotvec.square().sum(-1) + 1e-18).sqrt()[..., None, None]
    x, y, z = rotvec.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    half = torch.sin(angle / 2) / angle
    return torch.eye(3, dtype=rotvec.dtype) + torch.sin(angle) / angle * cross + 2 * half.square() * (cross @ cross)


def geodesic_angle(left: Tensor, right: Tensor) -> Tensor:
    """Angle in radians between (..., 3, 3), with a finite gradient at zero."""
    turn = left.transpose(-1, -2) @ right
    skew = (turn - turn.transpose(-1, -2))[..., (2, 0, 1), (1, 2, 0)]
    sine = (skew.square().sum(-1) / 4 + 1e-12).sqrt()
    return torch.atan2(sine, (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """values (B, T, J, ...), index (B, J) -> values[:, :, index] per rig."""
    shape = index.shape[:1] + (1,) + index.shape[1:] + (1,) * (values.dim() - 3)
    return values.gather(2, index.view(shape).expand(*values.shape[:2], index.shape[1], *values.shape[3:]))


def local_to_global(parents: Tensor, local: Tensor) -> Tensor:
    """Local rotations (B, T, J, 3, 3) -> global ones, by pointer jumping. parents: (B, J), the root's own index for the root.

    After k rounds a joint holds the product of its 2^k nearest links and points to the joint above them. A pointer at the root stays
    there, and a joint is finished when it has multiplied by the root.
    """
    rotations, above = local, parents
    index = torch.arange(parents.shape[1], device=parents.device).expand_as(parents)
    eye = torch.eye(3, dtype=local.dtype, device=local.device)
    finished = above == index
    while not bool(finished.all()):
        step = torch.where(finished[:, None, :, None, None], eye, pick(rotations, above))
        rotations = step @ rotations
        # the new pointer is the pointer's own one, unless that joint was finished
        reached = finished.gather(1, above)
        above = above.gather(1, above)
        finished = finished | reached
    return rotations


def global_to_local(parents: Tensor, rotations: Tensor) -> Tensor:
    """The inverse of `local_to_global`."""
    index = torch.arange(parents.shape[1], device=parents.device)
    local = pick(rotations, parents).transpose(-1, -2) @ rotations
    return torch.where((parents == index)[:, None, :, None, None], rotations, local)


def positions_from_rotations(parents: Tensor, ancestors: Tensor, offsets: Tensor, rotations: Tensor) -> Tensor:
    """Forward kinematics: global rotations (B, T, J, 3, 3) and offsets (B, J, 3) -> positions (B, T, J, 3).

    ancestors: (B, J, J) as in skeleton.ancestor_mask. p_j is the sum of G_parent(a) offset_a over a = j and its ancestors, with global
    rotations G; the root's offset is zero.
    """
    steps = (pick(rotations, parents) @ offsets[:, None, :, :, None])[..., 0]
    return ancestors[:, None].to(steps.dtype) @ steps


def nearest_rotation(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> the nearest proper rotation (polar decomposition by SVD). It is not meant for gradients."""
    u, _, vt = torch.linalg.svd(matrix)
    sign = torch.ones(matrix.shape[:-1], dtype=matrix.dtype, device=matrix.device)
    sign[..., 2] = torch.linalg.det(u @ vt).sign()
    return u @ (sign[..., None] * vt)


@torch.no_grad()
def anchored_ik(
    parents: Tensor, mask: Tensor, positions: Tensor, ref_position: Tensor, ref_rotations: Tensor, rounds: int = 3, hold: float = 0.03,
    short: float = 0.0,
) -> Tensor:  # fmt: skip
    """Rotations that take the reference's bone directions to the predicted ones; the twist follows the parent.

    parents, mask (B, J); positions (B, T, J, 3); ref_position (B, J, 3); ref_rotations (B, J, 3, 3), the reference's global ones
    -> global rotations (B, T, J, 3, 3). Each joint's rotation away from the reference is the polar factor of
    sum over children (predicted direction)(reference direction)^T + hold * (the parent's rotation). That of the whole body is the
    start. All joints are solved at once, `rounds` times.
    short: a bone of this length counts half, and shorter ones less, as the directions of short bones are the least certain.
    """
    index = torch.arange(parents.shape[1], device=parents.device)
    is_child = (mask & (parents != index))[:, None, :, None, None]
    bone = positions - pick(positions, parents)
    ref_bone = (ref_position - ref_position.gather(1, parents[..., None].expand_as(ref_position)))[:, None]
    outer = F.normalize(bone, dim=-1)[..., :, None] * F.normalize(ref_bone, dim=-1)[..., None, :] * is_child
    if short:
        length = ref_bone.square().sum(-1)[..., None, None]
        outer = outer * (length / (length + short**2))
    # sum over the children of each joint
    link = F.one_hot(parents, parents.shape[1]).to(outer.dtype) * is_child[:, 0, :, :, 0]
    moment = torch.einsum("bcj,btcxy->btjxy", link, outer)
    body = positions[..., :, None] * ref_position[:, None, :, None, :] * mask[:, None, :, None, None]
    turn = nearest_rotation(body.sum(2, keepdim=True) + 1e-6 * torch.eye(3, dtype=body.dtype, device=body.device)).expand_as(
        outer
    )
    for _ in range(rounds):
        turn = nearest_rotation(moment + hold * pick(turn, parents))
    return turn @ ref_rotations[:, None]

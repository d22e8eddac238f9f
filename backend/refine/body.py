"""The rig as a body that gradients pass through: local rotations -> joint heads and surface points, batched over frames. torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import Array
from ..rig.point_cloud import Surface
from ..rig.rig import Rig
from ..rig.skeleton import network_axes


@dataclass(frozen=True, eq=False)
class Body:
    """J joints and P surface points in the network's axes and the rig's units, relative to the root joint's head at rest.

    order: (J,) the joints by depth in the tree. levels: sizes of the levels of depth. above: for each level but the first, the
    place of each joint's parent within the level before. back: (J,) where each joint stands in `order`.
    offsets: (J, 3) head minus the parent's head at rest, in the joints' own order. translates: (J,) bool.
    points: (P, 3). normals: (P, 3). weights: (P, J), rows sum to 1. heads: (J, 3) at rest.
    """

    order: Tensor
    levels: tuple[int, ...]
    above: tuple[Tensor, ...]
    back: Tensor
    offsets: Tensor
    translates: Tensor
    points: Tensor
    normals: Tensor
    weights: Tensor
    heads: Tensor

    def to(self, device: torch.device) -> Body:
        """The same body on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        for key, value in moved.items():
            if isinstance(value, Tensor):
                moved[key] = value.to(device)
        moved["above"] = tuple(part.to(device) for part in self.above)
        return Body(**moved)

    def pose(self, local: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Local rotations (T, J, 3, 3), root first, and positions (T, J, 3) for joints that translate -> global rotations
        (T, J, 3, 3) and heads (T, J, 3) relative to the root's.

        A joint hangs on its parent: G_j = G_parent L_j and h_j = h_parent + G_parent offset_j. A parent is always in the level
        above, so a level is one product.
        """
        local, offsets = local[:, self.order], self.offsets[self.order]
        free, given = self.translates[self.order], given[:, self.order]
        rotations, heads = [local[:, :1]], [torch.zeros_like(given[:, :1])]
        start = 1
        for size, above in zip(self.levels[1:], self.above, strict=True):
            now = slice(start, start + size)
            parent = rotations[-1][:, above]
            hung = heads[-1][:, above] + (parent @ offsets[now, :, None])[..., 0]
            rotations.append(parent @ local[:, now])
            heads.append(torch.where(free[now, None], given[:, now], hung))
            start += size
        return torch.cat(rotations, 1)[:, self.back], torch.cat(heads, 1)[:, self.back]

    def skin(self, rotations: Tensor, heads: Tensor, axes: int = 3) -> Tensor:
        """Global rotations (T, J, 3, 3) and heads (T, J, 3) -> points (T, P, axes) by linear blend skinning, their first coordinates.

        p' = sum_j w_j (G_j (p - h_j) + h'_j) = sum_j w_j G_j p + w_j (h'_j - G_j h_j): one product of (P, J 4), what each joint's weight
        makes of (p, 1), with (J 4, axes T).
        """
        turned = rotations[:, :, :axes]
        shift = heads[..., :axes] - (turned * self.heads[:, None]).sum(-1)
        rows = torch.cat([turned, shift[..., None]], dim=-1)  # (T, J, axes, 4)
        columns = rows.permute(1, 3, 0, 2).flatten(2).flatten(0, 1)  # (J 4, T axes)
        return (self.spread @ columns).unflatten(1, (-1, axes)).transpose(0, 1)

    @cached_property
    def spread(self) -> Tensor:
        """(P, J 4) each point as (x, y, z, 1), times its weight for each joint."""
        whole = torch.cat([self.points, torch.ones_like(self.points[:, :1])], dim=-1)
        return (self.weights[:, :, None] * whole[:, None]).flatten(1)

    def rotate_normals(self, rotations: Tensor) -> Tensor:
        """(T, P, 3) the points' normals in the pose, not quite unit where several joints pull."""
        blend = (self.weights @ rotations.flatten(2)).unflatten(-1, (3, 3))
        return (blend @ self.normals[:, :, None])[..., 0]


def body_of(rig: Rig, surface: Surface, points: int, seed: int = 0) -> Body:
    """The rig with at most so many points of its surface, which is in the space of the rig's rest matrices."""
    axes, parents = network_axes(rig), np.asarray(rig.parents)
    depth = np.zeros(len(parents), np.int64)
    for joint in range(1, len(parents)):
        depth[joint] = depth[parents[joint]] + 1
    order = np.argsort(depth, kind="stable")
    place = np.zeros(len(parents), np.int64)  # of a joint within its level
    for level in range(depth.max() + 1):
        place[order[depth[order] == level]] = np.arange((depth == level).sum())
    above = [torch.as_tensor(place[parents[order[depth[order] == level]]]) for level in range(1, depth.max() + 1)]
    weights = dense_weights(surface, len(parents))
    chosen = choose_points(weights, points, seed)
    root = rig.heads[0]
    return Body(
        order=torch.as_tensor(order),
        levels=tuple(int((depth == level).sum()) for level in range(depth.max() + 1)),
        above=tuple(above),
        back=torch.as_tensor(np.argsort(order)),
        offsets=_float((rig.heads - rig.heads[np.maximum(parents, 0)]) @ axes.T),
        translates=torch.as_tensor(np.array(rig.translates)),
        points=_float((surface.points[chosen] - root) @ axes.T),
        normals=_float(surface.normals[chosen] @ axes.T),
        weights=_float(weights[chosen]),
        heads=_float((rig.heads - root) @ axes.T),
    )


def choose_points(weights: Array, count: int, seed: int) -> NDArray[np.int64]:
    """At most so many of P points, in order, by their weights (P, J).

    Limbs are thin: points that are evenly spread over the surface are nearly all on the trunk. So a point counts by one over the root of
    its joints' share of the surface.
    """
    share = weights.sum(0) / max(float(weights.sum()), 1e-9)
    likely = weights @ (1 / np.sqrt(np.maximum(share, 1e-4)))
    likely = np.maximum(likely, 1e-6) / np.maximum(likely, 1e-6).sum()
    count = min(count, len(weights))
    return np.sort(np.random.default_rng(seed).choice(len(weights), count, replace=False, p=likely))


def dense_weights(surface: Surface, joints: int) -> Array:
    """(P, J) the surface's weights as one matrix."""
    weights = np.zeros((len(surface), joints), np.float32)
    for slot in range(surface.joints.shape[1]):
        np.add.at(weights, (np.arange(len(surface)), surface.joints[:, slot]), surface.weights[:, slot])
    return weights


def _float(values: Array) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)

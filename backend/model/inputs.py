"""The inputs of the network that describe the rigs and their reference poses. Shapes as in network.py."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SkeletonGraph:
    """The graphs of B skeletons, padded to J joints (docs/network.md, Graph inputs).

    relation: (B, J, J) int, 6 * hop + edge of column j to joint i. ancestors: (B, J, J) bool, column j is joint i or above it.
    mask: (B, J) bool, False on padding. parents: (B, J) int; a root is its own parent, and so is padding.
    """

    relation: Tensor
    ancestors: Tensor
    mask: Tensor
    parents: Tensor

    def visible(self, local: bool) -> Tensor:
        """(B, J, J) bool: the columns that each row attends to: the joints above it, or all joints if not `local`."""
        columns = self.mask[:, None, :].expand_as(self.ancestors)  # (B, J, J)
        if local:
            columns = columns & self.ancestors
        # a padded row sees itself: softmax over an empty row would be nan
        return columns | torch.eye(columns.shape[1], dtype=torch.bool, device=columns.device)


@dataclass(frozen=True)
class NetworkInputs:
    """B rigs and the N reference pairs of each. Lengths are divided by the rig's scale.

    names: (B, J, E). offsets: (B, J, 3) from the parent's head at rest, y-up axes of the rig.
    position: (B, N, J, 3) relative to the root, and rot6d: (B, N, J, 6) local, of the reference pairs, in the frame of the
    reference's camera. The first pair is the one that the reference image shows.
    tokens: (B, S, C) of that image. static_position, static_rotation: (B, J) bool, joints that keep the first pair's value.
    For the geometric layers: uv (B, J, 2), where the joints are in the reference's crop, -1..1, y down; unit (B,), the length of half
    the crop's side at the root's depth.
    """

    graph: SkeletonGraph
    names: Tensor
    offsets: Tensor
    position: Tensor
    rot6d: Tensor
    tokens: Tensor
    static_position: Tensor
    static_rotation: Tensor
    uv: Tensor
    unit: Tensor

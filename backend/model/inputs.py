"""The inputs of the network that describe the rigs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SkeletonGraph:
    """What attention needs to know of B skeletons of at most J joints.

    relation: (B, J, J) int, 6 * hop + edge. ancestors: (B, J, J) bool. mask: (B, J) bool, False on padding.
    parents: (B, J) int, a root (and padding) is its own parent.
    """

    relation: Tensor
    ancestors: Tensor
    mask: Tensor
    parents: Tensor

    def visible(self, local: bool) -> Tensor:
        """(B, J, J) bool: which columns a row may see. Padded rows see themselves, so that no row is empty."""
        seen = self.mask[:, None, :].expand_as(self.ancestors)
        if local:
            seen = seen & self.ancestors
        return seen | torch.eye(seen.shape[1], dtype=torch.bool, device=seen.device)


@dataclass(frozen=True)
class NetworkInputs:
    """The target rigs and their reference pairs.

    graph: B skeletons. names (B, J, E). offsets (B, J, 3) at rest, scaled. position (B, N, J, 3) and rot6d (B, N, J, 6) of the
    reference pairs in the reference view's frame; the first pair is the one in the image. tokens (B, S, C) of that image.
    static_position, static_rotation: (B, J) bool. For the aids: uv (B, J, 2), the joints in the reference's crop, -1..1, y down;
    unit (B,), normalised length of half the crop's side at the root.
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

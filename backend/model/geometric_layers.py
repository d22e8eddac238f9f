"""The geometric aids of `lite` (docs/network.md, Geometric layers of lite): where joints lie in the image, and what geometry alone would say.

B rigs, T frames, J joints, S image tokens of a grid, C token width, D model width; frames of reference as in model.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.torch_kinematics import anchored_ik, global_to_local, local_to_global, matrix_to_rot6d, rot6d_to_matrix
from .config import Config
from .layers import ExactHead, ExactLinear, GraphLayer, TemporalBlock, exact

if TYPE_CHECKING:
    from .inputs import NetworkInputs


class PositionEncoder2D(nn.Module):
    """Aid 1: where a token lies, and what the image shows at a joint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.grid = config.grid
        self.norm = nn.LayerNorm(config.image_width)
        self.position_proj = nn.Linear(2 + 4 * 4, config.width)
        self.sample_proj = nn.Linear(config.width, config.width)

    def encode(self, uv: Tensor) -> Tensor:
        """(..., 2) in -1..1 -> (..., D)."""
        frequency = torch.pi / 2 * 2.0 ** torch.arange(4, dtype=uv.dtype, device=uv.device)
        angle = (uv[..., None] * frequency).flatten(-2)
        return self.position_proj(torch.cat([uv, angle.sin(), angle.cos()], dim=-1))

    def centres(self) -> Tensor:
        """(S, 2): the tokens' centres, row by row, x and y in -1..1."""
        weight = self.position_proj.weight
        line = (torch.arange(self.grid, dtype=weight.dtype, device=weight.device) * 2 + 1) / self.grid - 1
        return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)

    def tokens(self) -> Tensor:
        """(S, D), added to the tokens: those of a CNN carry no position."""
        return self.encode(self.centres())

    def sampled(self, tokens: Tensor, uv: Tensor) -> Tensor:
        """tokens (B, S, D) read bilinearly at uv (B, J, 2) -> (B, J, D)."""
        image = tokens.transpose(1, 2).unflatten(-1, (self.grid, self.grid))
        # grid_sample knows no mixed types
        read = F.grid_sample(image.to(uv.dtype), uv[:, :, None], padding_mode="border", align_corners=False)[..., 0]
        return read.transpose(1, 2).to(tokens.dtype)

    def joints(self, tokens: Tensor, uv: Tensor) -> Tensor:
        """What the image shows at the joints, and where they are: (B, J, D)."""
        return self.sample_proj(self.sampled(tokens, uv)) + self.encode(uv)


class SoftArgmax2D(nn.Module):
    """Aids 2 and 3: a joint's place in the frame by soft-argmax over the tokens, and how far it has moved in the image plane."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.places = PositionEncoder2D(config)
        self.norm = nn.LayerNorm(config.width)
        self.to_q = nn.Linear(config.width, config.width)
        self.to_k = nn.Linear(config.width, config.width)
        self.look = nn.Linear(config.image_width, 64, bias=False)
        self.spread = nn.Parameter(torch.tensor(-1.2))
        self.likeness = nn.Parameter(torch.tensor(1.5))
        self.zoom = nn.Linear(config.width, 1)
        nn.init.zeros_(self.zoom.weight)
        nn.init.zeros_(self.zoom.bias)

    def forward(self, x: Tensor, tokens: Tensor, image: Tensor, inputs: NetworkInputs) -> Tensor:
        """-> uv (B, T, J, 2). The scores start as a bell around the joint's place in the reference, where the frame looks
        like the reference does at the joint. image (B, T, S, C): the tokens before projection."""
        centres = self.places.centres()
        scores = self.to_q(self.norm(x)) @ self.to_k(tokens).transpose(-1, -2) * x.shape[-1] ** -0.5
        shown = self.places.sampled(self.look(self.places.norm(inputs.tokens)), inputs.uv)
        alike = F.normalize(shown, dim=-1)[:, None] @ F.normalize(self.look(image), dim=-1).transpose(-1, -2)
        distance = (inputs.uv[:, None, :, None] - centres).square().sum(-1)
        scores = scores + self.likeness.exp() * alike - distance / (2 * torch.exp(2 * self.spread))
        with exact(scores):  # half precision would round the places to a grid of its own
            return scores.to(centres.dtype).softmax(-1) @ centres

    def moved(self, x: Tensor, uv: Tensor, inputs: NetworkInputs) -> Tensor:
        """uv (B, T, J, 2) -> how far the joints have moved in the image plane since the reference, (B, T, J, 3) with z = 0.

        uv is y down and relative to the crop, whose half side is `unit` long in the reference and exp(zoom) times that in
        the clip: root-relative in-plane position = (u_j - u_root, -(v_j - v_root)) * half side.
        """
        mask = inputs.graph.mask[:, None, :, None]
        pooled = (self.norm(x) * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)
        unit = inputs.unit[:, None, None, None].to(uv.dtype)
        half = unit * torch.exp(self.zoom(pooled).clamp(-1, 1).to(uv.dtype))
        seen = (uv - uv[:, :, :1]) * half - (inputs.uv - inputs.uv[:, :1])[:, None] * unit
        return torch.stack([seen[..., 0], -seen[..., 1], torch.zeros_like(seen[..., 0])], dim=-1)


class DepthLifter(nn.Module):
    """From places in the image plane to depth: joints over time and over the skeleton."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input = ExactLinear(2 + 3 + 3, config.width)
        blocks = (
            TemporalBlock(config.width, config.heads, config.joint_radius, config.dropout) for _ in range(config.lift_layers)
        )
        self.temporal = nn.ModuleList(blocks)
        self.layers = nn.ModuleList(GraphLayer(config.width, config.heads, config.dropout) for _ in range(config.lift_layers))

    def forward(self, x: Tensor, uv: Tensor, moved: Tensor, inputs: NetworkInputs) -> Tensor:
        reference = inputs.position[:, :1].expand_as(moved)
        x = x + self.input(torch.cat([uv - inputs.uv[:, None], moved, reference], dim=-1))
        for i, (temporal, layer) in enumerate(zip(self.temporal, self.layers, strict=True)):
            x = layer(temporal(x), inputs.graph, local=i % 2 == 0)
        return x


class IKPrior(nn.Module):
    """The geometric estimate that `lite`'s second stage sees: inverse kinematics anchored by the reference pair."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input = ExactLinear(6 + 3, config.width)
        self.trust = ExactHead(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        nn.init.zeros_(self.trust[1].weight)
        nn.init.constant_(self.trust[1].bias, -1.0)

    def rotations(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """(B, T, J, 6) local rot6d; no gradient passes."""
        graph, dtype = inputs.graph, inputs.rot6d.dtype
        with exact(position):
            ref_turns = local_to_global(graph.parents, rot6d_to_matrix(inputs.rot6d[:, :1]))[:, 0]
            global_rotations = anchored_ik(
                graph.parents, graph.mask, position.detach().to(dtype), inputs.position[:, 0], ref_turns
            )
            return matrix_to_rot6d(global_to_local(graph.parents, global_rotations))

    def features(self, geometric: Tensor, position: Tensor, inputs: NetworkInputs) -> Tensor:
        return self.input(torch.cat([geometric - inputs.rot6d[:, :1], position - inputs.position[:, :1]], dim=-1))

    def mix(self, residual: Tensor, x: Tensor, geometric: Tensor, inputs: NetworkInputs) -> Tensor:
        """Reference + trust (estimate - reference) + residual."""
        trust = self.trust(x).sigmoid().to(residual.dtype)
        return inputs.rot6d[:, :1] + trust * (geometric - inputs.rot6d[:, :1]) + residual

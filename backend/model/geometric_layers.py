"""The layers that only `lite` has: places of joints in the image, depth, and a prior from inverse kinematics.

See docs/network.md, Geometric layers of lite. Shapes and frames as in network.py; the S image tokens are a map of grid x grid. uv are
coordinates in the crop, -1..1, y down.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry.torch_kinematics import anchored_ik, global_to_local, local_to_global, matrix_to_rot6d, rot6d_to_matrix
from .config import Config
from .eyes import split_tokens
from .layers import ExactHead, ExactLinear, GraphLayer, TemporalBlock, exact

if TYPE_CHECKING:
    from .inputs import NetworkInputs


class PositionEncoder2D(nn.Module):
    """Encodes places in the image, and reads the image's features at the joints."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.grid = config.grid
        self.norm = nn.LayerNorm(config.image_width)
        self.position_proj = nn.Linear(2 + 4 * 4, config.width)
        self.sample_proj = nn.Linear(config.width, config.width)

    def encode(self, uv: Tensor) -> Tensor:
        """uv (..., 2) -> (..., D): uv, with its sine and cosine in four octaves, projected."""
        frequency = torch.pi / 2 * 2.0 ** torch.arange(4, dtype=uv.dtype, device=uv.device)
        angle = (uv[..., None] * frequency).flatten(-2)  # (..., 2, 4) -> (..., 8)
        return self.position_proj(torch.cat([uv, angle.sin(), angle.cos()], dim=-1))

    def centres(self) -> Tensor:
        """(S, 2): uv of the tokens' centres, row by row."""
        weight = self.position_proj.weight
        line = (torch.arange(self.grid, dtype=weight.dtype, device=weight.device) * 2 + 1) / self.grid - 1
        return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)  # (grid, grid, 2) -> (S, 2)

    def encode_tokens(self) -> Tensor:
        """(S, D), to be added to the tokens: those of a CNN carry no position."""
        return self.encode(self.centres())

    def sample(self, tokens: Tensor, uv: Tensor) -> Tensor:
        """Read tokens (B, S, D) bilinearly at uv (B, J, 2) -> (B, J, D)."""
        image = tokens.transpose(1, 2).unflatten(-1, (self.grid, self.grid))  # (B, D, grid, grid)
        # grid_sample wants image and uv in one type
        values = F.grid_sample(image.to(uv.dtype), uv[:, :, None], padding_mode="border", align_corners=False)  # (B, D, J, 1)
        return values[..., 0].transpose(1, 2).to(tokens.dtype)

    def encode_joints(self, tokens: Tensor, uv: Tensor) -> Tensor:
        """Tokens (B, S, D) and the joints' uv (B, J, 2) -> (B, J, D): the image's features at each joint, and the joint's place."""
        return self.sample_proj(self.sample(tokens, uv)) + self.encode(uv)


class SoftArgmax2D(nn.Module):
    """Finds the joints in a frame: each one's place is the mean of the tokens' centres, weighted by a softmax over the tokens."""

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
        """x (B, T, J, D), tokens (B or 1, T, S, D), image (B or 1, T, S, C): the tokens before projection -> uv (B, T, J, 2).

        Before training, the scores are a bell around the joint's place in the reference, higher where the frame looks like the
        reference at the joint.
        """
        centres = self.places.centres()
        scores = self.to_q(self.norm(x)) @ self.to_k(tokens).transpose(-1, -2) * x.shape[-1] ** -0.5  # (B, T, J, S)
        # cosine between the reference at the joint and every token of the frame, both in 64 channels
        reference = split_tokens(inputs.tokens, self.look.in_features)[0]
        at_joint = self.places.sample(self.look(self.places.norm(reference)), inputs.uv)  # (B, J, 64)
        alike = F.normalize(at_joint, dim=-1)[:, None] @ F.normalize(self.look(image), dim=-1).transpose(-1, -2)  # (B, T, J, S)
        distance = (inputs.uv[:, None, :, None] - centres).square().sum(-1)  # (B, 1, J, S)
        scores = scores + self.likeness.exp() * alike - distance / (2 * torch.exp(2 * self.spread))
        with exact(scores):  # half precision would round the places to a grid of its own
            return scores.to(centres.dtype).softmax(-1) @ centres  # (B, T, J, S) @ (S, 2)

    def displacement(self, x: Tensor, uv: Tensor, inputs: NetworkInputs) -> Tensor:
        """uv (B, T, J, 2) -> (B, T, J, 3): how far the joints have moved in the image plane since the reference, z = 0.

        Half the crop's side is `unit` long in the reference, and exp(zoom) times that in the clip, as the crop follows the subject.
        A position in the image plane relative to the root is (u_j - u_root, -(v_j - v_root)) * half side, as v points down.
        """
        mask = inputs.graph.mask[:, None, :, None]  # (B, 1, J, 1)
        pooled = (self.norm(x) * mask).sum(2, keepdim=True) / mask.sum(2, keepdim=True)  # (B, T, 1, D), mean over the joints
        unit = inputs.unit[:, None, None, None].to(uv.dtype)
        half = unit * torch.exp(self.zoom(pooled).clamp(-1, 1).to(uv.dtype))  # (B, T, 1, 1)
        moved = (uv - uv[:, :, :1]) * half - (inputs.uv - inputs.uv[:, :1])[:, None] * unit  # (B, T, J, 2)
        return torch.stack([moved[..., 0], -moved[..., 1], torch.zeros_like(moved[..., 0])], dim=-1)


class DepthLifter(nn.Module):
    """Adds to the features what depth is found from: places in the image and the reference pose, over time and over the skeleton."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input = ExactLinear(2 + 3 + 3, config.width)
        blocks = (
            TemporalBlock(config.width, config.heads, config.joint_radius, config.dropout) for _ in range(config.lift_layers)
        )
        self.temporal = nn.ModuleList(blocks)
        self.layers = nn.ModuleList(GraphLayer(config.width, config.heads, config.dropout) for _ in range(config.lift_layers))

    def forward(self, x: Tensor, uv: Tensor, moved: Tensor, inputs: NetworkInputs) -> Tensor:
        """Features x (B, T, J, D), uv (B, T, J, 2) and their displacement `moved` (B, T, J, 3) -> features (B, T, J, D)."""
        reference = inputs.position[:, :1].expand_as(moved)  # (B, T, J, 3)
        x = x + self.input(torch.cat([uv - inputs.uv[:, None], moved, reference], dim=-1))
        for i, (temporal, layer) in enumerate(zip(self.temporal, self.layers, strict=True)):
            x = layer(temporal(x), inputs.graph, local=i % 2 == 0)
        return x


class IKPrior(nn.Module):
    """Gives stage 2 the rotations that inverse kinematics finds from the positions and the reference pair."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.input = ExactLinear(6 + 3, config.width)
        self.trust = ExactHead(nn.LayerNorm(config.width), nn.Linear(config.width, 1))
        nn.init.zeros_(self.trust[1].weight)
        # in an armature's tree many bones point nowhere, in a natural one every bone is a limb
        nn.init.constant_(self.trust[1].bias, 1.0 if config.natural else -1.0)
        self.solve = partial(anchored_ik, hold=0.1, short=0.1) if config.natural else anchored_ik

    def rotations(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """Positions (B, T, J, 3) -> local rot6d (B, T, J, 6). No gradient passes: that of an SVD is unstable."""
        graph, dtype = inputs.graph, inputs.rot6d.dtype
        with exact(position):
            reference = local_to_global(graph.parents, rot6d_to_matrix(inputs.rot6d[:, :1]))[:, 0]  # (B, J, 3, 3), global
            exact_position = position.detach().to(dtype)
            # (B, T, J, 3, 3)
            global_rotations = self.solve(graph.parents, graph.mask, exact_position, inputs.position[:, 0], reference)
            return matrix_to_rot6d(global_to_local(graph.parents, global_rotations))

    def features(self, prior: Tensor, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """Rotations of the prior (B, T, J, 6) and positions (B, T, J, 3), as differences from the reference -> (B, T, J, D)."""
        return self.input(torch.cat([prior - inputs.rot6d[:, :1], position - inputs.position[:, :1]], dim=-1))

    def blend(self, residual: Tensor, x: Tensor, prior: Tensor, inputs: NetworkInputs) -> Tensor:
        """Reference + trust (prior - reference) + residual, (B, T, J, 6). Trust, 0..1, is read from the features x (B, T, J, D)."""
        trust = self.trust(x).sigmoid().to(residual.dtype)  # (B, T, J, 1)
        return inputs.rot6d[:, :1] + trust * (prior - inputs.rot6d[:, :1]) + residual

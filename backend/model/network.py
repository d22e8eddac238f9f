"""video2pose2rot, the network (docs/network.md, Stage 1); `lite` adds the layers of geometric_layers.py.

B rigs, T frames, J joints, S image tokens, N reference pairs, C token width, E name width, D model width.
Positions are root-relative, in the camera's frame (y up), divided by the skeleton's scale; rotations are local rot6d rows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import Config
from .geometric_layers import DepthLifter, IKPrior, PositionEncoder2D, SoftArgmax2D
from .inputs import NetworkInputs, SkeletonGraph
from .layers import (
    ExactHead,
    ExactLinear,
    Film,
    GraphAttention,
    GraphLayer,
    PlainAttention,
    ReferenceAttention,
    Rope,
    TemporalBlock,
    feed_forward,
)

OCTAVES = 8
HEAD = 128  # hidden width of the position head, whatever the model's


def sinusoids(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 51): x, then sin and cos of 8 octaves from pi, coordinate-major."""
    frequency = torch.pi * 2.0 ** torch.arange(OCTAVES, dtype=x.dtype, device=x.device)
    angle = (x[..., None] * frequency).flatten(-2)
    return torch.cat([x, angle.sin(), angle.cos()], dim=-1)


class FusionBlock(nn.Module):
    """Reference features (B, 1, J, D): over the graph, over all joints, and to the image's tokens (B, 1, S, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.graph_attn = GraphAttention(config.width, config.heads)
        self.self_attn = PlainAttention(config.width, config.heads)
        self.cross_img = PlainAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)
        self.res_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, tokens: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        x = x + self.graph_attn(x, graph, local)
        x = x + self.self_attn(x, x, graph.mask)
        x = (x + self.cross_img(x, tokens)) * graph.mask[:, None, :, None]
        return self.norm(x * self.res_scale)


class ReferenceEncoder(nn.Module):
    """Reference pose and image -> one query per joint, (B, 1, J, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pose_proj = ExactLinear(3 + 6 * OCTAVES, config.width)
        self.img_proj = nn.Linear(config.image_width, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.fusion_blocks = nn.ModuleList(FusionBlock(config) for _ in range(config.ref_layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.places = PositionEncoder2D(config) if config.aids else None

    def forward(self, inputs: NetworkInputs) -> Tensor:
        x = self.pose_proj(sinusoids(inputs.position[:, :1])) + self.joint_t5proj(inputs.names)[:, None]
        if self.places is None:
            tokens = self.img_proj(inputs.tokens)[:, None]
        else:
            tokens = (self.img_proj(self.places.norm(inputs.tokens)) + self.places.tokens())[:, None]
            x = x + self.places.joints(tokens[:, 0], inputs.uv)[:, None]
        for i, block in enumerate(self.fusion_blocks):
            x = block(x, tokens, inputs.graph, local=i % 2 == 0)
        return self.final_norm(x)


class ImageBlock(nn.Module):
    """Features (B, T, J, D): the joints of a frame to each other, and to the tokens (B or 1, T, S, D) of the frames around it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radius = config.image_radius
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.self_attn = PlainAttention(config.width, config.heads)
        self.cross_attn = PlainAttention(config.width, config.heads)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, rope: Rope) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, mask)
        return x + self.cross_attn.over_frames(self.norm2(x), tokens, self.radius, rope)


class TemporalModel(nn.Module):
    """Every frame starts from the reference query and reads its own neighbourhood of frames."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.img_proj = nn.Linear(config.image_width, width)
        self.blocks_img = nn.ModuleList(ImageBlock(config) for _ in range(config.layers))
        self.blocks_graph = nn.ModuleList(GraphAttention(width, config.heads) for _ in range(config.layers))
        self.head = ExactHead(nn.LayerNorm(width), nn.Linear(width, HEAD), nn.ReLU(), nn.Linear(HEAD, 3))
        self.rope = Rope(width // config.heads)
        self.readout = SoftArgmax2D(config) if config.aids else None
        self.lift = DepthLifter(config) if config.aids else None

    def forward(self, query: Tensor, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor | None]:
        if self.readout is None:
            tokens = self.img_proj(image)
        else:
            image = self.readout.places.norm(image)
            tokens = self.img_proj(image) + self.readout.places.tokens()
        x = query.expand(-1, image.shape[1], -1, -1)
        for i, (block, graph) in enumerate(zip(self.blocks_img, self.blocks_graph, strict=True)):
            x = block(x, tokens, inputs.graph.mask, self.rope)
            x = x + graph(x, inputs.graph, local=i % 2 == 0)
        if self.readout is None or self.lift is None:
            return self.head(x).to(inputs.position.dtype), None
        uv = self.readout(x, tokens, image, inputs)
        moved = self.readout.moved(x, uv, inputs)
        position = inputs.position[:, :1] + moved + self.head(self.lift(x, uv, moved, inputs)).to(moved.dtype)
        return position - position[:, :, :1], uv


class Video2Pose(nn.Module):
    """Stage 1."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ref_encoder = ReferenceEncoder(config)
        self.temporal_model = TemporalModel(config)
        if config.aids:  # start at the reference pose
            nn.init.zeros_(self.temporal_model.head[3].weight)
            nn.init.zeros_(self.temporal_model.head[3].bias)

    def forward(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor | None]:
        """image (B, T, S, C), or (1, T, S, C) for all rigs -> positions (B, T, J, 3) and, with the aids, uv (B, T, J, 2)."""
        position, uv = self.temporal_model(self.ref_encoder(inputs), image, inputs)
        return torch.where(inputs.static_position[:, None, :, None], inputs.position[:, :1], position), uv


class RestEncoder(nn.Module):
    """Rest offsets and names -> E_rest (B, 1, J, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.offset_proj = ExactLinear(3, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.layers = nn.ModuleList(GraphLayer(config.width, config.heads, config.dropout) for _ in range(config.rest_layers))
        self.out_norm = nn.LayerNorm(config.width)

    def forward(self, inputs: NetworkInputs) -> Tensor:
        x = (self.offset_proj(inputs.offsets) + self.joint_t5proj(inputs.names))[:, None]
        for i, layer in enumerate(self.layers):
            x = layer(x, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class PoseEncoder(nn.Module):
    """Positions over time -> pose features (B, T, J, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, count = config.width, config.pose_layers
        self.in_proj = ExactLinear(3, width)
        self.joint_t5proj = nn.Linear(config.name_width, width)
        self.rest_film_blocks = nn.ModuleList(Film(width) for _ in range(count))
        blocks = (TemporalBlock(width, config.heads, config.joint_radius, config.dropout) for _ in range(count))
        self.temporal_blocks = nn.ModuleList(blocks)
        self.graph_blocks = nn.ModuleList(GraphAttention(width, config.heads) for _ in range(count))
        self.out_norm = nn.LayerNorm(width)

    def forward(self, position: Tensor, rest: Tensor, inputs: NetworkInputs) -> Tensor:
        x = self.in_proj(position) + self.joint_t5proj(inputs.names)[:, None]
        blocks = zip(self.rest_film_blocks, self.temporal_blocks, self.graph_blocks, strict=True)
        for i, (film, temporal, graph) in enumerate(blocks):
            x = temporal(film(x, rest))
            x = x + graph(x, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class MemoryLayer(nn.Module):
    """Features of the reference pairs (B, N, J, D), told of the rest pose (B, 1, J, D), over the graph of each pair."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.film = Film(config.width)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.graph = GraphAttention(config.width, config.heads)
        self.ffn = feed_forward(config.width, config.dropout)

    def forward(self, x: Tensor, rest: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        x = self.film(x, rest)
        x = x + self.graph(self.norm1(x), graph, local)
        return x + self.ffn(self.norm2(x))


class MemoryEncoder(nn.Module):
    """Reference pairs -> C_ref (B, N, J, D)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pose_proj, self.rot_proj = ExactLinear(3, config.width), ExactLinear(6, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.layers = nn.ModuleList(MemoryLayer(config) for _ in range(config.memory_layers))
        self.out_norm = nn.LayerNorm(config.width)

    def forward(self, rest: Tensor, inputs: NetworkInputs) -> Tensor:
        x = self.pose_proj(inputs.position) + self.rot_proj(inputs.rot6d) + self.joint_t5proj(inputs.names)[:, None]
        for i, layer in enumerate(self.layers):
            x = layer(x, rest, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class DecoderBlock(nn.Module):
    """Features (B, T, J, D), told of the rest pose (B, 1, J, D): over time, over the graph, and to the pairs' (B, N, J, D)."""

    def __init__(self, config: Config, cross: bool) -> None:
        super().__init__()
        width = config.width
        self.film = Film(width)
        self.temporal = TemporalBlock(width, config.heads, config.joint_radius, config.dropout)
        self.graph_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.graph = GraphAttention(width, config.heads)
        self.cross = ReferenceAttention(width, config.heads) if cross else None
        self.ffn = feed_forward(width, config.dropout)

    def forward(self, x: Tensor, rest: Tensor, memory: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        x = self.temporal(self.film(x, rest))
        x = x + self.graph(self.graph_norm(x), graph, local)
        if self.cross is not None:
            x = x + self.cross(x, memory)
        return x + self.ffn(self.ffn_norm(x))


class Decoder(nn.Module):
    """Pose features and pairs -> local rot6d (B, T, J, 6)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.width
        self.joint_t5proj = nn.Linear(config.name_width, width)
        self.blocks = nn.ModuleList(DecoderBlock(config, cross=i < config.cross_layers) for i in range(config.decoder_layers))
        self.head = ExactHead(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 6))
        self.estimate = IKPrior(config) if config.aids else None
        if config.aids:  # start near the reference pose
            nn.init.zeros_(self.head[3].weight)
            nn.init.zeros_(self.head[3].bias)

    def forward(self, pose: Tensor, position: Tensor, rest: Tensor, memory: Tensor, inputs: NetworkInputs) -> Tensor:
        x = pose + self.joint_t5proj(inputs.names)[:, None]
        if self.estimate is None:
            return self._read(x, rest, memory, inputs)[0]
        geometric = self.estimate.rotations(position, inputs)
        x = x + self.estimate.features(geometric, position, inputs)
        out, x = self._read(x, rest, memory, inputs)
        return self.estimate.mix(out, x, geometric, inputs)

    def _read(self, x: Tensor, rest: Tensor, memory: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """-> what the head says, (B, T, J, 6) in the exact dtype, and the features it was read from."""
        for i, block in enumerate(self.blocks):
            x = block(x, rest, memory, inputs.graph, local=i % 2 == 0)
        return self.head(x).to(inputs.rot6d.dtype), x


class Pose2Rot(nn.Module):
    """Stage 2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rest_encoder = RestEncoder(config)
        self.pose_encoder = PoseEncoder(config)
        self.memory_encoder = MemoryEncoder(config)
        self.decoder = Decoder(config)

    def forward(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """Positions (B, T, J, 3) -> local rot6d (B, T, J, 6)."""
        rest = self.rest_encoder(inputs)
        pose = self.pose_encoder(position, rest, inputs)
        rot6d = self.decoder(pose, position, rest, self.memory_encoder(rest, inputs), inputs)
        return torch.where(inputs.static_rotation[:, None, :, None], inputs.rot6d[:, :1], rot6d)


class Video2Pose2Rot(nn.Module):
    """The joint model."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.video2pos = Video2Pose(config)
        self.pos2rot = Pose2Rot(config)

    def forward(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """image (B, T, S, C) -> positions (B, T, J, 3), local rot6d (B, T, J, 6)."""
        position, _ = self.video2pos(image, inputs)
        return position, self.pos2rot(position, inputs)

"""video2pose2rot, the network (docs/network.md): stage 1 predicts positions from images, stage 2 rotations from positions.

Reading order: config, inputs, layers, geometric_layers and eyes (which only `lite` has), network. Notation, in all of them:

    B  rigs of a batch          T  frames                   J  joints, leaf tips included, padded to the largest rig of the batch
    N  reference pairs          S  image tokens of a frame  C  width of an image token, with what trained eyes saw
    E  width of a joint's name  D  width of the model       H  heads, each d = D / H wide

Positions are relative to the root, in the camera's frame (y up), and divided by the rig's scale. Rotations are local, as rot6d: the
first two rows of the matrix. Layers keep the names that they have in the weights' files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import Config
from .eyes import Eyes, FineReadout, split_tokens
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
HEAD = 128  # width of the position head's hidden layer, in models of any width


def sinusoids(x: Tensor) -> Tensor:
    """(..., 3) -> (..., 51): x, then its sines and cosines in 8 octaves from pi; all octaves of a coordinate before the next one's."""
    frequency = torch.pi * 2.0 ** torch.arange(OCTAVES, dtype=x.dtype, device=x.device)
    angle = (x[..., None] * frequency).flatten(-2)  # (..., 3, 8) -> (..., 24)
    return torch.cat([x, angle.sin(), angle.cos()], dim=-1)


# Stage 1


def _unseen_at_first(config: Config) -> nn.Linear:
    """What the trained eyes see, as a part of the tokens that grows from nothing."""
    layer = nn.Linear(4 * config.eyes, config.width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class FusionBlock(nn.Module):
    """The reference's joints attend to each other by their graph, to each other freely, and to the tokens of the image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.graph_attn = GraphAttention(config.width, config.heads)
        self.self_attn = PlainAttention(config.width, config.heads)
        self.cross_img = PlainAttention(config.width, config.heads)
        self.norm = nn.LayerNorm(config.width)
        self.res_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, tokens: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        """x (B, 1, J, D), tokens (B, 1, S, D) -> (B, 1, J, D)."""
        x = x + self.graph_attn(x, graph, local)
        x = x + self.self_attn(x, x, graph.mask)
        x = (x + self.cross_img(x, tokens)) * graph.mask[:, None, :, None]  # padding is zeroed, as in the method
        return self.norm(x * self.res_scale)


class ReferenceEncoder(nn.Module):
    """Makes a query for each joint from the reference pose, its image and the joints' names."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pose_proj = ExactLinear(3 + 6 * OCTAVES, config.width)
        self.img_proj = nn.Linear(config.image_width, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.fusion_blocks = nn.ModuleList(FusionBlock(config) for _ in range(config.ref_layers))
        self.final_norm = nn.LayerNorm(config.width)
        self.places = PositionEncoder2D(config) if config.aids else None
        self.eye_proj = _unseen_at_first(config) if config.eyes else None

    def forward(self, inputs: NetworkInputs) -> Tensor:
        """-> (B, 1, J, D)."""
        # the first pair is the one in the image
        x = self.pose_proj(sinusoids(inputs.position[:, :1])) + self.joint_t5proj(inputs.names)[:, None]  # (B, 1, J, D)
        if self.places is None:
            tokens = self.img_proj(inputs.tokens)[:, None]  # (B, 1, S, D)
        else:
            image, seen = split_tokens(inputs.tokens, self.img_proj.in_features)
            tokens = (self.img_proj(self.places.norm(image)) + self.places.encode_tokens())[:, None]
            if self.eye_proj is not None:
                tokens = tokens + self.eye_proj(seen)[:, None]
            x = x + self.places.encode_joints(tokens[:, 0], inputs.uv)[:, None]
        # even blocks are local, odd ones global, as in every stack of the network
        for i, block in enumerate(self.fusion_blocks):
            x = block(x, tokens, inputs.graph, local=i % 2 == 0)
        return self.final_norm(x)


class ImageBlock(nn.Module):
    """The joints of a frame attend to each other, and to the image tokens of the frames around it, or, if `apart`, of their own."""

    apart = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radius = config.image_radius
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.self_attn = PlainAttention(config.width, config.heads)
        self.cross_attn = PlainAttention(config.width, config.heads)

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor, rope: Rope) -> Tensor:
        """x (B, T, J, D), tokens (B or 1, T, S, D), mask (B, J) -> (B, T, J, D)."""
        y = self.norm1(x)
        x = x + self.self_attn(y, y, mask)
        y = self.norm2(x)
        if self.apart and self.radius:  # every frame is a clip of its own
            own = tokens.expand(len(x), -1, -1, -1).flatten(0, 1)[:, None]
            alone = self.cross_attn.over_frames(y.flatten(0, 1)[:, None], own, self.radius, rope)
            return x + alone[:, 0].unflatten(0, x.shape[:2])
        return x + self.cross_attn.over_frames(y, tokens, self.radius, rope)


class TemporalModel(nn.Module):
    """Predicts positions: every frame starts from the same queries and reads the images of the frames around it."""

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
        self.eye_proj = _unseen_at_first(config) if config.eyes else None
        self.fine = FineReadout(config) if config.eyes else None

    def forward(self, query: Tensor, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        """query (B, 1, J, D), image (B or 1, T, S, C) -> as Video2Pose.forward."""
        if self.readout is None:
            tokens = self.img_proj(image)  # (B or 1, T, S, D)
        else:
            image, seen = split_tokens(image, self.img_proj.in_features)
            image = self.readout.places.norm(image)
            tokens = self.img_proj(image) + self.readout.places.encode_tokens()
            if self.eye_proj is not None:
                tokens = tokens + self.eye_proj(seen)
        x = query.expand(-1, image.shape[1], -1, -1)  # (B, T, J, D)
        for i, (block, graph) in enumerate(zip(self.blocks_img, self.blocks_graph, strict=True)):
            x = block(x, tokens, inputs.graph.mask, self.rope)
            x = x + graph(x, inputs.graph, local=i % 2 == 0)
        if self.readout is None or self.lift is None:
            return self.head(x).to(inputs.position.dtype), ()
        uv = self.readout(x, tokens, image, inputs)  # (B, T, J, 2)
        places: tuple[Tensor, ...] = (uv,)
        if self.fine is not None:
            reference = split_tokens(inputs.tokens, self.img_proj.in_features)[1]
            found, uv, more = self.fine(x, uv, seen, reference, inputs.uv)
            places, x = (*places, found, uv), x + more
        moved = self.readout.displacement(x, uv, inputs)  # (B, T, J, 3), in the image plane
        position = inputs.position[:, :1] + moved + self.head(self.lift(x, uv, moved, inputs)).to(moved.dtype)
        return position - position[:, :, :1], places  # relative to the root, joint 0


class Video2Pose(nn.Module):
    """Stage 1: image tokens -> joint positions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.ref_encoder = ReferenceEncoder(config)
        self.temporal_model = TemporalModel(config)
        if config.aids:  # start at the reference pose
            nn.init.zeros_(self.temporal_model.head[3].weight)
            nn.init.zeros_(self.temporal_model.head[3].bias)

    def forward(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Image tokens (B, T, S, C), or (1, T, S, C) for all rigs -> positions (B, T, J, 3), and the uv (B, T, J, 2) of the joints in the
        crops as each step found them, for training; none without geometric layers. Static joints get the reference's position."""
        position, places = self.temporal_model(self.ref_encoder(inputs), image, inputs)
        return torch.where(inputs.static_position[:, None, :, None], inputs.position[:, :1], position), places


# Stage 2


class RestEncoder(nn.Module):
    """Describes each joint of the rest pose from its offset and its name (E_rest in the paper)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.offset_proj = ExactLinear(3, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.layers = nn.ModuleList(GraphLayer(config.width, config.heads, config.dropout) for _ in range(config.rest_layers))
        self.out_norm = nn.LayerNorm(config.width)

    def forward(self, inputs: NetworkInputs) -> Tensor:
        """-> (B, 1, J, D)."""
        x = (self.offset_proj(inputs.offsets) + self.joint_t5proj(inputs.names))[:, None]  # (B, 1, J, D)
        for i, layer in enumerate(self.layers):
            x = layer(x, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class PoseEncoder(nn.Module):
    """Describes each joint in each frame from the positions of stage 1."""

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
        """position (B, T, J, 3), rest (B, 1, J, D) -> (B, T, J, D)."""
        x = self.in_proj(position) + self.joint_t5proj(inputs.names)[:, None]  # (B, T, J, D)
        blocks = zip(self.rest_film_blocks, self.temporal_blocks, self.graph_blocks, strict=True)
        for i, (film, temporal, graph) in enumerate(blocks):
            x = temporal(film(x, rest))
            x = x + graph(x, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class MemoryLayer(nn.Module):
    """The joints of each reference pair attend to each other by their graph, conditioned on the rest pose."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.film = Film(config.width)
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.graph = GraphAttention(config.width, config.heads)
        self.ffn = feed_forward(config.width, config.dropout)

    def forward(self, x: Tensor, rest: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        """x (B, N, J, D), rest (B, 1, J, D) -> (B, N, J, D)."""
        x = self.film(x, rest)
        x = x + self.graph(self.norm1(x), graph, local)
        return x + self.ffn(self.norm2(x))


class MemoryEncoder(nn.Module):
    """Describes each joint of the reference pairs from its position, its rotation and its name (C_ref in the paper)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.pose_proj, self.rot_proj = ExactLinear(3, config.width), ExactLinear(6, config.width)
        self.joint_t5proj = nn.Linear(config.name_width, config.width)
        self.layers = nn.ModuleList(MemoryLayer(config) for _ in range(config.memory_layers))
        self.out_norm = nn.LayerNorm(config.width)

    def forward(self, rest: Tensor, inputs: NetworkInputs) -> Tensor:
        """rest (B, 1, J, D) -> (B, N, J, D)."""
        x = self.pose_proj(inputs.position) + self.rot_proj(inputs.rot6d) + self.joint_t5proj(inputs.names)[:, None]
        for i, layer in enumerate(self.layers):
            x = layer(x, rest, inputs.graph, local=i % 2 == 0)
        return self.out_norm(x)


class DecoderBlock(nn.Module):
    """A joint attends to itself over time, to the other joints of its frame, and to itself in the reference pairs."""

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
        """x (B, T, J, D), rest (B, 1, J, D), memory (B, N, J, D) -> (B, T, J, D)."""
        x = self.temporal(self.film(x, rest))
        x = x + self.graph(self.graph_norm(x), graph, local)
        if self.cross is not None:
            x = x + self.cross(x, memory)
        return x + self.ffn(self.ffn_norm(x))


class Decoder(nn.Module):
    """Predicts local rotations from the features of the pose, the rest pose and the reference pairs."""

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
        """pose (B, T, J, D), position (B, T, J, 3), rest (B, 1, J, D), memory (B, N, J, D) -> rot6d (B, T, J, 6)."""
        x = pose + self.joint_t5proj(inputs.names)[:, None]  # (B, T, J, D)
        prior = None if self.estimate is None else self.estimate.rotations(position, inputs)  # (B, T, J, 6)
        if self.estimate is not None:
            x = x + self.estimate.features(prior, position, inputs)
        for i, block in enumerate(self.blocks):
            x = block(x, rest, memory, inputs.graph, local=i % 2 == 0)
        rot6d = self.head(x).to(inputs.rot6d.dtype)
        return rot6d if self.estimate is None else self.estimate.blend(rot6d, x, prior, inputs)


class Pose2Rot(nn.Module):
    """Stage 2: joint positions -> local rotations."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.rest_encoder = RestEncoder(config)
        self.pose_encoder = PoseEncoder(config)
        self.memory_encoder = MemoryEncoder(config)
        self.decoder = Decoder(config)

    def forward(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """Positions (B, T, J, 3) -> local rot6d (B, T, J, 6). Static joints get the reference's rotation."""
        rest = self.rest_encoder(inputs)  # (B, 1, J, D)
        pose = self.pose_encoder(position, rest, inputs)  # (B, T, J, D)
        memory = self.memory_encoder(rest, inputs)  # (B, N, J, D)
        rot6d = self.decoder(pose, position, rest, memory, inputs)
        return torch.where(inputs.static_rotation[:, None, :, None], inputs.rot6d[:, :1], rot6d)


class Video2Pose2Rot(nn.Module):
    """Both stages: image tokens -> positions and local rotations."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.video2pos = Video2Pose(config)
        self.pos2rot = Pose2Rot(config)
        self.eyes = Eyes(config.eyes) if config.eyes else None

    def forward(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor]:
        """Image tokens (B, T, S, C), or (1, T, S, C) for all rigs -> positions (B, T, J, 3) and local rot6d (B, T, J, 6)."""
        position, _ = self.video2pos(image, inputs)
        return position, self.pos2rot(position, inputs)

"""The network written plainly: the benchmark compares its speed, and the tests its results, with those of backend/model.

As in the public re-implementation (docs/network.md, Stage 1), skeletons are padded to 150 joints, graph inputs are repeated for every
frame, (B T, J, J), and windows of frames are copied before attention projects them: joints (B J T, 5, D) and image tokens (B T, 5 S, D).
It runs with the weights of a `Video2Pose2Rot` without geometric layers. Shapes as in model/network.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.inputs import NetworkInputs, SkeletonGraph
from ..model.layers import (
    GraphAttention,
    PlainAttention,
    ReferenceAttention,
    Rope,
    TemporalBlock,
    merge_heads,
    split_heads,
)
from ..model.network import Pose2Rot, Video2Pose, Video2Pose2Rot, sinusoids
from ..rig.skeleton import MAX_HOP, UNRELATED

JOINTS = 150


@dataclass(frozen=True)
class GraphInputs:
    """hop, edge (B T, J, J) int; local, everywhere (B T, J, J) bool; mask (B T, J) bool."""

    hop: Tensor
    edge: Tensor
    local: Tensor
    everywhere: Tensor
    mask: Tensor


def padded(inputs: NetworkInputs, joints: int = JOINTS) -> NetworkInputs:
    """Pad every skeleton of the inputs to `joints`."""
    extra = joints - inputs.names.shape[1]

    def grown(x: Tensor, axes: int = 1, value: float = 0) -> Tensor:
        """Pad the last `axes` axes, or those before an axis of channels."""
        channels = [0, 0] if x.is_floating_point() else []
        return F.pad(x, channels + [0, extra] * axes, value=value)

    graph = inputs.graph
    index = torch.arange(joints, device=graph.parents.device).expand(len(graph.parents), -1)
    parents = torch.cat([graph.parents, index[:, joints - extra :]], dim=1)
    grown_graph = SkeletonGraph(
        grown(graph.relation, 2, 6 * MAX_HOP + UNRELATED), grown(graph.ancestors, 2), grown(graph.mask), parents
    )
    return replace(
        inputs, graph=grown_graph, names=grown(inputs.names), offsets=grown(inputs.offsets), position=grown(inputs.position),
        rot6d=grown(inputs.rot6d), static_position=grown(inputs.static_position), static_rotation=grown(inputs.static_rotation),
    )  # fmt: skip


def repeat_graph(graph: SkeletonGraph, frames: int) -> GraphInputs:
    """Repeat the graph inputs for every frame."""

    def repeated(x: Tensor) -> Tensor:
        return x.repeat_interleave(frames, dim=0)

    everywhere = graph.mask[:, None] & graph.mask[:, :, None]
    hop, edge = graph.relation // 6, graph.relation % 6
    return GraphInputs(*(repeated(x) for x in (hop, edge, graph.ancestors & everywhere, everywhere, graph.mask)))


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the columns where the mask is True; zeros in rows without any."""
    scores = scores.masked_fill(~mask, float("-inf"))
    scores = torch.where(mask.any(-1, keepdim=True), scores, torch.zeros_like(scores))
    return scores.softmax(-1) * mask


def attend_graph(block: GraphAttention, x: Tensor, relations: GraphInputs, local: bool) -> Tensor:
    """GraphAttention: x (B T, J, D) -> the same shape."""
    q, k, v = (split_heads(linear(x), block.heads) for linear in (block.linear_q, block.linear_k, block.linear_v))
    scores = q @ k.transpose(-1, -2)
    for rows, table, index in (
        (q, block.topology_query_emb, relations.hop),
        (k, block.topology_key_emb, relations.hop),
        (q, block.edge_query_emb, relations.edge),
        (k, block.edge_key_emb, relations.edge),
    ):
        terms = rows @ table.weight.unflatten(-1, (block.heads, -1)).permute(1, 2, 0)  # (B T, H, J, 6)
        scores = scores + terms.gather(-1, index[:, None].repeat(1, block.heads, 1, 1))
    mask = (relations.local if local else relations.everywhere)[:, None]
    weights = softmax(scores * q.shape[-1] ** -0.5, mask)
    return block.output_layer(merge_heads(weights @ v))


def attend(
    block: PlainAttention, x: Tensor, context: Tensor, mask: Tensor, frames: tuple[Rope, Tensor, Tensor] | None = None
) -> Tensor:
    """PlainAttention: x (N, J, D) to context (N, S, D); mask (N, S) bool. frames: RoPE, the frames of queries (N,) and columns (N, S)."""
    q, k, v = (split_heads(y, block.heads) for y in (block.to_q(x), block.to_k(context), block.to_v(context)))
    if frames is not None:
        rope, here, there = frames
        q, k = apply_rope(rope, q, here[:, None, None]), apply_rope(rope, k, there[:, None])
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return block.to_out(merge_heads(softmax(scores, mask[:, None, None]) @ v))


def apply_rope(rope: Rope, x: Tensor, frames: Tensor) -> Tensor:
    """Rotate x (N, H, J, d) by frame indices that broadcast to (N, H, J)."""
    octave = torch.arange(0, rope.width, 2, dtype=torch.float64, device=x.device) / rope.width
    angle = frames[..., None].double() * 10000.0**-octave
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def frame_windows(x: Tensor, radius: int) -> Tensor:
    """(B, T, ...) -> (B, T, 2 radius + 1, ...): copies of each frame and its neighbours, zeros outside the clip."""
    room = [0, 0] * (x.dim() - 2) + [radius, radius]
    wide = F.pad(x, room)
    return torch.stack([wide[:, step : step + x.shape[1]] for step in range(2 * radius + 1)], dim=2)


def attend_frames(block: PlainAttention, x: Tensor, tokens: Tensor, radius: int, rope: Rope) -> Tensor:
    """PlainAttention over frames: x (B, T, J, D) to tokens (B, T, S, D). Tokens outside the clip are zeros, and not masked."""
    batch, frames, _, _ = x.shape
    context = frame_windows(tokens, radius).flatten(2, 3).flatten(0, 1)  # (B T, 5 S, D)
    here = torch.arange(frames, device=x.device).repeat(batch)
    offset = torch.arange(-radius, radius + 1, device=x.device).repeat_interleave(tokens.shape[2])
    mask = torch.ones(context.shape[:2], dtype=torch.bool, device=x.device)
    out = attend(block, x.flatten(0, 1), context, mask, (rope, here, here[:, None] + offset))
    return out.unflatten(0, (batch, frames))


def temporal(block: TemporalBlock, x: Tensor) -> Tensor:
    """TemporalBlock: x (B, T, J, D) -> the same shape."""
    batch, frames, joints, width = x.shape
    attn, radius = block.attn, block.attn.radius
    x = x.transpose(1, 2).flatten(0, 1)  # (B J, T, D)
    y = block.norm1(x)
    around = frame_windows(y, radius).flatten(0, 1)  # (B J T, 5, D)
    here = torch.arange(frames, device=x.device).repeat(len(x))
    there = here[:, None] + torch.arange(-radius, radius + 1, device=x.device)
    q = apply_rope(attn.rope, split_heads(attn.linear_q(y.reshape(-1, 1, width)), attn.heads), here[:, None, None])
    k = apply_rope(attn.rope, split_heads(attn.linear_k(around), attn.heads), there[:, None])
    v = split_heads(attn.linear_v(around), attn.heads)
    # row (query - key) + radius of the table: the first of the window is `radius` frames earlier
    bias = attn.temporal_bias.weight.flip(0).T[None, :, None]
    mask = ((there >= 0) & (there < frames))[:, None, None]
    weights = softmax((q @ k.transpose(-1, -2) + bias) * q.shape[-1] ** -0.5, mask)
    x = x + attn.output_layer(merge_heads(weights @ v)).reshape(x.shape)
    return (x + block.ffn(block.norm2(x))).unflatten(0, (batch, joints)).transpose(1, 2)


def cross(block: ReferenceAttention, x: Tensor, pairs: Tensor) -> Tensor:
    """ReferenceAttention: x (B, T, J, D), pairs (B, N, J, D) -> the shape of x."""
    batch, _, joints, _ = x.shape
    q, kv = (norm(y).transpose(1, 2).flatten(0, 1) for norm, y in ((block.norm_q, x), (block.norm_kv, pairs)))
    out = block.out_proj(block.attn(q, kv, kv, need_weights=False)[0])
    return out.unflatten(0, (batch, joints)).transpose(1, 2)


def over_graph(block: GraphAttention, x: Tensor, relations: GraphInputs, local: bool) -> Tensor:
    """GraphAttention: x (B, T, J, D) -> the same shape."""
    return attend_graph(block, x.flatten(0, 1), relations, local).reshape(x.shape)


def video2pose(stage: Video2Pose, image: Tensor, inputs: NetworkInputs) -> Tensor:
    """Stage 1: image tokens (B, T, S, C) -> positions (B, T, J, 3)."""
    encoder, model = stage.ref_encoder, stage.temporal_model
    batch, frames = image.shape[:2]
    one, every = repeat_graph(inputs.graph, 1), repeat_graph(inputs.graph, frames)
    x = encoder.pose_proj(sinusoids(inputs.position[:, 0])) + encoder.joint_t5proj(inputs.names)
    tokens = encoder.img_proj(inputs.tokens)
    all_tokens = torch.ones(tokens.shape[:2], dtype=torch.bool, device=x.device)
    for i, block in enumerate(encoder.fusion_blocks):
        x = x + attend_graph(block.graph_attn, x, one, i % 2 == 0)
        x = x + attend(block.self_attn, x, x, one.mask)
        x = (x + attend(block.cross_img, x, tokens, all_tokens)) * one.mask[..., None]
        x = block.norm(x * block.res_scale)
    x = encoder.final_norm(x)[:, None].repeat(1, frames, 1, 1)
    tokens = model.img_proj(image)
    for i, (block, graph) in enumerate(zip(model.blocks_img, model.blocks_graph, strict=True)):
        y = block.norm1(x).flatten(0, 1)
        x = x + attend(block.self_attn, y, y, every.mask).unflatten(0, (batch, frames))
        x = x + attend_frames(block.cross_attn, block.norm2(x), tokens, block.radius, model.rope)
        x = x + over_graph(graph, x, every, i % 2 == 0)
    return torch.where(inputs.static_position[:, None, :, None], inputs.position[:, :1], model.head(x))


def pose2rot(stage: Pose2Rot, position: Tensor, inputs: NetworkInputs) -> Tensor:
    """Stage 2: positions (B, T, J, 3) -> local rot6d (B, T, J, 6)."""
    frames = position.shape[1]
    one, pairs, every = (repeat_graph(inputs.graph, count) for count in (1, inputs.position.shape[1], frames))
    coder = stage.rest_encoder
    rest = (coder.offset_proj(inputs.offsets) + coder.joint_t5proj(inputs.names))[:, None]
    for i, layer in enumerate(coder.layers):
        rest = rest + over_graph(layer.graph, layer.norm(rest), one, i % 2 == 0)
        rest = rest + layer.ffn(layer.ffn_norm(rest))
    rest = coder.out_norm(rest)
    coder = stage.memory_encoder
    memory = coder.pose_proj(inputs.position) + coder.rot_proj(inputs.rot6d) + coder.joint_t5proj(inputs.names)[:, None]
    for i, layer in enumerate(coder.layers):
        memory = layer.film(memory, rest)
        memory = memory + over_graph(layer.graph, layer.norm1(memory), pairs, i % 2 == 0)
        memory = memory + layer.ffn(layer.norm2(memory))
    memory = coder.out_norm(memory)
    coder = stage.pose_encoder
    x = coder.in_proj(position) + coder.joint_t5proj(inputs.names)[:, None]
    blocks = zip(coder.rest_film_blocks, coder.temporal_blocks, coder.graph_blocks, strict=True)
    for i, (film, frames_block, graph) in enumerate(blocks):
        x = temporal(frames_block, film(x, rest))
        x = x + over_graph(graph, x, every, i % 2 == 0)
    return _decode(stage, coder.out_norm(x), rest, memory, every, inputs)


def _decode(stage: Pose2Rot, pose: Tensor, rest: Tensor, memory: Tensor, every: GraphInputs, inputs: NetworkInputs) -> Tensor:
    decoder = stage.decoder
    x = pose + decoder.joint_t5proj(inputs.names)[:, None]
    for i, block in enumerate(decoder.blocks):
        x = temporal(block.temporal, block.film(x, rest))
        x = x + over_graph(block.graph, block.graph_norm(x), every, i % 2 == 0)
        if block.cross is not None:
            x = x + cross(block.cross, x, memory)
        x = x + block.ffn(block.ffn_norm(x))
    return torch.where(inputs.static_rotation[:, None, :, None], inputs.rot6d[:, :1], decoder.head(x))


def run_both_stages(network: Video2Pose2Rot, image: Tensor, inputs: NetworkInputs, joints: int = JOINTS) -> tuple[Tensor, Tensor]:
    """Run both stages: image tokens (B, T, S, C) -> positions (B, T, J, 3) and local rot6d (B, T, J, 6), padded to `joints`."""
    grown = padded(inputs, joints)
    position = video2pose(network.video2pos, image, grown)
    return position, pose2rot(network.pos2rot, position, grown)

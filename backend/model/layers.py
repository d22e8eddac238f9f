"""The attention layers of video2pose2rot (docs/network.md, Attention blocks). Shapes as in network.py; n is any number of rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hardware.metal import attended, on_metal
from .inputs import SkeletonGraph

RELATIONS = 36  # 6 hop classes x 6 edge classes
BLOCK = 16  # frames of a block of temporal attention


def exact(like: Tensor) -> torch.autocast:
    """Switch autocast off on the device of `like`, for numbers that half precision would spoil."""
    return torch.autocast(like.device.type, enabled=False)


class ExactLinear(nn.Linear):
    """A linear layer outside autocast, for coordinates and rotations: rounding them to half precision would be the largest error."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., m), in the type of the weights."""
        with exact(x):
            return super().forward(x.to(self.weight.dtype))


class ExactHead(nn.Sequential):
    """Layers outside autocast, as ExactLinear is. The second one is linear."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) -> (..., m), in the type of the weights."""
        with exact(x):
            return super().forward(x.to(self[1].weight.dtype))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., n, D) -> (..., H, n, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)  # (..., n, H, d) -> (..., H, n, d)


def merge_heads(x: Tensor) -> Tensor:
    """(..., H, n, d) -> (..., n, D)."""
    return x.transpose(-2, -3).flatten(-2)  # (..., n, H, d) -> (..., n, D)


class Rope(nn.Module):
    """Rotary position embedding over frames: each even channel and the odd one after it are rotated as a pair, theta 10000.

    The tables of cosines and sines are kept per dtype and device, and grow by doubling.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def _table(self, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, (T, d / 2) each, in the dtype and on the device of `like`."""
        key = (like.dtype, like.device)
        table = self._tables.get(key)
        if table is None or len(table[0]) < frames:
            size = max(64, 1 << (frames - 1).bit_length())
            with torch.inference_mode(False):  # a table made while measuring must serve training too
                # in float64: float32 has lost the last digits of the angle after a few thousand frames
                octave = torch.arange(0, self.width, 2, dtype=torch.float64) / self.width
                angle = torch.arange(size, dtype=torch.float64)[:, None] * 10000.0**-octave  # (frames, d / 2)
                # to float32 before the transfer: Metal has no float64
                cos, sin = (part.to(like.dtype).to(like.device) for part in (angle.cos(), angle.sin()))
                table = (cos, sin)
            self._tables[key] = table
        return table[0][:frames], table[1][:frames]

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Rotate x (..., d) by the index of its frame, counted along the axis `dim` (negative)."""
        cos, sin = self._table(x.shape[dim], x)
        shape = [x.shape[dim]] + [1] * (-dim - 2) + [self.width // 2]
        cos, sin = cos.view(shape), sin.view(shape)  # (T, 1 for each axis between, d / 2)
        if x.dtype in (torch.float32, torch.float64) and not torch.is_grad_enabled() and not on_metal(x):
            # a product of complex numbers is one pass over memory, the formula below takes seven
            pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)  # (..., d / 2)
            return torch.view_as_real(pairs).flatten(-2)  # (..., d / 2, 2) -> (..., d)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class GraphAttention(nn.Module):
    """GL-GMHA: the joints of a frame attend to each other, with a bias from their relation in the skeleton."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v, self.output_layer = (nn.Linear(dim, dim) for _ in range(4))
        self.topology_query_emb, self.topology_key_emb = nn.Embedding(6, dim), nn.Embedding(6, dim)
        self.edge_query_emb, self.edge_key_emb = nn.Embedding(6, dim), nn.Embedding(6, dim)

    def _table(self, hop: nn.Embedding, edge: nn.Embedding) -> Tensor:
        """(H, d, 36): the sum of the hop's and the edge's embedding, for each of the 36 relations."""
        both = hop.weight[:, None] + edge.weight[None]  # (6, 6, D)
        return both.reshape(RELATIONS, self.heads, -1).permute(1, 2, 0)  # (36, H, d) -> (H, d, 36)

    def forward(self, x: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        """(B, T, J, D) -> the same shape. local: a joint attends to itself and the joints above it, otherwise to all."""
        # (B, T, H, J, d) each
        q, k, v = (split_heads(linear(x), self.heads) for linear in (self.linear_q, self.linear_k, self.linear_v))
        # A joint's products with the 36 relations are made once and picked per column, instead of an embedding per pair of joints.
        # As in the method's own code, the key's term is that of the row's key (k_i), not of the column's (k_j).
        terms = q @ self._table(self.topology_query_emb, self.edge_query_emb)  # (B, T, H, J, 36)
        terms = terms + k @ self._table(self.topology_key_emb, self.edge_key_emb)
        relation = graph.relation[:, None, None].expand(*terms.shape[:-1], -1)  # (B, T, H, J, J)
        bias = terms.gather(-1, relation) * q.shape[-1] ** -0.5  # (B, T, H, J, J), scaled as the kernel scales q.k
        bias = bias.masked_fill(~graph.visible(local)[:, None, None], float("-inf"))
        out = attention(q, k, v, bias)  # (B, T, H, J, d)
        return self.output_layer(merge_heads(out))  # (B, T, J, D)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q (B, T, H, n, d) to k and v (B, T, H, m, d), with mask (B, T, H, n, m) added to the scores -> (B, T, H, n, d)."""
    # the fast kernels take four axes alone
    q4, k4, v4 = (x.flatten(0, 1) for x in (q, k, v))  # (B T, H, n, d)
    return attended(q4, k4, v4, None if mask is None else mask.flatten(0, 1).to(q.dtype)).unflatten(0, q.shape[:2])


class PlainAttention(nn.Module):
    """Attention without biases: joints attend to joints of their frame, or to image tokens of frames around it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, J, D) to context (B, T, n, D) -> (B, T, J, D). mask (B, n) bool: False on padding of the context."""
        # q (B, T, H, J, d), k and v (B, T, H, n, d)
        q, k, v = (split_heads(y, self.heads) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        bias = None
        if mask is not None:
            bias = q.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None, None]  # (B, 1, 1, 1, n)
            bias = bias.expand(*q.shape[:-1], mask.shape[-1])  # (B, T, H, J, n)
        return self.to_out(merge_heads(attention(q, k, v, bias)))  # (B, T, H, J, d) -> (B, T, J, D)

    def over_frames(self, x: Tensor, tokens: Tensor, radius: int, rope: Rope) -> Tensor:
        """x (B, T, J, D) to the tokens (B, T, S, D) of frames t - radius to t + radius, RoPE over the frame index -> (B, T, J, D).

        Frames outside the clip are keys and values of zero. They are not masked: as in the method, they take softmax weight.
        Tokens (1, T, S, D) belong to all rigs.
        """
        rigs = len(x)
        if len(tokens) < rigs:
            # all rigs watch one video: keys and values are made once, and the joints of all rigs attend as if they were one rig's
            x = x.transpose(0, 1).flatten(1, 2)[None]  # (B, T, J, D) -> (1, T, B J, D)
            out = self.over_frames(x, tokens, radius, rope)[0]  # (T, B J, D)
            return out.unflatten(1, (rigs, -1)).transpose(0, 1)  # (B, T, J, D)
        q = split_heads(self.to_q(x), self.heads)  # (B, T, H, J, d)
        k, v = split_heads(self.to_k(tokens), self.heads), split_heads(self.to_v(tokens), self.heads)  # (B, T, H, S, d)
        if radius == 0:  # within one frame the rotations of q and k cancel
            return self.to_out(merge_heads(attention(q, k, v)))
        q, k = rope(q, -4), rope(k, -4)  # the frames' axis
        keys, values = (_frame_windows(y, radius) for y in (k, v))  # (B, T, H, (2 radius + 1) S, d)
        # one rig after the other: flattening rigs and frames would copy the windows, which are views
        out = torch.stack([attended(*rig) for rig in zip(q, keys, values, strict=True)])  # (B, T, H, J, d)
        return self.to_out(merge_heads(out))


def _frame_windows(x: Tensor, radius: int) -> Tensor:
    """(B, T, H, S, d) -> (B, T, H, (2 radius + 1) S, d): the tokens of each frame and of the frames around it.

    With frames next to their tokens in memory, a window is one stretch of it. The windows are overlapping views of a padded copy:
    for the released network, real ones would take five times the memory.
    """
    batch, frames, heads, tokens, width = x.shape
    padded = x.new_empty(batch, heads, frames + 2 * radius, tokens, width)  # (B, H, T + 2 radius, S, d)
    padded[:, :, :radius] = padded[:, :, frames + radius :] = 0
    padded[:, :, radius : frames + radius] = x.transpose(1, 2)
    rig, head, frame, token, one = padded.stride()
    shape = (batch, frames, heads, (2 * radius + 1) * tokens, width)
    return padded.as_strided(shape, (rig, frame, head, token, one))


class TemporalAttention(nn.Module):
    """A joint attends to itself in the frames within the radius, with a learned bias per head and time difference.

    The clip is cut into M blocks of L frames; a block attends to W = L + 2 radius frames. The work grows with T, not with T^2.
    apart: the frames have nothing to do with one another, so each attends to itself alone (`frames_apart`).
    """

    apart = False

    def __init__(self, dim: int, heads: int, radius: int) -> None:
        super().__init__()
        self.heads, self.radius = heads, radius
        self.linear_q, self.linear_k, self.linear_v, self.output_layer = (nn.Linear(dim, dim) for _ in range(4))
        self.temporal_bias = nn.Embedding(2 * radius + 1, heads)
        self.rope = Rope(dim // heads)

    def _bias(self, frames: int, width: int) -> Tensor:
        """(H, M, L, W): the table's row (query - key) + radius, scaled as the scores are; -inf beyond the radius and outside the clip."""
        # one block while training: clips are short there, and the gradient of overlapping views is slow
        block = frames if torch.is_grad_enabled() else min(BLOCK, frames)
        count = -(-frames // block)
        # frames counted from the block's first one
        query = torch.arange(block, device=self.temporal_bias.weight.device)[:, None]  # (L, 1)
        place = torch.arange(block + 2 * self.radius, device=query.device) - self.radius  # (W,)
        distance = query - place + self.radius  # (L, W), rows of the table
        # the method adds this bias before it divides the scores by sqrt(d)
        bias = self.temporal_bias(distance.clamp(0, 2 * self.radius)) * width**-0.5  # (L, W, H)
        key = torch.arange(count, device=query.device)[:, None] * block + place  # (M, W), frames of the clip
        outside = ((distance < 0) | (distance > 2 * self.radius)) | ((key < 0) | (key >= frames))[:, None]  # (M, L, W)
        # the last block goes on past the clip's end: those rows are dropped, but an empty row would make nan
        outside = outside & (key[:, self.radius : self.radius + block, None] < frames)
        return bias.permute(2, 0, 1)[:, None].masked_fill(outside, float("-inf"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, T, D) -> the same shape."""
        frames = x.shape[2]
        if self.apart:  # softmax over one frame is 1
            return self.output_layer(self.linear_v(x))
        # (B, J, H, T, d) each
        q, k, v = (split_heads(linear(x), self.heads) for linear in (self.linear_q, self.linear_k, self.linear_v))
        bias = self._bias(frames, q.shape[-1]).to(q.dtype)  # (H, M, L, W)
        q, k = self.rope(q, -2), self.rope(k, -2)
        count, block = bias.shape[1:3]
        q = F.pad(q, (0, 0, 0, count * block - frames))  # (B, J, H, M L, d)
        q = q.unflatten(-2, (count, block)).flatten(0, 2)  # (B J H, M, L, d)
        k, v = (self._blocks(y, count, block) for y in (k, v))  # (B J H, M, W, d)
        bias = bias.expand(*x.shape[:2], -1, -1, -1, -1).flatten(0, 2)  # (B J H, M, L, W)
        out = attended(q, k, v, bias)  # (B J H, M, L, d)
        out = out.flatten(1, 2)[:, :frames].unflatten(0, (*x.shape[:2], self.heads))  # (B, J, H, T, d)
        return self.output_layer(merge_heads(out))  # (B, J, T, D)

    def _blocks(self, x: Tensor, count: int, block: int) -> Tensor:
        """(B, J, H, T, d) -> (B J H, M, W, d): the frames that each block attends to, overlapping views of one padded copy."""
        room = (0, 0, self.radius, count * block - x.shape[3] + self.radius)
        padded = F.pad(x.flatten(0, 2), room)  # (B J H, M L + 2 radius, d)
        if count == 1:
            return padded[:, None]
        row, frame, one = padded.stride()
        return padded.as_strided((len(padded), count, block + 2 * self.radius, x.shape[-1]), (row, block * frame, frame, one))


@contextmanager
def frames_apart(network: nn.Module, apart: bool = True) -> Iterator[None]:
    """Within it, no layer of the network relates a frame to another one: for training on pictures that do not follow each other."""
    layers = [module for module in network.modules() if hasattr(module, "apart")]
    for layer in layers:
        layer.apart = apart
    try:
        yield
    finally:
        for layer in layers:
            layer.apart = False


def feed_forward(dim: int, dropout: float) -> nn.Sequential:
    """Two linear layers with GELU between them, where the width is 4 D."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))


class TemporalBlock(nn.Module):
    """Temporal attention and feed-forward of each joint, each after a norm and added to its input."""

    def __init__(self, dim: int, heads: int, radius: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = TemporalAttention(dim, heads, radius)
        self.ffn = feed_forward(dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, J, D) -> the same shape."""
        x = x.transpose(1, 2)  # (B, J, T, D)
        x = x + self.attn(self.norm1(x))
        return (x + self.ffn(self.norm2(x))).transpose(1, 2)  # (B, T, J, D)


class Film(nn.Module):
    """FiLM: x (1 + 0.1 scale) + shift, where scale and shift are computed from a condition."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, J, D), condition (B, 1, J, D) -> as x."""
        scale, shift = self.to_scale_shift(condition).chunk(2, dim=-1)  # (B, 1, J, D) each
        return x * (1 + 0.1 * scale) + shift


class ReferenceAttention(nn.Module):
    """The frames of each joint attend to the features of the same joint in the N reference pairs."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_kv = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pairs: Tensor) -> Tensor:
        """x (B, T, J, D) to pairs (B, N, J, D) -> (B, T, J, D), or (B, 1, J, D) for one pair."""
        # nn.MultiheadAttention holds the weights; q, k and v lie below one another in in_proj
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        context = self.norm_kv(pairs)
        value = F.linear(context, weights[2], biases[2])  # (B, N, J, D)
        # softmax over one pair is 1 whatever the query, so all frames get that pair's value
        if pairs.shape[1] > 1:
            q = F.linear(self.norm_q(x), weights[0], biases[0])  # (B, T, J, D)
            k = F.linear(context, weights[1], biases[1])  # (B, N, J, D)
            # q (B, J, H, T, d), k and v (B, J, H, N, d)
            q, k, v = (split_heads(y.transpose(1, 2), self.heads) for y in (q, k, value))
            value = merge_heads(attention(q, k, v)).transpose(1, 2)  # (B, J, T, D) -> (B, T, J, D)
        return self.out_proj(self.attn.out_proj(value))


class GraphLayer(nn.Module):
    """Graph attention and feed-forward over the joints of a frame, each after a norm and added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.graph = GraphAttention(dim, heads)
        self.ffn = feed_forward(dim, dropout)

    def forward(self, x: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        """(B, T, J, D) -> the same shape."""
        x = x + self.graph(self.norm(x), graph, local)
        return x + self.ffn(self.ffn_norm(x))

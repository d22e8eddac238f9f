"""Attention blocks of video2pose2rot (docs/network.md, Attention blocks).

B rigs, T frames, J joints, S image tokens, D width, H heads, d = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..hardware.metal import attended, on_metal
from .inputs import SkeletonGraph

RELATIONS = 36  # 6 hop classes x 6 edge classes
BLOCK = 16  # frames that attend to their neighbours together


def exact(like: Tensor) -> torch.autocast:
    """Autocast switched off, for what half precision would spoil."""
    return torch.autocast(like.device.type, enabled=False)


class ExactLinear(nn.Linear):
    """Left out of autocast: for coordinates and rotations, whose rounding to half precision would be the largest error there is."""

    def forward(self, x: Tensor) -> Tensor:
        with exact(x):
            return super().forward(x.to(self.weight.dtype))


class ExactHead(nn.Sequential):
    """Left out of autocast, as ExactLinear is."""

    def forward(self, x: Tensor) -> Tensor:
        with exact(x):
            return super().forward(x.to(self[1].weight.dtype))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(..., N, D) -> (..., H, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def merge_heads(x: Tensor) -> Tensor:
    """(..., H, N, d) -> (..., N, D)."""
    return x.transpose(-2, -3).flatten(-2)


class Rope(nn.Module):
    """Rotary position embedding over frames: pairs are even and odd neighbours, theta 10000.

    The table is kept per dtype and device and grows by doubling; angles are computed in float64.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def _table(self, frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.dtype, like.device)
        table = self._tables.get(key)
        if table is None or len(table[0]) < frames:
            size = max(64, 1 << (frames - 1).bit_length())
            with torch.inference_mode(False):  # a table made while measuring must serve training too
                octave = torch.arange(0, self.width, 2, dtype=torch.float64) / self.width
                angle = torch.arange(size, dtype=torch.float64)[:, None] * 10000.0**-octave
                # narrowed before it moves: Metal has no float64
                cos, sin = (part.to(like.dtype).to(like.device) for part in (angle.cos(), angle.sin()))
                table = (cos, sin)
            self._tables[key] = table
        return table[0][:frames], table[1][:frames]

    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Turn (..., d) by the frame index along axis `dim` (negative)."""
        cos, sin = self._table(x.shape[dim], x)
        shape = [x.shape[dim]] + [1] * (-dim - 2) + [self.width // 2]
        cos, sin = cos.view(shape), sin.view(shape)
        plain = x.dtype in (torch.float32, torch.float64) and not torch.is_grad_enabled() and not on_metal(x)
        if plain:  # one pass instead of seven
            pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.complex(cos, sin)
            return torch.view_as_real(pairs).flatten(-2)
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class GraphAttention(nn.Module):
    """GL-GMHA: attention over the joints of a frame, biased by their graph relation."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q, self.linear_k, self.linear_v, self.output_layer = (nn.Linear(dim, dim) for _ in range(4))
        self.topology_query_emb, self.topology_key_emb = nn.Embedding(6, dim), nn.Embedding(6, dim)
        self.edge_query_emb, self.edge_key_emb = nn.Embedding(6, dim), nn.Embedding(6, dim)

    def _table(self, hop: nn.Embedding, edge: nn.Embedding) -> Tensor:
        """(H, d, 36): hop and edge embeddings added for each of the 36 relations."""
        both = hop.weight[:, None] + edge.weight[None]
        return both.reshape(RELATIONS, self.heads, -1).permute(1, 2, 0)

    def forward(self, x: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        """(B, T, J, D) -> the same shape."""
        q, k, v = (split_heads(linear(x), self.heads) for linear in (self.linear_q, self.linear_k, self.linear_v))
        # relation terms of every row for each of the 36 relations, then one gather: (B, T, H, J, 36) -> (B, T, H, J, J)
        terms = q @ self._table(self.topology_query_emb, self.edge_query_emb)
        terms = terms + k @ self._table(self.topology_key_emb, self.edge_key_emb)
        bias = terms.gather(-1, graph.relation[:, None, None].expand(*terms.shape[:-1], -1)) * q.shape[-1] ** -0.5
        bias = bias.masked_fill(~graph.visible(local)[:, None, None], float("-inf"))
        out = attention(q, k, v, bias)
        return self.output_layer(merge_heads(out))


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """`attended` over (B, T, H, N, d), flattened to the four axes its kernels take."""
    q4, k4, v4 = (x.flatten(0, 1) for x in (q, k, v))
    return attended(q4, k4, v4, None if mask is None else mask.flatten(0, 1).to(q.dtype)).unflatten(0, q.shape[:2])


class PlainAttention(nn.Module):
    """Attention without biases, from joints to joints or to image tokens of neighbouring frames."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(dim, dim, bias=False) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, T, J, D), context (B, T, N, D), mask (B, N) bool of the columns that exist -> (B, T, J, D)."""
        q, k, v = (split_heads(y, self.heads) for y in (self.to_q(x), self.to_k(context), self.to_v(context)))
        bias = None
        if mask is not None:
            bias = q.new_zeros(mask.shape).masked_fill(~mask, float("-inf"))[:, None, None, None]
            bias = bias.expand(*q.shape[:-1], mask.shape[-1])
        return self.to_out(merge_heads(attention(q, k, v, bias)))

    def over_frames(self, x: Tensor, tokens: Tensor, radius: int, rope: Rope) -> Tensor:
        """x (B, T, J, D) to the tokens (B, T, S, D) of frames t - radius .. t + radius, RoPE over the frame index.

        Frames outside the clip are zero keys and zero values that take softmax weight. Windows are overlapping views of
        one padded copy of the keys: nothing is materialised. Tokens (1, T, S, D) are all rigs' own: their keys and values are
        made once, and the joints of all rigs attend as if they were one rig's.
        """
        rigs = len(x)
        if len(tokens) < rigs:
            x = x.transpose(0, 1).flatten(1, 2)[None]  # (1, T, B J, D)
            return self.over_frames(x, tokens, radius, rope)[0].unflatten(1, (rigs, -1)).transpose(0, 1)
        q = split_heads(self.to_q(x), self.heads)  # (B, T, H, J, d)
        k, v = split_heads(self.to_k(tokens), self.heads), split_heads(self.to_v(tokens), self.heads)
        if radius == 0:  # within one frame the turns of q and k cancel
            return self.to_out(merge_heads(attention(q, k, v)))
        q, k = rope(q, -4), rope(k, -4)
        keys, values = (_frame_windows(y, radius) for y in (k, v))
        out = torch.stack([attended(*rig) for rig in zip(q, keys, values, strict=True)])
        return self.to_out(merge_heads(out))


def _frame_windows(x: Tensor, radius: int) -> Tensor:
    """(B, T, H, S, d) -> (B, T, H, (2 radius + 1) S, d), a view of the zero-padded (B, H, T + 2 radius, S, d)."""
    batch, frames, heads, tokens, width = x.shape
    padded = x.new_empty(batch, heads, frames + 2 * radius, tokens, width)
    padded[:, :, :radius] = padded[:, :, frames + radius :] = 0
    padded[:, :, radius : frames + radius] = x.transpose(1, 2)
    rig, head, frame, token, one = padded.stride()
    shape = (batch, frames, heads, (2 * radius + 1) * tokens, width)
    return padded.as_strided(shape, (rig, frame, head, token, one))


class TemporalAttention(nn.Module):
    """One joint over its own frames within +-radius, with a learned bias per head and time difference."""

    def __init__(self, dim: int, heads: int, radius: int) -> None:
        super().__init__()
        self.heads, self.radius = heads, radius
        self.linear_q, self.linear_k, self.linear_v, self.output_layer = (nn.Linear(dim, dim) for _ in range(4))
        self.temporal_bias = nn.Embedding(2 * radius + 1, heads)
        self.rope = Rope(dim // heads)

    def _bias(self, frames: int, width: int) -> Tensor:
        """(H, K, N, N + 2 radius) for K blocks of N frames and the frames around each: the table at row (query - key) + radius,
        -inf beyond the radius and outside the clip; scaled like the scores."""
        # without blocks while training: clips are short there, and overlapping views are slow to go back through
        block = frames if torch.is_grad_enabled() else min(BLOCK, frames)
        count = -(-frames // block)
        query = torch.arange(block, device=self.temporal_bias.weight.device)[:, None]
        place = torch.arange(block + 2 * self.radius, device=query.device) - self.radius  # from the block's first frame on
        distance = query - place + self.radius
        bias = self.temporal_bias(distance.clamp(0, 2 * self.radius)) * width**-0.5  # (N, N + 2 radius, H)
        key = torch.arange(count, device=query.device)[:, None] * block + place  # (K, N + 2 radius)
        outside = ((distance < 0) | (distance > 2 * self.radius)) | ((key < 0) | (key >= frames))[:, None]
        # rows past the clip's end, which nobody reads, see everything so that they are not empty
        outside = outside & (key[:, self.radius : self.radius + block, None] < frames)
        return bias.permute(2, 0, 1)[:, None].masked_fill(outside, float("-inf"))

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, T, D) -> the same shape. Frames attend in blocks, each to itself and the frames around it."""
        q, k, v = (split_heads(linear(x), self.heads) for linear in (self.linear_q, self.linear_k, self.linear_v))
        bias = self._bias(x.shape[2], q.shape[-1]).to(q.dtype)  # (H, K, N, M)
        q, k = self.rope(q, -2), self.rope(k, -2)
        count, block = bias.shape[1:3]
        q = F.pad(q, (0, 0, 0, count * block - x.shape[2])).unflatten(-2, (count, block)).flatten(0, 2)  # (B J H, K, N, d)
        k, v = (self._around(y, count, block) for y in (k, v))
        bias = bias.expand(*x.shape[:2], -1, -1, -1, -1).flatten(0, 2)
        out = attended(q, k, v, bias)
        out = out.flatten(1, 2)[:, : x.shape[2]].unflatten(0, (*x.shape[:2], self.heads))
        return self.output_layer(merge_heads(out))

    def _around(self, x: Tensor, count: int, block: int) -> Tensor:
        """(B, J, H, T, d) -> (B J H, K, N + 2 radius, d): every block with the frames around it, a view of one padded copy."""
        padded = F.pad(x.flatten(0, 2), (0, 0, self.radius, count * block - x.shape[3] + self.radius))
        if count == 1:
            return padded[:, None]
        row, frame, one = padded.stride()
        return padded.as_strided((len(padded), count, block + 2 * self.radius, x.shape[-1]), (row, block * frame, frame, one))


def feed_forward(dim: int, dropout: float) -> nn.Sequential:
    """GELU, four times as wide inside."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim))


class TemporalBlock(nn.Module):
    """Pre-norm temporal attention and feed-forward, per joint."""

    def __init__(self, dim: int, heads: int, radius: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = TemporalAttention(dim, heads, radius)
        self.ffn = feed_forward(dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, J, D) -> the same shape."""
        x = x.transpose(1, 2)
        x = x + self.attn(self.norm1(x))
        return (x + self.ffn(self.norm2(x))).transpose(1, 2)


class Film(nn.Module):
    """x (1 + 0.1 scale) + shift, both from a condition."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_scale_shift = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, J, D), condition (B, 1, J, D) -> as x."""
        scale, shift = self.to_scale_shift(condition).chunk(2, dim=-1)
        return x * (1 + 0.1 * scale) + shift


class ReferenceAttention(nn.Module):
    """Per joint, its frames attend to that joint's N reference pairs."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_q, self.norm_kv = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, pairs: Tensor) -> Tensor:
        """x (B, T, J, D), pairs (B, N, J, D) -> (B, T or 1, J, D); with one pair the query does not matter."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        context = self.norm_kv(pairs)
        value = F.linear(context, weights[2], biases[2])
        if pairs.shape[1] > 1:
            q = F.linear(self.norm_q(x), weights[0], biases[0])
            k = F.linear(context, weights[1], biases[1])
            # (B, T, J, D) -> (B, J, H, T, d): a joint's frames against the same joint's pairs
            q, k, v = (split_heads(y.transpose(1, 2), self.heads) for y in (q, k, value))
            value = merge_heads(attention(q, k, v)).transpose(1, 2)
        return self.out_proj(self.attn.out_proj(value))


class GraphLayer(nn.Module):
    """Pre-norm graph attention and feed-forward, over the joints of a frame."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.graph = GraphAttention(dim, heads)
        self.ffn = feed_forward(dim, dropout)

    def forward(self, x: Tensor, graph: SkeletonGraph, local: bool) -> Tensor:
        x = x + self.graph(self.norm(x), graph, local)
        return x + self.ffn(self.ffn_norm(x))

"""The encoder of T5 (Raffel et al. 2020). It turns joint names into vectors for the released weights.

Parameters are named as in t5-base's safetensors. B names, L tokens, D width, H heads of width d.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError

MAX_DISTANCE = 128
TABLE = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
# older files store shared.weight a second time under COPIES; DECODER begins the decoder's own keys
COPIES = ("encoder.embed_tokens.weight",)
DECODER = ("decoder.", "lm_head.")


@dataclass(frozen=True)
class T5Config:
    """words: size of the vocabulary. hidden: width inside the feed-forward layers. buckets: of distances between tokens."""

    words: int = 32128
    width: int = 768
    layers: int = 12
    heads: int = 12
    head_width: int = 64
    hidden: int = 3072
    buckets: int = 32


class RmsNorm(nn.Module):
    """x / sqrt(mean x^2) times a weight: a layer norm without mean and bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class SelfAttention(nn.Module):
    """Attention without biases and without 1 / sqrt(d). The first block's holds the table of distances for all blocks."""

    def __init__(self, config: T5Config, table: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads, self.buckets = config.heads, config.buckets
        self.q, self.k, self.v = (nn.Linear(config.width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.width, bias=False)
        if table:
            self.relative_attention_bias = nn.Embedding(config.buckets, config.heads)

    def distances(self, length: int) -> Tensor:
        """(1, H, L, L): the learned bias of each pair of places."""
        place = torch.arange(length, device=self.q.weight.device)
        bucket = buckets(place[None] - place[:, None], self.buckets)
        return self.relative_attention_bias(bucket).permute(2, 0, 1)[None]

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(mixed.transpose(1, 2).flatten(-2))


def buckets(offset: Tensor, count: int) -> Tensor:
    """Key place minus query place (any shape, int) -> its bucket, 0 to count - 1.

    Half of the buckets are for keys after the query. In each half, one half are single distances, the others wider and wider
    ranges up to MAX_DISTANCE.
    """
    half = count // 2
    near = half // 2
    distance = offset.abs()
    spread = torch.log(distance.clamp(min=1).float() / near) / math.log(MAX_DISTANCE / near) * (half - near)
    far = (near + spread.long()).clamp(max=half - 1)
    return torch.where(distance < near, distance, far) + half * (offset > 0)


class AttentionLayer(nn.Module):
    """Pre-norm attention over (B, L, D) with the biases (B, H, L, L)."""

    def __init__(self, config: T5Config, table: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, table)
        self.layer_norm = RmsNorm(config.width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class FeedForwardLayer(nn.Module):
    """Pre-norm feed-forward, (B, L, D) -> the same shape."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        parts = {
            "wi": nn.Linear(config.width, config.hidden, bias=False),
            "wo": nn.Linear(config.hidden, config.width, bias=False),
        }
        self.DenseReluDense = nn.ModuleDict(parts)
        self.layer_norm = RmsNorm(config.width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense["wo"](F.relu(self.DenseReluDense["wi"](self.layer_norm(x))))


class Block(nn.Module):
    """Attention and feed-forward, named as in the file."""

    def __init__(self, config: T5Config, table: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, table), FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class T5Encoder(nn.Module):
    """Token ids (B, L) int and their mask (B, L) bool -> (B, L, D). Every row needs at least one token."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.words, config.width)
        parts = {
            "block": nn.ModuleList(Block(config, table=index == 0) for index in range(config.layers)),
            "final_layer_norm": RmsNorm(config.width),
        }
        self.encoder = nn.ModuleDict(parts)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.shared(ids)
        blocks = self.encoder["block"]
        bias = blocks[0].layer[0].SelfAttention.distances(ids.shape[1])  # type: ignore[index]
        bias = bias.masked_fill(~mask[:, None, None], float("-inf"))  # (B, H, L, L)
        for block in blocks:  # type: ignore[union-attr]
            x = block(x, bias)
        return self.encoder["final_layer_norm"](x)

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, but the mean over each name's tokens: (B, D)."""
        tokens = self(ids, mask) * mask[..., None]
        return tokens.sum(1) / mask.sum(1, keepdim=True)


def parameters_to_keep(keys: Iterable[str]) -> dict[str, str]:
    """-> the file's keys that belong to the encoder, and our names for them. Leaves out the decoder and a second word table."""
    keys = list(keys)
    table = "shared.weight" if "shared.weight" in keys else COPIES[0]
    found = [key for key in keys if not key.startswith(DECODER) and (key not in COPIES or key == table)]
    return {key: "shared.weight" if key == table else key for key in found}


def config_of(shapes: Mapping[str, tuple[int, ...]], source: str) -> T5Config:
    """Infer the sizes from the shapes of our keys. Raises UserError if they are not a T5 encoder's."""
    try:
        words, width = shapes["shared.weight"]
        count, heads = shapes[TABLE]
        inner = shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0]
        hidden = shapes["encoder.block.0.layer.1.DenseReluDense.wi.weight"][0]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{source}' is not a T5 encoder of the first version ({error}): get model.safetensors of t5-base."
        ) from error
    layers = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("encoder.block."))
    return T5Config(words, width, layers, heads, inner // heads, hidden, count)

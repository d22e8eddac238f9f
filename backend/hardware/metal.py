"""Works around faults of PyTorch on Apple's graphics processors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def on_metal(x: Tensor) -> bool:
    """Whether it lies on Apple's graphics processor, whose kernels have taken views for what they are not."""
    return x.device.type == "mps"


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """scaled_dot_product_attention over (B, H, N, d). On Metal of copies: there heads that are views of wider rows have come out
    wrong, without a word (pytorch issues 163597 and 181133)."""
    if on_metal(q):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        mask = None if mask is None else mask.contiguous()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def layout_of(device: torch.device) -> torch.memory_format:
    """How images and the weights of convolutions lie in memory. Metal's convolution reads weights as if they lay in the order of
    their axes, however they do (pytorch issue 192212); elsewhere channels last is faster."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last

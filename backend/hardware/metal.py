"""Workarounds for faults of PyTorch on Apple's graphics processors (Metal)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def on_metal(x: Tensor) -> bool:
    """Whether x is on Apple's graphics processor, where some kernels misread views."""
    return x.device.type == "mps"


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """scaled_dot_product_attention over q (B, H, n, d), k and v (B, H, m, d); mask is added to the scores."""
    # Metal silently computes wrong results for heads that are views of wider rows (pytorch issues 163597 and 181133)
    if on_metal(q):
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        mask = None if mask is None else mask.contiguous()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def layout_of(device: torch.device) -> torch.memory_format:
    """The memory format for images and weights of convolutions: channels last, which is faster, except on Metal.

    Metal's convolution reads weights in the order of their axes, whatever their format is (pytorch issue 192212).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last

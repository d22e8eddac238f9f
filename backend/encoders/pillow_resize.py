"""Pillow's 8-bit bicubic resizing, number for number, without Pillow: published encoders were trained on images made by it.

After Pillow's src/libImaging/Resample.c: fixed-point weights of 22 bits, columns first, rounded to 8 bits in between.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from ..geometry.rotations import Array
from .crops import Image

PRECISION = 22  # bits; a sum of 255 times weights that add up to one stays within 32
SUPPORT = 2.0


def resize(image: Image, width: int, height: int) -> Image:
    """(H, W, C) uint8 -> (height, width, C) uint8. Equal to `Image.resize((width, height), Image.BICUBIC)`."""
    across = _pass(image.transpose(1, 0, 2), width)  # (width, H, C)
    return _pass(across.transpose(1, 0, 2), height)


def shorter_side(image: Image, size: int) -> Image:
    """Resize so that the shorter side is `size`; the longer one is cut to whole pixels, as transformers does."""
    height, width = image.shape[:2]
    short = min(height, width)
    return resize(image, int(size * width / short), int(size * height / short))


def centre_crop(image: Image, size: int) -> Image:
    """The middle (size, size) of an image at least as large."""
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def _pass(image: Image, size: int) -> Image:
    """Resample the first axis of (N, M, C) to `size`."""
    if len(image) == size:
        return image
    flat = np.ascontiguousarray(image).reshape(len(image), -1).astype(np.int32)
    total = (_weights(len(image), size) @ flat) + (1 << (PRECISION - 1))
    return np.clip(total >> PRECISION, 0, 255).astype(np.uint8).reshape(size, *image.shape[1:])


def _weights(length: int, size: int) -> scipy.sparse.csr_matrix:
    """(size, length) int32 weights in units of 2^-22."""
    scale = length / size
    stretch = max(scale, 1.0)  # antialiasing: when shrinking, the kernel grows with the output's pixels
    support = SUPPORT * stretch
    centres = (np.arange(size) + 0.5) * scale
    first = np.maximum((centres - support + 0.5).astype(int), 0)
    last = np.minimum((centres + support + 0.5).astype(int), length)
    pixels = first[:, None] + np.arange(int((last - first).max()))
    inside = pixels < last[:, None]
    values = np.where(inside, _cubic((pixels - centres[:, None] + 0.5) * (1.0 / stretch)), 0.0)
    values /= values.sum(axis=1, keepdims=True)
    fixed = np.trunc(values * (1 << PRECISION) + np.where(values < 0, -0.5, 0.5)).astype(np.int32)
    rows = np.broadcast_to(np.arange(size)[:, None], pixels.shape)
    return scipy.sparse.csr_matrix((fixed[inside], (rows[inside], pixels[inside])), shape=(size, length))


def _cubic(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5, in Pillow's order of operations."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))

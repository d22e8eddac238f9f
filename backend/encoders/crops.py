"""Cuts square crops of the subject out of images, on white, for the image encoders.

Pixels are continuous: x right, y down, the first pixel covers [0, 1] and has its centre at 0.5 (as in camera.py).
Crop coordinates run over [-1, 1] from edge to edge of the crop, x right, y down.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from ..arrays import Array, Image

SIZE = 224
PADDING = 0.1  # of the box's longer side, on both ends
STEADY = 8  # frames to either side within which the crop keeps its size


# Crops


def crop_box(box: Array, side: float | None = None) -> Array:
    """Boxes (..., 4) as x0 y0 x1 y1 in pixels -> squares (..., 4) with the same centre (docs/network.md, Image features).

    The longer side is padded by 10 % on both ends. With `side` (pixels) every square has that side, so that the scale stays the
    same over a clip; `crop_side` gives a side that fits every box.
    """
    box = np.asarray(box, dtype=np.float64)
    centre = (box[..., :2] + box[..., 2:]) / 2
    longer = (box[..., 2:] - box[..., :2]).max(axis=-1, keepdims=True)
    half = np.maximum(longer * (1 + 2 * PADDING), 1.0) / 2 if side is None else side / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def crop_side(boxes: Array) -> float:
    """The side in pixels of the largest square that `crop_box` makes of boxes (T, 4)."""
    squares = crop_box(boxes)
    return float((squares[..., 2] - squares[..., 0]).max())


def clip_squares(boxes: Array) -> Array:
    """Boxes (T, 4) -> the squares (T, 4) to cut out, around each box. Their size changes slowly, so that the scale is steady."""
    squares = crop_box(boxes)
    side = maximum_filter1d(squares[:, 2] - squares[:, 0], 2 * STEADY + 1, mode="nearest")
    side = uniform_filter1d(side, STEADY + 1, mode="nearest")
    return np.stack([crop_box(box, length) for box, length in zip(boxes, side, strict=True)])


def to_crop(square: Array, pixels: Array) -> Array:
    """Pixels (..., 2) of the image -> coordinates (..., 2) in the crop made with squares (..., 4); the two broadcast."""
    square = np.asarray(square, dtype=np.float64)
    return (np.asarray(pixels) - square[..., :2]) / (square[..., 2:] - square[..., :2]) * 2 - 1


def crop(image: Image, matte: Image, square: Array, size: int = SIZE) -> Image:
    """Cut `square` (4,) out of an image (H, W, 3) uint8 RGB with its matte (H, W) uint8 -> (size, size, 3) uint8 on white.

    Resamples with an antialiased bicubic kernel at the square's exact fractional position. White outside the image.
    """
    x0, y0, x1, y1 = (float(edge) for edge in square)
    # The difference from white is zero in the background and outside the image, so only the matte's box counts.
    left, top, width, height = cv2.boundingRect(matte)
    columns, across = resampling(x0, x1, (left, left + width), size)
    rows, down = resampling(y0, y1, (top, top + height), size)
    ink = _ink(image[rows, columns], matte[rows, columns])
    height, _, width = ink.shape
    ink = (down @ ink.reshape(height, 3 * width)).reshape(size, 3, width)
    ink = (across @ ink.transpose(2, 0, 1).reshape(width, size * 3)).reshape(size, size, 3).transpose(1, 0, 2)
    return np.clip(np.rint(ink + 255), 0, 255).astype(np.uint8)


def _ink(image: Image, matte: Image) -> NDArray[np.float32]:
    """(H, W, 3) and (H, W) -> (H, 3, W): the difference from white, times the matte. One colour at a time is faster."""
    cover = np.multiply(matte, np.float32(1 / 255), dtype=np.float32)
    ink = np.empty((image.shape[0], 3, image.shape[1]), np.float32)
    for colour, plane in enumerate(cv2.split(image)):
        np.subtract(plane, np.float32(255), out=ink[:, colour], dtype=np.float32)
        ink[:, colour] *= cover
    return ink


def composite(colours: Any, alpha: Any, below: Any) -> Any:
    """Straight colours (..., 3) with alpha (..., 1), 0..1, over an image or one colour: numpy arrays or tensors alike."""
    return colours * alpha + below * (1 - alpha)


def composite_rgba(image: Image, below: ArrayLike, opacity: float = 1.0) -> Image:
    """(..., 4) uint8 RGBA with straight alpha over an image (..., 3), one colour (3,) or one grey, 0..255 -> (..., 3) uint8."""
    alpha = image[..., 3:].astype(np.float32) / 255 * opacity
    return np.rint(composite(image[..., :3], alpha, np.asarray(below, np.float32))).astype(np.uint8)


def resampling(start: float, end: float, bounds: tuple[int, int], size: int) -> tuple[slice, scipy.sparse.csr_matrix]:
    """-> the pixels of an axis, within `bounds`, for resampling [start, end] to `size`, and their weights (size, pixels)."""
    step = (end - start) / size
    width = max(step, 1.0)  # antialiasing: when shrinking, the kernel grows with the output's pixels
    centres = start + (np.arange(size) + 0.5) * step
    first = np.floor(centres - 2 * width).astype(int)
    pixels = first[:, None] + np.arange(int(np.ceil(4 * width)) + 2)
    weights = _cubic((pixels + 0.5 - centres[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    low = min(max(int(pixels.min()), bounds[0]), bounds[1])
    high = max(min(int(pixels.max()) + 1, bounds[1]), low)
    inside = (pixels >= low) & (pixels < high) & (weights != 0)
    rows = np.broadcast_to(np.arange(size)[:, None], pixels.shape)[inside]
    entries = (weights[inside].astype(np.float32), (rows, pixels[inside] - low))
    return slice(low, high), scipy.sparse.csr_matrix(entries, shape=(size, high - low))


def _cubic(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))

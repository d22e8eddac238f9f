"""A small network that cuts the subject out where colours alone cannot: from the image, what is behind it and a rough matte.

A U-Net (Ronneberger et al. 2015) of 0.4 million parameters, trained on videos of `anyrig render` (train/cutting.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ..arrays import Array, Pixels
from ..errors import UserError
from .matte import mask_box

SIDE = 192  # pixels of the square that the network sees
PAD = 0.2  # of the longer side of what is to be cut out, beyond it on all four sides
ROUGH = 96  # of 255: cover from which a rough matte counts
WIDTHS = (24, 40, 64, 96)
CHANNELS = 8  # the image, what is behind it (RGB each), rough matte, shadow
FILE = Path(__file__).parents[1] / "data" / "cutout.safetensors"

Square = tuple[float, float, float]  # left, top and side in pixels; the first pixel covers [0, 1]


class Cutout(nn.Module):
    """(B, CHANNELS, H, W) in 0..1 -> logits (B, H, W) of the subject's cover; H and W are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (CHANNELS, *WIDTHS[:-1])
        pairs = zip(inputs, WIDTHS, strict=True)
        self.down = nn.ModuleList(nn.Sequential(_convolution(a, b, 2), _convolution(b, b)) for a, b in pairs)
        self.middle = _convolution(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(_convolution(a + b, b) for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        # the four outputs of a place at half the size are its pixels at the whole size
        self.out = nn.Conv2d(WIDTHS[0], 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for step in self.down:
            x = step(x)
            skips.append(x)
        x = self.middle(skips.pop())
        for step in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = step(torch.cat([x, skips.pop()], dim=1))
        return F.pixel_shuffle(self.out(x), 2)[:, 0]


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def load_cutout(path: Path = FILE) -> Cutout:
    """The network of a file that train.cutting writes, on the CPU. Raises UserError if it is none."""
    network = Cutout()
    try:
        with safe_open(path, "pt") as file:
            state: Mapping[str, Tensor] = {key: file.get_tensor(key).float() for key in file.keys()}
        network.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: other layers
        problem = "its layers are others" if isinstance(error, RuntimeError) else str(error)
        raise UserError(
            f"'{path}' is not a network that cuts subjects out ({problem}): give a file of the command cutout, or reinstall AnyRig."
        ) from error
    return network.to(memory_format=torch.channels_last).eval()


def square_around(rough: Pixels, dark: Pixels) -> Square | None:
    """What the network is to look at, for a rough matte (H, W) uint8 and shadows (H, W) bool: legs may pass for shadows."""
    box = mask_box((rough >= ROUGH) | dark)
    if box is None or not (rough >= ROUGH).any():
        return None
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * PAD)
    return (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side


def network_inputs(image: Pixels, behind: Pixels, rough: Pixels, dark: Pixels, square: Square) -> NDArray[np.float32]:
    """(CHANNELS, SIDE, SIDE): the image and what is behind it, (H, W, 3) uint8 RGB, rough matte and shadow, cut out."""
    cover = np.dstack([rough, dark.astype(np.uint8) * 255])
    # beyond the image colours go on, but there is no subject
    parts = [cut(image, square, cv2.BORDER_REPLICATE), cut(behind, square, cv2.BORDER_REPLICATE), cut(cover, square)]
    return np.concatenate(parts, axis=2).transpose(2, 0, 1) * np.float32(1 / 255)


def cut(image: Pixels, square: Square, border: int = cv2.BORDER_CONSTANT) -> NDArray[np.float32]:
    """(H, W, C) uint8 -> the square (SIDE, SIDE, C), 0..255.

    A pixel's centre p of the image comes to p' + 0.5 = (p + 0.5 - corner) zoom, with zoom = SIDE / side.
    """
    left, top, side = square
    if side > 1.3 * SIDE:  # each pixel of the cut-out stands for several
        size = tuple(max(1, round(length * SIDE / side)) for length in image.shape[1::-1])
        across, down = size[0] / image.shape[1], size[1] / image.shape[0]
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        motion = _affine_map(left * across, top * down, SIDE / (side * across), SIDE / (side * down))
    else:
        motion = _affine_map(left, top, SIDE / side, SIDE / side)
    return cv2.warpAffine(image, motion, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=border).astype(np.float32)


def _affine_map(left: float, top: float, across: float, down: float) -> Array:
    return np.array([[across, 0.0, (0.5 - left) * across - 0.5], [0.0, down, (0.5 - top) * down - 0.5]])


@torch.inference_mode()
def cut_out(network: Cutout, image: Pixels, behind: Pixels, rough: Pixels, dark: Pixels) -> Pixels:
    """An image and what is behind its subject (H, W, 3) uint8 RGB, a rough matte (H, W) uint8 and shadows (H, W) bool -> a better matte.

    Beyond the surroundings of the rough one it is empty.
    """
    square = square_around(rough, dark)
    if square is None:
        return rough
    x = torch.from_numpy(network_inputs(image, behind, rough, dark, square))[None].contiguous(memory_format=torch.channels_last)
    cover = (network(x)[0].sigmoid() * 255).numpy()
    left, top, side = square
    back = cv2.invertAffineTransform(_affine_map(left, top, SIDE / side, SIDE / side))
    return np.rint(cv2.warpAffine(cover, back, rough.shape[::-1], flags=cv2.INTER_LINEAR)).astype(np.uint8)

"""A small network that refines a rough matte, where colours alone do not separate the subject from the background.

A U-Net (Ronneberger et al. 2015) of 0.4 million parameters, trained on rendered clips (train/cutout/train_cutout.py).
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
PAD = 0.2  # margin on all four sides, as a share of the longer side of the rough matte
ROUGH = 96  # of 255: threshold of a rough matte
WIDTHS = (24, 40, 64, 96)
CHANNELS = 8  # image and background (RGB each), rough matte, shadow
FILE = Path(__file__).parents[1] / "data" / "cutout.safetensors"

Square = tuple[float, float, float]  # left, top and side in pixels; the first pixel covers [0, 1]


class Cutout(nn.Module):
    """(B, CHANNELS, H, W) in 0..1 -> logits (B, H, W) of the matte; H and W are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (CHANNELS, *WIDTHS[:-1])
        pairs = zip(inputs, WIDTHS, strict=True)
        self.down = nn.ModuleList(nn.Sequential(_convolution(a, b, 2), _convolution(b, b)) for a, b in pairs)
        self.middle = _convolution(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(_convolution(a + b, b) for a, b in zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        # four outputs per place at half the size are four pixels at the whole size
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
    """Load the network from a file of the command `cutout`, on the CPU. Raises UserError if it is another file."""
    network = Cutout()
    try:
        with safe_open(path, "pt") as file:
            state: Mapping[str, Tensor] = {key: file.get_tensor(key).float() for key in file.keys()}
        network.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: other layers
        problem = "it has other layers" if isinstance(error, RuntimeError) else str(error)
        raise UserError(
            f"'{path}' is not a network that cuts subjects out ({problem}): give a file of the command cutout, or reinstall AnyRig."
        ) from error
    return network.to(memory_format=torch.channels_last).eval()


def square_around(rough: Pixels, dark: Pixels) -> Square | None:
    """The square that the network sees, around a rough matte (H, W) uint8 and shadows (H, W) bool, which may be legs; or None."""
    box = mask_box((rough >= ROUGH) | dark)
    if box is None or not (rough >= ROUGH).any():
        return None
    side = max(box[2] - box[0], box[3] - box[1]) * (1 + 2 * PAD)
    return (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2, side


def network_inputs(image: Pixels, behind: Pixels, rough: Pixels, dark: Pixels, square: Square) -> NDArray[np.float32]:
    """Cut image and background (H, W, 3) uint8 RGB, rough matte and shadow (H, W) at the square -> (CHANNELS, SIDE, SIDE)."""
    cover = np.dstack([rough, dark.astype(np.uint8) * 255])
    # outside the image, colours continue but there is no subject
    parts = [cut(image, square, cv2.BORDER_REPLICATE), cut(behind, square, cv2.BORDER_REPLICATE), cut(cover, square)]
    return np.concatenate(parts, axis=2).transpose(2, 0, 1) * np.float32(1 / 255)


def cut(image: Pixels, square: Square, border: int = cv2.BORDER_CONSTANT) -> NDArray[np.float32]:
    """Cut the square out of (H, W, C) uint8 -> (SIDE, SIDE, C), 0..255.

    Pixel p of the image becomes p' with p' + 0.5 = (p + 0.5 - corner) zoom, where zoom = SIDE / side: centres lie at +0.5.
    """
    left, top, side = square
    if side > 1.3 * SIDE:  # each pixel of the result is the mean of several
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
    """Refine the rough matte (H, W) uint8 of an image. image, behind: (H, W, 3) uint8 RGB, with and without the subject.

    dark: (H, W) bool, shadows. The new matte (H, W) uint8 is empty outside the surroundings of the rough one.
    """
    square = square_around(rough, dark)
    if square is None:
        return rough
    x = torch.from_numpy(network_inputs(image, behind, rough, dark, square))[None].contiguous(memory_format=torch.channels_last)
    cover = (network(x)[0].sigmoid() * 255).numpy()
    left, top, side = square
    back = cv2.invertAffineTransform(_affine_map(left, top, SIDE / side, SIDE / side))
    return np.rint(cv2.warpAffine(cover, back, rough.shape[::-1], flags=cv2.INTER_LINEAR)).astype(np.uint8)

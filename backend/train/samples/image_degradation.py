"""Degrades images as cameras and mattes do: softness, noise, occlusion, missing limbs, halos, clutter.

All functions take and return the images (T, H, W, 4) of one window, 0..1, straight alpha. All choices come from the given generator.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Fault = Callable[[Tensor, np.random.Generator], Tensor]


def degrade(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Degrade a window at random and put it on white: (T, H, W, 4) -> (T, H, W, 3) uint8."""
    for share, fault in FAULTS:
        if rng.random() < share:
            rgba = fault(rgba, rng)
    image = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    if rng.random() < 0.7:
        image = blur(image, rng)
    if rng.random() < 0.5:
        noise = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.03), image.shape).astype(np.float32)).to(image.device)
        image = image + noise * (rgba[..., 3:] > 0)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def blur(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Blur (T, H, W, 3) by a kernel of three pixels, or, less often, by enlarging a smaller image."""
    planes = image.movedim(-1, 1)
    if rng.random() < 0.2:
        size = int(planes.shape[-1] * rng.uniform(0.25, 0.7))
        small = F.interpolate(planes, size=(size, size), mode="area")
        return F.interpolate(small, size=planes.shape[-2:], mode="bilinear", align_corners=False).movedim(1, -1)
    tap = torch.tensor([1.0, rng.uniform(0.8, 6), 1.0], device=image.device)
    tap = (tap / tap.sum()).expand(3, 1, 3)
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(F.conv2d(padded, tap[:, :, None], groups=3), tap[..., None], groups=3).movedim(1, -1)


def occlude(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Let a bar or a disc pass in front of the subject. The matte does not contain it."""
    frames, height, width = rgba.shape[:3]
    start, speed = rng.uniform(0.15, 0.85, 2), rng.normal(0, 0.03, 2)
    place = start + speed * np.arange(frames)[:, None]
    radius = rng.uniform(0.05, 0.14, 2)
    if rng.random() < 0.5:
        radius[int(rng.integers(2))] = 2.0  # a post, or a wall
    y, x = _distances_from(rgba, place)
    hidden = (x / radius[0]).abs().pow(4) + (y / radius[1]).abs().pow(4) < 1
    return _with_alpha(rgba, rgba[..., 3] * ~hidden)


def drop_matte(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Remove a part of the subject from the matte, for a few frames in a row."""
    frames = len(rgba)
    shown = (rgba[..., 3].amax(0) > 0.5).nonzero()
    if not len(shown):
        return rgba
    centre = shown[int(rng.integers(len(shown)))].cpu().numpy() / np.array(rgba.shape[1:3])
    first = int(rng.integers(frames))
    y, x = _distances_from(rgba, np.repeat(centre[None, ::-1], frames, 0))
    lost = (x.square() + y.square()).sqrt() < rng.uniform(0.04, 0.12)
    lost[:first] = False
    lost[first + 1 + int(rng.integers(frames)) :] = False
    return _with_alpha(rgba, rgba[..., 3] * ~lost)


def add_halo(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Make the matte too wide, with a rim of the background's colour."""
    return _widen_matte(rgba, int(rng.integers(1, 4)), rng.uniform(0, 1, 3))


def add_clutter(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Add spots of the background to the matte."""
    for _ in range(int(rng.integers(1, 4))):
        place = rng.uniform(0.05, 0.95, 2) + rng.normal(0, 0.01, 2) * np.arange(len(rgba))[:, None]
        y, x = _distances_from(rgba, place)
        stretch, size = rng.uniform(0.4, 2.5), rng.uniform(0.01, 0.05)
        bit = ((x * stretch).square() + (y / stretch).square()).sqrt() < size
        bit = bit & (rgba[..., 3] <= 0.5)
        colour = torch.tensor(rng.uniform(0, 1, 3), dtype=rgba.dtype, device=rgba.device)
        rgba = torch.where(bit[..., None], torch.cat([colour, colour.new_ones(1)]), rgba)
    return rgba


def _widen_matte(rgba: Tensor, width: int, colour: np.ndarray) -> Tensor:
    alpha = rgba[..., 3]
    wide = F.max_pool2d(alpha[:, None], 2 * width + 1, 1, width)[:, 0]
    paint = torch.tensor(colour, dtype=rgba.dtype, device=rgba.device)
    # the subject over the rim: colours with straight alpha mix by the subject's share of the total alpha
    share = (alpha / wide.clamp(min=1e-6))[..., None]
    return torch.cat([rgba[..., :3] * share + paint * (1 - share), wide[..., None]], dim=-1)


def _distances_from(rgba: Tensor, place: np.ndarray) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal distances (T, H, W) from a place (T, 2), x before y, as shares of the image's size."""
    height, width = rgba.shape[1:3]
    centre = torch.tensor(place, dtype=rgba.dtype, device=rgba.device)
    rows = (torch.arange(height, dtype=rgba.dtype, device=rgba.device) + 0.5) / height
    columns = (torch.arange(width, dtype=rgba.dtype, device=rgba.device) + 0.5) / width
    y, x = rows[None, :, None] - centre[:, 1, None, None], columns[None, None] - centre[:, 0, None, None]
    return y.expand(-1, -1, width), x.expand(-1, height, -1)


def _with_alpha(rgba: Tensor, alpha: Tensor) -> Tensor:
    return torch.cat([rgba[..., :3], alpha[..., None]], dim=-1)


FAULTS: tuple[tuple[float, Fault], ...] = ((0.12, occlude), (0.08, drop_matte), (0.12, add_halo), (0.08, add_clutter))

"""Makes images with one clear subject in code, on which ISNet's stored weights are compared."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]

SIZES = ((640, 360), (480, 640), (1280, 720), (512, 512), (384, 216))  # width, height
SHIFT = 4  # bits behind the point in what OpenCV draws
GROUNDS = ((96, 128, 70), (150, 132, 100), (110, 118, 130), (176, 164, 140))
COATS = ((140, 70, 30), (35, 35, 40), (225, 215, 200), (190, 120, 50))


def made_image(seed: int) -> Array:
    """Draw a four-legged animal on a meadow, a road or sand, (H, W, 3) uint8 RGB. The seed decides everything."""
    random = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    ground, sky = np.array(GROUNDS[seed % len(GROUNDS)], float), np.array((165.0, 190.0, 220.0))
    horizon = height * random.uniform(0.3, 0.45)
    rows = np.arange(height)[:, None, None]
    image = np.where(rows < horizon, sky, ground) + _cloud(random, width, height, 5)[..., None] * 18
    image += np.where(rows < horizon, 0, _cloud(random, width, height, 60)[..., None] * 22)
    cover = _animal(random, width, height)
    coat = np.array(COATS[(seed // 2) % len(COATS)]) + _cloud(random, width, height, 12)[..., None] * 20
    lit = 1.25 - 0.5 * np.clip((rows - horizon) / (height - horizon), 0, 1)  # from above
    image += (coat * lit - image) * cover[..., None]
    image += random.normal(0, 3, image.shape)
    return np.clip(image, 0, 255).round().astype(np.uint8)


def _cloud(random: np.random.Generator, width: int, height: int, across: int) -> NDArray[np.float64]:
    """Make smooth noise around 0, (H, W), with about `across` bumps from left to right."""
    coarse = random.normal(0, 1, (max(3, across * height // width), across))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _animal(random: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """Draw the animal's cover, (H, W) in 0..1: seen from the side, the legs somewhere in their stride."""
    size = min(width * 0.9, height * 1.2) * random.uniform(0.75, 0.95)  # from tail to nose
    x, y = width * random.uniform(0.46, 0.54), height * 0.5
    side = random.choice((-1, 1))
    cover = np.zeros((height, width), np.uint8)

    def place(right: float, down: float) -> tuple[int, int]:
        return round((x + side * right * size) * 2**SHIFT), round((y + down * size) * 2**SHIFT)

    def limb(points: list[tuple[float, float]], thick: float) -> None:
        corners = np.array([place(*point) for point in points], np.int32)
        cv2.polylines(cover, [corners], False, 255, max(1, round(thick * size)), cv2.LINE_AA, SHIFT)

    for hip in (-0.2, -0.14, 0.12, 0.18):
        swing = random.uniform(-0.1, 0.1)
        limb([(hip, 0.05), (hip + swing, 0.18), (hip + swing * 0.6, 0.33)], 0.05)
    axes = round(0.26 * size * 2**SHIFT), round(0.12 * size * 2**SHIFT)
    cv2.ellipse(cover, place(0.0, 0.0), axes, 0, 0, 360, 255, -1, cv2.LINE_AA, SHIFT)
    limb([(0.17, -0.03), (0.31, -0.2)], 0.1)
    limb([(0.31, -0.2), (0.43, -0.15)], 0.08)
    limb([(0.3, -0.2), (0.28, -0.29)], 0.03)
    limb([(-0.24, -0.04), (-0.34, 0.0), (-0.37, random.uniform(0.05, 0.15))], 0.03)
    return cover / 255

"""A walker drawn in front of sky and ground, with the true masks."""

from pathlib import Path

import cv2
import numpy as np
from anyrig.backend.video.reader import write_video

SIZE = (180, 320)  # height, width


def noise_texture(rng: np.random.Generator, size: tuple[int, int], grain: int, low: float, high: float) -> np.ndarray:
    """(H, W, 3) coloured noise with structures of about `grain` pixels."""
    coarse = rng.uniform(low, high, (size[0] // grain + 2, size[1] // grain + 2, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), 0, 255)


def walker(frame: int, x: float, y: float, size: tuple[int, int] = SIZE, scale: float = 1.0) -> np.ndarray:
    """(H, W) 0..1: a body with a head, a tail and four swinging legs, the middle of the body at (x, y)."""
    mask = np.zeros(size, np.uint8)
    fine = 8  # units per pixel: the drawing below is told 3 fractional bits

    def point(dx: float, dy: float) -> tuple[int, int]:
        return round((x + scale * dx) * fine), round((y + scale * dy) * fine)

    cv2.ellipse(mask, point(0, 0), (round(34 * scale * fine), round(15 * scale * fine)), 0, 0, 360, 255, -1, cv2.LINE_AA, 3)
    cv2.circle(mask, point(40, -14), round(11 * scale * fine), 255, -1, cv2.LINE_AA, 3)
    thickness = max(2, round(6 * scale))
    cv2.line(mask, point(-32, -4), point(-50, 2 + 8 * np.sin(0.5 * frame)), 255, max(2, thickness - 2), cv2.LINE_AA, 3)
    for hip, phase in ((-24, 0.0), (-18, 2.0), (20, 1.0), (26, 3.5)):
        swing = 0.5 * np.sin(0.4 * frame + phase)
        foot = (hip + 34 * np.sin(swing), 8 + 32 * np.cos(swing))
        cv2.line(mask, point(hip, 8), point(*foot), 255, thickness, cv2.LINE_AA, 3)
    return mask.astype(np.float32) / 255


def outdoors(seed: int = 6, ground: tuple[float, float, float] = (150, 122, 92)) -> np.ndarray:
    """Sky that pales towards a horizon, and ground with faint patches of its own."""
    height, width = SIZE
    horizon = round(0.3 * height)
    y = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    back = (
        np.broadcast_to(np.float32(ground), (height, width, 3)) * np.linspace(0.92, 1.06, height, dtype=np.float32)[:, None, None]
    )
    back = back + 0.06 * (noise_texture(np.random.default_rng(seed), SIZE, 8, 0, 255).mean(axis=-1, keepdims=True) - 127)
    back[:horizon] = np.float32([120, 160, 210]) * (1 - y) + np.float32([205, 203, 190]) * y
    return back


def cast(back: np.ndarray, x: float, y: float) -> np.ndarray:
    """The background with a soft shadow on the ground that sky light alone reaches: darker and bluish, in linear light."""
    shape = np.zeros(SIZE, np.float32)
    cv2.ellipse(shape, (round(x - 38), round(y + 42)), (62, 13), 0, 0, 360, 1.0, -1)
    left = 1 - cv2.GaussianBlur(shape, (0, 0), 1.0)[..., None] * (1 - np.float32([0.2, 0.25, 0.34]))
    return 255 * ((back / 255) ** 2.2 * left) ** (1 / 2.2)


def outdoor_film(path: Path, swing: float, colours: tuple[tuple[float, float, float], ...]) -> list[np.ndarray]:
    """A walker in place whose legs and tail go `swing` of a walk's way, upper and lower half in `colours`; sensor noise."""
    rng, back = np.random.default_rng(3), outdoors()
    masks, images = [], []
    for frame in range(24):
        x, y = 175 + swing * 2 * np.sin(0.5 * frame), 92.0
        masks.append(walker(round(swing * frame), x, y))
        if 0 < swing < 1:  # the head alone nods
            cv2.circle(masks[-1], (round(x + 40), round(78 + 3 * np.sin(0.5 * frame))), 11, 1.0, -1, cv2.LINE_AA)
        half = np.where(np.arange(SIZE[0])[:, None, None] < 92, *np.float32(colours))
        skin = half * np.linspace(0.9, 1.1, SIZE[1], dtype=np.float32)[None, :, None]
        image = masks[-1][..., None] * skin + (1 - masks[-1][..., None]) * cast(back, x, y)
        images.append(np.clip(image + 1.5 * rng.standard_normal(image.shape), 0, 255).astype(np.uint8))
    write_video(path, images, 25.0)
    return masks

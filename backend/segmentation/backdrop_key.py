"""Finds backdrops, one colour or one still image, and keys them out of each frame. Uses OpenCV and numpy."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..arrays import Array, Pixels
from ..video.frame_source import fit_size, shrink
from .background_alignment import align_background, grey
from .matte import (
    Picker,
    channel_dot,
    difference,
    mask_box,
    matte_from_key,
    shade_vectors,
    soft_matte,
    sort_planes,
)

_SHADE = (0.9, 1.05)  # of a static background: cube roots of the darkest shadow and the brightest reflection on it
_RAMP = 11.0  # of a static background: from the tolerance to a distance that is certainly not background
_COLOURED = 22.0  # chroma above which the colour alone separates backdrop and subject


@dataclass(frozen=True, eq=False)
class Uniform:
    """A backdrop of one colour, smoothly shaded. backdrop: (H, W, 3) shade vectors. low, high: ends of the soft key."""

    backdrop: Pixels
    shade: tuple[float, float]
    low: float
    high: float

    def key(self, image: Pixels) -> Pixels:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 matte of everything but the backdrop."""
        return without_frame(matte_from_key(image, self.backdrop, self.shade, self.low, self.high))


def without_frame(matte: Pixels) -> Pixels:
    """Clear black bars and bright lines along the edges of a matte: outermost rows and columns that are nearly full."""
    for side in range(4):
        turned = np.rot90(matte, side)
        full = (turned >= 96).mean(axis=1) > 0.8
        depth = int(np.argmin(full)) if not full.all() else 0
        if depth:  # one more row for the line's blur
            turned[: depth + 1] = 0
    return matte


@dataclass(frozen=True, eq=False)
class Static:
    """A background image. backdrop: (H, W, 3) shade vectors. noise: (H, W) the usual distance of a frame from it."""

    backdrop: Pixels
    noise: Pixels
    reference: Pixels | None  # grey image to align frames to; None if the camera stands still

    def key(self, image: Pixels) -> Pixels:
        """(H, W, 3) uint8 RGB -> (H, W) uint8 matte of everything but the background."""
        backdrop, noise = self.backdrop, self.noise
        if self.reference is not None:
            motion = align_background(self.reference, grey(image))
            if motion is not None:
                size = (image.shape[1], image.shape[0])
                backdrop = cv2.warpAffine(backdrop, motion, size, borderMode=cv2.BORDER_REPLICATE)
                noise = cv2.warpAffine(noise, motion, size, borderMode=cv2.BORDER_REPLICATE)
        low = _tolerance(noise)
        return matte_from_key(image, backdrop, _SHADE, low, low + _RAMP)

    @property
    def low(self) -> Pixels:
        """(H, W) the distance below which a pixel is background."""
        return _tolerance(self.noise)


def _tolerance(noise: Pixels) -> Pixels:
    return np.clip(2.0 * noise, 4.0, 14.0)


def find_uniform(samples: Pixels) -> Uniform | None:
    """(N, H, W, 3) uint8 RGB samples -> the uniform backdrop, or None if there is none.

    The colour is the median of the border. A quadratic surface through all pixels near it follows uneven light. It is a backdrop
    if most of the border and a good part of the image agree with it closely.
    """
    height, width = samples.shape[1:3]
    small = fit_size((width, height), 320)
    vectors = np.stack([shade_vectors(shrink(image, small)) for image in samples[:: max(1, len(samples) // 14)]])
    backdrop = _find_surface(vectors)
    if backdrop is None:
        return None
    surface, shade, low = backdrop
    return Uniform(cv2.resize(surface, (width, height)), shade, low, low + 9.0)


def _find_surface(vectors: Pixels) -> tuple[Pixels, tuple[float, float], float] | None:
    """(N, H, W, 3) shade vectors -> the backdrop (H, W, 3), its shade range and its tolerance; None if there is none."""
    height, width = vectors.shape[1:3]
    band = np.zeros((height, width), bool)
    margin = max(2, round(0.05 * min(height, width)))
    band[:margin] = band[-margin:] = True
    band[:, :margin] = band[:, -margin:] = True
    colour = np.median(vectors[:, band], axis=(0, 1))
    coloured = float(np.hypot(colour[1], colour[2])) > _COLOURED
    shade = (0.6, 1.12) if coloured else (0.87, 1.06)
    backdrop = _fit_surface(vectors, colour)
    distance = np.stack([difference(frame, backdrop, shade) for frame in vectors])
    near = distance < 12.0
    border = np.median(near[:, band].mean(axis=1))
    if border < 0.7 or np.median(near.mean(axis=(1, 2))) < 0.25 or _has_bands(vectors, backdrop, shade):
        return None
    low = max(5.0, 1.2 * float(np.percentile(distance[near], 97)))
    return (backdrop, shade, low) if low < 11.0 else None


def _has_bands(vectors: Pixels, backdrop: Pixels, shade: tuple[float, float]) -> bool:
    """True if whole rows at the image's sides differ from the backdrop, as sky and ground do from a surface fitted to both."""
    margin = max(2, round(0.08 * backdrop.shape[1]))
    middle = np.median(vectors[:, :, np.r_[:margin, -margin:0]], axis=(0, 2))
    expected = np.median(backdrop[:, np.r_[:margin, -margin:0]], axis=1)
    return bool(np.percentile(difference(middle, expected, shade), 80) > 2.5)


def _fit_surface(vectors: Pixels, colour: Array) -> Pixels:
    """Fit a quadratic in x and y to the pixels near it, starting from one colour -> (H, W, 3)."""
    height, width = vectors.shape[1:3]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    surface = np.broadcast_to(colour, vectors.shape[1:]).astype(np.float32)
    step = max(1, height * width // 4000)
    points = vectors.reshape(len(vectors), -1, 3)[:, ::step]
    basis = np.broadcast_to(terms.reshape(-1, 6)[::step], (len(points), points.shape[1], 6))
    for tolerance in (24.0, 18.0, 12.0, 12.0):
        rest = points - surface.reshape(-1, 3)[::step]
        inlier = channel_dot(rest, rest) < tolerance**2
        if inlier.sum() < 60:
            break
        solution = np.linalg.lstsq(basis[inlier], points[inlier], rcond=None)[0]
        surface = (terms @ solution).astype(np.float32)
    return surface


def find_static(samples: Pixels) -> Static | None:
    """(N, H, W, 3) uint8 RGB samples -> the background image, or None if the camera moves or the subject never clears it.

    The background is the steadiest colour of each pixel. The camera may tremble: samples are first aligned to the middle one.
    """
    middle = grey(samples[len(samples) // 2])
    motions = [align_background(grey(sample), middle) for sample in samples]
    if sum(motion is None for motion in motions) > 0.1 * len(samples):
        return None
    size = (middle.shape[1], middle.shape[0])
    shift = max(_largest_shift(motion, size) for motion in motions if motion is not None)
    if shift > 0.05 * max(size):
        return None
    trembles = shift > 0.6
    if trembles:
        pairs = zip(samples, motions, strict=True)
        samples = np.stack([_warp_sample(sample, motion) for sample, motion in pairs if motion is not None])
    backdrop = shade_vectors(steadiest_colours(samples))
    rest = np.stack([difference(shade_vectors(sample), backdrop, _SHADE) for sample in samples])
    # Where the subject often passes, a low percentile still measures the background only.
    noise = cv2.GaussianBlur(1.8 * np.percentile(rest, 30, axis=0).astype(np.float32), (0, 0), 2.0)
    found = Static(backdrop, noise, middle if trembles else None)
    return found if _leaves_its_place(rest, found.low) else None


def _warp_sample(sample: Pixels, motion: Array) -> Pixels:
    return cv2.warpAffine(sample, motion, (sample.shape[1], sample.shape[0]), borderMode=cv2.BORDER_REPLICATE)


def steadiest_colours(samples: Pixels) -> Pixels:
    """(N, H, W, 3) -> (H, W, 3): per channel, the middle of the narrowest range that holds 40 % of the samples.

    Unlike the median, it is the background's colour even if the subject covers the pixel more than half of the time.
    """
    levels = sort_planes(samples)
    held = max(1, round(0.4 * len(levels)))
    start = np.argmin(levels[held - 1 :].astype(np.int16) - levels[: len(levels) - held + 1], axis=0)
    return np.take_along_axis(levels, start[None] + held // 2, axis=0)[0]


def _leaves_its_place(rest: Pixels, low: Pixels) -> bool:
    """True if part of the image, but not most of it, moves far enough to reveal the background behind it.

    If the subject stays in place, only its limbs differ: its body has become part of the background.
    """
    boxes = [mask_box(Picker(reach=3.0).pick(soft_matte(one, low, low + _RAMP))) for one in rest]
    seen = np.array([box for box in boxes if box is not None])
    share = (rest > 16.0).mean(axis=(1, 2))
    if np.median(share) > 0.4 or len(seen) < max(2, 0.1 * len(rest)):
        return False
    extent = np.median(seen[:, 2:] - seen[:, :2], axis=0)
    centre = (seen[:, 2:] + seen[:, :2]) / 2
    travel = np.percentile(centre, 95, axis=0) - np.percentile(centre, 5, axis=0)
    return bool((travel > 0.7 * extent).any())


def _largest_shift(motion: Array, size: tuple[int, int]) -> float:
    """The largest distance in pixels that the map moves a corner of the image."""
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [*size, 1]], float)
    return float(np.linalg.norm(corners @ motion.T - corners[:, :2], axis=1).max())

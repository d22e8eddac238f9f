"""Makes mattes of single frames from the difference to a backdrop, and picks the subject's components. Uses OpenCV and numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ..arrays import Array, Pixels

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels; x1 and y1 are one past the last pixel


def shade_vectors(image: Pixels, smooth: bool = True) -> Pixels:
    """(H, W, 3) uint8 RGB -> (H, W, 3) float32 (L* + 16, a*, b*), from smoothed pixels if `smooth`.

    L* + 16, a* and b* are all proportional to the cube root of luminance (CIE 1976, above 0.9 % luminance). So a surface in shade
    or in stronger light stays on one line through the origin. `difference` uses this.
    """
    lab = cv2.cvtColor(cv2.blur(image, (3, 3)) if smooth else image, cv2.COLOR_RGB2Lab)
    # One plane per component in memory: arithmetic on one component at a time is several times as fast.
    planes: Pixels = np.empty((3, *lab.shape[:2]), np.float32)
    # OpenCV stores 255/100 L and a + 128, b + 128 in 8 bits.
    for index, (factor, offset) in enumerate(((100 / 255, 16), (1, -128), (1, -128))):
        np.multiply(lab[..., index], np.float32(factor), out=planes[index], dtype=np.float32)
        planes[index] += np.float32(offset)
    return np.moveaxis(planes, 0, -1)


def difference(vectors: Pixels, backdrop: Pixels, shade: tuple[float, float]) -> Pixels:
    """(H, W) distance of shade vectors from those of the backdrop in any light from shade[0] to shade[1] (cube roots)."""
    return np.sqrt(_squared_difference(vectors, backdrop, np.maximum(channel_dot(backdrop, backdrop), 1.0), shade))


def _squared_difference(vectors: Pixels, backdrop: Pixels, length: Pixels, shade: tuple[float, float]) -> Pixels:
    factor = np.clip(channel_dot(vectors, backdrop) / length, *shade)
    rest = (vectors[..., part] - factor * backdrop[..., part] for part in range(3))
    first, second, third = (part * part for part in rest)
    return first + second + third


def shifted_difference(vectors: Pixels, backdrop: Pixels, shade: tuple[float, float]) -> Pixels:
    """(H, W) the least `difference` over shifts of the backdrop by a pixel, because frames never align perfectly."""
    planes = np.ascontiguousarray(np.moveaxis(backdrop, -1, 0))
    length = np.maximum(channel_dot(backdrop, backdrop), 1.0)
    least = _squared_difference(vectors, backdrop, length, shade)
    for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        moved = np.moveaxis(np.roll(planes, shift, axis=(1, 2)), 0, -1)
        np.minimum(least, _squared_difference(vectors, moved, np.roll(length, shift, axis=(0, 1)), shade), out=least)
    return np.sqrt(least)  # the root of the least is the least root


def channel_dot(a: Pixels, b: Pixels) -> Pixels:
    """Inner product over the last axis of 3."""
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def sort_planes(stack: Pixels) -> Pixels:
    """np.sort(stack, axis=0) for a few images (N, ...), faster: a sorting network of minima and maxima of whole images.

    The network is Batcher's odd-even merge for any N (Knuth, The Art of Computer Programming 3, 5.2.2 M).
    """
    rows = [np.array(image) for image in stack]
    spare = np.empty_like(rows[0])
    for low, high in _comparators(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low], spare = spare, rows[low]
    return np.stack(rows)


def _comparators(count: int) -> Iterator[tuple[int, int]]:
    top = 1 << max((count - 1).bit_length() - 1, 0)
    step = top
    while step:
        reach, offset, distance = top, 0, step
        while distance:
            yield from ((row, row + distance) for row in range(count - distance) if row & step == offset)
            distance, reach, offset = reach - step, reach >> 1, step
        step >>= 1


def masked_median(stack: Pixels, valid: Pixels) -> tuple[Pixels, Pixels]:
    """(N, H, W, 3) uint8 and (N, H, W) bool -> the lower median (H, W, 3) of the valid values, and their spread (H, W).

    Pixels without a valid value get an arbitrary result.
    """
    pixels = sort_planes(np.where(valid[..., None], stack, np.uint8(255))).reshape(-1, 3)
    last = np.maximum(valid.sum(axis=0) - 1, 0)
    place = np.arange(last.size).reshape(last.shape)
    low, middle, high = (pixels.take((last * part // 10) * last.size + place, axis=0) for part in (3, 5, 7))
    # The middle 40 % of a normal distribution span 1.05 standard deviations.
    return middle, (high - low).max(axis=-1).astype(np.float32)


def soft_matte(distance: Pixels, low: float | Pixels, high: float | Pixels) -> Pixels:
    """Distances (H, W) -> uint8, 0 up to `low`, 255 from `high`, without stray pixels."""
    matte = np.clip((distance - low) * (255.0 / (high - low)), 0.0, 255.0)
    return cv2.medianBlur(matte.astype(np.uint8), 3)


def matte_from_key(
    image: Pixels, backdrop: Pixels, shade: tuple[float, float], low: float | Pixels, high: float | Pixels
) -> Pixels:
    """(H, W, 3) uint8 RGB -> (H, W) uint8 matte of the pixels that differ from the backdrop's shade vectors.

    Smoothing against noise widens the subject by a pixel. The unsmoothed pixels undo that.
    """
    matte = soft_matte(difference(shade_vectors(image), backdrop, shade), low, high)
    box = mask_box(matte)
    if box is None:
        return matte
    x0, y0, x1, y1 = (int(side) for side in box)
    part = np.s_[y0:y1, x0:x1]
    low, high = (side[part] if isinstance(side, np.ndarray) else side for side in (low, high))
    sharp = difference(shade_vectors(image[part], smooth=False), backdrop[part], shade)
    matte[part] = np.minimum(matte[part], np.clip((sharp - low) * (255.0 / (high - low)), 0.0, 255.0).astype(np.uint8))
    return matte


def mask_box(mask: Pixels) -> Box | None:
    """The box around the pixels that are set; None if there are none."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height)) if width else None


def overlap(a: Box, b: Box) -> float:
    """The shared area of two boxes, divided by the smaller box's area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(width, 0.0) * max(height, 0.0) / max(smaller, 1e-9)


def gap(a: Box, b: Box) -> float:
    """The distance between two boxes, 0 if they touch."""
    return float(np.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0)))


def fill_holes(mask: Pixels, largest: float) -> Pixels:
    """Set the enclosed background regions of at most `largest` pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask == 0).astype(np.uint8), connectivity=4)
    height, width = mask.shape
    x, y, w, h, area = stats.T
    hole = (area <= largest) & (x > 0) & (y > 0) & (x + w < width) & (y + h < height)
    hole[0] = False
    return mask | hole[labels] if count > 1 else mask


@dataclass
class Picker:
    """Chooses the subject's components frame after frame.

    box: the user's box around the subject on the first frame, in the matte's pixels. fixed: (H, W) bool, pixels that never change
    (logos). reach: the largest distance of other components from the main one, as a share of its diagonal. previous: the last
    mask; the next choice prefers the same place.
    """

    box: Box | None = None
    fixed: Pixels | None = None
    previous: Pixels | None = None
    reach: float = 0.06

    def pick(self, matte: Pixels, holes: float = 0.005) -> Pixels:
        """A soft matte of everything that differs -> the subject's matte, all zeros if it is not seen.

        Thin gaps do not separate a limb from the body, and components of some size near the main one stay. Fills enclosed holes
        up to the share `holes` of the subject's area.
        """
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        mask = cv2.morphologyEx((matte >= 96).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        kept = self._choose_components(labels, stats, matte.size) if count > 1 else np.zeros(1, bool)
        if not kept.any():
            return np.zeros_like(matte)
        chosen = kept[labels]
        self.previous = chosen
        body = chosen & (matte >= 96)
        filled = fill_holes(body, holes * body.sum()) & ~body
        # the soft rim lies just outside the labelled mask
        picked = np.where(cv2.dilate(chosen.astype(np.uint8), kernel) > 0, matte, 0)
        return np.where(filled, 255, picked).astype(np.uint8)

    def _choose_components(self, labels: Pixels, stats: Pixels, pixels: int) -> Array:
        """(labels,) bool: the main component and those that belong to it."""
        areas = stats[:, 4].astype(float)
        boxes = [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h, _ in stats]
        candidate = areas >= max(12.0, 1e-4 * pixels)
        candidate[0] = False
        if self.fixed is not None:
            candidate &= self._share_within(labels, self.fixed, areas) < 0.6
        before = self._share_expected(labels, areas)
        score = np.where(candidate, areas * (0.1 + before), 0.0)
        kept = np.zeros(len(areas), bool)
        main = int(np.argmax(score))
        if score[main] == 0:
            return kept
        reach = self.reach * np.hypot(boxes[main][2] - boxes[main][0], boxes[main][3] - boxes[main][1])
        for label in np.flatnonzero(candidate & (areas >= 0.01 * areas[main])):
            part = areas[label] <= 0.4 * areas[main] or before[label] > 0.3
            kept[label] = part and gap(boxes[label], boxes[main]) <= reach
        kept[main] = True
        return kept

    def _share_expected(self, labels: Pixels, areas: Array) -> Array:
        """(labels,) the share of each component inside the previous mask, or else the user's box."""
        if self.previous is not None:
            return self._share_within(labels, self.previous, areas)
        if self.box is None:
            return np.ones(len(areas))
        inside = np.zeros(labels.shape, bool)
        x0, y0, x1, y1 = (round(value) for value in self.box)
        inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
        share = self._share_within(labels, inside, areas)
        return np.where(share > 0.3, share, -0.1)  # cancels the 0.1 in the score: a component outside the box is never chosen

    @staticmethod
    def _share_within(labels: Pixels, where: Pixels, areas: Array) -> Array:
        return np.bincount(labels[where], minlength=len(areas)) / np.maximum(areas, 1.0)

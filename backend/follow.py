"""The subject before a moving camera: what does not move with the background, refined by GrabCut. OpenCV and numpy.

Neighbouring frames are brought into line with each frame's background. What differs from those just before and also from
those just after moves by itself. Where the background has moved far enough to clear the subject, the median of the
neighbours shows it, and what differs from that is the subject whole. Either seeds GrabCut, together with the last frame's
mask carried on by optical flow. Only the frames of a window are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .align import Chain, grey
from .clip import Clip
from .matte import Box, Picker, difference, fill_holes, mask_box, shade_vectors, shrink, work_size
from .rotation import Array
from .video import Frame, read_frames

_LONGEST = 320  # pixels of the longer side that is worked on
_REACH = 150  # frames before and after among which neighbours are chosen
_SIDE = 6  # neighbours before and after
_NEAR = (2, 4, 7)  # frames before and after that show what moves by itself
_ENOUGH = 5  # neighbours whose median can be trusted
_PATIENCE = 10  # frames that a mask is carried on without any motion to confirm it


@dataclass(eq=False)
class _View:
    """A frame at work size. placed: (3, 3) maps the first frame's background to this one. mask: the subject, once known."""

    time: float
    image: Array
    grey: Array
    placed: Array
    mask: Array | None = None


def follow(
    clip: Clip, fixed: Array, box: Box | None, size: tuple[int, int]
) -> Generator[tuple[float, Array, float], None, None]:
    """Yields (time, soft matte at `size`, confidence) for each frame; zeros where no subject is seen.

    fixed: (H, W) bool, pixels that never change (logos), at any size. box: the user's, in pixels at `size`.
    """
    small = work_size(*size, _LONGEST)
    ratio = small[0] / size[0]
    still = cv2.resize(fixed.astype(np.uint8), small, interpolation=cv2.INTER_AREA) > 0
    tracker = _Tracker(still, None if box is None else tuple(value * ratio for value in box))
    for window, centre in _windows(clip, small, still):
        mask, quality = tracker.step(window, centre)
        soft = cv2.GaussianBlur(mask.astype(np.float32) * 255.0, (0, 0), 0.8)
        yield window[centre].time, cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8), quality


def _windows(clip: Clip, size: tuple[int, int], still: Array) -> Generator[tuple[list[_View], int], None, None]:
    """For each frame the views within reach and the frame's place among them."""
    window: deque[_View] = deque()
    centre = 0
    free = cv2.dilate(still.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    chain = Chain()
    with closing(read_frames(clip)) as frames:
        for frame in frames:
            image = shrink(frame.image, size)
            picture = grey(image)
            window.append(_View(frame.time, image, picture, chain.add(picture, free)))
            if len(window) - centre > _REACH:
                yield list(window), centre
                centre += 1
            if centre > _REACH:
                window.popleft()
                centre -= 1
    while centre < len(window):
        yield list(window), centre
        centre += 1


def _neighbours(window: list[_View], centre: int, extent: tuple[float, float]) -> list[int]:
    """Frames whose background has moved far enough to show what is behind a subject of `extent` (width, height) pixels."""
    height, width = window[0].grey.shape
    middle = np.array([width / 2, height / 2, 1.0])
    back = window[centre].placed
    shift = np.array([(back @ np.linalg.solve(view.placed, middle) - middle)[:2] for view in window])
    # in units of what clears most of the subject
    cleared = np.max(np.abs(shift) / (0.6 * np.array(extent)), axis=1)
    sides = (range(centre - 1, -1, -1), range(centre + 1, len(window)))
    return sorted(set().union(*(_displaced(side, cleared, 1.0, 0.6 * width / extent[0]) for side in sides)))


def _displaced(side: range, shift: Array, least: float, most: float) -> set[int]:
    """Frames going away from the centre, evenly displaced from `least` to at most about `most`."""
    distances = shift[list(side)]
    if len(distances) == 0 or distances.max() < least:
        return set()
    targets = np.linspace(least, min(float(distances.max()), max(most, least)), _SIDE)
    return {side[int(np.argmax(distances >= target))] for target in targets}


@dataclass(frozen=True, eq=False)
class _Evidence:
    """strong, weak: (H, W) bool, what surely or perhaps differs from the background. known: (H, W) bool, where that can be
    told: everywhere that is textured or has been cleared by the subject."""

    strong: Array
    weak: Array
    known: Array


def _placed_as(other: _View, view: _View) -> tuple[Array, Array]:
    """The other frame's picture where `view` has the same background, and (H, W) bool where it is seen and not masked."""
    size = (view.image.shape[1], view.image.shape[0])
    # a pixel of the other frame -> the first frame's background -> this frame
    motion = (view.placed @ np.linalg.inv(other.placed))[:2]
    free = np.ones(size[::-1], np.uint8) if other.mask is None else (~other.mask).astype(np.uint8)
    return cv2.warpAffine(other.image, motion, size), cv2.warpAffine(free, motion, size, flags=cv2.INTER_NEAREST) > 0


def _self_moving(window: list[_View], centre: int, still: Array) -> Array:
    """(H, W) float: colour difference from the frames just before and from those just after, whichever is less.

    What a thing uncovers or covers differs on one side of time only. At the clip's ends the least of one side's must do.
    """
    view = window[centre]
    vectors = shade_vectors(view.image)
    sides: list[list[Array]] = [[], []]
    for side, sign in enumerate((-1, 1)):
        for offset in _NEAR:
            if 0 <= centre + sign * offset < len(window):
                picture, inside = _placed_as(replace(window[centre + sign * offset], mask=None), view)
                inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
                sides[side].append(np.where(inside, _shifted_difference(vectors, shade_vectors(picture)), 0.0))
    if sides[0] and sides[1]:
        least = np.minimum(np.maximum.reduce(sides[0]), np.maximum.reduce(sides[1]))
    else:
        least = np.minimum.reduce(sides[0] + sides[1])
    return np.where(still, 0.0, least).astype(np.float32)


def _density(moving: Array) -> Array:
    """(H, W) 0 to 1: how much of the neighbourhood moves by itself. Textures and outlines differ, plain parts do not."""
    noise = 2.0 * float(np.median(moving))
    return cv2.GaussianBlur(np.clip((moving - noise) / 12.0, 0.0, 1.0), (0, 0), 4.0)


def _cleared(window: list[_View], centre: int, chosen: list[int], still: Array) -> _Evidence:
    """Differences from the median of the chosen frames."""
    view = window[centre]
    pictures, seen = zip(*(_placed_as(window[index], view) for index in chosen), strict=True)
    valid = np.stack(seen) & ~still
    backdrop, spread = _masked_median(np.stack(pictures), valid)
    distance = np.where(still, 0.0, _shifted_difference(shade_vectors(view.image), shade_vectors(backdrop)))
    usual = np.minimum(cv2.blur(spread, (5, 5)), 20.0)
    known = valid.sum(axis=0) >= 2
    strong = known & (distance > 12.0 + usual)
    # Outlines of the background that do not fit exactly are thin.
    strong = cv2.morphologyEx(strong.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    return _Evidence(strong, known & (distance > 7.0 + 0.7 * usual), known)


def _masked_median(stack: Array, valid: Array) -> tuple[Array, Array]:
    """(N, H, W, 3) uint8 and (N, H, W) bool -> (H, W, 3) lower median of the valid ones, and (H, W) how far they differ.

    Where none is valid the result means nothing.
    """
    ordered = np.sort(np.where(valid[..., None], stack, 255), axis=0)
    last = np.maximum(valid.sum(axis=0) - 1, 0)
    low, middle, high = (np.take_along_axis(ordered, (last * part // 10)[None, ..., None], axis=0)[0] for part in (3, 5, 7))
    # The middle 40 % of a normal distribution span 1.05 standard deviations.
    return middle, (high - low).max(axis=-1).astype(np.float32)


def _shifted_difference(vectors: Array, backdrop: Array) -> Array:
    """The least difference over shifts by a pixel, because frames never align perfectly."""
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    moved = (np.roll(backdrop, shift, axis=(0, 1)) for shift in shifts)
    return np.minimum.reduce([difference(vectors, one, (0.88, 1.06)) for one in moved])


class _Tracker:
    """Carries the mask from frame to frame."""

    def __init__(self, still: Array, box: Box | None) -> None:
        self.still = still
        self.box = box
        self.picker = Picker(box)
        self.chooser = Picker(box)
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.last: _View | None = None
        self.mask: Array | None = None
        self.density = np.zeros(still.shape, np.float32)
        self.unconfirmed = 0

    def step(self, window: list[_View], centre: int) -> tuple[Array, float]:
        """(mask, confidence) of the window's frame `centre`."""
        view = window[centre]
        carried = self._carry(view)
        self.density = np.maximum(self.density, _density(_self_moving(window, centre, self.still)))
        seed = self.density > max(0.12, 0.3 * float(np.percentile(self.density, 99.5)))
        moving = self.picker.pick(seed.astype(np.uint8) * 255, holes=0.05) > 0
        box = mask_box(moving if carried is None else moving | carried)
        chosen = [] if box is None else _neighbours(window, centre, (box[2] - box[0], box[3] - box[1]))
        evidence = _Evidence(seed, seed, np.zeros_like(seed))
        if len(chosen) >= _ENOUGH:
            evidence = _cleared(window, centre, chosen, self.still)
            strong = evidence.strong | (seed & evidence.weak)
            moving = self.picker.pick(strong.astype(np.uint8) * 255, holes=0.05) > 0
        mask, quality = self._segment(view, evidence, moving, carried)
        view.mask = _dilated(mask, 9) if mask.any() else None
        self.last, self.mask = view, mask if mask.any() else None
        if mask.any():
            self.picker.previous = self.chooser.previous = mask
        return mask, quality

    def _carry(self, view: _View) -> Array | None:
        """The last mask, moved by the optical flow from this frame back to the last; so is the density, fading."""
        if self.last is None:
            return None
        flow = self.flow.calc(view.grey, self.last.grey, None)
        y, x = np.mgrid[: view.grey.shape[0], : view.grey.shape[1]].astype(np.float32)
        x, y = x + flow[..., 0], y + flow[..., 1]
        self.density = 0.85 * cv2.remap(self.density, x, y, cv2.INTER_LINEAR)
        return None if self.mask is None else cv2.remap(self.mask.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5

    def _segment(self, view: _View, evidence: _Evidence, moving: Array, carried: Array | None) -> tuple[Array, float]:
        nothing = np.zeros(moving.shape, bool)
        if carried is None or not carried.any():
            if self.box is None and moving.sum() < 2e-3 * moving.size:
                return nothing, 0.0
            return self._refine(view, evidence, moving, nothing), 0.7
        confirmed = (moving & carried).sum() > 0.25 * carried.sum()
        self.unconfirmed = 0 if confirmed else self.unconfirmed + 1
        if self.unconfirmed > _PATIENCE:
            return nothing, 0.0
        mask = self._refine(view, evidence, moving, carried)
        growth = mask.sum() / max(carried.sum(), 1)
        if not 0.5 < growth < 1.8:
            mask = moving if 0.5 < moving.sum() / carried.sum() < 1.8 else carried
            return mask, 0.3
        agreement = (mask & carried).sum() / max((mask | carried).sum(), 1)
        return mask, float(np.clip(agreement + 0.1, 0.3, 0.9)) * (1.0 if confirmed else 0.6)

    def _refine(self, view: _View, evidence: _Evidence, moving: Array, carried: Array) -> Array:
        """GrabCut within the neighbourhood of what moves and what was carried."""
        support = moving | carried
        box = mask_box(support) if carried.any() or self.box is None else self.box
        if box is None:
            return support
        height, width = support.shape
        margin = 6 + 0.12 * max(box[2] - box[0], box[3] - box[1])
        x0, y0 = max(int(box[0] - margin), 0), max(int(box[1] - margin), 0)
        x1, y1 = min(int(box[2] + margin), width), min(int(box[3] + margin), height)
        region = np.s_[y0:y1, x0:x1]
        labels = self._labels(evidence, moving, carried, box)[region]
        if not ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).any() or not (labels == cv2.GC_BGD).any():
            return support
        iterations = 2 if carried.any() else 5
        labels = np.ascontiguousarray(labels)
        bgr = np.ascontiguousarray(view.image[region][..., ::-1])
        cv2.grabCut(bgr, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
        mask = np.zeros_like(support)
        mask[region] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        return self.chooser.pick(mask.astype(np.uint8) * 255, holes=0.02) > 0

    def _labels(self, evidence: _Evidence, moving: Array, carried: Array, box: Box) -> Array:
        """GrabCut's labels: what is surely or probably subject or background."""
        labels = np.full(moving.shape, cv2.GC_BGD, np.uint8)
        if not moving.any() and not carried.any():  # nothing but the user's box to go by
            x0, y0, x1, y1 = (max(round(value), 0) for value in box)
            labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
        elif evidence.known.any():  # the background is known: only the rim is in question
            labels[_dilated(moving, 5)] = cv2.GC_PR_BGD
            labels[_dilated(moving, 15) & carried & (evidence.weak | ~evidence.known)] = cv2.GC_PR_FGD
            labels[moving] = cv2.GC_PR_FGD
            labels[_eroded(moving, 3)] = cv2.GC_FGD
        else:
            near = _dilated(moving, 17) if moving.any() else _dilated(carried, 9)
            labels[near] = cv2.GC_PR_BGD
            labels[moving | (carried & near)] = cv2.GC_PR_FGD
            labels[_eroded(moving & carried if carried.any() else moving, 7)] = cv2.GC_FGD
        labels[self.still] = cv2.GC_BGD
        return labels


def _dilated(mask: Array, width: int) -> Array:
    return cv2.dilate(mask.astype(np.uint8), np.ones((width, width), np.uint8)) > 0


def _eroded(mask: Array, width: int) -> Array:
    return cv2.erode(mask.astype(np.uint8), np.ones((width, width), np.uint8)) > 0

"""Finds the subject of a moving camera: pixels that do not move with the background, refined by GrabCut. Uses OpenCV and numpy.

Neighbouring frames are aligned to each frame's background. Pixels that differ both from the frames just before and from those
just after move by themselves. If the background has moved far enough to reveal what is behind the subject, it is the median of
the neighbours, and the difference from it is the whole subject. Both seed GrabCut, together with the mask of the frame before,
moved by optical flow. Only the frames of a window are kept in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..arrays import Array, Pixels
from ..video.frame_source import FrameSource, Size, fit_size
from ..video.prefetch import prefetch
from .background_alignment import Chain, grey
from .matte import (
    Box,
    Picker,
    fill_holes,
    mask_box,
    masked_median,
    shade_vectors,
    shifted_difference,
)

_LONGEST = 320  # pixels of the longer side at work size
_REACH = 150  # neighbours are chosen from so many frames before and after
_SIDE = 6  # neighbours on each side
_NEAR = (2, 4, 7)  # distances in frames at which self-motion is measured
_ENOUGH = 5  # fewest neighbours whose median can be trusted
_SHADE = (0.88, 1.06)  # cube roots of how much the background may darken or brighten
_PATIENCE = 10  # frames for which a mask is carried on without any motion in it


@dataclass(eq=False)
class _FrameView:
    """A frame at work size. placed, guesses: the place of its background, from `Chain`. mask: the subject, once it is known."""

    time: float
    image: Pixels
    grey: Pixels
    placed: Array
    guesses: int
    mask: Pixels | None = None
    density: Pixels | None = None


def follow_subject(
    source: FrameSource, fixed: Pixels, box: Box | None, size: Size
) -> Generator[tuple[float, Pixels, float], None, None]:
    """Yield (time, soft matte at `size`, confidence) for each frame; the matte is zero if no subject is seen.

    fixed: (H, W) bool, pixels that never change (logos), at any size. box: the user's box in pixels at `size`.
    """
    small = fit_size(size, _LONGEST)
    ratio = small[0] / size[0]
    still = cv2.resize(fixed.astype(np.uint8), small, interpolation=cv2.INTER_AREA) > 0
    scaled = None if box is None else (box[0] * ratio, box[1] * ratio, box[2] * ratio, box[3] * ratio)
    tracker = _Tracker(still, scaled)
    # GrabCut uses the thread's random generator. A second clip must not depend on the first.
    cv2.setRNGSeed(0)
    with closing(prefetch(_windows_with_density(source, small, still))) as windows:
        yield from _track_windows(windows, tracker, size)


def _track_windows(
    windows: Iterable[tuple[list[_FrameView], int]], tracker: _Tracker, size: Size
) -> Generator[tuple[float, Pixels, float], None, None]:
    ready: list[tuple[Pixels, float]] | None = None
    for window, centre in windows:
        ready = tracker.begin(window) if ready is None else ready
        mask, quality = ready.pop(0) if ready else tracker.step(window, centre)
        soft = cv2.GaussianBlur(mask.astype(np.float32) * 255.0, (0, 0), 0.8)
        yield window[centre].time, cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8), quality


def _windows_with_density(source: FrameSource, size: Size, still: Pixels) -> Generator[tuple[list[_FrameView], int], None, None]:
    """As `_windows`, with the density of the centre computed, which does not depend on the masks before."""
    with closing(_windows(source, size, still)) as windows:
        for window, centre in windows:
            window[centre].density = _density(_self_motion(window, centre, still))
            yield window, centre


def _windows(source: FrameSource, size: Size, still: Pixels) -> Generator[tuple[list[_FrameView], int], None, None]:
    """Yield, for each frame, the views within reach and the index of the frame among them."""
    window: deque[_FrameView] = deque()
    centre = 0
    free = cv2.dilate(still.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    chain = Chain()
    with closing(source.frames(size)) as frames:
        for frame in frames:
            pixels = grey(frame.image)
            placed = chain.add(pixels, free)
            window.append(_FrameView(frame.time, frame.image, pixels, placed, chain.guesses))
            if len(window) - centre > _REACH:
                yield list(window), centre
                centre += 1
            if centre > _REACH:
                window.popleft()
                centre -= 1
    while centre < len(window):
        yield list(window), centre
        centre += 1


def _choose_neighbours(window: list[_FrameView], centre: int, extent: tuple[float, float]) -> list[int]:
    """Frames whose background has moved far enough to reveal it behind a subject of `extent` (width, height) in pixels."""
    height, width = window[0].grey.shape
    middle = np.array([width / 2, height / 2, 1.0])
    back = window[centre].placed
    shift = np.array([(back @ np.linalg.solve(view.placed, middle) - middle)[:2] for view in window])
    # 1 clears the subject
    cleared = np.max(np.abs(shift) / np.array(extent), axis=1)
    # a background that was guessed in between does not fit well enough
    cleared[[abs(view.guesses - window[centre].guesses) > 2 for view in window]] = 0.0
    sides = (range(centre - 1, -1, -1), range(centre + 1, len(window)))
    return sorted(set().union(*(_pick_displaced(side, cleared, 1.0, 0.6 * width / extent[0]) for side in sides)))


def _pick_displaced(side: range, shift: Array, least: float, most: float) -> set[int]:
    """Frames on one side of the centre, with even displacements from `least` to about `most`."""
    distances = shift[list(side)]
    if len(distances) == 0 or distances.max() < least:
        return set()
    targets = np.linspace(least, min(float(distances.max()), max(most, least)), _SIDE)
    return {side[int(np.argmax(distances >= target))] for target in targets}


@dataclass(frozen=True, eq=False)
class _Evidence:
    """Differences from the background, as (H, W) bool.

    strong, weak: pixels that surely or perhaps differ. known: pixels whose background is known, because it has texture or the
    subject has moved away from it.
    """

    strong: Pixels
    weak: Pixels
    known: Pixels


def _warp_to(other: _FrameView, view: _FrameView) -> tuple[Pixels, Pixels]:
    """-> the other frame's image, warped so that its background lies as in `view`, and (H, W) bool, its visible unmasked pixels."""
    size = (view.image.shape[1], view.image.shape[0])
    # a pixel of the other frame -> the first frame's background -> this frame
    motion = (view.placed @ np.linalg.inv(other.placed))[:2]
    free = np.ones(size[::-1], np.uint8) if other.mask is None else (~other.mask).astype(np.uint8)
    return cv2.warpAffine(other.image, motion, size), cv2.warpAffine(free, motion, size, flags=cv2.INTER_NEAREST) > 0


def _self_motion(window: list[_FrameView], centre: int, still: Pixels) -> Pixels:
    """(H, W) float: the colour difference from the frames just before or from those just after, whichever is less.

    Background that is covered or uncovered differs from one of them only. At the ends of the clip there is one side only, and its
    least difference is used.
    """
    view = window[centre]
    vectors = shade_vectors(view.image)
    sides: list[list[Pixels]] = [[], []]
    for side, sign in enumerate((-1, 1)):
        for offset in _NEAR:
            if 0 <= centre + sign * offset < len(window):
                image, inside = _warp_to(replace(window[centre + sign * offset], mask=None), view)
                inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
                sides[side].append(np.where(inside, shifted_difference(vectors, shade_vectors(image), _SHADE), 0.0))
    if sides[0] and sides[1]:
        least = np.minimum(np.maximum.reduce(sides[0]), np.maximum.reduce(sides[1]))
    else:
        least = np.minimum.reduce(sides[0] + sides[1])
    return np.where(still, 0.0, least).astype(np.float32)


def _density(moving: Pixels) -> Pixels:
    """(H, W) 0 to 1: the share of the neighbourhood that moves by itself. Plain surfaces show no motion, textures and outlines do."""
    noise = 2.0 * float(np.median(moving))
    return cv2.GaussianBlur(np.clip((moving - noise) / 12.0, 0.0, 1.0), (0, 0), 4.0)


def _find_evidence(window: list[_FrameView], centre: int, chosen: list[int], still: Pixels, seed: Pixels) -> _Evidence:
    """Find the pixels that differ from the median of the chosen frames, near those that move by themselves (`seed`).

    Elsewhere, differences are traces of the subject in those frames, or come from a background that is not flat.
    """
    view = window[centre]
    images, seen = zip(*(_warp_to(window[index], view) for index in chosen), strict=True)
    valid = np.stack(seen) & ~still
    backdrop, spread = masked_median(np.stack(images), valid)
    backdrop = _fit_backdrop(view, backdrop, ~_dilate(seed, 15))
    distance = np.where(still, 0.0, shifted_difference(shade_vectors(view.image), shade_vectors(backdrop), _SHADE))
    usual = np.minimum(cv2.blur(spread, (5, 5)), 20.0)
    known = valid.sum(axis=0) >= 2
    # opening removes outlines of the background that do not fit exactly: they are thin
    clear = cv2.morphologyEx((distance > 12.0 + usual).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    strong = _dilate(seed, 21) & (clear | (seed & (distance > 9.0 + 0.4 * usual)))
    return _Evidence(known & strong, known & (distance > 7.0 + 0.7 * usual), known)


def _fit_backdrop(view: _FrameView, backdrop: Pixels, free: Pixels) -> Pixels:
    """Warp the backdrop by a few pixels, because one map does not fit both near and far things.

    The optical flow is averaged over the surroundings. Only pixels in `free` count, so that the subject has no influence.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(view.grey, grey(backdrop), None)
    weight = cv2.blur(free.astype(np.float32), (41, 41)) + 1e-3
    smooth = cv2.blur(np.clip(flow, -5, 5) * free[..., None], (41, 41)) / weight[..., None]
    y, x = np.mgrid[: free.shape[0], : free.shape[1]].astype(np.float32)
    return cv2.remap(backdrop, x + smooth[..., 0], y + smooth[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


class _Tracker:
    """Finds the subject's mask frame by frame, and carries it from one frame to the next."""

    def __init__(self, still: Pixels, box: Box | None) -> None:
        self.still = still
        self.box = box
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.last: _FrameView | None = None
        self.mask: Pixels | None = None
        self.density = np.zeros(still.shape, np.float32)
        self.unconfirmed = 0

    def begin(self, window: list[_FrameView]) -> list[tuple[Pixels, float]]:
        """The results of the first frames, found backwards from one that has frames on both sides for comparison."""
        if self.box is not None:
            return []
        start = min(max(_NEAR) + 1, len(window) - 1)
        results = [self.step(window, start)]
        last, mask, density = self.last, self.mask, self.density
        for index in range(start - 1, -1, -1):
            results.insert(0, self.step(window, index))
        self.last, self.mask, self.density = last, mask, density
        return results

    def step(self, window: list[_FrameView], centre: int) -> tuple[Pixels, float]:
        """Find (mask, confidence) of the window's frame `centre`."""
        view = window[centre]
        carried = self._carry(view)
        density = _density(_self_motion(window, centre, self.still)) if view.density is None else view.density
        view.density = None  # not needed again
        self.density = np.maximum(self.density, density)
        usual = max(0.12, 0.3 * float(np.percentile(self.density, 99.5)))
        seed = self.density > usual
        wide = self._pick(self.density > 0.5 * usual, 0.15)
        box = mask_box(wide if carried is None else carried)
        margin = 1.0 if carried is None else 0.65  # a mask that is not confirmed may be too small
        chosen = (
            [] if box is None else _choose_neighbours(window, centre, (margin * (box[2] - box[0]), margin * (box[3] - box[1])))
        )
        if len(chosen) >= _ENOUGH:
            evidence = _find_evidence(window, centre, chosen, self.still, seed)
            moving = evidence.strong & _dilate(wide, 9)
            moving = fill_holes(moving, 0.05 * moving.sum())
        else:
            evidence = _Evidence(seed, seed, np.zeros_like(seed))
            solid = cv2.morphologyEx(seed.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8)) > 0
            moving = self._pick(fill_holes(solid, 0.02 * solid.size), 0.04)
        mask, quality = self._segment(view, evidence, moving, carried)
        view.mask = _dilate(mask, 9) if mask.any() else None
        self.last, self.mask = view, mask if mask.any() else None
        return mask, quality

    def _pick(self, mask: Pixels, reach: float) -> Pixels:
        """The subject's components, chosen by the place of the last mask. Does not change the tracker."""
        picker = Picker(self.box, previous=self.mask, reach=reach)
        return picker.pick(mask.astype(np.uint8) * 255, holes=0.05) > 0

    def _carry(self, view: _FrameView) -> Pixels | None:
        """The last mask, moved to this frame by optical flow. Moves and fades the density, too."""
        if self.last is None:
            return None
        flow = self.flow.calc(view.grey, self.last.grey, None)
        y, x = np.mgrid[: view.grey.shape[0], : view.grey.shape[1]].astype(np.float32)
        x, y = x + flow[..., 0], y + flow[..., 1]
        self.density = 0.85 * cv2.remap(self.density, x, y, cv2.INTER_LINEAR)
        return None if self.mask is None else cv2.remap(self.mask.astype(np.float32), x, y, cv2.INTER_LINEAR) > 0.5

    def _segment(self, view: _FrameView, evidence: _Evidence, moving: Pixels, carried: Pixels | None) -> tuple[Pixels, float]:
        nothing = np.zeros(moving.shape, bool)
        if carried is None or not carried.any():
            if self.box is None and moving.sum() < 2e-3 * moving.size:
                return nothing, 0.0
            return self._refine(view, evidence, moving, nothing), 0.7
        confirmed = (moving & carried).sum() > 0.25 * carried.sum()
        self.unconfirmed = 0 if confirmed else self.unconfirmed + 1
        if self.unconfirmed > _PATIENCE and self.box is None:
            return nothing, 0.0
        mask = self._refine(view, evidence, moving, carried)
        growth = mask.sum() / max(carried.sum(), 1)
        if not evidence.known.any() and not 0.5 < growth < 1.8:
            return carried, 0.3
        agreement = (mask & carried).sum() / max((mask | carried).sum(), 1)
        # if the background behind the subject was not seen, only colours separated the two
        sure = 0.9 if evidence.known.any() else 0.5
        return mask, float(np.clip(agreement + 0.1, 0.3, 1.0)) * sure * (1.0 if confirmed else 0.6)

    def _refine(self, view: _FrameView, evidence: _Evidence, moving: Pixels, carried: Pixels) -> Pixels:
        """Refine the mask by GrabCut, in the neighbourhood of the moving pixels and the carried mask."""
        support = moving | carried
        box = self.box if self.box is not None and not carried.any() else mask_box(support)
        if box is None:
            return support
        height, width = support.shape
        margin = 6 + (0.12 if carried.any() or self.box is None else 0.4) * max(box[2] - box[0], box[3] - box[1])
        x0, y0 = max(int(box[0] - margin), 0), max(int(box[1] - margin), 0)
        x1, y1 = min(int(box[2] + margin), width), min(int(box[3] + margin), height)
        region = np.s_[y0:y1, x0:x1]
        labels = self._labels(evidence, moving, carried, box)[region]
        if not ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).any() or not (labels == cv2.GC_BGD).any():
            return support
        iterations = 1 if evidence.known.any() else 2 if carried.any() else 4
        labels = np.ascontiguousarray(labels)
        bgr = np.ascontiguousarray(view.image[region][..., ::-1])
        cv2.grabCut(bgr, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), iterations, cv2.GC_INIT_WITH_MASK)
        mask = np.zeros_like(support)
        mask[region] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
        return _keep_touching(mask, support if support.any() else mask)

    def _labels(self, evidence: _Evidence, moving: Pixels, carried: Pixels, box: Box) -> Pixels:
        """GrabCut's labels (H, W): pixels that are surely or probably subject or background."""
        labels = np.full(moving.shape, cv2.GC_BGD, np.uint8)
        if self.box is not None and not carried.any():
            x0, y0, x1, y1 = (max(round(value), 0) for value in box)
            # a subject fills the middle of its box, rarely its corners
            ellipse = np.zeros_like(labels)
            cv2.ellipse(ellipse, (((x0 + x1) / 2, (y0 + y1) / 2), (0.85 * (x1 - x0), 0.85 * (y1 - y0)), 0.0), 1, -1)
            labels[y0:y1, x0:x1] = cv2.GC_PR_BGD
            labels[ellipse > 0] = cv2.GC_PR_FGD
        elif evidence.known.any():  # the background is known, only the rim is uncertain
            labels[_dilate(moving, 5)] = cv2.GC_PR_BGD
            labels[_dilate(moving, 15) & carried & (evidence.weak | ~evidence.known)] = cv2.GC_PR_FGD
            labels[moving] = cv2.GC_PR_FGD
            labels[_erode(moving, 3)] = cv2.GC_FGD
        elif self.box is not None:  # a subject that the user marked need not move
            labels[_dilate(carried, 13)] = cv2.GC_PR_BGD
            labels[carried] = cv2.GC_PR_FGD
            labels[_erode(carried, 5)] = cv2.GC_FGD
        else:  # a mask that began with motion fades where nothing moves
            near = _dilate(moving, 17) if moving.any() else _dilate(carried, 9)
            labels[near] = cv2.GC_PR_BGD
            labels[moving | (carried & near)] = cv2.GC_PR_FGD
            labels[_erode(moving & carried if carried.any() else moving, 7)] = cv2.GC_FGD
        labels[self.still] = cv2.GC_BGD
        return labels


def _keep_touching(mask: Pixels, support: Pixels) -> Pixels:
    """(H, W) bool: the components of the mask that overlap the support by at least a few pixels, with small holes filled."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    kept = np.bincount(labels[support], minlength=labels.max() + 1) >= 8
    kept[0] = False
    chosen = kept[labels]
    return fill_holes(chosen, 0.01 * chosen.sum())


def _dilate(mask: Pixels, width: int) -> Pixels:
    return cv2.dilate(mask.astype(np.uint8), np.ones((width, width), np.uint8)) > 0


def _erode(mask: Pixels, width: int) -> Pixels:
    return cv2.erode(mask.astype(np.uint8), np.ones((width, width), np.uint8)) > 0

"""Finds cuts in a video from the colours of neighbouring frames. Uses OpenCV and numpy."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
from scipy.ndimage import uniform_filter

from ..arrays import Array, Image
from ..video.clip import Clip

SMALL = (64, 36)  # pixels at which colours are counted
CUT = 0.45  # share of the colours that changes at a cut
RISE = 3.0  # and how many times as much as in the frames around it
AROUND = 8  # frames
FLASH = 3  # frames: what is as before so soon is no other shot


@dataclass(frozen=True)
class Shot:
    """A part of a video between two cuts. start, end: seconds in the file. frames: how many."""

    start: float
    end: float
    frames: int


class CutFinder:
    """Tells of frame after frame whether a cut lies before it, AROUND frames later.

    A cut changes many colours at once and for good: a flash is gone in the next frames, and a quick pan changes as much before and
    after.
    """

    def __init__(self) -> None:
        self._colours: deque[Array] = deque(maxlen=2 * AROUND + 1)
        self._changes: deque[float] = deque(maxlen=2 * AROUND + 1)
        self._count = 0

    def add(self, image: Image | None) -> int | None:
        """Add the next frame, (H, W, 3) uint8 RGB, or None after the last one. -> the index of a frame before which a cut lies."""
        colours = self._colours[-1] if image is None else colour_counts(image)
        self._changes.append(change(self._colours[-1], colours) if self._colours else 0.0)
        self._colours.append(colours)
        self._count += 1
        place = len(self._changes) - 1 - AROUND
        return self._count - 1 - AROUND if place > 0 and self._is_cut(place) else None

    def _is_cut(self, place: int) -> bool:
        here, others = self._changes[place], [*self._changes]
        del others[place]
        if here < CUT or here < RISE * float(np.median(others)) or here < max(others):
            return False
        colours = [*self._colours]
        pairs = product(colours[max(place - FLASH, 0) : place], colours[place : place + FLASH])
        return min(change(before, after) for before, after in pairs) >= CUT


def colour_counts(image: Image) -> Array:
    """(4, 512) float32: the shares of colours in the quarters of the image, in 8 x 8 x 8 bins of Lab. Each row sums to 1.

    Each colour counts in the bins around its own as well, so that a slight change of light is a slight change here.
    """
    small = cv2.cvtColor(cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2Lab)
    height, width = small.shape[0] // 2, small.shape[1] // 2
    counts = []
    for y in (0, height):
        for x in (0, width):
            part = np.ascontiguousarray(small[y : y + height, x : x + width])
            cube = cv2.calcHist([part], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3) / (height * width)
            counts.append(uniform_filter(cube, 3, mode="nearest").ravel())
    return np.stack(counts)


def change(before: Array, after: Array) -> float:
    """The share of colours that differs, 0 to 1."""
    return 1.0 - float(np.minimum(before, after).sum() / max(before.sum(), 1e-9))


class ShotFinder:
    """Splits a video at its cuts, from its frames in order. start: the trim range's, in seconds of the file."""

    def __init__(self, start: float) -> None:
        self._finder, self._start = CutFinder(), start
        self._times: list[float] = []
        self._cuts: set[int] = set()

    def add(self, time: float, image: Image) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, and its time in seconds of the file."""
        self._times.append(time)
        self._note(self._finder.add(image))

    def finish(self) -> list[Shot]:
        """Return the shots."""
        for _ in range(AROUND):
            self._note(self._finder.add(None))
        times, edges = self._times, [0, *sorted(self._cuts), len(self._times)]
        step = (times[-1] - times[0]) / max(len(times) - 1, 1)
        borders = [self._start, *((times[cut - 1] + times[cut]) / 2 for cut in edges[1:-1]), times[-1] + step / 2]
        return [Shot(borders[i], borders[i + 1], edges[i + 1] - edges[i]) for i in range(len(edges) - 1)]

    def _note(self, cut: int | None) -> None:
        if cut:
            self._cuts.add(cut)


def one_shot(clip: Clip, shots: Sequence[Shot]) -> tuple[Clip, str]:
    """Cut the clip down to one shot: that of the subject box, else the longest. -> the clip, and a sentence if it had several."""
    if len(shots) == 1:
        return clip, ""
    at = None if clip.box is None else clip.start if clip.box_time is None else clip.box_time
    chosen = max(shots, key=lambda shot: (at is not None and shot.start <= at < shot.end, shot.frames))
    why = "the longest" if at is None else "the one with the subject box"
    note = (
        f"The video has {len(shots)} shots: number {shots.index(chosen) + 1} was captured, {why}, from {chosen.start:.2f} to "
        f"{chosen.end:.2f} seconds. Trim the video to capture another."
    )
    # times of the frames count from the start of the range, so the box keeps its frame by its own time
    return replace(clip, start=chosen.start, end=clip.end if chosen is shots[-1] else chosen.end, box_time=at), note

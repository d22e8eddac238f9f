"""Joins the mattes of single frames to a track: finds lost frames, rates the others, and fills the gaps."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ..arrays import Array, Pixels
from .matte import mask_box


@dataclass
class Track:
    """The frames seen so far. boxes: (4,) in the mattes' pixels, nan if nothing was seen. mattes: PNG files.

    areas: in pixels. contact: the share of the box's outline where the subject touches the image's edge.
    """

    times: list[float] = field(default_factory=list)
    boxes: list[Array] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    contact: list[float] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    mattes: list[bytes] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)

    def append(self, time: float, matte: Pixels, quality: float) -> None:
        """Add a frame: its soft matte (H, W) uint8, and the confidence of the method that found it."""
        mask = matte >= 128
        box = mask_box(mask)
        self.times.append(time)
        self.boxes.append(np.full(4, np.nan) if box is None else np.array(box))
        self.areas.append(float(mask.sum()))
        self.contact.append(0.0 if box is None else _edge_contact(mask, box))
        self.quality.append(quality)
        self.mattes.append(encode_matte(matte))
        self.size = (matte.shape[1], matte.shape[0])


def encode_matte(matte: Pixels) -> bytes:
    """(H, W) uint8 -> a PNG file."""
    return cv2.imencode(".png", matte, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def decode_matte(data: bytes) -> Pixels:
    """A PNG file -> (H, W) uint8."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def _edge_contact(mask: Pixels, box: tuple[float, float, float, float]) -> float:
    edges = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return float(edges) / (2 * (box[2] - box[0] + box[3] - box[1]))


def complete_track(track: Track) -> tuple[Array, Array, list[bytes]] | None:
    """-> boxes (T, 4), confidence (T,) and mattes, without gaps; None if the subject is never seen.

    A lost frame's box is interpolated between the frames around it; before the first and after the last frame it stays the same.
    Its matte is that of the nearest frame, moved and scaled into the box.
    """
    boxes, areas = np.array(track.boxes), np.array(track.areas)
    found = ~np.isnan(boxes[:, 0])
    if not found.any():
        return None
    usual = _running_median(areas, found)
    reference = float(np.median(areas[found]))
    # an area far below the usual one is a stray remainder, not the subject
    found &= areas > 0.04 * np.maximum(usual, reference * 0.1)
    found &= ~_find_leaps(boxes, areas, found)
    confidence = np.where(found, _frame_confidence(track, boxes, areas, usual), 0.0)
    known = np.flatnonzero(found)
    times = np.array(track.times)
    full = np.stack([np.interp(times, times[known], boxes[known, side]) for side in range(4)], axis=1)
    mattes = list(track.mattes)
    for index in np.flatnonzero(~found):
        nearest = known[np.argmin(np.abs(times[known] - times[index]))]
        mattes[index] = encode_matte(_move_matte(decode_matte(track.mattes[nearest]), boxes[nearest], full[index]))
    return full, confidence, mattes


def _running_median(values: Array, found: NDArray[np.bool_], radius: int = 12) -> Array:
    """(T,) the median over the found frames nearby; over all found frames if there are none nearby."""
    known = np.flatnonzero(found)
    result = np.full(len(values), np.median(values[known]))
    for index in range(len(values)):
        near = known[np.searchsorted(known, index - radius) : np.searchsorted(known, index + radius, side="right")]
        if len(near):
            result[index] = np.median(values[near])
    return result


def _find_leaps(boxes: Array, areas: Array, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(T,) bool: frames whose box overlaps neither the box before nor the one after, while these two overlap each other."""
    leap = np.zeros(len(boxes), bool)
    known = np.flatnonzero(found)
    for before, here, after in zip(known, known[1:], known[2:], strict=False):
        if after - before <= 6 and not leap[before]:
            leap[here] = _boxes_apart(boxes[before], boxes[here]) and _boxes_apart(boxes[here], boxes[after])
            leap[here] &= not _boxes_apart(boxes[before], boxes[after])
    return leap


def _boxes_apart(a: Array, b: Array) -> bool:
    return bool((np.maximum(a[:2], b[:2]) >= np.minimum(a[2:], b[2:])).any())


def _frame_confidence(track: Track, boxes: Array, areas: Array, usual: Array) -> Array:
    """(T,) the method's confidence, lowered for subjects cut off at the edge, of few pixels, or of an unusual area."""
    ratio = np.minimum(areas, usual) / np.maximum(np.maximum(areas, usual), 1.0)
    steady = np.clip(0.15 + (ratio - 0.25) / 0.35, 0.15, 1.0)
    inside = np.clip(1.0 - 3.0 * np.array(track.contact), 0.15, 1.0)
    longest = np.nan_to_num(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))
    large = np.clip(longest / 40.0, 0.1, 1.0)
    return np.array(track.quality) * steady * inside * large


def _move_matte(matte: Pixels, source: Array, target: Array) -> Pixels:
    """Move and scale the matte so that the box `source` becomes the box `target`.

    x_target = x0_target + (x_source - x0_source) s, with pixel centres at +0.5: u' + 0.5 = t0 + (u + 0.5 - s0) s.
    """
    scale = (target[2:] - target[:2]) / np.maximum(source[2:] - source[:2], 1.0)
    offset = target[:2] + (0.5 - source[:2]) * scale - 0.5
    motion = np.array([[scale[0], 0.0, offset[0]], [0.0, scale[1], offset[1]]])
    return cv2.warpAffine(matte, motion, (matte.shape[1], matte.shape[0]), flags=cv2.INTER_LINEAR)

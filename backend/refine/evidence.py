"""What the video says of a subject's shape: distance to its matte, points of the matte, and where each point moves next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..arrays import Array

SIDE = 128  # pixels of the square around the subject that distances and flow are kept for
MARGIN = 1.4  # of that square, over the longer side of the subject's box
SAMPLES = 240  # points of a matte
INSIDE = 3.0  # pixels of the square from the outline from which flow is trusted
CONSISTENT = 1.5  # pixels of the square between a place and where the flow there and back leads
NEAR_EDGE = 4.0  # pixels of the square: a point of the matte this near to its outline is drawn three times as often


@dataclass(frozen=True, eq=False)
class Evidence:
    """T frames; positions are pixels of the video, x right and y down.

    squares: (T, 3) left, top and side of the square around the subject. distance: (T, SIDE, SIDE) pixels to the matte, 0 on it and
    where the image ends, since nothing is known there. samples: (T, M, 2) points of the matte. middle: (T, 3) x and y of its middle, and the root mean square distance from it. seen: (T,) 0..1, how much a frame
    counts: 0 where the subject was lost. size: the diagonal of the subject's box, a median over frames. flow: (T - 1, 2, SIDE,
    SIDE) pixels that what is seen at a place of a frame's square moves to the next frame. trusted: (T - 1, SIDE, SIDE) 0 or 1.
    """

    squares: Tensor
    distance: Tensor
    samples: Tensor
    middle: Tensor
    seen: Tensor
    size: float
    flow: Tensor | None = None
    trusted: Tensor | None = None

    def to(self, device: torch.device) -> Evidence:
        """The same on another device."""
        return Evidence(**{f.name: v.to(device) if isinstance(v := getattr(self, f.name), Tensor) else v for f in fields(self)})

    @property
    def pixel(self) -> float:
        """Pixels of the video that a pixel of the square is wide, a mean over the frames."""
        return float(self.squares[:, 2].mean()) / SIDE

    def outside(self, pixels: Tensor) -> Tensor:
        """Points (T, P, 2) -> (T, P) pixels to the matte, 0 on it."""
        place = self._in_square(pixels)
        inside = F.grid_sample(self.distance[:, None], place[:, None], padding_mode="border", align_corners=False)[:, 0, 0]
        # beyond the square the distance grows by the way to it
        beyond = (place.abs() - 1).clamp(min=0) * (self.squares[:, None, 2:] / 2)
        return inside + beyond.norm(dim=-1)

    def next_place(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Points (T - 1, P, 2) -> the place in the next frame of what is seen there (T - 1, P, 2), and its weight (T - 1, P)."""
        assert self.flow is not None and self.trusted is not None
        place = self._in_square(pixels, slice(0, -1))[:, None]
        moved = F.grid_sample(self.flow, place, padding_mode="border", align_corners=False)[:, :, 0].transpose(1, 2)
        weight = F.grid_sample(self.trusted[:, None], place, align_corners=False)[:, 0, 0]
        return pixels + moved, weight

    def _in_square(self, pixels: Tensor, frames: slice = slice(None)) -> Tensor:
        """Pixels -> -1..1 over each frame's square."""
        corner, side = self.squares[frames, None, :2], self.squares[frames, None, 2:]
        return (pixels - corner) / side * 2 - 1


class Observed:
    """Gathers what a video says, frame by frame, and gives it out in windows. Only the frames that are kept take memory, 0.3 MB each.

    size: the diagonal of the subject's box, a median over the clip.
    """

    def __init__(self, size: float) -> None:
        self.size, self.first = size, 0
        self._frames: list[_Seen] = []
        self._image: Array | None = None
        self._matte: Array = np.zeros((1, 1), np.uint8)

    def add(self, matte: Array, seen: float, box: Array, image: Array | None = None) -> None:
        """The next frame: its matte (H, W) uint8, the subject above 127, how much it counts, the subject's box, and its image for the flow."""
        side = max(float(np.max(box[2:] - box[:2])), 1.0) * MARGIN
        square = np.array([*((box[:2] + box[2:]) / 2 - side / 2), side])
        part = crop_square(matte, square)
        counts = seen if (part > 127).any() else 0.0
        samples = _points(part, 0.5) * side / SIDE + square[:2]
        middle = _middle(part) * side / SIDE + (*square[:2], 0.0)
        flow = None
        if self._image is not None and image is not None:
            flow = _flow(self._image, image, self._frames[-1].square, self._matte)
        self._frames.append(_Seen(square, _distance(part, square, matte.shape), samples, middle, counts, flow))
        self._image, self._matte = image, matte

    @property
    def end(self) -> int:
        """One past the last frame."""
        return self.first + len(self._frames)

    def window(self, start: int, end: int) -> Evidence:
        """The evidence of frames from `start` to before `end`."""
        frames = self._frames[start - self.first : end - self.first]
        flows = [frame.flow for frame in frames[1:]]
        known = [flow for flow in flows if flow is not None]
        whole = bool(flows) and len(known) == len(flows)
        return Evidence(
            squares=_float(np.stack([frame.square for frame in frames])),
            distance=_float(np.stack([frame.distance for frame in frames])),
            samples=_float(np.stack([frame.samples for frame in frames])),
            middle=_float(np.stack([frame.middle for frame in frames])),
            seen=_float(np.array([frame.seen for frame in frames])),
            size=self.size,
            flow=_float(np.stack([there for there, _ in known])) if whole else None,
            trusted=_float(np.stack([trusted for _, trusted in known])) if whole else None,
        )

    def forget(self, before: int) -> None:
        """Let go of frames that no window needs any more."""
        del self._frames[: max(before - self.first, 0)]
        self.first = max(self.first, before)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One frame of `Evidence`; flow: that from the frame before, and where it is trusted."""

    square: Array
    distance: Array
    samples: Array
    middle: Array
    seen: float
    flow: tuple[Array, Array] | None


def evidence_of(mattes: Sequence[Array], seen: Array, images: Sequence[Array] | None = None) -> Evidence:
    """mattes: T images (H, W) uint8, the subject above 127. seen: (T,) confidence; a frame without subject does not count.

    images: T images (H, W, 3) uint8 for the optical flow between neighbours, or None.
    """
    boxes = np.array([_box(matte) for matte in mattes])
    found = ~np.isnan(boxes).any(1)
    boxes = _filled(boxes, mattes[0].shape)
    observed = Observed(diagonal(boxes[found]))
    for index, matte in enumerate(mattes):
        observed.add(matte, float(seen[index]), boxes[index], None if images is None else images[index])
    return observed.window(0, len(mattes))


def diagonal(boxes: Array) -> float:
    """The median diagonal of boxes (T, 4); 1 if there is none."""
    return float(np.median(np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1))) if len(boxes) else 1.0


def _flow(first: Array, second: Array, square: Array, matte: Array) -> tuple[Array, Array]:
    """Flow (2, SIDE, SIDE) in pixels from one image (H, W, 3) to the next, and where it is trusted (DIS: Kroeger et al. 2016).

    Both images are cut out by the first one's square. Flow is trusted where the way there and back ends within CONSISTENT pixels, and
    INSIDE pixels within the first one's matte: at the outline it is a mean of the subject's movement and of what is behind it.
    """
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(
        0
    )  # the preset stops at half the size, where thin limbs mix with what is behind them: they seemed to move too little
    now, then = (cv2.cvtColor(crop_square(image, square), cv2.COLOR_RGB2GRAY) for image in (first, second))
    there, back = dis.calc(now, then, None), dis.calc(then, now, None)
    places = np.indices((SIDE, SIDE), np.float32)[::-1].transpose(1, 2, 0) + there
    returned = cv2.remap(back, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
    trusted = np.linalg.norm(there + returned, axis=-1) < CONSISTENT
    depth = cv2.distanceTransform((crop_square(matte, square) > 127).astype(np.uint8), cv2.DIST_L2, 5)
    return there.transpose(2, 0, 1) * (square[2] / SIDE), trusted * np.clip(depth / INSIDE, 0, 1)


def crop_square(image: Array, square: Array) -> Array:
    """The square (left, top, side) of an image at SIDE x SIDE pixels; 0 outside the image."""
    scale = SIDE / square[2]
    # pixels are areas: x' + 0.5 = scale (x + 0.5 - left)
    shift = 0.5 * scale - 0.5 - scale * square[:2]
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (SIDE, SIDE), flags=mode)


def _box(matte: Array) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero((matte > 127).any(1)), np.flatnonzero((matte > 127).any(0))
    if not len(rows):
        return (np.nan,) * 4
    return columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0


def _filled(boxes: Array, shape: tuple[int, ...]) -> Array:
    """Boxes of lost frames between those of the frames around them; the whole image if there are none."""
    found = np.flatnonzero(~np.isnan(boxes[:, 0]))
    if not len(found):
        return np.tile(np.array([0.0, 0.0, shape[1], shape[0]]), (len(boxes), 1))
    frames = np.arange(len(boxes))
    return np.stack([np.interp(frames, found, column[found]) for column in boxes.T], axis=1)


def _distance(part: Array, square: Array, shape: tuple[int, ...]) -> Array:
    if not (part > 127).any():
        return np.zeros((SIDE, SIDE), np.float32)
    away = cv2.distanceTransform(np.where(part > 127, 0, 255).astype(np.uint8), cv2.DIST_L2, 5) * (square[2] / SIDE)
    # the part of the square that the image does not reach
    places = square[:2] + (np.indices((SIDE, SIDE))[::-1].transpose(1, 2, 0) + 0.5) * (square[2] / SIDE)
    inside = (places >= 0).all(-1) & (places <= (shape[1], shape[0])).all(-1)
    return np.where(inside, away, 0)


def _points(part: Array, start: float) -> Array:
    """(SAMPLES, 2) places x, y on the matte, in pixels of the square; those near the outline and on thin parts more often.

    start: 0..1, of the first. They are evenly spaced along the rows, so those of a still subject do not jump from frame to frame.
    """
    mask = (part > 127).astype(np.uint8)
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.full((SAMPLES, 2), SIDE / 2.0)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)[rows, columns]
    weight = np.cumsum(np.where(depth < NEAR_EDGE, 3.0, 1.0))
    chosen = np.searchsorted(weight, (np.arange(SAMPLES) + start) / SAMPLES * weight[-1])
    return np.stack([columns[chosen], rows[chosen]], axis=1) + 0.5


def _middle(part: Array) -> Array:
    """(3,) the middle x, y of a matte and the root mean square distance from it, in pixels of the square."""
    mask = part > 127
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return np.array([SIDE / 2, SIDE / 2, 1.0])
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5, np.sqrt(columns.var() + rows.var())])


def _float(values: Array) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)

"""Finds all objects that stand out in a clip and keeps them apart over time: key frames by ISNet, the frames between by flow.

Goes through the clip once; the memory in use does not grow with its length, but for the compressed mattes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..arrays import Array, Image, Pixels
from ..video.frame_source import FrameSource, Size, shrink
from ..video.prefetch import prefetch
from .background_alignment import align_background
from .carrying import Cutting, FlowFinder, View, blended, chained, colour_error
from .labelling import Labeller
from .matte import Box, mask_box
from .sightings import Sighting, colours_of, importance
from .track import encode_matte

FindMatte = Callable[[Image], Image]  # a frame (H, W, 3) RGB -> the matte of what stands out in it, (h, w) uint8

STEP = 6  # frames from key frame to key frame, at most
LEAST = 3  # and at least, where the objects change
CHANGED = (
    8.0  # colour error of what was carried from the key frame, 0 to 255, above the background's, at which the next comes early
)
CLOSER = 1.6  # side of the crop for a second look, over the object's box
FOUND = 0.4  # overlap with what was expected that a second look must find
MISSED = 0.3  # share of an object that a key frame must show
INSIDE = 0.8  # share of an object inside the user's box that makes all of it the subject
PARTLY = 0.15  # and the share that makes its part inside the subject


@dataclass(eq=False)
class Film:
    """All that stands out in a clip, frame by frame. mattes, labels: PNG files (see `Cutting`). agreement: per frame and label, how
    alike the mattes are that were carried from the key frames before and after, 0 to 1; 1 on key frames.

    sightings: of each object on the key frames. keys: the number of key frames. chosen: the labels that the user's box chose.
    """

    times: list[float] = field(default_factory=list)
    mattes: list[bytes] = field(default_factory=list)
    labels: list[bytes] = field(default_factory=list)
    agreement: list[dict[int, float]] = field(default_factory=list)
    sightings: dict[int, list[Sighting]] = field(default_factory=dict)
    keys: int = 0
    chosen: set[int] = field(default_factory=set)
    labeller: Labeller = field(default_factory=Labeller)

    def add(self, time: float, cutting: Cutting, agreement: dict[int, float]) -> None:
        """Add the next frame."""
        self.times.append(time)
        self.mattes.append(encode_matte(cutting.matte))
        self.labels.append(encode_matte(cutting.labels))
        self.agreement.append(agreement)


@dataclass(eq=False)
class _Held:
    """A frame since the last key frame, whose own flow to it is `back`; `ahead` is its flow to the next frame."""

    time: float
    view: View
    back: Array | None = None
    ahead: Array | None = None


@dataclass(frozen=True)
class Request:
    """The subject that the user points at: a box in the mattes' pixels, and its time in seconds from the start of the clip."""

    box: Box
    time: float


class Follower:
    """Takes one frame after another, and fills the film. find: None if the mattes are given; all are key frames then."""

    def __init__(self, find: FindMatte | None, size: Size, step: int = STEP, request: Request | None = None) -> None:
        self.film = Film()
        self._find, self._size, self._step, self._request = find, size, step, request
        self._flow = FlowFinder()
        self._held: list[_Held] = []  # the last key frame first
        self._key: Cutting | None = None
        self._last: Image | None = None  # the last frame at full size, if it is no key frame

    def add(self, time: float, image: Image, matte: Image | None = None) -> None:
        """Add a frame, (H, W, 3) uint8 RGB at the video's size. matte: (H, W) uint8 of all that stands out, if it is known."""
        view, back = View.of(image), None
        if self._held:
            before = self._held[-1]
            before.ahead = self._flow.find(before.view, view)
            back = self._flow.find(view, before.view)
            back = back if before.back is None else chained(back, before.back)
        self._held.append(_Held(time, view, back))
        self._last = image
        if matte is not None or self._is_key():
            self._add_key(image, matte)

    def finish(self) -> Film:
        """Make the last frame a key frame, and return the film."""
        if self._last is not None and len(self._held) > 1:
            self._add_key(self._last)
        return self.film

    @property
    def frames_in_memory(self) -> int:
        """The frames that are held as images."""
        return len(self._held)

    def _is_key(self) -> bool:
        since = len(self._held) - 1
        if since == 0 or since >= self._step:
            return True
        if self._request is not None and self._held[-2].time < self._request.time <= self._held[-1].time:
            return True
        return since >= min(LEAST, self._step) and self._change() > CHANGED

    def _change(self) -> float:
        """How much more unlike the last key frame the objects are than the background, as the flow carries both here: the difference of
        the mean colour errors, 0 to 255."""
        key, here = self._held[0], self._held[-1]
        if self._key is None or here.back is None:
            return 0.0
        shown = self._key.pulled_small(here.back) >= 128
        if shown.all() or not shown.any():
            return 0.0
        error = colour_error(here.view, key.view, here.back)
        return float(error[shown].mean() - error[~shown].mean())

    def _add_key(self, image: Image, matte: Image | None = None) -> None:
        here = self._held[-1]
        carried = None if self._key is None or here.back is None else self._key.pulled(here.back)
        if matte is None:
            matte = self._second_look(image, self._look(image, self._size), carried)
        small = shrink(image, self._size)
        cutting = self.film.labeller.label(matte, carried, small)
        if self._request is not None and not self.film.chosen and here.time >= self._request.time:
            cutting = self._point_at(image, cutting, self._request.box)
        if self._key is not None:
            self._fill(self._key, cutting)
        self.film.add(here.time, cutting, {})
        self._note(cutting, small)
        self._key, self._held, self._last = cutting, [_Held(here.time, here.view)], None

    def _look(self, image: Image, size: Size) -> Image:
        assert self._find is not None
        return cv2.resize(self._find(image), size, interpolation=cv2.INTER_LINEAR)

    def _fill(self, before: Cutting, after: Cutting) -> None:
        """Add the frames between two key frames."""
        forward = None  # from the frame at hand to the later key frame
        between: list[tuple[_Held, Array]] = []
        for held in reversed(self._held[1:-1]):
            assert held.ahead is not None
            forward = held.ahead if forward is None else chained(held.ahead, forward)
            between.append((held, forward))
        first, last = self._held[0], self._held[-1]
        for held, forward in reversed(between):
            assert held.back is not None
            errors = colour_error(held.view, first.view, held.back), colour_error(held.view, last.view, forward)
            sides = before.pulled(held.back), after.pulled(forward)
            share = (held.time - first.time) / (last.time - first.time)
            self.film.add(held.time, blended(*sides, errors, share), _agreement(*sides))

    def _second_look(self, image: Image, matte: Image, carried: Cutting | None) -> Image:
        """Look at a crop for the object that mattered most so far, if the network has taken another for it in the whole frame."""
        label = self._leading()
        if carried is None or not label:
            return matte
        expected = carried.mask(label)
        box = mask_box(expected)
        if box is None or (matte[expected] >= 128).mean() >= MISSED:
            return matte
        closer = self._look_at(image, box)
        both, either = ((closer >= 128) & expected).sum(), ((closer >= 128) | expected).sum()
        return np.maximum(matte, closer) if both >= FOUND * either else matte

    def _leading(self) -> int:
        """The label that the user's box chose, or of the object that mattered most up to the last key frame."""
        if self.film.chosen:
            return min(self.film.chosen)
        scores = {label: sum(importance(one) for one in seen) for label, seen in self.film.sightings.items()}
        return max(scores, key=lambda label: scores[label], default=0)

    def _look_at(self, image: Image, box: Box) -> Image:
        """The matte of a crop around a box, (H, W) at the mattes' size; nothing outside the crop."""
        scale = np.array([image.shape[1] / self._size[0], image.shape[0] / self._size[1]])
        centre = np.array([box[0] + box[2], box[1] + box[3]]) / 2 * scale
        half = max((box[2] - box[0]) * scale[0], (box[3] - box[1]) * scale[1]) / 2 * CLOSER
        x0, y0 = np.maximum(np.floor(centre - half), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(centre + half), image.shape[1::-1]).astype(int)
        full = np.zeros(image.shape[:2], np.uint8)
        if x1 - x0 >= 2 and y1 - y0 >= 2:
            full[y0:y1, x0:x1] = self._look(np.ascontiguousarray(image[y0:y1, x0:x1]), (int(x1 - x0), int(y1 - y0)))
        return shrink(full, self._size)

    def _point_at(self, image: Image, cutting: Cutting, box: Box) -> Cutting:
        """Find which objects the user's box means. If none stands out there, take what does in a crop."""
        inside = np.zeros(cutting.matte.shape, bool)
        x0, y0, x1, y1 = (round(value) for value in box)
        inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = True
        labels, whole, part = cutting.labels.copy(), set[int](), np.zeros_like(inside)
        for label in range(1, self.film.labeller.last + 1):
            mask = cutting.mask(label)
            share = (mask & inside).sum() / max(mask.sum(), 1)
            if share >= INSIDE:
                whole.add(label)
            elif share >= PARTLY:
                part |= mask & inside
        area = sum(cutting.mask(label).sum() for label in whole)
        if self._find is not None and max(area, part.sum()) < 0.05 * inside.sum():
            closer = np.where(cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0, self._look_at(image, box), 0)
            cutting = Cutting(np.maximum(cutting.matte, closer.astype(np.uint8)), labels)
            part = closer >= 64
        if area >= part.sum():
            self.film.chosen = whole
            return cutting
        # the rest of those objects keeps its label; the user means what the box holds
        own = self.film.labeller.new()
        labels[inside] = own
        self.film.chosen = {own}
        return Cutting(cutting.matte, labels)

    def _note(self, cutting: Cutting, image: Image) -> None:
        """Note what each object looks like, how large, how central and how lively it is."""
        key, moving = self.film.keys, self._own_motion()
        self.film.keys += 1
        pixels = cutting.matte.size
        for label in range(1, self.film.labeller.last + 1):
            mask = cutting.mask(label)
            box = mask_box(mask)
            if box is None:
                continue
            seen = cv2.resize(mask.astype(np.uint8), moving.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            motion = float(moving[seen].mean()) if seen.any() else 0.0
            sighting = Sighting(key, self._held[-1].time, box, mask.sum() / pixels, self._size, motion, colours_of(image, mask))
            self.film.sightings.setdefault(label, []).append(sighting)

    def _own_motion(self) -> Pixels:
        """(h, w) pixels per frame, over the image's diagonal, that what is seen moves against the background."""
        if len(self._held) < 2:
            return np.zeros(self._held[-1].view.grey.shape, np.float32)
        before, here, flow = self._held[-2].view, self._held[-1].view, self._held[-2].ahead
        assert flow is not None
        background = align_background(before.grey, here.grey)
        if background is not None:
            height, width = here.grey.shape
            x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
            places = np.stack([x, y], axis=-1)
            flow = flow - (cv2.transform(places, background).astype(np.float32) - places)
        return np.linalg.norm(flow, axis=-1) / float(np.hypot(*here.grey.shape))


def _agreement(before: Cutting, after: Cutting) -> dict[int, float]:
    found = {}
    for label in np.union1d(np.unique(before.labels), np.unique(after.labels)):
        first, second = before.mask(int(label)), after.mask(int(label))
        either = (first | second).sum()
        if either:
            found[int(label)] = float((first & second).sum() / either)
    return found


def follow_film(
    source: FrameSource, find: FindMatte, size: Size, step: int = STEP, request: Request | None = None
) -> Generator[int, None, Film]:
    """Find the objects of a clip. Yields the number of frames done. size: (width, height) of the mattes."""
    follower = Follower(find, size, step, request)
    with closing(prefetch(source.frames())) as frames:
        for frame in frames:
            follower.add(frame.time, frame.image)
            yield len(follower.film.times)
    return follower.finish()

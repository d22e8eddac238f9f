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
from .carrying import Cutting, FlowFinder, View, blended, chained, colour_error, pulled
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
NEIGHBOURS = 0.6  # intersection over union of the key frames before and after, carried here, from which these may overrule
STRANGE = 0.15  # and how much less a key frame must agree with either
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


@dataclass(eq=False)
class _Pending:
    """A key frame that waits for the next one, which may show that the network was wrong. image: (H, W, 3) at the video's size. matte:
    (h, w) as the network gave it. way: the frames from the key frame before to this one."""

    image: Image
    matte: Image
    way: list[_Held]


class Follower:
    """Takes one frame after another, and fills the film. find: None if the mattes are given; all are key frames then."""

    def __init__(self, find: FindMatte | None, size: Size, step: int = STEP, request: Request | None = None) -> None:
        self.film = Film()
        self._find, self._size, self._step, self._request = find, size, step, request
        self._flow = FlowFinder()
        self._settled: Cutting | None = None  # of the last key frame but one
        self._pending: _Pending | None = None  # the last key frame
        self._held: list[_Held] = []  # the frames since, the key frame first
        self._last: Image | None = None  # the last frame at the video's size, if it is no key frame

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
        if self._pending is not None:
            self._settle(self._pending, None)
        return self.film

    @property
    def frames_in_memory(self) -> int:
        """The frames that are held as images."""
        return len(self._held) + (len(self._pending.way) if self._pending else 0)

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
        if self._pending is None or here.back is None:
            return 0.0
        height, width = here.view.grey.shape
        shown = pulled(cv2.resize(self._pending.matte, (width, height), interpolation=cv2.INTER_AREA), here.back) >= 128
        if shown.all() or not shown.any():
            return 0.0
        error = colour_error(here.view, key.view, here.back)
        return float(error[shown].mean() - error[~shown].mean())

    def _add_key(self, image: Image, matte: Image | None = None) -> None:
        here, found = self._held[-1], matte
        if found is None:
            found = self._look(image, self._size)
        if self._pending is not None:
            self._settle(self._pending, found)
        if matte is None and self._settled is not None and here.back is not None:
            found = self._second_look(image, found, self._settled.pulled(here.back))
        self._pending = _Pending(image, found, self._held)
        self._held, self._last = [_Held(here.time, here.view)], None

    def _settle(self, key: _Pending, after: Image | None) -> None:
        """Label a key frame, and add it to the film with the frames before it. after: what the network sees in the next key frame."""
        here = key.way[-1]
        carried = None if self._settled is None or here.back is None else self._settled.pulled(here.back)
        matte = key.matte
        if self._find is not None and carried is not None and after is not None:
            matte = _sensible(matte, carried.matte, pulled(after, self._way_ahead()))
        small = shrink(key.image, self._size)
        cutting = self.film.labeller.label(matte, carried, small)
        if self._request is not None and not self.film.chosen and here.time >= self._request.time:
            cutting = self._point_at(key.image, cutting, self._request.box)
        if self._settled is not None:
            self._fill(key.way, self._settled, cutting)
        self.film.add(here.time, cutting, {})
        self._note(key.way, cutting, small)
        self._settled = cutting

    def _way_ahead(self) -> Array:
        """The flow from the last key frame to the frame at hand."""
        way = None
        for held in reversed(self._held[:-1]):
            assert held.ahead is not None
            way = held.ahead if way is None else chained(held.ahead, way)
        assert way is not None
        return way

    def _look(self, image: Image, size: Size) -> Image:
        assert self._find is not None
        return cv2.resize(self._find(image), size, interpolation=cv2.INTER_LINEAR)

    def _fill(self, way: list[_Held], before: Cutting, after: Cutting) -> None:
        """Add the frames between two key frames, which are the first and the last of `way`."""
        forward = None  # from the frame at hand to the later key frame
        between: list[tuple[_Held, Array]] = []
        for held in reversed(way[1:-1]):
            assert held.ahead is not None
            forward = held.ahead if forward is None else chained(held.ahead, forward)
            between.append((held, forward))
        first, last = way[0], way[-1]
        for held, forward in reversed(between):
            assert held.back is not None
            errors = colour_error(held.view, first.view, held.back), colour_error(held.view, last.view, forward)
            sides = before.pulled(held.back), after.pulled(forward)
            share = (held.time - first.time) / (last.time - first.time)
            self.film.add(held.time, blended(*sides, errors, share), _agreement(*sides))

    def _second_look(self, image: Image, matte: Image, carried: Cutting) -> Image:
        """Look at a crop for the object that mattered most so far, if the network has taken another for it in the whole frame."""
        label = self._leading()
        if not label:
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

    def _note(self, way: list[_Held], cutting: Cutting, image: Image) -> None:
        """Note what each object looks like, how large, how central and how lively it is."""
        key, moving = self.film.keys, _own_motion(way)
        self.film.keys += 1
        pixels = cutting.matte.size
        for label in range(1, self.film.labeller.last + 1):
            mask = cutting.mask(label)
            box = mask_box(mask)
            if box is None:
                continue
            seen = cv2.resize(mask.astype(np.uint8), moving.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
            motion = float(moving[seen].mean()) if seen.any() else 0.0
            sighting = Sighting(key, way[-1].time, box, mask.sum() / pixels, self._size, motion, colours_of(image, mask))
            self.film.sightings.setdefault(label, []).append(sighting)


def _own_motion(way: list[_Held]) -> Pixels:
    """(h, w) pixels per frame, over the image's diagonal, that what is seen moves against the background at the end of `way`."""
    if len(way) < 2:
        return np.zeros(way[-1].view.grey.shape, np.float32)
    before, here, flow = way[-2].view, way[-1].view, way[-2].ahead
    assert flow is not None
    background = align_background(before.grey, here.grey)
    if background is not None:
        height, width = here.grey.shape
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        places = np.stack([x, y], axis=-1)
        flow = flow - (cv2.transform(places, background).astype(np.float32) - places)
    return np.linalg.norm(flow, axis=-1) / float(np.hypot(*here.grey.shape))


def _sensible(matte: Image, before: Image, after: Image) -> Image:
    """The network's matte, or what its neighbours, carried here, agree on where it fits neither of them."""
    own, first, second = matte >= 128, before >= 128, after >= 128
    agreed = _alike(first, second)
    if agreed < NEIGHBOURS or agreed < max(_alike(own, first), _alike(own, second)) + STRANGE:
        return matte
    return cv2.addWeighted(before, 0.5, after, 0.5, 0)


def _alike(first: Pixels, second: Pixels) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / max((first | second).sum(), 1))


def _agreement(before: Cutting, after: Cutting) -> dict[int, float]:
    found = {}
    for label in np.union1d(np.unique(before.labels), np.unique(after.labels)):
        first, second = before.mask(int(label)), after.mask(int(label))
        if first.any() or second.any():
            found[int(label)] = _alike(first, second)
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

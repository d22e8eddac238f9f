"""Shows which subject a capture would take, on a few frames, and which other objects it could be.

Where a subject is found without ISNet, or was kept by an earlier capture, the pictures show that subject itself. ISNet looks at single
frames instead, which takes seconds where the whole clip takes minutes; objects are matched from frame to frame by colour and place.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch

from ..arrays import Array, Image, Pixels
from ..video.clip import Clip
from ..video.frame_source import FrameSource, Size, fit_size, shrink
from ..video.reader import Frame, frame_times
from .backdrop_key import find_uniform
from .film import FindMatte, Follower, Request
from .matte import Box, mask_box
from .matte_finder import MatteFinder, uses_isnet
from .sightings import ALIKE, RESIZED, Sighting, choose_labels, colours_of, importance
from .subject import MATTE_SIDE, SURVEY, Subject, choose_method, request_of, survey, whole_finder
from .subject_cache import find_kept_subject
from .subject_range import with_matte_range
from .track import decode_matte

MOMENTS = 6  # frames to show, besides that of the user's box and those of candidates
LONGEST = 480  # pixels of the longer side of their pictures
SURVEYED = 0.3  # share of the work that going through the clip is
AWAY = 0.5  # how much a distance of the image's diagonal counts against likeness of colours, when objects are matched
COVERED = 0.3  # share of an object inside the subject from which it is a part of it
ALL = 100  # the unit of progress


@dataclass(frozen=True, eq=False)
class Shape:
    """An object on one frame. number: the same on all frames. box: x0, y0, x1, y1 in pixels of the file. matte: (h, w) uint8, 0 to 255,
    at the size of the picture."""

    number: int
    box: Box
    matte: Pixels


@dataclass(frozen=True, eq=False)
class Moment:
    """One frame. time: seconds of the file. image: (h, w, 3) uint8 RGB, left and right as in the file."""

    time: float
    image: Image
    shapes: tuple[Shape, ...]


@dataclass(frozen=True, eq=False)
class Preview:
    """What a capture would take. chosen: the number of the subject, 0 if nothing was found. others: the numbers of further objects that
    could be meant, the weightiest first. size: (width, height) of the file. source: the method, as `Subject.source` names it. note:
    a sentence about other shots, or ""."""

    moments: tuple[Moment, ...]
    chosen: int
    others: tuple[int, ...]
    size: Size
    source: str
    note: str


@dataclass(eq=False)
class _Seen:
    """An object on one frame before the objects are matched. own: whether it is known to be the subject; told: to be another one."""

    mask: Pixels
    sighting: Sighting
    own: bool = False
    told: bool = False
    number: int = 0


@dataclass(eq=False)
class _Look:
    """A frame at the size of the mattes, with its objects. time: seconds of the file."""

    time: float
    image: Image
    seen: list[_Seen] = field(default_factory=list)


def preview_subject(
    clip: Clip, device: torch.device, isnet: str = "", folder: str = ""
) -> Generator[tuple[int, int], None, Preview]:
    """Look at a few frames of what `find_subject` would look at. Yields (done, total). folder: of the kept subjects, "" for none.

    Raises UserError as `find_subject` does.
    """
    work = find_kept_subject(clip, device, isnet, folder)
    done, total = next(work)
    yield 0, ALL
    if done < total and uses_isnet(isnet):  # not kept
        preview = yield from _by_isnet(clip, device, isnet)
        if preview is not None:
            work.close()
            return preview
    with closing(work):
        while True:
            try:
                done, total = next(work)
            except StopIteration as stop:
                return _of_subject(stop.value)
            yield round(ALL * done / total), ALL


# ---- ISNet on single frames


def _by_isnet(clip: Clip, device: torch.device, isnet: str) -> Generator[tuple[int, int], None, Preview | None]:
    """-> None if another method finds the subject."""
    whole = FrameSource(with_matte_range(clip))
    size = fit_size(whole.size, MATTE_SIDE)
    passing = survey(whole, size)
    with closing(passing):
        while True:
            try:
                done, total = next(passing)
            except StopIteration as stop:
                one, note, samples = stop.value
                break
            yield round(ALL * SURVEYED * min(done / (SURVEY * total), 1.0)), ALL
    source = FrameSource(one)
    # a short shot of a long video may have too few of the samples, or none
    samples = samples or list(source.samples(MOMENTS, size))
    method = choose_method(source, samples, size)
    if method is not None:
        method[1].close()
        return None
    request = request_of(source, size)
    anchor = None if request is None else _first_index(source, request)
    indices = {*_spread(source.expected)} | ({anchor} - {None})
    find, looks = whole_finder(MatteFinder(device, isnet), source, samples, size), list[_Look]()
    for frame, before in _with_previous(source, indices):
        box = request.box if request is not None and frame.index == anchor else None
        looks.append(_look_at(frame, before, find, size, box))
        yield round(ALL * (SURVEYED + (1 - SURVEYED) * min(len(looks) / len(indices), 1.0))), ALL
    told = " ".join(filter(None, (note, *whole.report.sentences())))
    return _preview_of(looks, source, "isnet", told)


def _spread(count: int, wanted: int = MOMENTS) -> list[int]:
    """Indices that are evenly spread over `count` items, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist()


def _first_index(source: FrameSource, request: Request) -> int:
    """The index of the frame that the user's box is on."""
    if request.time <= 0:
        return 0
    times = np.array(list(frame_times(source.clip)))
    wanted = source.clip.start + request.time * source.clip.speed
    return int(min(np.searchsorted(times, wanted - 1e-6), len(times) - 1))


def _with_previous(source: FrameSource, indices: Iterable[int]) -> Generator[tuple[Frame, Frame | None], None, None]:
    """Yield the frames with these indices, at seconds of the file, each with the frame before it."""
    wanted = set(indices)
    previous: Frame | None = None
    with closing(source.frames(only=wanted | {index - 1 for index in wanted})) as frames:
        for frame in frames:
            if frame.index in wanted:
                near = previous is not None and previous.index == frame.index - 1
                yield replace(frame, time=frame.time * source.clip.speed + source.clip.start), previous if near else None
            previous = frame


def _look_at(frame: Frame, before: Frame | None, find: FindMatte, size: Size, box: Box | None) -> _Look:
    """The objects of one frame, told apart as in a film of it alone. The frame before says what moves against the background."""
    follower = Follower(find, size, 1, None if box is None else Request(box, 0.0))
    if before is not None:
        follower.add(-1.0, before.image, np.zeros(size[::-1], np.uint8))
    follower.add(0.0, frame.image)
    film = follower.finish()
    matte, labels, small = decode_matte(film.mattes[-1]) >= 128, decode_matte(film.labels[-1]), shrink(frame.image, size)
    look, own = _Look(frame.time, small), np.isin(labels, list(film.chosen)) & matte
    for label, sightings in film.sightings.items():
        mask = (labels == label) & matte
        if label not in film.chosen and mask.any():
            look.seen.append(_Seen(mask, sightings[-1]))
    if film.chosen and own.any():
        moved = max(film.sightings[label][-1].motion for label in film.chosen if label in film.sightings)
        look.seen.append(_Seen(own, _sighting(own, small, moved), own=True))
    return look


def _sighting(mask: Pixels, image: Image, motion: float = 0.0) -> Sighting:
    box = mask_box(mask)
    assert box is not None
    return Sighting(0, 0.0, box, float(mask.mean()), (mask.shape[1], mask.shape[0]), motion, colours_of(image, mask))


# ---- the subject itself


def _of_subject(subject: Subject) -> Preview:
    """A few frames of a subject that was found. On a uniform backdrop and in images with alpha, with the objects beside it."""
    assert subject.clip is not None
    clip, count = subject.clip, len(subject.times)
    source = FrameSource(clip)
    size = fit_size(source.size, MATTE_SIDE)
    times = subject.times * clip.speed + clip.start
    marked = [each.time for each in subject.others] + (
        [clip.start if clip.box_time is None else clip.box_time] if clip.box else []
    )
    indices = {*_spread(count), *(int(np.abs(times - time).argmin()) for time in marked)}
    with closing(source.frames(size, only=indices)) as read:
        frames = list(read)
    looks, backdrop = [], find_uniform(np.stack([frame.image for frame in frames])) if subject.source == "uniform" else None
    for frame in frames:
        look = _Look(float(times[frame.index]), frame.image)
        own = shrink(subject.matte(frame.index), size) >= 128
        if subject.confidence[frame.index] > 0 and own.any():
            look.seen.append(_Seen(own, _sighting(own, frame.image), own=True))
        raw = frame.alpha if subject.source == "alpha" else None if backdrop is None else backdrop.key(frame.image)
        if raw is not None:
            look.seen += _beside(own, raw, frame.image, size)
        looks.append(look)
    _add_candidates(looks, subject, np.array([size[0] / source.size[0], size[1] / source.size[1]] * 2))
    return _preview_of(looks, source, subject.source, subject.note)


def _beside(own: Pixels, raw: Pixels, image: Image, size: Size) -> list[_Seen]:
    """The objects of a key that are no part of the subject."""
    follower = Follower(None, size, 1)
    follower.add(0.0, image, raw)
    film, found = follower.finish(), []
    labels = decode_matte(film.labels[-1])
    for label, sightings in film.sightings.items():
        mask = (labels == label) & (raw >= 128)
        if mask.any() and (mask & own).sum() < COVERED * mask.sum():
            found.append(_Seen(mask, sightings[-1]))
    return found


def _add_candidates(looks: Sequence[_Look], subject: Subject, scale: Array) -> None:
    """Add the other objects that finding the subject told of, as the boxes that are known of them."""
    for each in subject.others:
        look = min(looks, key=lambda one: abs(one.time - each.time))
        mask = np.zeros(look.image.shape[:2], bool)
        x0, y0, x1, y1 = np.round(np.array(each.box) * scale).astype(int)
        mask[max(y0, 0) : y1, max(x0, 0) : x1] = True
        if mask.any():
            look.seen.append(_Seen(mask, _sighting(mask, look.image), told=True))


# ---- one object on several frames


def _preview_of(looks: Sequence[_Look], source: FrameSource, kind: str, note: str) -> Preview:
    known = _match(looks)
    chosen, _ = choose_labels(known, {}, {}, {1} if any(seen.own for look in looks for seen in look.seen) else ())
    subject = min(chosen, default=0)
    weights = {number: sum(map(importance, sightings)) for number, sightings in known.items() if number not in chosen}
    told = {*_told(known, chosen), *(seen.number for look in looks for seen in look.seen if seen.told)} - chosen
    others = tuple(sorted(told, key=lambda number: -weights[number]))
    moments = tuple(_moment(look, source, chosen, told, subject) for look in looks)
    return Preview(moments, subject, others, source.size, kind, note)


def _told(known: dict[int, list[Sighting]], chosen: set[int]) -> list[int]:
    """The numbers of the other objects of some weight, as `choose_labels` tells them."""
    found = []
    for number in known.keys() - chosen:
        alone = {label: sightings for label, sightings in known.items() if label in chosen or label == number}
        if choose_labels(alone, {}, {}, chosen)[1]:
            found.append(number)
    return found


def _match(looks: Sequence[_Look]) -> dict[int, list[Sighting]]:
    """Give the objects numbers, the same for what looks the same, the subject's being 1 where it is known. -> number: its sightings."""
    known: dict[int, list[Sighting]] = {}
    for key, look in enumerate(looks):
        for seen in look.seen:
            seen.sighting = replace(seen.sighting, key=key, time=look.time)
            if seen.own or seen.told:
                seen.number = 1 if seen.own else max([1, *known]) + 1
                known.setdefault(seen.number, []).append(seen.sighting)
    for look in looks:
        free = [seen for seen in look.seen if not seen.number]
        taken = {seen.number for seen in look.seen}
        pairs = [(_likeness(seen.sighting, known[number]), i, number) for i, seen in enumerate(free) for number in known]
        for alike, i, number in sorted(pairs, reverse=True):
            if alike > 0 and not free[i].number and number not in taken:
                free[i].number = number
                taken.add(number)
        for seen in free:
            seen.number = seen.number or max([1, *known]) + 1
            known.setdefault(seen.number, []).append(seen.sighting)
    return known


def _likeness(one: Sighting, others: Sequence[Sighting]) -> float:
    """How likely a sighting is of the object of the others, 0 or less if it is not: colours, size and place on the nearest frame."""
    nearest = min(others, key=lambda other: abs(other.time - one.time))
    alike = float(np.minimum(one.colours, nearest.colours).sum())
    ratio = one.area / max(nearest.area, 1e-9)
    if alike < ALIKE or not 1 / RESIZED < ratio < RESIZED:
        return 0.0
    centres = [np.array([box[0] + box[2], box[1] + box[3]]) / 2 for box in (one.box, nearest.box)]
    return alike - AWAY * float(np.linalg.norm(centres[0] - centres[1])) / float(np.hypot(*one.size))


def _moment(look: _Look, source: FrameSource, chosen: set[int], told: set[int], subject: int) -> Moment:
    """The picture of a frame with the subject and the objects of some weight, left and right as in the file."""
    mirror, size = source.clip.mirror, fit_size(source.size, LONGEST)
    scale = np.array([source.size[0] / look.image.shape[1], source.size[1] / look.image.shape[0]] * 2)
    shapes = []
    for seen in look.seen:
        if seen.number not in chosen | told:
            continue
        x0, y0, x1, y1 = (np.array(seen.sighting.box) * scale).tolist()
        box = (source.size[0] - x1, y0, source.size[0] - x0, y1) if mirror else (x0, y0, x1, y1)
        matte = cv2.resize(seen.mask.astype(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        shapes.append(Shape(subject if seen.number in chosen else seen.number, box, _turned(matte, mirror)))
    return Moment(look.time, _turned(shrink(look.image, size), mirror), tuple(shapes))


def _turned(image: Image, mirror: bool) -> Image:
    return np.ascontiguousarray(image[:, ::-1]) if mirror else image

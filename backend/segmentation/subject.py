"""Finds the subject of a clip: a matte, a box and a confidence per frame. Uses OpenCV, numpy and a small network."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch

from ..arrays import Array, Pixels
from ..errors import UserError
from ..video.clip import Clip
from ..video.frame_source import FrameSource, Size, fit_size, shrink
from ..video.reader import Frame, frame_times, image_files
from .backdrop_key import Static, Uniform, find_static, find_uniform
from .cutout_network import load_cutout
from .film import Film, FindMatte, Follower, Request, follow_film
from .matte import Box, Picker, sort_planes
from .matte_finder import MatteFinder, uses_isnet
from .moving_camera import follow_subject
from .scenery_key import find_scenery
from .shots import ShotFinder, one_shot
from .sightings import Candidate, choose_labels
from .subject_range import matte_at, matte_sequence, matte_times, with_matte_range
from .track import Track, complete_track, decode_matte
from .whole_subject import WholeSubject

MATTE_SIDE = 640  # pixels of the longer side of the stored mattes
SAMPLES = 40
SURVEY = 0.05  # share of the work that going through the clip at first is
ALIKE = 0.85  # agreement of the mattes from both sides that counts as full

# time, soft matte (zeros if the subject is not seen) and confidence of one frame
_Seen = tuple[float, Pixels, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a clip, frame by frame.

    times: (T,) seconds, as `read_frames` yields them. boxes: (T, 4) x0, y0, x1, y1 in the video's pixels (x1, y1 one past the
    last). confidence: (T,) 0 to 1; 0 if the subject was lost and the box and matte are interpolated. source: the method that
    found it, "alpha", "matte", "uniform", "isnet", "scenery", "static" or "grabcut". mattes: PNG files, perhaps at reduced size. size:
    (width, height) of the video, or None if the mattes are stored at full size. clip: the part of
    the clip that was looked at, one shot. note: a sentence about the other shots, or "". others: further objects that could be meant,
    the weightiest first, in the video's pixels and seconds of the file; known for "isnet" alone. lost: indices of the frames that the
    file lacks; their box and matte are interpolated.
    """

    times: Array
    boxes: Array
    confidence: Array
    source: str
    mattes: list[bytes]
    size: tuple[int, int] | None = None
    clip: Clip | None = None
    note: str = ""
    others: tuple[Candidate, ...] = ()
    lost: tuple[int, ...] = ()

    def matte(self, index: int) -> Pixels:
        """The matte of a frame: (H, W) uint8, 0 to 255, at the video's size."""
        stored = cv2.imdecode(np.frombuffer(self.mattes[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        if self.size is None or (stored.shape[1], stored.shape[0]) == self.size:
            return stored
        return cv2.resize(stored, self.size, interpolation=cv2.INTER_CUBIC)


def find_subject(clip: Clip, device: torch.device | None = None, isnet: str = "") -> Generator[tuple[int, int], None, Subject]:
    """Find the subject in every frame of one shot. Yields (done, total) in frames.

    Uses the first of these that suits the clip: the alpha of the images; the user's matte; a key of a uniform backdrop; ISNet on key
    frames, carried to the others by optical flow, where one object is held over time. Without ISNet: a key of open scenery, sky and
    ground, completed by a network, before which the subject may stay in place; the difference from a static background; motion
    relative to the background, refined by GrabCut.
    device: for ISNet, the CPU if not given. isnet: a file of it, "" for AnyRig's own, OFF for none.
    Raises UserError if the subject is never found or the matte does not fit the video, and as `read_frames` does.
    """
    clip = with_matte_range(clip)
    whole = FrameSource(clip)
    size = fit_size(whole.size, MATTE_SIDE)
    yield 0, whole.expected
    clip, note, samples = yield from survey(whole, size)
    source = FrameSource(clip) if note else whole
    samples = samples or list(source.samples(SAMPLES, size))  # a short shot of a long video
    expected = source.expected
    others: list[Candidate] = []
    method = choose_method(source, samples, size)
    if method is not None:
        kind, seen = method
    elif uses_isnet(isnet):
        finder = MatteFinder(device or torch.device("cpu"), isnet)
        find = whole_finder(finder, source, samples, size)
        film = yield from _counted(follow_film(source, find, size, finder.step, request_of(source, size)), expected)
        chosen, others = choose_labels(film.sightings, film.labeller.joined, film.labeller.met, film.chosen)
        kind, seen = "isnet", _film_mattes(film, chosen)
    else:
        kind, seen = _choose_older_method(source, samples, size)
    track = Track()
    with closing(seen):
        for time, matte, quality in seen:
            track.append(time, np.zeros_like(matte) if len(track.times) in source.report.lost else matte, quality)
            if kind != "isnet":  # whose work is done
                yield max(round(SURVEY * expected), min(len(track.times), expected)), expected
    yield expected, expected
    done = complete_track(track)
    if done is None:
        hint = "draw the subject box around it" if clip.box is None else "draw the subject box again"
        raise UserError(f"No subject was found in '{clip.path}': {hint}, or give a matte file.", fix="draw_box")
    boxes, confidence, mattes = done
    scale = np.array([source.size[0] / size[0], source.size[1] / size[1]] * 2)
    rivals = tuple(replace(each, box=_enlarged(each.box, scale), time=each.time * clip.speed + clip.start) for each in others)
    told = " ".join(filter(None, (note, *_told_of(whole, source))))
    lost = tuple(sorted(source.report.lost))
    return Subject(np.array(track.times), boxes * scale, confidence, kind, mattes, source.size, clip, told, rivals, lost)


def _told_of(whole: FrameSource, source: FrameSource) -> list[str]:
    """What to say of the file; of one shot alone, what that lacks."""
    return [*dict.fromkeys([*source.report.sentences(), *whole.report.notes])]


def frames_of(
    subject: Subject, clip: Clip, size: Size | None = None, only: Container[int] | None = None
) -> Generator[Frame, None, None]:
    """Yield the frames that a subject was found in, or those in `only`, shrunk to `size`.

    Raises UserError as `read_frames` does, and if the video is not as it was when the subject was found.
    """
    source = FrameSource(clip)
    changed = UserError(f"The video '{clip.path}' was changed while it was read: capture again.")
    with closing(source.frames(only=only)) as frames:
        for frame in frames:
            shape = (frame.image.shape[1], frame.image.shape[0])
            if frame.index >= len(subject.times) or (subject.size is not None and shape != tuple(subject.size)):
                raise changed
            yield frame if size is None else replace(frame, image=shrink(frame.image, size))
    if source.report.count != len(subject.times):
        raise changed


def whole_finder(finder: MatteFinder, source: FrameSource, samples: list[Frame], size: Size) -> FindMatte:
    """The network, completed by a key if the subject is before open scenery."""
    network = load_cutout()
    scenery = find_scenery(np.stack([sample.image for sample in samples]), network)
    return finder if scenery is None else WholeSubject(finder, scenery, network, source.size, size)


def survey(source: FrameSource, size: Size) -> Generator[tuple[int, int], None, tuple[Clip, str, list[Frame]]]:
    """Go through the trim range -> the clip cut down to one shot, a sentence about that, and evenly spread frames of it at `size`."""
    clip, finder = source.clip, ShotFinder(source.clip.start)
    every, samples = max(1, source.expected // SAMPLES), []
    with closing(source.prefetched()) as frames:
        for frame in frames:
            finder.add(frame.time * clip.speed + clip.start, frame.image)
            if frame.index % every == 0:
                alpha = None if frame.alpha is None else shrink(frame.alpha, size)
                samples.append(replace(frame, image=shrink(frame.image, size), alpha=alpha))
            yield round(SURVEY * min(frame.index + 1, source.expected)), source.expected
    # who gives mattes has chosen the part that they belong to
    one, note = (clip, "") if clip.matte is not None else one_shot(clip, finder.finish())
    low, high = one.start, math.inf if one.end is None else one.end
    return one, note, [each for each in samples if low <= each.time * clip.speed + clip.start < high]


def _counted(work: Generator[int, None, Film], expected: int) -> Generator[tuple[int, int], None, Film]:
    """Turn the number of frames done into (done, total)."""
    with closing(work):
        while True:
            try:
                yield max(round(SURVEY * expected), min(next(work), expected)), expected
            except StopIteration as stop:
                return stop.value


def request_of(source: FrameSource, size: Size) -> Request | None:
    """What the user's box asks for, in the mattes' pixels and in seconds of the clip."""
    clip = source.clip
    box = _scaled_box(_unmirrored_box(clip, source.size[0]), size, source.size)
    return None if box is None else Request(box, ((clip.box_time or clip.start) - clip.start) / clip.speed)


def _film_mattes(film: Film, chosen: set[int]) -> Generator[_Seen, None, None]:
    """Yield the subject's mattes out of a film's. Where the mattes carried from both sides differ, they are less certain."""
    for time, matte, labels, agreement in zip(film.times, film.mattes, film.labels, film.agreement, strict=True):
        own = np.where(np.isin(decode_matte(labels), list(chosen)), decode_matte(matte), 0)
        alike = max((agreement[label] for label in chosen & set(agreement)), default=1.0)
        yield time, own, float(np.clip(alike / ALIKE, 0.3, 1.0))


def _enlarged(box: Box, scale: Array) -> Box:
    x0, y0, x1, y1 = (np.array(box) * scale).tolist()
    return x0, y0, x1, y1


def choose_method(source: FrameSource, samples: list[Frame], size: Size) -> tuple[str, Generator[_Seen, None, None]] | None:
    """-> the method that suits the samples and needs no network, as `Subject.source` names it, and a generator of what it sees in
    each frame; None if there is none."""
    clip = source.clip
    box = _scaled_box(_unmirrored_box(clip, source.size[0]), size, source.size)
    request = request_of(source, size)
    later = request is not None and request.time > 0
    if _has_alpha(samples):
        if later:
            return "alpha", _pointed(_frames_with(source, size, partial(_alpha_matte, picker=None)), size, request)
        return "alpha", _frame_mattes(source, size, partial(_alpha_matte, picker=None if box is None else Picker(box)))
    if clip.matte is not None:
        mattes = _user_mattes(source, size)
        return "matte", _pointed(mattes, size, request) if later else _picked(mattes, None if box is None else Picker(box))
    images = np.stack([sample.image for sample in samples])
    backdrop = find_uniform(images)
    if backdrop is None:
        return None
    if later:
        return "uniform", _pointed(_frames_with(source, size, lambda frame: backdrop.key(frame.image)), size, request)
    return "uniform", _keyed(source, size, backdrop, Picker(box, find_fixed_parts(images, backdrop.key)), 0.002)


def _choose_older_method(source: FrameSource, samples: list[Frame], size: Size) -> tuple[str, Generator[_Seen, None, None]]:
    """As `choose_method`, with the methods that serve where ISNet is left out."""
    box = _scaled_box(_unmirrored_box(source.clip, source.size[0]), size, source.size)
    images = np.stack([sample.image for sample in samples])
    network = load_cutout()
    scenery = find_scenery(images, network)
    if scenery is not None:
        picker = Picker(box, find_fixed_parts(images, scenery.key))
        return "scenery", _frame_mattes(source, size, lambda frame: scenery.pick(frame.image, picker, 0.02, network))
    background = find_static(images)
    if background is not None:
        return "static", _keyed(source, size, background, Picker(box, find_fixed_parts(images, background.key)), 0.02)
    return "grabcut", follow_subject(source, find_overlays(images), box, size)


def _unmirrored_box(clip: Clip, width: int) -> Box | None:
    """The user's box in pixels of the frames that `read_frames` yields: for mirrored videos, x becomes width - x."""
    if clip.box is None or not clip.mirror:
        return clip.box
    x0, y0, x1, y1 = clip.box
    return width - x1, y0, width - x0, y1


def _scaled_box(box: Box | None, size: Size, full: Size) -> Box | None:
    """The box in pixels at `size`, from a box at the `full` size. Raises UserError if it lies outside the image."""
    if box is None:
        return None
    if box[0] >= full[0] or box[1] >= full[1] or box[2] <= 0 or box[3] <= 0:
        raise UserError(
            f"The subject box lies outside the image of {full[0]} x {full[1]} pixels: draw it around the subject.",
            fix="draw_box",
        )
    x, y = size[0] / full[0], size[1] / full[1]
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _has_alpha(samples: list[Frame]) -> bool:
    """True if most samples have an alpha that separates a subject from its surroundings. An opaque channel does not."""
    clear = [float((sample.alpha < 128).mean()) for sample in samples if sample.alpha is not None]
    return sum(0.005 < share for share in clear) > 0.5 * len(samples) and min(clear) < 0.9999


def _frame_mattes(source: FrameSource, size: Size, matte_of: Callable[[Frame], Pixels]) -> Generator[_Seen, None, None]:
    """Yield what a method sees that looks at each frame by itself, with full confidence."""
    with closing(source.prefetched(size)) as frames:
        for frame in frames:
            yield frame.time, matte_of(frame), 1.0


def _alpha_matte(frame: Frame, picker: Picker | None) -> Pixels:
    # A frame without alpha shows no subject.
    alpha = np.zeros(frame.image.shape[:2], np.uint8) if frame.alpha is None else frame.alpha
    return alpha if picker is None else picker.pick(alpha)


def _keyed(
    source: FrameSource, size: Size, backdrop: Uniform | Static, picker: Picker, holes: float
) -> Generator[_Seen, None, None]:
    return _frame_mattes(source, size, lambda frame: picker.pick(backdrop.key(frame.image), holes))


def unchanging_pixels(images: Pixels) -> Pixels:
    """(N, H, W, 3) samples -> (H, W) bool: the pixels that keep their colour all the time."""
    levels = sort_planes(images[:: max(1, len(images) // 16)])
    trim = len(levels) // 8
    return (levels[-1 - trim].astype(np.int16) - levels[trim]).max(axis=-1) <= 18


def find_overlays(images: Pixels) -> Pixels:
    """(N, H, W, 3) samples of a moving camera -> (H, W) bool: lettering and logos. Only their outlines stay in place."""
    image = cv2.cvtColor(np.median(images[:: max(1, len(images) // 16)], axis=0).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    outline = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 40
    kernel = np.ones((5, 5), np.uint8)
    fixed = cv2.morphologyEx((outline & unchanging_pixels(images)).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return cv2.dilate(fixed, kernel) > 0


def find_fixed_parts(images: Pixels, key: Callable[[Pixels], Pixels]) -> Pixels | None:
    """(N, H, W, 3) samples -> (H, W) bool: logos and the like, which never change; None if there is nothing else.

    The trunk of a subject that moves only its arms does not change either, but it is connected to parts that move.
    """
    masks = np.stack([key(image) >= 96 for image in images[:: max(1, len(images) // 16)]])
    still = (masks.mean(axis=0) > 0.9) & unchanging_pixels(images)
    count, parts = cv2.connectedComponents(still.astype(np.uint8))
    joined = np.array([_joined_parts(mask, still, parts, count) for mask in masks]).mean(axis=0)
    # a matte's components bridge the gaps of lettering
    kernel = np.ones((5, 5), np.uint8)
    fixed = cv2.morphologyEx((still & (joined < 0.5)[parts]).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    fixed = cv2.dilate(fixed, np.ones((3, 3), np.uint8)) > 0
    # if most samples show nothing else, the still parts are the subject
    moving = (masks & ~cv2.dilate(fixed.astype(np.uint8), kernel).astype(bool)).mean(axis=(1, 2))
    return fixed if fixed.any() and np.median(moving) > 5e-4 else None


def _joined_parts(mask: Pixels, still: Pixels, parts: Pixels, count: int) -> Pixels:
    """(count,) bool: the still parts that are connected to enough changing mask in this sample.

    A little is enough for a part that makes up most of the mask: an animal that stands and turns its head, a fish's trunk.
    """
    number, regions = cv2.connectedComponents(mask.astype(np.uint8))
    rim = cv2.dilate(still.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)  # the rim flickers with the compression
    changing = np.bincount(regions[mask & ~rim], minlength=number)
    around = np.zeros(count, np.int64)
    np.maximum.at(around, parts[mask & still], changing[regions[mask & still]])
    areas = np.bincount(parts.ravel(), minlength=count)
    return around > np.where(areas > 0.5 * mask.sum(), 0.02, 0.15) * areas


def _user_mattes(source: FrameSource, size: Size) -> Generator[tuple[Frame, Pixels], None, None]:
    """Yield each frame with the user's matte, given for the whole file or for the trim range, resized if its proportions are the video's.

    Raises UserError if their number or their proportions do not fit the video.
    """
    clip = source.clip
    given = FrameSource(Clip(matte_sequence(clip), mirror=clip.mirror))
    wanted = _matte_numbers(source, given)
    full, own = source.size, given.size
    if abs(own[0] / own[1] / (full[0] / full[1]) - 1) > 0.03:
        raise UserError(
            f"The matte '{clip.matte}' has {own[0]} x {own[1]} pixels where the video has {full[0]} x {full[1]}: "
            "give a matte of the same proportions.",
            fix="no_matte",
        )
    with closing(source.frames()) as frames, closing(given.frames(only=wanted)) as mattes:
        for frame, other in zip(frames, mattes, strict=False):
            matte = _matte_of(other)
            matte = shrink(matte, size) if matte.shape[1] > size[0] else cv2.resize(matte, size)
            yield frame, matte


def _matte_numbers(source: FrameSource, given: FrameSource) -> range:
    """Which of the given mattes belong to the frames of the trim range. Raises UserError if not every frame has one."""
    clip = source.clip
    first, count, total = source.range
    length = given.range[2]
    if _missing_images(given.clip) != _missing_images(clip):  # those of the video may have none either
        length -= _missing_images(given.clip)
    times = matte_times(clip)
    if times is not None and len(times) == length:
        shown = list(frame_times(clip))
        start, end = (matte_at(times, time, clip) for time in (shown[0], shown[-1]))
        if end - start + 1 == count:
            return range(start, end + 1)
    if length not in (count, total):
        raise UserError(
            f"The matte '{clip.matte}' has {length} frames where the video has {total}"
            + (f" ({count} within the trim range)" if count != total else "")
            + ": give one matte per frame.",
            fix="no_matte",
        )
    return range(first if length == total else 0, length)


def _missing_images(clip: Clip) -> int:
    """How many numbers an image sequence lacks; 0 for a video file."""
    files = image_files(clip)
    return len(files) - len(set(files))


def _picked(mattes: Generator[tuple[Frame, Pixels], None, None], picker: Picker | None) -> Generator[_Seen, None, None]:
    with closing(mattes):
        for frame, matte in mattes:
            yield frame.time, matte if picker is None else picker.pick(matte), 1.0


def _frames_with(
    source: FrameSource, size: Size, matte_of: Callable[[Frame], Pixels]
) -> Generator[tuple[Frame, Pixels], None, None]:
    with closing(source.prefetched(size)) as frames:
        for frame in frames:
            yield frame, matte_of(frame)


def _pointed(
    mattes: Generator[tuple[Frame, Pixels], None, None], size: Size, request: Request | None
) -> Generator[_Seen, None, None]:
    """Hold the object that the user's box on a later frame chooses, through mattes of everything there is."""
    follower = Follower(None, size, 1, request)
    with closing(mattes):
        for frame, matte in mattes:
            follower.add(frame.time, frame.image, matte)
    film = follower.finish()
    labeller = film.labeller
    yield from _film_mattes(film, choose_labels(film.sightings, labeller.joined, labeller.met, film.chosen)[0])


def _matte_of(frame: Frame) -> Pixels:
    """A frame of the user's matte: its alpha if that varies, else its brightness."""
    varied = frame.alpha is not None and bool(np.ptp(frame.alpha) > 0)
    return frame.alpha if varied and frame.alpha is not None else cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)

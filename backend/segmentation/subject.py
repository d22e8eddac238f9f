"""Finds the subject of a clip: a matte, a box and a confidence per frame. Uses OpenCV, numpy and a small network."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from ..arrays import Array, Pixels
from ..errors import UserError
from ..video.clip import Clip
from ..video.frame_source import FrameSource, Size, fit_size, shrink
from ..video.reader import Frame
from .backdrop_key import Static, Uniform, find_static, find_uniform
from .cutout_network import load_cutout
from .matte import Box, Picker, sort_planes
from .moving_camera import follow_subject
from .scenery_key import find_scenery
from .track import Track, complete_track

_LONGEST = 640  # pixels of the longer side of the stored mattes
_SAMPLES = 40

# time, soft matte (zeros if the subject is not seen) and confidence of one frame
_Seen = tuple[float, Pixels, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a clip, frame by frame.

    times: (T,) seconds, as `read_frames` yields them. boxes: (T, 4) x0, y0, x1, y1 in the video's pixels (x1, y1 one past the
    last). confidence: (T,) 0 to 1; 0 if the subject was lost and the box and matte are interpolated. source: the method that
    found it, "alpha", "matte", "uniform", "scenery", "static" or "grabcut". mattes: PNG files, perhaps at reduced size. size:
    (width, height) of the video, or None if the mattes are stored at full size.
    """

    times: Array
    boxes: Array
    confidence: Array
    source: str
    mattes: list[bytes]
    size: tuple[int, int] | None = None

    def matte(self, index: int) -> Pixels:
        """The matte of a frame: (H, W) uint8, 0 to 255, at the video's size."""
        stored = cv2.imdecode(np.frombuffer(self.mattes[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        if self.size is None or (stored.shape[1], stored.shape[0]) == self.size:
            return stored
        return cv2.resize(stored, self.size, interpolation=cv2.INTER_CUBIC)


def find_subject(clip: Clip) -> Generator[tuple[int, int], None, Subject]:
    """Find the subject in every frame. Yields (done, total) in frames.

    Uses the first of these methods that suits the clip: the alpha of the images; the user's matte; a key of a uniform backdrop; a
    key of open scenery, sky and ground, completed by a network, before which the subject may stay in place; the difference from a
    static background; motion relative to the background, refined by GrabCut.
    Raises UserError if the subject is never found or the matte does not fit the video, and as `read_frames` does.
    """
    source = FrameSource(clip)
    size = fit_size(source.size, _LONGEST)
    expected = source.expected
    yield 0, expected
    samples: list[Frame] = []
    with closing(source.samples(_SAMPLES, size)) as frames:
        for frame in frames:
            samples.append(frame)
            yield 0, expected
    kind, seen = _choose_method(source, samples, size)
    track = Track()
    with closing(seen):
        for time, matte, quality in seen:
            track.append(time, matte, quality)
            yield min(len(track.times), expected), expected
    yield expected, expected
    done = complete_track(track)
    if done is None:
        hint = "draw the subject box around it" if clip.box is None else "draw the subject box again"
        raise UserError(f"No subject was found in '{clip.path}': {hint}, or give a matte file.", fix="draw_box")
    boxes, confidence, mattes = done
    scale = np.array([source.size[0] / size[0], source.size[1] / size[1]] * 2)
    return Subject(np.array(track.times), boxes * scale, confidence, kind, mattes, source.size)


def _choose_method(source: FrameSource, samples: list[Frame], size: Size) -> tuple[str, Generator[_Seen, None, None]]:
    """-> the method that suits the samples, as `Subject.source` names it, and a generator of what it sees in each frame."""
    clip = source.clip
    box = _scaled_box(_unmirrored_box(clip, source.size[0]), size, source.size)
    if _has_alpha(samples):
        return "alpha", _frame_mattes(source, size, partial(_alpha_matte, picker=None if box is None else Picker(box)))
    if clip.matte is not None:
        return "matte", _user_mattes(source, FrameSource(Clip(clip.matte, mirror=clip.mirror)), size, box)
    images = np.stack([sample.image for sample in samples])
    backdrop = find_uniform(images)
    if backdrop is not None:
        return "uniform", _keyed(source, size, backdrop, Picker(box, find_fixed_parts(images, backdrop.key)), 0.002)
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


def _user_mattes(source: FrameSource, given: FrameSource, size: Size, box: Box | None) -> Generator[_Seen, None, None]:
    """Yield the user's mattes, given for the whole file or for the trim range, resized if the proportions are the video's.

    Raises UserError if their number or their proportions do not fit the video.
    """
    path = given.clip.path
    first, count, total = source.range
    length = given.range[2]
    if length not in (count, total):
        raise UserError(
            f"The matte '{path}' has {length} frames where the video has {total}"
            + (f" ({count} within the trim range)" if count != total else "")
            + ": give one matte per frame.",
            fix="no_matte",
        )
    full, own = source.size, given.size
    if abs(own[0] / own[1] / (full[0] / full[1]) - 1) > 0.03:
        raise UserError(
            f"The matte '{path}' has {own[0]} x {own[1]} pixels where the video has {full[0]} x {full[1]}: "
            "give a matte of the same proportions.",
            fix="no_matte",
        )
    picker = None if box is None else Picker(box)
    skipped = first if length == total else 0
    with closing(source.frames()) as frames, closing(given.frames(only=range(skipped, length))) as mattes:
        for frame, other in zip(frames, mattes, strict=False):
            matte = _matte_of(other)
            matte = shrink(matte, size) if matte.shape[1] > size[0] else cv2.resize(matte, size)
            yield frame.time, matte if picker is None else picker.pick(matte), 1.0


def _matte_of(frame: Frame) -> Pixels:
    """A frame of the user's matte: its alpha if that varies, else its brightness."""
    varied = frame.alpha is not None and bool(np.ptp(frame.alpha) > 0)
    return frame.alpha if varied and frame.alpha is not None else cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)

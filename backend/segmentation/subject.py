"""Where the subject is: a matte and a box per frame, with a confidence. OpenCV and numpy, and one small network (cutout.py)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..errors import UserError
from ..video.clip import Clip
from ..video.prefetch import prefetch
from ..video.reader import Array, Frame, frame_range, probe, read_frames
from .backdrop_key import Static, Uniform, find_static, find_uniform
from .cutout_network import Cutout, load_cutout
from .matte import Box, Picker, shrink, sort_planes, work_size
from .moving_camera import follow_subject
from .scenery_key import Scenery, find_scenery
from .track import Track, complete

_LONGEST = 640  # pixels of the longer side of the stored mattes
_SAMPLES = 40

# One frame's time and soft matte (zeros where the subject is not seen), and how sure the source is of it.
_Seen = tuple[float, Array, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of a clip, frame by frame.

    times: (T,) seconds, as `video.read_frames` gives them. boxes: (T, 4) x0, y0, x1, y1 in the video's pixels (x1, y1 one
    past the last). confidence: (T,) 0 to 1; 0 where the subject was lost, and the box and matte are interpolated.
    source: "alpha", "matte", "uniform", "scenery", "static" or "grabcut". mattes: PNG files, perhaps at reduced size. size: (width,
    height) of the video, or None if the mattes are stored at full size.
    """

    times: Array
    boxes: Array
    confidence: Array
    source: str
    mattes: list[bytes]
    size: tuple[int, int] | None = None

    def matte(self, index: int) -> Array:
        """(H, W) uint8, 0 to 255, at the video's size."""
        stored = cv2.imdecode(np.frombuffer(self.mattes[index], np.uint8), cv2.IMREAD_GRAYSCALE)
        if self.size is None or (stored.shape[1], stored.shape[0]) == self.size:
            return stored
        return cv2.resize(stored, self.size, interpolation=cv2.INTER_CUBIC)


def find_subject(clip: Clip) -> Generator[tuple[int, int], None, Subject]:
    """Yields (done, total) in frames and returns the Subject.

    The first source that fits is taken: the alpha of the images; the user's matte; a uniform backdrop; open scenery, sky and
    ground, before which the subject may stay in place (cut out by a network); a static background; else motion against it,
    refined by GrabCut.
    Raises UserError if the subject is never found or the matte does not fit the video, and what `read_frames` raises.
    """
    info = probe(clip)
    size = work_size(info.width, info.height, _LONGEST)
    end = info.duration if clip.end is None else min(clip.end, info.duration)
    expected = max(2, round((end - clip.start) * info.fps))
    every = max(1, expected // _SAMPLES)
    yield 0, expected
    samples: list[Frame] = []
    with closing(_small_frames(clip, size, every)) as frames:
        for frame in frames:
            samples.append(frame)
            yield 0, expected
    source, seen = _source(clip, samples, size, (info.width, info.height))
    track = Track()
    with closing(seen):
        for time, matte, quality in seen:
            track.append(time, matte, quality)
            yield min(len(track.times), expected), expected
    yield expected, expected
    return _subject(clip, source, track, (info.width, info.height), size)


def _small_frames(clip: Clip, size: tuple[int, int], every: int = 1) -> Generator[Frame, None, None]:
    with closing(read_frames(clip, every)) as frames:
        for frame in frames:
            yield _reduced(frame, size)


def _reduced(frame: Frame, size: tuple[int, int]) -> Frame:
    return replace(frame, image=shrink(frame.image, size), alpha=None if frame.alpha is None else shrink(frame.alpha, size))


def _source(
    clip: Clip, samples: list[Frame], size: tuple[int, int], full: tuple[int, int]
) -> tuple[str, Generator[_Seen, None, None]]:
    box = _scaled(_put_right(clip, full[0]), size, full)
    if _has_alpha(samples):
        return "alpha", _alpha(clip, size, box)
    if clip.matte is not None:
        return "matte", _given(clip, clip.matte, size, full, box)
    images = np.stack([sample.image for sample in samples])
    backdrop = find_uniform(images)
    if backdrop is not None:
        return "uniform", _keyed(clip, size, backdrop, images, box)
    network = load_cutout()
    scenery = find_scenery(images, network)
    if scenery is not None:
        return "scenery", _cut_out(clip, size, scenery, images, box, network)
    background = find_static(images)
    if background is not None:
        return "static", _keyed(clip, size, background, images, box)
    return "grabcut", follow_subject(clip, overlays(images), box, size)


def _put_right(clip: Clip, width: int) -> Box | None:
    """The user's box in pixels of the frames as `read_frames` gives them: x of the file is width - x of mirrored footage."""
    if clip.box is None or not clip.mirror:
        return clip.box
    x0, y0, x1, y1 = clip.box
    return width - x1, y0, width - x0, y1


def _scaled(box: Box | None, size: tuple[int, int], full: tuple[int, int]) -> Box | None:
    """The box in the work size's pixels."""
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
    """Whether most samples have an alpha that tells a subject from its surroundings: an opaque channel says nothing."""
    clear = [float((sample.alpha < 128).mean()) for sample in samples if sample.alpha is not None]
    return sum(0.005 < share for share in clear) > 0.5 * len(samples) and min(clear) < 0.9999


def _alpha(clip: Clip, size: tuple[int, int], box: Box | None) -> Generator[_Seen, None, None]:
    picker = Picker(box)
    with closing(prefetch(_small_frames(clip, size))) as frames:
        for frame in frames:
            # A frame stored without alpha, or opaque all over, does not say where the subject is.
            alpha = np.zeros(size[::-1], np.uint8) if frame.alpha is None else frame.alpha
            yield frame.time, alpha if box is None else picker.pick(alpha), 1.0


def _keyed(
    clip: Clip, size: tuple[int, int], backdrop: Uniform | Static, images: Array, box: Box | None
) -> Generator[_Seen, None, None]:
    picker = Picker(box, fixed_parts(images, backdrop.key))
    holes = 0.002 if isinstance(backdrop, Uniform) else 0.02
    with closing(prefetch(_small_frames(clip, size))) as frames:
        for frame in frames:
            yield frame.time, picker.pick(backdrop.key(frame.image), holes), 1.0


def _cut_out(
    clip: Clip, size: tuple[int, int], scenery: Scenery, images: Array, box: Box | None, network: Cutout
) -> Generator[_Seen, None, None]:
    picker = Picker(box, fixed_parts(images, scenery.key))
    with closing(prefetch(_small_frames(clip, size))) as frames:
        for frame in frames:
            yield frame.time, scenery.pick(frame.image, picker, 0.02, network), 1.0


def unchanging(images: Array) -> Array:
    """(N, H, W, 3) samples -> (H, W) bool: pixels that keep their colour all the time."""
    levels = sort_planes(images[:: max(1, len(images) // 16)])
    trim = len(levels) // 8
    return (levels[-1 - trim].astype(np.int16) - levels[trim]).max(axis=-1) <= 18


def overlays(images: Array) -> Array:
    """(N, H, W, 3) samples of a moving camera -> (H, W) bool: lettering and logos, which alone keep their outlines in place."""
    image = cv2.cvtColor(np.median(images[:: max(1, len(images) // 16)], axis=0).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    outline = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 40
    kernel = np.ones((5, 5), np.uint8)
    fixed = cv2.morphologyEx((outline & unchanging(images)).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return cv2.dilate(fixed, kernel) > 0


def fixed_parts(images: Array, key: Callable[[Array], Array]) -> Array | None:
    """(H, W) bool: logos and other things in front of the backdrop that never change; None if nothing but them is there.

    The still trunk of a subject that only moves its arms never changes either, but it is joined to what moves.
    """
    masks = np.stack([key(image) >= 96 for image in images[:: max(1, len(images) // 16)]])
    still = (masks.mean(axis=0) > 0.9) & unchanging(images)
    count, parts = cv2.connectedComponents(still.astype(np.uint8))
    joined = np.array([_joined(mask, still, parts, count) for mask in masks]).mean(axis=0)
    # Lettering is full of gaps that a matte's components bridge.
    kernel = np.ones((5, 5), np.uint8)
    fixed = cv2.morphologyEx((still & (joined < 0.5)[parts]).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    fixed = cv2.dilate(fixed, np.ones((3, 3), np.uint8)) > 0
    # Without anything else in most of the samples, what stands still is the subject.
    moving = (masks & ~cv2.dilate(fixed.astype(np.uint8), kernel).astype(bool)).mean(axis=(1, 2))
    return fixed if fixed.any() and np.median(moving) > 5e-4 else None


def _joined(mask: Array, still: Array, parts: Array, count: int) -> Array:
    """(count,) bool: which of the still parts hang together with a fair amount of changing mask in this sample.

    A little is enough for a part that is most of all there is: an animal that stands and turns its head, a fish's trunk.
    """
    number, regions = cv2.connectedComponents(mask.astype(np.uint8))
    rim = cv2.dilate(still.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)  # flickers with the compression
    changing = np.bincount(regions[mask & ~rim], minlength=number)
    around = np.zeros(count, np.int64)
    np.maximum.at(around, parts[mask & still], changing[regions[mask & still]])
    areas = np.bincount(parts.ravel(), minlength=count)
    return around > np.where(areas > 0.5 * mask.sum(), 0.02, 0.15) * areas


def _given(clip: Clip, path: str, size: tuple[int, int], full: tuple[int, int], box: Box | None) -> Generator[_Seen, None, None]:
    """The user's matte, for the whole file or for the trim range alone; resized if its proportions are the video's."""
    first, count, total = frame_range(clip)
    length = frame_range(Clip(path))[2]
    if length not in (count, total):
        raise UserError(
            f"The matte '{path}' has {length} frames where the video has {total}"
            + (f" ({count} within the trim range)" if count != total else "")
            + ": give one matte per frame.",
            fix="no_matte",
        )
    info = probe(Clip(path))
    if abs(info.width / info.height / (full[0] / full[1]) - 1) > 0.03:
        raise UserError(
            f"The matte '{path}' has {info.width} x {info.height} pixels where the video has {full[0]} x {full[1]}: "
            "give a matte of the same proportions.",
            fix="no_matte",
        )
    picker = Picker(box)
    given = _matte_frames(Clip(path, mirror=clip.mirror), first if length == total else 0)
    with closing(read_frames(clip)) as frames, closing(given) as mattes:
        for frame, matte in zip(frames, mattes, strict=False):
            matte = shrink(matte, size) if matte.shape[1] > size[0] else cv2.resize(matte, size)
            yield frame.time, matte if box is None else picker.pick(matte), 1.0


def _matte_frames(matte: Clip, skipped: int) -> Generator[Array, None, None]:
    with closing(read_frames(matte)) as frames:
        for frame in frames:
            if frame.index >= skipped:
                varied = frame.alpha is not None and bool(np.ptp(frame.alpha) > 0)
                yield frame.alpha if varied and frame.alpha is not None else cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)


def _subject(clip: Clip, source: str, track: Track, full: tuple[int, int], size: tuple[int, int]) -> Subject:
    done = complete(track)
    if done is None:
        hint = "draw the subject box around it" if clip.box is None else "draw the subject box again"
        raise UserError(f"No subject was found in '{clip.path}': {hint}, or give a matte file.", fix="draw_box")
    boxes, confidence, mattes = done
    scale = np.array([full[0] / size[0], full[1] / size[1]] * 2)
    return Subject(np.array(track.times), boxes * scale, confidence, source, mattes, full)

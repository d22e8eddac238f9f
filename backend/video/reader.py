"""Reads frames with timestamps from video files and image sequences, and writes videos. Uses OpenCV and numpy only."""

from __future__ import annotations

import stat
from collections.abc import Container, Generator, Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from ..arrays import Image
from ..errors import UserError
from ..whole_file import whole_file
from .clip import Clip
from .image_sequence import decode_sequence, frame_files, is_sequence
from .steps import Report, Step
from .video_file import decode_video, name_for_opencv, stated_length

SEQUENCE_FPS = 24.0
SMALLEST = 16  # pixels of a frame's shorter side
NARROWEST = 12  # times that the longer side is as long
_TOLERANCE = 1e-4  # seconds, of the trim range


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels as shown, frames per second (the mean if the rate varies), frame count, and duration in seconds."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame. index: from 0 within the trim range. time: seconds from the trim start, divided by the clip's speed.

    image: (H, W, 3) uint8 RGB. alpha: (H, W) uint8, or None if the file has none. lost: the file has no image for this time, or a damaged
    one, and this is that of a neighbour.
    """

    index: int
    time: float
    image: Image
    alpha: Image | None
    lost: bool = False


def probe(clip: Clip) -> VideoInfo:
    """Look up size, rate and length of the whole file, without trim range and speed factor.

    The frame count is the one that the container states. If it states none, the frames are counted.
    """
    path = _existing_path(clip.path)
    with closing(read_frames(clip if clip.end is None and not clip.start else Clip(clip.path, fps=clip.fps))) as frames:
        height, width = next(frames).image.shape[:2]
    if is_sequence(path):
        fps = clip.fps or SEQUENCE_FPS
        count = len(frame_files(path, fps))
    else:
        rate, count = stated_length(path)
        fps = clip.fps or rate
    if count < 1:
        with closing(_decode_steps(clip)) as steps:
            count = sum(1 for _ in steps)
    return VideoInfo(width, height, fps, count, count / fps)


def read_frames(
    clip: Clip, every: int = 1, only: Container[int] | None = None, report: Report | None = None
) -> Generator[Frame, None, None]:
    """Yield the frames within the trim range (start included, end not), with strictly increasing times.

    every: fetch each n-th frame only. only: fetch the frames with these indices only. Indices and times stay those of all frames.
    report: is told what the file lacks; without it that stays untold. Shows frames as the file says (turned, mirrored, cropped, pixels
    made square), and swaps left and right of mirrored videos. Frames inside the file that cannot be decoded, and missing numbers of
    a sequence, are `lost`. Only image files have alpha: OpenCV does not read that of video files. Raises UserError: file missing,
    unreadable, undecodable, cut off, without frames; fewer than 2 frames within the trim range; images of different size, or of a few
    pixels.
    """
    report = report or Report()
    before: Image | None = None
    index = 0
    last = 0.0
    with closing(_decode_steps(clip, report)) as steps:
        for step in steps:
            last = step.time
            if clip.end is not None and step.time >= clip.end - _TOLERANCE:
                break
            if step.time < clip.start - _TOLERANCE:
                continue
            if step.lost:
                report.lost[index] = step.time
            if index % every == 0 and (only is None or index in only):
                fetched = step.fetch()
                if fetched is None:
                    report.lost[index] = step.time
                before = _checked(clip, index, before if fetched is None else fetched, before)
                image, alpha = _split_alpha(cv2.flip(before, 1) if clip.mirror else before)
                yield Frame(index, max(step.time - clip.start, 0.0) / clip.speed, image, alpha, index in report.lost)
            index += 1
    report.count = index
    if index < 2:
        raise UserError(_short_message(clip, index, last), fix="whole_video" if clip.start or clip.end else "choose_video")


def _checked(clip: Clip, index: int, image: Image | None, before: Image | None) -> Image:
    """The image of a frame. Raises UserError if there is none, if it is too small, or of another size than the one before."""
    if image is None:
        raise UserError(
            f"Frame {index} of the video '{clip.path}' is damaged: trim it away or convert the video again.", fix="convert"
        )
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST:
        raise UserError(
            f"'{clip.path}' has {width} x {height} pixels, and at least {SMALLEST} x {SMALLEST} are needed: choose a larger one.",
            fix="choose_video",
        )
    if max(height, width) > NARROWEST * min(height, width):
        raise UserError(
            f"'{clip.path}' has {width} x {height} pixels, more than {NARROWEST} times as many one way as the other: crop it.",
            fix="choose_video",
        )
    if before is not None and (height, width) != before.shape[:2]:
        raise UserError(_size_message(clip, index, image.shape, before.shape))
    return image


def frame_range(clip: Clip) -> tuple[int, int, int]:
    """Count decoded frames -> (frames before the trim range, frames within it, frames of the file)."""
    first = count = total = 0
    with closing(_decode_steps(clip)) as steps:
        for step in steps:
            total += 1
            if step.time < clip.start - _TOLERANCE:
                first += 1
            elif clip.end is None or step.time < clip.end - _TOLERANCE:
                count += 1
    return first, count, total


def frame_times(clip: Clip) -> Generator[float, None, None]:
    """Yield the times of the frames within the trim range, in seconds of the file, without decoding them where that can be avoided."""
    with closing(_decode_steps(clip)) as steps:
        for step in steps:
            if clip.end is not None and step.time >= clip.end - _TOLERANCE:
                break
            if step.time >= clip.start - _TOLERANCE:
                yield step.time


def image_files(clip: Clip) -> list[Path]:
    """The image file of each frame of an image sequence, without trimming; empty for a video file. A missing one is the one before it.

    Raises UserError.
    """
    path = _existing_path(clip.path)
    return [file for file, _ in frame_files(path, clip.fps or SEQUENCE_FPS)] if is_sequence(path) else []


def write_video(path: str | Path, frames: Iterable[Image], fps: float) -> None:
    """Write (H, W, 3) uint8 RGB images of one size as MPEG-4 in an mp4 file.

    The codec needs even sides, so an odd last row or column is repeated once. Raises UserError if the file cannot be written.
    """
    for _ in video_steps(path, frames, fps):
        pass


def video_steps(path: str | Path, frames: Iterable[Image], fps: float) -> Generator[int, None, None]:
    """As `write_video`, but yields the number of frames written so far. Closing it early leaves no video."""
    images = (_even_bgr(frame) for frame in frames)
    first = next(images, None)
    if first is None:
        raise UserError(f"The video '{path}' would be empty: there are no frames to write.")
    size = (first.shape[1], first.shape[0])
    with whole_file(path, "video") as part:
        with name_for_opencv(part.parent) as folder:
            writer = cv2.VideoWriter(f"{folder}/{part.name}", cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        try:
            if not writer.isOpened():
                raise UserError(f"The video '{path}' cannot be written: choose an existing folder and a name ending in .mp4.")
            for index, image in enumerate(chain([first], images)):
                if (image.shape[1], image.shape[0]) != size:
                    raise ValueError(f"frame of {image.shape[1]} x {image.shape[0]} in a video of {size[0]} x {size[1]}")
                writer.write(image)
                yield index + 1
        finally:
            writer.release()
        if _written_frames(part) != index + 1:
            raise UserError(f"The video '{path}' cannot be written to its end: make room on the disk.")


def _written_frames(path: Path) -> int:
    try:
        return stated_length(path)[1]
    except UserError:
        return 0


def _even_bgr(frame: Image) -> Image:
    height, width = frame.shape[:2]
    image = cv2.cvtColor(np.ascontiguousarray(frame, dtype=np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def _existing_path(name: str) -> Path:
    """The path of a file or folder. Raises UserError for one that does not exist, and for pipes and devices, which may never end."""
    path = Path(name)
    try:
        mode = path.stat().st_mode if name else 0
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the name
        mode = 0
    except OSError as error:
        raise UserError(f"The video '{name}' cannot be read ({error.strerror}): check its path.", fix="choose_video") from error
    if not mode:
        raise UserError(f"The video '{name}' does not exist: choose the file again.", fix="choose_video")
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"The video '{name}' is a pipe or a device: save it as a file, and choose that.", fix="choose_video")
    return path


def _decode_steps(clip: Clip, report: Report | None = None) -> Generator[Step, None, None]:
    """Yield a step for every frame of the file, at least one. Times start at 0 and strictly increase."""
    path, report = _existing_path(clip.path), report or Report()
    if is_sequence(path):
        return decode_sequence(path, clip.fps or SEQUENCE_FPS, report)
    return decode_video(path, clip.fps, report)


def _split_alpha(image: Image) -> tuple[Image, Image | None]:
    """A grey, BGR or BGRA image -> RGB, and alpha or None."""
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None
    if image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(image[:, :, 3])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None


def _size_message(clip: Clip, index: int, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    path = Path(clip.path)
    name = f"image '{image_files(clip)[frame_range(clip)[0] + index].name}'" if is_sequence(path) else f"frame {index}"
    return (
        f"In '{clip.path}' the {name} has {found[1]} x {found[0]} pixels where the first has {expected[1]} x {expected[0]}: "
        "bring all to one size, or remove those that do not belong."
    )


def _short_message(clip: Clip, frames: int, last: float) -> str:
    if clip.start > 0 and frames == 0 and last < clip.start:
        return f"The trim range starts at {clip.start:g} s, after the last frame of '{clip.path}' at {last:.2f} s: start earlier."
    if clip.start > 0 or clip.end is not None:
        return f"The trim range leaves {frames} of the frames of '{clip.path}', and at least 2 are needed: make the range longer."
    if is_sequence(Path(clip.path)):
        return f"The image sequence '{clip.path}' has {frames} frame, and at least 2 are needed: choose a folder of images."
    return f"The video '{clip.path}' has {frames} frame, and at least 2 are needed: choose a longer one."

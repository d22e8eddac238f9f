"""Reads frames with timestamps from video files and image sequences, and writes videos. Uses OpenCV and numpy only."""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Callable, Container, Generator, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from ..arrays import Image
from ..errors import UserError
from .clip import Clip

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".tga", ".exr", ".hdr"})
SEQUENCE_FPS = 24.0
_VIDEO_FPS = 30.0  # if the file states no rate
_TOLERANCE = 1e-4  # seconds, of the trim range

# One step of a decoder: the frame's time in the file in seconds, and a function that fetches its image (BGR, BGRA or grey).
# Frames outside the trim range are skipped without fetching them.
_DecodeStep = tuple[float, Callable[[], Image]]

# by CAP_PROP_ORIENTATION_META, the clockwise angle in degrees that makes the stored image upright
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels after rotation, frames per second (the mean if the rate varies), frame count, and duration in seconds."""

    width: int
    height: int
    fps: float
    frames: int
    duration: float


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame. index: from 0 within the trim range. time: seconds from the trim start, divided by the clip's speed.

    image: (H, W, 3) uint8 RGB. alpha: (H, W) uint8, or None if the file has none.
    """

    index: int
    time: float
    image: Image
    alpha: Image | None


def probe(clip: Clip) -> VideoInfo:
    """Look up size, rate and length of the whole file, without trim range and speed factor.

    The frame count is the one that the container states. If it states none, the frames are counted.
    """
    path = _existing_path(clip.path)
    with closing(_decode_steps(clip)) as steps:
        height, width = next(steps)[1]().shape[:2]
    if is_sequence(path):
        fps, frames = clip.fps or SEQUENCE_FPS, len(_sequence_files(path))
    else:
        capture = _open_video(path)
        fps = clip.fps or _frame_rate(capture)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
    if frames < 1:
        with closing(_decode_steps(clip)) as steps:
            frames = sum(1 for _ in steps)
    return VideoInfo(width, height, fps, frames, frames / fps)


def read_frames(clip: Clip, every: int = 1, only: Container[int] | None = None) -> Generator[Frame, None, None]:
    """Yield the frames within the trim range (start included, end not), with strictly increasing times.

    every: fetch each n-th frame only. only: fetch the frames with these indices only. Indices and times stay those of all frames.
    Applies rotation metadata, and swaps left and right of mirrored videos. Only image files have alpha: OpenCV does not read that
    of video files. Raises UserError: file missing, unreadable, undecodable, without frames; fewer than 2 frames within the trim
    range; images of different size.
    """
    shape: tuple[int, ...] | None = None
    index = 0
    last = 0.0
    with closing(_decode_steps(clip)) as steps:
        for stamp, fetch in steps:
            last = stamp
            if clip.end is not None and stamp >= clip.end - _TOLERANCE:
                break
            if stamp < clip.start - _TOLERANCE:
                continue
            if index % every == 0 and (only is None or index in only):
                pixels = fetch()
                shape = shape or pixels.shape
                if pixels.shape[:2] != shape[:2]:
                    raise UserError(_size_message(clip, index, pixels.shape, shape))
                image, alpha = _split_alpha(cv2.flip(pixels, 1) if clip.mirror else pixels)
                yield Frame(index, max(stamp - clip.start, 0.0) / clip.speed, image, alpha)
            index += 1
    if index < 2:
        raise UserError(_short_message(clip, index, last), fix="whole_video" if clip.start or clip.end else "choose_video")


def frame_range(clip: Clip) -> tuple[int, int, int]:
    """Count decoded frames -> (frames before the trim range, frames within it, frames of the file)."""
    first = count = total = 0
    with closing(_decode_steps(clip)) as steps:
        for stamp, _ in steps:
            total += 1
            if stamp < clip.start - _TOLERANCE:
                first += 1
            elif clip.end is None or stamp < clip.end - _TOLERANCE:
                count += 1
    return first, count, total


def frame_times(clip: Clip) -> Generator[float, None, None]:
    """Yield the times of the frames within the trim range, in seconds of the file, without decoding them where that can be avoided."""
    with closing(_decode_steps(clip)) as steps:
        for stamp, _ in steps:
            if clip.end is not None and stamp >= clip.end - _TOLERANCE:
                break
            if stamp >= clip.start - _TOLERANCE:
                yield stamp


def image_files(clip: Clip) -> list[Path]:
    """The image files of an image sequence, in order and without trimming; empty for a video file. Raises UserError."""
    path = _existing_path(clip.path)
    return _sequence_files(path) if is_sequence(path) else []


def write_video(path: str | Path, frames: Iterable[Image], fps: float) -> None:
    """Write (H, W, 3) uint8 RGB images of one size as MPEG-4 in an mp4 file.

    The codec needs even sides, so an odd last row or column is repeated once. Raises UserError if the file cannot be written.
    """
    for _ in video_steps(path, frames, fps):
        pass


def video_steps(path: str | Path, frames: Iterable[Image], fps: float) -> Generator[int, None, None]:
    """As `write_video`, but yields the number of frames written so far. Closing it early leaves a shorter video."""
    images = (_even_bgr(frame) for frame in frames)
    first = next(images, None)
    if first is None:
        raise UserError(f"The video '{path}' would be empty: there are no frames to write.")
    size = (first.shape[1], first.shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
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


def _even_bgr(frame: Image) -> Image:
    height, width = frame.shape[:2]
    image = cv2.cvtColor(np.ascontiguousarray(frame, dtype=np.uint8), cv2.COLOR_RGB2BGR)
    return cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def _existing_path(name: str) -> Path:
    path = Path(name)
    if not name or not path.exists():
        raise UserError(f"The video '{name}' does not exist: choose the file again.", fix="choose_video")
    return path


def is_sequence(path: str | Path) -> bool:
    """True for a folder, and for an image, which stands for all images numbered like it."""
    return Path(path).is_dir() or Path(path).suffix.lower() in IMAGE_SUFFIXES


def _decode_steps(clip: Clip) -> Generator[_DecodeStep, None, None]:
    """Yield a step for every frame of the file, at least one. Times start at 0 and strictly increase."""
    path = _existing_path(clip.path)
    return _decode_sequence(path, clip.fps or SEQUENCE_FPS) if is_sequence(path) else _decode_video(path, clip.fps)


def _decode_sequence(path: Path, fps: float) -> Generator[_DecodeStep, None, None]:
    for index, file in enumerate(_sequence_files(path)):
        yield index / fps, lambda file=file: _read_image(file)


def _decode_video(path: Path, fps: float | None) -> Generator[_DecodeStep, None, None]:
    capture = _open_video(path)
    try:
        turn = _ROTATIONS.get(round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360)
        interval = 1.0 / (fps or _frame_rate(capture))
        index, origin, last = 0, 0.0, -interval
        while capture.grab():
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            origin = stamp if index == 0 else origin
            # Containers without usable timestamps repeat or rewind them. Then times follow the nominal rate.
            trusted = fps is None and math.isfinite(stamp) and stamp - origin > last + 1e-6
            last = stamp - origin if trusted else last + interval
            yield last, lambda number=index: _retrieve_image(capture, turn, path, number)
            index += 1
        _check_end(capture, path, index)
    finally:
        capture.release()


def _open_video(path: Path) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        codec = _stated_codec(path)
        raise UserError(
            f"The video '{path}' uses the codec '{codec}', which cannot be decoded here: convert it to H.264 in an mp4 file."
            if codec
            else f"The file '{path}' cannot be read as a video: choose a video file, or convert it to H.264 in an mp4 file.",
            fix="convert",
        )
    # Backends differ in whether they rotate the image by default, so `_retrieve_image` does it.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


def _frame_rate(capture: cv2.VideoCapture) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else _VIDEO_FPS


def _retrieve_image(capture: cv2.VideoCapture, turn: int | None, path: Path, index: int) -> Image:
    done, image = capture.retrieve()
    if not done or image is None:
        raise UserError(
            f"Frame {index} of the video '{path}' is damaged: trim it away or convert the video again.", fix="convert"
        )
    return image if turn is None else cv2.rotate(image, turn)


def _check_end(capture: cv2.VideoCapture, path: Path, decoded: int) -> None:
    """Raises UserError if the file ended without a frame, or too early."""
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    codec = bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("latin-1").strip("\0 ")
    if decoded == 0 and stated > 0:
        raise UserError(
            f"The video '{path}' uses the codec '{codec or 'unknown'}', which cannot be decoded here: "
            "convert it to H.264 in an mp4 file.",
            fix="convert",
        )
    if decoded == 0:
        raise UserError(f"The video '{path}' has no frames: choose another file.", fix="choose_video")
    # An edit list may hide stored frames, so fewer frames than stated are an error only if the file itself is cut off.
    if decoded < 0.9 * stated and _is_cut_off(path):
        raise UserError(
            f"The video '{path}' breaks off after {decoded} of {stated} frames: copy or convert it again, "
            "or set the end of the trim range before that frame."
        )


def _is_cut_off(path: Path) -> bool:
    """True if the last top-level box of an mp4 or mov file ends after the file (ISO 14496-12, 4.2)."""
    length, at = path.stat().st_size, 0
    if path.suffix.lower() not in {".mp4", ".mov", ".m4v"}:
        return False
    with path.open("rb") as file:
        while at < length:
            file.seek(at)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            size = int.from_bytes(header[8:], "big") if size == 1 else size or length - at
            at += max(size, 8)
    return at > length


def _stated_codec(path: Path) -> str | None:
    """The codec that an mp4 or mov file states for its images; None if it states none or cannot be read.

    A sample description is 'stsd', version and flags (4 bytes), entry count (4), entry size (4), then the codec
    (ISO 14496-12, 8.5.2).
    """
    sound = {"mp4a", "sowt", "twos", "lpcm", "ac-3", "ec-3", "alac", "Opus", ".mp3", "fLaC"}
    if path.stat().st_size == 0:
        return None
    with suppress(OSError), path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(b"stsd")
        while at >= 0:
            codec = data[at + 16 : at + 20].decode("latin-1")
            if len(codec) == 4 and codec.isprintable() and codec not in sound:
                return codec
            at = data.find(b"stsd", at + 4)
    return None


def _natural_key(path: Path) -> list[str | int]:
    """A sort key that puts 'walk_9' before 'walk_10'."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name.lower())]


def _sequence_files(path: Path) -> list[Path]:
    """The images of a folder, or those numbered like the given image, in natural order."""
    if path.is_dir():
        files = [file for file in _list_folder(path) if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
        if not files:
            raise UserError(f"The folder '{path}' has no images: choose a folder of numbered PNG or JPEG files, or a video file.")
        return sorted(files, key=_natural_key)
    number = re.search(r"\d+(?=\D*$)", path.stem)
    if number is None:
        return [path]
    before, after = path.stem[: number.start()], path.stem[number.end() :] + path.suffix
    alike = re.compile(re.escape(before) + r"\d+" + re.escape(after))
    return sorted((file for file in _list_folder(path.parent) if alike.fullmatch(file.name)), key=_natural_key)


def _list_folder(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder '{folder}' cannot be read ({error.strerror}): check its permissions.") from error


def decode_image(file: Path, flag: int = cv2.IMREAD_UNCHANGED) -> Image | None:
    """Decode the image in a file: grey, BGR or BGRA, as it is stored. None if it is not an image. Raises OSError.

    Reads into a buffer first: on Windows, OpenCV cannot open files with names outside the code page.
    """
    buffer = np.fromfile(file, dtype=np.uint8)
    return cv2.imdecode(buffer, flag) if buffer.size else None


def _read_image(file: Path) -> Image:
    # OpenCV applies a JPEG's orientation only with the colour flag, and keeps alpha only with the other.
    flag = cv2.IMREAD_COLOR if file.suffix.lower() in {".jpg", ".jpeg", ".exr", ".hdr"} else cv2.IMREAD_UNCHANGED
    try:
        image = decode_image(file, flag)
    except OSError as error:
        raise UserError(f"The image '{file}' cannot be read ({error.strerror}): restore it, or check its permissions.") from error
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"The image '{file}' cannot be decoded here: save it again as an 8-bit PNG.")
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image


def _split_alpha(image: Image) -> tuple[Image, Image | None]:
    """A grey, BGR or BGRA image -> RGB, and alpha or None."""
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), None
    if image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), np.ascontiguousarray(image[:, :, 3])
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), None


def _size_message(clip: Clip, index: int, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    path = Path(clip.path)
    name = f"image '{_sequence_files(path)[frame_range(clip)[0] + index].name}'" if is_sequence(path) else f"frame {index}"
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

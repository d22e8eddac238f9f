"""Reads numbered images as a video: the numbers in their names are times, and what is not 8-bit RGB becomes it."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Sequence
from math import gcd
from pathlib import Path
from statistics import median_low

import cv2
import numpy as np

from ..arrays import Image, Pixels
from ..errors import UserError
from .steps import Report, Step
from .video_file import open_video

os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # OpenCV asks for it when it reads the first EXR

_FFMPEG_SUFFIXES = frozenset({".dpx", ".jls", ".pam", ".pcx", ".qoi", ".rgb", ".rgba", ".bw", ".sgi", ".sun", ".tga", ".xwd"})
IMAGE_SUFFIXES = _FFMPEG_SUFFIXES | frozenset(
    ".png .jpg .jpeg .jpe .jfif .webp .tif .tiff .bmp .dib .exr .hdr .pic .pbm .pgm .ppm .pnm .pfm .jp2 .j2k .ras .sr".split()
)
_LONGEST_GAP = 60.0  # seconds: longer gaps in the numbers are no time
_SPARSEST = 50  # numbers for one image, from which they do not count frames

FrameFile = tuple[Path, bool]  # a frame's image, and whether it stands for one that is missing


def is_sequence(path: str | Path) -> bool:
    """True for a folder, and for an image, which stands for all images numbered like it."""
    return Path(path).is_dir() or Path(path).suffix.lower() in IMAGE_SUFFIXES


def decode_sequence(path: Path, fps: float, report: Report) -> Generator[Step, None, None]:
    """Yield a step for every number of a sequence. Raises UserError: no images, two of one number, an image that cannot be decoded."""
    for index, (file, missing) in enumerate(frame_files(path, fps, report)):
        yield Step(index / fps, lambda file=file: _read_image(file), missing)


def frame_files(path: Path, fps: float, report: Report | None = None) -> list[FrameFile]:
    """The image of each frame, in order. A missing number has the image before it; the numbers go up by their usual step.

    Numbers that do not count frames, such as times of day, give the order alone. Raises UserError as `decode_sequence`.
    """
    files = _sequence_files(path)
    numbers = _common_numbers(files)
    step = _step_of(numbers)
    if not step:
        return [(file, False) for file in files]
    frames: list[FrameFile] = [(files[0], False)]
    for before, file, missing in zip(files, files[1:], (np.diff(numbers) // step - 1).tolist(), strict=False):
        if missing / fps > _LONGEST_GAP:
            if report is not None:
                report.note(f"The numbers of the images jump by {missing} before '{file.name}': the jump was left out.")
            missing = 0
        frames += [(before, True)] * missing + [(file, False)]
    return frames


def _common_numbers(files: Sequence[Path]) -> list[int]:
    """The numbers of files whose names differ in it alone; none if they differ in more. Raises UserError for two of one number."""
    parts = [_split_name(file) for file in files]
    if any(part is None for part in parts) or len({(part[0], part[2]) for part in parts if part}) > 1:
        return []
    numbers = [int(part[1]) for part in parts if part]
    for before, after, first, second in zip(files, files[1:], numbers, numbers[1:], strict=False):
        if first == second:
            raise UserError(
                f"'{before.name}' and '{after.name}' have the same number: choose one image of the sequence, or remove the others."
            )
    return numbers


def _step_of(numbers: Sequence[int]) -> int:
    """By how much the numbers go up from frame to frame; 0 if they do not count frames."""
    steps = [after - before for before, after in zip(numbers, numbers[1:], strict=False)]
    if not steps or min(steps) < 1:
        return 0
    step = gcd(*steps)
    counted = min(steps) == step and (median_low(steps) == step or sum(steps) // step < _SPARSEST * len(numbers))
    return step if counted else 0


def _split_name(file: Path) -> tuple[str, str, str] | None:
    """A file's name without its suffix: what is before its last number, the number, and what is after; None if it has none."""
    number = re.search(r"[0-9]+(?=[^0-9]*$)", file.stem)
    return None if number is None else (file.stem[: number.start()], number.group(), file.stem[number.end() :])


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
    own = _split_name(path)
    if own is None:
        return [path]
    alike = [
        file
        for file in _list_folder(path.parent)
        if file.suffix == path.suffix and (name := _split_name(file)) is not None and name[::2] == own[::2]
    ]
    if len({int(_number_of(file)) for file in alike}) < len(alike):
        # two sequences in one folder, told apart by their padding: '1.png' and on beside '0001.png' and on
        alike = [file for file in alike if _padded_alike(_number_of(file), own[1])]
    return sorted(alike, key=_natural_key)


def _number_of(file: Path) -> str:
    parts = _split_name(file)
    return "" if parts is None else parts[1]


def _padded_alike(number: str, other: str) -> bool:
    """Whether a number may be of one sequence with another: as wide as that one if it has leading zeros, without any if not."""
    if other.startswith("0") and len(other) > 1:
        return len(number) == len(other) or (len(number) > len(other) and not number.startswith("0"))
    return not number.startswith("0") or number == "0"


def _list_folder(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(f"The folder '{folder}' cannot be read ({error.strerror}): check its permissions.") from error


def decode_image(file: Path, flag: int = cv2.IMREAD_UNCHANGED) -> Pixels | None:
    """Decode the image in a file: grey, BGR or BGRA, as it is stored. None if it is not an image. Raises OSError.

    Reads into a buffer first: on Windows, OpenCV cannot open files with names outside the code page.
    """
    buffer = np.fromfile(file, dtype=np.uint8)
    try:
        return cv2.imdecode(buffer, flag) if buffer.size else None
    except cv2.error:  # too large, or of a kind that is left out here
        return None


def _read_image(file: Path) -> Image:
    # OpenCV applies a JPEG's orientation only with the colour flag, and keeps alpha and depth only with the other.
    flag = cv2.IMREAD_COLOR if file.suffix.lower() in {".jpg", ".jpeg", ".jpe", ".jfif"} else cv2.IMREAD_UNCHANGED
    try:
        image = None if file.suffix.lower() in _FFMPEG_SUFFIXES else decode_image(file, flag)
        image = _decode_by_ffmpeg(file) if image is None else image
    except OSError as error:
        raise UserError(f"The image '{file}' cannot be read ({error.strerror}): restore it, or check its permissions.") from error
    if image is not None and np.issubdtype(image.dtype, np.floating):
        return _display_colours(image.astype(np.float32))
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise UserError(f"The image '{file}' cannot be decoded here: save it again as an 8-bit PNG.")
    return (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image


def _decode_by_ffmpeg(file: Path) -> Image | None:
    """Decode what OpenCV reads as a video of one frame only."""
    if not file.is_file() or not file.stat().st_size:
        return None if file.exists() else decode_image(file)  # raises
    try:
        capture = open_video(file)
    except UserError:
        return None
    done, image = capture.read()
    capture.release()
    return image if done else None


def _display_colours(image: Pixels) -> Image:
    """Linear light as EXR and HDR files hold it -> 8 bits of sRGB (IEC 61966-2-1); alpha stays linear."""
    light = np.clip(np.nan_to_num(image, posinf=1.0, neginf=0.0), 0.0, 1.0)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    if image.ndim == 3 and image.shape[2] == 4:
        shown[:, :, 3] = light[:, :, 3]
    return np.round(255 * shown).astype(np.uint8)

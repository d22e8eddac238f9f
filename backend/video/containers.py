"""What a video file says about itself that OpenCV does not tell: how it is to be shown, its codec, and whether its end is missing."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..arrays import Image

Rect = tuple[int, int, int, int]  # left, top, right and bottom in pixels, one past the last
Matrix = tuple[float, float, float, float]

_UPRIGHT: Matrix = (1.0, 0.0, 0.0, 1.0)
_PACK = b"\0\0\1\xba"  # begins each sector of an MPEG program stream
_SOUND = {"mp4a", "sowt", "twos", "lpcm", "ac-3", "ec-3", "alac", "Opus", ".mp3", "fLaC"}
_WIDEST = 10.0  # ratio of a pixel's sides above which the file is not believed
# Matroska elements whose children are read (RFC 9559): Segment, Tracks, TrackEntry, Video, Projection
_SEGMENT, _TRACKS, _TRACK, _VIDEO, _PROJECTION = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x7670
_CLUSTER, _TRACK_TYPE, _ROLL, _YAW = 0x1F43B675, 0x83, 0x7675, 0x7673
_CROPS = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom
_DISPLAY = (0x54B0, 0x54BA, 0x54B2)  # width, height, unit


# what reading a damaged or an empty file raises here
_DAMAGE = (OSError, ValueError, struct.error, IndexError, OverflowError, ZeroDivisionError)


@dataclass(frozen=True)
class Display:
    """How stored pixels are to be shown: cropped first, then stretched, then turned.

    matrix: (a, b, c, d) takes (x, y), y down, to (a x + c y, b x + d y); None if the file has none that is read here. crop: a part of the
    stored pixels, None for all. ratio: width over height of a stored pixel; None for what OpenCV says.
    """

    matrix: Matrix | None = None
    crop: Rect | None = None
    ratio: float | None = None

    def apply(self, image: Image, ratio: float) -> Image:
        """(H, W) or (H, W, C) as stored -> as shown. ratio: of the pixels' sides, if the file has none that is read here."""
        height, width = image.shape[:2]
        if self.crop is not None and self.crop[2] <= width and self.crop[3] <= height:
            image = image[self.crop[1] : self.crop[3], self.crop[0] : self.crop[2]]
        ratio = ratio if self.ratio is None else self.ratio
        if 1 / _WIDEST <= ratio <= _WIDEST and abs(ratio - 1) > 1e-3:
            wide = max(1, round(image.shape[1] * ratio))
            image = cv2.resize(image, (wide, image.shape[0]), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
        return np.ascontiguousarray(_turned(image, self.matrix or _UPRIGHT))


def _turned(image: Image, matrix: Matrix) -> Image:
    """Apply the quarter turn or mirror image that is nearest to a display matrix.

    Where x' comes from y (c, b are the large ones), rows become columns: transposed, a pixel (x, y) lies at (y, x), and c and b say
    whether x' and y' run backwards. Elsewhere a and d say so.
    """
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def display_of(path: Path) -> Display:
    """What an mp4, mov, mkv or webm file says of its first video track; a plain Display for other and for damaged files."""
    with suppress(*_DAMAGE), _mapped(path) as data:
        kind = container_of(data)
        if kind == "mp4":
            return _mp4_display(data)
        if kind == "matroska":
            return _matroska_display(data)
    return Display()


def stated_codec(path: Path) -> str | None:
    """The codec that an mp4 or mov file states for its images; None if it states none or cannot be read.

    A sample description is 'stsd', version and flags (4 bytes), entry count (4), entry size (4), then the codec
    (ISO 14496-12, 8.5.2).
    """
    with suppress(OSError, ValueError), _mapped(path) as data:
        at = data.find(b"stsd")
        while at >= 0:
            codec = data[at + 16 : at + 20].decode("latin-1")
            if len(codec) == 4 and codec.isprintable() and codec not in _SOUND:
                return codec
            at = data.find(b"stsd", at + 4)
    return None


def is_cut_off(path: Path) -> bool:
    """True if the file is shorter than its container says: mp4, mov, mkv, webm, avi, flv, wmv, gif and MPEG streams."""
    with suppress(*_DAMAGE), _mapped(path) as data:
        ends = {
            "mp4": _mp4_end, "matroska": _matroska_end, "riff": _riff_end, "flv": _flv_end, "asf": _asf_end, "gif": _gif_end,
            "ts": _ts_end, "ps": _ps_end,
        }  # fmt: skip
        kind = container_of(data)
        return kind in ends and ends[kind](data) > len(data)
    return False


def container_of(data: mmap.mmap) -> str:
    """The kind of file that begins like this: mp4 (and mov), matroska (and webm), riff (avi), flv, asf (wmv), gif, ts, ps, or ""."""
    head = data[:16]
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp"):
        return "mp4"
    starts = {
        b"\x1a\x45\xdf\xa3": "matroska",
        b"RIFF": "riff",
        b"FLV": "flv",
        b"\x30\x26\xb2\x75": "asf",
        b"GIF8": "gif",
        _PACK: "ps",
    }
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    packets = len(data) > 400 and any(
        all(data[first + size * i] == 0x47 for i in range(2)) for first, size in ((0, 188), (4, 192))
    )
    return "ts" if packets else ""


def container_kind(path: Path) -> str:
    """As `container_of`, of a file; "" also for one that cannot be read."""
    with suppress(OSError, ValueError), _mapped(path) as data:
        return container_of(data)
    return ""


def shown_length(path: Path) -> float | None:
    """Seconds that the edit list of an mp4 or mov file shows of its images; None if it has none."""
    with suppress(*_DAMAGE), _mapped(path) as data:
        whole = (0, len(data))
        for track in _video_tracks(data) if container_of(data) == "mp4" else ():
            for at, end in _inside(data, *track, b"edts", b"elst"):
                size = 20 if data[at] else 12
                entries = range(at + 8, min(end, at + 8 + size * int.from_bytes(data[at + 4 : at + 8], "big")), size)
                units = sum(int.from_bytes(data[entry : entry + (8 if data[at] else 4)], "big") for entry in entries)
                for header, _ in _inside(data, *whole, b"moov", b"mvhd"):
                    place = header + (20 if data[header] else 12)
                    return units / int.from_bytes(data[place : place + 4], "big") or None
    return None


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


# ---- ISO base media files: mp4, mov, m4v, 3gp (ISO 14496-12)


def _boxes(data: mmap.mmap, at: int, end: int) -> Generator[tuple[bytes, int, int], None, None]:
    """Yield (type, start and end of the content) of the boxes in a range; a box may end after the file."""
    while at + 8 <= end:
        size, kind, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        size = size or end - at
        if size < start - at:
            return
        yield kind, start, at + size
        at += size


def _mp4_end(data: mmap.mmap) -> int:
    return max((end for _, _, end in _boxes(data, 0, len(data))), default=0)


def _inside(data: mmap.mmap, start: int, end: int, *path: bytes) -> Generator[tuple[int, int], None, None]:
    """Yield the contents of all boxes that this path of types leads to."""
    for kind, first, last in _boxes(data, start, end):
        if kind == path[0] and len(path) == 1:
            yield first, last
        elif kind == path[0]:
            yield from _inside(data, first, min(last, end), *path[1:])


def _video_tracks(data: mmap.mmap) -> Generator[tuple[int, int], None, None]:
    for track in _inside(data, 0, len(data), b"moov", b"trak"):
        if any(data[at + 8 : at + 12] == b"vide" for at, _ in _inside(data, *track, b"mdia", b"hdlr")):
            yield track


def _mp4_display(data: mmap.mmap) -> Display:
    for track in _video_tracks(data):
        matrix = _UPRIGHT
        for header in (*_inside(data, *track, b"tkhd"), *_inside(data, 0, len(data), b"moov", b"mvhd")):
            matrix = _product(matrix, _header_matrix(data, *header))
        for start, end in _inside(data, *track, b"mdia", b"minf", b"stbl", b"stsd"):
            return Display(matrix, _clean_aperture(data, start, end))
        return Display(matrix)
    return Display()


def _header_matrix(data: mmap.mmap, start: int, end: int) -> Matrix:
    """The matrix of a track or movie header; in the last 44 bytes of a tkhd before width and height, 64 of an mvhd."""
    track = data[start - 4 : start] == b"tkhd"
    at = end - (44 if track else 64)
    a, b, _, c, d = struct.unpack(">5i", data[at : at + 20])
    return (a, b, c, d) if any((a, b, c, d)) else _UPRIGHT


def _product(first: Matrix, second: Matrix) -> Matrix:
    """The matrix that does the first, then the second: rows times matrix, as (x, y) are a row."""
    scaled = np.array(first, float).reshape(2, 2) @ np.array(second, float).reshape(2, 2)
    a, b, c, d = (scaled / max(float(np.abs(scaled).max()), 1e-9)).ravel().tolist()
    return a, b, c, d


def _clean_aperture(data: mmap.mmap, start: int, end: int) -> Rect | None:
    """The crop of the first sample entry: its 'clap' box, the boxes of a visual entry begin 78 bytes into it (12.1.3, 12.1.4)."""
    for _, entry, last in _boxes(data, start + 8, end):
        width, height = struct.unpack(">HH", data[entry + 24 : entry + 28])
        for at, _ in _inside(data, entry + 78, last, b"clap"):
            values = struct.unpack(">2I2I", data[at : at + 16]), struct.unpack(">iIiI", data[at + 16 : at + 32])
            wide, high, right, down = (each[i] / each[i + 1] for each in values for i in (0, 2) if each[i + 1])
            left, top = (width - wide) / 2 + right, (height - high) / 2 + down
            return _sensible_crop((round(left), round(top), round(left + wide), round(top + high)), width, height)
        return None
    return None


def _sensible_crop(crop: Rect, width: int, height: int) -> Rect | None:
    """The crop if it is a part of the image, else None."""
    left, top, right, bottom = crop
    inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    return crop if inside and crop != (0, 0, width, height) else None


# ---- Matroska and WebM (RFC 8794, RFC 9559)


def _number(data: mmap.mmap, at: int, keep: bool) -> tuple[int, int]:
    """A variable-length integer -> its value and the place after it. keep: with the bit that tells the length, as ids have it."""
    first = data[at]
    length = 9 - first.bit_length()
    if not 1 <= length <= 8:
        raise ValueError("no such length")
    value = int.from_bytes(data[at : at + length], "big")
    return (value if keep else value & ((1 << 7 * length) - 1)), at + length


def _elements(data: mmap.mmap, at: int, end: int) -> Generator[tuple[int, int, int], None, None]:
    """Yield (id, start and end of the content); an element of unknown length ends with the file."""
    while at < min(end, len(data)):
        kind, place = _number(data, at, keep=True)
        size, start = _number(data, place, keep=False)
        unknown = size == (1 << 7 * (start - place)) - 1
        last = len(data) if unknown else start + size
        yield kind, start, last
        at = last


def _matroska_end(data: mmap.mmap) -> int:
    return max((end for _, _, end in _elements(data, 0, len(data))), default=0)


def _matroska_display(data: mmap.mmap) -> Display:
    for kind, start, end in _elements(data, 0, len(data)):
        for inner, first, last in _elements(data, start, end) if kind == _SEGMENT else ():
            if inner == _CLUSTER:
                break
            for track, at, stop in _elements(data, first, last) if inner == _TRACKS else ():
                values = _values(data, at, stop) if track == _TRACK else {}
                if values.get(_TRACK_TYPE) == b"\1":
                    return _shown(values)
    return Display()


def _values(data: mmap.mmap, start: int, end: int) -> dict[int, bytes]:
    """The elements of a track by id, with those of its Video and Projection."""
    found: dict[int, bytes] = {}
    for kind, first, last in _elements(data, start, end):
        if kind in (_VIDEO, _PROJECTION):
            found |= _values(data, first, last)
        else:
            found[kind] = data[first:last]
    return found


def _shown(values: dict[int, bytes]) -> Display:
    width, height = (int.from_bytes(values.get(kind, b""), "big") for kind in (0xB0, 0xBA))
    left, top, right, bottom = (int.from_bytes(values.get(kind, b""), "big") for kind in _CROPS)
    crop = _sensible_crop((left, top, width - right, height - bottom), width, height)
    wide, high, unit = (int.from_bytes(values.get(kind, b""), "big") for kind in _DISPLAY)
    inner = (crop[2] - crop[0], crop[3] - crop[1]) if crop else (width, height)
    ratio = None
    if wide and high and unit < 4 and min(inner) > 0:  # 4: unknown
        ratio = wide / high / (inner[0] / inner[1])
    return Display(_projection(values), crop, ratio)


def _projection(values: dict[int, bytes]) -> Matrix:
    """The roll of a flat projection, in degrees counter-clockwise as seen, and half a turn of yaw, which is a mirror image.

    With y down, a counter-clockwise turn by r takes (x, y) to (x cos r + y sin r, y cos r - x sin r). Mirrored, x' = -x', and the roll is
    counted the other way round, as FFmpeg writes it.
    """
    roll, yaw = (_decimal(values.get(kind, b"")) for kind in (_ROLL, _YAW))
    side = -1.0 if abs(abs(yaw) - 180) < 1 else 1.0
    cosine, sine = float(np.cos(np.radians(side * roll))), float(np.sin(np.radians(side * roll)))
    return side * cosine, -sine, side * sine, cosine


def _decimal(content: bytes) -> float:
    kinds = {4: ">f", 8: ">d"}
    return struct.unpack(kinds[len(content)], content)[0] if len(content) in kinds else 0.0


# ---- other containers


def _riff_end(data: mmap.mmap) -> int:
    """The end of the last RIFF chunk; an AVI file above 1 GB has several. Chunks of a recording that was never closed have no size."""
    at = 0
    while data[at : at + 4] == b"RIFF" and at + 12 <= len(data):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return at


def _flv_end(data: mmap.mmap) -> int:
    """Walks the tags: type, size (3 bytes), 7 bytes more, the content, and 4 bytes with the size once more."""
    at = int.from_bytes(data[5:9], "big") + 4
    while at + 11 <= len(data) and data[at] & 0x1F in (8, 9, 18):
        at += 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
    return at


def _asf_end(data: mmap.mmap) -> int:
    """Walks the objects: an id of 16 bytes, and a size of 8 that counts from the id."""
    at = 0
    while at + 24 <= len(data):
        size = int.from_bytes(data[at + 16 : at + 24], "little")
        if size < 24:
            break
        at += size
    return at


def _gif_end(data: mmap.mmap) -> int:
    """One past the file if its last block is not the trailer ';'."""
    return len(data) + (data[max(0, len(data) - 64) :].rstrip(b"\0")[-1:] != b";")


def _ts_end(data: mmap.mmap) -> int:
    size = 192 if data[0] != 0x47 else 188
    return -(-len(data) // size) * size


def _ps_end(data: mmap.mmap) -> int:
    """Streams for discs and most files come in sectors of 2048 bytes."""
    return -(-len(data) // 2048) * 2048 if data[2048:2052] == _PACK else 0

"""Decodes video files: every frame at its time, those that cannot be decoded among them."""

from __future__ import annotations

import math
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from ..arrays import Image
from ..errors import UserError
from .containers import Display, container_kind, display_of, is_cut_off, shown_length, stated_codec
from .steps import Report, Step

# what FFmpeg prints of damaged frames, hundreds of lines, is told in one sentence; OpenCV asks for this when it opens the first video
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_VIDEO_FPS = 30.0  # if the file states no rate
_LOWEST_FPS = 1.0
_HIGHEST_FPS = 240.0  # what is stated above is often the unit of the time stamps
_LONGEST_STEP = 10.0  # seconds: longer steps of the time stamps are errors of the recorder
_REWIND = 1.0  # seconds: steps back by more are a recording that begins anew
_RETRIES = 500  # attempts to decode that fail one after another before the file is over
_DELAY = 32  # frames that a decoder may hold back, so that what is lost shows later
ESTIMATED = 2  # frames by which the number that other containers than mp4 state may be wrong: it is a length times a rate
_COMPLETE = 0.9  # share of the stated length from which a file counts as whole
_WRONG_SHAPE = 0.03  # change of the sides' ratio within a video that is not shown by stretching
# codecs in lower case that OpenCV decodes: what fails with them is damage
_KNOWN_CODECS = frozenset(
    "avc1 avc3 hvc1 hev1 h264 x264 hevc h265 mp4v mp4s fmp4 xvid divx dx50 vp80 vp90 vp08 vp09 vp8 vp9 jpeg mjpa mjpb mjpg apch apcn "
    "apcs apco ap4h ap4x avdn png tiff svq3 s263 h263 flv1 wmv1 wmv2 wmv3 wvc1 mpg1 mpg2 mp2v ffv1 hfyu dvc dvcp dvh5 dvhp mx5p xd5b "
    "cfhd 2vuy v210 gif".split()
)

# by CAP_PROP_ORIENTATION_META, the matrix that turns the stored image upright, clockwise by this angle in degrees
_TURNS = {90: (0.0, 1.0, -1.0, 0.0), 180: (-1.0, 0.0, 0.0, -1.0), 270: (0.0, -1.0, 1.0, 0.0)}


def decode_video(path: Path, fps: float | None, report: Report) -> Generator[Step, None, None]:
    """Yield a step for every frame, also for those within the file that cannot be decoded. Times start at 0 and strictly increase.

    Raises UserError: not a video, no frame that can be decoded, cut off, written to while it is read.
    """
    state = _state_of(path)
    capture = open_video(path)
    try:
        picture = _Picture(capture, path)
        interval = 1.0 / stated_rate(capture, path)
        clock, losses = _Clock(interval, fps, report), _Losses(path, interval)
        index = given = 0
        while (failed := _next_frame(capture)) is not None:
            if index == 0:
                picture.measure()
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            for missing in losses.before(stamp, failed):
                yield Step(clock.tell(missing), picture.fetch, lost=True)
                given += 1
            yield Step(clock.tell(stamp), picture.fetch)
            index, given = index + 1, given + 1
        if _state_of(path) != state:
            raise UserError(f"The video '{path}' was written to while it was read: wait until it is complete, and start again.")
        _check_end(capture, path, index, clock, losses, report)
        _note_missing(capture, path, given, losses, report)
    finally:
        capture.release()


def _state_of(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _next_frame(capture: cv2.VideoCapture) -> int | None:
    """Go on to the next frame that can be decoded -> the attempts that failed before, or None at the end of the file."""
    return next((failed for failed in range(_RETRIES) if capture.grab()), None)


@contextmanager
def name_for_opencv(path: Path) -> Iterator[str]:
    """A name under which OpenCV can open a file or a folder: absolute, or a colon is taken for a protocol; and UTF-8, or the process ends."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        pass
    else:
        yield name
        return
    try:
        with tempfile.TemporaryDirectory(prefix="anyrig-") as folder:
            link = Path(folder) / f"video{path.suffix if path.suffix.isascii() else ''}"
            link.symlink_to(name)
            yield str(link)
    except OSError as error:
        raise UserError(
            f"The name of '{path}' cannot be passed on ({error.strerror}): rename the file.", fix="choose_video"
        ) from error


def _capture_of(path: Path, *parameters: int) -> cv2.VideoCapture:
    with name_for_opencv(path) as name:
        return cv2.VideoCapture(name, cv2.CAP_FFMPEG, parameters) if parameters else cv2.VideoCapture(name)


def open_video(path: Path) -> cv2.VideoCapture:
    """Open a video file. Raises UserError that says whether it is cut off, damaged, of an unknown codec, or no video."""
    capture = _capture_of(path)
    if not capture.isOpened():
        raise UserError(_closed_message(path), fix="convert")
    # Backends differ in whether they rotate the image by default, so it is done here.
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    return capture


def _closed_message(path: Path) -> str:
    codec = stated_codec(path)
    if is_cut_off(path):
        return f"The video '{path}' breaks off, and no frame of it can be read: copy or convert it again."
    if codec and codec.lower() in _KNOWN_CODECS:
        return f"The video '{path}' is damaged, and no frame of it can be read: copy or convert it again."
    if codec:
        return f"The video '{path}' uses the codec '{codec}', which cannot be decoded here: convert it to H.264 in an mp4 file."
    return f"The file '{path}' cannot be read as a video: choose a video file, or convert it to H.264 in an mp4 file."


def frame_rate(capture: cv2.VideoCapture) -> float:
    """Frames per second, as the file states them."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else _VIDEO_FPS


def stated_rate(capture: cv2.VideoCapture, path: Path) -> float:
    """As `frame_rate`, or that of the file's packets, as a median: a rate above 240 is mostly the unit of the time stamps, and one below
    1 often the mean over a jump of the stamps."""
    fps = frame_rate(capture)
    times = packet_times(path) if fps > _HIGHEST_FPS or fps < _LOWEST_FPS else ()
    return 1.0 / max(float(np.median(np.diff(times))), 1e-3) if len(times) > 2 else fps


def stated_length(path: Path) -> tuple[float, int]:
    """Frames per second, and how many frames the container states, 0 if it does not say. Raises UserError as `open_video`."""
    capture = open_video(path)
    try:
        return stated_rate(capture, path), _stated_frames(capture)
    finally:
        capture.release()


def packet_times(path: Path) -> Sequence[float]:
    """The times of all frames that the file holds, in order and in seconds of its stamps, without decoding them."""
    state = path.stat()
    return _packet_times(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _packet_times(path: Path, _size: int, _changed: int) -> tuple[float, ...]:
    capture = _capture_of(path, cv2.CAP_PROP_FORMAT, -1)
    times = []
    try:
        while _next_frame(capture) is not None:
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0)
    finally:
        capture.release()
    return tuple(sorted(time for time in times if math.isfinite(time)))


class _Picture:
    """Fetches the frame that the decoder is at, as it is to be shown."""

    def __init__(self, capture: cv2.VideoCapture, path: Path) -> None:
        self._capture, self._display = capture, display_of(path)
        if self._display.matrix is None:
            turn = _TURNS.get(round(capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 360)
            self._display = Display(turn, self._display.crop, self._display.ratio)
        across, down = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
        self._ratio = across / down if across > 0 and down > 0 else 1.0
        self._stored: tuple[int, int] | None = None

    def measure(self) -> None:
        """Note the size of the first frame: later ones that are of the same shape, but larger or smaller, are brought to it."""
        done, image = self._capture.retrieve()
        self._stored = (image.shape[1], image.shape[0]) if done and image is not None else None

    def fetch(self) -> Image | None:
        done, image = self._capture.retrieve()
        if not done or image is None:
            return None
        size = (image.shape[1], image.shape[0])
        if self._stored is not None and size != self._stored:
            change = size[0] * self._stored[1] / (size[1] * self._stored[0])
            if abs(change - 1) < _WRONG_SHAPE:
                image = cv2.resize(image, self._stored, interpolation=cv2.INTER_AREA)
        return self._display.apply(image, self._ratio)


class _Clock:
    """Turns the stamps of frames into times that start at 0 and increase."""

    def __init__(self, interval: float, fps: float | None, report: Report) -> None:
        """interval: seconds between two frames, by the file. fps: a rate that replaces the stamps."""
        self.counted = fps is not None
        self._step = 1.0 / fps if fps else interval
        self.last = -self._step
        self._report = report
        self._origin: float | None = None

    def tell(self, stamp: float) -> float:
        """The time of the next frame."""
        if self._origin is None:
            self._origin = stamp if math.isfinite(stamp) else 0.0
        # Containers without usable stamps repeat or rewind them. Then times follow the nominal rate.
        step = stamp - self._origin - self.last
        if not self.counted and math.isfinite(step) and 1e-6 < step <= max(_LONGEST_STEP, 3 * self._step):
            self.last += step
            return self.last
        self.last += self._step
        if not self.counted and (step > 0 or step < -_REWIND):
            self._origin = stamp - self.last
            if step > 0:
                self._report.note(f"The video's time stamps jump by {step:.0f} s at {self.last:.2f} s: the jump was left out.")
        return self.last


class _Losses:
    """Tells which frames are missing between two that were decoded."""

    def __init__(self, path: Path, interval: float) -> None:
        self.interval = interval
        self.left_out = 0  # frames at the ends that are told of
        self._path, self._first, self._last = path, math.nan, math.nan
        self._silent = container_kind(path) != "mp4"  # the others lose packets without a trace
        self._suspect = 0  # frames for which a gap is taken for a loss
        self._even = 0  # frames that came at the nominal rate so far, one after another

    def before(self, stamp: float, failed: int) -> list[float]:
        """The stamps of the frames missing before this one. failed: how often decoding has failed since the one before."""
        if math.isnan(self._first):
            self._first = self._last = stamp
            return []
        last, gap = self._last, stamp - self._last
        self._last = stamp
        self._suspect = _DELAY if failed else max(0, self._suspect - 1)
        steps = gap / self.interval
        if not 1.5 < steps <= max(_LONGEST_STEP / self.interval, 3):
            self._even = self._even + 1 if 0.9 < steps < 1.1 else 0
            stuck = failed and (gap <= 1e-6 or not math.isfinite(gap))  # no stamps: each attempt was a frame
            return [math.nan] * failed if stuck else []
        even = self._silent and self._even > 8 and abs(steps - round(steps)) < 0.1
        # the packets of a damaged file are not all known
        return max(self._known(last, stamp), self._even_steps(last, gap) if self._suspect or even else [], key=len)

    def _known(self, last: float, stamp: float) -> list[float]:
        """Those that the file holds, by its packets."""
        times, near = packet_times(self._path), 0.5 * self.interval
        inside = times[bisect_right(times, last + near) : bisect_left(times, stamp - near)]
        return [time for before, time in pairwise((last, *inside)) if time - before > near]

    def _even_steps(self, last: float, gap: float) -> list[float]:
        parts = max(1, round(gap / self.interval))
        return [last + gap * part / parts for part in range(1, parts)]

    def note_ends(self, report: Report) -> None:
        """Note how many frames before the first and after the last one that was decoded are left out, and keep their number."""
        near, limit = 0.5 * self.interval, shown_length(self._path)
        times = [time for time in packet_times(self._path) if limit is None or time < limit - near]
        for name, count in (
            ("first", sum(-near < time < self._first - near for time in times)),
            ("last", sum(time > self._last + near for time in times)),
        ):
            self.left_out += count
            if count:
                what = f"{name} frame" if count == 1 else f"{name} {count} frames"
                report.note(f"The {what} of the video cannot be decoded, and {'is' if count == 1 else 'are'} left out.")


def _check_end(capture: cv2.VideoCapture, path: Path, decoded: int, clock: _Clock, losses: _Losses, report: Report) -> None:
    """Raises UserError if the file ended without a frame or too early, and notes what little is missing."""
    stated = _stated_frames(capture)
    if decoded == 0:
        raise UserError(_empty_message(capture, path, stated), fix="convert" if stated else "choose_video")
    length, end, cut = stated * losses.interval, decoded * losses.interval, is_cut_off(path)
    if not clock.counted:
        end = max(end, clock.last + losses.interval)
    share = end / length if stated else 1.0
    # An edit list may hide stored frames, and sound may be longer, so an early end alone says little.
    if share < (_COMPLETE if cut else 0.5 if container_kind(path) != "mp4" else 0.0):
        raise UserError(
            f"The video '{path}' breaks off after {decoded} of {stated} frames: copy or convert it again, "
            "or set the end of the trim range before that frame."
        )
    if cut:
        report.note(f"The video is cut off: its frames end at {clock.last:.2f} s.")
    elif share < _COMPLETE and length - end > 2 * losses.interval and container_kind(path) != "mp4":
        report.note(f"The video states a length of {length:.2f} s, but its frames end at {end:.2f} s: check that it is whole.")
    if decoded < stated or not stated:
        losses.note_ends(report)


def _note_missing(capture: cv2.VideoCapture, path: Path, given: int, losses: _Losses, report: Report) -> None:
    """Note frames that are stated, and neither given nor told of: a damaged first or last one leaves no trace among the packets."""
    stated, slack = _stated_frames(capture), ESTIMATED
    if container_kind(path) == "mp4":
        limit = shown_length(path)  # the edit list may hide some
        stated, slack = min(stated, stated if limit is None else round(limit / losses.interval)), 0
    if stated - given - losses.left_out > slack and not is_cut_off(path):
        report.note(f"The video states {stated} frames, but {given} could be read: check that it is whole.")


def _stated_frames(capture: cv2.VideoCapture) -> int:
    """How many frames the container states; 0 if it does not say, or by a rate that is none."""
    stated = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(stated) if 0 < stated < 1e9 and frame_rate(capture) <= _HIGHEST_FPS else 0


def _empty_message(capture: cv2.VideoCapture, path: Path, stated: int) -> str:
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    codec = bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("latin-1").strip("\0 ")
    if is_cut_off(path):
        return f"The video '{path}' breaks off before its first frame: copy or convert it again."
    if codec.lower() in _KNOWN_CODECS and (stated or packet_times(path)):
        return f"The video '{path}' is damaged, and none of its frames can be decoded: copy or convert it again."
    if stated:
        return (
            f"The video '{path}' uses the codec '{codec or 'unknown'}', which cannot be decoded here: "
            "convert it to H.264 in an mp4 file."
        )
    return f"The video '{path}' has no frames: choose another file."

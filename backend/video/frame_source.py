"""One source of frames for a clip: what is known of the file, and passes through it at the size that the work needs."""

from __future__ import annotations

from collections.abc import Container, Generator
from contextlib import closing
from dataclasses import replace
from functools import cached_property

import cv2

from ..arrays import Image
from .clip import Clip
from .prefetch import prefetch
from .reader import Frame, VideoInfo, frame_range, probe, read_frames
from .steps import Report

Size = tuple[int, int]  # width and height in pixels


class FrameSource:
    """The frames of a clip. Each of `frames`, `prefetched` and `samples` goes through the file once, from front to back.

    What is asked about the file is looked up once. `report` gathers what the passes tell of it. All methods raise UserError as `read_frames` does.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self.report = Report()

    @cached_property
    def info(self) -> VideoInfo:
        """Size, rate and length of the whole file."""
        return probe(self.clip)

    @property
    def size(self) -> Size:
        """(width, height) of the frames in the file."""
        return self.info.width, self.info.height

    @cached_property
    def range(self) -> tuple[int, int, int]:
        """(first, count, total) of the trim range, as `frame_range` counts them: this goes through the file."""
        return frame_range(self.clip)

    @property
    def expected(self) -> int:
        """About how many frames the trim range has, by the length that the file states; at least 2."""
        end = self.info.duration if self.clip.end is None else min(self.clip.end, self.info.duration)
        return max(2, round((end - self.clip.start) * self.info.fps))

    def frames(
        self, size: Size | None = None, every: int = 1, only: Container[int] | None = None
    ) -> Generator[Frame, None, None]:
        """Yield the frames, shrunk to `size`: all, each `every`-th, or those with an index in `only`. See `read_frames`."""
        with closing(read_frames(self.clip, every, only, self.report)) as frames:
            for frame in frames:
                if size is not None:
                    alpha = None if frame.alpha is None else shrink(frame.alpha, size)
                    frame = replace(frame, image=shrink(frame.image, size), alpha=alpha)
                yield frame

    def prefetched(self, size: Size | None = None) -> Generator[Frame, None, None]:
        """Yield all frames, shrunk to `size`, while another thread decodes the next ones."""
        return prefetch(self.frames(size))

    def samples(self, count: int, size: Size) -> Generator[Frame, None, None]:
        """Yield at least `count` frames, evenly spread over the clip and shrunk to `size`; all of a short clip."""
        return self.frames(size, max(1, self.expected // count))


def fit_size(size: Size, longest: int) -> Size:
    """(width, height), scaled down so that the longer side is at most `longest`."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image, size: Size) -> Image:
    """An image (H, W) or (H, W, C) at `size`; each pixel is the mean of those that it covers."""
    return image if (image.shape[1], image.shape[0]) == size else cv2.resize(image, size, interpolation=cv2.INTER_AREA)

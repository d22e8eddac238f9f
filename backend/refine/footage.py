"""What a fit reads of a video: mattes, boxes and images at one small size."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator
from contextlib import closing
from dataclasses import dataclass

from ..arrays import Array, Image
from ..segmentation.subject import Subject, frames_of
from ..video.clip import Clip
from ..video.frame_source import FrameSource, fit_size, shrink
from ..video.prefetch import prefetch

LONGEST = 640  # pixels of the longer side of images and mattes


@dataclass(frozen=True, eq=False)
class Footage:
    """T frames. times: (T,) seconds. confidence: (T,) 0..1, 0 where the subject was lost.

    boxes: (T, 4) x0, y0, x1, y1 of the subject in pixels of the mattes. matte: of a frame, (H, W) uint8, the subject above 127.
    images: yields the images (H, W, 3) uint8 RGB of these frames in order, of the mattes' size; None leaves out the optical flow.
    pixel: pixels of the video that one of these is wide.
    """

    times: Array
    confidence: Array
    boxes: Array
    matte: Callable[[int], Image]
    images: Callable[[Container[int]], Generator[Image, None, None]] | None = None
    pixel: float = 1.0

    def __len__(self) -> int:
        return len(self.times)


def footage_of(clip: Clip, subject: Subject) -> Footage:
    """The clip's frames with the subject that was found in them, of the shot that it is in. Raises UserError later, as `read_frames`."""
    source = FrameSource(subject.clip or clip)
    size = fit_size(source.size, LONGEST)
    pixel = source.size[0] / size[0]

    def images(only: Container[int]) -> Generator[Image, None, None]:
        with closing(prefetch(frames_of(subject, source.clip, size, only))) as frames:
            for frame in frames:
                yield frame.image

    def matte(index: int) -> Image:
        return shrink(subject.matte(index), size)

    return Footage(subject.times, subject.confidence, subject.boxes / pixel, matte, images, pixel)

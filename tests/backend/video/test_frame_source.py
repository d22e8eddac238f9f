"""A clip's frames at the size that is needed, and how often the file is gone through for them."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from anyrig.backend.progress import result_of
from anyrig.backend.segmentation.subject import find_subject
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.frame_source import FrameSource, fit_size
from anyrig.backend.video.reader import read_frames, write_video

FRAMES = 30


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square that crosses a white image."""
    path = tmp_path_factory.mktemp("videos") / "square.mp4"
    images = np.full((FRAMES, 120, 200, 3), 250, np.uint8)
    for frame, image in enumerate(images):
        image[40:90, 10 + 4 * frame : 50 + 4 * frame] = (120, 60, 30)
    write_video(path, images, 25.0)
    return path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of frames decoded each time that a video was opened."""
    counts: list[int] = []
    real = cv2.VideoCapture

    class Counting:
        def __init__(self, *arguments: object) -> None:
            self.capture, self.number = real(*arguments), len(counts)
            counts.append(0)

        def grab(self) -> bool:
            done = self.capture.grab()
            counts[self.number] += done
            return done

        def __getattr__(self, name: str) -> object:
            return getattr(self.capture, name)

    monkeypatch.setattr(cv2, "VideoCapture", Counting)
    yield counts


def test_frames_are_shrunk_and_chosen(video: Path) -> None:
    source = FrameSource(Clip(str(video), start=0.2))
    assert source.size == (200, 120) and source.expected == 25 and source.range == (5, 25, 30)
    size = fit_size(source.size, 50)
    assert size == (50, 30)
    whole = list(read_frames(source.clip))
    for frame, same, small in zip(whole, source.frames(), source.prefetched(size), strict=True):
        np.testing.assert_array_equal(same.image, frame.image)
        assert small.image.shape == (30, 50, 3) and (small.index, small.time) == (frame.index, frame.time)
        assert np.abs(small.image.mean((0, 1)) - frame.image.mean((0, 1))).max() < 1
    assert [frame.index for frame in source.frames(only={3, 7})] == [3, 7]
    assert [frame.index for frame in source.samples(5, size)] == [0, 5, 10, 15, 20]
    assert len(list(source.samples(40, size))) == 25


def test_alpha_is_shrunk_too(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 4), np.uint8)
    image[10:30, 20:60, 3] = 255
    for name in ("a1.png", "a2.png"):
        cv2.imwrite(str(tmp_path / name), image)
    frame = next(FrameSource(Clip(str(tmp_path))).frames((40, 20)))
    assert frame.alpha is not None and frame.alpha.shape == (20, 40) and frame.alpha.sum() == 255 * 10 * 20


def test_each_pass_goes_through_the_file_once(video: Path, opened: list[int]) -> None:
    source = FrameSource(Clip(str(video)))
    for _ in range(3):
        assert source.size == (200, 120) and source.expected == FRAMES
    known = len(opened)
    assert sum(opened) == 1, "one frame tells the size"
    for work in (source.frames(), source.prefetched((50, 30)), source.samples(5, (50, 30))):
        list(work)
    assert opened[known:] == [FRAMES] * 3


def test_finding_the_subject_goes_through_the_file_twice(video: Path, opened: list[int]) -> None:
    """For the samples, and for the mattes."""
    assert result_of(find_subject(Clip(str(video)))).source == "uniform"
    assert sorted(opened) == [0, 1, FRAMES, FRAMES]

"""The README's moving picture: what it shows, and that it repeats."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from anyrig.addon.dev import commands, demo, demo_character, pictures

STEPS = 4  # frames of the walk


@contextmanager
def quiet() -> Iterator[demo.Console]:
    yield demo.Console(io.StringIO())


def test_the_video_beside_the_capture_over_it_then_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SIZE", 64)
    monkeypatch.setattr(demo_character, "WALK_FRAMES", STEPS)
    monkeypatch.setattr(demo, "quiet", quiet)
    out = tmp_path / "pictures"
    assert commands.main(["pictures", "-o", str(out), "--model", "tiny", "--device", "cpu"]) == 0
    assert [path.name for path in out.iterdir()] == ["demo.webp"]
    found, animation = cv2.imreadanimation(str(out / "demo.webp"))
    frames = [frame[..., :3].astype(int) for frame in animation.frames]
    assert found and animation.loop_count == 0 and len(frames) == 2 * STEPS and set(animation.durations) == {42}
    assert frames[0].shape == (48, 128, 3)
    for index, frame in enumerate(frames):
        video, rig = frame[:, :64], frame[:, 64:]
        assert (np.abs(video[12:] - video[-1, -1]).max(-1) > 40).mean() > 0.05
        tint = (rig[12:, :, 1] > rig[12:, :, 2] + 25).mean()  # of the colours BGR
        assert tint > 0.05 if index < STEPS else tint < 0.01


def test_the_tint_keeps_the_shape_and_the_shades() -> None:
    image = np.array([[[200, 100, 50, 255], [20, 10, 5, 128], [0, 0, 0, 0]]], np.uint8)
    tinted = pictures.tinted(image)
    assert np.array_equal(tinted[..., 3], image[..., 3])
    assert (tinted[0, 0, :3] > tinted[0, 1, :3]).all() and np.argmax(tinted[0, 0, :3]) == 1

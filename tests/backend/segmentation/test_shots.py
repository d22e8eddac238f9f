"""Cuts are found, and nothing else is taken for one."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from anyrig.backend.segmentation.shots import Shot, ShotFinder, one_shot
from anyrig.backend.video.clip import Clip
from anyrig.tests.backend.outdoor import noise_texture, walker

SIZE = (144, 256)


def scene(seed: int, colour: tuple[float, float, float], shift: float = 0.0) -> np.ndarray:
    wide = noise_texture(np.random.default_rng(seed), (SIZE[0], 900), 24, 0, 120) + np.float32(colour)
    return cv2.warpAffine(wide, np.float32([[1, 0, -shift], [0, 1, 0]]), SIZE[::-1])


def shots(images: Sequence[np.ndarray], start: float = 0.0) -> list[Shot]:
    finder = ShotFinder(start)
    for index, image in enumerate(images):
        finder.add(start + index / 25, np.clip(image, 0, 255).astype(np.uint8))
    return finder.finish()


WARM, COLD = (120, 60, 20), (20, 60, 130)


def test_a_hard_cut() -> None:
    found = shots([scene(1, WARM)] * 30 + [scene(2, COLD)] * 12, start=2.0)
    assert [shot.frames for shot in found] == [30, 12]
    assert found[0].start == 2.0 and found[0].end == found[1].start == pytest.approx(2 + 29.5 / 25)


@pytest.mark.parametrize("first", [1, 2, 5, 20])
def test_cuts_near_the_ends(first: int) -> None:
    assert [shot.frames for shot in shots([scene(1, WARM)] * first + [scene(2, COLD)] * 20)] == [first, 20]


def test_several_cuts() -> None:
    images = [scene(k // 15, WARM if k // 15 % 2 else COLD) for k in range(60)]
    assert [shot.frames for shot in shots(images)] == [15, 15, 15, 15]


def test_a_flash_is_no_cut() -> None:
    images = [scene(1, WARM)] * 40
    images[20] = np.full((*SIZE, 3), 250.0)
    assert len(shots(images)) == 1


def test_a_quick_pan_is_no_cut() -> None:
    assert len(shots([scene(1, WARM, 18.0 * k) for k in range(34)])) == 1


def test_a_large_quick_subject_is_no_cut() -> None:
    images = []
    for k in range(30):
        mask = cv2.resize(walker(k, 20 + 12 * k, 90), SIZE[::-1])[..., None]
        images.append(mask * np.float32([230, 220, 40]) + (1 - mask) * scene(1, COLD))
    assert len(shots(images)) == 1


def test_light_that_changes_is_no_cut() -> None:
    assert len(shots([scene(1, WARM) * (1 + 0.06 * (k % 2)) for k in range(30)])) == 1


def test_the_longest_shot_is_taken() -> None:
    pair = [Shot(0.0, 1.0, 25), Shot(1.0, 4.0, 75)]
    clip, note = one_shot(Clip("x.mp4"), pair)
    assert (clip.start, clip.end) == (1.0, None) and "number 2 was captured, the longest, from 1.00 to 4.00 seconds" in note
    assert one_shot(clip, pair[1:]) == (clip, "")
    boxed, note = one_shot(Clip("x.mp4", box=(0, 0, 9, 9)), pair)
    assert (boxed.start, boxed.end, boxed.box_time) == (0.0, 1.0, 0.0) and "the one with the subject box" in note

"""What the network leaves out of a figure before open scenery is added, and nothing else."""

import cv2
import numpy as np
import pytest
from anyrig.backend.segmentation.cutout_network import load_cutout
from anyrig.backend.segmentation.scenery_key import find_scenery
from anyrig.backend.segmentation.whole_subject import WholeSubject, with_missing_parts
from anyrig.tests.backend.outdoor import SIZE, cast, outdoors, walker


def matte(mask: np.ndarray) -> np.ndarray:
    return (mask * 255).astype(np.uint8)


BODY = walker(3, 160, 90)
TRUNK = np.where(np.arange(SIZE[1])[None] > 140, BODY, 0)


def test_a_large_part_is_added() -> None:
    found, truth = with_missing_parts(matte(TRUNK), matte(BODY)) >= 128, BODY >= 0.5
    assert (found & truth).sum() > 0.97 * (found | truth).sum(), "all but the thin tail"


def test_a_wider_outline_is_not() -> None:
    wide = cv2.dilate(BODY, np.ones((3, 3)))
    np.testing.assert_array_equal(with_missing_parts(matte(BODY), matte(wide)), matte(BODY))


@pytest.mark.parametrize("keyed", [np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)])
def test_something_else_is_not(keyed: np.ndarray) -> None:
    np.testing.assert_array_equal(with_missing_parts(matte(BODY), matte(keyed)), matte(BODY))
    assert not with_missing_parts(np.zeros(SIZE, np.uint8), matte(keyed)).any(), "where the network sees nothing there is nothing"


def test_a_head_gets_its_body_back_outdoors() -> None:
    colours = np.where(np.arange(SIZE[0])[:, None, None] < 92, *np.float32([(70, 90, 160), (60, 70, 120)]))
    masks = [walker(k, 175 + 2 * np.sin(0.5 * k), 92.0) for k in range(24)]
    images = np.stack(
        [(m[..., None] * colours + (1 - m[..., None]) * cast(outdoors(), 175, 92)).clip(0, 255).astype(np.uint8) for m in masks]
    )
    scenery, network = find_scenery(images, load_cutout()), load_cutout()
    assert scenery is not None

    def front(image: np.ndarray) -> np.ndarray:
        """A network that sees only the front half."""
        shown = matte(masks[5])
        shown[:, :170] = 0
        return shown if image.shape[:2] == SIZE else np.zeros(image.shape[:2], np.uint8)

    whole = WholeSubject(front, scenery, network, SIZE[::-1], SIZE[::-1])
    found, truth = whole(images[5]) >= 128, masks[5] >= 0.5
    assert (found & truth).sum() > 0.85 * (found | truth).sum()
    assert not whole(np.ascontiguousarray(images[5][:100, :100])).any(), "a crop is left to the network"

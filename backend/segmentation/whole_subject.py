"""Completes a network's mattes before open scenery: cartoon figures of which it takes the head alone. Uses OpenCV and numpy."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..arrays import Image, Pixels
from ..video.frame_source import Size, shrink
from .cutout_network import Cutout
from .matte import Picker, mask_box
from .scenery_key import Scenery

MISSING = 0.08  # area over the object's from which a part that the network left out is added
STRANGE = 2.0  # and up to which: more is something else
RIM = 0.03  # over the object's diagonal: what is nearer to it is no part left out, but the uncertainty of either outline


class WholeSubject:
    """Finds mattes as `find` does, and adds the parts of the same object that differ from the scenery.

    full: (width, height) of the video's frames, size: of the scenery and the mattes. Images of another size are crops, which say nothing
    of the scenery.
    """

    def __init__(self, find: Callable[[Image], Image], scenery: Scenery, network: Cutout, full: Size, size: Size) -> None:
        self._find, self._scenery, self._network, self._full, self._size = find, scenery, network, full, size

    def __call__(self, image: Image) -> Image:
        matte = self._find(image)
        if image.shape[1::-1] != self._full:
            return matte
        matte = cv2.resize(matte, self._size, interpolation=cv2.INTER_LINEAR)
        picker = Picker(previous=matte >= 128)
        return with_missing_parts(matte, self._scenery.pick(shrink(image, self._size), picker, 0.02, self._network))


def with_missing_parts(matte: Image, keyed: Image) -> Image:
    """Add to a matte (H, W) what the other matte of the same object has beside it, if that is a part of some size."""
    own = matte >= 128
    box = mask_box(own)
    if box is None:
        return matte
    radius = max(2, round(RIM * float(np.hypot(box[2] - box[0], box[3] - box[1]))))
    extra = (keyed >= 128) & ~_grown(own, radius)
    extra = cv2.morphologyEx(extra.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
    if not MISSING * own.sum() <= extra.sum() <= STRANGE * own.sum():
        return matte
    return np.where(_grown(extra, radius + 2), np.maximum(matte, keyed), matte)


def _grown(mask: Pixels, radius: int) -> Pixels:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return cv2.dilate(mask.astype(np.uint8), disc) > 0

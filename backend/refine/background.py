"""How the camera moves, told from the background around the subject."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..arrays import Array, Image
from ..segmentation.background_alignment import Chain, grey

STILL = 0.004  # of the picture's longer side: a camera that moves the background by less stands
GUESSED = 0.1  # share of frames without enough of a background, beyond which the camera's motion is unknown
MARGIN = 9  # pixels around the subject that may still be part of it


@dataclass(frozen=True, eq=False)
class Seen:
    """What the background says. camera: "still", "moves" or "unknown". background: (T, 2, 3) as in Motion, or (0, 2, 3) unless it moves.
    size: width and height of the video in pixels."""

    camera: str
    background: Array
    size: list[float]


class Background:
    """Follows the background from frame to frame. pixel: pixels of the video that one of the images is wide."""

    def __init__(self, pixel: float) -> None:
        self.pixel, self.chain = pixel, Chain()
        self.maps: list[Array] = []
        self.size = (0, 0)

    def add(self, matte: Image, image: Image | None) -> None:
        """Add the next frame: the subject's matte (H, W) and the image (H, W, 3), None if it is not known."""
        self.size = (matte.shape[1], matte.shape[0])
        if image is not None:
            free = cv2.dilate((matte > 127).astype(np.uint8), np.ones((MARGIN, MARGIN), np.uint8)) == 0
            self.maps.append(np.linalg.inv(self.chain.add(grey(image), free)))

    def seen(self, known: Array, times: Array) -> Seen:
        """What was seen at all times (T,); `known` (N,) are those of the frames that were added. Others are in between in a straight line."""
        size = [float(side) * self.pixel for side in self.size]
        if len(self.maps) != len(known) or self.chain.guesses > GUESSED * len(known):
            return Seen("unknown", np.zeros((0, 2, 3)), size)
        maps = np.array(self.maps)[:, :2]
        width, height = self.size
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1.0]])
        shift = np.abs(corners @ np.swapaxes(maps, 1, 2) - corners[:, :2]).max()
        if shift < STILL * max(self.size):
            return Seen("still", np.zeros((0, 2, 3)), size)
        flat = np.stack([np.interp(times, known, column) for column in maps.reshape(len(maps), 6).T], axis=1)
        # x' = M x + t of small pixels: in the video's, t is larger by the size of a pixel, M the same
        return Seen("moves", flat.reshape(-1, 2, 3) * (1, 1, self.pixel), size)

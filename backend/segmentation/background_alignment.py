"""Finds the motion of the background between frames, from tracked corners. Uses OpenCV and numpy."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..arrays import Array, Pixels

_GRID = (6, 10)  # cells in which agreeing corners are counted
_AGREED = 30.0  # least `_corner_spread`: a quarter of that of corners all over the image
_TRACKING = {"winSize": (15, 15), "maxLevel": 3}


def grey(image: Pixels) -> Pixels:
    """(H, W, 3) uint8 RGB -> (H, W) uint8."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def align_background(source: Pixels, target: Pixels, where: Pixels | None = None, guess: Array | None = None) -> Array | None:
    """Find the affine map (2, 3) of the background's pixels from grey `source` to `target`, or None.

    where: (H, W) bool, the pixels whose corners count. guess: (2, 3) a map to start from. Several groups of corners may each
    agree on a map. The background's group is the most widely spread one, above all along the border, not the largest one.
    """
    pairs = _track_corners(source, target, where, guess)
    best, most = None, 0.0
    for _ in range(3):
        if pairs is None or len(pairs[0]) < 8:
            break
        motion, inlier = cv2.estimateAffinePartial2D(*pairs, ransacReprojThreshold=1.5)
        if motion is None or inlier.sum() < 8:
            break
        inlier = inlier.ravel().astype(bool)
        spread = _corner_spread(pairs[0][inlier], source.shape)
        if spread > most:
            best, most = _refine_affine(pairs, motion, spread), spread
        pairs = (pairs[0][~inlier], pairs[1][~inlier])
    return best if most >= _AGREED else None


def _track_corners(source: Pixels, target: Pixels, where: Pixels | None, guess: Array | None) -> tuple[Array, Array] | None:
    """-> corners (N, 2) in `source` and their places in `target`, if tracking back returns to them; None without corners."""
    mask = None if where is None else where.astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(source, 300, 0.003, 7, mask=mask)
    if corners is None:
        return None
    start = corners if guess is None else cv2.transform(corners, guess).astype(np.float32)
    flag = 0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW
    moved, found, _ = cv2.calcOpticalFlowPyrLK(source, target, corners, start.copy(), flags=flag, **_TRACKING)
    flag = cv2.OPTFLOW_USE_INITIAL_FLOW
    back, returned, _ = cv2.calcOpticalFlowPyrLK(target, source, moved, corners.copy(), flags=flag, **_TRACKING)
    good = (found & returned).ravel().astype(bool) & (np.linalg.norm(back - corners, axis=-1).ravel() < 0.7)
    return corners[good, 0], moved[good, 0]


def _corner_spread(points: Array, shape: tuple[int, ...]) -> float:
    """The number of cells of the image that contain points. Cells along the border count three times."""
    rows, columns = _GRID
    y = np.clip(points[:, 1] * rows / shape[0], 0, rows - 1).astype(int)
    x = np.clip(points[:, 0] * columns / shape[1], 0, columns - 1).astype(int)
    weight = np.full(_GRID, 3.0)
    weight[1:-1, 1:-1] = 1.0
    occupied = np.zeros(_GRID, bool)
    occupied[y, x] = True
    return float(weight[occupied].sum())


def _refine_affine(pairs: tuple[Array, Array], motion: Array, spread: float) -> Array:
    """Refine the similarity `motion` to an affine map, if corners all over the image support it."""
    near = np.linalg.norm(cv2.transform(pairs[0][:, None], motion)[:, 0] - pairs[1], axis=1) < 4.0
    if near.sum() < 60 or spread < 40:
        return motion
    affine, _ = cv2.estimateAffine2D(pairs[0][near], pairs[1][near], ransacReprojThreshold=1.5)
    return motion if affine is None else affine


def align_border(source: Pixels, target: Pixels, where: Pixels) -> Array | None:
    """Find the translation (2, 3) that moves the sides and the top of grey `source` onto `target`, or None.

    Suits backgrounds with few corners (sky, sand, a line of hills), where most corners are the subject's. Maximises the
    correlation (Evangelidis and Psarakis 2008).
    """
    height, width = source.shape
    border = where.copy()
    border[round(0.14 * height) : -3, round(0.22 * width) : round(0.78 * width)] = False
    border[-3:] = border[:, :3] = border[:, -3:] = False
    start = np.eye(2, 3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)
    try:
        _, motion = cv2.findTransformECC(source, target, start, cv2.MOTION_TRANSLATION, stop, border.astype(np.uint8), 5)
    except cv2.error:  # it does not converge
        return None
    return motion.astype(float) if np.abs(motion[:, 2]).max() < 0.2 * width else None


@dataclass(eq=False)
class Chain:
    """Maps the background of the first frame to each later frame.

    Frames are aligned to a key frame as long as it is in sight, so that errors add up per key frame and not per frame. placed:
    (3, 3) maps the first frame's background to the last frame added. guesses: the number of steps so far without enough corners.
    """

    key: Pixels | None = None
    key_placed: Array | None = None
    last: Pixels | None = None
    placed: Array | None = None
    step: Array | None = None
    guesses: int = 0

    def add(self, image: Pixels, where: Pixels) -> Array:
        """Add the next frame (grey). where: (H, W) bool, the pixels that can be background. -> its (3, 3) `placed`."""
        if self.key is None or self.last is None or self.placed is None or self.key_placed is None:
            self.key, self.last, self.key_placed, self.placed = image, image, np.eye(3), np.eye(3)
            return self.placed
        # key frame -> last frame -> this frame, if the camera keeps its velocity
        known = self.placed @ np.linalg.inv(self.key_placed)
        guess = known if self.step is None else self.step @ known
        in_sight = _middle_shift(guess, image.shape) < 0.12 * max(image.shape)
        motion = align_background(self.key, image, where, guess[:2]) if in_sight else None
        if motion is None:
            self.key, self.key_placed = self.last, self.placed
            motion = align_background(self.last, image, where, None if self.step is None else self.step[:2])
            if motion is None:
                self.guesses += 1
                motion = align_border(self.last, image, where)
        placed = self.placed if motion is None else np.vstack([motion, [0.0, 0.0, 1.0]]) @ self.key_placed
        self.step = placed @ np.linalg.inv(self.placed)
        self.last, self.placed = image, placed
        return placed


def _middle_shift(motion: Array, shape: tuple[int, ...]) -> float:
    """The distance in pixels that the map moves the middle of the image."""
    middle = np.array([shape[1] / 2, shape[0] / 2, 1.0])
    return float(np.linalg.norm((motion @ middle - middle)[:2]))

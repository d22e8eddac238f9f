"""Fits a camera to a take whose camera is unknown, so that the rig lies on the subject in the video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import savgol_filter
from scipy.spatial import ConvexHull, QhullError

from ..arrays import Array

ELEVATION = 0.1  # radians: that of the reference views, which show the network how the rig looks
# Distance of the camera on the median frame, in radii of the sphere that holds the subject's whole take. The crops do not show it:
# a person filmed from three to twelve metres is at 3 to 12 radii.
DISTANCE = 6.0
NEAREST = 1.2  # radii: the camera stays outside the subject
STEADY = 8  # frames to either side over which the scale changes evenly, as the scale of the network's crops does
BORDER = 0.004  # of the image's longer side: an edge of the image cuts off a box that is nearer
ROUNDS = 4


@dataclass(frozen=True, eq=False)
class CameraFit:
    """A camera with one lens and one direction. From frame to frame it moves along that direction, and its image is shifted.

    rotation: (3, 3) world (z up) -> camera (x right, y up, z towards the viewer). centre: (3,) its target in the world. width, height:
    of the video in pixels. focal: pixels. times: (T,) seconds of the take, increasing. distance: (T,) from `centre`. shift: (T, 2)
    pixels, x right, y down, from the middle of the image to the centre.
    """

    rotation: Array
    centre: Array
    width: int
    height: int
    focal: float
    times: Array
    distance: Array
    shift: Array

    def at(self, seconds: Array) -> tuple[Array, Array]:
        """Positions (F, 3) in the world and shifts (F, 2) at any times (F,); held before and after the take."""
        shift = np.stack([np.interp(seconds, self.times, values) for values in self.shift.T], axis=-1)
        distance = np.interp(seconds, self.times, self.distance)
        return self.centre + self.rotation[2] * distance[..., None], shift

    def projection(self, position: Array, shift: Array) -> Array:
        """(3, 4) from the world to the video's pixels: camera.Camera.projection with a shifted middle."""
        middle = self.width / 2 + shift[0], self.height / 2 + shift[1]
        intrinsic = np.array([[self.focal, 0.0, -middle[0]], [0.0, -self.focal, -middle[1]], [0.0, 0.0, -1.0]])
        return intrinsic @ np.concatenate([self.rotation, -(self.rotation @ position)[:, None]], axis=1)


def outermost(points: Array) -> Array:
    """The corners of the convex hull of points (P, 3): the box around any image of the points depends on these alone."""
    try:
        return points[ConvexHull(points).vertices]
    except (QhullError, ValueError):  # all in one plane, or too few
        return points


def fit_camera(
    clouds: Sequence[Array],
    seen: Array,
    confidence: Array,
    times: Array,
    rotation: Array,
    size: tuple[int, int],
    radii: float = DISTANCE,
) -> CameraFit:
    """Fit the rig's points in the world (P, 3), one cloud for each of T frames, to the subject's boxes `seen` (T, 4) in pixels.

    rotation: world -> camera, of the side that the capture found. confidence: (T,), 0 where the subject was lost. size: width and
    height of the video. radii: the distance, see DISTANCE.

    The network sees the subject cut out and scaled to one size, and its positions are relative to the root. So a Motion has the side
    of the camera, but neither its lens nor its distance nor the subject's path: the boxes are the only source of these. Near one
    distance d, images from one side differ only by a scale s and a shift t (`fit_boxes`). A subject of constant size that looks s
    times as large as it is drawn, through the same lens, is s times as near: d becomes d / s. The lens is the one that keeps d at
    `radii` radii on the median frame. As perspective changes a little with d, these steps are repeated a few times.
    The place of the subject in the image becomes a shift, not a rotation of the camera: the network saw the crop as if it had been
    in the middle of the image.
    """
    centre, radius = _sphere(np.concatenate(clouds), rotation)
    focal, distance, shift = max(size) / 2 * radii, np.full(len(clouds), radii * radius), np.zeros((len(clouds), 2))
    for step in range(ROUNDS):
        drawn = [drawn_box(*pair, rotation, centre, focal) for pair in zip(clouds, distance, strict=True)]
        scale, shift = fit_boxes(np.array(drawn), seen, confidence, size)
        if step + 1 < ROUNDS:
            usual = float(np.exp(np.median(np.log(scale * radii * radius / distance))))
            focal, distance = focal * usual, np.maximum(distance * usual / scale, NEAREST * radius)
    return CameraFit(rotation, centre, *size, focal, times, distance, shift)


def _sphere(points: Array, rotation: Array) -> tuple[Array, float]:
    """(3,) the middle of the box of world points (P, 3) along the camera's axes, and the points' greatest distance from it."""
    turned = points @ rotation.T
    centre = rotation.T @ (turned.min(0) + turned.max(0)) / 2
    return centre, max(float(np.linalg.norm(points - centre, axis=1).max()), 1e-6)


def drawn_box(points: Array, distance: float, rotation: Array, centre: Array, focal: float) -> Array:
    """(4,) x0, y0, x1, y1 of world points (P, 3) in pixels from the middle, y down, for a camera at `distance` from the centre."""
    x, y, z = rotation @ (points - centre).T
    depth = np.maximum(distance - z, 1e-3 * distance)
    u, v = focal * x / depth, -focal * y / depth
    return np.array([u.min(), v.min(), u.max(), v.max()])


def fit_boxes(drawn: Array, seen: Array, confidence: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Scale (T,) and shift (T, 2) in pixels that fit the rig's boxes `drawn` (T, 4; `drawn_box`) to the subject's `seen` (T, 4).

    From p_seen = s p_drawn + t each edge of the boxes follows the same rule, with t_x for left and right, t_y for top and bottom.
    Least squares over the four edges, whose differences do not contain t, give with widths w and heights h

        s = (w_drawn w_seen + h_drawn h_seen) / (w_drawn^2 + h_drawn^2),    t = mean(e_seen - s e_drawn) over both edges.

    If the image cuts off an edge, the box is not the subject's. Such frames, and those where the subject was lost, take s from the
    frames around them and t from the other edge. An error of the pose is also one of the box, but a subject comes nearer only slowly:
    log s follows straight lines over STEADY frames to either side.
    """
    middle = np.array([size[0], size[1], size[0], size[1]]) / 2
    edge = BORDER * max(size)
    cut = np.stack([seen[:, 0] < edge, seen[:, 1] < edge, seen[:, 2] > size[0] - edge, seen[:, 3] > size[1] - edge], axis=1)
    seen = seen - middle
    scale = _scales(drawn, seen, ~cut.any(1) & (confidence > 0))
    apart = (seen - scale[:, None] * drawn).reshape(-1, 2, 2)
    whole = (~cut).reshape(-1, 2, 2).astype(float)
    whole[np.broadcast_to(whole.sum(1, keepdims=True) == 0, whole.shape)] = 1.0
    return scale, (apart * whole).sum(1) / whole.sum(1)


def _scales(drawn: Array, seen: Array, known: NDArray[np.bool_]) -> Array:
    if not known.any():
        known = np.ones(len(known), np.bool_)
    drawn_size, seen_size = drawn[:, 2:] - drawn[:, :2], np.maximum(seen[:, 2:] - seen[:, :2], 1.0)
    each = (drawn_size * seen_size).sum(1) / np.maximum((drawn_size**2).sum(1), 1e-12)
    frames = np.arange(len(each))
    logs = np.interp(frames, frames[known], np.log(each[known]))
    window = min(2 * STEADY + 1, len(logs) - 1 + len(logs) % 2)
    return np.exp(np.asarray(savgol_filter(logs, window, 1)) if window > 1 else logs)

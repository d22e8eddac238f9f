"""The way that the subject goes, from where it lies in the picture: `with_travel` gives a take its travel.

The camera's frame is x right, y up, z towards the viewer. Everything is in units of the rig; pictures are in pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import minimum_filter1d

from ..arrays import Array
from ..errors import UserError
from ..geometry.camera import view_rotation
from ..geometry.rotations import rotvec_to_matrix
from ..rig.rig import Rig
from ..rig.skeleton import network_axes
from .feet import size_of, standing
from .motion import Motion, fk_heads
from .smoothing import bell, mean_over_time, trend

MODES = ("as captured", "in place", "ground", "free", "picture")
FOV = 0.7  # radians over the longer side of the picture, if it is not known: a lens of 50 mm
PLACE = 0.05  # seconds, width of the bell for the place in the picture
DEPTH = 0.25  # seconds, that for the distance: a subject's size is told less surely than its place
ENVELOPE = 1.5  # seconds: every foot comes to the ground once in so long
NEAR = 0.05  # a foot that is no higher above the ground than this share of the rig's size stands on it


def with_travel(rig: Rig, motion: Motion, mode: str, strength: float = 1.0, fov: float = FOV) -> Motion:
    """The take with its travel.

    mode: as captured: unchanged. in place: up and down alone. ground: anywhere on a level ground, on which the lowest foot stands, and above
    it in jumps. free: in all directions, as seen. picture: across the picture and not in depth, with the camera's own motion left in.
    strength: 0 leaves the take as it is; in between, the travel is a mixture.
    fov: angle in radians over the longer side of the picture.
    Raises UserError for another mode, and for a take that lies nowhere in the picture.
    """
    if mode not in MODES:
        raise UserError(f"Path '{mode}' is unknown: choose one of {', '.join(MODES)}.")
    if mode == MODES[0] or not strength:
        return motion
    axes = network_axes(rig)
    if mode == "picture":
        way = _across(motion, _path(rig, motion))
    else:
        way = seen_travel(rig, motion, fov) @ axes.T
        if mode == "in place":
            way[:, [0, 2]] = 0
        if mode != "free":
            way[:, 1] = _grounded(rig, motion, way)
    travel = strength * (way @ axes)
    if len(motion.travel):
        travel = travel + (1 - strength) * motion.travel
    return replace(motion, travel=travel)


def seen_travel(rig: Rig, motion: Motion, fov: float = FOV) -> Array:
    """(T, 3) the travel of the root's head in armature axes, from its place and scale in the picture, the camera's motion taken out."""
    path, size = _path(rig, motion), picture_size(motion)
    focal = max(size) / 2 / np.tan(fov / 2)
    turns, zoom = camera_motion(motion.background, size, focal)
    known = _known(motion)
    # rays and logarithms of distances are what means are fit for: twice as near is as far from the mean as twice as far
    # a pixel (u, v) at depth d shows the point d (u, -v, -1) in the camera's frame
    right, down = ((path[:, :2] - np.array(size) / 2) / (focal * zoom)[:, None]).T
    rays = (turns @ np.stack([right, -down, -np.ones_like(right)], axis=1)[..., None])[..., 0]
    rays = trend(motion.times, PLACE, rays, known)
    depth = np.exp(trend(motion.times, DEPTH, np.log(focal * zoom / path[:, 2])[:, None], known))
    # p_camera = V p_network and p_network = A p, so p = A^T V^T p_camera; as rows p_camera V A
    way = depth * rays @ view_rotation(*motion.camera) @ network_axes(rig)
    return way - way[0]


def camera_motion(background: Array, size: tuple[float, float], focal: float) -> tuple[Array, Array]:
    """What the background says of the camera: rotations (T, 3, 3) from its frame to that of the first frame, and (T,) how much its lens
    has lengthened.

    background: (T, 2, 3) as in Motion, or (0, 2, 3) for a camera that stands: then one frame stands for all. Maps from frame to frame
    were put together, so their shift adds up along an arc: the angle is the shift over the focal length.
    """
    if not len(background):
        return np.eye(3)[None], np.ones(1)
    middle = np.array(size) / 2
    # A pan by a shifts a pixel at u focal lengths from the middle by a (1 + u^2) of them, and an affine map is the mean over the picture.
    shift = focal * (1 + (middle / focal) ** 2 / 3)
    pan, tilt = ((background[:, :, :2] @ middle + background[:, :, 2] - middle) / shift).T
    roll = np.arctan2(background[:, 1, 0], background[:, 0, 0])
    # What lies in the middle now lay to the right of it by the angle `pan`, and below it by `tilt`. With x right, y up and z towards
    # the viewer, (0, 0, -1) is taken to the right by a rotation about -y, and down by one about -x; pixels have y down.
    turns = _about((0, -1, 0), pan) @ _about((-1, 0, 0), tilt) @ _about((0, 0, -1), roll)
    # an affine map enlarges lengths by the square root of its determinant: the map to the first frame shrinks what a longer lens shows
    return turns, 1 / np.sqrt(np.abs(np.linalg.det(background[:, :, :2])))


def _about(axis: tuple[int, int, int], angles: Array) -> Array:
    return rotvec_to_matrix(angles[:, None] * np.array(axis, np.float64))


def picture_size(motion: Motion) -> tuple[float, float]:
    """Width and height of the video in pixels, as refining found it; for other takes what holds all boxes, centred."""
    known = motion.provenance.get("refine", {}).get("picture")
    if known is not None:
        return float(known[0]), float(known[1])
    far = motion.boxes[:, 2:].max(0) + np.maximum(motion.boxes[:, :2].min(0), 0)
    return float(max(far[0], 1)), float(max(far[1], 1))


def path_by_boxes(rig: Rig, motion: Motion) -> Array:
    """(T, 3) as Motion.path, for a take that was not refined: the posed bones are laid into the boxes. Raises UserError without boxes."""
    extent = motion.boxes[:, 2:] - motion.boxes[:, :2]
    seen = (extent > 0).all(1) & (_known(motion) > 0)
    if not seen.any():
        raise UserError(
            "The take does not say where the subject was in the picture: capture it again, or leave the path as captured."
        )
    axes = network_axes(rig)
    bones = axes @ motion.matrices @ axes.T @ ((rig.tails - rig.heads) @ axes.T)[..., None]
    heads = fk_heads(rig, motion)
    points = np.concatenate([heads, heads + bones[..., 0]], axis=1) @ view_rotation(*motion.camera).T
    low, high = points[..., :2].min(1), points[..., :2].max(1)
    # the skin is thicker than the bones, by as much on all sides: what counts is how the size changes
    scale = np.linalg.norm(extent, axis=1) / np.maximum(np.linalg.norm(high - low, axis=1), 1e-9)
    middle = (low + high) / 2
    place = (motion.boxes[:, :2] + motion.boxes[:, 2:]) / 2 - scale[:, None] * middle * (1, -1)
    path = np.concatenate([place, scale[:, None]], axis=1)
    return np.stack([np.interp(motion.times, motion.times[seen], column) for column in path[seen].T], axis=1)


def _path(rig: Rig, motion: Motion) -> Array:
    return motion.path if len(motion.path) else path_by_boxes(rig, motion)


def _known(motion: Motion) -> Array:
    """(T,) how much is known of the subject's place."""
    return motion.confidence.max(1) if motion.confidence.any() else np.ones(len(motion))


def _across(motion: Motion, path: Array) -> Array:
    """(T, 3) the travel across the picture, y up, at the subject's mean distance."""
    known = _known(motion)
    place = trend(motion.times, PLACE, path[:, :2], known)
    scale = np.exp(np.average(np.log(path[:, 2]), weights=np.maximum(known, 1e-3)))
    shift = (place - place[0]) / scale
    return np.stack([shift[:, 0], -shift[:, 1], np.zeros(len(shift))], axis=1) @ view_rotation(*motion.camera)


def _grounded(rig: Rig, motion: Motion, way: Array) -> Array:
    """(T,) the height of the root above that of the first frame with which the lowest foot stands on a level ground, except in jumps.

    way: (T, 3) the travel as seen, y up. Where a foot is near its lowest for a while, it stands, and the height follows from the pose.
    Where none is, the height is as seen, less the error that it has before and after.
    """
    moving = replace(motion, travel=np.zeros((0, 3)))
    found = standing(rig, moving)
    if not len(found.levels):
        return way[:, 1]
    lowest = (found.points[..., 1] - found.levels + found.levels.min()).min(1)
    seen = way[:, 1] + lowest
    frames = max(3, int(ENVELOPE / max(float(np.median(np.diff(motion.times))), 1e-6)) | 1) if len(motion) > 1 else 3
    ground = mean_over_time(bell(motion.times, ENVELOPE / 4), minimum_filter1d(seen, frames, mode="nearest"))
    stands = seen < ground + NEAR * size_of(rig)
    error = np.interp(motion.times, motion.times[stands], (-lowest - way[:, 1])[stands]) if stands.any() else 0.0
    height = way[:, 1] + error
    return height - height[0]

"""How much of the subject in a video a rig covers: intersection over union of silhouettes, which needs no truth. numpy and OpenCV.

A silhouette is drawn from the points of the rig's surface, seen along the camera's axis (weak perspective). Where the rig stands in
the image, and how large it is, is not the take's to say: both are fitted for each frame.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from ..geometry.rotations import Array
from ..motion.motion import Motion, fk_heads
from ..rig.point_cloud import Surface
from ..rig.rig import Rig
from ..rig.skeleton import network_axes

CANVAS, BODY = 128, 96  # pixels: the side of the images that are compared, and the longer side of what they show
STEPS = (8.0, 4.0, 2.0, 1.0, 0.5)  # pixels that a trial moves the silhouette's edge by
TRIALS = 8  # rounds of trials for each step
Mask = NDArray[np.uint8]


def mask_overlap(left: NDArray, right: NDArray) -> float:
    """Intersection over union of two masks of one shape; 1 if both are empty."""
    left, right = left.astype(np.bool_), right.astype(np.bool_)
    union = int((left | right).sum())
    return float((left & right).sum()) / union if union else 1.0


def posed_points(rig: Rig, surface: Surface, motion: Motion) -> Array:
    """(T, P, 3) the surface's points in the take, relative to the root joint's head, in the network's axes.

    Linear blend skinning: a point p moves with a joint of head h at rest to G (p - h) + h', where h' is the joint's head in the
    take, by forward kinematics of its rotations.
    """
    axes = network_axes(rig)
    rotations = axes @ motion.matrices @ axes.T
    heads = fk_heads(rig, motion)
    points = np.zeros((len(motion), len(surface), 3))
    rest, rest_heads = surface.points @ axes.T, rig.heads @ axes.T
    for slot in range(surface.joints.shape[1]):
        joint, weight = surface.joints[:, slot], surface.weights[:, slot, None]
        arm = rest - rest_heads[joint]
        points += weight * (np.einsum("tpij,pj->tpi", rotations[:, joint], arm) + heads[:, joint])
    return points


def draw_silhouettes(points: Array) -> NDArray[np.uint8]:
    """Points (T, P, 2 or 3), x right and y up -> (T, CANVAS, CANVAS) uint8, 255 on the body, all at one scale, each centred."""
    flat = points[..., :2]
    low, high = flat.min(1, keepdims=True), flat.max(1, keepdims=True)
    scale = BODY / max(float((high - low).max()), 1e-12)
    pixels = (flat - (low + high) / 2) * (scale, -scale) + CANVAS / 2
    # the gaps between points are closed over the distance from a point to its neighbours on a surface seen from the front
    gap = int(np.ceil(np.sqrt(BODY * BODY / max(points.shape[1], 1)) + 1))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1))
    masks = np.zeros((len(points), CANVAS, CANVAS), np.uint8)
    for mask, places in zip(masks, np.clip(pixels.astype(np.int64), 0, CANVAS - 1)):
        mask[places[:, 1], places[:, 0]] = 255
        mask[:] = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc)
    return masks


def crop_matte(matte: Mask) -> Mask:
    """(H, W) uint8, the subject above 127 -> (CANVAS, CANVAS), the subject's box scaled to BODY and centred; all 0 without subject."""
    rows, columns = np.flatnonzero((matte > 127).any(1)), np.flatnonzero((matte > 127).any(0))
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    if not len(rows):
        return canvas
    part = matte[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BODY / max(part.shape)
    size = tuple(max(1, round(side * scale)) for side in part.shape[::-1])
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    top, left = (CANVAS - size[1]) // 2, (CANVAS - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = np.where(small > 127, 255, 0)
    return canvas


def fitted_overlap(drawn: Mask, matte: Mask) -> float:
    """Overlap of two masks (CANVAS, CANVAS) at the place and scale of `drawn` where it is greatest; 0 if one is empty."""
    if not drawn.any() or not matte.any():
        return 0.0
    place = _matched_moments(drawn, matte)
    best = _overlap_at(drawn, matte, place)
    for step in STEPS:
        # 1 of scale moves the edge of the body by half its size
        moves = step * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 2 / BODY], [0, 0, -2 / BODY]])
        for _ in range(TRIALS):
            overlaps = [_overlap_at(drawn, matte, place + move) for move in moves]
            chosen = int(np.argmax(overlaps))
            if overlaps[chosen] <= best:
                break
            best, place = overlaps[chosen], place + moves[chosen]
    return best


def _matched_moments(drawn: Mask, matte: Mask) -> Array:
    """(3,) shift x, y in pixels and the logarithm of a scale about the canvas's centre that give both masks one centre and area."""
    ours, theirs = cv2.moments(drawn, binaryImage=True), cv2.moments(matte, binaryImage=True)
    scale = np.sqrt(theirs["m00"] / ours["m00"])
    centre, target = (np.array([m["m10"], m["m01"]]) / m["m00"] for m in (ours, theirs))
    shift = target - (CANVAS / 2 + scale * (centre - CANVAS / 2))
    return np.array([*shift, np.log(scale)])


def _overlap_at(drawn: Mask, matte: Mask, place: Array) -> float:
    scale = np.exp(place[2])
    # x' = c + scale (x - c) + shift, with c the canvas's centre
    shift = CANVAS / 2 * (1 - scale) + place[:2]
    moved = cv2.warpAffine(drawn, np.array([[scale, 0, shift[0]], [0, scale, shift[1]]]), (CANVAS, CANVAS))
    inside = moved > 127
    # what is moved off the canvas counts as drawn where there is no subject
    outside = max(0.0, scale**2 * cv2.countNonZero(drawn) - np.count_nonzero(inside))
    common = np.count_nonzero(inside & (matte > 127))
    return common / (np.count_nonzero(inside) + cv2.countNonZero(matte) - common + outside)


def take_overlap(points: Array, mattes: Iterable[Mask]) -> Array:
    """(T,) the overlap of each frame. points: (T, P, 3) in camera axes (x right, y up). mattes: T images (H, W) uint8."""
    masks = draw_silhouettes(points)
    return np.array([fitted_overlap(mask, crop_matte(matte)) for mask, matte in zip(masks, mattes, strict=True)])

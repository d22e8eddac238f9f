"""How much of the subject a take covers: through the true camera, and with the mattes that a capture finds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from ...arrays import Array, Image
from ...geometry.camera import view_rotation
from ...motion.motion import Motion, fk_heads
from ...refine.overlap import mask_overlap, posed_points, take_overlap
from ...rendering import point_splatting
from ...rig.point_cloud import Surface
from ...rig.rig import Rig
from ...rig.skeleton import network_axes

FRAMES = 12  # of a clip that are compared, evenly spread
SIDE = 160  # pixels of the longer side of the silhouettes that are drawn


def compared_frames(count: int) -> NDArray[np.int64]:
    """At most FRAMES of so many, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, FRAMES).round().astype(int))


def pose_at_true_root(rig: Rig, motion: Motion, truth: Array) -> Array:
    """(T, J, 4, 4) joint matrices of the take in the space of the true ones, each frame's root at the true root's head.

    A bone that is rotated by G away from its rest R has the rotation G R; heads are by forward kinematics.
    """
    axes = network_axes(rig)
    pose = np.tile(np.eye(4), (len(motion), len(rig.names), 1, 1))
    pose[..., :3, :3] = motion.matrices @ rig.rest_rotations
    pose[..., :3, 3] = fk_heads(rig, motion) @ axes + truth[:, :1, :3, 3]
    return pose


@torch.no_grad()
def draw_masks(cloud: point_splatting.Cloud, poses: Array, projection: Array, width: int, height: int) -> NDArray[np.bool_]:
    """(T, h, w) silhouettes of joint matrices (T, J, 4, 4) through a camera (3, 4), smaller than its image of width x height."""
    share = SIDE / max(width, height)
    points, normals = cloud.skin(torch.as_tensor(poses, dtype=torch.float32))
    smaller = torch.tensor(np.diag([share, share, 1.0]) @ projection, dtype=torch.float32)
    size = (round(height * share), round(width * share))
    drawn = point_splatting.render(points, normals, cloud.colours, smaller, torch.ones(3), *size, spacing=cloud.spacing)
    return drawn[..., 3].numpy() > 0.5


def camera_overlap(
    rig: Rig, cloud: point_splatting.Cloud, motion: Motion, truth: Array, projection: Array, width: int, height: int
) -> float:
    """Mean overlap of the take's silhouette with the true one through the true camera, each frame's root at the true root."""
    chosen = compared_frames(len(motion))
    taken = pose_at_true_root(rig, motion, truth)[chosen]
    pairs = (draw_masks(cloud, poses, projection, width, height) for poses in (taken, truth[chosen]))
    return float(np.mean([mask_overlap(ours, true) for ours, true in zip(*pairs, strict=True)]))


def matte_overlap(rig: Rig, surface: Surface, motion: Motion, matte: Callable[[int], Image]) -> float:
    """Mean overlap of the take, seen from the side that its capture found, with mattes; matte(i) is that of frame i."""
    chosen = compared_frames(len(motion))
    points = posed_points(rig, surface, motion)[chosen] @ view_rotation(*motion.camera).T
    return float(take_overlap(points, [matte(int(frame)) for frame in chosen]).mean())

"""Draws single images of point clouds with numpy arrays in and out, for the add-on: of packs, and of rigs without a mesh."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..geometry.rotations import Array
from ..rig.rig import Rig
from .point_splatting import Cloud, capsules, cloud_of, key_light, render


def capsule_cloud(rig: Rig) -> Cloud:
    """The rig's bones as capsules, in armature space."""
    return cloud_of(capsules(rig), rig.rest)


def skin_cloud(cloud: Cloud, pose: Array) -> tuple[Array, Array]:
    """Pose the cloud by joint matrices (J, 4, 4) -> points (P, 3) and unit normals (P, 3), float64, in the space of the pose."""
    points, normals = cloud.skin(torch.tensor(pose, dtype=torch.float32)[None])
    return points[0].double().numpy(), normals[0].double().numpy()


def still_image(
    cloud: Cloud,
    pose: Array,
    rotation: Array,
    projection: Array,
    size: tuple[int, int],
    world: Array | None = None,
    samples: int = 1,
) -> NDArray[np.uint8]:
    """Draw the cloud in a pose (J, 4, 4) -> (height, width, 4) uint8 RGBA, straight alpha, lit as training's reference images are.

    world: (4, 4) from the space of the pose to the camera's world, the identity if not given.
    rotation: (3, 3) from world axes to the camera's (right, up, towards the viewer).
    projection: (3, 4) from the world to pixels. size: width, height. samples: 2 for smooth edges.
    """
    world = np.eye(4) if world is None else world
    points, normals = cloud.skin(torch.tensor(world @ pose, dtype=torch.float32)[None])
    spacing = cloud.spacing * float(np.cbrt(abs(np.linalg.det(world[:3, :3]))))
    light = torch.tensor(key_light(rotation), dtype=torch.float32)
    lens = torch.tensor(projection, dtype=torch.float32)
    rgba = render(points, normals, cloud.colours, lens, light, size[1], size[0], spacing=spacing, samples=samples)
    return (rgba[0] * 255).round().to(torch.uint8).numpy()

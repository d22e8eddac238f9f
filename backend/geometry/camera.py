"""The pinhole camera shared by Blender's reference views and the point-splat renderer. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays import Array

# World axes are Blender's: z against gravity. The network's axes are y-up: x right, y against gravity, z towards a viewer
# who looks along Blender's +y ("front view"). (x, y, z) z-up is (x, z, -y) y-up; determinant +1.
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])


SIDES = 16  # of a reference pose that are drawn: the nearest one is off by at most 11.25 degrees


def side_azimuths() -> list[float]:
    """The azimuths of the SIDES, in radians, evenly spaced from 0."""
    return [2 * np.pi * side / SIDES for side in range(SIDES)]


def view_yaw(azimuth: float) -> Array:
    """(3, 3) from the network's axes to those of a level camera at `azimuth` (radians).

    The camera is in direction d = (sin a, 0, cos a), which is its own +z. A rotation about +y by -a takes d to (0, 0, 1):
    p_camera = view_yaw(a) @ p_network.
    """
    sine, cosine = np.sin(azimuth), np.cos(azimuth)
    return np.array([[cosine, 0.0, -sine], [0.0, 1.0, 0.0], [sine, 0.0, cosine]])


def view_rotation(azimuth: float, pitch: float) -> Array:
    """(3, 3) from the network's axes to those of a camera, with angles as in `Camera`."""
    # After the yaw the camera is level; looking down by `pitch` turns the world about the camera's x by +pitch.
    sine, cosine = np.sin(pitch), np.cos(pitch)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]]) @ view_yaw(azimuth)


@dataclass(frozen=True)
class Camera:
    """A perspective camera that looks at `target` from `distance` away.

    azimuth and pitch in radians: azimuth 0 is Blender's front view, +90 degrees looks from +x; positive pitch looks down.
    `fov` is the full angle over the longer side. Pixels are square, x right, y down, the first pixel's centre at 0.5.
    """

    target: tuple[float, float, float]
    distance: float
    azimuth: float = 0.0
    pitch: float = 0.0
    fov: float = 0.7
    width: int = 320
    height: int = 320

    @property
    def rotation(self) -> Array:
        """(3, 3) world (z up) -> camera (x right, y up, z towards the viewer)."""
        return view_rotation(self.azimuth, self.pitch) @ Y_UP

    @property
    def position(self) -> Array:
        """(3,) in the world."""
        return np.asarray(self.target) + self.rotation[2] * self.distance

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return max(self.width, self.height) / 2 / np.tan(self.fov / 2)

    @property
    def projection(self) -> Array:
        """(3, 4): homogeneous world points -> (u w, v w, w), u and v in pixels, w the depth along the view axis."""
        rotation = self.rotation
        # camera point c = R (p - position); depth = -c_z; u = cx + f c_x / depth; v = cy - f c_y / depth
        view = np.concatenate([rotation, -(rotation @ self.position)[:, None]], axis=1)
        intrinsic = np.array([[self.focal, 0.0, -self.width / 2], [0.0, -self.focal, -self.height / 2], [0.0, 0.0, -1.0]])
        return intrinsic @ view


def fit_distance(radius: float, fov: float, margin: float = 1.1) -> float:
    """Distance from which a sphere of `radius` around the target fills the field of view, with `margin` to spare."""
    return margin * radius / float(np.sin(fov / 2))


def frame_points(points: Array, azimuth: float, pitch: float, size: int, margin: float = 1.1, fov: float = Camera.fov) -> Camera:
    """A camera whose square image of `size` pixels holds all world points (P, 3), at the same distance from every side.

    The smallest sphere around the middle of the points' box that holds them fills the image, with `margin` to spare. Angles in radians.
    """
    centre = (points.min(0) + points.max(0)).astype(np.float64) / 2
    radius = max(float(np.linalg.norm(points - centre, axis=1).max()), 1e-6)
    x, y, z = (float(value) for value in centre)
    return Camera((x, y, z), fit_distance(radius, fov, margin), azimuth, pitch, fov, size, size)


def project(projection: Array, points: Array) -> Array:
    """Points (..., 3) -> pixels (..., 2)."""
    image = points @ projection[:, :3].T + projection[:, 3]
    return image[..., :2] / image[..., 2:]

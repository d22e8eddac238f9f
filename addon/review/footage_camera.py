"""Finds the video of a take again, and fits a camera that shows the rig where the subject is in the video."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry import fit_camera
from ...backend.geometry.camera import Camera
from ...backend.geometry.rotations import nearest_orthogonal, nearest_rotation
from ..rendering.posed_points import go_to, points_of
from ..rendering.scratch_scene import scratch_scene
from ..rig.meshes import visible_meshes

if TYPE_CHECKING:
    from ...backend.motion.take_file import Take
    from ...backend.video.clip import Clip

FAR = 50.0  # sizes of the rig from which the perspective is as weak as that of a refined take
MOST_POSES = 300  # of a long take, between which the camera is interpolated


@dataclass(frozen=True)
class CameraGuess:
    """Camera settings that a capture does not find, and that the user can correct.

    turn: radians about the vertical, away from the side that was found. elevation: radians above the level. radii: the distance
    (fit_camera.DISTANCE).
    """

    turn: float = 0.0
    elevation: float = fit_camera.ELEVATION
    radii: float = fit_camera.DISTANCE


DEFAULT_AIM = CameraGuess()


def relocate_video(take: Take, chosen: str = "") -> Take:
    """The take with the present path of its video: the path at the capture, else beside the .blend, else `chosen` if the name is the same.

    A .blend file may have come from another computer. A video that is at none of these places keeps its path, and reading it raises
    an error.
    """
    name = take.clip.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    places = [Path(take.clip.path)]
    if bpy.data.filepath:
        places.append(Path(bpy.data.filepath).parent / name)
    if chosen and Path(chosen).name == name:
        places.append(Path(bpy.path.abspath(chosen)))
    found = next((place for place in places if place.exists()), places[0])
    return replace(take, clip=replace(take.clip, path=str(found)))


def video_size(clip: Clip) -> tuple[tuple[int, int], int]:
    """Width and height of the video in pixels, and the first frame of the trim range, counted from 0. Raises UserError."""
    from ...backend.video.reader import frame_range, probe

    info = probe(clip)
    return (info.width, info.height), frame_range(clip)[0] if clip.start > 0 else 0


def view_rotation(obj: bpy.types.Object, take: Take, aim: CameraGuess) -> Array:
    """(3, 3) world -> camera, of a camera on the side that the capture found. Raises UserError if the take has no side.

    C takes the world axes of the capture to the camera's. Its azimuth is in the take's provenance; its elevation is not known. The
    armature had the world rotation W_then and now has W_now: C W_then W_now^T sees it as before.
    """
    azimuth = take.motion.provenance.get("azimuth")
    if azimuth is None:
        raise UserError(f"Take '{take.name}' does not record from which side it was filmed: capture it again.")
    camera = Camera((0.0, 0.0, 0.0), 1.0, float(azimuth) + aim.turn, aim.elevation)
    # an armature that was mirrored since the capture looks the same from nowhere: take the nearest rotation
    return nearest_rotation(camera.rotation @ take.rig.world @ nearest_orthogonal(np.array(obj.matrix_world)).T)


def match_camera(
    obj: bpy.types.Object,
    take: Take,
    size: tuple[int, int],
    fps: float,
    aim: CameraGuess = DEFAULT_AIM,
) -> fit_camera.CameraFit:
    """Fit a camera that lays the armature, as it plays now, on the take's video of `size` pixels. Nothing in the file changes.

    fps: the scene's when the keys were written. Raises UserError if the take has no side.
    """
    rotation, chosen = view_rotation(obj, take, aim), _chosen(len(take.motion))
    meshes = visible_meshes(obj)
    with scratch_scene(obj, *meshes) as stage:
        frames = take.start_frame + take.motion.times[chosen] * fps
        clouds = [fit_camera.outermost(points_of(obj, meshes, go_to(stage.scene, frame))) for frame in frames]
    motion = take.motion
    sure = motion.confidence.min(1)[chosen]
    return fit_camera.fit_camera(clouds, motion.boxes[chosen], sure, motion.times[chosen], rotation, size, aim.radii)


def camera_of_fit(
    obj: bpy.types.Object,
    take: Take,
    size: tuple[int, int],
    fps: float,
    aim: CameraGuess = DEFAULT_AIM,
) -> fit_camera.CameraFit:
    """As `match_camera`, but for a refined take the side, the height, the place and the scale that refining has found; no aim is needed then.

    Refining knows no perspective: with d the depth of the root joint's head and s pixels per unit of the world, f = s d holds for all d,
    so d is large. The path says s, and where that head is in the picture.
    """
    motion = take.motion
    if not len(motion.path):
        return match_camera(obj, take, size, fps, aim)
    azimuth, pitch = motion.camera
    rotation = view_rotation(obj, take, CameraGuess(azimuth - float(motion.provenance["azimuth"]), pitch))
    chosen = _chosen(len(motion))
    with scratch_scene(obj) as stage:
        frames = take.start_frame + motion.times[chosen] * fps
        roots = np.array([_root_head(obj, take, go_to(stage.scene, frame)) for frame in frames])
    unit = float(np.cbrt(abs(np.linalg.det(np.array(obj.matrix_world)[:3, :3]))))  # of the rig, in the world
    scale = motion.path[chosen, 2] / unit
    focal = float(np.median(scale)) * FAR * unit * float(np.ptp(take.rig.heads, axis=0).max() + 1e-6)
    centre = roots.mean(0)
    x, y, z = rotation @ (roots - centre).T
    shift = motion.path[chosen, :2] - np.array(size) / 2 - scale[:, None] * np.stack([x, -y], axis=-1)
    return fit_camera.CameraFit(rotation, centre, *size, focal, motion.times[chosen], focal / scale + z, shift)


def _root_head(obj: bpy.types.Object, take: Take, graph: bpy.types.Depsgraph) -> Array:
    """(3,) the head of the take's root joint in the world, as the armature is posed now."""
    posed = obj.evaluated_get(graph)
    return np.array(posed.matrix_world @ posed.pose.bones[take.rig.names[0]].head)


def _chosen(frames: int) -> NDArray[np.int64]:
    """The frames that the camera is fitted on: all of a short take, every few of a long one, and the last."""
    step = max(1, math.ceil(frames / MOST_POSES))
    return np.unique([*range(0, frames, step), frames - 1])

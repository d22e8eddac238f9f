"""Finds the video of a take again, and fits a camera that shows the rig where the subject is in the video."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np

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
    rotation = view_rotation(obj, take, aim)
    step = max(1, math.ceil(len(take.motion) / MOST_POSES))
    chosen = np.unique([*range(0, len(take.motion), step), len(take.motion) - 1])
    meshes = visible_meshes(obj)
    with scratch_scene(obj, *meshes) as stage:
        frames = take.start_frame + take.motion.times[chosen] * fps
        clouds = [fit_camera.outermost(points_of(obj, meshes, go_to(stage.scene, frame))) for frame in frames]
    motion = take.motion
    sure = motion.confidence.min(1)[chosen]
    return fit_camera.fit_camera(clouds, motion.boxes[chosen], sure, motion.times[chosen], rotation, size, aim.radii)

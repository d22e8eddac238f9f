"""Rig and footage together: the rig's extent frame by frame, and the view that lays it on its footage."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np

from ...backend.errors import UserError
from ...backend.geometry import fit_camera
from ...backend.geometry.camera import Camera
from ...backend.geometry.rotations import Array, nearest_orthogonal, nearest_rotation
from ..rendering.posed_points import go_to, points_of
from ..rendering.scratch_scene import scratch_scene
from ..rig.armature import visible_meshes

if TYPE_CHECKING:
    from ...backend.motion.take_file import Take
    from ...backend.video.clip import Clip

MOST_POSES = 300  # of a long take that are looked at: the camera is interpolated between them


@dataclass(frozen=True)
class CameraGuess:
    """What the capture does not tell of the camera, and the user may know better.

    turn: radians about the vertical, away from the side that was found. elevation: radians above the level. radii: the distance
    (matchmove.DISTANCE).
    """

    turn: float = 0.0
    elevation: float = fit_camera.ELEVATION
    radii: float = fit_camera.DISTANCE


DEFAULT_AIM = CameraGuess()


def relocate_video(raw: Take, chosen: str = "") -> Take:
    """The take with its video where it is now: where it was at the capture, else beside the .blend, else the `chosen` one of its name.

    A take travels with its file, a path does not. What is nowhere stays where it was, and reading it says so.
    """
    name = raw.clip.path.replace("\\", "/").rstrip("/").rpartition("/")[2]
    places = [Path(raw.clip.path)]
    if bpy.data.filepath:
        places.append(Path(bpy.data.filepath).parent / name)
    if chosen and Path(chosen).name == name:
        places.append(Path(bpy.path.abspath(chosen)))
    found = next((place for place in places if place.exists()), places[0])
    return replace(raw, clip=replace(raw.clip, path=str(found)))


def video_size(clip: Clip) -> tuple[tuple[int, int], int]:
    """Width and height of the footage in pixels, and the frame, from 0, that the trim range begins with. Raises UserError."""
    from ...backend.video.reader import frame_range, probe

    info = probe(clip)
    return (info.width, info.height), frame_range(clip)[0] if clip.start > 0 else 0


def view_rotation(obj: bpy.types.Object, raw: Take, aim: CameraGuess) -> Array:
    """(3, 3) world -> camera, of a camera that sees the take from the side it was found to be filmed from.

    C takes world axes, as they were at the capture, to the camera's: the azimuth is in the take's provenance, the elevation is
    not known. The armature stood at W_then in the world and stands at W_now: it is seen as before from C W_then W_now^T.
    """
    azimuth = raw.motion.provenance.get("azimuth")
    if azimuth is None:
        raise UserError(f"Take '{raw.name}' does not say from which side it was filmed: capture it again.")
    camera = Camera((0.0, 0.0, 0.0), 1.0, float(azimuth) + aim.turn, aim.elevation)
    # of an armature that was mirrored since, no camera sees the same: the nearest rotation
    return nearest_rotation(camera.rotation @ raw.rig.world @ nearest_orthogonal(np.array(obj.matrix_world)).T)


def match_camera(
    obj: bpy.types.Object,
    raw: Take,
    size: tuple[int, int],
    fps: float,
    aim: CameraGuess = DEFAULT_AIM,
) -> fit_camera.CameraFit:
    """The view that lays the armature, as it plays now, on the take's footage of `size` pixels. Changes nothing.

    fps: the scene's when the keys were written. Raises UserError if the take does not know its side, or there is nothing to see.
    """
    rotation = view_rotation(obj, raw, aim)
    step = max(1, math.ceil(len(raw.motion) / MOST_POSES))
    chosen = np.unique([*range(0, len(raw.motion), step), len(raw.motion) - 1])
    meshes = visible_meshes(obj)
    with scratch_scene(obj, *meshes) as stage:
        frames = raw.start_frame + raw.motion.times[chosen] * fps
        clouds = [fit_camera.outermost(points_of(obj, meshes, go_to(stage.scene, frame))) for frame in frames]
    motion = raw.motion
    sure = motion.confidence.min(1)[chosen]
    return fit_camera.fit_camera(clouds, motion.boxes[chosen], sure, motion.times[chosen], rotation, size, aim.radii)

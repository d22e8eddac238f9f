"""Pins of a stored take: poses that the animator has corrected, which Refine Take holds fast. Reads and writes them in the take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import bpy
import numpy as np
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.rotations import continuous, matrix_to_quaternion, quaternion_to_matrix, slerp
from ...backend.motion.motion import Motion
from ...backend.rig.skeleton import global_to_local, local_to_global
from ..capture import take_store
from ..rig.armature import pose_of
from . import takes
from .refine_take import joints_of, scene_frames

Pins = NDArray[np.int64]


def pin(context: bpy.types.Context, text: bpy.types.Text) -> str:
    """Put the present pose of the selected bones into the take at the current frame, and hold it there. Returns a sentence.

    A bone's rotation is kept relative to its parent in the take. Raises UserError: no frame of the take is here, or no bone is selected.
    """
    take, frame = take_store.read(text), frame_here(context.scene, text)
    obj = takes.target_of(context, text, take.rig.names)
    chosen = np.flatnonzero(_selected(obj, text) & ~take.rig.static)
    if not len(chosen):
        raise UserError(f"The selected bones keep the reference pose in take '{take.name}': select others.")
    posed = take.rig.rotations(pose_of(obj, take.rig))
    rotations = with_local(take.motion, take.rig.parents, frame, chosen, global_to_local(take.rig.parents, posed)[chosen])
    added = np.column_stack([np.full(len(chosen), frame), chosen])
    pins = np.unique(np.concatenate([take.motion.pins, added]), axis=0)
    take_store.replace_motion(text, replace(take.motion, rotations=rotations, pins=pins))
    return f"Pinned at frame {context.scene.frame_current}: {_listed(take.rig.names[joint] for joint in chosen)}."


def unpin(context: bpy.types.Context, text: bpy.types.Text, frame: int | None = None) -> str:
    """Remove the pins of the selected bones at the current frame, or all pins of a frame of the take. Returns a sentence.

    The rotations there are between those of the frames around them then. Raises UserError if there are none.
    """
    take = take_store.read(text)
    pins = take.motion.pins
    if frame is None:
        obj = takes.target_of(context, text, take.rig.names)
        gone = (pins[:, 0] == frame_here(context.scene, text)) & _selected(obj, text)[pins[:, 1]]
    else:
        gone = pins[:, 0] == frame
    if not gone.any():
        raise UserError(f"There is no such pin in take '{take.name}': choose one of the list.")
    where, joints = int(pins[gone][0, 0]), pins[gone][:, 1]
    local = global_to_local(take.rig.parents, take.motion.matrices)
    between = np.stack([_between(local[:, joint], where, pins[pins[:, 1] == joint, 0]) for joint in joints])
    rotations = with_local(take.motion, take.rig.parents, where, joints, between)
    take_store.replace_motion(text, replace(take.motion, rotations=rotations, pins=pins[~gone]))
    return f"Unpinned: {_listed(take.rig.names[joint] for joint in joints)}."


def with_local(motion: Motion, parents: Array, frame: int, joints: NDArray[np.int64], local: Array) -> Array:
    """(T, J, 4) the take's rotations where these joints have local rotations (N, 3, 3) in one frame; their children go along."""
    own = global_to_local(parents, motion.matrices[frame])
    own[joints] = local
    rotations = np.array(motion.rotations)
    rotations[frame] = matrix_to_quaternion(local_to_global(parents, own))
    return continuous(rotations)


def _between(local: Array, frame: int, pinned: NDArray[np.int64]) -> Array:
    """(3, 3) the rotation of one joint (T, 3, 3) in a frame, between those of the nearest frames without a pin."""
    free = np.setdiff1d(np.arange(len(local)), pinned)
    if not len(free):
        return local[frame]
    after = int(np.searchsorted(free, frame))
    first, last = free[max(after - 1, 0)], free[min(after, len(free) - 1)]
    share = (frame - first) / (last - first) if last > first else 0.0
    ends = matrix_to_quaternion(local[[first, last]])
    return quaternion_to_matrix(slerp(ends[:1], ends[1:], np.array([[share]])))[0]


def frame_here(scene: bpy.types.Scene, text: bpy.types.Text) -> int:
    """The frame of the take at the scene's current frame. Raises UserError if there is none."""
    numbers = scene_frames(text, take_store.read(text).motion)
    near = np.abs(numbers - scene.frame_current)
    spacing = float(np.diff(numbers).mean()) if len(numbers) > 1 else 1.0
    if near.min() > max(0.5, 0.5 * spacing) + 1e-6:
        raise UserError(
            f"Frame {scene.frame_current} is outside take '{take_store.label(text)}': "
            f"go to one of its frames, {round(numbers[0])} to {round(numbers[-1])}."
        )
    return int(np.argmin(near))


def _selected(obj: bpy.types.Object, text: bpy.types.Text) -> NDArray[np.bool_]:
    """(J,) Raises UserError if no bone of the take is selected."""
    chosen = joints_of(obj, take_store.read(text).rig)
    if not chosen.any():
        raise UserError(f"No bone of take '{take_store.label(text)}' is selected: select some in pose mode.")
    return chosen


def _listed(names: Iterable[str], most: int = 4) -> str:
    found = [*names]
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def rows(text: bpy.types.Text) -> list[tuple[int, str]]:
    """The pins of a take for a list: its frame, and a line of text."""
    about, found = take_store.about(text), dict[int, list[str]]()
    seconds = {}
    for frame, time, name in take_store.pins_of(text):
        seconds[frame] = time
        found.setdefault(frame, []).append(name)
    places = {frame: round(about["start_frame"] + time * about["fps"]) for frame, time in seconds.items()}
    return [(frame, f"Frame {places[frame]}: {_listed(names, 2)}") for frame, names in sorted(found.items())]

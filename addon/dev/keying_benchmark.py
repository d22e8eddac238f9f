"""`build.py dev bench-keys`: times the writing of keys against a loop of `keyframe_insert` over bones and frames."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bpy
import numpy as np

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion
from ...backend.motion.motion import Motion
from ...backend.rig.rig import Rig
from ..keying.write_action import EULER_MODES, build_action, solved_channels, write_motion
from ..rig.armature import rig_from_armature

FPS = 24.0


class Timing(NamedTuple):
    """Seconds: solved, from a take to its keys; bulk, for the keys alone; inserted, for the same keys by keyframe_insert."""

    solved: float
    bulk: float
    inserted: float


def bench_command(arguments: list[str], say: Callable[[str], object]) -> int:
    """`build.py dev bench-keys`: time both ways on an armature that is removed again. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="build.py dev bench-keys", description="Time the writing of keys against keyframe_insert."
    )
    parser.add_argument("--bones", type=int, default=150)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["QUATERNION"],
        choices=("QUATERNION", *EULER_MODES, "AXIS_ANGLE"),
        metavar="MODE",
        help="rotation modes, taken in turn by the bones",
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(arguments)
    if min(options.bones, options.frames - 1) < 1:
        raise UserError("There is nothing to time: give at least 1 bone and 2 frames.")
    timing = keying_time(options.bones, options.frames, options.modes)
    version = bpy.app.version_string
    say(f"Blender {version}, {options.bones} bones, {options.frames} frames")
    say(f"take to keys      {timing.solved:8.3f} s")
    say(f"  keys alone      {timing.bulk:8.3f} s")
    say(f"keyframe_insert   {timing.inserted:8.3f} s, {timing.inserted / timing.bulk:.0f} times as long")
    if options.json:
        figures = {"blender": version, "bones": options.bones, "frames": options.frames, **timing._asdict()}
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


def keying_time(bones: int, frames: int, modes: list[str]) -> Timing:
    """Time both ways on one new armature, which is removed afterwards.

    Our own way counts with the fastest of three runs: the first one warms up.
    """
    kept = {kind: set(getattr(bpy.data, kind)) for kind in ("objects", "armatures", "actions")}
    active = bpy.context.view_layer.objects.active
    try:
        obj = _armature(bones, modes)
        rig = rig_from_armature(obj)
        motion = _motion(rig, frames)
        solved = min(_timed(lambda: _write(obj, rig, motion)) for _ in range(3))
        channels = solved_channels(obj, rig, motion, np.arange(frames, dtype=float), FPS)
        bulk = min(_timed(lambda: build_action("bench", obj.name, np.arange(frames, dtype=float), channels)) for _ in range(3))
        obj.animation_data_clear()
        return Timing(solved, bulk, _timed(lambda: _insert(obj, motion)))
    finally:
        for kind, before in kept.items():
            bpy.data.batch_remove(set(getattr(bpy.data, kind)) - before)
        bpy.context.view_layer.objects.active = active


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _write(obj: bpy.types.Object, rig: Rig, motion: Motion) -> None:
    write_motion(obj, rig, motion, np.array(rig.rest), name="bench", start_frame=1, fps=FPS)


def _insert(obj: bpy.types.Object, motion: Motion) -> None:
    """Key with a loop over bones and frames, which also sets the values, as a script would."""
    for frame in range(len(motion)):
        for bone in obj.pose.bones:
            path = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}.get(
                bone.rotation_mode, "rotation_euler"
            )
            setattr(bone, path, motion.rotations[frame, 0, : len(getattr(bone, path))])
            bone.keyframe_insert(path, frame=frame + 1)


def _armature(bones: int, modes: list[str]) -> bpy.types.Object:
    """Chains of ten bones that start at the first."""
    data = bpy.data.armatures.new("bench")
    obj = bpy.data.objects.new("bench", data)
    bpy.context.scene.collection.objects.link(obj)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    for index in range(bones):
        bone = data.edit_bones.new(f"bone {index:03}")
        start = np.array([0.3 * (index // 10), 0.0, 0.1 * (index % 10)])
        bone.head, bone.tail = start, start + (0.0, 0.0, 0.1)
        if index:
            bone.parent = data.edit_bones[index - 1 if index % 10 else 0]
    bpy.ops.object.mode_set(mode="OBJECT")
    for index, bone in enumerate(obj.pose.bones):
        bone.rotation_mode = modes[index % len(modes)]
    return obj


def _motion(rig: Rig, frames: int) -> Motion:
    """Every bone swings about its own axis."""
    count = len(rig.names)
    angle = np.sin(np.arange(frames)[:, None] / 7 + np.arange(count) / 3)
    axes: Array = np.random.default_rng(0).normal(size=(count, 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    rotations = matrix_to_quaternion(axis_angle_to_matrix(np.broadcast_to(axes, (frames, count, 3)), angle))
    places = np.broadcast_to(rig.rest[:, :3, 3], (frames, count, 3))
    times = np.arange(frames) / FPS
    return Motion(rig.names, times, rotations, places, np.zeros((frames, 4)), np.ones((frames, count)), {})

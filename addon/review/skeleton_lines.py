"""Draws the take's joints as thin lines over the 3D view, coloured by the confidence of the capture and of refining."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import bpy
import numpy as np
from numpy.typing import NDArray

from ...backend.errors import UserError
from ..capture import take_store
from ..tasks import background_runner
from ..tasks.registration import register_with_reset
from ..ui.operator_base import AnyRigOperator
from . import takes

if TYPE_CHECKING:
    from ...backend.geometry.rotations import Array
    from ...backend.motion.take_file import Take

WIDTH = 2.0
# From lost to certain: orange, pale grey, blue. Colour-blind people can tell them apart, and they show on any video.
RAMP = ((0.90, 0.33, 0.05), (0.92, 0.90, 0.80), (0.10, 0.45, 0.95))


@dataclass
class _Drawing:
    """The draw handler, and the take that was read last, since unpacking it at every redraw would be slow."""

    handle: Any = None
    key: str = ""
    raw: Take | None = None
    pairs: list[tuple[int, int]] = field(default_factory=list)


_drawing = _Drawing()


def is_on() -> bool:
    return _drawing.handle is not None


def switch_on() -> None:
    if not is_on():
        _drawing.handle = bpy.types.SpaceView3D.draw_handler_add(_draw, (), "WINDOW", "POST_VIEW")


def reset() -> None:
    """Switch the lines off, and forget the take that was read."""
    if is_on():
        bpy.types.SpaceView3D.draw_handler_remove(_drawing.handle, "WINDOW")
    _drawing.handle, _drawing.key, _drawing.raw, _drawing.pairs = None, "", None, []


def lines(context: bpy.types.Context) -> tuple[Array, Array]:
    """World points (2 N, 3), two for each line, and their colours (2 N, 4), of the chosen take at the current frame.

    A line runs from each joint to each of its children, and from a joint without children to its bone's tail, in the armature's
    current pose. There are none without a take, an armature or a joint.
    """
    text = takes.selected(context)
    obj = take_store.armature_of(text) if text is not None else None
    raw = _read(text) if text is not None and obj is not None and obj.pose is not None else None
    if raw is None:
        return np.zeros((0, 3)), np.zeros((0, 4))
    about, scene = take_store.about(text), context.scene
    sure = confidence_at(raw, (scene.frame_current + scene.frame_subframe - about["start_frame"]) / about["fps"])
    return _segments(obj, raw, sure)


def _segments(obj: bpy.types.Object, raw: Take, sure: Array) -> tuple[Array, Array]:
    names, bones, world = raw.rig.names, obj.pose.bones, obj.matrix_world
    points, shades = [], []
    for start, end in _drawing.pairs:
        if names[start] not in bones or names[end] not in bones:  # renamed or deleted since
            continue
        bone = bones[names[start]]
        points += [world @ bone.head, world @ (bone.tail if start == end else bones[names[end]].head)]
        shades += [sure[start], sure[end]]
    return np.array(points, float).reshape(-1, 3), colours(np.array(shades, float))


def pairs_of(parents: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Parents (J,) -> (joint, child) for every line; (joint, joint) stands for the bone of a joint without children."""
    leaves = sorted(set(range(len(parents))) - set(parents.tolist()))
    return [(int(parent), child) for child, parent in enumerate(parents) if parent >= 0] + [(leaf, leaf) for leaf in leaves]


def confidence_at(raw: Take, seconds: float) -> Array:
    """(J,) confidence at a time of the take, linear between its frames, constant beyond its ends."""
    times, values = raw.motion.times, raw.motion.confidence
    place = float(np.interp(seconds, times, np.arange(len(times))))
    before = int(place)
    after = min(before + 1, len(times) - 1)
    return values[before] * (1 - place + before) + values[after] * (place - before)


def colours(sure: Array) -> Array:
    """(N,) confidence 0..1 -> (N, 4) RGBA."""
    stops = np.linspace(0, 1, len(RAMP))
    channels = [np.interp(sure, stops, values) for values in zip(*RAMP, strict=True)]
    return np.stack([*channels, np.ones(len(sure))], axis=-1)


def _read(text: bpy.types.Text) -> Take | None:
    key = take_store.about(text)["key"]
    if key != _drawing.key:
        try:
            _drawing.raw = take_store.read(text)
            _drawing.pairs = pairs_of(_drawing.raw.rig.parents)
        except UserError:  # a damaged take; using it shows the error, a redraw does not
            _drawing.raw = None
        _drawing.key = key
    return _drawing.raw


def _draw() -> None:
    """Blender calls this for every 3D view that it draws, never in background."""
    import gpu
    from gpu_extras.batch import batch_for_shader

    context = bpy.context
    if not context.space_data.overlay.show_overlays:
        return
    points, shades = lines(context)
    if not len(points):
        return
    shader = gpu.shader.from_builtin("POLYLINE_SMOOTH_COLOR")
    batch = batch_for_shader(shader, "LINES", {"pos": points.astype(np.float32), "color": shades.astype(np.float32)})
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", WIDTH * context.preferences.system.ui_scale)
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("ALPHA")
    batch.draw(shader)
    gpu.state.blend_set("NONE")


class ANYRIG_OT_skeleton(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.skeleton"
    bl_label = "Skeleton Lines"
    bl_description = (
        "Show the take's joints as lines in the 3D views: blue where the capture was sure, orange where it was not "
        "or where a refined rig does not cover the video"
    )

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if is_on() or takes.selected(context) else takes.NO_TAKE

    def run(self, _context: bpy.types.Context) -> str:
        reset() if is_on() else switch_on()
        redraw_views()
        return ""


def redraw_views() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()
    background_runner.redraw()


CLASSES = (ANYRIG_OT_skeleton,)
register, unregister = register_with_reset(CLASSES, reset)

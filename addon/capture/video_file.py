"""Operators for the video: choose or drop a file, match the scene's frame rate, convert a file that cannot be read."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import math
import shlex
from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ...backend.errors import UserError
from ..tasks import background_runner
from ..ui.operator_base import AnyRigOperator

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".ogv", ".mts", ".m2ts", ".gif")
CLOSE = 1e-3  # relative difference below which two frame rates are the same


class ANYRIG_OT_choose_video(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.choose_video"
    bl_label = "Choose Video"
    bl_description = "Choose the video, or one image of a numbered sequence, to capture motion from"
    bl_options = {"REGISTER", "UNDO"}

    # SKIP_SAVE: a second call must ask again instead of taking the last file
    filepath: StringProperty(name="Video", description="The video file", subtype="FILE_PATH", options={"SKIP_SAVE"})
    filter_movie: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_image: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        if self.filepath:  # dropped
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        if not self.filepath:
            raise UserError("No video is chosen: give its path.")
        props = context.scene.anyrig
        props.video = self.filepath
        # the trim range, the subject and the error belong to the video before
        props.trim_start, props.trim_end, props.use_box, props.box_time, props.matte = 0.0, 0.0, False, 0.0, ""
        background_runner.set_status("")
        if props.video_frames > 0:
            return f"{Path(self.filepath).name}: {props.video_text}"
        self.report({"WARNING"}, props.video_text)
        return ""


class ANYRIG_FH_video(bpy.types.FileHandler):
    """A video file dropped onto the 3D viewport."""

    bl_idname = "ANYRIG_FH_video"
    bl_label = "Capture Motion from Video"
    bl_import_operator = ANYRIG_OT_choose_video.bl_idname
    bl_file_extensions = ";".join(SUFFIXES)

    @classmethod
    def poll_drop(cls, context: bpy.types.Context) -> bool:
        return context.area is not None and context.area.type == "VIEW_3D"


class ANYRIG_OT_match_fps(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.match_fps"
    bl_label = "Match Scene to Video"
    bl_description = "Set the scene's frame rate to the video's, so that each frame of the video is a frame of the scene"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if context.scene.anyrig.video_fps else "Pick a video"

    def run(self, context: bpy.types.Context) -> str:
        render, rate = context.scene.render, footage_rate(context.scene)
        render.fps, render.fps_base = fps_and_base(rate)
        return f"The scene plays at {render.fps / render.fps_base:.4g} frames per second"


class ANYRIG_OT_copy_conversion(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.copy_conversion"
    bl_label = "Copy Conversion Command"
    bl_description = "Copy an ffmpeg command that converts the video to a readable file, to run it in a terminal"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if context.scene.anyrig.video else "Pick a video"

    def run(self, context: bpy.types.Context) -> str:
        text = conversion(bpy.path.abspath(context.scene.anyrig.video))
        if not bpy.app.background:  # which has no clipboard
            context.window_manager.clipboard = text
        return text


def footage_rate(scene: bpy.types.Scene) -> float:
    """Frames of the video per second of the real motion, which the speed factor makes faster; 0 without a video."""
    return scene.anyrig.video_fps * scene.anyrig.speed


def rates_differ(scene: bpy.types.Scene) -> bool:
    """Whether the frame rates of the video and the scene differ."""
    rate, own = footage_rate(scene), scene.render.fps / scene.render.fps_base
    return bool(rate) and not math.isclose(rate, own, rel_tol=CLOSE)


def fps_and_base(rate: float) -> tuple[int, float]:
    """Blender's whole frame rate and its divisor: 29.97 is 30 / 1.001, as television has it."""
    fps = max(1, math.ceil(rate - CLOSE * rate))
    base = fps / rate
    return fps, 1.001 if math.isclose(base, 1.001, rel_tol=2e-5) else base


def conversion(path: str) -> str:
    """The ffmpeg command that makes an H.264 video beside the file."""
    source = Path(path)
    target = source.with_name(f"{source.stem} H.264.mp4")
    # Windows has double quotes alone, and its paths never contain them
    quoted = (
        [f'"{each}"' for each in (source, target)]
        if bpy.app.build_platform.startswith(b"Windows")
        else map(shlex.quote, map(str, (source, target)))
    )
    return "ffmpeg -i {} -c:v libx264 -pix_fmt yuv420p -an {}".format(*quoted)


CLASSES = (ANYRIG_OT_choose_video, ANYRIG_FH_video, ANYRIG_OT_match_fps, ANYRIG_OT_copy_conversion)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

"""The panel Check against the Video: the overlay, the skeleton lines and the side-by-side movie."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from ...backend.errors import missing_library
from ...backend.progress import Progress
from ..capture import take_store
from ..settings import preference_values
from ..tasks import background_runner, modal_runner
from ..tasks.task import Task
from ..ui.operator_base import AnyRigOperator
from . import skeleton_lines, takes


class ANYRIG_OT_movie(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.movie"
    bl_label = "Side-by-Side Movie"
    bl_description = "Write a movie of the video beside the rig, seen from the same side; the scene is not changed"

    filepath: StringProperty(
        name="File", description="Path of the mp4 file; beside the video if empty", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    filter_glob: StringProperty(default="*.mp4", options={"HIDDEN"})
    height: IntProperty(
        name="Height", description="Height in pixels, at most the video's own", default=480, min=16, soft_max=1080
    )
    over: BoolProperty(name="Also over the Footage", description="Add a third image of the rig over its video")
    outline: BoolProperty(
        name="Outline on the Footage",
        description="Draw the rig's outline onto the video, which shows where it does not cover the subject",
    )
    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if takes.selected(context) else takes.NO_TAKE)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        if not self.filepath:
            self.filepath = str(_movie_path(context, ""))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        """Write the movie step by step if a user clicked; otherwise wait for it."""
        path = _movie_path(context, self.filepath)
        task = Task(_steps(context, path, self.height, self.over, self.outline))

        def describe(frames: int) -> str:
            return f"{frames} frames written to '{path}'."

        if self.in_background:
            cancelled = "Cancelled: no movie was written."
            modal_runner.run_modal(task, lambda task: background_runner.conclude(task, cancelled, describe))
            return ""
        message = describe(task.drain().result())
        background_runner.set_status(message)
        return message


def _movie_path(context: bpy.types.Context, filepath: str) -> Path:
    """The chosen file, or a file beside the take's video."""
    text = takes.selected(context)
    if not filepath and text is not None:
        video = Path(bpy.path.abspath(take_store.about(text)["video"]))
        return video.with_name(f"{video.stem}_side_by_side.mp4")
    path = Path(bpy.path.abspath(filepath))
    return path if path.suffix.lower() == ".mp4" else path.with_name(path.name + ".mp4")


def _steps(context: bpy.types.Context, path: Path, height: int, over: bool, outline: bool) -> Generator[Progress, None, int]:
    try:
        from .side_by_side_movie import MovieParams, movie_steps
    except ImportError as error:
        raise missing_library(error) from error
    text = takes.selected(context)
    assert text is not None
    return movie_steps(context, text, MovieParams(path, height, over, preference_values.engine(context), outline))


class ANYRIG_PT_check(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_check"
    bl_label = "Check against the Video"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_order = 80

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return takes.selected(context) is not None or context.scene.anyrig_overlay.on

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        on = context.scene.anyrig_overlay.on
        text = "Remove Overlay" if on else "Overlay on Footage"
        column.operator("anyrig.overlay", text=text, icon="CAMERA_DATA", depress=on)
        column.operator("anyrig.skeleton", icon="BONE_DATA", depress=skeleton_lines.is_on())
        self.layout.operator("anyrig.movie", icon="RENDER_ANIMATION")


CLASSES = (ANYRIG_OT_movie, ANYRIG_PT_check)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

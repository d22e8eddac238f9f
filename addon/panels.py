"""The sidebar tab "AnyRig" of the 3D viewport."""

from __future__ import annotations

import textwrap
from typing import Any

import bpy
import bpy.utils.previews
import numpy as np
from numpy.typing import NDArray

from . import job
from .props import armatures_from_context

WRAP = 42  # characters that fit a sidebar of the usual width
VIEW = "view"

_previews: dict[str, Any] = {}


def show_view(picture: NDArray[np.uint8]) -> None:
    """Set the thumbnail to an RGBA picture (H, W, 4)."""
    collection = _previews.get("collection")
    if collection is None:
        return
    collection.clear()
    preview = collection.new(VIEW)
    preview.image_size = picture.shape[1], picture.shape[0]
    # Blender's first row is at the bottom, the picture's at the top
    preview.image_pixels_float.foreach_set((picture[::-1].astype(np.float32) / 255).ravel())


class ANYRIG_PT_capture(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_capture"
    bl_label = "AnyRig"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        running = job.current()
        inputs = layout.column()
        inputs.enabled = running is None
        _draw_inputs(inputs, context)
        if running is None:
            row = layout.row()
            row.scale_y = 1.6
            row.operator("anyrig.capture", icon="ARMATURE_DATA")
        else:
            _draw_progress(layout, running)
        _draw_message(layout)
        _draw_view(layout)


def _draw_inputs(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    props = context.scene.anyrig
    layout.prop(props, "armature")
    found = armatures_from_context(context)
    if props.armature is None and found:
        _label(layout, f"{'Active' if len(found) == 1 else f'{len(found)} selected'}: {', '.join(obj.name for obj in found)}")
    layout.prop(props, "video")
    if props.video_text:
        _label(layout, props.video_text)
    column = layout.column(align=True)
    column.prop(props, "trim_start")
    column.prop(props, "trim_end")
    layout.prop(props, "reference")
    if props.reference == "FRAME":
        layout.prop(props, "reference_frame")
    layout.prop(props, "view")
    if props.view == "AZIMUTH":
        layout.prop(props, "azimuth")
    layout.prop(props, "heading")
    layout.prop(props, "model")
    if props.model == "FILE":
        layout.prop(props, "model_file")
    layout.prop(props, "device")
    layout.prop(props, "start")
    if props.start == "FRAME":
        layout.prop(props, "start_frame")


def _draw_progress(layout: bpy.types.UILayout, running: job.Job) -> None:
    snapshot = running.progress
    layout.progress(factor=snapshot.fraction, text=snapshot.text)
    layout.operator("anyrig.cancel", icon="CANCEL")


def _draw_message(layout: bpy.types.UILayout) -> None:
    text, is_error = job.message()
    if text:
        column = layout.column()
        column.alert = is_error
        _label(column, text, "ERROR" if is_error else "INFO")


def _draw_view(layout: bpy.types.UILayout) -> None:
    collection = _previews.get("collection")
    if collection and VIEW in collection:
        layout.label(text="Reference view")
        layout.template_icon(icon_value=collection[VIEW].icon_id, scale=8)


def _label(layout: bpy.types.UILayout, text: str, icon: str = "NONE") -> None:
    """Labels do not wrap by themselves."""
    column = layout.column(align=True)
    for index, line in enumerate(textwrap.wrap(text, WRAP)):
        column.label(text=line, icon=icon if index == 0 else "BLANK1" if icon != "NONE" else "NONE")


def register() -> None:
    _previews["collection"] = bpy.utils.previews.new()
    bpy.utils.register_class(ANYRIG_PT_capture)


def unregister() -> None:
    bpy.utils.unregister_class(ANYRIG_PT_capture)
    bpy.utils.previews.remove(_previews.pop("collection"))

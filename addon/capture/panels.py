"""The sidebar tab "AnyRig" of the 3D viewport: its sections from Rig down to the Capture button."""

from __future__ import annotations

from functools import cache
from typing import Any

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_

from ...backend.capture_settings import Settings
from ..preferences.diagnostics import torch_text
from ..rig.keyed_bones import COLLECTION
from ..settings import preference_values, view_sides
from ..settings.capture_params import device_from_context
from ..settings.chosen_armatures import armatures_from_context, picked_armature
from ..settings.presets import ANYRIG_PT_presets
from ..settings.scene_properties import frames_to_read
from ..tasks import background_runner, modal_runner
from ..ui import fix_buttons
from ..ui.wrapped_label import wrapped
from . import estimate, keep_unrefined, rig_check, show_subject, video_file


class _Section:
    """Base of the tab's sections. `content` draws one; it is disabled while a task runs."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_parent_id = "ANYRIG_PT_capture"

    def draw(self: Any, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = background_runner.current() is None
        self.content(layout, context)


class ANYRIG_PT_capture(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_capture"
    bl_label = "AnyRig"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_order = 0

    def draw_header_preset(self, _context: bpy.types.Context) -> None:
        ANYRIG_PT_presets.draw_panel_header(self.layout)

    def draw(self, context: bpy.types.Context) -> None:
        """Its sections are panels of their own."""


class ANYRIG_PT_rig(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_rig"
    bl_label = "Rig"
    bl_order = 10

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props, found = context.scene.anyrig, armatures_from_context(context)
        layout.prop(props, "armature")
        if not found:
            fix_buttons.draw(layout, context, fix_buttons.PICK)
        elif picked_armature(props) is None:
            what = iface_("Active") if len(found) == 1 else iface_("{count} selected").format(count=len(found))
            wrapped(layout, f"{what}: {', '.join(obj.name for obj in found)}")
        layout.prop(props, "bones")
        if props.bones == COLLECTION and found:
            layout.prop_search(props, "collection", found[0].data, "collections_all")
        rig_check.draw(layout, found)


class ANYRIG_PT_video(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_video"
    bl_label = "Video"
    bl_order = 20

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props = context.scene.anyrig
        layout.prop(props, "video")
        if props.video_text:
            good = props.video_frames > 0
            column = layout.column()
            column.alert = not good
            wrapped(column, props.video_text, "NONE" if good else "ERROR")
            fix_buttons.draw(layout, context, props.video_fix)
        if props.video_is_sequence:
            layout.prop(props, "fps")
        if video_file.rates_differ(context.scene):
            _draw_rates(layout, context.scene)
        column = layout.column(align=True)
        column.prop(props, "trim_start")
        column.prop(props, "trim_end")
        layout.operator("anyrig.show_subject", icon="HIDE_OFF")
        several = show_subject.candidates_text(context)
        if several:
            wrapped(layout, several, "INFO")


def _draw_rates(layout: bpy.types.UILayout, scene: bpy.types.Scene) -> None:
    own = scene.render.fps / scene.render.fps_base
    text = iface_("Scene at {own:.4g} fps, video at {rate:.4g}: keys go onto whole frames of the scene")
    wrapped(layout, text.format(own=own, rate=video_file.footage_rate(scene)), "INFO")
    layout.operator("anyrig.match_fps", icon="TOOL_SETTINGS")


class ANYRIG_PT_footage(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_footage"
    bl_label = "Footage and Subject"
    bl_parent_id = "ANYRIG_PT_video"
    bl_options = {"DEFAULT_CLOSED"}

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props = context.scene.anyrig
        layout.prop(props, "speed")
        layout.prop(props, "mirror")
        if not props.video_is_sequence:
            layout.prop(props, "fps")
        layout.prop(props, "use_box")
        if props.use_box:
            column = layout.column(align=True)
            for index, edge in enumerate(("Left", "Top", "Right", "Bottom")):
                column.prop(props, "box", index=index, text=edge)
            column.prop(props, "box_time")
        layout.operator("anyrig.draw_box", icon="SELECT_SET")
        layout.prop(props, "matte")


class ANYRIG_PT_reference(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_reference"
    bl_label = "Reference"
    bl_order = 30
    bl_options = {"DEFAULT_CLOSED"}

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props = context.scene.anyrig
        layout.prop(props, "reference", text="Pose")
        if props.reference == "FRAME":
            layout.prop(props, "reference_frame")
        layout.prop(props, "view")
        if props.view == "AZIMUTH":
            layout.prop(props, "azimuth")
        if props.view == "SIDE":
            layout.template_icon_view(props, "side", show_labels=True, scale=6.0, scale_popup=5.0)
            layout.prop(props, "side")
        layout.operator("anyrig.show_sides", icon="FILE_REFRESH" if view_sides.are_shown() else "CAMERA_DATA")
        layout.prop(props, "heading")
        preview = view_sides.capture_preview()
        if preview is not None:
            layout.label(text="Side of the last capture")
            layout.template_icon(icon_value=preview.icon_id, scale=8)


class ANYRIG_PT_output(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_output"
    bl_label = "Output"
    bl_order = 40
    bl_options = {"DEFAULT_CLOSED"}

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props = context.scene.anyrig
        layout.prop(props, "start")
        if props.start == "FRAME":
            layout.prop(props, "start_frame")
        layout.prop(props, "output")
        layout.prop(props, "extend_range")


class ANYRIG_PT_model(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_model"
    bl_label = "Model"
    bl_order = 50
    bl_options = {"DEFAULT_CLOSED"}

    def content(self, layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
        props = context.scene.anyrig
        layout.prop(props, "model")
        if props.model == "FILE":
            layout.prop(props, "model_file")
        layout.prop(props, "refine")
        layout.prop(props, "device")
        wrapped(layout, _torch_version())
        layout.operator("anyrig.check_device", icon="VIEWZOOM")


@cache
def _torch_version() -> str:
    """Cached, since it searches the disk, and the result changes only with a restart."""
    return torch_text().split(" in ")[0]


class ANYRIG_PT_run(_Section, bpy.types.Panel):
    bl_idname = "ANYRIG_PT_run"
    bl_label = "Capture"
    bl_order = 60
    bl_options = {"HIDE_HEADER"}

    def draw(self, context: bpy.types.Context) -> None:
        layout, running = self.layout, background_runner.current()
        if running is not None:
            snapshot = running.progress
            layout.progress(factor=snapshot.fraction, text=snapshot.text)
            if modal_runner.running():
                layout.label(text="Esc: Cancel", icon="CANCEL")
            else:
                layout.operator("anyrig.cancel", text="Cancel (Esc)", icon="CANCEL")
        else:
            wrapped(layout, estimate_text(context))
            row = layout.row()
            row.scale_y = 1.6
            row.operator("anyrig.capture", icon="ARMATURE_DATA")
        text, is_error = background_runner.status()
        if text:
            column = layout.column()
            column.alert = is_error
            wrapped(column, text, "ERROR" if is_error else "INFO")
            fix_buttons.draw(layout, context, background_runner.status_fix())
        if running is None:
            keep_unrefined.draw(layout)


def estimate_text(context: bpy.types.Context) -> str:
    """The frames, time and memory of a capture with the panel's settings; '' without a video or a rig."""
    work = work_of(context)
    if work is None:
        return ""
    found = estimate.RATES.estimate(work)
    frames = iface_("{count} frames").format(count=work.frames)
    if found.seconds is None:
        return f"{frames}: " + iface_("no estimate yet for this model and device")
    text = f"{frames}: " + iface_("about {time}").format(time=estimate.clock_text(found.seconds))
    if found.memory is not None:
        text += f", {found.memory / 1e9:.1f} GB"
    if found.own:
        return f"{text} " + iface_("(from the last capture)")
    return f"{text} " + iface_("(measured on one processor core; more are faster)")


def work_of(context: bpy.types.Context) -> estimate.Work | None:
    """The amount of work of a capture with the panel's settings; None without a video or a rig."""
    props, found = context.scene.anyrig, armatures_from_context(context)
    frames = frames_to_read(props)
    if not found or not frames:
        return None
    model = bpy.path.abspath(props.model_file) if props.model == "FILE" else props.model
    device = device_from_context(context)
    size = (props.video_size[0], props.video_size[1])
    refine = Settings(model, refine=props.refine.lower()).refine_mode
    looks = estimate.looks_for(props.matte, preference_values.isnet(context))
    return estimate.Work(frames, size, len(found), sum(map(_count_deforming_bones, found)), model, device, refine, looks)


def _count_deforming_bones(obj: bpy.types.Object) -> int:
    bones = obj.data.bones
    flags = np.zeros(len(bones), np.bool_)
    bones.foreach_get("use_deform", flags)
    return int(flags.sum())


CLASSES = (
    ANYRIG_PT_capture,
    ANYRIG_PT_rig,
    ANYRIG_PT_video,
    ANYRIG_PT_footage,
    ANYRIG_PT_reference,
    ANYRIG_PT_output,
    ANYRIG_PT_model,
    ANYRIG_PT_run,
)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the version of PyTorch and the times of captures."""
    _torch_version.cache_clear()
    estimate.RATES.reset()


def unregister() -> None:
    reset()
    _unregister_classes()

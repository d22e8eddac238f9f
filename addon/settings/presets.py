"""Presets of the panel, with Blender's preset system. They leave out settings that belong to one video or one rig."""

from __future__ import annotations

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

FOLDER = "anyrig"
NAMES = (
    "bones", "speed", "mirror", "reference", "view", "side", "azimuth", "heading", "model", "model_file", "refine", "device",
    "start", "output", "extend_range",
)  # fmt: skip


class ANYRIG_PT_presets(PresetPanel, bpy.types.Panel):
    bl_label = "AnyRig Presets"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    preset_subdir = FOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "anyrig.preset_add"


class ANYRIG_OT_preset_add(AddPresetBase, bpy.types.Operator):
    bl_idname = "anyrig.preset_add"
    bl_label = "Add AnyRig Preset"
    bl_description = (
        "Add or remove a preset of the AnyRig panel: bones, reference, output and model, but no video and no armature"
    )
    preset_menu = "ANYRIG_PT_presets"
    preset_subdir = FOLDER
    preset_defines = ("props = bpy.context.scene.anyrig",)
    preset_values = tuple(f"props.{name}" for name in NAMES)


CLASSES = (ANYRIG_PT_presets, ANYRIG_OT_preset_add)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

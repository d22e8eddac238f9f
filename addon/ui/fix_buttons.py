"""The buttons below an error, one for each name that an error's `fix` may have; and Pick Armature."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import EnumProperty, StringProperty

from ..rendering import engines
from ..settings import preference_values
from ..tasks import background_runner
from .operator_base import AnyRigOperator


class Fix(NamedTuple):
    """A button: its label, its tooltip and the function that it calls."""

    label: str
    description: str
    apply: Callable[[bpy.types.Context], None]


def _set(**values: Any) -> Callable[[bpy.types.Context], None]:
    """A function that sets these settings of the panel."""

    def apply(context: bpy.types.Context) -> None:
        for name, value in values.items():
            setattr(context.scene.anyrig, name, value)

    return apply


def _use_cycles(context: bpy.types.Context) -> None:
    preferences = preference_values.preferences(context)
    if preferences is not None:
        preferences.engine = engines.CYCLES


def _object_mode(_context: bpy.types.Context) -> None:
    if bpy.ops.object.mode_set.poll():
        bpy.ops.object.mode_set(mode="OBJECT")


# fixes that change a setting
FIXES = {
    "whole_video": Fix("Use the Whole Video", "Remove the trim range", _set(trim_start=0.0, trim_end=0.0)),
    "no_matte": Fix("Find the Subject without the Matte", "Remove the matte file", _set(matte="")),
    "use_cpu": Fix("Run on the CPU", "Set Device to CPU, which works everywhere", _set(device="cpu")),
    "use_lite": Fix("Use Lite", "Set Model to Lite, whose weights come with the add-on", _set(model="lite")),
    "deform_bones": Fix("Key All Deforming Bones", "Set Bones to Deform", _set(bones="DEFORM")),
    "use_cycles": Fix("Draw with Cycles", "Set Reference Views in the add-on's preferences to Cycles", _use_cycles),
    "object_mode": Fix("Leave Edit Mode", "Switch to object mode", _object_mode),
}
# fixes that are operators of their own
OPERATORS = {
    "choose_video": "anyrig.choose_video",
    "draw_box": "anyrig.draw_box",
    "convert": "anyrig.copy_conversion",
    "copy_diagnostics": "anyrig.copy_diagnostics",
}
PICK = "pick_armature"


class ANYRIG_OT_fix(bpy.types.Operator):
    bl_idname = "anyrig.fix"
    bl_label = "Fix"
    bl_description = "Fix this problem"
    bl_options = {"REGISTER", "UNDO", "INTERNAL"}

    fix: StringProperty(name="Fix", description="Name of the fix", options={"HIDDEN", "SKIP_SAVE"})

    @classmethod
    def description(cls, _context: bpy.types.Context, properties: Any) -> str:
        found = FIXES.get(properties.fix)
        return iface_(found.description) if found else cls.bl_description

    def execute(self, context: bpy.types.Context) -> set[str]:
        found = FIXES.get(self.fix)
        if found is None:
            self.report({"ERROR"}, f"There is no fix '{self.fix}': use one of {', '.join(FIXES)}.")
            return {"CANCELLED"}
        found.apply(context)
        background_runner.set_status("")
        return {"FINISHED"}


_items: list[tuple[str, str, str]] = []  # Blender keeps no reference to the strings of a dynamic enum


def _armatures(_operator: Any, context: bpy.types.Context | None) -> list[tuple[str, str, str]]:
    _items[:] = [(obj.name, obj.name, "") for obj in armatures_in(context)] if context else []
    return _items


def armatures_in(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The scene's armatures, visible ones first."""
    found = [obj for obj in context.scene.objects if obj.type == "ARMATURE"]
    return sorted(found, key=lambda obj: (not obj.visible_get(), obj.name))


class ANYRIG_OT_pick_armature(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.pick_armature"
    bl_label = "Pick Armature"
    bl_description = "Choose which armature of the scene gets the motion"
    bl_options = {"REGISTER", "UNDO"}
    bl_property = "armature"

    armature: EnumProperty(name="Armature", description="The rig to animate", items=_armatures)

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if armatures_in(context) else "There is no armature in this scene"

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        context.window_manager.invoke_search_popup(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> str:
        context.scene.anyrig.armature = context.scene.objects[self.armature]
        if background_runner.status_fix() == PICK:
            background_runner.set_status("")
        return ""


def draw(layout: bpy.types.UILayout, context: bpy.types.Context, fix: str) -> None:
    """Draw the button of a fix, if there is one."""
    if fix in FIXES:
        layout.operator(ANYRIG_OT_fix.bl_idname, text=FIXES[fix].label, icon="TOOL_SETTINGS").fix = fix
    elif fix in OPERATORS:
        layout.operator(OPERATORS[fix], icon="TOOL_SETTINGS")
    elif fix == PICK:
        _draw_pick(layout, armatures_in(context))


def _draw_pick(layout: bpy.types.UILayout, armatures: list[bpy.types.Object]) -> None:
    if not armatures:
        layout.label(text="This scene has no armature: add or import one", icon="INFO")
    elif len(armatures) == 1:
        name = armatures[0].name
        text = iface_("Use '{name}'").format(name=name)
        layout.operator(ANYRIG_OT_pick_armature.bl_idname, text=text, icon="ARMATURE_DATA", translate=False).armature = name
    else:
        layout.operator_menu_enum(ANYRIG_OT_pick_armature.bl_idname, "armature", text="Pick Armature", icon="ARMATURE_DATA")


CLASSES = (ANYRIG_OT_fix, ANYRIG_OT_pick_armature)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the armatures that were offered last."""
    _items.clear()


def unregister() -> None:
    reset()
    _unregister_classes()

"""The table of joint names for the released network. The scene stores it; the rig is not changed."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import CollectionProperty, IntProperty, PointerProperty, StringProperty

from ..settings.chosen_armatures import armature_from_context
from ..ui.operator_base import AnyRigOperator

if TYPE_CHECKING:
    from ...backend.rig.rig import Rig


class ANYRIG_JointName(bpy.types.PropertyGroup):
    """`name` is the bone's."""

    label: StringProperty(
        name="Meaning", description="English name of the joint, such as Left Knee. Empty: the bone's name, or a guess"
    )


class ANYRIG_JointTable(bpy.types.PropertyGroup):
    armature: PointerProperty(type=bpy.types.Object)
    joints: CollectionProperty(type=ANYRIG_JointName)
    index: IntProperty(name="Joint")


def table_of(scene: bpy.types.Scene, obj: bpy.types.Object | None) -> ANYRIG_JointTable | None:
    """The armature's table, if it has one."""
    return next((table for table in getattr(scene, "anyrig_naming", ()) if obj is not None and table.armature == obj), None)


def with_joint_names(scene: bpy.types.Scene, obj: bpy.types.Object, rig: Rig) -> Rig:
    """The rig with the joint names of its table; unchanged if it has none."""
    table = table_of(scene, obj)
    if table is None:
        return rig
    from ...backend.rig.guess_joint_names import names_or_guesses

    labels = {joint.name: joint.label.strip() for joint in table.joints}
    return replace(rig, labels=tuple(labels.get(name) or own for name, own in zip(rig.names, names_or_guesses(rig), strict=True)))


class ANYRIG_OT_guess_names(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.guess_names"
    bl_label = "Name Joints"
    bl_description = (
        "Make a table of joint names from the bone names, guessed from the skeleton's shape where a name has no meaning"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return "" if armature_from_context(context) else "Pick an armature"

    def run(self, context: bpy.types.Context) -> str:
        from ...backend.rig.guess_joint_names import names_or_guesses
        from ..rig.armature import rig_from_armature

        obj, scene = armature_from_context(context), context.scene
        rig = rig_from_armature(obj)
        table = table_of(scene, obj)
        if table is None:
            table = scene.anyrig_naming.add()
            table.armature = obj
        table.joints.clear()
        for name, word in zip(rig.names, names_or_guesses(rig), strict=True):
            joint = table.joints.add()
            joint.name, joint.label = name, word
        table.index = min(table.index, len(table.joints) - 1)
        return ""


class ANYRIG_OT_clear_names(bpy.types.Operator):
    bl_idname = "anyrig.clear_names"
    bl_label = "Remove Table"
    bl_description = "Remove the joint-name table and use the bone names again"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return table_of(context.scene, armature_from_context(context)) is not None

    def execute(self, context: bpy.types.Context) -> set[str]:
        tables = context.scene.anyrig_naming
        table = table_of(context.scene, armature_from_context(context))
        tables.remove(next(place for place, each in enumerate(tables) if each == table))
        return {"FINISHED"}


class ANYRIG_UL_joints(bpy.types.UIList):
    bl_idname = "ANYRIG_UL_joints"

    def draw_item(
        self,
        _context: bpy.types.Context,
        layout: bpy.types.UILayout,
        _data: Any,
        item: ANYRIG_JointName,
        _icon: int,
        _active: Any,
        _property: str,
    ) -> None:
        row = layout.split(factor=0.5)
        row.label(text=item.name, icon="BONE_DATA")
        row.prop(item, "label", text="", emboss=False)


class ANYRIG_PT_naming(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_naming"
    bl_label = "Joint Names"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_parent_id = "ANYRIG_PT_model"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 52

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Not for Lite, which uses the bone names."""
        return context.scene.anyrig.model != "lite"

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        table = table_of(context.scene, armature_from_context(context))
        if table is not None:
            layout.template_list(ANYRIG_UL_joints.bl_idname, "", table, "joints", table, "index", rows=5)
        row = layout.row(align=True)
        row.operator(
            ANYRIG_OT_guess_names.bl_idname, text="Name Joints" if table is None else "Guess Again", icon="OUTLINER_DATA_ARMATURE"
        )
        if table is not None:
            row.operator(ANYRIG_OT_clear_names.bl_idname, text="", icon="X")


CLASSES = (
    ANYRIG_JointName, ANYRIG_JointTable, ANYRIG_OT_guess_names, ANYRIG_OT_clear_names, ANYRIG_UL_joints, ANYRIG_PT_naming,
)  # fmt: skip


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.anyrig_naming = CollectionProperty(type=ANYRIG_JointTable)


def unregister() -> None:
    del bpy.types.Scene.anyrig_naming
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)

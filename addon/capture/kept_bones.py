"""Bones that stay where the armature has them, where the natural skeleton would hang them elsewhere. The scene stores them."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, CollectionProperty, PointerProperty, StringProperty

from ...backend.errors import UserError
from ..settings.chosen_armatures import armatures_from_context
from ..ui.operator_base import AnyRigOperator


class ANYRIG_KeptBone(bpy.types.PropertyGroup):
    """`name` is the bone's."""


class ANYRIG_KeptBones(bpy.types.PropertyGroup):
    armature: PointerProperty(type=bpy.types.Object)
    bones: CollectionProperty(type=ANYRIG_KeptBone)


def kept_bones(scene: bpy.types.Scene, obj: bpy.types.Object) -> tuple[str, ...]:
    """Names of the armature's bones that stay in place; those that were deleted or renamed are left out."""
    entry = _entry_of(scene, obj)
    return tuple(bone.name for bone in entry.bones if bone.name in obj.data.bones) if entry is not None else ()


def _entry_of(scene: bpy.types.Scene, obj: bpy.types.Object) -> ANYRIG_KeptBones | None:
    # the scenes of an add-on that is not registered have no such property
    return next((entry for entry in getattr(scene, "anyrig_kept", ()) if entry.armature == obj), None)


class ANYRIG_OT_keep_bone(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.keep_bone"
    bl_label = "Keep Bone in Place"
    bl_description = "Leave this bone where the armature has it, or hang it on the bone that its surface touches again"
    bl_options = {"REGISTER", "UNDO"}

    armature: StringProperty(name="Armature", description="Name of the armature object")
    bone: StringProperty(name="Bone", description="Name of the bone")
    keep: BoolProperty(name="Keep", description="Leave the bone where the armature has it", default=True)

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if armatures_from_context(context) else "Pick an armature")

    def run(self, context: bpy.types.Context) -> str:
        from . import rig_check

        scene, obj = context.scene, bpy.data.objects.get(self.armature)
        if obj is None or obj.type != "ARMATURE":
            raise UserError(f"There is no armature '{self.armature}': check the rig again.")
        if self.bone not in obj.data.bones:
            raise UserError(f"Bone '{self.bone}' is not in armature '{obj.name}': check the rig again.")
        entry = _entry_of(scene, obj)
        if entry is None:
            entry = scene.anyrig_kept.add()
            entry.armature = obj
        place = entry.bones.find(self.bone)
        if self.keep and place < 0:
            entry.bones.add().name = self.bone
        elif not self.keep and place >= 0:
            entry.bones.remove(place)
        rig_check.check(context, [obj])
        return ""


CLASSES = (ANYRIG_KeptBone, ANYRIG_KeptBones, ANYRIG_OT_keep_bone)
_register_classes, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def register() -> None:
    _register_classes()
    bpy.types.Scene.anyrig_kept = CollectionProperty(
        type=ANYRIG_KeptBones, description="Bones that stay where the armature has them"
    )


def unregister() -> None:
    del bpy.types.Scene.anyrig_kept
    _unregister_classes()

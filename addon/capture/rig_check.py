"""The operator Check Rig: finds bones that cannot follow a take, before the capture. rig/bone_warnings.py does the checks."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from ..rig.bone_warnings import warnings_of
from ..rig.keyed_bones import chosen_bones
from ..settings.chosen_armatures import armatures_from_context
from ..ui.operator_base import AnyRigOperator
from ..ui.wrapped_label import wrapped

_found: dict[int, list[str]] = {}  # of the last check, by the armature's session_uid


def check(context: bpy.types.Context, objects: Sequence[bpy.types.Object]) -> list[str]:
    """Check the armatures and store the warnings for the panel. Raises UserError for rigs that cannot be captured onto."""
    from ..rig.armature import rig_from_armature
    from ..rig.validation import validate_armature

    props, found = context.scene.anyrig, {}
    for obj in objects:
        validate_armature(context, obj)
        rig = rig_from_armature(obj, chosen_bones(obj, props.bones, props.collection))
        found[obj.session_uid] = warnings_of(obj, rig.names)
    _found.clear()
    _found.update(found)
    return [line for lines in found.values() for line in lines]


class ANYRIG_OT_check_rig(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.check_rig"
    bl_label = "Check Rig"
    bl_description = "Find bones that cannot follow a take because of constraints, drivers or locked channels"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if armatures_from_context(context) else "Pick an armature")

    def run(self, context: bpy.types.Context) -> str:
        lines = check(context, armatures_from_context(context))
        for line in lines or ["All bones can follow a take"]:
            self.report({"WARNING"} if lines else {"INFO"}, line)
        return ""


def draw(layout: bpy.types.UILayout, objects: Sequence[bpy.types.Object]) -> None:
    """Draw the warnings of the last check of these armatures, and the button."""
    if not objects:
        return
    column = layout.column(align=True)
    for line in (line for obj in objects for line in _found.get(obj.session_uid, ())):
        wrapped(column, line, "ERROR")
    if any(_found.get(obj.session_uid) == [] for obj in objects):
        column.label(text="All bones can follow a take", icon="CHECKMARK")
    layout.operator(ANYRIG_OT_check_rig.bl_idname, icon="VIEWZOOM")


CLASSES = (ANYRIG_OT_check_rig,)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the warnings of the last check."""
    _found.clear()


def unregister() -> None:
    reset()
    _unregister_classes()

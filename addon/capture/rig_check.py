"""Check Rig: which bones will not do what a take asks of them, told before the capture. What is found is rig_warnings.py's matter."""

from __future__ import annotations

from collections.abc import Sequence

import bpy

from ..rig.bone_warnings import warnings_of
from ..rig.keyed_bones import chosen_bones
from ..settings.chosen_armatures import armatures_from_context
from ..ui.operator_base import AnyRigOperator
from ..ui.wrapped_label import wrapped

_found: dict[int, list[str]] = {}  # by the armature's session_uid, since the last check


def check(context: bpy.types.Context, objects: Sequence[bpy.types.Object]) -> list[str]:
    """Look the armatures through, and keep what is found for the panel. Raises UserError for rigs that cannot be captured onto."""
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
    bl_description = "Look for bones that will not do what a take asks of them: constraints, drivers, locked channels"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if armatures_from_context(context) else "Pick an armature")

    def run(self, context: bpy.types.Context) -> str:
        lines = check(context, armatures_from_context(context))
        for line in lines or ["All bones will do what a take asks of them"]:
            self.report({"WARNING"} if lines else {"INFO"}, line)
        return ""


def draw(layout: bpy.types.UILayout, objects: Sequence[bpy.types.Object]) -> None:
    """What was found when these armatures were checked last, and the button."""
    if not objects:
        return
    column = layout.column(align=True)
    for line in (line for obj in objects for line in _found.get(obj.session_uid, ())):
        wrapped(column, line, "ERROR")
    if any(_found.get(obj.session_uid) == [] for obj in objects):
        column.label(text="All bones will do what a take asks", icon="CHECKMARK")
    layout.operator(ANYRIG_OT_check_rig.bl_idname, icon="VIEWZOOM")


CLASSES = (ANYRIG_OT_check_rig,)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the findings of the last check."""
    _found.clear()


def unregister() -> None:
    reset()
    _unregister_classes()

"""The operator Check Rig: finds bones that cannot follow a take, and what hangs where in the natural skeleton, before the capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..rig.bone_warnings import warnings_of
from ..rig.keyed_bones import chosen_bones
from ..settings.chosen_armatures import armatures_from_context
from ..ui.operator_base import AnyRigOperator
from ..ui.wrapped_label import wrapped
from .kept_bones import kept_bones


@dataclass(frozen=True)
class Checked:
    """What the last check found. warnings: bones that cannot follow a take. hung: what hangs elsewhere than in the armature, bone and
    sentence. others: what else differs in the natural skeleton. kept: bones that the user left in place.
    """

    warnings: list[str]
    hung: list[tuple[str, str]]
    others: list[str]
    kept: tuple[str, ...]


_found: dict[int, Checked] = {}  # by the armature's session_uid


def check(context: bpy.types.Context, objects: Sequence[bpy.types.Object]) -> list[str]:
    """Check the armatures and store the warnings for the panel. Raises UserError for rigs that cannot be captured onto."""
    from ..rig.validation import validate_armature

    found = {}
    for obj in objects:
        validate_armature(context, obj)
        found[obj.session_uid] = _check_one(context, obj)
    _found.clear()
    _found.update(found)
    return [line for checked in found.values() for line in checked.warnings]


def _check_one(context: bpy.types.Context, obj: bpy.types.Object) -> Checked:
    from ...backend.rig.natural_skeleton import describe
    from ..rig.armature import check_solvable, read_rig

    props, keep = context.scene.anyrig, kept_bones(context.scene, obj)
    rig, natural = read_rig(obj, chosen_bones(obj, props.bones, props.collection), keep)
    if natural is not None:
        check_solvable(obj, rig)
    lines = [] if natural is None else describe(natural)
    parts = () if natural is None else natural.hung  # describe() begins with a line for each
    hung = [(part.name, line) for part, line in zip(parts, lines)]
    keyed_feet = [name for name, moved in zip(rig.names, rig.hung) if moved]
    return Checked(warnings_of(obj, rig.names, keyed_feet), hung, lines[len(parts) :], keep)


class ANYRIG_OT_check_rig(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.check_rig"
    bl_label = "Check Rig"
    bl_description = "Find bones that cannot follow a take, and show which feet hang on which legs"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if armatures_from_context(context) else "Pick an armature")

    def run(self, context: bpy.types.Context) -> str:
        lines = check(context, armatures_from_context(context))
        for line in lines or ["All bones can follow a take"]:
            self.report({"WARNING"} if lines else {"INFO"}, line)
        return ""


def draw(layout: bpy.types.UILayout, objects: Sequence[bpy.types.Object]) -> None:
    """Draw what the last check of these armatures found, and the button."""
    if not objects:
        return
    column = layout.column(align=True)
    for obj in objects:
        checked = _found.get(obj.session_uid)
        if checked is None:
            continue
        for line in checked.warnings:
            wrapped(column, line, "ERROR")
        _draw_skeleton(column, obj, checked)
        if not checked.warnings:
            column.label(text="All bones can follow a take", icon="CHECKMARK")
    layout.operator(ANYRIG_OT_check_rig.bl_idname, icon="VIEWZOOM")


def _draw_skeleton(column: bpy.types.UILayout, obj: bpy.types.Object, checked: Checked) -> None:
    """Draw what hangs where, with a button that leaves a bone in place or hangs it again."""
    buttons = [(bone, line, True) for bone, line in checked.hung]
    buttons += [(bone, iface_("'{}' stays where the armature has it").format(bone), False) for bone in checked.kept]
    for bone, line, keep in buttons:
        row = column.row(align=True)
        wrapped(row.column(align=True), line, "CON_CHILDOF" if keep else "PINNED")
        button = row.operator("anyrig.keep_bone", text="", icon="X" if keep else "LOOP_BACK")
        button.armature, button.bone, button.keep = obj.name, bone, keep
    for line in checked.others:
        wrapped(column, line, "INFO")


CLASSES = (ANYRIG_OT_check_rig,)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the warnings of the last check."""
    _found.clear()


def unregister() -> None:
    reset()
    _unregister_classes()

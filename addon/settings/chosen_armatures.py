"""Finds the armatures that a capture is for: picked in the panel, selected, or active."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy

if TYPE_CHECKING:
    from .scene_properties import ANYRIG_Props


def picked_armature(props: ANYRIG_Props) -> bpy.types.Object | None:
    """The armature picked in the panel. None also for a deleted one, which only the property keeps in the file."""
    picked = props.armature
    return picked if picked is not None and picked.users_scene else None


def armature_from_context(context: bpy.types.Context) -> bpy.types.Object | None:
    """The picked armature, else the active one, else the one that deforms the active mesh."""
    # `blender -b FILE --command` has no window, and context.object belongs to one
    picked, active = picked_armature(context.scene.anyrig), context.view_layer.objects.active
    if picked is not None:
        return picked
    if active is None:
        return None
    return active if active.type == "ARMATURE" else active.find_armature()


def armatures_from_context(context: bpy.types.Context) -> list[bpy.types.Object]:
    """The armatures to capture onto: the picked one, else the selected ones, else the active one.

    A selected mesh selects the armature that deforms it. The active armature comes first.
    """
    picked, active = picked_armature(context.scene.anyrig), armature_from_context(context)
    selected = [] if picked is not None else [obj for obj in context.view_layer.objects if obj.select_get()]
    found = [obj if obj.type == "ARMATURE" else obj.find_armature() for obj in selected]
    if not any(found):
        return [] if active is None else [active]
    first = [active] if active in found else []
    return [obj for obj in dict.fromkeys([*first, *found]) if obj is not None]

"""Checks that an armature can be captured onto, before the long computation."""

from __future__ import annotations

import bpy

from ...backend.errors import UserError
from .armature import check_armature
from .meshes import meshes_of
from .scales import check_mirrors, check_object_scale
from .stray_vertices import check_places


def validate_armature(context: bpy.types.Context, obj: bpy.types.Object) -> None:
    """Check everything that would stop a capture onto the armature.

    Raises UserError: linked, in the NLA's tweak mode, in edit mode, in another scene, hidden together with all its meshes,
    scaled to nothing, a bone or vertex without a place or far away, or a bone with a negative scale.
    """
    check_writable(obj)
    _check_scene(context.scene, obj)
    check_armature(obj)
    # Blender does not evaluate an armature that nothing visible depends on: its pose would be out of date
    if not any(each.visible_get(view_layer=context.view_layer) for each in (obj, *meshes_of(obj))):
        raise UserError(f"Armature '{obj.name}' is hidden, and so are all its meshes: show one of them in the Outliner first.")
    check_object_scale(obj)
    check_places(obj)
    check_mirrors(obj)


def _check_scene(scene: bpy.types.Scene, obj: bpy.types.Object) -> None:
    if scene in obj.users_scene:
        return
    others = ", ".join(f"'{other.name}'" for other in obj.users_scene)
    where = f"in scene {others}: switch to that scene" if others else "in no scene: link it to one"
    raise UserError(f"Armature '{obj.name}' is not in scene '{scene.name}' but {where} first.")


def check_writable(obj: bpy.types.Object) -> None:
    """Raises UserError if the armature cannot get an action: it is linked, or in the NLA's tweak mode."""
    if obj.library is not None:
        raise UserError(f"Object '{obj.name}' is linked from another file: make a library override of it first.")
    if obj.animation_data is not None and obj.animation_data.use_tweak_mode:
        raise UserError(f"Armature '{obj.name}' is in the NLA's tweak mode: leave it (Tab in the NLA editor) first.")

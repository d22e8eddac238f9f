"""The meshes that an armature moves: which they are, which can be seen, and the armature at rest to look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy
from bpy.types import Object


def meshes_of(obj: bpy.types.Object) -> list[bpy.types.Object]:
    """The mesh objects that the armature deforms or carries, also on its bones or through other objects.

    Custom bone shapes and objects in no scene are left out.
    """
    shapes = {bone.custom_shape for bone in obj.pose.bones} if obj.pose else set()
    meshes = (mesh for mesh in bpy.data.objects if mesh.type == "MESH" and mesh not in shapes and mesh.users_scene)
    return [mesh for mesh in meshes if is_deformed(mesh, obj) or _is_carried(mesh, obj)]


def visible_meshes(obj: bpy.types.Object) -> list[bpy.types.Object]:
    """Those of `meshes_of` that images of the rig show: visible in the viewport and not disabled in renders.

    A mesh is not visible if it is hidden, if its collections are hidden or excluded, or if it is in another scene.
    """
    return [mesh for mesh in meshes_of(obj) if mesh.visible_get() and not mesh.hide_render]


def is_deformed(mesh: bpy.types.Object, obj: bpy.types.Object) -> bool:
    """True if the armature deforms the mesh, by a modifier or as its parent."""
    return (mesh.parent == obj and mesh.parent_type == "ARMATURE") or any(
        modifier.type == "ARMATURE" and modifier.object == obj and modifier.use_vertex_groups for modifier in mesh.modifiers
    )


def _is_carried(mesh: bpy.types.Object, obj: bpy.types.Object) -> bool:
    """True if the mesh is below the armature in the object tree and no other armature deforms it."""
    if any(modifier.type == "ARMATURE" and modifier.object not in (None, obj) for modifier in mesh.modifiers):
        return False
    return carried_by(mesh, obj)[0]


def carried_by(child: bpy.types.Object, obj: bpy.types.Object) -> tuple[bool, str]:
    """Whether the child is below the armature in the object tree, and the bone that it hangs on ('' for the object itself)."""
    while child.parent is not None:
        if child.parent == obj:
            return True, child.parent_bone if child.parent_type == "BONE" else ""
        if child.parent.type == "ARMATURE":
            break
        child = child.parent
    return False, ""


@contextmanager
def rest_position(armature: Object) -> Iterator[None]:
    """Show the armature at rest inside the block, and restore its pose position afterwards."""
    before = armature.data.pose_position
    armature.data.pose_position = "REST"
    bpy.context.view_layer.update()
    try:
        yield
    finally:
        armature.data.pose_position = before
        bpy.context.view_layer.update()

"""Scales that keep a bone from showing a rotation: mirrored ones, and those that make it flat or nothing."""

from __future__ import annotations

import bpy
import numpy as np
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.errors import UserError

FLAT = 1e-4  # a matrix whose axes differ by more than this, as a share of the longest, is flat
NOTHING = 1e-7  # lengths of all axes below which nothing is left of a bone, in the armature's units


def flat(matrices: Array) -> NDArray[np.bool_]:
    """(N, 4, 4) -> (N,) whether nothing is left of at least one axis."""
    sizes = np.linalg.svd(matrices[:, :3, :3], compute_uv=False)
    return (sizes[:, 0] < NOTHING) | (sizes[:, 2] < FLAT * sizes[:, 0])


def hidden_bones(obj: bpy.types.Object) -> dict[str, str]:
    """The bones that are scaled to nothing in the present pose, as many rigs hide props, and the bone that each owes it to: itself or
    one above it. Parents come first."""
    matrices = posed_matrices(obj)
    gone = {bone.name for bone, each in zip(obj.pose.bones, flat(matrices)) if each}
    hidden: dict[str, str] = {}
    for bone in sorted(obj.pose.bones, key=lambda bone: len(bone.bone.parent_recursive)):
        above = hidden.get(bone.parent.name) if bone.parent is not None else None
        if bone.name in gone:
            hidden[bone.name] = above or bone.name
    return hidden


def check_scales(obj: bpy.types.Object) -> None:
    """Raises UserError for an armature that is scaled to nothing, and for a mirrored bone, whose pose is no rotation: keys cannot show it."""
    if flat(np.array(obj.matrix_world, np.float64)[None])[0]:
        raise UserError(
            f"Armature '{obj.name}' is scaled to nothing, by its own scale or by what it is parented to: set that scale back first."
        )
    matrices, bones = posed_matrices(obj), list(obj.pose.bones)
    mirrored = (np.linalg.det(matrices[:, :3, :3]) < 0) & ~flat(matrices)
    names = {bone.name for bone, each in zip(bones, mirrored) if each}
    for bone in bones:
        if bone.name in names and (bone.parent is None or bone.parent.name not in names):
            raise UserError(
                f"Bone '{bone.name}' of armature '{obj.name}' is mirrored by a negative scale: make the scale positive first."
            )


def check_space(obj: bpy.types.Object, bone: str, space: Array) -> None:
    """Raises UserError if a bone cannot be keyed, since one above it is scaled to nothing. space: (T or 1, 4, 4)."""
    if flat(space).any():
        cause = hidden_bones(obj).get(obj.pose.bones[bone].parent.name, bone)
        raise UserError(
            f"Bone '{cause}' of armature '{obj.name}' is scaled to nothing, so '{bone}' below it cannot be keyed: set its scale back to 1 first."
        )


def posed_matrices(obj: bpy.types.Object) -> Array:
    """(N, 4, 4) evaluated pose matrices of all bones at the current frame, armature space."""
    values = np.empty(16 * len(obj.pose.bones), np.float32)
    obj.pose.bones.foreach_get("matrix", values)
    # foreach_get gives each matrix by columns
    return values.reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)

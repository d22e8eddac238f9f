"""Finds bones that a scale hides or flattens, in the present pose: no rotation can be seen there, or be solved for."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array
from ...backend.errors import UserError

NOTHING = 1e-6  # a scale below this shows nothing
FLAT = 1e-3  # the least ratio of a matrix's smallest scale to its largest that leaves a body


def hidden_bones(obj: bpy.types.Object) -> list[str]:
    """Names of the bones that no key can turn, in armature order: scaled to nothing, or below a bone that is, or that is flat.

    A flat bone itself still shows its rotation. Constraints, drivers and keys count: the pose is the evaluated one.
    """
    own = pose_matrices(obj)
    nothing = _largest(own) < NOTHING
    found = []
    for row, (bone, matrix) in enumerate(zip(obj.pose.bones, own, strict=True)):
        if nothing[row] or not np.isfinite(matrix).all() or (bone.parent is not None and is_flat(_space(bone))):
            found.append(bone.name)
    return found


def check_object_scale(obj: bpy.types.Object) -> None:
    """Raises UserError if the armature object, or what it is parented to, is scaled to nothing or flat."""
    if is_flat(np.array(obj.matrix_world, np.float64)):
        raise UserError(
            f"Armature '{obj.name}' is scaled to nothing, or flat, by itself or by its parents: set that scale to 1 first."
        )


def check_space(bone: bpy.types.PoseBone, space: Array) -> None:
    """Raises UserError if a bone to be keyed is below one that is scaled to nothing. space: (T or 1, 4, 4), as of its own channels at rest."""
    if not is_flat(space[0]):
        return
    cause = next((each for each in (bone.parent, *bone.parent.parent_recursive) if min(map(abs, each.scale)) < FLAT), bone.parent)
    raise UserError(
        f"Bone '{cause.name}' of armature '{bone.id_data.name}' is scaled to nothing, or flat, so '{bone.name}' below it cannot be keyed: set its "
        "scale to 1 first."
    )


def check_mirrors(obj: bpy.types.Object) -> None:
    """Raises UserError for a mirrored bone: its pose is no rotation, so keys cannot show it."""
    hidden = set(hidden_bones(obj))
    for bone, matrix in zip(obj.pose.bones, pose_matrices(obj), strict=True):
        # a matrix with an axis of no length mirrors nothing: its determinant is a rounding error
        if bone.name not in hidden and not is_flat(matrix) and np.linalg.det(matrix[:3, :3] / _largest(matrix)) < 0:
            raise UserError(
                f"Bone '{bone.name}' of armature '{obj.name}' is mirrored by a negative scale: make the scale positive first."
            )


def is_flat(matrix: Array) -> bool:
    """True if a matrix (4, 4) makes nothing, a line or a plane of a body, or holds values that are no numbers."""
    if not np.isfinite(matrix).all():
        return True
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return bool(scales[0] < NOTHING**2 or scales[-1] < FLAT * scales[0])


def pose_matrices(obj: bpy.types.Object) -> Array:
    """(bones, 4, 4) evaluated pose matrices of all bones, armature space."""
    flat = np.empty(16 * len(obj.pose.bones), np.float32)
    obj.pose.bones.foreach_get("matrix", flat)
    # foreach_get gives each matrix by columns
    return flat.reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)


def _largest(matrices: Array) -> Array:
    return np.linalg.norm(matrices[..., :3, :3], axis=-2).max(-1)


def _space(bone: bpy.types.PoseBone) -> Array:
    """(4, 4) armature-space matrix that the bone would have with its own channels at rest."""
    assert bone.parent is not None
    rest, above = bone.bone.matrix_local, bone.parent.bone.matrix_local
    posed = bone.bone.convert_local_to_pose(Matrix(), rest, parent_matrix=bone.parent.matrix, parent_matrix_local=above)
    return np.array(posed, np.float64)

"""Locked channels of a bone keep their present value and get no key; the free ones come as near to the wanted turn as they can."""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import numpy as np
from mathutils import Matrix, Quaternion

from ...backend.geometry.rotations import (
    Array,
    axis_angle_to_matrix,
    continuous,
    matrix_to_quaternion,
    quaternion_to_matrix,
)

SWEEPS = 20  # of the free angles in turn, where two of three are free
XYZ = "XYZ"


def free_location(bone: bpy.types.PoseBone) -> tuple[int, ...]:
    """The axes of the bone's location that may be keyed."""
    return tuple(axis for axis in range(3) if not bone.lock_location[axis])


def free_rotation(bone: bpy.types.PoseBone) -> tuple[int, ...]:
    """The components of the rotation property of the bone's mode that may be keyed; none if it cannot turn at all.

    A quaternion or axis-angle whose locks are not 4D is locked by its XYZ angles, as Blender does: all four components are keyed then.
    """
    if len(bone.rotation_mode) == 3:
        return tuple(axis for axis in range(3) if not bone.lock_rotation[axis])
    if bone.lock_rotations_4d:
        free = tuple(index for index, locked in enumerate(_locks_4d(bone)) if not locked)
        # of a unit quaternion three locked components leave nothing free
        return () if bone.rotation_mode == "QUATERNION" and len(free) == 1 else free
    return () if all(bone.lock_rotation) else (0, 1, 2, 3)


def is_locked(bone: bpy.types.PoseBone) -> bool:
    """Whether any part of the bone's rotation is."""
    four = bone.lock_rotations_4d and len(bone.rotation_mode) != 3
    return any(_locks_4d(bone) if four else bone.lock_rotation)


def apply_locks(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """Wanted rotations (T, 3, 3) of the bone's own channels -> the nearest ones that its locks allow (of 4D axis-angles: some)."""
    if not is_locked(bone):
        return rotations
    mode = bone.rotation_mode
    if len(mode) == 3:
        return eulers_to_matrix(locked_eulers(bone, rotations), mode)
    if not bone.lock_rotations_4d:
        present = Matrix(_present(bone).tolist()).to_euler(XYZ)
        return eulers_to_matrix(_fit(rotations, XYZ, np.array(present), tuple(bone.lock_rotation)), XYZ)
    if mode == "QUATERNION":
        return quaternion_to_matrix(locked_quaternions(bone, rotations))
    return _from_axis_angles(locked_axis_angles(bone, rotations))


def _locks_4d(bone: bpy.types.PoseBone) -> tuple[bool, ...]:
    return (bone.lock_rotation_w, *bone.lock_rotation)


def _present(bone: bpy.types.PoseBone) -> Array:
    """(3, 3) the rotation of the bone's own channels as they stand."""
    return np.array(bone.matrix_basis.to_quaternion().to_matrix(), np.float64)


def locked_eulers(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """(T, 3, 3) -> (T, 3) radians in the bone's order, the locked ones as they stand."""
    return _fit(rotations, bone.rotation_mode, np.array(bone.rotation_euler), tuple(bone.lock_rotation))


def locked_quaternions(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """(T, 3, 3) -> (T, 4) wxyz with the locked components as they stand.

    With components l held, the unit quaternion nearest to +-t has its free part along that of t, as long as is left by l; of the two
    signs the one that fits better.
    """
    locked = np.array(_locks_4d(bone)) | (not free_rotation(bone))
    present = np.array(bone.rotation_quaternion, np.float64)
    present /= max(np.linalg.norm(present), 1e-9)
    held = np.where(locked, present, 0)
    wanted = continuous(matrix_to_quaternion(rotations))
    free = np.where(locked, 0, wanted)
    size = np.linalg.norm(free, axis=1, keepdims=True)
    rest = np.sqrt(max(1 - held @ held, 0))
    direction = np.where(size > 1e-9, free / np.maximum(size, 1e-9), np.where(locked, 0, present))
    sign = np.where((wanted @ held)[:, None] < 0, -1, 1)
    return held + sign * rest * direction


def locked_axis_angles(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """(T, 3, 3) -> (T, 4) angle and axis with the locked components as they stand; a bone whose axis is locked is a hinge.

    The angle of the rotation about axis a that is nearest to T maximises trace(T^T R(angle)): its sine goes with a . v, v the
    antisymmetric part of T, and its cosine with trace(T) - a . T a.
    """
    present, locked = np.array(bone.rotation_axis_angle, np.float64), np.array(_locks_4d(bone))
    if locked[1:].all() and not locked[0]:
        axis = present[1:] / max(np.linalg.norm(present[1:]), 1e-9)
        skew = rotations - np.swapaxes(rotations, 1, 2)
        turned = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1)
        angle = np.arctan2(turned @ axis, np.trace(rotations, axis1=1, axis2=2) - np.einsum("i,tij,j->t", axis, rotations, axis))
        values = np.concatenate([np.unwrap(angle)[:, None], np.tile(present[1:], (len(angle), 1))], axis=1)
    else:
        pairs = [Quaternion(q.tolist()).to_axis_angle() for q in matrix_to_quaternion(rotations)]
        values = np.array([[angle, *axis] for axis, angle in pairs], np.float64)
    return np.where(locked, present, values)


def _from_axis_angles(values: Array) -> Array:
    axis = values[:, 1:] / np.maximum(np.linalg.norm(values[:, 1:], axis=1, keepdims=True), 1e-9)
    return axis_angle_to_matrix(axis, values[:, 0])


def _fit(rotations: Array, mode: str, present: Array, locked: Sequence[bool]) -> Array:
    """The Euler angles (T, 3) nearest to the rotations (T, 3, 3) with the locked ones held, without jumps over time.

    Every rotation has two sets of angles, (x, y, z) and the one with the middle angle beyond a right angle: the search starts at both,
    since with one angle held they lead to different places.
    """
    start = np.array([Matrix(rotation.tolist()).to_euler(mode) for rotation in rotations], np.float64)
    first, middle, last = (XYZ.index(letter) for letter in mode)
    other = np.array(start)
    other[:, [first, last]] += np.pi
    other[:, middle] = np.pi - other[:, middle]
    found = [_climb(rotations, mode, np.where(locked, present, angles), locked) for angles in (start, other)]
    misses = [np.trace(np.swapaxes(rotations, 1, 2) @ eulers_to_matrix(angles, mode), axis1=1, axis2=2) for angles in found]
    best = np.where((misses[0] + 1e-9 >= misses[1])[:, None], found[0], found[1])
    return np.where(locked, present, np.unwrap(best, axis=0))


def _climb(rotations: Array, mode: str, angles: Array, locked: Sequence[bool]) -> Array:
    """Each free angle in turn set to its best value.

    R = A R_a(angle) B; with N = A^T T B^T, trace(T^T R) is cos(angle) (N_bb + N_cc) + sin(angle) (N_cb - N_bc) and a constant, b and c
    the axes after a.
    """
    free = [axis for axis in range(3) if not locked[axis]]
    for _ in range(SWEEPS if len(free) > 1 else 1):
        for axis in free:
            place = mode.index(XYZ[axis])
            after, before = _product(angles, mode[place + 1 :]), _product(angles, mode[:place])
            n = np.swapaxes(after, 1, 2) @ rotations @ np.swapaxes(before, 1, 2)
            b, c = (axis + 1) % 3, (axis + 2) % 3
            angles[:, axis] = np.arctan2(n[:, c, b] - n[:, b, c], n[:, b, b] + n[:, c, c])
    return angles


def eulers_to_matrix(angles: Array, mode: str) -> Array:
    """(T, 3) radians in Blender's order `mode` -> (T, 3, 3)."""
    return _product(angles, mode)


def _product(angles: Array, letters: str) -> Array:
    """The first letter is the rotation that is applied first, which stands rightmost."""
    result = np.tile(np.eye(3), (len(angles), 1, 1))
    for letter in letters:
        axis = XYZ.index(letter)
        turn = axis_angle_to_matrix(np.tile(np.eye(3)[axis], (len(angles), 1)), angles[:, axis])
        result = turn @ result
    return result

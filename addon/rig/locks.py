"""Fits rotations to the locks of a bone: locked channels keep their value and get no key, free ones come as near as possible."""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import numpy as np
from mathutils import Matrix, Quaternion

from ...backend.arrays import Array
from ...backend.geometry.rotations import axis_angle_to_matrix, continuous, matrix_to_quaternion, quaternion_to_matrix

SWEEPS = 20  # over the free angles, if two of three are free
XYZ = "XYZ"


def free_location(bone: bpy.types.PoseBone) -> tuple[int, ...]:
    """The axes of the bone's location that may be keyed."""
    return tuple(axis for axis in range(3) if not bone.lock_location[axis])


def free_rotation(bone: bpy.types.PoseBone) -> tuple[int, ...]:
    """The components that may be keyed, of the rotation property of the bone's mode; none if the bone cannot rotate.

    A quaternion or axis-angle without 4D locks is locked by its XYZ angles, as in Blender: then all four components are keyed.
    """
    if len(bone.rotation_mode) == 3:
        return tuple(axis for axis in range(3) if not bone.lock_rotation[axis])
    if bone.lock_rotations_4d:
        free = tuple(index for index, locked in enumerate(_locks_4d(bone)) if not locked)
        # three locked components of a unit quaternion leave nothing free
        return () if bone.rotation_mode == "QUATERNION" and len(free) == 1 else free
    return () if all(bone.lock_rotation) else (0, 1, 2, 3)


def is_locked(bone: bpy.types.PoseBone) -> bool:
    """True if any part of the bone's rotation is locked."""
    four = bone.lock_rotations_4d and len(bone.rotation_mode) != 3
    return any(_locks_4d(bone) if four else bone.lock_rotation)


def apply_locks(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """Wanted rotations (T, 3, 3) of the bone's own channels -> the nearest ones that its locks allow.

    The result is not the nearest for axis-angles whose 4D locks are other than a locked axis.
    """
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
    """(3, 3) the present rotation of the bone's own channels."""
    return np.array(bone.matrix_basis.to_quaternion().to_matrix(), np.float64)


def locked_eulers(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """(T, 3, 3) -> (T, 3) radians in the bone's order; locked ones keep their value."""
    return _fit(rotations, bone.rotation_mode, np.array(bone.rotation_euler), tuple(bone.lock_rotation))


def locked_quaternions(bone: bpy.types.PoseBone, rotations: Array) -> Array:
    """(T, 3, 3) -> (T, 4) wxyz; locked components keep their value.

    With components l held, the unit quaternion nearest to +-t has its free part along the free part of t, with the length that l
    leaves. Of the two signs the better one is taken.
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
    """(T, 3, 3) -> (T, 4) angle and axis; locked components keep their value. A bone with a locked axis is a hinge.

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
    """The Euler angles (T, 3) nearest to the rotations (T, 3, 3), with the locked ones held and without jumps over time.

    Every rotation has two sets of angles; in one of them the middle angle is beyond a right angle. The search starts at both, because
    with one angle held they lead to different results.
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
    """Set each free angle to its best value, one after another.

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
    """The first letter is the rotation that is applied first: it is the rightmost factor."""
    result = np.tile(np.eye(3), (len(angles), 1, 1))
    for letter in letters:
        axis = XYZ.index(letter)
        turn = axis_angle_to_matrix(np.tile(np.eye(3)[axis], (len(angles), 1)), angles[:, axis])
        result = turn @ result
    return result

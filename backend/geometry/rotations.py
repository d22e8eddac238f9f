"""Rotations in numpy: rot6d rows, matrices, rotation vectors, quaternions (w, x, y, z).

Every function takes batches (..., n) and keeps the dtype of a floating input. Matrices act on columns: p' = R @ p.
rot6d is the first two ROWS of the matrix, flattened (docs/network.md, Conventions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..arrays import Array


def _floating(values: ArrayLike) -> Array:
    array = np.asarray(values)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _stack(components: Sequence[Array], dtype: np.dtype) -> Array:
    """Stack components in this dtype: in numpy 1 a float32 scalar times a Python number is float64."""
    return np.stack(components, axis=-1).astype(dtype, copy=False)


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(vectors.dtype).tiny)


def matrix_to_rot6d(matrix: ArrayLike) -> Array:
    """(..., 3, 3) rotation -> (..., 6): the first two rows, flattened."""
    matrix = _floating(matrix)
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def rot6d_to_matrix(rot6d: ArrayLike) -> Array:
    """(..., 6) -> (..., 3, 3) by Gram-Schmidt on the two rows (Zhou et al. 2019)."""
    rot6d = _floating(rot6d)
    first = _unit(rot6d[..., :3])
    second = rot6d[..., 3:]
    second = _unit(second - (first * second).sum(-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-2)


def quaternion_to_matrix(quaternion: ArrayLike) -> Array:
    """(..., 4) wxyz, any length but zero -> (..., 3, 3)."""
    quaternion = _unit(_floating(quaternion))
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return _stack(rows, quaternion.dtype).reshape(*w.shape, 3, 3)


def matrix_to_quaternion(matrix: ArrayLike) -> Array:
    """(..., 3, 3) rotation -> (..., 4) wxyz with w >= 0.

    Builds q q^T up to a factor from the matrix and normalises its longest row, which is well conditioned at every angle.
    """
    m = _floating(matrix)
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    # 4 q q^T: every row is q times four times one of its own components
    outer = [
        1 + xx + yy + zz, wx, wy, wz,
        wx, 1 + xx - yy - zz, xy, xz,
        wy, xy, 1 - xx + yy - zz, yz,
        wz, xz, yz, 1 - xx - yy + zz,
    ]  # fmt: skip
    rows = _stack(outer, m.dtype).reshape(*xx.shape, 4, 4)
    longest = np.argmax(np.einsum("...ii->...i", rows), axis=-1)
    quaternion = _unit(np.take_along_axis(rows, longest[..., None, None], axis=-2)[..., 0, :])
    return np.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_multiply(left: ArrayLike, right: ArrayLike) -> Array:
    """Hamilton product of (..., 4) wxyz: the rotation `right` followed by `left`."""
    aw, ax, ay, az = np.moveaxis(_floating(left), -1, 0)
    bw, bx, by, bz = np.moveaxis(_floating(right), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def axis_angle_to_matrix(axis: ArrayLike, angle: ArrayLike) -> Array:
    """Unit axes (..., 3) and angles (...) in radians -> (..., 3, 3)."""
    half = _floating(angle)[..., None] / 2
    return quaternion_to_matrix(np.concatenate([np.cos(half), np.sin(half) * _unit(_floating(axis))], axis=-1))


def rotvec_to_matrix(rotvec: ArrayLike) -> Array:
    """Rotation vectors (..., 3), axis times angle in radians, of any length -> (..., 3, 3)."""
    rotvec = _floating(rotvec)
    return axis_angle_to_matrix(rotvec, np.linalg.norm(rotvec, axis=-1))


def matrix_to_rotvec(matrix: ArrayLike) -> Array:
    """(..., 3, 3) rotation -> (..., 3) axis times angle in radians, 0..pi; at an angle of pi the axis has either sign.

    The vector part of the quaternion is the axis times the sine of half the angle, and w its cosine: the factor between the two
    vectors tends to 2 as the angle goes to zero.
    """
    quaternion = matrix_to_quaternion(matrix)
    w, vector = quaternion[..., :1], quaternion[..., 1:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    factor = np.where(sine > 1e-12, 2 * np.arctan2(sine, w) / np.maximum(sine, 1e-12), 2)
    return (vector * factor).astype(quaternion.dtype, copy=False)


def slerp(start: ArrayLike, end: ArrayLike, weight: ArrayLike) -> Array:
    """Unit quaternions (..., 4) wxyz at `weight` (..., 1), 0..1, of the shorter way from start to end, at even speed.

    Quaternions of either sign are the same rotation, so `end` may come out with its sign changed. Between rotations that are an angle
    of pi apart both ways are equally short, and either is taken.
    """
    start, end, weight = _floating(start), _floating(end), _floating(weight)
    end = np.where((start * end).sum(-1, keepdims=True) < 0, -end, end)
    # half the angle between the two, well conditioned when it is tiny: half chord over half sum
    half = np.arctan2(np.linalg.norm(end - start, axis=-1), np.linalg.norm(end + start, axis=-1))[..., None]
    sine = np.sin(2 * half)
    far = sine > 1e-9  # below that both formulas agree to rounding
    safe = np.where(far, sine, 1)
    first = np.where(far, np.sin(2 * half * (1 - weight)) / safe, 1 - weight)
    second = np.where(far, np.sin(2 * half * weight) / safe, weight)
    return first * start + second * end


def yaw_to_matrix(angle: ArrayLike) -> Array:
    """Angles (...) in radians -> (..., 3, 3) rotations about +y, which take z towards x."""
    angle = _floating(angle)
    return axis_angle_to_matrix(np.broadcast_to(np.array([0.0, 1.0, 0.0], angle.dtype), (*angle.shape, 3)), angle)


def matrix_to_yaw(matrix: ArrayLike) -> Array:
    """(..., 3, 3) -> (...) radians: the rotation about +y in the swing-twist decomposition."""
    quaternion = matrix_to_quaternion(matrix)
    return np.arctan2(quaternion[..., 2], quaternion[..., 0]) * quaternion.dtype.type(2)


def geodesic_angle(left: ArrayLike, right: ArrayLike) -> Array:
    """Angle in radians (0..pi) between rotations (..., 3, 3).

    atan2 of sine and cosine: arccos alone loses half the digits near 0, arcsin near pi.
    """
    turn = np.swapaxes(_floating(left), -1, -2) @ _floating(right)
    skew = [turn[..., 2, 1] - turn[..., 1, 2], turn[..., 0, 2] - turn[..., 2, 0], turn[..., 1, 0] - turn[..., 0, 1]]
    sine = np.linalg.norm(np.stack(skew, axis=-1), axis=-1)
    return np.arctan2(sine, np.einsum("...ii->...", turn) - turn.dtype.type(1))


def continuous(quaternions: ArrayLike) -> Array:
    """Quaternions (T, ..., 4) -> the same rotations, each with the sign that is nearest to the frame before."""
    quaternions = _floating(quaternions)
    flips = np.where((quaternions[1:] * quaternions[:-1]).sum(-1, keepdims=True) < 0, -1, 1)
    return np.concatenate([quaternions[:1], quaternions[1:] * np.cumprod(flips, axis=0)]).astype(quaternions.dtype)


def nearest_rotation(matrices: ArrayLike) -> Array:
    """(..., 3..4, 3..4) affine, maybe scaled or sheared -> (..., 3, 3): the nearest proper rotation (polar decomposition)."""
    linear = _floating(matrices)[..., :3, :3]
    u, _, vt = np.linalg.svd(_normalised_columns(linear))
    u[..., 2] = np.where(np.linalg.det(u @ vt)[..., None] < 0, -u[..., 2], u[..., 2])
    return u @ vt


def nearest_orthogonal(matrices: ArrayLike) -> Array:
    """(..., 3..4, 3..4) affine -> (..., 3, 3): the nearest rotation, or for a matrix that mirrors, the nearest rotation and reflection."""
    linear = _floating(matrices)[..., :3, :3]
    u, _, vt = np.linalg.svd(_normalised_columns(linear))
    return u @ vt


def _normalised_columns(linear: Array) -> Array:
    """Unit columns, so that a stretched axis does not outweigh the others."""
    length = np.linalg.norm(linear, axis=-2, keepdims=True)
    return linear / np.maximum(length, np.finfo(linear.dtype).tiny)

"""Perturbs the motion of a window: joints swing wider, less, or in other ways than in any clip of the rig.

A network trained on forty walks learns how walks look and ignores the images. Perturbed motions force it to use them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array, matrix_to_rotvec, nearest_rotation, rotvec_to_matrix
from ...rig.rig import Rig

WIDER = (0.4, 2.0)  # factor on the rotations of a window
UNEVEN = 0.2  # standard deviation of its logarithm between the joints of a window
SWING = (2.0, 24.0)  # degrees of the added swings, per window
PERIOD = (5.0, 30.0)  # frames of a swing
SWINGING = 0.6  # share of the joints that swing


def perturb_motion(poses: NDArray[np.floating], rig: Rig, rng: np.random.Generator) -> Array:
    """Perturb the local rotations of world poses (T, J, 4, 4), but those of the root and of joints that are static or translate.

    Every joint keeps its place in its parent's frame, so bones keep their length.
    """
    above = poses[:, np.maximum(rig.parents, 0)].astype(np.float64)
    local = np.linalg.inv(above) @ poses
    free = ~rig.static & ~rig.translates
    free[0] = False
    local[:, free, :3, :3] = _perturbation(nearest_rotation(local[:, free]), rng) @ local[:, free, :3, :3]
    found = poses.astype(np.float64)
    for joint in range(1, len(rig.parents)):  # a parent comes before its children
        found[:, joint] = found[:, rig.parents[joint]] @ local[:, joint]
    return found.astype(poses.dtype, copy=False)


def _perturbation(rotations: Array, rng: np.random.Generator) -> Array:
    """Local rotations (T, K, 3, 3) -> rotations (T, K, 3, 3) to apply to them: their movement wider or less wide, and a swing."""
    # new = R_0 exp(f log(R_0^T R)) exp(swing), and the result is new R^T
    frames, joints = rotations.shape[:2]
    if not joints:
        return rotations
    moved = matrix_to_rotvec(rotations[:1].swapaxes(-1, -2) @ rotations)
    wider = (np.exp(rng.uniform(*np.log(WIDER))) * np.exp(rng.normal(0, UNEVEN, joints)))[:, None]
    period, phase = rng.uniform(*PERIOD, joints), rng.uniform(0, 2 * np.pi, joints)
    sway = np.sin(2 * np.pi * np.arange(frames)[:, None] / period + phase)
    size = np.radians(rng.uniform(*SWING)) * (rng.random(joints) < SWINGING)
    swing = sway[..., None] * (rng.normal(0, 0.6, (joints, 3)) * size[:, None])
    new = rotvec_to_matrix(wider * moved) @ rotvec_to_matrix(swing)
    return rotations[:1] @ new @ rotations.swapaxes(-1, -2)

"""Takes with known truth, for the tests of clean-up: a chain of bones, and walkers with any number of legs."""

from __future__ import annotations

import numpy as np
from anyrig.backend.arrays import Array
from anyrig.backend.geometry.rotations import continuous, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.smoothing import with_posed_positions
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import local_to_global

UP = np.array([0.0, 0.0, 1.0])
AHEAD = np.array([0.0, -1.0, 0.0])  # a rig at rest faces Blender's front view


def rig_of(names: tuple[str, ...], parents: list[int], heads: Array, tails: Array) -> Rig:
    rest = np.tile(np.eye(4), (len(names), 1, 1))
    rest[:, :3, 3] = heads
    nothing = np.zeros(len(names), bool)
    return Rig("Walker", names, np.array(parents), rest, tails, nothing, nothing)


def spine(unit: float = 1.0) -> Rig:
    """A chain of three bones upwards."""
    heads = unit * np.arange(3)[:, None] * UP
    return rig_of(("a", "b", "c"), [-1, 0, 1], heads, heads + unit * UP)


def motion_of_locals(rig: Rig, local: Array, times: Array, **fields: Array) -> Motion:
    """The take of local rotations (T, J, 3, 3)."""
    count, joints = local.shape[:2]
    rotations = continuous(matrix_to_quaternion(local_to_global(rig.parents, local)))
    return with_posed_positions(
        rig,
        Motion(
            rig.names, times, rotations, np.zeros((count, joints, 3)), np.zeros((count, 4)), np.ones((count, joints)), **fields
        ),
    )

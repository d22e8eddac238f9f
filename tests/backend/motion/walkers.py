"""Takes with known truth, for the tests of clean-up: a chain of bones, and walkers with any number of legs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from anyrig.backend.arrays import Array
from anyrig.backend.geometry.rotations import continuous, matrix_to_quaternion, rotvec_to_matrix
from anyrig.backend.motion.feet import travel_by_feet
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.smoothing import bell, mean_over_time, with_posed_positions
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import global_to_local, local_to_global
from anyrig.backend.train.packs.rig_packs import Pack

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


def walk(pack: Pack, name: str) -> tuple[Rig, Motion]:
    """A clip of a creature that steps on the spot, with the even travel in which its feet stand still on the ground."""
    poses = pack.clips[name].astype(float)
    times = np.arange(len(poses)) / pack.fps
    motion = motion_of_locals(pack.rig, global_to_local(pack.rig.parents, pack.rig.rotations(poses)), times)
    speed = np.polyfit(times, travel_by_feet(pack.rig, motion), 1)[0] * (1, 1, 0)
    root = poses[:, 0, :3, 3]
    return pack.rig, replace(motion, travel=root - root[0] + times[:, None] * speed)


def with_noise(rig: Rig, motion: Motion, degrees: float, seconds: float = 0.1, seed: int = 0) -> Motion:
    """The take with errors of the local rotations that go on for `seconds`, and jitter of a third of them."""
    random, shape = np.random.default_rng(seed), (len(motion), len(rig.names), 3)
    slow = mean_over_time(bell(motion.times, seconds), random.normal(size=shape))
    error = np.radians(degrees) * (slow / slow.std() + random.normal(size=shape) / 3) / np.sqrt(3)
    local = global_to_local(rig.parents, motion.matrices) @ rotvec_to_matrix(error)
    return replace(motion_of_locals(rig, local, motion.times), travel=motion.travel)


def hopper(unit: float = 1.0) -> Rig:
    """A body one unit above the ground, on two stiff legs that end on it."""
    heads = unit * np.array([[0, 0, 1.0], [-0.2, 0, 1], [-0.2, 0, 0.5], [0.2, 0, 1], [0.2, 0, 0.5]])
    tails = unit * np.array([[0, 0, 1.6], [-0.2, 0, 0.5], [-0.2, 0, 0], [0.2, 0, 0.5], [0.2, 0, 0]])
    return rig_of(("body", "thigh.L", "shin.L", "thigh.R", "shin.R"), [-1, 0, 1, 0, 3], heads, tails)

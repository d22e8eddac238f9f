"""A small pack that the tests of training share."""

from collections.abc import Callable

import numpy as np
import pytest
from anyrig.backend.geometry.rotations import axis_angle_to_matrix
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import forward_kinematics
from anyrig.backend.train.packs.rig_packs import Pack


def _make_pack(name: str = "lizard", clips: int = 5, frames: int = 9) -> Pack:
    """A body with a tail and two legs that swing; joint 3, the tail's end, keeps its local rotation."""
    heads = np.array([[0, 0, 1.0], [0, -0.6, 1], [0, 0.5, 1], [0, 1.0, 1], [0.2, 0, 0.9], [-0.2, 0, 0.9]])
    parents = np.array([-1, 0, 0, 2, 0, 0])
    rest = np.tile(np.eye(4), (6, 1, 1))
    rest[:, :3, 3] = heads
    tails = heads + np.array([[0, 0, 0.1], [0, -0.4, 0.1], [0, 0.5, 0], [0, 0.4, 0], [0, 0, -0.8], [0, 0, -0.8]])
    nothing = np.zeros(6, bool)
    rig = Rig(name, tuple(f"bone {i}" for i in range(6)), parents, rest, tails, nothing, nothing)
    moves = {}
    for clip in range(clips):
        angle = np.sin(np.arange(frames)[:, None] * 0.7 + np.arange(6) + clip) * 0.6
        angle[:, (0, 3)] = 0.2 * clip, 0.0
        local = axis_angle_to_matrix(np.broadcast_to([1.0, 0, 0], (frames, 6, 3)), angle)
        rotations, places = forward_kinematics(parents, heads - heads[np.maximum(parents, 0)], local)
        pose = np.tile(np.eye(4, dtype=np.float32), (frames, 6, 1, 1))
        pose[..., :3, :3], pose[..., :3, 3] = rotations, places + heads[0]
        moves[f"move {clip}"] = pose
    return Pack(name, rig, capsules(rig, 1500), moves, 24.0)


@pytest.fixture(scope="session")
def make_pack() -> Callable[..., Pack]:
    """make_pack(name, clips, frames)."""
    return _make_pack

"""Finds training clips that are near copies of test clips, by the comparison that the splits were made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array, geodesic_angle
from ...rig.joint_names import clean_name
from ...rig.rig import Rig
from ...rig.skeleton import global_to_local, pose_to_network
from ..packs.rig_packs import Pack
from ..packs.splits import split_packs

LIMIT = 3.0  # degrees: the limit that the splits were made with
FRAMES = 32  # compared of each clip
SHARED = (0.6, 0.3)  # shares of the smaller and of the larger rig's joints that must have the name of a joint in the other


@dataclass(frozen=True)
class Leak:
    """A training clip whose distance from a test clip is `degrees`."""

    file: str
    clip: str
    test_file: str
    test_clip: str
    degrees: float


def find_leaks(train: Sequence[Pack], packs: Sequence[Pack], splits: Path, limit: float = LIMIT) -> list[Leak]:
    """Clips of `train` that are less than `limit` degrees from a test clip of `splits`, nearest first. `packs` hold the test clips.

    The distance of two clips is the mean angle between the local rotations of the joints that their rigs share, at 32 frames spread
    evenly over each clip, so that their speed does not matter. As a loop may begin anywhere, it is the least over 32 starting points in
    the training clip. Rigs without shared joints (see pair_joints) are not compared, and no clip is compared with itself.
    Raises UserError as `split_packs` does.
    """
    parts = split_packs(packs, splits)
    found = []
    for test in (*parts["seen"], *parts["unseen"], *parts["new_motions"]):
        frames = {clip: _sample_rotations(test.rig, poses) for clip, poses in test.clips.items()}
        for pack in train:
            pairs = pair_joints(pack.rig, test.rig)
            if len(pairs):
                found += [leak for leak in _compare_packs(pack, test, frames, pairs) if leak.degrees < limit]
    return sorted(found, key=lambda leak: leak.degrees)


def _compare_packs(pack: Pack, test: Pack, frames: dict[str, Array], pairs: NDArray[np.int64]) -> list[Leak]:
    """The distance of every clip of `pack` from every test clip. frames: the test clips' sampled rotations."""
    rows = []
    for clip, poses in pack.clips.items():
        mine = _sample_rotations(pack.rig, poses)[:, pairs[:, 0]]
        for test_clip, theirs in frames.items():
            if (pack.name, clip) != (test.name, test_clip):
                rows.append(Leak(pack.name, clip, test.name, test_clip, distance(mine, theirs[:, pairs[:, 1]])))
    return rows


def distance(left: Array, right: Array) -> float:
    """Rotations (S, J, 3, 3) each -> the least mean angle in degrees over all cyclic shifts of the first."""
    return float(min(np.degrees(geodesic_angle(np.roll(left, shift, axis=0), right)).mean() for shift in range(len(left))))


def pair_joints(left: Rig, right: Rig) -> NDArray[np.int64]:
    """Pairs (N, 2) of the joints that two rigs share; N = 0 if they cannot be compared.

    Joints are paired by cleaned names if most of the smaller rig's joints and a third of the larger one's have a partner: three joints of
    thirty may have the same name by chance. Otherwise they are paired by order if both rigs are the same tree.
    """
    indices = {name: joint for joint, name in enumerate(_joint_keys(right))}
    pairs = [(joint, indices[name]) for joint, name in enumerate(_joint_keys(left)) if name in indices]
    least, most = sorted((len(left.names), len(right.names)))
    if len(pairs) >= max(3, SHARED[0] * least, SHARED[1] * most):
        return np.array(pairs)
    if np.array_equal(left.parents, right.parents):
        return np.tile(np.arange(len(left.parents))[:, None], (1, 2))
    return np.zeros((0, 2), np.int64)


def _joint_keys(rig: Rig) -> list[str]:
    """The cleaned names with their digits, or the names as they are where cleaning makes two equal."""
    clean = [(clean_name(name) + "".join(filter(str.isdigit, name))).lower() or name for name in rig.names]
    return [key if clean.count(key) == 1 else name for key, name in zip(clean, rig.names, strict=True)]


def _sample_rotations(rig: Rig, poses: NDArray[np.floating]) -> Array:
    """Poses (F, J, 4, 4) -> local rotations (32, J, 3, 3) at frames spread over the clip as over a loop."""
    frames = np.arange(FRAMES) * len(poses) // FRAMES
    rotations, _ = pose_to_network(rig, poses[frames].astype(np.float64), tips=False)
    return global_to_local(rig.parents, rotations)

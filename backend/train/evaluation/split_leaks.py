"""Which training clips are near copies of test clips: the comparison that made the splits, for data that is added to them."""

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
SHOTS = 32
SHARED = (0.6, 0.3)  # of the smaller and of the larger rig's joints, that must have a namesake


@dataclass(frozen=True)
class Leak:
    """A training clip that comes within `degrees` of a test clip."""

    file: str
    clip: str
    test_file: str
    test_clip: str
    degrees: float


def leaks(train: Sequence[Pack], packs: Sequence[Pack], splits: Path, limit: float = LIMIT) -> list[Leak]:
    """Clips of `train` within `limit` degrees of a seen or unseen test clip; `packs` hold the clips that `splits` names.

    Two clips are compared at 32 frames spread evenly over each, so that their pace does not matter, by the mean angle between
    the local rotations (turns away from rest, root included, network axes) of the joints that the rigs have in common. Every
    one of 32 starting points in the training clip is tried, as loops may begin anywhere. Joints are paired by their names (as
    names.clean_name reads them) if most of the smaller rig's and a third of the larger one's have a namesake, as three joints
    of thirty may be alike by chance; otherwise by their order if both rigs are the same tree. Other rigs are passed over.
    A clip is not compared with itself (same file, same clip). Raises UserError as `split_packs` does.
    """
    parts = split_packs(packs, splits)
    found = []
    for test in (*parts["seen"], *parts["unseen"]):
        shots = {clip: _shots(test.rig, poses) for clip, poses in test.clips.items()}
        for pack in train:
            pairs = pair_joints(pack.rig, test.rig)
            if len(pairs):
                found += [leak for leak in _compare(pack, test, shots, pairs) if leak.degrees < limit]
    return sorted(found, key=lambda leak: leak.degrees)


def _compare(pack: Pack, test: Pack, shots: dict[str, Array], pairs: NDArray[np.int64]) -> list[Leak]:
    """Every clip of `pack` with every test clip: their distances, whatever they are."""
    rows = []
    for clip, poses in pack.clips.items():
        mine = _shots(pack.rig, poses)[:, pairs[:, 0]]
        for test_clip, theirs in shots.items():
            if (pack.name, clip) != (test.name, test_clip):
                rows.append(Leak(pack.name, clip, test.name, test_clip, distance(mine, theirs[:, pairs[:, 1]])))
    return rows


def distance(left: Array, right: Array) -> float:
    """Rotations (S, J, 3, 3) each -> degrees: the least mean angle over the cyclic shifts of the first."""
    return float(min(np.degrees(geodesic_angle(np.roll(left, shift, axis=0), right)).mean() for shift in range(len(left))))


def pair_joints(left: Rig, right: Rig) -> NDArray[np.int64]:
    """(N, 2) joints of two rigs that stand for each other; N = 0 if the rigs cannot be compared."""
    places = {name: joint for joint, name in enumerate(_keys(right))}
    pairs = [(joint, places[name]) for joint, name in enumerate(_keys(left)) if name in places]
    least, most = sorted((len(left.names), len(right.names)))
    if len(pairs) >= max(3, SHARED[0] * least, SHARED[1] * most):
        return np.array(pairs)
    if np.array_equal(left.parents, right.parents):
        return np.tile(np.arange(len(left.parents))[:, None], (1, 2))
    return np.zeros((0, 2), np.int64)


def _keys(rig: Rig) -> list[str]:
    """Clean names with their digits; a name that occurs twice once cleaned keeps its text."""
    clean = [(clean_name(name) + "".join(filter(str.isdigit, name))).lower() or name for name in rig.names]
    return [key if clean.count(key) == 1 else name for key, name in zip(clean, rig.names, strict=True)]


def _shots(rig: Rig, poses: NDArray[np.floating]) -> Array:
    """(F, J, 4, 4) -> (32, J, 3, 3) local rotations at frames spread over the clip as over a loop."""
    frames = np.arange(SHOTS) * len(poses) // SHOTS
    rotations, _ = pose_to_network(rig, poses[frames].astype(np.float64), tips=False)
    return global_to_local(rig.parents, rotations)

"""Exchanges the motion of a left and a right limb, where a capture took one for the other. numpy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.rotations import continuous, matrix_to_quaternion
from ..rig.limb_pairs import LimbPair
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global
from .motion import Motion


def swap_sides(motion: Motion, rig: Rig, pair: LimbPair, frames: tuple[int, int] | None = None) -> Motion:
    """The take in which each limb of the pair does, mirrored, what the other did. Swapping twice gives the take back.

    frames: the first and one past the last to swap; None for all. Pins go along with their poses, and the raw take is swapped as well,
    so that refining starts from there. All that does not hang on the two limbs stays as it is.
    """
    start, stop = frames or (0, len(motion))
    local = global_to_local(rig.parents, motion.matrices)
    positions = _swapped_positions(motion, rig, pair, start, stop)
    # The rest pose is its own mirror image under S = 1 - 2 n n^T. A limb with local rotations L looks in this mirror as the other
    # limb does with S L S.
    mirror = np.eye(3) - 2 * np.outer(pair.normal, pair.normal)
    local[start:stop, pair.joints] = (mirror @ local[:, pair.others] @ mirror)[start:stop]
    rotations, confidence = np.array(motion.rotations), np.array(motion.confidence)
    limbs = pair.sides.any(0)
    rotations[start:stop, limbs] = matrix_to_quaternion(local_to_global(rig.parents, local)[start:stop, limbs])
    rotations[:, limbs] = continuous(rotations[:, limbs])
    confidence[start:stop, pair.joints] = motion.confidence[start:stop, pair.others]
    raw = None if motion.raw is None else swap_sides(motion.raw, rig, pair, frames)
    tracks = {"rotations": rotations, "positions": positions, "confidence": confidence}
    return replace(motion, raw=raw, pins=_swapped_pins(motion, pair, start, stop), **tracks)


def _swapped_positions(motion: Motion, rig: Rig, pair: LimbPair, start: int, stop: int) -> Array:
    """(T, J, 3) the positions, in which the limbs are mirrored in the frame of the joint that each hangs on.

    With the limb's parent at p, rotated by G, and S as above: a joint at p' + G' x becomes its counterpart at p + G S x.
    """
    positions, matrices = np.array(motion.positions), motion.matrices
    mirror = np.eye(3) - 2 * np.outer(pair.normal, pair.normal)
    parents = rig.parents[list(pair.roots)]
    for side, parent, theirs in zip(pair.sides, parents, parents[::-1], strict=True):
        own = side[pair.joints]
        there = motion.positions[:, pair.others[own]] - motion.positions[:, theirs : theirs + 1]
        turn = matrices[:, parent] @ mirror @ np.swapaxes(matrices[:, theirs], -1, -2)
        moved = motion.positions[:, parent : parent + 1] + there @ np.swapaxes(turn, -1, -2)
        positions[start:stop, pair.joints[own]] = moved[start:stop]
    return positions


def _swapped_pins(motion: Motion, pair: LimbPair, start: int, stop: int) -> NDArray[np.int64]:
    image = np.arange(len(motion.names))
    image[pair.joints] = pair.others
    pins = np.array(motion.pins)
    inside = (pins[:, 0] >= start) & (pins[:, 0] < stop)
    pins[inside, 1] = image[pins[inside, 1]]
    return pins

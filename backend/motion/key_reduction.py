"""Fewest keys for a channel: cubic Bezier curves with fitted handles that stay under a stated error on every frame.

Handles lie a third of the way to the next key in time. Blender's Bezier curves are then cubics in time, so they are evaluated here as there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from ..arrays import Array
from ..rig.rig import Rig
from ..rig.skeleton import ancestor_mask, leaf_joints
from .feet import size_of

ErrorOf = Callable[[Array, Array], Array]  # fitted and wanted values (F, C) -> (F,) error
TIGHT = 1e-9  # of a tolerance: rounding


@dataclass(frozen=True, eq=False)
class Keys:
    """K keys of C curves that share their frames. frames: (K,). values: (K, C). slopes: (K, C) per frame, the same on both sides."""

    frames: Array
    values: Array
    slopes: Array

    def __len__(self) -> int:
        return len(self.frames)

    def handles(self) -> tuple[Array, Array]:
        """(K, C, 2) frame and value of the handles to the left and to the right."""
        gaps = np.diff(self.frames) / 3
        before = np.concatenate([gaps[:1], gaps]) if len(gaps) else np.ones(1)
        after = np.concatenate([gaps, gaps[-1:]]) if len(gaps) else np.ones(1)
        sides = []
        for shift in (-before, after):
            frames = np.broadcast_to((self.frames + shift)[:, None], self.values.shape)
            sides.append(np.stack([frames, self.values + self.slopes * shift[:, None]], axis=-1))
        return sides[0], sides[1]

    def at(self, frames: Array) -> Array:
        """The curves (F, C) at these frames, as Blender evaluates them; held before the first key and after the last."""
        if len(self) == 1:
            return np.repeat(self.values, len(frames), axis=0)
        value, slope = _basis(self.frames, np.clip(frames, self.frames[0], self.frames[-1]))
        return value @ self.values + slope @ self.slopes


def reduced(frames: Array, values: Array, error_of: ErrorOf, tolerance: float) -> Keys:
    """The fewest keys, as far as a greedy search finds them, whose curves keep `error_of` at or under `tolerance` on all frames (F,).

    values: (F, C). Keys are on some of the frames, with the exact values. A tolerance of 0 keeps every key.
    """
    count = len(frames)
    if count < 3 or tolerance <= 0:
        slopes = np.gradient(values, frames, axis=0) if count > 1 else np.zeros_like(values)
        return Keys(frames, values, slopes)
    if error_of(np.repeat(values[:1], count, axis=0), values).max() <= tolerance:
        return Keys(frames[:1], values[:1], np.zeros_like(values[:1]))
    chosen = np.array([0, count - 1])
    while True:
        keys = _fitted(frames, values, chosen)
        errors = error_of(keys.at(frames), values)
        errors[chosen] = 0
        worst = _worst_between(errors, chosen, tolerance)
        if not len(worst):
            break
        chosen = np.union1d(chosen, worst)
    return _pruned(frames, values, error_of, tolerance, chosen)


def _worst_between(errors: Array, chosen: NDArray[np.int64], tolerance: float) -> NDArray[np.int64]:
    """The frame of greatest error between every two keys where it is over the tolerance."""
    found = []
    for first, last in zip(chosen[:-1], chosen[1:], strict=True):
        if last - first > 1:
            frame = first + 1 + int(np.argmax(errors[first + 1 : last]))
            if errors[frame] > tolerance:
                found.append(frame)
    return np.array(found, np.int64)


def _pruned(frames: Array, values: Array, error_of: ErrorOf, tolerance: float, chosen: NDArray[np.int64]) -> Keys:
    """Take away keys, the most needless first, as long as the tolerance holds."""
    keys = _fitted(frames, values, chosen)
    place = 1
    while place < len(chosen) - 1:
        fewer = np.delete(chosen, place)
        trial = _fitted(frames, values, fewer)
        if error_of(trial.at(frames), values).max() <= tolerance:
            chosen, keys = fewer, trial
        else:
            place += 1
    return keys


def _fitted(frames: Array, values: Array, chosen: NDArray[np.int64]) -> Keys:
    """Keys on the chosen frames with the slopes that fit all values best, in the sense of least squares."""
    keys, held = frames[chosen], values[chosen]
    value, slope = _basis(keys, frames)
    rest = values - value @ held
    # a slope touches the gaps to either side alone: the normal equations have three diagonals
    product = slope.T @ slope
    weight = 1e-6 * max(float(np.trace(product)) / len(keys), 1e-12)
    bands = np.zeros((2, len(keys)))
    bands[1] = np.diagonal(product) + weight
    bands[0, 1:] = np.diagonal(product, 1)
    # keys on neighbouring frames leave slopes open: then they are those of the values
    start = np.gradient(values, frames, axis=0)[chosen]
    slopes = solveh_banded(bands, slope.T @ rest + weight * start)
    return Keys(keys, held, slopes)


def _basis(keys: Array, frames: Array) -> tuple[Array, Array]:
    """(F, K) how much the values and the slopes of keys count at each frame: cubic Hermite polynomials."""
    first = np.clip(np.searchsorted(keys, frames, side="right") - 1, 0, len(keys) - 2)
    gap = keys[first + 1] - keys[first]
    u = (frames - keys[first]) / gap
    value, slope = np.zeros((2, len(frames), len(keys)))
    rows = np.arange(len(frames))
    value[rows, first], value[rows, first + 1] = (1 + 2 * u) * (1 - u) ** 2, u * u * (3 - 2 * u)
    slope[rows, first], slope[rows, first + 1] = gap * u * (1 - u) ** 2, gap * u * u * (u - 1)
    return value, slope


def quaternion_error(fitted: Array, wanted: Array) -> Array:
    """(F, 4) wxyz of any length but zero -> (F,) radians between the rotations."""
    left, right = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (fitted, wanted))
    side = np.where((left * right).sum(-1, keepdims=True) < 0, -1, 1)
    return 4 * np.arctan2(np.linalg.norm(left - side * right, axis=-1), np.linalg.norm(left + side * right, axis=-1))


def euler_error(fitted: Array, wanted: Array) -> Array:
    """(F, 3) radians -> (F,) a bound of the angle between the rotations: each of three rotations about an axis adds its own difference."""
    return np.abs(fitted - wanted).sum(-1)


def axis_angle_error(fitted: Array, wanted: Array) -> Array:
    """(F, 4) angle and axis -> (F,) a bound of the angle between the rotations: the distance of the rotation vectors."""
    vectors = [
        each[:, :1] * each[:, 1:] / np.maximum(np.linalg.norm(each[:, 1:], axis=-1, keepdims=True), 1e-12)
        for each in (fitted, wanted)
    ]
    return np.linalg.norm(vectors[0] - vectors[1], axis=-1)


def distance(fitted: Array, wanted: Array) -> Array:
    """(F, C) -> (F,) distances."""
    return np.linalg.norm(fitted - wanted, axis=-1)


def joint_tolerances(rig: Rig, degrees: float, percent: float) -> Array:
    """(J,) radians that each joint's local rotation may be off, so that it is never off by more than `degrees`, and no joint or bone's end
    by more than `percent` of the rig's size from where the root puts it.

    An error of a_i radians at joint i moves an end at the distance r_i by at most a_i r_i, and errors along a chain of n joints add up:
    a_i = p / (n r_i) holds for sure. r_i is the length of the chain from the joint to the end.
    """
    tolerance = np.full(len(rig.names), np.radians(degrees))
    above, allowed = ancestor_mask(rig.parents), percent / 100 * size_of(rig)
    lengths = np.linalg.norm(rig.heads - rig.heads[np.maximum(rig.parents, 0)], axis=1)
    for leaf in leaf_joints(rig.parents):
        chain = np.flatnonzero(above[leaf])
        steps = np.append(lengths[chain[1:]], np.linalg.norm(rig.tails[leaf] - rig.heads[leaf]))
        reach = np.maximum(np.cumsum(steps[::-1])[::-1], 1e-12)
        tolerance[chain] = np.minimum(tolerance[chain], allowed / (len(chain) * reach))
    return tolerance * (1 - TIGHT)

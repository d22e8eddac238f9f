"""Smoothing without delay: jitter goes, impacts keep their peak. All widths are in seconds, so the frame rate does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from ..arrays import Array
from ..errors import UserError
from ..geometry.rotations import (
    continuous,
    matrix_to_quaternion,
    matrix_to_rotvec,
    quaternion_to_matrix,
    rotvec_to_matrix,
    slerp,
)
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global, network_axes
from .motion import Motion, fk_heads

REACH = 4.5  # standard deviations at which a bell is cut off
NARROW = 0.5  # width of the narrower bell, of the wider one
DOUBT = 2.0  # how many times its usual size jitter may have
CALM = 1e-9  # radians or units: less than this is no movement


class Bells(NamedTuple):
    """Operators (T, T). near, far: the narrower and the wider mean. window: a mean that is nowhere negative, for energies."""

    near: csr_matrix
    far: csr_matrix
    window: csr_matrix


def bell(times: Array, width: float) -> csr_matrix:
    """(T, T) the operator that takes a mean over time with a bell of `width` seconds (standard deviation). times: (T,), increasing.

    Every row sums to 1. A frame counts by the time that it stands for, so frames at uneven distances do not pull.
    """
    count = len(times)
    if width <= 0 or count < 2:
        return _identity(count)
    first = np.searchsorted(times, times - REACH * width, side="left")
    stop = np.searchsorted(times, times + REACH * width, side="right")
    lengths = stop - first
    rows = np.repeat(np.arange(count), lengths)
    columns = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - first, lengths)
    gaps = np.diff(times)
    spans = (np.concatenate([gaps[:1], gaps]) + np.concatenate([gaps, gaps[-1:]])) / 2
    weights = np.exp(-0.5 * ((times[columns] - times[rows]) / width) ** 2) * spans[columns]
    weights /= np.bincount(rows, weights, count)[rows]
    return csr_matrix((weights, (rows, columns)), shape=(count, count))


def mean_over_time(operator: csr_matrix, values: Array) -> Array:
    """Apply an operator of `bell` to values (T, ...)."""
    return np.asarray(operator @ values.reshape(len(values), -1)).reshape(values.shape)


def trend(times: Array, seconds: float, values: Array, weights: Array | None = None) -> Array:
    """Values (T, C) smoothed with a bell of `seconds`, whatever they are: movements at even speed stay as they are up to the ends.

    weights: (T,) how much each frame counts, 0..1.
    """
    operator, weights = bell(times, seconds), np.ones(len(times)) if weights is None else np.maximum(weights, 1e-3)
    once = _line(operator, times, values, weights)
    return once + _line(operator, times, values - once, weights)


def _line(operator: csr_matrix, times: Array, values: Array, weights: Array) -> Array:
    """The straight line fitted to the values (T, C) around each time, at that time."""
    # moments of time around each frame: sum w, sum w t, sum w t^2, with t from the frame
    total, first, second = (mean_over_time(operator, weights * times**power) for power in range(3))
    spread = second - 2 * times * first + times**2 * total
    offset = first - times * total
    plain = mean_over_time(operator, weights[:, None] * values)
    leaning = mean_over_time(operator, (weights * times)[:, None] * values) - times[:, None] * plain
    scale = total * spread - offset**2
    line = (spread[:, None] * plain - offset[:, None] * leaning) / np.maximum(scale, 1e-300)[:, None]
    return np.where((scale > 1e-9 * total**2)[:, None], line, plain / total[:, None])


def smoothed(rig: Rig, motion: Motion, seconds: float, strength: float = 1.0, limbs: Mapping[str, float] | None = None) -> Motion:
    """The take without jitter: every joint's local rotation, the places of joints that translate, and the travel.

    seconds: width of the bell that jitter is averaged with; movements much slower than that pass as they are. Where a joint moves more than
    the jitter of the take explains, as in an impact, the bell gives way. strength: 0 leaves the take as it is, 1 takes the smooth one.
    limbs: factors of `seconds` by joint, which hold for all that hangs on it, unless it has a factor of its own.
    Raises UserError for a joint that the rig lacks.
    """
    factors = _factors(rig, limbs or {})
    if not strength or not seconds or len(motion) < 3:
        return motion
    local = global_to_local(rig.parents, motion.matrices)
    positions = np.array(motion.positions)
    lag = _lag(motion.times)
    for factor in np.unique(factors[factors > 0]):
        chosen = np.flatnonzero(factors == factor)
        bells = _bells(motion.times, seconds * factor)
        local[:, chosen] = _smooth_rotations(bells, local[:, chosen], lag, strength)
        placed = chosen[rig.translates[chosen]]
        positions[:, placed] += strength * (_smooth_places(bells, positions[:, placed], lag) - positions[:, placed])
    rotations = matrix_to_quaternion(local_to_global(rig.parents, local))
    changed = replace(motion, rotations=signed_as(motion.rotations, rotations), positions=positions)
    if len(motion.travel) and factors[0]:
        place = _smooth_places(_bells(motion.times, seconds * factors[0]), motion.travel[:, None], lag)[:, 0]
        changed = replace(changed, travel=motion.travel + strength * (place - motion.travel))
    return with_posed_positions(rig, changed)


def _bells(times: Array, seconds: float) -> Bells:
    """The bells, each applied to what it left out as well (twicing): slow movements then keep their extent to the fourth order."""
    near, far = bell(times, seconds * NARROW), bell(times, seconds)
    return Bells(csr_matrix(2 * near - near @ near), csr_matrix(2 * far - far @ far), near)


def with_posed_positions(rig: Rig, motion: Motion) -> Motion:
    """The take with the positions that its rotations give."""
    return replace(motion, positions=fk_heads(rig, motion) @ network_axes(rig))


def _factors(rig: Rig, limbs: Mapping[str, float]) -> Array:
    """(J,) the factor of each joint."""
    unknown = [name for name in limbs if name not in rig.names]
    if unknown:
        raise UserError(f"Rig '{rig.name}' has no bone '{unknown[0]}' to smooth: check the name.")
    factors = np.ones(len(rig.names))
    for joint, (name, parent) in enumerate(zip(rig.names, rig.parents, strict=True)):
        factors[joint] = limbs.get(name, factors[parent] if parent >= 0 else 1.0)
    return factors


def _smooth_rotations(bells: Bells, local: Array, lag: int, strength: float) -> Array:
    """Local rotations (T, J, 3, 3) -> smooth ones. Means are those of unit quaternions, put back on the sphere."""
    quaternions = continuous(matrix_to_quaternion(local))
    near, far = (quaternion_to_matrix(mean_over_time(each, quaternions)) for each in bells[:2])
    # local = far exp(middle) exp(fine)
    middle = matrix_to_rotvec(np.swapaxes(far, -1, -2) @ near)
    fine = matrix_to_rotvec(np.swapaxes(near, -1, -2) @ local)
    # a small rotation moves its quaternion by half its angle
    keep_middle, keep_fine = _kept(bells, middle, fine, 4 * _jitter(quaternions, lag))
    smooth = far @ rotvec_to_matrix(keep_middle * middle) @ rotvec_to_matrix(keep_fine * fine)
    if strength == 1:
        return smooth
    return quaternion_to_matrix(slerp(quaternions, matrix_to_quaternion(smooth), strength))


def _smooth_places(bells: Bells, places: Array, lag: int) -> Array:
    """Places (T, J, 3) -> smooth ones, as `_smooth_rotations`."""
    near, far = (mean_over_time(each, places) for each in bells[:2])
    keep_middle, keep_fine = _kept(bells, near - far, places - near, _jitter(places, lag))
    return far + keep_middle * (near - far) + keep_fine * (places - near)


def _lag(times: Array) -> int:
    """The frames that jitter is told over: those of a 24th of a second."""
    return max(1, round(1 / 24 / float(np.median(np.diff(times)))))


def _jitter(values: Array, lag: int) -> Array:
    """(T, J, C) -> (J,) the variance of what changes from frame to frame without sense, summed over components.

    Third differences of a movement nearly vanish; those of white noise have 1 + 9 + 9 + 1 = 20 times its variance.
    """
    if len(values) <= 3 * lag:
        return np.zeros(values.shape[1])
    third = values[3 * lag :] - 3 * values[2 * lag : -lag] + 3 * values[lag : -2 * lag] - values[: -3 * lag]
    return np.median((third**2).sum(-1), axis=0) / 20


def _kept(bells: Bells, middle: Array, fine: Array, jitter: Array) -> tuple[Array, Array]:
    """How much of the details (T, J, 3) of two sizes is movement and no jitter (variance, (J,)): (T, J, 1), 0..1.

    White noise has a part in either that follows from the bells. Details of more energy E than the DOUBT-fold of that, N, are kept by
    1 - N / E, as in spectral subtraction. A short bell over E keeps whole movements, and treats both directions of time alike.
    """
    near, far, window = bells
    shares = _energy(near - far), _energy(_identity(near.shape[0]) - near)
    kept = []
    for detail, share in zip((middle, fine), shares, strict=True):
        energy = mean_over_time(window, (detail**2).sum(-1))
        kept.append(np.clip(1 - DOUBT**2 * share * jitter / np.maximum(energy, CALM**2), 0, 1)[..., None])
    return kept[0], kept[1]


def _identity(count: int) -> csr_matrix:
    return csr_matrix((np.ones(count), (np.arange(count), np.arange(count))), shape=(count, count))


def _energy(operator: csr_matrix) -> float:
    """How much of the energy of white noise the operator lets pass, a mean over the frames."""
    return float(operator.multiply(operator).sum() / operator.shape[0])


def signed_as(before: Array, after: Array) -> Array:
    """Quaternions (T, J, 4) in the sign in which they are nearest to those before on the first frame, and continuous."""
    flips = np.where((before[:1] * after[:1]).sum(-1, keepdims=True) < 0, -1, 1)
    return continuous(after * flips)

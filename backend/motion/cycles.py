"""Cycles: the period of a gait, one clean loop from the mean of its cycles, and hidden limbs filled in from the other side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.rotations import continuous, matrix_to_quaternion, quaternion_to_matrix, slerp
from ..rig.mirror import Mirror, mirror_of
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global, network_axes
from .heading import headings, turned
from .motion import Motion, sample
from .smoothing import signed_as, with_posed_positions

SHORTEST = 0.25  # seconds of a cycle
REPEATS = 1.15  # a take must hold so many cycles at least
ALIKE = 0.25  # of what a pose differs from any other, on the mean: cycles that differ by more are none
BETTER = 0.15  # a longer period must be better by so much, or it is only a multiple
HIDDEN = 0.6  # a joint is hidden where its confidence is less than this share of its partner's
FPS = 60.0  # poses are compared at this rate


def find_period(rig: Rig, motion: Motion) -> float | None:
    """Seconds after which the pose comes back, whatever the heading; None if it does not."""
    length = float(motion.times[-1] - motion.times[0])
    longest = length / REPEATS
    if longest < SHORTEST:
        return None
    count = int(length * FPS) + 1
    times = np.linspace(motion.times[0], motion.times[-1], count)
    rotations, _ = sample(turned(rig, motion, -headings(rig, motion)), times)
    poses = quaternion_to_matrix(rotations).reshape(count, -1)
    spread = 2 * poses.var(0).sum()
    if spread < 1e-6 * len(rig.names):
        return None
    step = length / (count - 1)
    lags = np.arange(int(np.ceil(SHORTEST / step)), int(longest / step) + 1)
    unlike = _differences(poses, lags) / spread
    inner = np.flatnonzero((unlike[1:-1] <= unlike[:-2]) & (unlike[1:-1] <= unlike[2:])) + 1
    if not len(inner) or unlike[inner].min() > ALIKE:
        return None
    best = inner[unlike[inner] <= unlike[inner].min() + BETTER * ALIKE][0]
    # the lowest point of the parabola through three lags
    before, here, after = unlike[best - 1 : best + 2]
    bend = before - 2 * here + after
    return float((lags[best] + (0.5 * (before - after) / bend if bend > 1e-12 else 0.0)) * step)


def _differences(poses: Array, lags: NDArray[np.int64]) -> Array:
    """(L,) the mean of |x(t + lag) - x(t)|^2 over poses x (T, C): the squares, less twice the autocorrelation, which is found by FFT."""
    centred, count = poses - poses.mean(0), len(poses)
    spectrum = scipy.fft.rfft(centred, 2 * count, axis=0)
    together = scipy.fft.irfft((np.abs(spectrum) ** 2).sum(1), 2 * count)[lags]
    squares = np.concatenate([[0.0], np.cumsum((centred**2).sum(1))])
    apart = squares[count - lags] + squares[count] - squares[lags]
    return (apart - 2 * together) / (count - lags)


def one_loop(rig: Rig, motion: Motion, period: float | None = None) -> Motion:
    """One cycle as the mean of all cycles of the take, whose last frame is the first one again; the take itself if nothing repeats.

    Cycles count less toward the ends of the take, so that none of them begins or ends within the loop. The travel of a loop is the mean one
    a period plus what comes back in each, and its confidence that of the cycles. Contacts are to be found again.
    period: seconds; None finds it.
    """
    period = find_period(rig, motion) if period is None else period
    if period is None:
        return motion
    spacing = float(np.median(np.diff(motion.times)))
    count = max(2, round(period / spacing)) + 1
    phases = np.linspace(0, period, count)
    first, last = float(motion.times[0]), float(motion.times[-1])
    fade = min(period, last - first - period) / 2 + 1e-9
    local = continuous(matrix_to_quaternion(global_to_local(rig.parents, motion.matrices)))
    tracks = {"positions": motion.positions, "confidence": motion.confidence, "boxes": motion.boxes, "local": local}
    pace = np.zeros(3)
    if len(motion.travel):
        seconds = motion.times - motion.times.mean()
        pace = (seconds[:, None] * (motion.travel - motion.travel.mean(0))).sum(0) / (seconds**2).sum()
        tracks["travel"] = motion.travel - motion.times[:, None] * pace
    means = {key: np.zeros((count, *values.shape[1:])) for key, values in tracks.items()}
    total = np.zeros(count)
    for cycle in range(int((last - first) / period) + 1):
        times = first + phases + cycle * period
        share = np.clip(np.minimum(times - first, last - times) / fade, 0, 1) + 1e-9 * ((times >= first) & (times <= last))
        total += share
        for key, values in tracks.items():
            means[key] += share.reshape(-1, *[1] * (values.ndim - 1)) * _at(motion.times, values, times)
    # the end of a cycle is the beginning of the next: both are the mean of what is known of either
    for mean in (total, *means.values()):
        mean[0] = mean[-1] = mean[0] + mean[-1]
    means = {key: mean / total.reshape(-1, *[1] * (mean.ndim - 1)) for key, mean in means.items()}
    rotations = matrix_to_quaternion(local_to_global(rig.parents, quaternion_to_matrix(means.pop("local"))))
    travel = means.pop("travel") + phases[:, None] * pace if len(motion.travel) else np.zeros((0, 3))
    about = {**motion.provenance, "cycle": {"period": period, "cycles": (last - first) / period}}
    loop = Motion(rig.names, phases, signed_as(motion.rotations[:1], rotations), **means, provenance=about)
    return with_posed_positions(rig, replace(loop, travel=travel - travel[:1] if len(travel) else travel))


def _at(times: Array, values: Array, wanted: Array) -> Array:
    """Values (T, ...) at the wanted times, linearly; quaternions of one sign are put back on the sphere by the mean that follows."""
    before = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, len(times) - 2)
    weight = np.clip((wanted - times[before]) / (times[before + 1] - times[before]), 0, 1).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] * (1 - weight) + values[before + 1] * weight


def fill_hidden(rig: Rig, motion: Motion, strength: float = 1.0) -> Motion:
    """The take whose hidden joints move as their partners on the other side did half a period before.

    A joint is hidden as far as its confidence is much less than its partner's. Nothing changes unless the take repeats itself, and the joints
    that are seen do mirror each other half a period apart. strength: 0 leaves the take as it is.
    """
    mirror = mirror_of(rig) if strength else None
    if mirror is None:
        return motion
    sure, joints = motion.confidence.mean(0), np.arange(len(rig.names))
    sides = np.flatnonzero((mirror.partner >= 0) & (mirror.partner != joints) & ~rig.static)
    hidden = sides[sure[sides] < HIDDEN * sure[mirror.partner[sides]]]
    period = find_period(rig, motion) if len(hidden) else None
    if period is None:
        return motion
    axes = network_axes(rig)
    local = global_to_local(rig.parents, axes @ motion.matrices @ axes.T)
    other = _from_the_other_side(local, mirror, motion, period)
    middle = np.setdiff1d(np.flatnonzero(mirror.partner > 0), sides)
    seen = np.union1d(np.setdiff1d(sides, np.union1d(hidden, mirror.partner[hidden])), middle)
    if not _mirrored(local, other, seen):
        return motion
    quaternions = matrix_to_quaternion(local)
    filled = slerp(quaternions[:, hidden], matrix_to_quaternion(other[:, hidden]), strength)
    local[:, hidden] = quaternion_to_matrix(filled)
    rotations = matrix_to_quaternion(axes.T @ local_to_global(rig.parents, local) @ axes)
    return with_posed_positions(rig, replace(motion, rotations=signed_as(motion.rotations, rotations)))


def _from_the_other_side(local: Array, mirror: Mirror, motion: Motion, period: float) -> Array:
    """Local rotations (T, J, 3, 3) of each joint's partner half a period before, or after where there is no before, mirrored."""
    quaternions = continuous(matrix_to_quaternion(local))
    times = motion.times - period / 2
    times = np.where(times < motion.times[0], times + period, times)
    shifted = quaternion_to_matrix(_at(motion.times, quaternions, times))
    # the mirror image of a rotation L is S L S, with the reflection S = 1 - 2 a a^T
    reflection = np.eye(3) - 2 * np.outer(mirror.across, mirror.across)
    return reflection @ shifted[:, np.maximum(mirror.partner, 0)] @ reflection


def _mirrored(local: Array, other: Array, seen: Array) -> bool:
    """Whether the joints that are seen move as those of the other side half a period before; with none to compare, they are believed to."""
    if not len(seen):
        return True
    apart = ((local - other)[:, seen] ** 2).sum((2, 3)).mean(0)
    spread = 2 * local[:, seen].var(0).sum((1, 2))
    return bool(apart.sum() <= 2 * ALIKE * spread.sum() + 1e-6)

"""The feet of a rig, however many: the ends of limbs that touch the ground in a take, and when they stand on it.

Heights and speeds are measured in the network's axes (y up) and compared with the size of the rig.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.rotations import quaternion_to_matrix
from ..rig.rig import Rig
from ..rig.skeleton import ancestor_mask, leaf_joints, network_axes
from .motion import Motion, fk_heads
from .smoothing import bell, mean_over_time

# shares of the rig's size
TOES = 0.12  # ends that are nearer than that to the joint at which they part are one foot
LEVEL = 0.1  # feet stand at most that much above the lowest one
NEAR = (0.035, 0.07)  # heights above its level at which a foot comes to stand, and at which it is off the ground
SLOW = (0.25, 0.6)  # speeds, in sizes a second, likewise
BRISK = (0.2, 0.4)  # the same as shares of the foot's own high speed, for those that hurry
WANDER = 0.15  # a foot that goes further while it seems to stand is swinging slowly
# seconds
CALM = 0.03  # width of the bell that speeds are measured with
GAP = 0.06  # shorter times off the ground are none
SHORT = 0.08  # shorter times on the ground are none


@dataclass(frozen=True, eq=False)
class Limbs:
    """N limbs that end in something like a foot.

    feet: (N,) the joint of each foot. ends: for each, the leaves below it. chains: for each, the joints that move the foot alone, from the
    body to the foot.
    """

    feet: NDArray[np.int64]
    ends: tuple[NDArray[np.int64], ...]
    chains: tuple[NDArray[np.int64], ...]


def size_of(rig: Rig) -> float:
    """The height of the rig at rest, or half of its longest diagonal if it is flat, in its units."""
    points = np.concatenate([rig.heads, rig.tails]) @ network_axes(rig).T
    extent = np.ptp(points, axis=0)
    return float(max(extent[1], np.linalg.norm(extent) / 2, 1e-9))


def limbs_of(rig: Rig) -> Limbs:
    """The limbs of a rig, props left out. Ends of a limb that are close together, such as toes, count as one foot."""
    above, reach = ancestor_mask(rig.parents), TOES * size_of(rig)
    leaves = [leaf for leaf in leaf_joints(rig.parents) if not rig.props[leaf] and not rig.translates[leaf]]
    foot_of: dict[int, int] = {}
    for leaf in leaves:
        foot = joint = int(leaf)
        while rig.parents[joint] > 0:
            joint = int(rig.parents[joint])
            below = [each for each in leaves if above[each, joint]]
            if max(np.linalg.norm(rig.tails[each] - rig.heads[joint]) for each in below) > reach:
                break
            if len(below) > 1:
                foot = joint
        foot_of[int(leaf)] = foot
    feet = sorted(set(foot_of.values()))
    return _limbs(rig, feet, [np.array([leaf for leaf, foot in foot_of.items() if foot == each]) for each in feet])


def limbs_to(rig: Rig, feet: Iterable[int]) -> Limbs:
    """The limbs that end in these feet; the ends of all others count as parts of the body."""
    every, wanted = limbs_of(rig), set(feet)
    kept = [index for index, foot in enumerate(every.feet) if foot in wanted]
    return _limbs(rig, [int(every.feet[index]) for index in kept], [every.ends[index] for index in kept])


def _limbs(rig: Rig, feet: list[int], ends: list[NDArray[np.int64]]) -> Limbs:
    above = ancestor_mask(rig.parents)
    carried = above[feet].sum(0) if feet else np.zeros(len(rig.names))  # feet at or below each joint
    chains = tuple(np.flatnonzero(above[foot] & (carried == 1) & (np.arange(len(rig.names)) > 0)) for foot in feet)
    return Limbs(np.array(feet, np.int64), tuple(ends), chains)


def end_points(rig: Rig, motion: Motion, limbs: Limbs) -> Array:
    """(T, N, 3) the middle of each foot's ends, y up, units of the rig, with the take's travel; without, relative to the root."""
    axes = network_axes(rig)
    heads = fk_heads(rig, motion)
    if len(motion.travel):
        heads = heads + (motion.travel @ axes.T)[:, None]
    if not limbs.ends:
        return np.zeros((len(motion), 0, 3))
    ends = np.concatenate(limbs.ends)
    bones = (quaternion_to_matrix(motion.rotations[:, ends]) @ (rig.tails - rig.heads)[ends][..., None])[..., 0]
    tips, stops = heads[:, ends] + bones @ axes.T, np.cumsum([0, *map(len, limbs.ends)])
    return np.stack([tips[:, first:stop].mean(1) for first, stop in zip(stops[:-1], stops[1:], strict=True)], axis=1)


@dataclass(frozen=True, eq=False)
class Standing:
    """The N limbs that touch the ground in a take. levels: (N,) height of the ground below the end of each. points: (T, N, 3) of end_points."""

    limbs: Limbs
    levels: Array
    points: Array


def standing(rig: Rig, motion: Motion) -> Standing:
    """The limbs that touch the ground in the take. Without travel, heights are measured from the root."""
    limbs = limbs_of(rig)
    points = end_points(rig, motion, limbs)
    levels = np.quantile(points[..., 1], 0.1, axis=0)
    chosen = levels < levels.min(initial=np.inf) + LEVEL * size_of(rig)
    return Standing(limbs_to(rig, limbs.feet[chosen].tolist()), levels[chosen], points[:, chosen])


def travel_by_feet(rig: Rig, motion: Motion) -> Array:
    """(T, 3) the travel, in armature axes, with which the lowest feet stand still on the ground: for takes that were captured on the spot.

    A jump is not seen: one foot is on the ground at any time.
    """
    on_the_spot = replace(motion, travel=np.zeros((0, 3)))
    found = standing(rig, on_the_spot)
    if not len(found.levels) or len(motion) < 2:
        return np.zeros((len(motion), 3))
    size, times = size_of(rig), motion.times
    points = mean_over_time(bell(times, CALM / 2), found.points)
    heights = points[..., 1] - found.levels
    lowest = heights.min(1, keepdims=True)
    share = np.exp(-((heights - lowest) / (0.5 * NEAR[0] * size)))
    # the foot that goes back along with the ground is the one that stands: a foot that is low but swings counts less
    between = share[1:] * share[:-1]
    steps = -np.diff(points[..., [0, 2]], axis=0)
    step = (between[..., None] * steps).sum(1) / between.sum(1)[:, None]
    travel = np.zeros((len(motion), 3))
    travel[1:, [0, 2]] = np.cumsum(step, axis=0)
    travel[:, 1] = -(lowest[:, 0] - lowest[0, 0])
    return travel @ network_axes(rig)


def find_contacts(rig: Rig, motion: Motion) -> Array:
    """(N, 3) joint, first and last second of each time for which a foot stands on the ground.

    A foot comes to stand when it is slow and near the ground, and is off it when it is fast or high: between the two thresholds it stays
    what it was. A foot may be as slow as SLOW when it swings, in a slow walk: where a foot that seems to stand goes some way, only its own
    high speed says what is slow. A take without travel is judged as `travel_by_feet` would move it.
    """
    if len(motion) < 3:
        return np.zeros((0, 3))
    if not len(motion.travel):
        motion = replace(motion, travel=travel_by_feet(rig, motion))
    found = standing(rig, motion)
    if not len(found.levels):
        return np.zeros((0, 3))
    size, times = size_of(rig), motion.times
    points = mean_over_time(bell(times, CALM), found.points)
    speeds = np.linalg.norm(np.gradient(points, times, axis=0), axis=-1) / size
    heights = (points[..., 1] - found.levels) / size
    fast = np.quantile(speeds, 0.95, axis=0)
    rows = []
    for index, foot in enumerate(found.limbs.feet):
        for least in (SLOW, (0.0, 0.0)):
            slow = np.maximum(np.array(BRISK) * fast[index], least)
            surely, perhaps = ((speeds[:, index] < slow[k]) & (heights[:, index] < NEAR[k]) for k in range(2))
            runs = _runs(times, surely, perhaps)
            steady = [run for run in runs if _extent(points[run[0] : run[1] + 1, index]) < WANDER * size]
            if len(steady) == len(runs):
                break
        rows += [(float(foot), times[first], times[last]) for first, last in steady]
    return np.array(rows).reshape(-1, 3)


def _extent(points: Array) -> float:
    """How far points (T, 3) go from one another along the ground, at most about."""
    return float(np.linalg.norm(np.ptp(points[:, [0, 2]], axis=0)))


def _runs(times: Array, surely: NDArray[np.bool_], perhaps: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last frame of each run of `perhaps` with a frame that is `surely` (hysteresis); small gaps closed, short runs left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], perhaps, [False]]).astype(int)))
    runs = [(int(first), int(stop) - 1) for first, stop in edges.reshape(-1, 2) if surely[first:stop].any()]
    joined: list[tuple[int, int]] = []
    for first, last in runs:
        if joined and times[first] - times[joined[-1][1]] < GAP:
            first = joined.pop()[0]
        joined.append((first, last))
    return [(first, last) for first, last in joined if times[last] - times[first] >= SHORT]


def contacts_of(rig: Rig, motion: Motion) -> Array:
    """The contacts that the animator set, if there are any, else those that are found."""
    return motion.contacts if len(motion.contacts) else find_contacts(rig, motion)


def foot_slide(rig: Rig, motion: Motion, contacts: Array) -> float:
    """How far feet slide from one frame to the next while they stand, in percent of the rig's size; a mean. Needs the travel."""
    limbs = limbs_to(rig, contacts[:, 0].astype(int))
    points = end_points(rig, motion, limbs)
    place = {int(foot): index for index, foot in enumerate(limbs.feet)}
    steps = []
    for joint, first, last in contacts:
        inside = (motion.times >= first - 1e-9) & (motion.times <= last + 1e-9)
        steps.append(np.linalg.norm(np.diff(points[inside, place[int(joint)]], axis=0), axis=-1))
    whole = np.concatenate(steps) if steps else np.zeros(0)
    return 100 * float(whole.mean()) / size_of(rig) if len(whole) else 0.0

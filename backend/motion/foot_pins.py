"""Holds feet where they stand, by inverse kinematics over the limb that changes the pose as little as it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.rotations import matrix_to_quaternion, matrix_to_rotvec, rotvec_to_matrix
from ..rig.rig import Rig
from ..rig.skeleton import global_to_local, local_to_global, network_axes, skeleton_of
from .feet import Limbs, contacts_of, end_points, limbs_to, size_of, travel_by_feet
from .motion import Motion, fk_heads
from .smoothing import signed_as, with_posed_positions

FADE = 0.12  # seconds before and after a contact over which its correction fades
MOST = np.radians(25)  # how far a joint is rotated at most
ROUNDS = 8  # of the solver
SOLE = 0.35  # a foot that is shorter than this share of its limb keeps its orientation
BONES = 4  # a limb's last bones that are moved, at most


def pin_feet(rig: Rig, motion: Motion, strength: float = 1.0) -> Motion:
    """The take with its feet still while they stand on the ground (contacts_of), at the mean place of each contact and on the foot's level.

    strength: 0 leaves the take as it is, 1 takes all slide away, as far as no joint has to rotate by more than MOST. Needs no travel: a take
    on the spot is pinned as `travel_by_feet` would move it, and stays on the spot.
    """
    if not strength:
        return motion
    moving = motion if len(motion.travel) else replace(motion, travel=travel_by_feet(rig, motion))
    contacts = contacts_of(rig, moving)
    if not len(contacts):
        return motion
    limbs = limbs_to(rig, contacts[:, 0].astype(int))
    shifts = strength * _corrections(rig, moving, limbs, contacts)
    axes = network_axes(rig)
    rotations = axes @ motion.matrices @ axes.T
    local, heads = global_to_local(rig.parents, rotations), fk_heads(rig, motion)
    for index in np.flatnonzero(np.abs(shifts).max((0, 2)) > 1e-9 * size_of(rig)):
        frames = np.flatnonzero(np.abs(shifts[:, index]).max(1) > 0)
        local[frames] = _moved(rig, limbs, int(index), rotations[frames], local[frames], heads[frames], shifts[frames, index])
    quaternions = matrix_to_quaternion(axes.T @ local_to_global(rig.parents, local) @ axes)
    return with_posed_positions(rig, replace(motion, rotations=signed_as(motion.rotations, quaternions)))


def _corrections(rig: Rig, motion: Motion, limbs: Limbs, contacts: Array) -> Array:
    """(T, N, 3) how far each foot has to move, y up: to its place while it stands, fading before and after."""
    points, times = end_points(rig, motion, limbs), motion.times
    shifts = np.zeros_like(points)
    for index, foot in enumerate(limbs.feet):
        own = [(times >= first - 1e-9) & (times <= last + 1e-9) for joint, first, last in contacts if joint == foot]
        own = [inside for inside in own if inside.any()]
        if not own:
            continue
        level = np.median(points[np.any(own, axis=0), index, 1])
        total = np.zeros(len(times))
        for inside in own:
            goal = points[inside, index].mean(0)
            goal[1] = level
            first, last = np.flatnonzero(inside)[[0, -1]]
            outside = np.maximum(times[first] - times, times - times[last])
            share = np.cos(np.clip(outside / FADE, 0, 1) * np.pi) / 2 + 0.5
            # outside of a contact its first or last correction is carried on
            shift = goal - points[np.clip(np.arange(len(times)), first, last), index]
            shifts[:, index] += share[:, None] * shift
            total += share
        shifts[:, index] /= np.maximum(total, 1)[:, None]
    return shifts


def _moved(rig: Rig, limbs: Limbs, index: int, rotations: Array, local: Array, heads: Array, shift: Array) -> Array:
    """Local rotations (T, J, 3, 3) with which a foot is moved by `shift` (T, 3).

    rotations: (T, J, 3, 3) and heads: (T, J, 3) of the pose, y up. A short foot keeps its orientation in the world.
    """
    axes, foot = network_axes(rig), int(limbs.feet[index])
    chain = limbs.chains[index]
    ends = limbs.ends[index]
    bones = (rig.tails - rig.heads) @ axes.T
    tips = heads[:, ends] + (rotations[:, ends] @ bones[ends][..., None])[..., 0]
    offsets = skeleton_of(rig, tips=False).offsets
    own, above = (
        np.linalg.norm(rig.tails[ends] - rig.heads[foot], axis=1).mean(),
        np.linalg.norm(offsets[chain[1:]], axis=1).sum(),
    )
    held = len(chain) > 2 and own < SOLE * (own + above)
    moving = (chain[:-1] if held else chain)[-BONES:]
    if not len(moving):
        return local
    end = heads[:, foot] if held else tips.mean(1)
    turned = _solve(rotations[:, moving], heads[:, moving], end, end + shift)
    changed = np.array(local)
    before = rotations[:, rig.parents[moving[0]]]
    for place, joint in enumerate(moving):
        changed[:, joint] = np.swapaxes(before, -1, -2) @ turned[:, place]
        before = turned[:, place]
    if held:
        changed[:, foot] = np.swapaxes(before, -1, -2) @ rotations[:, foot]
    return changed


def _solve(rotations: Array, heads: Array, end: Array, goal: Array) -> Array:
    """Global rotations (T, N, 3, 3) of a chain with heads (T, N, 3), after which `end` (T, 3) is at `goal`, by damped least squares.

    A rotation w of joint i moves the end by w x r, with r from the joint to the end. The least rotations that move it by e are
    w_i = r_i x d with sum_i (|r_i|^2 I - r_i r_i^T) d = e. What a joint does all joints below it take along.
    """
    given = rotations
    arms = np.diff(np.concatenate([heads, end[:, None]], axis=1), axis=1)
    arms = (np.swapaxes(rotations, -1, -2) @ arms[..., None])[..., 0]  # each bone in its joint's frame
    length = np.linalg.norm(arms, axis=-1).sum(1).max()
    for _ in range(ROUNDS):
        bones = (rotations @ arms[..., None])[..., 0]
        reach = np.cumsum(bones[:, ::-1], axis=1)[:, ::-1]
        miss = goal - (heads[:, 0] + reach[:, 0])
        square = (reach**2).sum(-1)[..., None, None] * np.eye(3) - reach[..., :, None] * reach[..., None, :]
        step = np.linalg.solve(square.sum(1) + (0.03 * length) ** 2 * np.eye(3), miss[..., None])[..., 0]
        turn = np.cumsum(np.cross(reach, step[:, None]), axis=1)
        rotations = rotvec_to_matrix(_capped(turn, 0.3)) @ rotations
    change = matrix_to_rotvec(rotations @ np.swapaxes(given, -1, -2))
    # local bends are the differences between neighbours: capping all at once keeps them in proportion
    bends = np.diff(change, axis=1, prepend=0)
    most = np.linalg.norm(bends, axis=-1).max(1)
    return rotvec_to_matrix(change * np.minimum(1, MOST / np.maximum(most, 1e-12))[:, None, None]) @ given


def _capped(vectors: Array, most: float) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors * np.minimum(1, most / np.maximum(length, 1e-12))


def pose_change(rig: Rig, before: Motion, after: Motion) -> tuple[float, float]:
    """Mean and greatest angle in degrees between the local rotations of two takes of the rig."""
    change: NDArray[np.float64] = np.swapaxes(global_to_local(rig.parents, before.matrices), -1, -2) @ global_to_local(
        rig.parents, after.matrices
    )
    angles = np.degrees(np.linalg.norm(matrix_to_rotvec(change), axis=-1))
    return float(angles.mean()), float(angles.max())

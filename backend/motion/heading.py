"""Where a take faces: flips and sudden turns repaired, the heading smoothed or locked, and views from the front told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import UserError
from ..geometry.camera import view_yaw
from ..geometry.rotations import matrix_to_quaternion, matrix_to_yaw, yaw_to_matrix
from ..rig.mirror import mirror_of
from ..rig.rig import Rig
from ..rig.skeleton import network_axes
from .motion import Motion
from .smoothing import signed_as, trend

MODES = ("free", "smoothed", "locked")
SECONDS = 0.3  # width of the bell of a smoothed heading
FAST = np.radians(1500)  # a second: no body turns that fast
SUDDEN = np.radians(90)  # a turn that fast is an error if it is as wide as that
FRONT = np.radians(30)  # a view that is nearer than that to the plane that halves the body hides how limbs swing


def headings(rig: Rig, motion: Motion) -> Array:
    """(T,) the yaw of the root joint away from rest, in radians about the vertical, without jumps by a whole turn."""
    axes = network_axes(rig)
    return np.unwrap(matrix_to_yaw(axes @ motion.matrices[:, 0] @ axes.T))


def repair_heading(rig: Rig, motion: Motion, strength: float = 1.0) -> Motion:
    """The take without flips and sudden turns: what comes after one goes on as the take faced before it.

    The longest stretch between two of them keeps its heading. strength: 0 leaves the take as it is.
    """
    if not strength or len(motion) < 2:
        return motion
    steps = sudden_turns(rig, motion)
    if not steps.any():
        return motion
    turns = -np.concatenate([[0.0], np.cumsum(steps)])
    bounds = np.concatenate([[0], np.flatnonzero(steps) + 1, [len(motion)]])
    spans = motion.times[bounds[1:] - 1] - motion.times[bounds[:-1]]
    turns -= turns[bounds[int(np.argmax(spans))]]
    return turned(rig, motion, strength * turns)


def sudden_turns(rig: Rig, motion: Motion) -> Array:
    """(T - 1,) radians by which the take turns from a frame to the next too suddenly to be true; 0 where it does not."""
    steps = np.diff(headings(rig, motion))
    # a flip by half a turn has no side: without jumps means the shorter way, whichever it is
    fast = np.abs(steps) > np.minimum(FAST * np.diff(motion.times), SUDDEN)
    found = np.zeros_like(steps)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], fast, [False]]).astype(int))).reshape(-1, 2)
    for first, stop in edges:
        if abs(steps[first:stop].sum()) > SUDDEN:
            found[first:stop] = steps[first:stop]
    return found


def steady_heading(rig: Rig, motion: Motion, mode: str, strength: float = 1.0, seconds: float = SECONDS) -> Motion:
    """The take with its heading free (as it is), smoothed over `seconds`, or locked to its mean. The travel stays.

    strength: 0 leaves the take as it is, 1 takes the whole change. Raises UserError for another mode.
    """
    if mode not in MODES:
        raise UserError(f"Heading '{mode}' is unknown: choose one of {', '.join(MODES)}.")
    if mode == "free" or not strength or len(motion) < 2:
        return motion
    yaw = headings(rig, motion)
    if mode == "smoothed":
        wanted = trend(motion.times, seconds, yaw[:, None])[:, 0]
    else:
        certain = motion.confidence[:, 0] + 1e-3
        spans = np.gradient(motion.times)
        wanted = np.full(len(yaw), np.average(yaw, weights=certain * spans))
    return turned(rig, motion, strength * (wanted - yaw))


def turned(rig: Rig, motion: Motion, angles: Array) -> Motion:
    """The take turned as a whole about the vertical through the root's head, by angles (T,) in radians."""
    axes = network_axes(rig)
    # the turn Y in the network's axes is A^T Y A in those of the armature
    turns = axes.T @ yaw_to_matrix(angles) @ axes
    rotations = matrix_to_quaternion(turns[:, None] @ motion.matrices)
    positions = (turns[:, None] @ motion.positions[..., None])[..., 0]
    return replace(motion, rotations=signed_as(motion.rotations, rotations), positions=positions)


def front_views(rig: Rig, motion: Motion) -> NDArray[np.bool_]:
    """(T,) whether the camera looks at the body from its front or back, where the swing of limbs hardly shows; all False without sides."""
    mirror = mirror_of(rig)
    if mirror is None:
        return np.zeros(len(motion), np.bool_)
    across = (yaw_to_matrix(headings(rig, motion)) @ mirror.across) @ view_yaw(motion.camera[0]).T
    # across the body is seen at its full width when it is along the picture's x
    return np.abs(across[:, 2]) < np.sin(FRONT)

"""How far a take is from the truth: angles in degrees, positions in centimetres of a one-metre cube. numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...geometry.rotations import Array, geodesic_angle, matrix_to_yaw
from ...motion.motion import Motion, fk_heads
from ...rig.rig import Rig
from ...rig.skeleton import global_to_local, network_axes, pose_to_network, scale_of, skeleton_of

CENTIMETRES = 50.0  # 1 = half the side of the unit cube, and the cube is one metre wide (docs/network.md, Conventions)
FACING = 15.0  # degrees within which a take faces the right way
STILL = 1e-3  # centimetres a frame, or degrees: less than this is nothing
RATIOS = {
    "angle_ratio": ("angle_deg", "copy_angle_deg"),
    "mpjpe_ratio": ("mpjpe_cm", "copy_mpjpe_cm"),
    "fk_mpjpe_ratio": ("fk_mpjpe_cm", "copy_mpjpe_cm"),
}


def measure_motion(rig: Rig, motion: Motion, truth: Array, reference: Array) -> dict[str, float]:
    """Compare a take with the true joint matrices (T, J, 4, 4) at its frames; reference is the pose (J, 4, 4) it started from.

    All in armature space. Angles are between local rotations L in the network's axes, averaged over frames and the joints
    that rotate: the root, and every joint that is neither static nor translating. `copy_*` keeps the reference pose on every
    frame. Positions are relative to the root, heads only (the root counts, with distance zero), over joints that are not
    static; `mpjpe_cm` takes the predicted ones, `fk_mpjpe_cm` and all that concerns movement take what the rig will do:
    forward kinematics of the turns. Travel is centimetres per joint and frame over all joints, `liveness` the predicted
    over the true. `heading_deg` is the mean |yaw| between the true root and the predicted one, `heading_share` the share of frames
    where it is at most FACING degrees. Jerk is the mean length of the heads' third difference, `jerk_ratio` the predicted over
    the true: above 1 the take trembles more than the truth.

    Raises UserError if the shapes do not belong together.
    """
    _check(rig, motion, truth, reference)
    axes = network_axes(rig)
    true_turns, true_heads = pose_to_network(rig, truth, tips=False)
    copy_turns, copy_heads = pose_to_network(rig, reference, tips=False)
    rotations = axes @ motion.matrices @ axes.T
    unit = CENTIMETRES / scale_of(skeleton_of(rig, tips=False).rest, copy_heads)
    seen = ~rig.static if (~rig.static).any() else np.ones(len(rig.names), np.bool_)
    return {
        "frames": len(motion),
        "joints": len(rig.names),
        **_angles(rig, rotations, true_turns, copy_turns),
        **_distances(fk_heads(rig, motion), motion.positions @ axes.T, true_heads, copy_heads, seen, unit),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Rows of `measure` (other keys are left out) -> their means, total frames, and ratios of means, not means of ratios."""
    if not rows:
        raise UserError("There is nothing to summarise: no clip was measured.")
    keys = [key for key in rows[0] if isinstance(rows[0][key], int | float) and not isinstance(rows[0][key], bool)]
    means = {key: float(np.mean([row[key] for row in rows])) for key in keys if all(key in row for row in rows)}
    means["clips"] = len(rows)
    means["frames"] = sum(int(row["frames"]) for row in rows)
    means["liveness"] = _ratio(means["travel_cm"], means["true_travel_cm"])
    if "jerk_cm" in means:
        means["jerk_ratio"] = _ratio(means["jerk_cm"], means["true_jerk_cm"])
    return means | {name: _ratio(means[top], means[bottom]) for name, (top, bottom) in RATIOS.items()}


def jerk_ratio(predicted: Array, true: Array) -> float:
    """Positions (T, ..., 3) in one unit -> predicted / true mean length of the third difference; 1.0 when there are fewer than four frames.

    Above 1 the prediction trembles more than the truth. Centimetres make the threshold of stillness the one of `measure`.
    """
    return _ratio(_jerk(predicted), _jerk(true))


def _check(rig: Rig, motion: Motion, truth: Array, reference: Array) -> None:
    if motion.names != rig.names:
        raise UserError(f"The take was captured for other bones than those of rig '{rig.name}': pick the rig it was made for.")
    count = len(rig.names)
    if truth.shape != (len(motion), count, 4, 4):
        raise UserError(f"The true motion has shape {truth.shape}, the take needs {(len(motion), count, 4, 4)}: resample it.")
    if reference.shape != (count, 4, 4):
        raise UserError(f"The reference pose has shape {reference.shape}, rig '{rig.name}' needs {(count, 4, 4)}.")


def _angles(rig: Rig, rotations: Array, true: Array, copy: Array) -> dict[str, float]:
    rotates = ~rig.static & ~rig.translates
    rotates[0] = True
    local, true_local, copy_local = (global_to_local(rig.parents, g)[..., rotates, :, :] for g in (rotations, true, copy))
    yaw = matrix_to_yaw(rotations[:, 0] @ np.swapaxes(true[:, 0], -1, -2))
    return {
        "angle_deg": _degrees(local, true_local),
        "copy_angle_deg": _degrees(np.broadcast_to(copy_local, true_local.shape), true_local),
        "root_angle_deg": _degrees(local[:, 0], true_local[:, 0]),
        "angular_velocity_deg": _degrees(_steps(local), _steps(true_local)),
        "heading_deg": float(np.rad2deg(np.abs(yaw).mean())),
        "heading_share": float((np.rad2deg(np.abs(yaw)) <= FACING).mean()),
    }


def _distances(
    heads: Array, predicted: Array, true: Array, copy: Array, seen: NDArray[np.bool_], unit: float
) -> dict[str, float]:
    travel, true_travel = (unit * _mean_length(np.diff(values, axis=0)) for values in (heads, true))
    return {
        "mpjpe_cm": unit * _mean_length((predicted - true)[:, seen]),
        "copy_mpjpe_cm": unit * _mean_length((copy - true)[:, seen]),
        "fk_mpjpe_cm": unit * _mean_length((heads - true)[:, seen]),
        "mpjve_cm": unit * _mean_length(np.diff((heads - true)[:, seen], axis=0)),
        "travel_cm": travel,
        "true_travel_cm": true_travel,
        "liveness": _ratio(travel, true_travel),
        "jerk_cm": unit * _jerk(heads),
        "true_jerk_cm": unit * _jerk(true),
        "jerk_ratio": jerk_ratio(unit * heads, unit * true),
    }


def _steps(local: Array) -> Array:
    """L (T, ..., 3, 3) -> L_t^T L_t+1 (T - 1, ..., 3, 3)."""
    return np.swapaxes(local[:-1], -1, -2) @ local[1:]


def _degrees(left: Array, right: Array) -> float:
    return float(np.rad2deg(geodesic_angle(left, right).mean())) if left.size else 0.0


def _jerk(values: Array) -> float:
    return _mean_length(np.diff(values, 3, axis=0))


def _mean_length(vectors: Array) -> float:
    return float(np.linalg.norm(vectors, axis=-1).mean()) if vectors.size else 0.0


def _ratio(top: float, bottom: float) -> float:
    """top / bottom; two values next to nothing are equal, and a denominator next to nothing never makes it infinite."""
    return 1.0 if max(top, bottom) < STILL else top / max(bottom, STILL)

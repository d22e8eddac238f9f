"""Compares a take with the true motion: angles in degrees, positions in centimetres of a one-metre cube. numpy only."""

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
from .movement import measure_movement

CENTIMETRES = 50.0  # 1 = half the side of the unit cube, and the cube is one metre wide (docs/network.md, Conventions)
FACING = 15.0  # degrees: a take whose heading is off by less faces the right way
STILL = 1e-3  # centimetres per frame, or degrees: less than this counts as zero
RATIOS = {
    "centred_mpjpe_ratio": ("centred_mpjpe_cm", "copy_centred_mpjpe_cm"),
    "bone_direction_ratio": ("bone_direction_deg", "copy_bone_direction_deg"),
    "twist_ratio": ("twist_deg", "copy_twist_deg"),
    "travel_ratio": ("centred_travel_cm", "true_centred_travel_cm"),
    "angle_ratio": ("angle_deg", "copy_angle_deg"),
    "mpjpe_ratio": ("mpjpe_cm", "copy_mpjpe_cm"),
    "fk_mpjpe_ratio": ("fk_mpjpe_cm", "copy_mpjpe_cm"),
}
MEDIANS = ("motion_correlation", "overlap", "overlap_matte")  # one bad clip would rule their means


def measure_motion(rig: Rig, motion: Motion, truth: Array, reference: Array) -> dict[str, float | None]:
    """Compare a take of T frames with the true joint matrices (T, J, 4, 4) and with copying the reference pose (J, 4, 4).

    Both in armature space. Figures that begin with `copy_` are those of keeping the reference pose on every frame.
    - Angles are between local rotations in the network's axes: means over frames and the joints that rotate (the root, and all that are
      neither static nor translating).
    - heading_deg: mean yaw, without its sign, between the true root and the take's. heading_share: share of frames where it is at most
      FACING degrees.
    - Positions are heads relative to the root, over all joints that are not static; the root counts, with distance zero. mpjpe_cm is
      measured on the predicted positions; fk_mpjpe_cm, travel and jerk on those of the rig, by forward kinematics of the rotations.
    - travel_cm: centimetres per joint and frame, over all joints. liveness: the take's travel divided by the true one.
    - jerk_cm: mean length of the heads' third difference. jerk_ratio: the take's divided by the true one; above 1 the take trembles more.
    - The figures of movement.measure_movement, over joints that are neither static nor props. motion_correlation is None for a clip that
      hardly moves.

    Raises UserError if the shapes or the names of the bones do not match.
    """
    _check_shapes(rig, motion, truth, reference)
    axes = network_axes(rig)
    true_rotations, true_heads = pose_to_network(rig, truth, tips=False)
    copy_rotations, copy_heads = pose_to_network(rig, reference, tips=False)
    rotations = axes @ motion.matrices @ axes.T
    unit = CENTIMETRES / scale_of(skeleton_of(rig, tips=False).rest, copy_heads)
    counted = counted_joints(rig)
    heads = fk_heads(rig, motion)
    return {
        "frames": len(motion),
        "joints": len(rig.names),
        **_angle_figures(rig, rotations, true_rotations, copy_rotations),
        **_distance_figures(heads, motion.positions @ axes.T, true_heads, copy_heads, counted, unit),
        **_movement_figures(rig, (rotations, heads), (true_rotations, true_heads), (copy_rotations, copy_heads), counted, unit),
    }


def _movement_figures(
    rig: Rig,
    take: tuple[Array, Array],
    truth: tuple[Array, Array],
    copy: tuple[Array, Array],
    counted: NDArray[np.bool_],
    unit: float,
) -> dict[str, float | None]:
    figures = measure_movement(rig, take, truth, (copy[0][None], copy[1][None]), counted, unit)
    travel, true_travel = (float(figures[key] or 0) for key in ("centred_travel_cm", "true_centred_travel_cm"))
    return {**figures, "travel_ratio": _ratio(travel, true_travel)}


def counted_joints(rig: Rig) -> NDArray[np.bool_]:
    """(J,) the joints that count in figures of positions: neither static nor props; all of them if that leaves none."""
    counted = ~rig.static & ~rig.props
    return counted if counted.any() else np.ones(len(rig.names), np.bool_)


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Summarise rows of `measure_motion`: means of the figures, total frames, and ratios of means (not means of ratios).

    MEDIANS are medians over the rows that have them. `<ratio>_median` is the median of the rows' own ratios.
    """
    if not rows:
        raise UserError("There is nothing to summarise: no clip was measured.")
    values = {key: [row[key] for row in rows if _is_number(row.get(key))] for key in rows[0]}
    kept = {key: found for key, found in values.items() if len(found) == len(rows) or (found and key in MEDIANS)}
    means = {key: float((np.median if key in MEDIANS else np.mean)(found)) for key, found in kept.items()}
    means["clips"] = len(rows)
    means["frames"] = sum(int(row["frames"]) for row in rows)
    means["liveness"] = _ratio(means["travel_cm"], means["true_travel_cm"])
    if "jerk_cm" in means:
        means["jerk_ratio"] = _ratio(means["jerk_cm"], means["true_jerk_cm"])
    for name, (top, bottom) in RATIOS.items():
        if top in means and bottom in means:
            means[name] = _ratio(means[top], means[bottom])
            means[f"{name}_median"] = float(np.median([_ratio(row[top], row[bottom]) for row in rows]))
    return means


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TABLE = (  # heading, key of a summary
    ("clips", "clips"), ("correlation", "motion_correlation"), ("travel", "travel_ratio"), ("centred", "centred_mpjpe_ratio"),
    ("bone", "bone_direction_ratio"), ("twist", "twist_ratio"), ("mpjpe", "mpjpe_ratio"), ("angle", "angle_ratio"),
    ("jerk", "jerk_ratio"), ("overlap", "overlap"), ("matte", "overlap_matte"), ("side", "view_deg"), ("IK angle", "ik_angle_deg"),
)  # fmt: skip


def format_table(split: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One small table: a line for all rows, one for each kind of reference and one for each kind of motion. docs/quality.md explains the columns."""
    groups = {f"{split}, all": list(rows)}
    for key, title in (("reference", "reference"), ("kind", "")):
        for value in sorted({str(row[key]) for row in rows if key in row}):
            groups[f"{title} {value}".strip()] = [row for row in rows if str(row.get(key)) == value]
    summaries = {name: summarise(chosen) for name, chosen in groups.items()}
    columns = [(heading, key) for heading, key in TABLE if any(key in summary for summary in summaries.values())]
    lines = [f"{'':<28}" + "".join(f"{heading:>12}" for heading, _ in columns)]
    for name, summary in summaries.items():
        cells = (f"{summary[key]:>12.3g}" if key in summary else f"{'-':>12}" for _, key in columns)
        lines.append(f"{name:<28}" + "".join(cells))
    return "\n".join(lines)


def jerk_ratio(predicted: Array, true: Array) -> float:
    """Mean length of the third difference of predicted positions (T, ..., 3), divided by that of the true ones.

    Above 1 the prediction trembles more than the truth. 1 for fewer than four frames. Both in centimetres, the unit of STILL.
    """
    return _ratio(_jerk(predicted), _jerk(true))


def _check_shapes(rig: Rig, motion: Motion, truth: Array, reference: Array) -> None:
    if motion.names != rig.names:
        raise UserError(
            f"The take was captured for other bones than those of rig '{rig.name}': choose the rig it was captured for."
        )
    count = len(rig.names)
    if truth.shape != (len(motion), count, 4, 4):
        raise UserError(
            f"The true motion has shape {truth.shape}, but the take needs {(len(motion), count, 4, 4)}: resample the motion."
        )
    if reference.shape != (count, 4, 4):
        raise UserError(
            f"The reference pose has shape {reference.shape}, but rig '{rig.name}' needs {(count, 4, 4)}: choose a pose of this rig."
        )


def _angle_figures(rig: Rig, rotations: Array, true: Array, copy: Array) -> dict[str, float]:
    rotates = ~rig.static & ~rig.translates
    rotates[0] = True
    local, true_local, copy_local = (global_to_local(rig.parents, g)[..., rotates, :, :] for g in (rotations, true, copy))
    yaw = matrix_to_yaw(rotations[:, 0] @ np.swapaxes(true[:, 0], -1, -2))
    return {
        "angle_deg": _mean_degrees(local, true_local),
        "copy_angle_deg": _mean_degrees(np.broadcast_to(copy_local, true_local.shape), true_local),
        "root_angle_deg": _mean_degrees(local[:, 0], true_local[:, 0]),
        "angular_velocity_deg": _mean_degrees(_frame_to_frame(local), _frame_to_frame(true_local)),
        "heading_deg": float(np.rad2deg(np.abs(yaw).mean())),
        "heading_share": float((np.rad2deg(np.abs(yaw)) <= FACING).mean()),
    }


def _distance_figures(
    heads: Array, predicted: Array, true: Array, copy: Array, counted: NDArray[np.bool_], unit: float
) -> dict[str, float]:
    travel, true_travel = (unit * _mean_length(np.diff(values, axis=0)) for values in (heads, true))
    return {
        "mpjpe_cm": unit * _mean_length((predicted - true)[:, counted]),
        "copy_mpjpe_cm": unit * _mean_length((copy - true)[:, counted]),
        "fk_mpjpe_cm": unit * _mean_length((heads - true)[:, counted]),
        "mpjve_cm": unit * _mean_length(np.diff((heads - true)[:, counted], axis=0)),
        "travel_cm": travel,
        "true_travel_cm": true_travel,
        "liveness": _ratio(travel, true_travel),
        "jerk_cm": unit * _jerk(heads),
        "true_jerk_cm": unit * _jerk(true),
        "jerk_ratio": jerk_ratio(unit * heads, unit * true),
    }


def _frame_to_frame(local: Array) -> Array:
    """Local rotations (T, ..., 3, 3) -> the rotations from each frame to the next, (T - 1, ..., 3, 3)."""
    return np.swapaxes(local[:-1], -1, -2) @ local[1:]


def _mean_degrees(left: Array, right: Array) -> float:
    return float(np.rad2deg(geodesic_angle(left, right).mean())) if left.size else 0.0


def _jerk(values: Array) -> float:
    return _mean_length(np.diff(values, 3, axis=0))


def _mean_length(vectors: Array) -> float:
    return float(np.linalg.norm(vectors, axis=-1).mean()) if vectors.size else 0.0


def _ratio(top: float, bottom: float) -> float:
    """top / bottom. 1 if both count as zero, and finite if only the bottom does."""
    return 1.0 if max(top, bottom) < STILL else top / max(bottom, STILL)

"""Whether a take moves as the truth does: correlation, travel, directions of bones, twist. numpy only.

Mean errors reward a take that keeps still: these figures do not. docs/quality.md, Definitions, says them in words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array, matrix_to_quaternion
from ...rig.rig import Rig
from ...rig.skeleton import network_axes

LEAST_MOTION = 0.01  # of the body's size: a clip whose truth moves less has no correlation
SHORTEST_BONE = 0.02  # of the body's size: a shorter bone has no direction worth measuring
KINDS = {
    "death or fall": ("death", "die", "fall", "faint", "dead", "knockout"),
    "locomotion": (
        "walk", "run", "gallop", "swim", "fly", "flying", "trot", "jog", "sprint", "crawl", "slither", "sneak", "hop", "forward",
        "fast", "move", "dash", "jump", "roll", "climb", "backwards", "strafe",
    ),
    "idle": ("idle", "stand", "sit", "sitting", "sleep", "eating", "breathe", "rest", "wait", "pose"),
}  # fmt: skip
OTHER = "attack or gesture"


def kind_of_motion(clip: str) -> str:
    """A clip's name -> "locomotion", "idle", "death or fall", or else "attack or gesture"; the first kind that has one of its words."""
    words = "".join(letter if letter.isalpha() else " " for letter in split_camel_case(clip)).lower().split()
    return next((kind for kind, known in KINDS.items() if any(word in known for word in words)), OTHER)


def split_camel_case(name: str) -> str:
    """ "RunFast" -> "Run Fast" """
    return "".join(f" {b}" if a.islower() and b.isupper() else b for a, b in zip(" " + name, name))


def centred(heads: Array, counted: NDArray[np.bool_]) -> Array:
    """Heads (T, J, 3) -> (T, N, 3): the counted joints, relative to their mean in each frame."""
    chosen = heads[..., counted, :]
    return chosen - chosen.mean(-2, keepdims=True)


def body_size(rest: Array, counted: NDArray[np.bool_]) -> float:
    """Diagonal of the box around the counted heads (J, 3) at rest."""
    chosen = rest[counted]
    return float(np.linalg.norm(np.ptp(chosen, axis=0)))


def motion_correlation(heads: Array, true: Array, size: float) -> float | None:
    """Pearson's r of centred heads (T, N, 3) with the true ones, each joint's mean over time taken out, over frames, axes and joints.

    1 is the same movement, whatever its extent; 0 is unrelated, or a take that keeps still. size: the body's, in the same unit.
    None if the truth moves less than LEAST_MOTION of it (root mean square): such a clip says nothing.
    """
    moved, truly = heads - heads.mean(0), true - true.mean(0)
    if not truly.size or np.sqrt((truly**2).sum(-1).mean()) < LEAST_MOTION * size:
        return None
    length, true_length = np.linalg.norm(moved), np.linalg.norm(truly)
    if length < 1e-6 * true_length:  # a take that keeps still, up to rounding
        return 0.0
    return float((moved * truly).sum() / (length * true_length))


def mean_travel(heads: Array) -> float:
    """Heads (T, N, 3) -> mean distance from frame to frame of a joint; 0 for a single frame."""
    return float(np.linalg.norm(np.diff(heads, axis=0), axis=-1).mean()) if len(heads) > 1 else 0.0


def bones_of(rig: Rig, counted: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Array]:
    """(B,) joints and (B, 3) unit directions at rest, network axes: from each counted joint to its children, and from a leaf to its tail.

    Children that translate hang on nothing, and bones shorter than SHORTEST_BONE of the body have no direction: both are left out.
    """
    child = np.flatnonzero((rig.parents >= 0) & ~rig.translates)
    leaf = np.setdiff1d(np.arange(len(rig.names)), rig.parents)
    joint = np.concatenate([rig.parents[child], leaf])
    bones = np.concatenate([rig.heads[child] - rig.heads[rig.parents[child]], rig.tails[leaf] - rig.heads[leaf]])
    length = np.linalg.norm(bones, axis=-1)
    long = counted[joint] & (length > SHORTEST_BONE * body_size(rig.heads, counted)) & (length > 0)
    return joint[long], bones[long] @ network_axes(rig).T / length[long, None]


def bone_errors(rig: Rig, rotations: Array, true: Array, counted: NDArray[np.bool_]) -> tuple[float, float]:
    """Global rotations (T, J, 3, 3) in the network's axes -> mean degrees (between bones' directions, of twist about them).

    Bones are those of `bones_of`; (0, 0) if there is none.
    """
    joint, axis = bones_of(rig, counted)
    if not len(joint):
        return 0.0, 0.0
    direction, true_direction = ((g[..., joint, :, :] @ axis[..., None])[..., 0] for g in (rotations, true))
    apart = np.arctan2(np.linalg.norm(np.cross(direction, true_direction), axis=-1), (direction * true_direction).sum(-1))
    # G = E G_true: the twist of E about the bone's true direction d is the rotation about d in the swing-twist decomposition of E
    quaternion = matrix_to_quaternion(rotations[..., joint, :, :] @ np.swapaxes(true[..., joint, :, :], -1, -2))
    twist = 2 * np.arctan2(np.abs((quaternion[..., 1:] * true_direction).sum(-1)), quaternion[..., 0])
    return float(np.rad2deg(apart).mean()), float(np.rad2deg(twist).mean())


def measure_movement(
    rig: Rig,
    takes: tuple[Array, Array],
    truth: tuple[Array, Array],
    copy: tuple[Array, Array],
    counted: NDArray[np.bool_],
    unit: float,
) -> dict[str, float | None]:
    """takes, truth, copy: (global rotations (T or 1, J, 3, 3), heads (T or 1, J, 3)) in the network's axes; the heads of a take by
    forward kinematics of its rotations. counted: (J,) bool, joints that are neither static nor props. unit: centimetres per unit
    of the heads. `copy_*` keeps the reference pose.
    """
    heads, true, kept = (centred(values, counted) for _, values in (takes, truth, copy))
    direction, twist = bone_errors(rig, takes[0], truth[0], counted)
    copy_direction, copy_twist = bone_errors(rig, np.broadcast_to(copy[0], truth[0].shape), truth[0], counted)
    travel, true_travel = unit * mean_travel(heads), unit * mean_travel(true)
    return {
        "motion_correlation": motion_correlation(heads, true, body_size(rig.heads, counted)),
        "centred_travel_cm": travel,
        "true_centred_travel_cm": true_travel,
        "bone_direction_deg": direction,
        "copy_bone_direction_deg": copy_direction,
        "twist_deg": twist,
        "copy_twist_deg": copy_twist,
        "centred_mpjpe_cm": unit * float(np.linalg.norm(heads - true, axis=-1).mean()),
        "copy_centred_mpjpe_cm": unit * float(np.linalg.norm(kept - true, axis=-1).mean()),
    }

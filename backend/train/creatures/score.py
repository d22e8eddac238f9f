"""A motion as layers of joint rotations, and its solution by forward kinematics with planted feet."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from ...geometry.rotations import Array, rotvec_to_matrix
from ...rig.skeleton import forward_kinematics
from .body import Body, Chain

X, Y, Z = np.eye(3)
STRAIN = 0.5  # of the leg's length: further from its place below the hip, a planted ankle slips
FOLDED = 0.42  # the least distance from hip to ankle, in leg lengths: a knee bent by 130 degrees
FREE = np.radians(359.0)  # larger limits are none


@dataclass(frozen=True, eq=False)
class Step:
    """The path of a planted foot. shift: (F, 3) from its neutral place. pitch: (F,) radians about x, positive with the toes down."""

    shift: Array
    pitch: Array


@dataclass(eq=False)
class Score:
    """F frames of a body's motion. Layers add to it, and `solve_legs` solves it.

    bends: (F, J, 3) rotation vectors of the joints away from neutral, radians, body frame.
    shift: (F, 3) displacement of the root. steps: paths of planted feet, by the leg's index in body.chains.
    """

    body: Body
    frames: int
    bends: Array = field(init=False)
    shift: Array = field(init=False)
    steps: dict[int, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bends = np.zeros((self.frames, len(self.body.bones), 3))
        self.shift = np.zeros((self.frames, 3))

    @property
    def time(self) -> Array:
        """(F,) 0 to 1."""
        return np.linspace(0, 1, self.frames)

    def bend(self, joint: int, axis: ArrayLike, angle: ArrayLike) -> None:
        """Add a rotation about an axis (3,) by an angle, () or (F,), radians."""
        self.bends[:, joint] += np.broadcast_to(angle, self.frames)[:, None] * np.asarray(axis, float)

    def plant(self, chain: Chain, shift: ArrayLike = 0.0, pitch: ArrayLike = 0.0) -> None:
        """Keep a leg's foot at its neutral place, shifted by (F, 3)."""
        step = Step(np.broadcast_to(shift, (self.frames, 3)), np.broadcast_to(pitch, self.frames))
        self.steps[self.body.chains.index(chain)] = step


def solve_legs(score: Score) -> tuple[Array, Array]:
    """Solve a score -> global rotations away from neutral (F, J, 3, 3) and positions (F, J, 3), body frame. Bends stay within limits."""
    body = score.body
    local = rotvec_to_matrix(limit_bends(score.bends, body.limits))
    root = body.heads[0] + score.shift
    global_rotations, places = forward_kinematics(body.parents, body.offsets, local)
    for index, step in score.steps.items():
        _plant_leg(body, body.chains[index], step, global_rotations, places + root[:, None], local)
    global_rotations, places = forward_kinematics(body.parents, body.offsets, local)
    return global_rotations, places + root[:, None]


def limit_bends(bends: Array, limits: Array) -> Array:
    """Shorten rotation vectors (..., J, 3) to less than the limits (J,). Short ones hardly change."""
    angle = np.linalg.norm(bends, axis=-1, keepdims=True)
    limit = np.where(limits < FREE, limits, np.inf)[:, None]
    with np.errstate(invalid="ignore"):
        pressed = np.where(np.isfinite(limit), limit * np.tanh(angle / limit), angle)
    return bends * np.where(angle > 1e-9, pressed / np.maximum(angle, 1e-9), 1.0)


def knee_axis(body: Body, chain: Chain) -> Array:
    """(3,) the knee's axis: a positive rotation of the shin bends the knee further. In the neutral pose it is bent a little."""
    thigh, shin = chain.joints[chain.first : chain.first + 2]
    axis = np.cross(body.tails[thigh] - body.heads[thigh], body.tails[shin] - body.heads[shin])
    return axis / np.linalg.norm(axis)


def _plant_leg(body: Body, chain: Chain, step: Step, global_rotations: Array, places: Array, local: Array) -> None:
    """Set the local rotations of thigh, shin and foot, so that the foot's end follows the step."""
    thigh, shin = chain.joints[chain.first : chain.first + 2]
    foot = chain.joints[chain.first + 2] if len(chain.joints) > chain.first + 2 else -1
    above = global_rotations[:, body.parents[thigh]]
    hip = places[:, thigh]
    ankle, level = body.tails[shin] + step.shift, np.eye(3)
    if foot >= 0:
        # the foot is level but for its pitch and has the root's heading, so the ankle is its end less the rotated foot
        level = _heading_rotation(global_rotations[:, 0]) @ rotvec_to_matrix(step.pitch[:, None] * X)
        length = body.tails[foot] - body.heads[foot]
        ankle = body.tails[foot] + step.shift - level @ length
    ankle = _slip_ankle(body, thigh, shin, ankle, above, places)
    upper, lower = solve_two_bones(body, thigh, shin, hip, ankle, above)
    local[:, thigh] = above.swapaxes(-1, -2) @ upper
    local[:, shin] = upper.swapaxes(-1, -2) @ lower
    if foot >= 0:
        local[:, foot] = lower.swapaxes(-1, -2) @ level


def _slip_ankle(body: Body, thigh: int, shin: int, ankle: Array, above: Array, places: Array) -> Array:
    """(F, 3) the ankle, at most STRAIN of the leg's length from its neutral place below the hip.

    So the leg rotates by 30 degrees at most: an ankle on the side of the knee would flip the knee.
    """
    parent = body.parents[thigh]
    carried = places[:, parent] + above @ (body.tails[shin] - body.heads[parent])
    way, length = _normalise(ankle - carried)
    most = STRAIN * np.linalg.norm(body.tails[shin] - body.heads[thigh])
    return carried + way * most * np.tanh((length / most) ** 4) ** 0.25


def solve_two_bones(body: Body, thigh: int, shin: int, hip: Array, ankle: Array, above: Array) -> tuple[Array, Array]:
    """Two-bone IK: hip and ankle (F, 3), global rotations of the parent (F, 3, 3) -> global rotations of thigh and shin (F, 3, 3).

    The knee stays on the side of the line from hip to ankle where it is in the neutral pose, in the frame of the parent.
    """
    first, second = body.tails[thigh] - body.heads[thigh], body.tails[shin] - body.heads[shin]
    one, two = np.linalg.norm(first), np.linalg.norm(second)
    line = first + second
    pole = first - line * (first @ line) / (line @ line)
    along, distance = _normalise(ankle - hip)
    distance = np.clip(distance, max(1.05 * abs(one - two), FOLDED * (one + two)), 0.997 * (one + two))
    aside = (above @ pole[:, None])[..., 0]
    aside = _normalise(aside - along * (aside * along).sum(-1, keepdims=True))[0]
    # with the hip at 0 and the ankle at (d, 0) the knee (x, y) solves x^2 + y^2 = one^2, (d - x)^2 + y^2 = two^2
    x = (one**2 - two**2 + distance**2) / (2 * distance)
    y = np.sqrt(np.maximum(one**2 - x**2, 0))
    knee = along * x + aside * y
    # the hinge is thigh x shin in both poses: (x e + y q) x ((d - x) e - y q) = -d y e x q, along q x e
    hinge = np.cross(aside, along)
    neutral = np.cross(first, second)
    neutral = np.broadcast_to(neutral / np.linalg.norm(neutral), hinge.shape)
    rest = [_bone_frame(np.broadcast_to(bone, hinge.shape), neutral) for bone in (first, second)]
    posed = [_bone_frame(knee, hinge), _bone_frame(along * distance - knee, hinge)]
    # T maps the neutral frame N of a bone to its posed frame P: T = P N^T
    return posed[0] @ rest[0].swapaxes(-1, -2), posed[1] @ rest[1].swapaxes(-1, -2)


def _normalise(vectors: Array) -> tuple[Array, Array]:
    """Vectors (F, 3) -> unit vectors (F, 3) and lengths (F, 1)."""
    length = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return vectors / length, length


def _bone_frame(bone: Array, hinge: Array) -> Array:
    """(F, 3, 3) whose columns are the bone's direction, the hinge and their cross product."""
    along = _normalise(bone)[0]
    return np.stack([along, hinge, np.cross(along, hinge)], axis=-1)


def _heading_rotation(global_rotations: Array) -> Array:
    """(F, 3, 3) the rotation about z of the root's x axis."""
    side = global_rotations[:, :, 0]
    return rotvec_to_matrix(np.arctan2(side[:, 1], side[:, 0])[:, None] * Z)

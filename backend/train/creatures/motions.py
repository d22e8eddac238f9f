"""Layers of motion: each adds the motion of one kind of part to a score. Angles in radians, cycles per clip."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...geometry.rotations import Array
from .body import Chain, leg_length, upper_arm
from .parts import Rng
from .score import Score, X, Y, Z, knee_axis

TAU = 2 * np.pi


def wave(
    score: Score,
    joints: tuple[int, ...],
    axis: ArrayLike,
    swing: float,
    cycles: float,
    lag: float,
    start: float,
    grow: float = 1.0,
) -> None:
    """Send a wave along joints: each is `lag` of a cycle behind the one before, and the last bends `grow` times as far as the first."""
    for k, joint in enumerate(joints):
        gain = swing * (1 + (grow - 1) * k / max(len(joints) - 1, 1))
        score.bend(joint, axis, gain * np.sin(TAU * (cycles * score.time - lag * k + start)))


def smooth_noise(rng: Rng, frames: int, shape: tuple[int, ...], cycles: float) -> Array:
    """(F, *shape) the sum of three slow sines with random phases, of about unit size."""
    time = np.linspace(0, 1, frames).reshape(-1, *[1] * len(shape))
    parts = [np.sin(TAU * (rng.uniform(0.3, cycles, shape) * time + rng.random(shape))) for _ in range(3)]
    return sum(parts) / np.sqrt(1.5)


def tremble(score: Score, rng: Rng, degrees: float) -> None:
    """Add smooth noise to all joints but root, wheels and knees, less where the limits are narrow."""
    body = score.body
    gain = np.radians(degrees) * np.clip(body.limits / np.radians(60), 0.1, 1.5)
    gain[[k for k, bone in enumerate(body.bones) if bone.part in ("root", "wheel")]] = 0
    noise = smooth_noise(rng, score.frames, (len(body.bones), 3), 2.5) * gain[:, None] / np.sqrt(3)
    for leg in body.legs:
        noise[:, leg.joints[leg.first + 1], :] = 0
    score.bends += noise


def sway(score: Score, rng: Rng, vigour: float = 1.0) -> None:
    """Swing tails, ears, antennae, tentacles and fins slowly."""
    cycles = rng.uniform(0.8, 2.2)
    wide = {"tail": 0.16, "ear": 0.12, "antenna": 0.2, "tentacle": 0.25, "fin": 0.3, "abdomen": 0.08, "segment": 0.05}
    for chain in score.body.of(*wide):
        axis = rng.normal(0, 1, 3) * ([1, 0.3, 1] if chain.part == "tail" else [1, 1, 1])
        swing = (
            vigour
            * wide[chain.part]
            * rng.uniform(0.5, 1.5)
            / max(float(np.linalg.norm(axis)), 0.3)
            / (1 + 0.15 * len(chain.joints))
        )
        wave(
            score,
            chain.joints,
            axis,
            swing,
            cycles * rng.choice([1, 1, 2]),
            rng.uniform(0.04, 0.18),
            rng.random(),
            rng.uniform(1, 1.8),
        )


def breathe(score: Score, rng: Rng, vigour: float = 1.0) -> None:
    """Let spine and arms rise and fall."""
    cycles, start = rng.uniform(1, 2.5), rng.random()
    for chain in score.body.of("spine", "abdomen", "head"):
        wave(score, chain.joints, X, vigour * rng.uniform(0.015, 0.06), cycles, 0.1, start)
    for arm in score.body.of("arm"):
        sign = 1.0 if arm.side == "L" else -1.0
        wave(score, arm.joints, -sign * Y, vigour * rng.uniform(0.02, 0.08), cycles, 0.1, start + 0.1)
    score.shift[:, 2] += 0.015 * vigour * score.body.size * np.sin(TAU * (cycles * score.time + start))


def look(score: Score, rng: Rng, wide: float = 0.5) -> None:
    """Turn head and neck, or a turret, to two or three places one after the other."""
    stops = np.sort(rng.uniform(0.05, 0.95, int(rng.integers(2, 4))))
    yaw = ease(score.time, stops, rng.uniform(-1, 1, len(stops) + 1) * 1.6 * wide)
    pitch = ease(score.time, stops, rng.uniform(-1, 1, len(stops) + 1) * 0.7 * wide)
    joints = [joint for chain in score.body.of("neck", "head") for joint in chain.joints]
    for joint in joints:
        score.bend(joint, Z, 1.3 * yaw / len(joints))
        score.bend(joint, X, 1.3 * pitch / len(joints))
    for chain in score.body.of("turret"):
        score.bend(chain.joints[0], Z, 1.2 * yaw)
    for chain in score.body.of("barrel"):
        score.bend(chain.joints[0], X, 0.5 * pitch)


def ease(time: Array, stops: Array, values: Array) -> Array:
    """(F,) values[0] at first, then a soft change to values[k + 1] around stops[k], within a fifth of the clip."""
    level = np.full(len(time), float(values[0]))
    for stop, before, after in zip(stops, values[:-1], values[1:], strict=True):
        part = np.clip((time - stop) / 0.2 + 0.5, 0, 1)
        level += (after - before) * part * part * (3 - 2 * part)
    return level


def pulse(time: Array, begin: float, top: float, end: float) -> Array:
    """(F,) 0 until `begin`, softly up to 1 at `top`, softly back to 0 at `end`."""
    part = np.interp(time, [begin, top, end], [0, 1, 0])
    return part * part * (3 - 2 * part)


def swing_arms(score: Score, rng: Rng, clock: Array, wide: float) -> None:
    """Swing each arm with the leg of the other side."""
    elbow = rng.uniform(0.1, 1.2) * min(wide / 0.4, 1.5)
    for arm in score.body.of("arm"):
        lean = np.sin(TAU * (clock + 0.5 * (arm.side == "R") + 0.75))
        score.bend(upper_arm(arm), X, wide * lean)
        for joint in arm.joints[-2:-1]:
            score.bend(joint, -X, elbow * (1 - 0.4 * lean))
        score.bend(max(arm.joints), X, 0.15 * np.sin(TAU * (clock + 0.5 * (arm.side == "R"))))


def flap(score: Score, rng: Rng, cycles: float, swing: float) -> None:
    """Beat the wings, the outer bones later and further. The body rises as they go down."""
    lag, start, fold = rng.uniform(0.08, 0.2), rng.random(), rng.uniform(-0.2, 0.4)
    for wing in score.body.of("wing"):
        sign = 1.0 if wing.side == "L" else -1.0
        part = swing / np.sqrt(len(wing.joints))
        # the left wing points along +x, so it rises by a negative rotation about +y
        wave(score, wing.joints, -sign * Y, part, cycles, lag, start + 0.06 * wing.row, 1.3)
        wave(score, wing.joints[1:], sign * Z, 0.5 * part, cycles, lag, start + 0.25)
        for joint in wing.joints[1:]:
            score.bend(joint, -sign * Y, -fold / len(wing.joints))
    score.shift[:, 2] += 0.06 * swing * score.body.size * np.sin(TAU * (cycles * score.time + start + 0.6))


def fold_wings(score: Score, share: float) -> None:
    """Fold the wings back along the body. share: 0 spread, 1 folded."""
    for wing in score.body.of("wing"):
        sign = 1.0 if wing.side == "L" else -1.0
        score.bend(wing.joints[0], sign * Z, 1.15 * share)
        score.bend(wing.joints[0], sign * Y, 0.45 * share)
        for joint in wing.joints[1:2]:
            score.bend(joint, sign * Z, -0.5 * share)


def bob(score: Score, rng: Rng, clock: Array, vigour: float) -> None:
    """Move the trunk up and down with the steps, with roll and yaw, which neck and head compensate in part."""
    body = score.body
    length = np.median([leg_length(body, leg) for leg in body.legs])
    rise = length * rng.uniform(0.02, 0.07) * vigour
    score.shift[:, 2] += rise * np.cos(TAU * 2 * clock + rng.uniform(-0.5, 0.5)) - rise - 0.05 * vigour * length
    yaw, roll, nod = rng.uniform(0.02, 0.14) * vigour, rng.uniform(0.0, 0.09) * vigour, rng.uniform(0.0, 0.08) * vigour
    score.bend(0, Z, yaw * np.sin(TAU * clock))
    score.bend(0, Y, roll * np.cos(TAU * clock))
    score.bend(0, X, nod * np.sin(TAU * 2 * clock))
    spine = [joint for chain in body.of("spine") for joint in chain.joints]
    for joint in spine:
        score.bend(joint, Z, -1.7 * yaw * np.sin(TAU * clock) / len(spine))
        score.bend(joint, Y, -roll * np.cos(TAU * clock) / len(spine))
    neck = [joint for chain in body.of("neck", "head") for joint in chain.joints]
    for joint in neck:
        score.bend(joint, X, rng.uniform(-0.1, 0.14) * vigour * np.sin(TAU * (2 * clock + 0.2)))
        score.bend(joint, Z, 0.7 * yaw * np.sin(TAU * clock) / len(neck))


def flex_legs(score: Score, chain: Chain, amount: ArrayLike) -> None:
    """Bend a leg that is not planted by an amount, () or (F,), radians at the knee, and less at hip and ankle."""
    axis = knee_axis(score.body, chain)
    thigh, shin = chain.joints[chain.first : chain.first + 2]
    score.bend(thigh, axis, -0.55 * np.asarray(amount))
    score.bend(shin, axis, np.maximum(amount, 0))
    for joint in chain.joints[chain.first + 2 : chain.first + 3]:
        score.bend(joint, axis, -0.3 * np.asarray(amount))


def drift(score: Score, rng: Rng, joints: tuple[int, ...], wide: float) -> None:
    """Move the joints to random places one after the other, as the arm of a machine does."""
    stops = np.sort(rng.uniform(0.05, 0.95, 3))
    for joint in joints:
        for axis, gain in ((X, 1.0), (Y, 0.25), (Z, 0.5)):
            score.bend(joint, axis, ease(score.time, stops, gain * wide * rng.uniform(-1, 1, 4)))


def grip(score: Score, rng: Rng, share: ArrayLike) -> None:
    """Close the fingers by a share, () or (F,), 0..1: those of a hand towards the middle of the body, those of a claw inwards."""
    bones = score.body.bones
    for finger in score.body.of("finger"):
        first = bones[finger.joints[0]]
        along = first.tail - first.head
        sign = {"L": 1.0, "R": -1.0}.get(finger.side, 0.0)
        inward = -sign * X if sign else bones[first.parent].tail - first.head
        axis = np.cross(along, inward)
        axis /= max(np.linalg.norm(axis), 1e-9)
        for joint in finger.joints:
            score.bend(joint, axis, 0.8 * np.asarray(share) * rng.uniform(0.7, 1.1))


def spin_wheels(score: Score, rng: Rng, rotations: float) -> None:
    """Rotate the wheels `rotations` times."""
    for wheel in score.body.of("wheel"):
        score.bend(wheel.joints[0], X, TAU * rotations * score.time * rng.uniform(0.95, 1.05))


def open_jaw(score: Score, amount: ArrayLike) -> None:
    """Open the jaw by an amount, () or (F,), radians."""
    # a jaw points ahead, on a level head or an upright one, so it opens about +x
    for jaw in score.body.of("jaw"):
        score.bend(jaw.joints[0], X, amount)

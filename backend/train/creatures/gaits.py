"""Gaits: the phase of each leg, for any number of legs, and the path of a foot."""

from __future__ import annotations

import numpy as np

from ...geometry.rotations import Array
from .body import Body, Chain, leg_length
from .parts import Rng
from .score import Score

# shares of the cycle: between left and right, between a row of legs and the row ahead, and with the foot on the ground
GAITS = {
    "walk": (0.5, 0.75, 0.64), "trot": (0.5, 0.5, 0.48), "pace": (0.5, 1.0, 0.52), "gallop": (0.12, 0.5, 0.32),
    "bound": (0.02, 0.5, 0.34), "hop": (0.0, 1.0, 0.45), "run": (0.5, 0.5, 0.36), "tripod": (0.5, 0.5, 0.52), "wave": (0.5, 0.85, 0.7),
    "sneak": (0.5, 0.75, 0.74),
}  # fmt: skip


def gaits_of(body: Body) -> list[str]:
    """The gaits that suit the body's number of rows of legs."""
    rows = 1 + max((leg.row for leg in body.legs), default=-1)
    return {0: [], 1: ["walk", "run", "sneak", "hop"], 2: ["walk", "trot", "pace", "gallop", "bound", "sneak"]}.get(
        rows, ["tripod", "wave"]
    )


def phases(legs: list[Chain], gait: str) -> list[float]:
    """The phase of each leg at time 0, 0..1. At phase 0 the foot touches the ground."""
    apart, behind, _ = GAITS[gait]
    return [(apart * (leg.side == "R") + behind * leg.row) % 1.0 for leg in legs]


def foot_path(phase: Array, duty: float) -> tuple[Array, Array, Array]:
    """Phase (F,) -> the foot's distance ahead of the middle (-0.5..0.5 of a stride), its height (0..1) and its pitch (-0.35..1)."""
    swing = np.clip((phase - duty) / (1 - duty), 0, 1)
    ahead = np.where(phase < duty, 0.5 - phase / duty, -0.5 + swing * swing * (3 - 2 * swing))
    pitch = np.interp(phase, [0, 0.15 * duty, 0.65 * duty, duty, (1 + duty) / 2, 1], [-0.35, 0, 0, 1, 0.4, -0.35])
    return ahead, np.sin(np.pi * swing), pitch


def step(score: Score, rng: Rng, gait: str, cycles: float, vigour: float = 1.0, heading: float = 0.0) -> Array:
    """Make all legs step `cycles` times -> (F,) the phase of the first row's left leg.

    heading: direction of the movement, radians from straight ahead, positive to the creature's left.
    """
    body, legs = score.body, score.body.legs
    clock = cycles * score.time + rng.random()
    duty = GAITS[gait][2]
    length = np.median([leg_length(body, leg) for leg in legs])
    stride = length * rng.uniform(0.45, 0.8) * vigour * (1.25 if duty < 0.5 else 1.0)
    lift, pitch = length * rng.uniform(0.1, 0.25), rng.uniform(0.3, 0.9) * (0.7 if duty < 0.5 else 1.0)
    for leg, offset in zip(legs, phases(legs, gait), strict=True):
        ahead, up, tilt = foot_path((clock + offset) % 1.0, duty)
        way = np.array([np.sin(heading), -np.cos(heading), 0.0]) * stride
        score.plant(leg, ahead[:, None] * way + up[:, None] * [0, 0, lift], pitch * tilt)
        _bend_toes(score, leg, pitch * tilt)
    return clock


def _bend_toes(score: Score, leg: Chain, pitch: Array) -> None:
    """Toes stay on the ground while the heel lifts."""
    for joint in leg.joints[leg.first + 3 :]:
        score.bend(joint, [-1, 0, 0], 0.75 * np.maximum(pitch, 0))

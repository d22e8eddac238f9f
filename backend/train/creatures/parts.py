"""Adds parts that many body plans share: heads, tails, legs, wings, hands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ...geometry.rotations import Array
from .body import SIDES, Sketch, curve

Rng = np.random.Generator


def chance(rng: Rng, share: float) -> bool:
    """True in this share of draws."""
    return bool(rng.random() < share)


def mirror(points: ArrayLike, sign: float) -> Array:
    """Points (..., 3) of the left side, kept for sign 1 and mirrored to the right for sign -1."""
    return np.asarray(points, float) * [sign, 1, 1]


def add_head(sketch: Sketch, rng: Rng, parent: int, start: Array, direction: ArrayLike, size: float, ears: float = 0.5) -> int:
    """Add a head of one bone, and at times a jaw, ears and horns -> its bone. size: its length. ears: their probability."""
    along = np.asarray(direction, float) / np.linalg.norm(direction)
    level = abs(along[2]) < 0.7
    blunt = rng.uniform(0.5, 0.9) if level else rng.uniform(0.8, 1.05)
    thick = size * rng.uniform(0.36, 0.5)
    if not level:  # a ball on the neck rather than a tube
        size, thick, blunt = 0.7 * size, thick * rng.uniform(0.6, 0.8), rng.uniform(1.0, 1.5)
    head = sketch.grow("head", "head", np.stack([start, start + along * size]), [thick, thick * blunt], parent)[0]
    if chance(rng, 0.35):
        _add_jaw(sketch, rng, head, start, along, size, level)
    top = start + along * size * (0.3 if level else 0.85) + (np.array([0, 0, 0.3 * size]) if level else 0)
    if chance(rng, ears):
        length, count = size * rng.uniform(0.35, 1.1), int(rng.integers(1, 4))
        lean, narrow = rng.uniform(-0.4, 0.5), rng.uniform(0.3, 0.8)
        for side, sign in SIDES:
            points = curve(top + mirror([0.28 * size, 0, 0], sign), mirror([0.5, lean, 1], sign), length, count)
            sketch.grow("ear", "ear", points, [0.13 * size, 0.05 * size], head, side, flat=(1.0, narrow))
    if chance(rng, 0.2):
        length, bend = size * rng.uniform(0.4, 1.1), [rng.uniform(-0.4, 1), rng.uniform(-1, 1), rng.uniform(-0.3, 1)]
        for side, sign in SIDES:
            points = curve(
                top + mirror([0.18 * size, 0, 0], sign),
                mirror([0.5, 0.2, 1], sign),
                length,
                1 + int(chance(rng, 0.3)),
                mirror(bend, sign),
            )
            sketch.grow("horn", "horn", points, [0.09 * size, 0.02 * size], head, side)
    return head


def _add_jaw(sketch: Sketch, rng: Rng, head: int, start: Array, along: Array, size: float, level: bool) -> None:
    """Add a jaw: below a level head and along it, or ahead from the lower third of an upright one."""
    hinge = start + (along * 0.25 + [0, 0, -0.2]) * size if level else start + along * 0.25 * size + [0, -0.15 * size, 0]
    reach = along * size * rng.uniform(0.65, 0.9) if level else np.array([0, -0.45, -0.05]) * size
    sketch.grow("jaw", "jaw", np.stack([hinge, hinge + reach]), [0.17 * size, 0.09 * size], head, flat=(1.2, 0.7))


def add_tail(sketch: Sketch, rng: Rng, parent: int, start: Array, length: float, radius: float, count: int) -> None:
    """Add a tail of `count` bones, thin or bushy."""
    rise, bend = rng.uniform(-0.6, 0.7), [0, rng.uniform(-0.3, 0.3), rng.uniform(-0.8, 0.9)]
    bushy = rng.uniform(0.9, 1.8) if chance(rng, 0.3) else rng.uniform(0.2, 0.7)
    wide = np.interp(np.linspace(0, 1, count + 1), [0, 0.7, 1], [radius, radius * bushy, radius * min(bushy, 0.3)])
    sketch.grow("tail", "tail", curve(start, [0, 1, rise], length, count, bend), wide, parent)


def zigzag(hip: Array, shape: str, rng: Rng) -> Array:
    """Hip, knee, ankle, ball and end of the toes of a leg on the floor, (5, 3).

    shape: "flat" as of a human, "toe" as a dog's hind leg, "front" as its front leg. Knees are off the line from hip to ankle, on the side
    where they bend: ahead, or back for "front", whose knee is an elbow.
    """
    wobble = rng.uniform(0.8, 1.2, 4)
    stance = {
        # y and z of knee, ankle, ball, toe end, in leg heights
        "flat": [[-0.07 * wobble[0], 0.53], [0.02, 0.09], [-0.13 * wobble[1], 0.025], [-0.2 * wobble[1], 0.02]],
        "toe": [[-0.15 * wobble[0], 0.6], [0.17 * wobble[1], 0.28 * wobble[2]], [0.03, 0.04], [-0.08 * wobble[3], 0.02]],
        "front": [[0.11 * wobble[0], 0.58], [0.0, 0.17 * wobble[2]], [-0.05, 0.04], [-0.13 * wobble[3], 0.02]],
    }[shape]
    plane = np.array([[0.0, 1.0], *stance]) * hip[2]
    return np.column_stack([np.full(5, hip[0]), hip[1] + plane[:, 0], plane[:, 1]])


def add_legs(
    sketch: Sketch, rng: Rng, parent: int, hip: Array, shape: str, radius: float, limb: str = "", row: int = 0, shoulder: bool = False
) -> None:  # fmt: skip
    """Add a pair of legs. hip: (3,) of the left one. shoulder: add a bone from the middle of the body to the hip."""
    points = zigzag(hip, shape, rng)
    points[1:, 0] += hip[0] * rng.uniform(-0.25, 0.35) * np.array([0.5, 0.9, 1, 1])
    roles = ["thigh", "shin", "foot", "toe"] if shape != "front" else ["upper_leg", "lower_leg", "paw", "toe"]
    paw = radius * rng.uniform(0.5, 0.95)
    wide = np.array([radius, radius * rng.uniform(0.55, 0.8), radius * rng.uniform(0.4, 0.6), paw, paw * 0.8])
    if chance(rng, 0.45):  # the foot is one bone, toes and all
        points, roles, wide = np.delete(points, 3, axis=0), roles[:3], np.delete(wide, 3)
    if shoulder:
        points, wide = np.insert(points, 0, [0.35 * hip[0], hip[1], hip[2] * 1.02], axis=0), np.insert(wide, 0, radius)
        roles = ["hip" if shape != "front" else "shoulder", *roles]
    for side, sign in SIDES:
        sketch.grow("leg", roles, mirror(points, sign), wide, parent, side, limb, row, first=int(shoulder))


def add_arms(
    sketch: Sketch, rng: Rng, parent: int, shoulder: Array, length: float, radius: float, fingers: int, collar: bool
) -> None:
    """Add a pair of arms that hang down with elbows a little bent, and hands with fingers of one to three bones."""
    elbow = shoulder + np.array([0.12, 0.03, -0.46]) * length
    wrist = elbow + np.array([0.05, -0.12, -0.38]) * length
    knuckle = wrist + np.array([0.0, -0.05, -0.15]) * length
    points = np.stack([shoulder, elbow, wrist, knuckle])
    roles, wide = ["upper_arm", "forearm", "hand"], radius * np.array([1, 0.8, rng.uniform(0.6, 0.8), rng.uniform(0.5, 1.0)])
    if collar:
        points, wide = np.insert(points, 0, shoulder * [0.2, 1, 1], axis=0), np.insert(wide, 0, radius)
        roles = ["collar", *roles]
    bones, reach = int(rng.integers(1, 4)), length * rng.uniform(0.1, 0.2)
    for side, sign in SIDES:
        hand = sketch.grow("arm", roles, mirror(points, sign), wide, parent, side)[-1]
        for finger in range(fingers):
            spread = (finger - (fingers - 1) / 2) / max(fingers - 1, 1)
            start = knuckle + np.array([0, spread * 1.2 * radius, 0])
            tips = curve(start, [0.05, 0.6 * spread - 0.1, -1], reach * (1 - 0.3 * abs(spread)), bones)
            sketch.grow("finger", "finger", mirror(tips, sign), [0.3 * radius, 0.2 * radius], hand, side, str(finger))


def add_wings(
    sketch: Sketch, rng: Rng, parent: int, root: Array, span: float, chord: float, bones: int, limb: str = "", row: int = 0
) -> None:
    """Add a pair of flat wings of `bones` bones, spread out to the sides. chord: from the front edge to the back edge."""
    sweep, rise = rng.uniform(-0.35, 0.5), rng.uniform(0.0, 0.4)
    roles = {1: ["wing"], 2: ["wing_upper", "wing_lower"]}.get(bones, ["wing_upper", "wing_lower", *["wing_hand"] * (bones - 2)])
    deep = chord * np.interp(np.linspace(0, 1, bones + 1), [0, 0.5, 1], [0.8, 1, 0.35])
    for side, sign in SIDES:
        points = mirror(curve(root, [1, sweep, rise], span, bones, [0, rng.uniform(0, 0.1), -rise]), sign)
        sketch.grow("wing", roles, points, deep, parent, side, limb, row, flat=(1.0, 0.16), across=(0.0, 1.0, 0.0))


def crawl_leg(hip: Array, out: ArrayLike, reach: float, knee: float, coxa: bool, tarsus: bool) -> tuple[Array, list[str]]:
    """A leg that goes up to its knee and then down to the floor -> its points and the roles of its bones.

    out: unit (x, y) away from the body. knee: the knee's height above the hip, in reaches.
    """
    away = np.array([*np.asarray(out, float), 0.0])
    points, roles = [hip], []
    if coxa:
        points, roles = [hip, hip + away * 0.12 * reach], ["coxa"]
    points.append(hip + away * 0.45 * reach + [0, 0, knee * reach])
    end = hip + away * reach
    ankle = np.array([end[0], end[1], 0.02 * reach])
    if tarsus:
        points += [ankle - away * 0.14 * reach + [0, 0, 0.1 * reach], ankle]
    else:
        points.append(ankle)
    return np.stack(points), [*roles, "thigh", "shin", *(["foot"] if tarsus else [])]


def add_crawl_legs(
    sketch: Sketch, rng: Rng, parents: Sequence[int], hips: Sequence[Array], angles: Sequence[float], reach: Array, radius: float, labels: Sequence[str],
    knee: float, coxa: bool, tarsus: bool,
) -> None:  # fmt: skip
    """Add pairs of legs as from `crawl_leg`, from front to back. angles: radians from straight sideways, positive backwards."""
    thin = rng.uniform(0.25, 0.6)
    for row, (parent, hip, angle) in enumerate(zip(parents, hips, angles, strict=True)):
        points, roles = crawl_leg(hip, [np.cos(angle), np.sin(angle)], reach[row], knee, coxa, tarsus)
        for side, sign in SIDES:
            sketch.grow(
                "leg", roles, mirror(points, sign), [radius, radius * thin], parent, side, labels[row], row, first=int(coxa)
            )

"""Body plans on two and four legs: biped, quadruped, bird."""

from __future__ import annotations

import numpy as np

from .body import SIDES, Body, Sketch, curve
from .parts import Rng, add_arms, add_head, add_legs, add_tail, add_wings, chance, mirror


def biped(rng: Rng) -> Body:
    """An upright body with arms, from human to dwarf, robot or giant, at times with a tail or wings."""
    sketch = Sketch("biped")
    hip = rng.uniform(0.3, 0.95)
    torso, girth = rng.uniform(0.4, 0.65), rng.uniform(0.09, 0.2)
    count, wide = int(rng.integers(1, 5)), girth * rng.uniform(0.9, 1.3)
    trunk = curve([0, 0, hip], [0, rng.uniform(-0.25, 0.05), 1], torso, count + 1)
    flat = (1.0, rng.uniform(0.6, 0.95))
    pelvis = sketch.grow("root", "pelvis", trunk[:2], [wide, girth], -1, flat=flat)[0]
    chest = sketch.grow("spine", "spine", trunk[1:], [girth, wide * rng.uniform(0.9, 1.2)], pelvis, flat=flat)[-1]
    neck = curve(trunk[-1], [0, rng.uniform(-0.3, 0), 1], rng.uniform(0.04, 0.14), 1)
    bottom = chest
    if chance(rng, 0.8):
        bottom = sketch.grow("neck", "neck", neck, [0.55 * girth, 0.5 * girth], chest)[0]
    size = rng.uniform(0.2, 0.5)
    add_head(sketch, rng, bottom, neck[-1], [0, rng.uniform(-0.4, 0), 1], size, ears=0.2)
    shoulder = trunk[-1] + np.array([wide * rng.uniform(1.05, 1.4), 0, -0.06])
    thick = rng.uniform(0.04, 0.09)
    add_arms(sketch, rng, chest, shoulder, rng.uniform(0.5, 0.85), thick, int(rng.choice([0, 0, 2, 3, 4, 5])), chance(rng, 0.6))
    hips = np.array([wide * rng.uniform(0.5, 0.75), 0, hip * 0.97])
    add_legs(
        sketch,
        rng,
        pelvis,
        hips,
        "toe" if chance(rng, 0.2) else "flat",
        rng.uniform(0.06, 0.13) * (0.4 + 0.6 * hip),
        shoulder=chance(rng, 0.15),
    )
    if chance(rng, 0.25):
        add_tail(
            sketch,
            rng,
            pelvis,
            trunk[0] + [0, 0.6 * girth, 0],
            rng.uniform(0.3, 0.8),
            rng.uniform(0.03, 0.08),
            int(rng.integers(2, 7)),
        )
    if chance(rng, 0.15):
        add_wings(
            sketch,
            rng,
            chest,
            trunk[-1] + [0.05, 0.7 * girth, -0.1],
            rng.uniform(0.5, 1.1),
            rng.uniform(0.12, 0.3),
            int(rng.integers(1, 4)),
        )
    return sketch.body()


def quadruped(rng: Rng) -> Body:
    """A body on four legs, from mouse to giraffe and lizard. The root is the pelvis, or a bone of its own in the middle."""
    sketch = Sketch("quadruped")
    length, height = rng.uniform(0.7, 1.2), rng.uniform(0.3, 1.0)
    girth = rng.uniform(0.11, 0.22)
    slope = rng.uniform(-0.1, 0.2)
    count = int(rng.integers(2, 5))
    rump = np.array([0, 0.5 * length, height + girth * 0.4])
    flat = (rng.uniform(0.75, 1.0), 1.0)
    trunk = curve(rump, [0, -1, slope], length, count + 1, [0, 0, rng.uniform(-0.2, 0.2)])
    wide = girth * np.interp(np.linspace(0, 1, count + 2), [0, 0.4, 0.8, 1], [0.85, rng.uniform(0.85, 1.15), 1.05, 0.75])
    if chance(rng, 0.4):
        middle = trunk.mean(0)
        root = sketch.grow("root", "root", np.stack([middle, middle + [0, 0, 0.1]]), [0.3 * girth, 0.3 * girth], -1)[0]
        pelvis = sketch.grow("spine", "pelvis", trunk[:2], wide[:2], root, flat=flat)[0]
    else:
        pelvis = sketch.grow("root", "pelvis", trunk[:2], wide[:2], -1, flat=flat)[0]
    chest = sketch.grow("spine", "spine", trunk[1:], wide[1:], pelvis, flat=flat)[-1]
    reach = rng.uniform(0.15, 0.4) if chance(rng, 0.8) else rng.uniform(0.5, 0.9)
    rise, bones = rng.uniform(0.1, 2.5), int(rng.integers(1, 5))
    neck = curve(trunk[-1], [0, -1, rise], reach, bones)
    size = rng.uniform(0.22, 0.42)
    last = sketch.grow("neck", "neck", neck, [girth * 0.65, min(0.4 * size, girth * 0.6)], chest)[-1]
    add_head(sketch, rng, last, neck[-1], [0, -1, rng.uniform(-0.7, 0.1)], size, ears=0.8)
    out, thick, shoulder = rng.uniform(0.55, 0.8) * girth, rng.uniform(0.05, 0.1) * (0.5 + 0.5 * height), chance(rng, 0.35)
    add_legs(
        sketch, rng, chest, np.array([out, trunk[-1][1] + 0.08, trunk[-1][2] - 0.5 * girth]), "front", thick, "front", 0, shoulder
    )
    add_legs(
        sketch, rng, pelvis, np.array([out, rump[1] - 0.07, height]), "toe", thick * rng.uniform(1, 1.4), "hind", 1, shoulder
    )
    if chance(rng, 0.9):
        add_tail(
            sketch,
            rng,
            pelvis,
            rump + [0, 0.6 * girth, 0.2 * girth],
            rng.uniform(0.15, 0.9),
            rng.uniform(0.03, 0.08),
            int(rng.integers(1, 9)),
        )
    return sketch.body()


def bird(rng: Rng) -> Body:
    """A level body on two legs, with wings, or with a long tail and small arms, as a theropod has."""
    sketch = Sketch("bird")
    height, length = rng.uniform(0.25, 0.8), rng.uniform(0.45, 0.8)
    girth, rise = rng.uniform(0.13, 0.24), rng.uniform(0.1, 0.9)
    theropod = chance(rng, 0.3)
    hips = np.array([0, 0.12, height + 0.3 * girth])
    trunk = curve(hips, [0, -1, rise], length, int(rng.integers(2, 4)))
    pelvis = sketch.grow("root", "pelvis", trunk[:2], [girth, girth * 1.1], -1)[0]
    chest = sketch.grow("spine", "spine", trunk[1:], [girth * 1.1, girth * 0.7], pelvis)[-1]
    neck = curve(trunk[-1], [0, -0.6, 1], rng.uniform(0.1, 0.5), int(rng.integers(1, 4)), [0, rng.uniform(-0.6, 0.3), 0])
    size = rng.uniform(0.17, 0.34)
    last = sketch.grow("neck", "neck", neck, [girth * 0.5, 0.4 * size], chest)[-1]
    head = add_head(sketch, rng, last, neck[-1], [0, -1, rng.uniform(-0.3, 0.2)], size, ears=0.05)
    if not theropod and chance(rng, 0.7):
        beak = neck[-1] + np.stack([[0, -size, 0], [0, -size * rng.uniform(1.3, 1.9), -0.05]])
        sketch.grow("horn", "beak", beak, [0.16 * size, 0.03 * size], head)
    leg = np.array([rng.uniform(0.4, 0.65) * girth, 0.1, height])
    add_legs(sketch, rng, pelvis, leg, "toe", rng.uniform(0.05, 0.09) * (0.5 + height), shoulder=chance(rng, 0.2))
    back = hips + [0, 0.7 * girth, 0]
    if theropod:
        add_tail(sketch, rng, pelvis, back, rng.uniform(0.6, 1.1), girth * 0.6, int(rng.integers(3, 7)))
        add_arms(
            sketch,
            rng,
            chest,
            trunk[-1] + [0.7 * girth, 0, -0.4 * girth],
            rng.uniform(0.15, 0.35),
            0.03,
            int(rng.integers(0, 4)),
            False,
        )
        return sketch.body()
    fan = curve(back, [0, 1, rng.uniform(-0.5, 0.5)], rng.uniform(0.12, 0.45), int(rng.integers(1, 3)))
    sketch.grow("tail", "tail", fan, [0.06, rng.uniform(0.06, 0.15)], pelvis, flat=(1.0, 0.25))
    add_wings(
        sketch,
        rng,
        chest,
        trunk[-1] + [0.8 * girth, 0.05, 0.1 * girth],
        rng.uniform(0.5, 1.3),
        rng.uniform(0.1, 0.2),
        int(rng.integers(1, 5)),
    )
    return sketch.body()


def machine(rng: Rng) -> Body:
    """A walker, a turret on wheels or an arm on a base."""
    return (_walker, _turret, _crane)[rng.integers(3)](rng)


def _walker(rng: Rng) -> Body:
    """A hull on two or four legs, with a gun on either side."""
    sketch = Sketch("machine")
    height, girth = rng.uniform(0.5, 1.0), rng.uniform(0.15, 0.3)
    hull = np.stack([[0, girth, height], [0, -1.2 * girth, height + rng.uniform(0, 0.2)]])
    root = sketch.grow("root", "body", hull, [girth, girth * 0.9], -1, flat=(1.2, 0.8))[0]
    cab = curve(hull[1] + [0, 0.6 * girth, 0.5 * girth], [0, -1, 0.1], 1.1 * girth, 1)
    sketch.grow("turret", "head", cab, [0.6 * girth, 0.5 * girth], root)
    rows = int(rng.choice([1, 1, 2]))
    for row in range(rows):
        y = (row - (rows - 1) / 2) * 2 * girth
        limb = ("front", "hind")[row] if rows == 2 else ""
        add_legs(
            sketch,
            rng,
            root,
            np.array([1.3 * girth, y, height]),
            str(rng.choice(["toe", "flat"])),
            rng.uniform(0.06, 0.12),
            limb,
            row,
            chance(rng, 0.5),
        )
    for side, sign in SIDES:
        gun = curve([1.2 * girth * sign, -0.2 * girth, height + 0.5 * girth], [0, -1, 0], rng.uniform(0.25, 0.5), 2)
        sketch.grow("barrel", ["arm", "gun"], gun, [0.09, 0.06], root, side)
    return sketch.body()


def _turret(rng: Rng) -> Body:
    """A base with wheels, a turret that turns and a barrel that aims."""
    sketch = Sketch("machine")
    length, wide, wheel = rng.uniform(0.6, 1.2), rng.uniform(0.2, 0.35), rng.uniform(0.07, 0.16)
    base = np.array([[0, 0.5 * length, wheel * 1.5], [0, -0.5 * length, wheel * 1.5]])
    root = sketch.grow("root", "base", base, [wide, wide * 0.9], -1, flat=(1.0, 0.5))[0]
    top = wheel * 1.5 + 0.5 * wide
    mount = sketch.grow(
        "turret", "turret", np.array([[0, 0.1, top], [0, 0.05, top + rng.uniform(0.15, 0.3)]]), [0.8 * wide, 0.6 * wide], root
    )[0]
    gun = curve([0, -0.4 * wide, top + 0.12], [0, -1, 0.1], rng.uniform(0.4, 0.8), int(rng.integers(1, 3)))
    sketch.grow("barrel", "barrel", gun, [0.09, 0.05], mount)
    for row, y in enumerate(np.linspace(-0.42, 0.42, int(rng.integers(2, 5))) * length):
        for side, sign in SIDES:
            axle = np.array([[wide * sign, y, wheel], [(wide + 0.6 * wheel) * sign, y, wheel]])
            sketch.grow("wheel", "wheel", axle, [wheel, wheel], root, side, str(row), row)
    if chance(rng, 0.5):
        mast = curve([0.4 * wide, 0.2, top + 0.1], [0, 0.2, 1], rng.uniform(0.2, 0.5), int(rng.integers(1, 4)))
        sketch.grow("antenna", "antenna", mast, [0.03, 0.015], mount)
    return sketch.body()


def _crane(rng: Rng) -> Body:
    """An arm of three to six bones on a base that turns, with two to four fingers."""
    sketch = Sketch("machine")
    base = np.array([[0, 0, 0.0], [0, 0, rng.uniform(0.12, 0.3)]])
    wide = rng.uniform(0.15, 0.25)
    root = sketch.grow("root", "base", base, [wide, wide * 0.8], -1)[0]
    mount = sketch.grow("turret", "turret", np.stack([base[1], base[1] + [0, 0, 0.15]]), [wide * 0.7, wide * 0.6], root)[0]
    bones, radius = int(rng.integers(3, 7)), rng.uniform(0.05, 0.1)
    arm = curve(
        base[1] + [0, 0, 0.15],
        [0, rng.uniform(-0.2, 0.6), 1],
        rng.uniform(0.8, 1.4),
        bones,
        [0, rng.uniform(-2.5, -1), rng.uniform(-1.8, 0)],
    )
    wrist = sketch.grow("joint", "arm", arm, [radius, radius * 0.5], mount)[-1]
    along = (arm[-1] - arm[-2]) / np.linalg.norm(arm[-1] - arm[-2])
    for finger, angle in enumerate(np.arange(n := int(rng.integers(2, 5))) * 2 * np.pi / n):
        out = np.cos(angle) * np.array([1.0, 0, 0]) + np.sin(angle) * np.cross(along, [1.0, 0, 0])
        claw = curve(arm[-1] + out * 0.4 * radius, along + 0.8 * out, rng.uniform(0.12, 0.2), 2, -1.2 * out)
        sketch.grow("finger", "finger", claw, [0.4 * radius, 0.2 * radius], wrist, "", str(finger))
    for side, sign in SIDES:  # plates that show where the base's front is
        sketch.grow(
            "plate",
            "panel",
            mirror([[0.5 * wide, -0.8 * wide, 0.05], [0.5 * wide, -1.3 * wide, 0.05]], sign),
            [0.05, 0.04],
            root,
            side,
        )
    return sketch.body()

"""The actions of creatures' clips, composed of layers of motion."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .body import Body, upper_arm
from .gaits import gaits_of, step
from .motions import (
    TAU,
    bob,
    breathe,
    drift,
    ease,
    flap,
    flex_legs,
    fold_wings,
    grip,
    look,
    open_jaw,
    pulse,
    smooth_noise,
    spin_wheels,
    sway,
    swing_arms,
    tremble,
    wave,
)  # fmt: skip
from .parts import Rng, chance
from .score import Score, X, Y, Z

Action = Callable[[Score, Rng], None]
QUICKEST = 14  # fewest frames of a cycle of a gait


def plant_feet(score: Score) -> None:
    """Keep the feet where they are, and fold the wings."""
    for leg in score.body.legs:
        score.plant(leg)
    fold_wings(score, 0.9)


def idle(score: Score, rng: Rng) -> None:
    """Stand, breathe, and at times look around."""
    plant_feet(score)
    breathe(score, rng, rng.uniform(0.6, 1.6))
    sway(score, rng)
    if chance(rng, 0.6):
        look(score, rng, rng.uniform(0.15, 0.6))
    tremble(score, rng, rng.uniform(1, 4))


def look_around(score: Score, rng: Rng) -> None:
    """Stand and look around, with the trunk leaning."""
    plant_feet(score)
    breathe(score, rng)
    look(score, rng, rng.uniform(0.5, 1.0))
    sway(score, rng, 1.4)
    _lean(score, rng, 0.12)
    tremble(score, rng, 3)


def _lean(score: Score, rng: Rng, wide: float) -> None:
    """Rotate and shift the trunk slowly over planted feet."""
    score.bends[:, 0] += wide * smooth_noise(rng, score.frames, (3,), 1.5) * [0.6, 0.5, 1]
    score.shift += 0.12 * wide * score.body.size * smooth_noise(rng, score.frames, (3,), 1.5) * [1, 1, 0.4]


def _travel(score: Score, rng: Rng, gait: str, cycles: float, vigour: float) -> None:
    """Step in a gait, with the movement of trunk, arms and tail that goes with it."""
    plant_feet(score)
    cycles = min(cycles, score.frames / QUICKEST)
    clock = step(score, rng, gait, cycles, vigour, rng.normal(0, 0.15))
    bob(score, rng, clock, vigour)
    swing_arms(score, rng, clock, rng.uniform(0.2, 0.6) * vigour)
    _gallop(score, rng, gait, clock)
    body = score.body
    if body.of("segment"):
        wave(score, body.of("segment")[0].joints, Z, rng.uniform(0.03, 0.14), cycles, 0.12, rng.random())
    for tail in body.of("tail", "ear", "antenna", "abdomen"):
        wave(
            score,
            tail.joints,
            Z if chance(rng, 0.6) else X,
            rng.uniform(0.05, 0.2),
            cycles * rng.choice([1, 1, 2]),
            0.1,
            rng.random(),
            1.4,
        )
    if chance(rng, 0.3):
        look(score, rng, 0.25)
    spin_wheels(score, rng, 2 * vigour)
    tremble(score, rng, rng.uniform(1, 3))


def _gallop(score: Score, rng: Rng, gait: str, clock: np.ndarray) -> None:
    """Bend and stretch the back, and rock the trunk, in gaits that leap."""
    if gait not in ("gallop", "bound", "hop"):
        return
    length = score.body.size
    score.shift[:, 2] += rng.uniform(0.01, 0.035) * length * np.sin(TAU * clock)
    if gait == "hop":
        return
    score.bend(0, X, rng.uniform(0.05, 0.14) * np.sin(TAU * (clock + 0.2)))
    for chain in score.body.of("spine", "neck"):
        wave(score, chain.joints, X, rng.uniform(0.1, 0.3) / len(chain.joints) ** 0.5, 1.0, 0.0, 0.0)
        for joint in chain.joints:
            score.bend(joint, X, rng.uniform(0.05, 0.2) * np.sin(TAU * (clock + 0.45)) / len(chain.joints) ** 0.5)


def walk(score: Score, rng: Rng) -> None:
    """Walk in a slow gait."""
    kinds = [gait for gait in gaits_of(score.body) if gait in ("walk", "pace", "tripod", "wave")]
    _travel(score, rng, str(rng.choice(kinds)), rng.uniform(1, 2), rng.uniform(0.7, 1.1))


def run(score: Score, rng: Rng) -> None:
    """Run in a fast gait, leaning ahead on two legs."""
    kinds = [gait for gait in gaits_of(score.body) if gait in ("run", "trot", "gallop", "bound", "hop", "tripod")]
    lean = rng.uniform(0, 0.3) if len(score.body.legs) == 2 else 0.0
    score.bend(0, X, lean)
    _travel(score, rng, str(rng.choice(kinds)), rng.uniform(1.6, 3), rng.uniform(1.1, 1.5))


def sneak(score: Score, rng: Rng) -> None:
    """Step slowly, with the body low."""
    low = rng.uniform(0.05, 0.22)
    score.shift[:, 2] -= low * score.body.heads[0, 2]
    gait = "sneak" if "sneak" in gaits_of(score.body) else "wave"
    _travel(score, rng, gait, rng.uniform(0.8, 1.4), rng.uniform(0.5, 0.9))


def slither(score: Score, rng: Rng) -> None:
    """Send one wave from the head to the end of the tail. The bones of the front part run from the root to the head, so it runs backwards
    there."""
    cycles, lag, swing = rng.uniform(1, 2.2), rng.uniform(0.07, 0.14), rng.uniform(0.16, 0.34)
    start, axis = rng.random(), Z if chance(rng, 0.85) else X
    tail = [joint for chain in score.body.of("tail", "tentacle", "abdomen", "segment") for joint in chain.joints]
    wave(score, tuple(tail), axis, swing, cycles, lag, start - lag)
    for chain in score.body.of("spine", "neck"):
        wave(score, chain.joints, axis, -swing, cycles, -lag, start)
    for chain in score.body.of("head"):
        wave(score, chain.joints, axis, 0.8 * swing, cycles, 0, start + 0.5)
    score.bend(0, axis, 0.5 * swing * np.sin(TAU * (cycles * score.time + start + 0.25)))
    tremble(score, rng, 2)


def swim(score: Score, rng: Rng) -> None:
    """Beat the tail, sideways or up and down, swing the head against it, and row with the fins."""
    cycles, swing, start = rng.uniform(1.2, 3.5), rng.uniform(0.15, 0.42), rng.random()
    level = any(bone.role == "tail_fin" and bone.across[0] > 0.5 for bone in score.body.bones)
    axis = X if level else Z
    joints = tuple(joint for chain in score.body.of("tail") for joint in chain.joints)
    wave(score, joints, axis, swing, cycles, rng.uniform(0.06, 0.14), start, 1.6)
    score.bend(0, axis, -0.45 * swing * np.sin(TAU * (cycles * score.time + start + 0.15)))
    for chain in score.body.of("head"):
        wave(score, chain.joints, axis, 0.3 * swing, cycles, 0, start + 0.1)
    for fin in score.body.of("fin"):
        sign = -1.0 if fin.side == "L" else 1.0
        wave(score, fin.joints, sign * Y + 0.4 * Z, rng.uniform(0.15, 0.5), cycles * rng.choice([0.5, 1]), 0.1, start)
    score.bends[:, 0] += rng.uniform(0.02, 0.15) * smooth_noise(rng, score.frames, (3,), 1)
    open_jaw(score, rng.uniform(0, 0.2) * (1 + np.sin(TAU * cycles * score.time)))
    for leg in score.body.legs:
        flex_legs(score, leg, 0.4 + 0.2 * np.sin(TAU * (score.time + 0.1 * leg.row)))
    tremble(score, rng, 2)


def pulsate(score: Score, rng: Rng) -> None:
    """Open and close all arms together, as a jellyfish swims, or one after the other, as an octopus crawls."""
    cycles, swing, apart = rng.uniform(1, 2.5), rng.uniform(0.15, 0.4), rng.choice([0.0, 0.0, 0.1, 0.3])
    for chain in score.body.of("tentacle"):
        first = score.body.bones[chain.joints[0]]
        out = (first.tail - score.body.heads[0]) * [1, 1, 0]
        axis = np.cross(Z, out) / max(np.linalg.norm(out), 1e-9)
        wave(score, chain.joints, axis, swing, cycles, rng.uniform(0.08, 0.15), apart * chain.row, 1.2)
        wave(score, chain.joints, Z, 0.3 * swing, cycles, 0.1, rng.random(), 1.5)
    score.shift[:, 2] += 0.05 * score.body.size * np.sin(TAU * cycles * score.time)
    score.bends[:, 0] += 0.15 * smooth_noise(rng, score.frames, (3,), 1.5)
    tremble(score, rng, 3)


def fly(score: Score, rng: Rng) -> None:
    """Beat the wings, with the body level or upright and the legs hanging or tucked in."""
    flap(score, rng, rng.uniform(1.5, 4), rng.uniform(0.35, 0.9))
    lean = rng.uniform(-0.3, 0.4)
    score.bend(0, X, lean)
    score.bends[:, 0] += 0.1 * smooth_noise(rng, score.frames, (3,), 1)
    for chain in score.body.of("neck", "head"):
        score.bend(chain.joints[-1], X, -0.5 * lean)
    tuck = rng.uniform(0.2, 1.2)
    for leg in score.body.legs:
        flex_legs(score, leg, tuck + 0.12 * np.sin(TAU * (score.time + rng.random())))
    sway(score, rng, 1.3)
    tremble(score, rng, 2)


def attack(score: Score, rng: Rng) -> None:
    """Wind up, strike with head, arms, claws or tail, and return."""
    plant_feet(score)
    begin, top = rng.uniform(0.05, 0.2), rng.uniform(0.4, 0.6)
    blow, back = pulse(score.time, begin + 0.15, top, rng.uniform(0.75, 0.95)), pulse(score.time, begin - 0.05, begin + 0.15, top)
    force = rng.uniform(0.6, 1.2)
    long = score.body.size
    score.shift[:, 1] += long * force * (0.05 * back - 0.13 * blow)
    score.shift[:, 2] -= long * 0.03 * force * blow
    score.bend(0, X, force * (0.25 * blow - 0.12 * back))
    neck = [joint for chain in score.body.of("spine", "neck") for joint in chain.joints]
    for joint in neck:
        score.bend(joint, X, force * (0.8 * blow - 0.5 * back) / len(neck) ** 0.8)
    for chain in score.body.of("head"):
        score.bend(chain.joints[0], X, force * (-0.35 * blow + 0.2 * back))
    _strike(score, rng, force * (blow - 0.4 * back))
    open_jaw(score, 0.6 * np.clip(back + blow, 0, 1))
    grip(score, rng, 0.6 * blow)
    sway(score, rng)
    tremble(score, rng, 3)


def _strike(score: Score, rng: Rng, blow: np.ndarray) -> None:
    """Raise one arm or both ahead, bring a tail over the back, and spread the wings."""
    arms = score.body.of("arm")
    chosen = arms if chance(rng, 0.4) else [arm for arm in arms if arm.side == rng.choice(["L", "R"])] or arms[:1]
    raise_, aside = rng.uniform(0.8, 2.0), rng.uniform(-0.5, 0.6)
    for arm in chosen:
        sign = 1.0 if arm.side == "L" else -1.0
        upper = upper_arm(arm)
        score.bend(upper, [-raise_, -sign * aside, 0], blow)
        score.bend(
            arm.joints[max(len(arm.joints) - 2, 0)],
            -X,
            np.maximum(0.9 - 1.6 * blow, 0) * rng.uniform(0.5, 1.2) * np.clip(4 * np.abs(blow), 0, 1),
        )
    curl = rng.uniform(0.15, 0.5) * rng.choice([0, 0, 1])
    for tail in score.body.of("tail", "tentacle"):
        wave(score, tail.joints, X, 0.0, 1, 0, 0)
        for joint in tail.joints:
            score.bend(joint, X, curl * blow)
    fold_wings(score, -0.9 * float(rng.choice([0, 1])))
    for chain in score.body.of("barrel"):
        score.bend(chain.joints[0], X, -0.35 * blow)


def reach_out(score: Score, rng: Rng) -> None:
    """Move arms, tentacles or a machine's arm from place to place over planted feet."""
    plant_feet(score)
    _lean(score, rng, 0.1)
    for chain in score.body.of("arm", "joint", "turret", "tentacle"):
        if chain.part != "tentacle" or chance(rng, 0.6):
            gain = {"arm": 0.9, "joint": 0.6, "turret": 0.0, "tentacle": 0.5}[chain.part]
            drift(score, rng, chain.joints[-3:] if chain.part == "arm" else chain.joints, gain)
    for chain in score.body.of("turret", "barrel"):
        score.bend(
            chain.joints[0], Z if chain.part == "turret" else X, ease(score.time, np.array([0.3, 0.7]), rng.uniform(-0.9, 0.9, 3))
        )
    grip(score, rng, 0.5 + 0.5 * np.sin(TAU * (1.5 * score.time + rng.random())))
    look(score, rng, 0.4)
    sway(score, rng)
    tremble(score, rng, 3)


def drive(score: Score, rng: Rng) -> None:
    """Rotate the wheels, rock the hull, and turn the turret."""
    spin_wheels(score, rng, rng.uniform(0.6, 2.5))
    score.bends[:, 0] += 0.04 * smooth_noise(rng, score.frames, (3,), 3)
    look(score, rng, 0.6)
    sway(score, rng)
    tremble(score, rng, 1.5)


def jump(score: Score, rng: Rng) -> None:
    """Crouch, leap with the feet off the ground, and land."""
    plant_feet(score)
    body = score.body
    high, hip = rng.uniform(0.3, 0.8) * body.size, body.heads[0, 2]
    crouch = pulse(score.time, 0.0, 0.18, 0.34) + pulse(score.time, 0.66, 0.8, 1.0)
    air = np.clip((score.time - 0.3) / 0.4, 0, 1)
    height = 4 * high * air * (1 - air)
    score.shift[:, 2] += height - rng.uniform(0.12, 0.28) * hip * crouch
    tuck = rng.uniform(-0.1, 0.35) * hip * np.sin(np.pi * air) ** 2
    for leg in body.legs:
        lift = (height * 1.0 + tuck)[:, None] * Z
        score.plant(leg, lift, 0.7 * np.sin(np.pi * air))
    score.bend(0, X, rng.uniform(0.05, 0.35) * (crouch - 0.6 * np.sin(np.pi * air)))
    for arm in body.of("arm"):
        score.bend(
            upper_arm(arm),
            X,
            0.8 * crouch - rng.uniform(0.8, 2.2) * np.sin(np.pi * air),
        )
    for tail in body.of("tail", "ear", "tentacle"):
        for joint in tail.joints:
            score.bend(joint, X, 0.25 * (np.sin(np.pi * air) - crouch) / len(tail.joints) ** 0.5)
    fold_wings(score, -0.7)
    flap(score, rng, 2, 0.3)
    tremble(score, rng, 3)


def death(score: Score, rng: Rng) -> None:
    """Fall over, with limbs that go limp or curl, and lie still."""
    body = score.body
    fall = np.clip((score.time - rng.uniform(0.02, 0.15)) / rng.uniform(0.4, 0.65), 0, 1) ** 2
    over = fall + 0.06 * np.sin(np.pi * np.clip((score.time - 0.6) / 0.3, 0, 1))
    axis, angle = (
        (Y, rng.choice([-1, 1]) * rng.uniform(1.2, 1.7)) if chance(rng, 0.6) else (X, rng.choice([-1, 1]) * rng.uniform(1.1, 1.6))
    )
    if len(body.legs) >= 6 and chance(rng, 0.5):
        axis, angle = Y, np.pi
    score.bend(0, axis, angle * over)
    score.bend(0, Z, rng.uniform(-0.4, 0.4) * fall)
    lying = body.bones[0].thick * 1.1
    score.shift[:, 2] -= max(body.heads[0, 2] - lying, 0) * fall
    limp = rng.uniform(8, 22)
    loose = rng.normal(0, 1, (len(body.bones), 3)) * np.minimum(body.limits, 1.0)[:, None] * np.radians(limp) / 1.2
    loose[0] = 0
    curl = rng.uniform(0.1, 1.3)
    for leg in body.legs:
        loose[list(leg.joints[leg.first :])] = 0
        flex_legs(score, leg, curl * rng.uniform(0.6, 1.2) * fall)
    score.bends += fall[:, None, None] * loose
    fold_wings(score, rng.uniform(0, 0.9))
    for tail in body.of("tail", "tentacle"):
        wave(score, tail.joints, X, 0.12, 1.5, 0.1, 0.0)
    open_jaw(score, 0.4 * fall)


def flinch(score: Score, rng: Rng) -> None:
    """Jerk as from a blow, and swing back."""
    plant_feet(score)
    start = rng.uniform(0.1, 0.4)
    time = np.maximum(score.time - start, 0)
    kick = np.exp(-5 * time) * np.sin(TAU * 1.4 * time) * (score.time > start)
    score.bends[:, 0] += kick[:, None] * rng.normal(0, 0.3, 3)
    score.shift += kick[:, None] * rng.normal(0, 0.06, 3) * score.body.size * [1, 1, 0.3]
    for chain in score.body.of("spine", "neck", "head", "arm", "tail", "tentacle", "wing", "turret", "joint"):
        for joint in chain.joints:
            score.bends[:, joint] += kick[:, None] * rng.normal(0, 0.4 if chain.part == "arm" else 0.25, 3)
    breathe(score, rng, 1.5)
    sway(score, rng)
    tremble(score, rng, 4)


def dance(score: Score, rng: Rng) -> None:
    """Swing all parts to one beat over planted feet."""
    plant_feet(score)
    beat = rng.uniform(1.5, 3.0)
    hip = score.body.heads[0, 2]
    sine, double = np.sin(TAU * beat * score.time), np.sin(TAU * 2 * beat * score.time)
    score.shift += hip * np.column_stack([0.12 * sine, 0.03 * double, -0.06 - 0.05 * double])
    score.bend(0, Z, 0.18 * sine)
    score.bend(0, Y, 0.1 * sine)
    for chain in score.body.of("spine", "neck", "head", "tail", "abdomen", "tentacle", "ear", "segment"):
        wave(score, chain.joints, rng.normal(0, 1, 3) * [0.6, 0.7, 0.7], rng.uniform(0.05, 0.25), beat, 0.06, rng.random())
    for arm in score.body.of("arm"):
        sign = 1.0 if arm.side == "L" else -1.0
        score.bend(upper_arm(arm), -sign * Y, rng.uniform(0, 1.4))
        wave(score, arm.joints, rng.normal(0, 0.7, 3), rng.uniform(0.2, 0.6), beat, 0.1, rng.random())
        score.bend(arm.joints[max(len(arm.joints) - 2, 0)], -X, rng.uniform(0.2, 1.4))
    flap(score, rng, beat, 0.3)
    tremble(score, rng, 3)


def wander(score: Score, rng: Rng) -> None:
    """Move by smooth noise alone, with the feet planted or free."""
    if chance(rng, 0.5):
        plant_feet(score)
    _lean(score, rng, 0.2)
    tremble(score, rng, rng.uniform(8, 16))


def repertoire(body: Body) -> tuple[list[tuple[str, Action]], list[tuple[str, Action]]]:
    """The actions that suit a body, each with a clip name: kinds of locomotion, and others. Every body has one kind of locomotion at least."""
    about: list[tuple[str, Action]] = []
    if gaits_of(body):
        about += [("Walk", walk), ("Run", run), ("Sneak", sneak)]
    if body.of("wing"):
        about += [("Fly", fly)]
    special: dict[str, list[tuple[str, Action]]] = {
        "fish": [("Swim", swim), ("Swim_Fast", swim)], "snake": [("Slither", slither), ("Slither_Fast", slither)],
        "tentacled": [("Swim", pulsate), ("Crawl", pulsate)], "centipede": [("Slither", slither)],
    }  # fmt: skip
    about += special.get(body.plan, [])
    if not about:
        about = [("Work", reach_out), ("Drive", drive)] if body.of("wheel") else [("Work", reach_out), ("Pick", reach_out)]
    other: list[tuple[str, Action]] = [
        ("Idle", idle), ("LookAround", look_around), ("Attack", attack), ("Death", death), ("Hit", flinch), ("Dance", dance), ("Wander", wander),
    ]  # fmt: skip
    if body.legs or body.plan in ("snake", "fish", "tentacled"):
        other.append(("Jump", jump))
    if body.of("arm", "joint", "tentacle", "turret"):
        other.append(("Reach", reach_out))
    return about, other

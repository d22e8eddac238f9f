"""Body plans on many legs or none: insect, spider, centipede, snake, fish, tentacled."""

from __future__ import annotations

import numpy as np

from .body import SIDES, Body, Sketch, curve
from .parts import Rng, add_crawl_legs, add_head, add_wings, chance, mirror


def _feelers(sketch: Sketch, rng: Rng, head: int, start: np.ndarray, length: float, role: str = "antenna") -> None:
    count, bend = int(rng.integers(1, 4)), [rng.uniform(0, 1), rng.uniform(-1, 1), rng.uniform(-1, 0.5)]
    for side, sign in SIDES:
        points = mirror(curve(start + [0.05, 0, 0], [0.5, -1, 0.8], length, count, bend), sign)
        sketch.grow("antenna", role, points, [0.02, 0.012], head, side)


def insect(rng: Rng) -> Body:
    """Head, thorax, abdomen and six legs, at times wings, antennae and jaws."""
    sketch = Sketch("insect")
    height, thick = rng.uniform(0.2, 0.45), rng.uniform(0.09, 0.16)
    chest = np.array([[0, 0.15, height], [0, -0.15, height]])
    root = sketch.grow("root", "thorax", chest, [thick, thick * 0.9], -1)[0]
    bones, length = int(rng.integers(1, 4)), rng.uniform(0.3, 0.8)
    back = curve(chest[0], [0, 1, rng.uniform(-0.3, 0.4)], length, bones)
    wide = thick * np.interp(np.linspace(0, 1, bones + 1), [0, 0.5, 1], [0.8, rng.uniform(0.9, 1.6), 0.4])
    sketch.grow("abdomen", "abdomen", back, wide, root)
    head = add_head(
        sketch, rng, root, chest[1] + [0, -0.3 * thick, 0.02], [0, -1, rng.uniform(-0.5, 0.2)], rng.uniform(0.16, 0.3), ears=0
    )
    if chance(rng, 0.8):
        _feelers(sketch, rng, head, chest[1] + [0, -0.15, 0.1], rng.uniform(0.2, 0.5))
    hips = [np.array([0.7 * thick, y, height - 0.3 * thick]) for y in (-0.12, 0.0, 0.12)]
    reach = rng.uniform(0.35, 0.65) * np.array([rng.uniform(0.8, 1.1), 1, rng.uniform(1, 1.3)])
    add_crawl_legs(
        sketch, rng, [root] * 3, hips, [-0.7, 0.0, 0.75], reach, rng.uniform(0.02, 0.045), ("front", "mid", "hind"), rng.uniform(0.1, 0.4),
        chance(rng, 0.5), chance(rng, 0.4),
    )  # fmt: skip
    if chance(rng, 0.5):
        for row in range(1 + int(chance(rng, 0.4))):
            label = ("front", "hind")[row]
            add_wings(
                sketch,
                rng,
                root,
                np.array([0.5 * thick, 0.12 * row - 0.05, height + 0.7 * thick]),
                rng.uniform(0.4, 0.9),
                0.12,
                int(rng.integers(1, 3)),
                label,
                row,
            )
    return sketch.body()


def spider(rng: Rng) -> Body:
    """Eight legs around a small body with a large abdomen, or a crab with claws."""
    sketch = Sketch("spider")
    height, thick = rng.uniform(0.15, 0.45), rng.uniform(0.1, 0.18)
    chest = np.array([[0, 0.14, height], [0, -0.14, height]])
    root = sketch.grow("root", "body", chest, [thick, thick * 0.9], -1, flat=(1.1, 0.8))[0]
    crab = chance(rng, 0.3)
    if not crab:
        back = curve(chest[0], [0, 1, rng.uniform(-0.1, 0.5)], rng.uniform(0.25, 0.6), int(rng.integers(1, 3)))
        sketch.grow("abdomen", "abdomen", back, np.linspace(0.7, 1.2, len(back)) * thick * rng.uniform(1, 1.6), root)
    add_head(sketch, rng, root, chest[1], [0, -1, 0.1], rng.uniform(0.12, 0.2), ears=0)
    hips = [np.array([0.75 * thick, y, height - 0.2 * thick]) for y in np.linspace(-0.12, 0.12, 4)]
    reach = rng.uniform(0.45, 0.8) * np.array([rng.uniform(1, 1.25), 1, 1, rng.uniform(1, 1.2)])
    add_crawl_legs(
        sketch, rng, [root] * 4, hips, [-0.9, -0.3, 0.3, 0.9], reach, rng.uniform(0.02, 0.05), ("front", "mid_front", "mid_back", "back"),
        rng.uniform(0.15, 0.5), chance(rng, 0.5), chance(rng, 0.5),
    )  # fmt: skip
    if crab or chance(rng, 0.3):
        for side, sign in SIDES:
            start = np.array([0.6 * thick, -0.13, height])
            arm = np.stack([start, start + [0.2, -0.15, 0.12], start + [0.12, -0.4, 0.05], start + [0.04, -0.55, 0.05]])
            sketch.grow("arm", ["upper_arm", "forearm", "claw"], mirror(arm, sign), [0.035, 0.045, 0.07, 0.03], root, side)
    return sketch.body()


def centipede(rng: Rng) -> Body:
    """A row of segments with a pair of legs on each."""
    sketch = Sketch("centipede")
    rows, height = int(rng.integers(5, 11)), rng.uniform(0.1, 0.2)
    length, thick = rng.uniform(1.0, 1.8), rng.uniform(0.05, 0.09)
    line = curve([0, -0.5 * length, height], [0, 1, 0], length, rows)
    root = sketch.grow("root", "body", line[:2], [thick, thick], -1)[0]
    rest = sketch.grow("segment", "body", line[1:], [thick, 0.6 * thick], root)
    head = add_head(sketch, rng, root, line[0], [0, -1, 0.1], rng.uniform(0.12, 0.18), ears=0)
    _feelers(sketch, rng, head, line[0] + [0, -0.12, 0.04], rng.uniform(0.15, 0.4))
    segments = [root, *rest]
    hips = [0.5 * (line[k] + line[k + 1]) + [0.7 * thick, 0, 0] for k in range(rows)]
    reach = np.full(rows, rng.uniform(0.15, 0.35))
    add_crawl_legs(
        sketch, rng, segments, hips, np.linspace(-0.2, 0.3, rows).tolist(), reach, rng.uniform(0.012, 0.025), [str(k) for k in range(rows)],
        rng.uniform(0.1, 0.35), False, False,
    )  # fmt: skip
    return sketch.body()


def snake(rng: Rng) -> Body:
    """Eight to twenty bones in a line, at times with the front raised. The root is at the head, in the middle or at the tail."""
    sketch = Sketch("snake")
    count, length, thick = int(rng.integers(8, 21)), rng.uniform(1.2, 2.2), rng.uniform(0.04, 0.1)
    line = curve([0, 0.5 * length, thick], [0, -1, 0], length, count)
    raised = int(rng.integers(0, count // 2))
    if raised:
        line[-raised:] = curve(line[-raised - 1], [0, -1, 0.2], raised * length / count, raised, [0, rng.uniform(0, 1.2), 1.5])[
            1:
        ]
    wide = thick * np.interp(np.linspace(0, 1, count + 1), [0, 0.15, 0.5, 0.9, 1], [0.15, 0.6, 1.1, 0.9, 0.7])
    middle = int(rng.choice([0, count // 2, count // 2, count - 1]))
    root = sketch.grow("root", "body", line[middle : middle + 2], wide[middle : middle + 2], -1)[0]
    front = back = root
    if middle < count - 1:
        front = sketch.grow("spine", "spine", line[middle + 1 :], wide[middle + 1 :], root)[-1]
    if middle > 0:
        sketch.grow("tail", "tail", line[middle::-1], wide[middle::-1], back)
    direction = line[-1] - line[-2] if not raised else np.array([0, -1, rng.uniform(-0.4, 0.3)])
    add_head(sketch, rng, front, line[-1], direction, thick * rng.uniform(2, 3.2), ears=0.05)
    return sketch.body()


def fish(rng: Rng) -> Body:
    """A tall or flat body that becomes thinner towards a tail fin, with fins at the sides. At times a whale, whose tail beats up and down."""
    sketch = Sketch("fish")
    count, length = int(rng.integers(2, 7)), rng.uniform(0.8, 1.5)
    tall, slim = rng.uniform(0.12, 0.32), rng.uniform(0.4, 0.95)
    line = curve([0, -0.3 * length, 0.5], [0, 1, 0], 0.8 * length, count + 1)
    wide = tall * np.interp(np.linspace(0, 1, count + 2), [0, 0.25, 0.7, 1], [0.85, 1, 0.55, 0.22])
    root = sketch.grow("root", "body", line[:2], wide[:2], -1, flat=(slim, 1.0))[0]
    last = sketch.grow("tail", "spine", line[1:], wide[1:], root, flat=(slim, 1.0))[-1]
    add_head(sketch, rng, root, line[0], [0, -1, rng.uniform(-0.1, 0.1)], 1.9 * tall * rng.uniform(0.9, 1.2), ears=0)
    level = chance(rng, 0.25)
    fin = curve(line[-1], [0, 1, 0], rng.uniform(0.15, 0.35), int(rng.integers(1, 3)))
    across = (1.0, 0.0, 0.0) if level else (0.0, 0.0, 1.0)
    sketch.grow("tail", "tail_fin", fin, [0.2 * tall, rng.uniform(0.5, 1.1) * tall], last, flat=(1.0, 0.15), across=across)
    for side, sign in SIDES if chance(rng, 0.85) else ():
        bones = int(rng.integers(1, 3))
        start = line[0] + [0.7 * tall * slim, 0.08, -0.3 * tall]
        points = mirror(curve(start, [1, rng.uniform(0.3, 1), -0.4], rng.uniform(0.15, 0.4), bones), sign)
        sketch.grow("fin", "fin", points, [0.06, 0.08], root, side, flat=(1.0, 0.2), across=(0.0, 1.0, 0.0))
    if chance(rng, 0.7):
        base = line[1] + [0, 0, 0.8 * tall]
        sketch.grow(
            "fin", "back_fin", np.stack([base, base + [0, 0.1, rng.uniform(0.12, 0.3)]]), [0.12, 0.05], root, flat=(0.2, 1.0)
        )
    return sketch.body()


def tentacled(rng: Rng) -> Body:
    """Four to nine arms around a bulb, spread out as an octopus's or hanging down as a jellyfish's."""
    sketch = Sketch("tentacled")
    jelly = chance(rng, 0.45)
    arms, bones = int(rng.integers(4, 10)), int(rng.integers(3, 7))
    length, thick, bulb = rng.uniform(0.5, 1.0), rng.uniform(0.03, 0.06), rng.uniform(0.16, 0.28)
    height = length * 1.05 if jelly else bulb * 0.7
    middle = np.array([0, 0, height])
    root = sketch.grow("root", "body", np.stack([middle, middle + [0, 0, bulb * 0.5]]), [bulb, bulb], -1)[0]
    top = middle + [0, 0, bulb * 0.5]
    mantle = curve(top, [0, rng.uniform(-0.2, 0.7), 1], rng.uniform(0.3, 1.2) * bulb + 0.1, int(rng.integers(1, 3)))
    sketch.grow("head", "head", mantle, [bulb * 1.05, bulb * rng.uniform(0.5, 1.0)], root)
    start = rng.uniform(0, 2 * np.pi)
    for arm in range(arms):
        angle = start + 2 * np.pi * arm / arms
        out = np.array([np.cos(angle), np.sin(angle), 0.0])
        direction, bend = (0.25 * out + [0, 0, -1], 0.5 * out) if jelly else (out + [0, 0, -0.45], [0, 0, 0.6])
        points = curve(middle + out * bulb * 0.75, direction, length, bones, bend)
        sketch.grow("tentacle", "tentacle", points, [thick, 0.3 * thick], root, "", str(arm), arm)
    return sketch.body()

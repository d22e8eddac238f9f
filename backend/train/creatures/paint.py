"""Paints a skin: a palette, a pattern, a belly, clothes, or a colour for each part."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from ...geometry.rotations import Array
from .body import Body
from .parts import Rng, chance


def paint(body: Body, rng: Rng, points: Array, normals: Array, owner: NDArray[np.int64], along: Array) -> Array:
    """Colours (P, 3), 0..1, for points and normals (P, 3) of the neutral body. owner: (P,) their bones. along: (P,) places on them."""
    palette = _draw_palette(rng)
    if body.plan == "machine" or chance(rng, 0.15):
        colours = _colours_by_role(body, rng, palette)[owner]
    elif body.plan == "biped" and chance(rng, 0.7):
        colours = _clothes_colours(body, palette)[owner]
    else:
        colours = np.tile(palette[0], (len(points), 1))
        if chance(rng, 0.6):  # a belly of another colour
            low = 1 / (1 + np.exp(14 * (normals[:, 2] + rng.uniform(0.1, 0.6))))
            colours += low[:, None] * (palette[1] - colours)
        colours = _paint_ends(body, rng, palette, colours, owner, along)
    if chance(rng, 0.6):
        mark = _draw_pattern(body, rng, points) * rng.uniform(0.4, 1)
        colours = colours + mark[:, None] * (palette[2] - colours)
    if chance(rng, 0.7):
        colours = _paint_nose(body, colours, points, owner, palette[3])
    return np.clip(colours + rng.normal(0, 0.012, (len(points), 1)), 0.02, 0.98)


def _draw_palette(rng: Rng) -> Array:
    """(4, 3): a base colour, a lighter or darker one, one of another hue, and an accent."""
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.75), rng.uniform(0.2, 0.9)
    tints = [
        (hue, saturation, value), (hue + rng.normal(0, 0.04), 0.5 * saturation, np.clip(value + rng.choice([-0.3, 0.3, 0.4]), 0.1, 0.97)),
        (hue + rng.choice([0, 0.1, 0.5]), saturation, np.clip(value + rng.choice([-0.4, -0.25, 0.35]), 0.05, 0.95)),
        (rng.random(), rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.95)),
    ]  # fmt: skip
    return np.array([colorsys.hsv_to_rgb(h % 1, s, float(v)) for h, s, v in tints])


def _colours_by_role(body: Body, rng: Rng, palette: Array) -> Array:
    """(J, 3) colours of the bones, the same for all bones of a role."""
    roles = sorted({(bone.part, bone.role) for bone in body.bones})
    chosen = {role: palette[rng.integers(4)] * rng.uniform(0.75, 1.15) for role in roles}
    return np.array([chosen[bone.part, bone.role] for bone in body.bones])


def _clothes_colours(body: Body, palette: Array) -> Array:
    """(J, 3) colours of the bones: trousers, shirt, shoes, and skin on hands and head."""
    wear = {"spine": 0, "root": 2, "arm": 0, "leg": 2, "tail": 2}
    bare = {"hand": 1, "foot": 3, "toe": 3, "head": 1, "forearm": 1}
    return np.array([palette[bare.get(bone.role, wear.get(bone.part, 1))] for bone in body.bones])


def _paint_ends(body: Body, rng: Rng, palette: Array, colours: Array, owner: NDArray[np.int64], along: Array) -> Array:
    """Give paws, tips of tails and other ends another colour."""
    parts = [part for part in ("leg", "tail", "ear", "wing", "head", "arm", "tentacle", "horn", "fin") if chance(rng, 0.3)]
    last = {chain.joints[-1] for chain in body.chains if chain.part in parts}
    mask = np.isin(owner, list(last)) & (along > rng.uniform(0, 0.5))
    return np.where(mask[:, None], palette[3], colours)


def _paint_nose(body: Body, colours: Array, points: Array, owner: NDArray[np.int64], colour: Array) -> Array:
    """Give the front of the head another colour, as a nose, a mask or a beak has."""
    heads = [index for index, bone in enumerate(body.bones) if bone.role == "head"]
    if not heads:
        return colours
    on_head = owner == heads[-1]
    if not on_head.any():
        return colours
    front = points[:, 1] < np.quantile(points[on_head, 1], 0.16)
    return np.where((on_head & front)[:, None], colour, colours)


def _draw_pattern(body: Body, rng: Rng, points: Array) -> Array:
    """(P,) 0 or 1: stripes across the body, spots or blotches."""
    size = body.size
    kind = rng.choice(["stripes", "spots", "blotches"])
    if kind == "stripes":
        way = rng.normal(0, 0.25, 3) + np.eye(3)[rng.choice([1, 1, 2])]
        wave = np.sin(points @ way / size * 2 * np.pi * rng.uniform(5, 16) + 0.6 * np.sin(points[:, 2] / size * 20))
        return (wave > rng.uniform(-0.2, 0.6)).astype(float)
    count, wide = (
        (int(rng.integers(30, 90)), rng.uniform(0.025, 0.05))
        if kind == "spots"
        else (int(rng.integers(6, 16)), rng.uniform(0.08, 0.16))
    )
    centres = points[rng.integers(len(points), size=count)]
    near = np.linalg.norm(points[:, None] - centres, axis=-1).min(1)
    return (near < wide * size).astype(float)

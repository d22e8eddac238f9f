"""The body plans by name."""

from __future__ import annotations

from collections.abc import Callable

from .body import Body
from .crawlers import centipede, fish, insect, snake, spider, tentacled
from .parts import Rng
from .walkers import biped, bird, machine, quadruped

# with the share of each: the most of what users animate most
PLANS: dict[str, tuple[Callable[[Rng], Body], float]] = {
    "biped": (biped, 0.26), "quadruped": (quadruped, 0.22), "bird": (bird, 0.1), "fish": (fish, 0.08), "snake": (snake, 0.05),
    "insect": (insect, 0.07), "spider": (spider, 0.06), "centipede": (centipede, 0.03), "tentacled": (tentacled, 0.05),
    "machine": (machine, 0.08),
}  # fmt: skip

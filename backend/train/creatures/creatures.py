"""Makes procedural creatures for training: packs with body plans, names, rest poses, skins and motions of many kinds.

A creature depends only on its seed: a body plan in a neutral pose (plans), clips as layers of motion over gaits (actions), a rest pose,
bone axes and helper bones (build), a painted skin of tubes (skin), names in the style of some rig (naming).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...geometry.rotations import Array
from ..packs.rig_packs import Pack
from .actions import repertoire
from .body import Body
from .build import dress, figure_of, pack_of, rest_pose, surface_of
from .parts import Rng
from .plans import PLANS
from .score import Score, solve_legs
from .skin import skin_of

POINTS = (3000, 4000)
FRAMES = (24, 41)
WEIGHTS = {"Death": 2.0, "Jump": 1.6, "Attack": 1.6, "Idle": 1.5}  # actions that most characters have
ROOM = 7000  # joints times frames of all clips: a saved pack stays under half a megabyte


def creature(seed: int, plan: str | None = None, style: str | None = None) -> Pack:
    """Make the creature of a seed, in world axes, a few units tall, with three to six clips at 24 or 30 frames per second.

    plan, style: a body plan (PLANS) and a naming style (naming.STYLES) to use instead of random ones.
    """
    rng = np.random.default_rng(seed)
    drawn = str(rng.choice(list(PLANS), p=[share for _, share in PLANS.values()]))
    kind = plan or drawn
    body = PLANS[kind][0](rng)
    rest = rest_pose(body, rng)
    figure = dress(figure_of(body, rng, rest, _draw_clips(body, rng)), body, rng)
    surface = surface_of(figure, body, skin_of(body, rng, int(rng.integers(*POINTS))), rest)
    return pack_of(f"creature_{seed:07d}_{kind}", figure, surface, rng, style, float(rng.choice([24, 30])))


def creatures(seed: int) -> Iterator[Pack]:
    """Yield creatures without end. Different seeds give different creatures, but for a chance of one in 2^62."""
    rng = np.random.default_rng(seed)
    while True:
        yield creature(int(rng.integers(2**62)))


def write_creatures(folder: str | Path, count: int, seed: int, say: Callable[[str], None]) -> list[Path]:
    """Write `count` creatures as packs of less than half a megabyte to a folder, which is made if needed. say: gets a line for each."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, pack in zip(range(count), creatures(seed)):
        paths.append(folder / f"{pack.name}.npz")
        pack.save(paths[-1])
        say(f"{number + 1}/{count} {pack.name}: {len(pack.rig.names)} joints, {len(pack.clips)} clips")
    return paths


def _draw_clips(body: Body, rng: Rng) -> dict[str, tuple[Array, Array]]:
    """Rotations (F, J, 3, 3) and positions (F, J, 3) by clip name: at least one kind of locomotion, and other actions."""
    about, other = repertoire(body)
    count = int(np.clip(ROOM // (32 * 1.2 * len(body.bones)), 3, rng.integers(4, 7)))
    first = rng.permutation(len(about))[: max(1, count // 3)]
    chosen = [about[k] for k in first]
    rest = [pair for pair in [*about, *other] if pair not in chosen]
    # drawn without replacement: those with the largest u^(1 / weight) (Efraimidis and Spirakis)
    keys = [rng.random() ** (1 / WEIGHTS.get(name, 1.0)) for name, _ in rest]
    chosen += [rest[k] for k in np.argsort(keys)[::-1][: count - len(chosen)]]
    most = min(FRAMES[1], max(FRAMES[0] + 1, ROOM // (len(chosen) * len(body.bones))))
    clips = {}
    for name, action in chosen:
        score = Score(body, int(rng.integers(FRAMES[0], most)))
        action(score, rng)
        # more or less movement; the root is left out, as it alone may rotate all the way
        score.bends[:, 1:] *= np.exp(rng.normal(0.0, 0.5))
        clips[name] = solve_legs(score)
    return clips

"""Rigs without a surface: bone ends decide what hangs where."""

import numpy as np
from anyrig.backend.rig.natural_rig import natural_rig
from anyrig.backend.rig.rig import Rig

NAMES = ("hips", "spine", "thigh", "shin", "foot", "toe", "sword")
HEADS = np.array([[0, 0, 1], [0, 0, 1.2], [0.2, 0, 1], [0.2, 0, 0.5], [0.2, 0, 0.1], [0.2, -0.2, 0.05], [1.5, 0, 1]])
TAILS = np.array([[0, 0, 1.2], [0, 0, 1.6], [0.2, 0, 0.5], [0.2, 0, 0.1], [0.2, -0.2, 0.05], [0.2, -0.3, 0.05], [1.5, 0, 2]])


def game_rig(foot: int = 0) -> Rig:
    """A leg whose foot and a sword are further roots."""
    rest = np.tile(np.eye(4), (7, 1, 1))
    rest[:, :3, 3] = HEADS
    parents = np.array([-1, 0, 0, 2, foot, 4, 0])
    translates = np.array([name in ("foot", "sword") for name in NAMES]) & (parents == 0)
    return Rig("Game", NAMES, parents, rest, TAILS, translates, np.zeros(7, bool))


def parents_of(rig: Rig) -> dict[str, str | None]:
    return {name: rig.names[parent] if parent >= 0 else None for name, parent in zip(rig.names, rig.parents)}


def test_a_foot_hangs_on_the_shin_that_ends_where_it_begins_and_a_sword_on_nothing() -> None:
    rig = natural_rig(game_rig())
    assert parents_of(rig)["foot"] == "shin" and parents_of(rig)["sword"] == "hips"
    assert [name for name, hung in zip(rig.names, rig.hung) if hung] == ["foot"]
    assert [name for name, moves in zip(rig.names, rig.translates) if moves] == ["sword"] and rig.props.sum() == 1
    assert np.allclose(rig.heads[rig.names.index("toe")], HEADS[5])


def test_what_is_kept_stays() -> None:
    assert parents_of(natural_rig(game_rig(), keep=["foot"]))["foot"] == "hips"


def test_an_ordinary_rig_and_a_natural_one_stay_as_they_are() -> None:
    ordinary = game_rig(foot=3)
    natural = natural_rig(ordinary)
    assert parents_of(natural) == parents_of(ordinary) and not natural.hung.any()
    once = natural_rig(game_rig())
    assert natural_rig(once) is once

"""Renames bones: sides swapped, other naming styles, invented words, or names without meaning."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...rig.joint_names import clean_name

_PAIRS = (("left", "right"), ("l", "r"), ("lft", "rgt"), ("lf", "rt"))
_SWAP = {case(a): case(b) for pair in _PAIRS for a, b in (pair, pair[::-1]) for case in (str.lower, str.upper, str.title)}
_SWAP |= {"左": "右", "右": "左"}
_ANY = "|".join(sorted((word for word in _SWAP if word.isascii()), key=len, reverse=True))
_LETTER = "[A-Za-z]"
# Where joint_names.clean_name finds a side: between separators, as a word in CamelCase, joined to a word, or as a Japanese sign.
_SIDE = re.compile(
    rf"(?<!{_LETTER})(?:{_ANY})(?!{_LETTER})"
    r"|(?<=[a-z])(?:Left|Right|L|R)(?![a-z])"
    rf"|(?<!{_LETTER})(?:Left|Right|left|right|L|R|l|r)(?=[A-Z])"
    rf"|(?<!{_LETTER})(?:Left|Right|left|right)(?=[a-z]{{3}})"
    rf"|(?<=[a-z]{{3}})(?:left|right)(?!{_LETTER})"
    r"|[左右]"
)
SYLLABLES = ("ba", "dor", "ken", "lu", "mi", "nar", "os", "pel", "qua", "rin", "sto", "tev", "ul", "vash", "zo")
BLANKS = ("Bone.{:03d}", "joint_{}", "jnt{}", "b_{:02d}", "bone{}")


def swap_side(name: str) -> str:
    """The name of the bone on the other side: "Hand.L" -> "Hand.R", "RightArm" -> "LeftArm". A name without a side is kept.

    Only the last side is swapped: in "PalmR.L", R tells fingers apart, as in joint_names.
    """
    sides = list(_SIDE.finditer(name))
    if not sides:
        return name
    last = sides[-1]
    return name[: last.start()] + _SWAP[last[0]] + name[last.end() :]


def rename_joints(names: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Rename all joints in one of four ways: all or some names without meaning, another style, or invented words."""
    kind = rng.integers(4)
    if kind == 0:
        return blank_names(names, np.ones(len(names), np.bool_), rng)
    if kind == 1:
        return blank_names(names, rng.random(len(names)) < rng.uniform(0.1, 0.7), rng)
    return restyle_names(names, rng) if kind == 2 else invent_names(names, rng)


def blank_names(names: Sequence[str], which: NDArray[np.bool_], rng: np.random.Generator) -> tuple[str, ...]:
    """Replace the names of `which` (J,) bool by numbered ones, which have no meaning to joint_names.clean_name."""
    form = BLANKS[rng.integers(len(BLANKS))]
    return _make_unique([form.format(i) if blank else name for i, (name, blank) in enumerate(zip(names, which))])


def restyle_names(names: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Write the same words and sides in the style of another rig."""
    style = STYLES[rng.integers(len(STYLES))]
    return _make_unique([style(words or ["Bone"], side) for words, side in map(_words_and_side, names)])


def invent_names(names: Sequence[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Replace every word by an invented one, the same in all names. Sides are kept or dropped."""
    keep = rng.random() < 0.5
    book: dict[str, str] = {}
    fresh = []
    for words, side in map(_words_and_side, names):
        for word in words:
            book.setdefault(word, "".join(rng.choice(SYLLABLES, 2)).capitalize())
        fresh.append(_dotted_name([book[word] for word in words] or ["Bone"], side if keep else ""))
    return _make_unique(fresh)


def _words_and_side(name: str) -> tuple[list[str], str]:
    """The words of a name without its side, and the side: "Left", "Right" or ''."""
    words = clean_name(name).split()
    sides = [word for word in words if word in ("Left", "Right")]
    return [word for word in words if word not in ("Left", "Right")], sides[-1] if sides else ""


def _dotted_name(words: list[str], side: str) -> str:
    return "".join(words) + (f".{side[0]}" if side else "")


def _snake_name(words: list[str], side: str) -> str:
    return "_".join([*words, *([side[0]] if side else [])]).lower()


def _mixamo_name(words: list[str], side: str) -> str:
    return f"mixamorig:{side}{''.join(words)}"


def _biped_name(words: list[str], side: str) -> str:
    return " ".join(["Bip01", *([side[0]] if side else []), "".join(words)])


def _rigify_name(words: list[str], side: str) -> str:
    return "DEF-" + "_".join(words).lower() + (f".{side[0]}" if side else "")


def _joint_name(words: list[str], side: str) -> str:
    return "_".join([*([side.lower()] if side else []), *words, "jnt"])


STYLES: tuple[Callable[[list[str], str], str], ...] = (
    _dotted_name, _snake_name, _mixamo_name, _biped_name, _rigify_name, _joint_name,
)  # fmt: skip


def _make_unique(names: Sequence[str]) -> tuple[str, ...]:
    """Append a number to names that occur before."""
    unique: dict[str, None] = {}
    for name in names:
        fresh, number = name, 0
        while fresh in unique:
            number += 1
            fresh = f"{name}_{number:02d}"
        unique[fresh] = None
    return tuple(unique)

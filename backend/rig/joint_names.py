"""Cleans the names of joints for the network (docs/network.md, Graph inputs), and hashes them to vectors for `lite`."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from ..geometry.rotations import Array

WIDTH = 128
SIDE_WEIGHT = 1.5  # left and right count more: a joint and its mirror image differ in this word alone
TRIGRAM_WEIGHT = 0.5

LEFT = frozenset({"l", "lf", "lft", "left"})
RIGHT = frozenset({"r", "rt", "rgt", "right"})
# Words that name a rig's maker or layer, not a part of the body: dropped before the first other word.
PREFIXES = frozenset(
    "armature rig skel skeleton mixamorig valve biped bip bn npc j jt jnt joint bone b def org mch sec adj c m sk".split()
)
SUFFIXES = frozenset("jt jnt joint bone bn c m".split())

# Standard bones of MikuMikuDance and of the VRM models made from them. Longer terms come first where one holds another.
JAPANESE = {
    "全ての親": "Root", "センター": "Center", "グルーブ": "Groove", "上半身": "Upper Body", "下半身": "Lower Body",
    "つま先": "Toe", "人差指": "Index", "人指": "Index", "親指": "Thumb", "中指": "Middle", "薬指": "Ring", "小指": "Little",
    "しっぽ": "Tail", "尻尾": "Tail", "まぶた": "Eyelid", "手首": "Wrist", "足首": "Ankle", "ひざ": "Knee", "ひじ": "Elbow",
    "スカート": "Skirt", "左": "Left", "右": "Right", "頭": "Head", "首": "Neck", "肩": "Shoulder", "腕": "Arm", "手": "Hand",
    "腰": "Hips", "胸": "Chest", "足": "Leg", "脚": "Leg", "膝": "Knee", "肘": "Elbow", "目": "Eye", "眉": "Brow", "耳": "Ear",
    "口": "Mouth", "顎": "Jaw", "舌": "Tongue", "髪": "Hair", "翼": "Wing", "羽": "Wing", "尾": "Tail", "指": "Finger",
    "背": "Back", "捩": "Twist", "先": "End", "前": "Front", "後": "Back",
}  # fmt: skip
_GLOSSARY = re.compile("|".join(JAPANESE))
_NAMESPACE = re.compile(r"^.*[:|](?=.)|^CC_Base_")
_NOTE = re.compile(r"\[[^\]]*\]")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W\d_]+")
_PART = re.compile(r"[^\W\d_]+|\d+")
_GLUED_SIDE = re.compile(r"^(left|right)(?=[a-z]{3})|(?<=[a-z]{3})(left|right)$")


def clean_name(name: str) -> str:
    """The words of a bone's name: no rig prefix, no digits, sides written out ("mixamorig:LeftUpLeg" -> "Left Up Leg").

    Names without meaning ("Bone.003", "joint_12") become the empty string.
    """
    name = unicodedata.normalize("NFKC", name)
    name = _NOTE.sub(" ", _NAMESPACE.sub("", name.strip()))
    name = _GLOSSARY.sub(lambda match: f" {JAPANESE[match.group()]} ", name)
    words = [part for word in _WORD.findall(_CAMEL.sub(" ", name)) for part in _split_side(word.lower())]
    return " ".join(_spell_sides(_strip_rig_words(words)))


def _split_side(word: str) -> list[str]:
    """ "leftfoot" -> "left", "foot"."""
    return _GLUED_SIDE.sub(lambda match: f" {match.group()} ", word).split()


def _strip_rig_words(words: list[str]) -> list[str]:
    """Drop the words at both ends that name the rig or its layer."""
    start = next((index for index, word in enumerate(words) if word not in PREFIXES), len(words))
    end = len(words)
    while end > start and words[end - 1] in SUFFIXES:
        end -= 1
    return words[start:end]


def _spell_sides(words: list[str]) -> list[str]:
    """Capitalise the words, and write the last side out. Earlier ones are no sides: in "PalmR.L", R tells fingers apart."""
    sides = [index for index, word in enumerate(words) if word in LEFT | RIGHT]
    spelled = [word.capitalize() for word in words]
    for index in sides[-1:]:
        spelled[index] = "Left" if words[index] in LEFT else "Right"
    return spelled


def side_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """ "left", "right" or "" for a bone's name, and its other words and numbers, the same for a bone and its mirror image."""
    text = _GLOSSARY.sub(lambda match: f" {JAPANESE[match.group()]} ", unicodedata.normalize("NFKC", name))
    words = [part for word in _PART.findall(_CAMEL.sub(" ", text)) for part in _split_side(word.lower())]
    sides = [index for index, word in enumerate(words) if word in LEFT | RIGHT]
    if not sides:
        return "", tuple(words)
    place = sides[-1]
    return "left" if words[place] in LEFT else "right", (*words[:place], "*", *words[place + 1 :])


def hashed_embedding(names: Sequence[str], width: int = WIDTH) -> Array:
    """Hash J names of bones to vectors (J, width) float32 of length 1. A name without meaning gives zeros.

    Each word and each trigram of characters adds its weight at a hashed index with a hashed sign. Trigrams cross the words, so that
    "upperarm" and "Upper Arm" give similar vectors.
    """
    vectors = [_hash_name(clean_name(name), width) for name in names]
    return np.stack(vectors) if vectors else np.zeros((0, width), np.float32)


@lru_cache(maxsize=4096)
def _hash_name(clean: str, width: int) -> Array:
    vector = np.zeros(width)
    for feature, weight in _features_of(clean):
        number = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
        vector[(number >> 1) % width] += weight if number & 1 else -weight
    length = np.linalg.norm(vector)
    vector = (vector / length if length else vector).astype(np.float32)
    vector.setflags(write=False)
    return vector


def _features_of(clean: str) -> Iterator[tuple[str, float]]:
    """Words and trigrams of a cleaned name, with their weights."""
    words = clean.lower().split()
    for word in words:
        yield f"word {word}", SIDE_WEIGHT if word in ("left", "right") else 1.0
    joined = "".join(word for word in words if word not in ("left", "right"))
    padded = f"<{joined}>" if joined else ""
    for start in range(len(padded) - 2):
        yield f"trigram {padded[start : start + 3]}", TRIGRAM_WEIGHT

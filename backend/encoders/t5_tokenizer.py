"""A unigram tokenizer (Kudo 2018) read from a tokenizer.json, as the tokenizers library writes them; t5-base's is one.

Normalise, cut into words, split each word into the pieces with the highest sum of scores (Viterbi), wrap in the special tokens.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UserError
from .charsmap import CharsMap

UNKNOWN_PENALTY = 10.0  # an unknown character scores this much below the worst piece
REMEDY = "get tokenizer.json of t5-base"
# Unicode's White_Space; Python's own idea of it has four control characters more
SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")

Step = Callable[[str], str]


@dataclass(frozen=True, eq=False)
class Unigram:
    """Pieces and their scores. fallback: unknown text becomes its bytes where all of them are pieces ("<0x41>")."""

    pieces: Mapping[str, tuple[int, float]]
    unknown: int | None
    fallback: bool

    @cached_property
    def worst(self) -> float:
        """The score of an unknown character."""
        return min((score for _, score in self.pieces.values()), default=0.0) - UNKNOWN_PENALTY

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.pieces), default=0)

    def split(self, word: str) -> list[int]:
        """The ids of the best split; neighbouring unknown characters are one token."""
        return [id_ for piece in self._fused(word) for id_ in self._ids(piece)]

    def _best(self, word: str) -> Iterator[tuple[str, bool]]:
        """The pieces of the best split, last first, and whether each is unknown. Ties go to the split that was found first."""
        best: list[tuple[float, int, bool] | None] = [(0.0, 0, False)] + [None] * len(word)
        for start in range(len(word)):
            reached = best[start]
            assert reached is not None
            for end, score, unknown in self._edges(word, start):
                known, total = best[end], reached[0] + score
                if known is None or total > known[0]:
                    best[end] = (total, start, unknown)
        end = len(word)
        while end:
            _, start, unknown = best[end]  # type: ignore[misc]
            yield word[start:end], unknown
            end = start

    def _edges(self, word: str, start: int) -> Iterator[tuple[int, float, bool]]:
        """The pieces that begin here, shortest first: end, score, whether unknown. A lone character always can be one."""
        single = self.pieces.get(word[start])
        for end in range(start + 1, min(start + self.longest, len(word)) + 1):
            found = self.pieces.get(word[start:end])
            if found is not None:
                yield end, found[1], found[0] == self.unknown
        if single is None:
            if self.unknown is None:
                raise UserError(f"The tokenizer has no piece for '{word[start]}': {REMEDY}.")
            yield start + 1, self.worst, True

    def _fused(self, word: str) -> list[str]:
        pieces: list[tuple[str, bool]] = []
        for piece, unknown in reversed(list(self._best(word))):
            if unknown and pieces and pieces[-1][1]:
                pieces[-1] = (pieces[-1][0] + piece, True)
            else:
                pieces.append((piece, unknown))
        return [piece for piece, _ in pieces]

    def _ids(self, piece: str) -> list[int]:
        if piece in self.pieces:
            return [self.pieces[piece][0]]
        if self.fallback:
            found = [self.pieces.get(f"<0x{byte:02X}>") for byte in piece.encode()]
            if None not in found:
                return [each[0] for each in found if each is not None]
        assert self.unknown is not None
        return [self.unknown]


class Tokenizer:
    """Text -> ids. `pad` is the id of "<pad>", 0 if there is none."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: what a tokenizer.json holds. Raises UserError for a kind that is not read here."""
        model = settings["model"]
        if model.get("type") != "Unigram":
            raise UserError(f"The tokenizer is of the kind '{model.get('type')}', not Unigram: {REMEDY}.")
        pieces = {piece: (index, float(score)) for index, (piece, score) in enumerate(model["vocab"])}
        if not all(isinstance(piece, str) for piece in pieces):
            raise TypeError("a piece is no text")
        self.model = Unigram(pieces, model.get("unk_id"), bool(model.get("byte_fallback")))
        self._added = {token["content"]: token["id"] for token in settings.get("added_tokens") or ()}
        longest = sorted(filter(None, self._added), key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, longest)) + ")") if longest else None
        self._normalise = _normaliser(settings.get("normalizer"))
        self._words = _words(settings.get("pre_tokenizer"))
        self._before, self._after = _template(settings.get("post_processor"))
        self.pad = self._added.get("<pad>", pieces.get("<pad>", (0, 0.0))[0])

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Raises UserError if the file is missing, is not JSON, or is not a tokenizer that is read here."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"Tokenizer '{path}' cannot be read ({error.strerror}): {REMEDY}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, re.error) as error:
            raise UserError(f"'{path}' is not a tokenizer.json of a unigram tokenizer ({error}): {REMEDY}.") from error

    def encode(self, text: str) -> list[int]:
        """Ids with the special tokens that the file asks for ("</s>" at the end, for T5)."""
        ids, first = list(self._before), True
        for part in self._special.split(text) if self._special else [text]:
            if part in self._added:
                ids.append(self._added[part])
            elif part:
                for word in self._words(self._normalise(part), first):
                    ids += self.model.split(word)
            first = first and not part
        return ids + self._after


def _normaliser(settings: Mapping[str, Any] | None) -> Step:
    """The steps that change the text before it is cut."""
    if settings is None:
        return lambda text: text
    kind = settings["type"]
    if kind == "Sequence":
        return _chained([_normaliser(each) for each in settings["normalizers"]])
    if kind == "Precompiled":
        return CharsMap(settings["precompiled_charsmap"]) if settings["precompiled_charsmap"] else lambda text: text
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return lambda text: unicodedata.normalize(kind, text)
    if kind == "Replace":
        pattern, content = _pattern(settings["pattern"]), settings["content"]
        return lambda text: pattern.sub(lambda _: content, text)
    if kind == "Prepend":
        return lambda text: settings["prepend"] + text if text else text
    if kind == "Strip":
        return lambda text: _stripped(text, settings["strip_left"], settings["strip_right"])
    simple: dict[str, Step] = {
        "Lowercase": str.lower,
        "StripAccents": lambda text: "".join(char for char in text if unicodedata.category(char) != "Mn"),
    }
    if kind not in simple:
        raise UserError(f"The tokenizer's normaliser '{kind}' is not known here: {REMEDY}.")
    return simple[kind]


def _chained(steps: Sequence[Step]) -> Step:
    def run(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return run


def _stripped(text: str, left: bool, right: bool) -> str:
    text = text.lstrip() if left else text
    return text.rstrip() if right else text


def _pattern(settings: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile(settings["Regex"] if "Regex" in settings else re.escape(settings["String"]))


Cutter = Callable[[str, bool], list[str]]


def _words(settings: Mapping[str, Any] | None) -> Cutter:
    """(text, whether it is the beginning of all) -> words."""
    if settings is None:
        return lambda text, _first: [text] if text else []
    kind = settings["type"]
    if kind == "Sequence":
        return _cut_in_turn([_words(each) for each in settings["pretokenizers"]])
    if kind == "WhitespaceSplit":
        return lambda text, _first: [word for word in SPACE.split(text) if word]
    if kind == "Metaspace":
        return _metaspace(settings)
    raise UserError(f"The tokenizer's pre-tokenizer '{kind}' is not known here: {REMEDY}.")


def _cut_in_turn(cutters: Sequence[Cutter]) -> Cutter:
    def cut(text: str, first: bool) -> list[str]:
        parts = [(text, first)]
        for cutter in cutters:
            parts = [
                (word, start and place == 0 and text.startswith(word.lstrip("\u2581")))
                for part, start in parts
                for place, word in enumerate(cutter(part, start))
            ]
        return [word for word, _ in parts]

    return cut


def _metaspace(settings: Mapping[str, Any]) -> Cutter:
    """Spaces become a visible mark, which also goes before the text, and each mark begins a word."""
    mark = settings["replacement"]
    scheme = settings.get("prepend_scheme", "always" if settings.get("add_prefix_space", True) else "never")
    pattern = re.compile(f"{re.escape(mark)}?[^{re.escape(mark)}]+|{re.escape(mark)}") if settings.get("split", True) else None

    def cut(text: str, first: bool) -> list[str]:
        text = text.replace(" ", mark)
        if text and not text.startswith(mark) and (scheme == "always" or (scheme == "first" and first)):
            text = mark + text
        return pattern.findall(text) if pattern else [text] if text else []

    return cut


def _template(settings: Mapping[str, Any] | None) -> tuple[list[int], list[int]]:
    """The ids that go before and after a single text."""
    if settings is None:
        return [], []
    if settings["type"] != "TemplateProcessing":
        raise UserError(f"The tokenizer's post-processor '{settings['type']}' is not known here: {REMEDY}.")
    ids: tuple[list[int], list[int]] = [], []
    seen = 0
    for part in settings["single"]:
        if "Sequence" in part:
            seen = 1
        else:
            ids[seen].extend(settings["special_tokens"][part["SpecialToken"]["id"]]["ids"])
    return ids

"""T5's tokenizer, a unigram model (Kudo 2018), for cleaned joint names: splits words into the pieces with the best total score.

Reads t5-base's tokenizer.json. Ignores the character map in that file, which does not change letters in NFKC.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError

UNKNOWN_PENALTY = 10.0  # an unknown character scores this much below the worst piece
SPACE = "\u2581"  # the first character of each word
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": SPACE}  # has no effect on single spaces
REMEDY = "get tokenizer.json of t5-base"


class Tokenizer:
    """Turns text into ids. pad: the id of "<pad>"."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """`settings`: the content of a tokenizer.json. Raises UserError for another pipeline than T5's."""
        model = settings["model"]
        _check_model(model)
        _check_normalizer(settings.get("normalizer"))
        _check_pre_tokenizer(settings.get("pre_tokenizer"))
        _check_post_processor(settings.get("post_processor"))
        self._pieces = {piece: (id_, float(score)) for id_, (piece, score) in enumerate(model["vocab"])}
        self._unknown, self._end, self.pad = int(model["unk_id"]), self._pieces["</s>"][0], self._pieces["<pad>"][0]
        self._longest = max(map(len, self._pieces))
        self._unknown_score = min(score for _, score in self._pieces.values()) - UNKNOWN_PENALTY

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json. Raises UserError if it is missing, is not JSON, or is not T5's."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise UserError(f"Tokenizer '{path}' cannot be read ({error.strerror}): {REMEDY}.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"'{path}' is not a tokenizer.json of a unigram tokenizer ({error}): {REMEDY}.") from error

    def encode(self, text: str) -> list[int]:
        """Words of letters, with spaces between them, as `clean_name` returns them -> ids, "</s>" at the end."""
        words = unicodedata.normalize("NFKC", text).split()  # changing a letter's case may lead out of NFKC
        return [id_ for word in words for id_ in self._split(SPACE + word)] + [self._end]

    def _split(self, word: str) -> list[int]:
        """-> the ids of the split with the best score (Viterbi), the first of equals. Unknown neighbours are one token."""
        best = [(0.0, 0, 0)] + [(-float("inf"), 0, 0)] * len(word)  # per end: best score, and start and id of the last piece
        for start in range(len(word)):
            for end, id_, score in self._edges(word, start):
                total = best[start][0] + score
                if total > best[end][0]:
                    best[end] = (total, start, id_)
        ids: list[int] = []  # last first
        end = len(word)
        while end:
            _, end, id_ = best[end]
            if not (ids and ids[-1] == id_ == self._unknown):
                ids.append(id_)
        return ids[::-1]

    def _edges(self, word: str, start: int) -> Iterator[tuple[int, int, float]]:
        """Yield the pieces that begin at `start`, shortest first: end, id, score. A character that is no piece is unknown."""
        for end in range(start + 1, min(start + self._longest, len(word)) + 1):
            if word[start:end] in self._pieces:
                yield end, *self._pieces[word[start:end]]
        if word[start] not in self._pieces:
            yield start + 1, self._unknown, self._unknown_score


def _check_model(model: Mapping[str, Any]) -> None:
    if model["type"] != "Unigram" or model.get("byte_fallback"):
        raise _other("model", f"{model['type']}{' with bytes' if model.get('byte_fallback') else ''}")


def _check_normalizer(settings: Mapping[str, Any] | None) -> None:
    for step in _steps_of(settings, "normalizers"):
        if step["type"] != "Precompiled" and step != SPACES:
            raise _other("normalizer", step["type"])


def _check_pre_tokenizer(settings: Mapping[str, Any] | None) -> None:
    steps = _steps_of(settings, "pretokenizers")
    kinds = [step["type"] for step in steps]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise _other("pre_tokenizer", ", ".join(kinds) or "none")
    mark, split = steps[-1]["replacement"], steps[-1].get("split", True)
    scheme = steps[-1].get("prepend_scheme", "always" if steps[-1].get("add_prefix_space", True) else "never")
    if (mark, split, scheme) != (SPACE, True, "always"):
        raise _other("pre_tokenizer", f"Metaspace with '{mark}', prepended {scheme}, {'' if split else 'not '}split")


def _check_post_processor(settings: Mapping[str, Any] | None) -> None:
    kind = settings["type"] if settings else "none"
    if settings is None or kind != "TemplateProcessing":
        raise _other("post_processor", kind)
    added = [part["SpecialToken"]["id"] if "SpecialToken" in part else "text" for part in settings["single"]]
    if added != ["text", "</s>"]:
        raise _other("post_processor", " ".join(added))


def _steps_of(settings: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    if settings is None:
        return []
    return settings[name] if settings["type"] == "Sequence" else [settings]


def _other(part: str, kind: str) -> UserError:
    return UserError(f"The tokenizer's {part} is not T5's ({kind}): {REMEDY}.")

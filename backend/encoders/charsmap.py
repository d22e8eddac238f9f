"""SentencePiece's precompiled character map, as a tokenizer.json holds it: a double-array trie from UTF-8 bytes to replacements.

Applied the way the tokenizers library does: per user-perceived character, the shortest entry that its bytes begin with.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from functools import lru_cache

import numpy as np

from ..errors import UserError

SHORT = 6  # bytes: longer clusters are mapped character by character
# Marks that join what stands before them though their category does not say so, and signs that join what follows
# (Unicode Standard Annex 29). Clusters of longer characters have six bytes or more, so their rules do not matter here.
EXTEND = frozenset("\u200c\u200d\u0e33\u0eb3\uff9e\uff9f")
PREPEND = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\U000110bd\U000110cd]")


class CharsMap:
    """A `precompiled_charsmap`: little-endian uint32 size of the trie in bytes, the trie, the replacements ended by zeros."""

    def __init__(self, encoded: str) -> None:
        """Raises UserError if the text is not such a map."""
        try:
            data = base64.b64decode(encoded, validate=True)
            size = int.from_bytes(data[:4], "little")
            self._units: list[int] = np.frombuffer(data, "<u4", size // 4, 4).tolist()
        except (binascii.Error, ValueError) as error:
            raise UserError(f"The tokenizer's character map cannot be read ({error}): get tokenizer.json again.") from error
        self._replacements = data[4 + size :]

    def __call__(self, text: str) -> str:
        """Text -> normalised text."""
        return "".join(map(self._cluster, clusters(text)))

    def _cluster(self, cluster: str) -> str:
        found = self._mapped(cluster) if len(cluster.encode()) < SHORT else None
        if found is not None:
            return found
        return "".join(char if (mapped := self._mapped(char)) is None else mapped for char in cluster)

    def _mapped(self, chunk: str) -> str | None:
        """What the shortest entry that is a prefix of the chunk maps to."""
        units, place = self._units, _offset(self._units[0])
        for byte in chunk.encode():
            place ^= byte
            if not byte or place >= len(units) or units[place] & 0x800000FF != byte:
                return None
            unit = units[place]
            place ^= _offset(unit)
            if unit >> 8 & 1:
                start = units[place] & 0x7FFFFFFF
                return self._replacements[start : self._replacements.index(b"\0", start)].decode()
        return None


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 512) >> 6)


def clusters(text: str) -> list[str]:
    """User-perceived characters, as far as the map depends on them: letters with their marks, and line ends."""
    found: list[str] = []
    for char in text:
        if found and _joins(found[-1][-1], char):
            found[-1] += char
        else:
            found.append(char)
    return found


@lru_cache(maxsize=4096)
def _joins(before: str, char: str) -> bool:
    if before == "\r" and char == "\n":
        return True
    if _is_control(before) or _is_control(char):
        return False
    return char in EXTEND or unicodedata.category(char) in ("Mn", "Me", "Mc") or PREPEND.match(before) is not None


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") and char not in EXTEND and not PREPEND.match(char)

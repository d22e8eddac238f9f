"""One step of a decoder, and what a pass through a file comes across."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..arrays import Image


@dataclass(frozen=True, eq=False)
class Step:
    """time: in the file, in seconds from its first frame. fetch: the image (BGR, BGRA or grey), None if it is damaged; frames outside the
    trim range are skipped without fetching them. lost: the file has no image for this time; `fetch` gives that of a neighbour."""

    time: float
    fetch: Callable[[], Image | None]
    lost: bool = False


@dataclass
class Report:
    """lost: index within the trim range and time in the file of each frame that the file should have and has not. notes: sentences.
    count: frames of the trim range, once a pass has reached its end."""

    lost: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    count: int | None = None

    def note(self, sentence: str) -> None:
        """Add a sentence once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def sentences(self) -> list[str]:
        """All that the user should know of the file."""
        if not self.lost:
            return self.notes
        which = "1 frame of the video is" if len(self.lost) == 1 else f"{len(self.lost)} frames of the video are"
        return [
            f"{which} missing or damaged, from {min(self.lost.values()):.2f} s on: the take is interpolated there.",
            *self.notes,
        ]

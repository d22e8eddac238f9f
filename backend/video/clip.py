"""`Clip`, a video and its part to capture."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError


@dataclass(frozen=True)
class Clip:
    """A video file or an image sequence, its trim range, and hints about the subject.

    path: a video file, a folder of images, or one image of a numbered sequence.
    start, end: seconds of the trim range; end None is the end of the file. speed: 2 means that the video plays at half speed
    (slow motion), so times are divided by 2. fps: overrides the file's rate; needed for image sequences. box: (x0, y0, x1, y1)
    pixels around the subject, or None; box_time: on the frame at this many seconds of the file, None for the first frame of the trim
    range. matte: a matte video, sequence or image folder.
    mirror: the video shows left and right swapped. Frames and mattes are swapped back when they are read, so crops, mattes and
    the boxes of the take are in pixels of the corrected image; box and matte are given as in the files.
    """

    path: str
    start: float = 0.0
    end: float | None = None
    speed: float = 1.0
    fps: float | None = None
    box: tuple[float, float, float, float] | None = None
    matte: str | None = None
    mirror: bool = False
    box_time: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise UserError(f"The speed factor is {self.speed:g}: it must be above zero.")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise UserError(f"The frame rate is {self.fps:g}: it must be above zero.")
        if not 0 <= self.start < math.inf:
            raise UserError(f"The trim range starts at {self.start:g} s: it must start at zero or later.", fix="whole_video")
        if self.end is not None and not self.end > self.start:
            raise UserError(
                f"The trim range ends at {self.end:g} s, before it starts at {self.start:g} s: swap the two.", fix="whole_video"
            )
        if self.box is not None and not (len(self.box) == 4 and self.box[2] > self.box[0] and self.box[3] > self.box[1]):
            raise UserError("The subject box is empty: drag it from its top left to its bottom right corner.", fix="draw_box")
        if self.box_time is not None and not self.start <= self.box_time < (math.inf if self.end is None else self.end):
            raise UserError(
                f"The subject box was drawn at {self.box_time:g} s, outside the trim range: draw it again, or change the range.",
                fix="draw_box",
            )

    def to_json(self) -> str:
        """JSON text that `from_json` turns back into an equal clip."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Clip:
        """Read a clip from JSON text. Raises UserError if it is not one."""
        try:
            values: dict[str, Any] = json.loads(text)
            box = values.get("box")
            return cls(**{**values, "box": tuple(box) if box is not None else None})
        except (json.JSONDecodeError, TypeError, AttributeError) as error:
            raise UserError(f"This is not a clip written by AnyRig ({error}): choose the video again.") from error

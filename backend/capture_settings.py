"""The settings of a capture, as plain values with a JSON round trip."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .errors import UserError


@dataclass(frozen=True)
class Settings:
    """The settings of a capture. Raises UserError for a value that is not allowed.

    model: "lite", "release", "tiny" or a model file.
    device: "auto", "cuda", "mps" or "cpu".
    precision: "auto" or "float32".
    heading: "rig" rotates the take about the vertical so that on average it faces as the reference pose does; "view" trusts the side
    of the matched view.
    batch: frames per encoder call, 0 for as many as the device can hold.
    weights: the folder of the released weights, "" for the usual one.
    isnet: a file of ISNet, which finds subjects; "" for AnyRig's own, "off" for models of clear origin alone.
    cache: a folder that keeps subjects for the next capture of the same video and range; "" for none.
    refine: "off", "quick" or "thorough": whether the take is fitted to the mattes and the optical flow after the capture; "auto" is quick for
    lite, and off for models whose takes it was not measured on.
    """

    model: str = "lite"
    device: str = "auto"
    precision: str = "auto"
    heading: str = "rig"
    batch: int = 0
    weights: str = ""
    isnet: str = ""
    cache: str = ""
    refine: str = "auto"

    def __post_init__(self) -> None:
        for key, known in (
            ("device", ("auto", "cuda", "mps", "cpu")),
            ("precision", ("auto", "float32")),
            ("heading", ("rig", "view")),
            ("refine", ("auto", "off", "quick", "thorough")),
        ):
            if getattr(self, key) not in known:
                raise UserError(f"Unknown {key} '{getattr(self, key)}': choose one of {', '.join(known)}.")
        if self.batch < 0:
            raise UserError(f"The batch is {self.batch} frames: it must be at least 1, or 0 for what the device can hold.")

    @property
    def refine_mode(self) -> str:
        """ "off", "quick" or "thorough"."""
        if self.refine != "auto":
            return self.refine
        return "quick" if self.model == "lite" else "off"

    def to_json(self) -> str:
        """The settings as JSON, for `from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read the text of `to_json`. Raises UserError if it is something else."""
        try:
            return cls(**json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(f"These are not settings written by AnyRig ({error}): choose them again.") from error

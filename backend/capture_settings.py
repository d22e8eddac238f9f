"""How to capture: model, device, precision, heading. Plain values with a JSON round trip."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from .errors import UserError


@dataclass(frozen=True)
class Settings:
    """How to capture.

    model: a name of the weights registry or a file. device: "auto", "cuda", "mps" or "cpu". precision: "auto" or "float32".
    heading: "rig" turns the whole take so that on average it faces as the reference pose does; "view" trusts the reference
    view's side. batch: frames per encoder call, 0 for what the device can hold. weights: the folder of the released weights, "" for
    the usual one.
    """

    model: str = "lite"
    device: str = "auto"
    precision: str = "auto"
    heading: str = "rig"
    batch: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        for key, known in (
            ("device", ("auto", "cuda", "mps", "cpu")),
            ("precision", ("auto", "float32")),
            ("heading", ("rig", "view")),
        ):
            if getattr(self, key) not in known:
                raise UserError(f"Unknown {key} '{getattr(self, key)}': choose one of {', '.join(known)}.")
        if self.batch < 0:
            raise UserError(f"The batch is {self.batch} frames: it must be at least 1, or 0 for what the device can hold.")

    def to_json(self) -> str:
        """Text that `from_json` turns back into equal settings."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises UserError if the text is not settings."""
        try:
            return cls(**json.loads(text))
        except (json.JSONDecodeError, TypeError) as error:
            raise UserError(f"These are not settings written by AnyRig ({error}): choose them again.") from error

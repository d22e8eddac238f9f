"""How long a capture will take and how much memory it needs, before it is started.

Each stage's seconds grow with something that is known beforehand. At first the rates are those measured on another machine; as
soon as a capture has run here, its own. Of a device or model on which nothing was measured nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEASURED = "measured on one core of a shared Xeon, 2026-11-22"
# Seconds per unit of each stage (backend.capture.capture's clock) of `lite` on a CPU: the load once, the subject per frame, the view
# per rig, the first stage per frame and per joint and frame, the second per joint and frame.
LITE_ON_CPU = {"load": 1.5, "subject": 0.02, "view": 0.6, "video2pose": 0.03, "pose2rot": 0.0002}
BASE_MEMORY = 0.7e9  # bytes: PyTorch and `lite`
FRAME_MEMORY = 0.1e6  # bytes per frame: mattes and results


@dataclass(frozen=True)
class Work:
    """What a capture has to do. joints: of all rigs together. model, device: as they were chosen."""

    frames: int
    rigs: int
    joints: int
    model: str = "lite"
    device: str = "cpu"

    @property
    def units(self) -> dict[str, float]:
        """How much of each stage there is."""
        frames = float(self.frames)
        return {"load": 1.0, "subject": frames, "view": self.rigs, "video2pose": frames, "pose2rot": frames * self.joints}


@dataclass(frozen=True)
class Estimate:
    """seconds and bytes; None where nothing was measured. own: whether this machine was measured."""

    seconds: float | None
    memory: float | None
    own: bool


class Rates:
    """Seconds per unit of each stage, by model and device."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, str], dict[str, float]] = {}

    def learn(self, work: Work, seconds: Mapping[str, float]) -> None:
        """Take over what a capture's clock said."""
        units = work.units
        self._own[work.model, work.device] = {stage: seconds.get(stage, 0.0) / max(count, 1.0) for stage, count in units.items()}

    def estimate(self, work: Work) -> Estimate:
        own = self._own.get((work.model, work.device))
        known = LITE_ON_CPU if work.model == "lite" and work.device in ("cpu", "auto") else None
        rates = own or known
        seconds = None if rates is None else sum(rates[stage] * count for stage, count in work.units.items())
        memory = BASE_MEMORY + FRAME_MEMORY * work.frames if work.model == "lite" else None
        return Estimate(seconds, memory, own is not None)


RATES = Rates()


def clock_text(seconds: float) -> str:
    """Whole seconds as m:ss or h:mm:ss."""
    whole = max(1, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"

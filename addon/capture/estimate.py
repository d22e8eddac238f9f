"""Estimates the time and the memory of a capture before it starts.

The time of each stage is proportional to a quantity that is known beforehand, such as frames or joints. The first estimate uses
rates that were measured on another machine, later ones the rates of the last capture here. There is no estimate for a model or
device that was never measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...backend.segmentation.isnet_files import is_bundled
from ..settings.preference_values import ISNET_OFF

# Refining, on 2026-11-27, a rig of 7 joints at 24 fps, one core of a busy machine: quick took 5.4 and 23.6 processor seconds for 50 and 200
# frames, thorough 14.6 for 50.
REFINED = {"quick": 0.11, "thorough": 0.29}
# Measured on 2026-11-22 on one core of a server processor, `lite`, rigs of 20 joints: processor seconds of 50 and 200 frames at
# 320 x 180 onto one rig (2.2 and 6.3 in all), 50 onto four (4.1), 100 at 1280 x 720 (7.6), with still backgrounds.
# Seconds per unit of each stage. The first import of PyTorch takes the 3 seconds of `load`.
LITE_ON_CPU = {"load": 3.0, "subject": 0.045, "view": 0.45, "video2pose": 0.02, "pose2rot": 8e-5, **REFINED}
# Each of these took 0.65 GB besides Blender's own scene. A packed matte takes about 20 kB.
BASE_MEMORY, FRAME_MEMORY = 0.65e9, 20e3  # bytes
KEPT = 1e-3  # seconds a frame: finding the subject takes more, so one that took less was kept from an earlier capture
# A look of ISNet counts as this many megapixels: one takes 0.5 to 2.7 seconds of a core, depending on whether it calculates in bf16.
LOOK, LOOKED_AT = 22.0, 1 / 6  # of the frames, where a processor finds the subject
SIDES = 7.0  # times as long as matching looks that laying takes from several sides on the film takes, where takes are refined (2026-11-27)
RIG_SHARE = 0.15  # of the first stage's time that each further rig adds; the rest is spent once for all rigs


@dataclass(frozen=True)
class Work:
    """The amount of work of a capture. size: of the video, in pixels. joints: of all rigs together. model, device: as chosen.

    refine: "off", "quick" or "thorough". looks: ISNet is expected to find the subject.
    """

    frames: int
    size: tuple[int, int]
    rigs: int
    joints: int
    model: str = "lite"
    device: str = "cpu"
    refine: str = "off"
    looks: bool = False

    @property
    def units(self) -> dict[str, float]:
        """The quantity that the time of each stage is proportional to."""
        return {
            "load": 1.0,
            "subject": self.frames * (self.size[0] * self.size[1] / 1e6 + LOOK * LOOKED_AT * self.looks),
            "view": self.rigs * (1.0 + SIDES * (self.refine != "off")),
            "video2pose": self.frames * (1 + RIG_SHARE * (self.rigs - 1)),
            "pose2rot": float(self.frames * self.joints),
            **{mode: float(self.frames * self.rigs) for mode in REFINED if mode == self.refine},
        }


def looks_for(matte: str, isnet: str) -> bool:
    """Tell whether ISNet is expected to find the subject. matte: the user's, "" for none. isnet: as in `Settings`."""
    return not matte and isnet != ISNET_OFF and bool(isnet or is_bundled())


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes; None if nothing was measured. own: whether the rates were measured on this machine."""

    seconds: float | None
    memory: float | None
    own: bool


class Rates:
    """Seconds per unit of each stage, by model and device."""

    def __init__(self) -> None:
        self._own: dict[tuple[str, str], dict[str, float]] = {}

    def reset(self) -> None:
        """Forget the rates of this machine."""
        self._own.clear()

    def learn(self, work: Work, seconds: Mapping[str, float]) -> None:
        """Store the rates of a capture that has run. seconds: of each stage."""
        spent = {**seconds, work.refine: seconds.get("refine", 0.0)}
        rates = {stage: spent.get(stage, 0.0) / count for stage, count in work.units.items() if count}
        if "subject" in seconds and seconds["subject"] < KEPT * work.frames:
            rates["subject"] = (self._known(work) or rates)["subject"]
        refined = {mode: rate for mode, rate in (self._known(work) or {}).items() if mode in REFINED}
        self._own[work.model, work.device] = {**refined, **rates}

    def estimate(self, work: Work) -> Estimate:
        """The time and memory of a capture, from the rates of this machine if there are any."""
        own, known, rates = self._own.get((work.model, work.device)), _measured(work), self._known(work)
        seconds = None if rates is None else sum(rates.get(stage, 0.0) * count for stage, count in work.units.items())
        memory = None if known is None else BASE_MEMORY + FRAME_MEMORY * work.frames
        return Estimate(seconds, memory, own is not None)

    def _known(self, work: Work) -> dict[str, float] | None:
        return self._own.get((work.model, work.device)) or _measured(work)


def _measured(work: Work) -> dict[str, float] | None:
    """The rates that were measured on another machine, for the model and device that were."""
    return LITE_ON_CPU if work.model == "lite" and work.device in ("cpu", "auto") else None


RATES = Rates()


def clock_text(seconds: float) -> str:
    """Whole seconds as m:ss or h:mm:ss."""
    whole = max(1, round(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"

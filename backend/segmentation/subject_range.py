"""Reads which part of a video a folder of mattes belongs to, if AnyRig wrote it (subject_folder.py)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..arrays import Array
from ..errors import UserError
from ..video.clip import Clip

ABOUT = "subject.json"
HALF = 0.6  # of the time between two frames: the furthest that a matte's time may be from its frame's


def with_matte_range(clip: Clip) -> Clip:
    """Trim a clip that is not trimmed to the range of its folder of mattes. Raises UserError if the folder is damaged."""
    times = matte_times(clip)
    if times is None or clip.start or clip.end is not None:
        return clip
    step = float(np.diff(times).mean())
    return replace(clip, start=max(0.0, float(times[0]) - step / 4), end=float(times[-1]) + step / 2)


def matte_times(clip: Clip) -> Array | None:
    """(T,) seconds in the video of the mattes 0000.png and on, or None if the mattes are not of such a folder."""
    file = _about_file(clip)
    if file is None:
        return None
    try:
        times = np.array(json.loads(file.read_text(encoding="utf-8"))["times"], float)
        if times.ndim != 1 or len(times) < 2 or not (np.diff(times) > 0).all():
            raise ValueError("its times do not increase")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{file}' cannot be read ({error}): find the subject again, or delete it.", fix="no_matte") from error
    return times


def matte_sequence(clip: Clip) -> str:
    """The path of the mattes: in such a folder the numbered images alone."""
    file = _about_file(clip)
    return clip.matte or "" if file is None else str(file.with_name("0000.png"))


def matte_at(times: Array, time: float, clip: Clip) -> int:
    """The number of the matte for the frame at `time`, in seconds of the video. Raises UserError if there is none."""
    nearest = int(np.argmin(np.abs(times - time)))
    if abs(times[nearest] - time) > HALF * float(np.diff(times).mean()):
        raise UserError(
            f"The matte '{clip.matte}' goes from {times[0]:.2f} to {times[-1]:.2f} seconds of the video, but not to {time:.2f}: "
            "trim the video to that range, or find the subject again.",
            fix="no_matte",
        )
    return nearest


def _about_file(clip: Clip) -> Path | None:
    if clip.matte is None:
        return None
    path = Path(clip.matte)
    file = (path if path.is_dir() else path.parent) / ABOUT
    return file if file.is_file() else None

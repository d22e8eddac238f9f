"""Fills the frames that the video lacks from their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..geometry.rotations import continuous, slerp
from .motion import Motion


def bridge_lost_frames(motion: Motion, lost: Sequence[int]) -> Motion:
    """The take with the frames `lost` (indices) interpolated in time between the nearest others, and confidence 0 there.

    Before the first and after the last of the others the pose stays the same. A take of lost frames alone stays as it is.
    """
    known = np.setdiff1d(np.arange(len(motion)), lost)
    if not len(known) or len(known) == len(motion):
        return motion
    missing = np.setdiff1d(np.arange(len(motion)), known)
    place = np.searchsorted(known, missing)
    before, after = known[np.maximum(place - 1, 0)], known[np.minimum(place, len(known) - 1)]
    after = np.maximum(before, after)
    span = motion.times[after] - motion.times[before]
    share = np.clip((motion.times[missing] - motion.times[before]) / np.where(span > 0, span, 1.0), 0.0, 1.0)
    tracks = {key: np.array(getattr(motion, key)) for key in ("rotations", "positions", "confidence")}
    sides = tracks["rotations"][before], tracks["rotations"][after]
    tracks["rotations"][missing] = slerp(*sides, share[:, None])
    weight = share[:, None, None]
    tracks["positions"][missing] = (1 - weight) * tracks["positions"][before] + weight * tracks["positions"][after]
    tracks["confidence"][missing] = 0.0
    tracks["rotations"] = continuous(tracks["rotations"])
    return replace(motion, **tracks)

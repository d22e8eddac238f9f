"""Pins: rotations that the animator has set on some frames. They stay as they are, and their neighbours go along smoothly. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..arrays import Array
from ..geometry.rotations import matrix_to_rotvec, rotvec_to_matrix

REACH = 0.15  # seconds: standard deviation of the bell that a pin carries its neighbours along with
AROUND = 30  # frames to either side of a pin that are fitted again

Pins = NDArray[np.int64]


def frames_around(pins: Pins, frames: int) -> tuple[int, int] | None:
    """The first and one past the last of the frames to fit again around pins (N, 2) in a take of so many; None without pins."""
    if not len(pins):
        return None
    return max(0, int(pins[:, 0].min()) - AROUND), min(frames, int(pins[:, 0].max()) + AROUND + 1)


def spread_pins(times: Array, local: Array, pins: Pins) -> Array:
    """Local rotations (T, J, 3, 3) whose pinned ones stand out -> those whose neighbours lead up to them. times: (T,) seconds."""
    spread = np.array(local)
    for joint in np.unique(pins[:, 1]):
        frames = np.unique(pins[pins[:, 1] == joint, 0])
        base = _without(local[:, joint], frames)
        wanted = matrix_to_rotvec(np.swapaxes(base[frames], -1, -2) @ local[frames, joint])
        spread[:, joint] = base @ rotvec_to_matrix(carried(times, frames, wanted))
        spread[frames, joint] = local[frames, joint]
    return spread


def carried(times: Array, frames: NDArray[np.int64], values: Array) -> Array:
    """(T, C) that are `values` (N, C) on these frames, and fade away from them."""
    bells = np.exp(-0.5 * ((times[:, None] - times[None, frames]) / REACH) ** 2)
    return bells @ np.linalg.lstsq(bells[frames], values, rcond=1e-6)[0]


def _without(local: Array, frames: NDArray[np.int64]) -> Array:
    """Rotations (T, 3, 3) with those of `frames` between their neighbours; unchanged if all are among them."""
    rest = np.setdiff1d(np.arange(len(local)), frames)
    if not len(rest):
        return local
    changed = np.array(local)
    for frame in frames:
        after = int(np.searchsorted(rest, frame))
        first, last = rest[max(after - 1, 0)], rest[min(after, len(rest) - 1)]
        share = (frame - first) / (last - first) if last > first else 0.0
        way = matrix_to_rotvec(local[first].T @ local[last])
        changed[frame] = local[first] @ rotvec_to_matrix(share * way)
    return changed

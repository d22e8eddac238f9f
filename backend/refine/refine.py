"""Lays takes on the footage: a generator over windows of a video that returns the refined takes beside the raw ones.

    takes = yield from refine([FitTarget(rig, surface, motion)], footage_of(clip, subject), "quick")

A long clip is fitted in windows that overlap. What all frames share (the camera's pitch and yaw, and how the pose differs from the film's
on every frame) is found first, on a few frames of the whole clip, and held in the windows, so they agree at their seams.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..arrays import Array
from ..errors import UserError
from ..motion.motion import Motion
from ..progress import Progress
from .background import Background
from .evidence import Evidence, Observed, diagonal
from .footage import Footage
from .track import FitTarget, RefineSettings, Track

__all__ = ["FitTarget", "RefineSettings", "refine"]
MODES = ("off", "quick", "thorough")
STAGE = "Refining"
WINDOW, SEAM = 64, 12  # fitted frames of a window, and of them how many it shares with the next
PINNED = (30, 0, 60)  # steps around pins, for which someone waits
SHARED = 16  # frames that the shared values are fitted to


QUICK = RefineSettings()
THOROUGH = replace(QUICK, points=1000, fit=replace(QUICK.fit, steps=(40, 0, 300)))
SETTINGS = {"quick": QUICK, "thorough": THOROUGH}


def refine(
    targets: Sequence[FitTarget],
    footage: Footage,
    mode: str = "quick",
    frames: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
    settings: RefineSettings | None = None,
) -> Generator[Progress, None, list[Motion]]:
    """Fit each take to the footage. Yields Progress; returns the refined takes, with the raw ones as `Motion.raw`.

    frames: fit only these, from the first to before the last; the rest of the take stays as it is. A whole take starts from its raw one, a
    range, some joints, or a take with pins from what is there. Pinned rotations stay as they are.
    The motion's `path` is where it lies in the picture; its confidence says how well each joint covers the film; its provenance has, under
    "refine", the mode, the overlap before and after, the camera's azimuth and pitch as the fit has them (`Motion.camera`), and of a whole take
    the picture's size and whether the camera itself moves (background.Seen).
    Closing the generator stops the work; the takes that went in are unchanged then.
    Raises UserError if a take and the footage have different frames, and what reading the video raises.
    """
    if mode == "off" or not targets:
        return [target.motion for target in targets]
    chosen = settings or SETTINGS[mode]
    _check_lengths(targets, footage)
    if any(len(target.motion.pins) for target in targets) and mode == "quick":
        chosen = replace(chosen, fit=replace(chosen.fit, steps=PINNED))
    start, stop = frames or (0, len(footage))
    fitted = start + thinned(footage.times[start:stop], chosen.rate)
    pins = np.concatenate([target.motion.pins[:, 0] for target in targets])
    fitted = np.union1d(fitted, pins[(pins >= start) & (pins < stop)])
    tracks = [Track(target, footage, (start, stop), fitted, chosen, torch.device(device)) for target in targets]
    began = time.perf_counter()
    total = len(fitted) + SHARED
    yield Progress(STAGE, 0, total)
    observed = observe_mattes(footage, fitted[np.unique(np.linspace(0, len(fitted) - 1, SHARED).round().astype(int))])
    for done, track in enumerate(tracks):
        for step, steps in track.fit_shared(observed):
            yield Progress(STAGE, int(SHARED * (done + step / steps) / len(tracks)), total)
    background = Background(footage.pixel) if frames is None else None  # what a range shows of it says little
    with closing(_windows(footage, fitted, background)) as windows:
        for low, high, evidence in windows:
            for done, track in enumerate(tracks):
                for step, steps in track.fit_window(low, high, SEAM, evidence):
                    share = (done + step / steps) / len(tracks)
                    yield Progress(STAGE, SHARED + low + int(share * (high - low)), total)
    seconds = (time.perf_counter() - began) / len(tracks)
    seen = None if background is None else background.seen(footage.times[fitted], footage.times)
    refined = [track.refined(mode, seconds, seen) for track in tracks]
    yield Progress(STAGE, total, total)
    return refined


def _check_lengths(targets: Sequence[FitTarget], footage: Footage) -> None:
    for target in targets:
        if len(target.motion) != len(footage):
            raise UserError(
                f"The take has {len(target.motion)} frames and the video {len(footage)}: choose the video and the range it was captured from."
            )


def thinned(times: Array, rate: float) -> NDArray[np.int64]:
    """Numbers of evenly spaced frames, at most `rate` a second, the first and the last among them."""
    if len(times) < 3:
        return np.arange(len(times))
    spacing = (times[-1] - times[0]) / (len(times) - 1)
    every = max(1, int(np.floor(1 / (rate * spacing) + 1e-3)))
    return np.unique(np.linspace(0, len(times) - 1, 1 + max(1, round((len(times) - 1) / every))).round().astype(np.int64))


def observe_mattes(footage: Footage, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], Evidence]:
    """The frames' numbers, and what their mattes say."""
    observed = Observed(diagonal(footage.boxes))
    for frame in frames:
        observed.add(footage.matte(int(frame)), float(footage.confidence[frame]), footage.boxes[frame])
    return frames, observed.window(0, len(frames))


def _windows(
    footage: Footage, fitted: NDArray[np.int64], background: Background | None
) -> Generator[tuple[int, int, Evidence], None, None]:
    """Yield windows of the fitted frames: the first, one past the last, and the evidence. Only one window is in memory.

    background: gets every frame, if it is wanted.
    """
    observed = Observed(diagonal(footage.boxes))
    images = footage.images(set(fitted.tolist())) if footage.images is not None else None
    bounds = window_bounds(len(fitted))
    try:
        for place, frame in enumerate(fitted):
            image = None if images is None else next(images, None)
            matte = footage.matte(int(frame))
            observed.add(matte, float(footage.confidence[frame]), footage.boxes[frame], image)
            if background is not None:
                background.add(matte, image)
            while bounds and place + 1 == bounds[0][1]:
                low, high = bounds.pop(0)
                yield low, high, observed.window(low, high)
                observed.forget(bounds[0][0] if bounds else high)
    finally:
        if images is not None:
            images.close()


def window_bounds(count: int) -> list[tuple[int, int]]:
    """Windows of about WINDOW frames over so many, each SEAM frames into the next."""
    pieces = max(1, round((count - SEAM) / (WINDOW - SEAM)))
    edges = np.linspace(0, count - min(SEAM, count), pieces + 1).round().astype(int)
    return [(int(a), int(b) + min(SEAM, count)) for a, b in zip(edges[:-1], edges[1:])]

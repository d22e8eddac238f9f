"""Chooses the side that a video shows a rig from, by laying a rough take from each likely side on a few frames of the film.

Image features tell sides apart that look different, but often not front from back. How far the rig's surface, posed by the network for
that side, has to be bent to cover the film tells these apart, but not two sides that are near each other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import Array
from ..capture_settings import Settings
from ..model.layers import frames_apart
from ..motion.motion import Motion, with_joints_of
from ..refine.evidence import Evidence
from ..refine.fit import FitSettings
from ..refine.footage import Footage
from ..refine.refine import observe_mattes
from ..refine.track import FitTarget, RefineSettings, Track
from ..rendering.capsules import capsules
from ..rig.rig import Target
from ..weights.model_file import Model
from .inference import motion_of, network_inputs_of, predict_positions, predict_rotations, split_predictions
from .memory_plan import ComputePlan

CANDIDATES = 5  # sides that are tried
APART = np.radians(44)  # between two of them, at least
# What a likeness (a cosine) counts against the energy of a fit: the side by looks is left only for a clearly lower energy. Less, 0.5, is better
# on characters that the network knows, whose rough takes are good, and worse on new ones (docs/quality.md, Refine).
LIKENESS = 2.0
FIT = RefineSettings(shared=FitSettings(steps=(15, 15, 30), flow=0.0, rate=0.03, mean=0.4))


@dataclass(frozen=True, eq=False)
class FewFrames:
    """n frames of a clip, with nothing between them. tokens: (n, S, C) of their crops. footage: of these frames alone."""

    tokens: Tensor
    footage: Footage

    def observe(self) -> tuple[NDArray[np.int64], Evidence]:
        """What their mattes say."""
        return observe_mattes(self.footage, np.arange(len(self.footage)))


def few_frames(tokens: Tensor, footage: Footage, frames: Array) -> FewFrames:
    """The frames (n,) out of a clip's footage. tokens: (n, S, C)."""
    part = replace(
        footage,
        times=footage.times[frames],
        confidence=footage.confidence[frames],
        boxes=footage.boxes[frames],
        matte=lambda index: footage.matte(int(frames[index])),
        images=None,
    )
    return FewFrames(tokens, part)


def likely_views(target: Target, likeness: Array) -> list[int]:
    """The references that look most like the video, by likeness (V,), from sides that are well apart."""
    chosen: list[int] = []
    for view in np.argsort(-likeness).tolist():
        azimuth = target.references[view].azimuth
        away = [abs(np.angle(np.exp(1j * (azimuth - target.references[other].azimuth)))) for other in chosen]
        if all(each >= APART for each in away):
            chosen.append(view)
    return chosen[:CANDIDATES]


def choose_side(
    model: Model, plan: ComputePlan, target: Target, views: Tensor, likeness: Array, film: FewFrames
) -> Generator[None, None, int]:
    """The index of the reference whose side the video shows. Yields between two steps of the work.

    views: tokens (V, S, C) of the references. likeness: (V,) of each to the video.
    """
    likely = likely_views(target, likeness)
    if len(likely) < 2:
        return likely[0]
    rig = target.natural or target.rig
    surface, observed = target.surface or capsules(rig), film.observe()
    energies = []
    for motion in _rough_takes(model, plan, target, likely, views, film):
        yield
        whole = (0, len(film.footage))
        track = Track(FitTarget(rig, surface, motion), film.footage, whole, observed[0], FIT, torch.device("cpu"))
        energies.append(track.energy(observed[1]))
    return likely[int(np.argmax(LIKENESS * likeness[likely] - np.array(energies)))]


def _rough_takes(
    model: Model, plan: ComputePlan, target: Target, likely: Sequence[int], views: Tensor, film: FewFrames
) -> list[Motion]:
    """The network's takes of the few frames, one for each side, as if that were the right one."""
    references = [target.references[view] for view in likely]
    rigs, count = [target.rig] * len(likely), len(film.footage)
    inputs, scales = network_inputs_of(model, rigs, references, views[list(likely)])
    with frames_apart(model.network):
        position = torch.cat(list(predict_positions(model.network, inputs, [film.tokens], count, plan.core, plan.half)), dim=1)
        rot6d: Tensor = torch.cat(list(predict_rotations(model.network, inputs, position, plan.core, plan.half)), dim=1)
    predictions = split_predictions(rigs, references, scales, position, rot6d, model.config.tips)
    known = (film.footage.times, film.footage.boxes, film.footage.confidence)
    takes = [motion_of(prediction, *known, Settings(), {}) for prediction in predictions]
    return [with_joints_of(take, target.natural) for take in takes] if target.natural else takes

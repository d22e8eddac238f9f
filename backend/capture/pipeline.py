"""From a video to Motions: the generator that everything else calls (docs/architecture.md, The values and the generator)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from traceback import clear_frames
from typing import TypeVar

import cv2
import torch

from ..capture_settings import Settings
from ..hardware.devices import pick_device
from ..motion.motion import Motion
from ..progress import Progress, staged
from ..rig.rig import Target
from ..segmentation.subject import Subject, find_subject
from ..video.clip import Clip
from ..weights.model_file import Model, load_model
from .inference import (
    RigPrediction,
    collect,
    motion_of,
    network_inputs_of,
    predict_positions,
    predict_rotations,
    split_predictions,
)
from .memory_plan import (
    ComputePlan,
    compute_plan_of,
    fallback_for,
    release_device_memory,
    releasing_device_memory,
)
from .view_matching import _choose_views, _crops, _tokens, clear_crops

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Stage1Result:
    """What stage 1 leaves: the subject, and each rig's take without rotations with the view that was chosen for it."""

    subject: Subject
    takes: list[RigPrediction]
    views: list[int]
    seconds: dict[str, float]


def capture(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
    """Yields Progress and returns one Motion per target, in order. Closing it stops the work and frees its memory.

    A graphics card whose memory runs out is asked for half as much, then left alone; the take's provenance says so in "notes".
    Raises UserError with a sentence for the user: unreadable video, no subject, model missing, out of memory.
    """
    with releasing_device_memory():
        return (yield from _capture(targets, clip, settings))


def _capture(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
    clock = Clock()
    model = yield from _load(settings, clock)
    watched, takes, plan = yield from predictions_of(model, targets, clip, settings, clock)
    subject = watched.subject
    shared = {"clip": asdict(clip), "settings": asdict(settings), "model": model.card, "seconds": clock.seconds}
    shared |= {"device": plan.device.type, "notes": [plan.note] if plan.note else []}
    return [
        motion_of(take, subject.times, subject.boxes, subject.confidence, settings, {**shared, "view": view})
        for take, view in zip(takes, watched.views, strict=True)
    ]


def predictions_of(
    model: Model, targets: Sequence[Target], clip: Clip, settings: Settings, clock: Clock
) -> Generator[Progress, None, tuple[Stage1Result, list[RigPrediction], ComputePlan]]:
    """Both stages: what the first saw, the takes with their rotations, and the plan by which they came about in the end."""
    subject = yield from _find(clip, clock)

    def both(model: Model, plan: ComputePlan) -> Generator[Progress, None, tuple[Stage1Result, list[RigPrediction]]]:
        watched = yield from run_video2pose(model, targets, clip, subject, plan, clock)
        return watched, (yield from run_pose2rot(model, watched.takes, plan, clock))

    (watched, takes), plan = yield from _within_memory(model, settings, clock, both)
    return watched, takes, plan


def capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Stage1Result]:
    """Stage 1 alone."""
    with releasing_device_memory():
        return (yield from _capture_positions(targets, clip, settings))


def _capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Stage1Result]:
    clock = Clock()
    model = yield from _load(settings, clock)
    subject = yield from _find(clip, clock)
    work = partial(run_video2pose, targets=targets, clip=clip, subject=subject, clock=clock)
    return (yield from _within_memory(model, settings, clock, lambda model, plan: work(model, plan=plan)))[0]


def _find(clip: Clip, clock: Clock) -> Generator[Progress, None, Subject]:
    with clock("subject"):
        return (yield from staged("Finding the subject", find_subject(clip)))


def _within_memory(
    model: Model, settings: Settings, clock: Clock, work: Callable[[Model, ComputePlan], Generator[Progress, None, T]]
) -> Generator[Progress, None, tuple[T, ComputePlan]]:
    """Does the work by the plan for the model's device, and by others where memory runs out or Metal cannot; -> its result and the
    last plan."""
    plan = compute_plan_of(model.encoder.device, model.config, settings)
    while True:
        try:
            return (yield from work(model, plan)), plan
        except (RuntimeError, MemoryError, cv2.error) as error:
            following = fallback_for(plan, error)
            if following is None:
                raise
            clear_frames(error.__traceback__)  # they hold the tensors of what failed
        if following.device != plan.device:
            model = yield from _load(replace(settings, device=following.device.type), clock)
        plan = following
        release_device_memory()
        yield Progress(plan.note, 0, 1, "")


def run_video2pose(
    model: Model, targets: Sequence[Target], clip: Clip, subject: Subject, plan: ComputePlan, clock: Clock
) -> Generator[Progress, None, Stage1Result]:
    """Choose the views, and run stage 1 for all rigs at once; image features are computed once."""
    squares = model.encoder.squares(subject.boxes)
    with clock("view"):
        yield Progress("Matching the view", 0, len(targets), "")
        views, tokens = _choose_views(model, plan, targets, clear_crops(model, clip, subject, squares))
    rigs = [target.rig for target in targets]
    references = [target.references[view] for target, view in zip(targets, views, strict=True)]
    inputs, scales = network_inputs_of(model, rigs, references, tokens)
    frames = len(subject.times)
    with clock("video2pose"), closing(_tokens(model, plan, _crops(model, clip, subject, squares))) as chunks:
        parts = predict_positions(model.network, inputs, chunks, frames, plan.core, plan.half)
        position = yield from collect(parts, frames, lambda done: Progress("Reading the motion", done, frames))
    takes = split_predictions(rigs, references, scales, position, None, model.config.tips)
    return Stage1Result(subject, takes, views, clock.seconds)


def run_pose2rot(
    model: Model, takes: Sequence[RigPrediction], plan: ComputePlan | None = None, clock: Clock | None = None
) -> Generator[Progress, None, list[RigPrediction]]:
    """Stage 2 on the positions of stage 1, or of any other source: takes of one length -> the takes with their rotations."""
    plan = plan or compute_plan_of(model.encoder.device, model.config, Settings())
    rigs, references = [take.rig for take in takes], [take.reference for take in takes]
    # stage 2 reads the pose of the reference alone: its image may be blank
    blank = torch.zeros(len(takes), 1, model.config.image_width, device=model.encoder.device)
    inputs, scales = network_inputs_of(model, rigs, references, blank)
    frames, joints = len(takes[0].position), inputs.names.shape[1]
    position = blank.new_zeros(len(takes), frames, joints, 3)
    for row, take, scale in zip(position, takes, scales, strict=True):
        row[:, : take.position.shape[1]] = torch.from_numpy(take.position / scale).to(position.dtype)
    with (clock or Clock())("pose2rot"):
        parts = predict_rotations(model.network, inputs, position, plan.core, plan.half)
        rot6d = yield from collect(parts, frames, lambda done: Progress("Solving rotations", done, frames))
    return split_predictions(rigs, references, scales, position, rot6d, model.config.tips)


def _load(settings: Settings, clock: Clock) -> Generator[Progress, None, Model]:
    yield Progress("Loading the model", 0, 1, "")
    with clock("load"):
        return load_model(settings.model, pick_device(settings.device), settings.weights)


class Clock:
    """Seconds per stage, added up: `with clock("stage"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

"""From a video to Motions: the generator that everything else calls (docs/architecture.md, The values and the generator)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial, wraps
from typing import ParamSpec, TypeVar

import cv2
import torch

from ..capture_settings import Settings
from ..hardware.device_memory import ran_out, release_device_memory, releasing_device_memory
from ..hardware.devices import pick_device
from ..motion.lost_frames import bridge_lost_frames
from ..motion.motion import Motion, with_joints_of
from ..progress import Progress, changed, staged
from ..refine.footage import footage_of
from ..refine.refine import FitTarget, refine
from ..rendering.capsules import capsules
from ..rig.rig import Target
from ..segmentation.subject import Subject
from ..segmentation.subject_cache import find_kept_subject
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
)
from .side_fitting import few_frames
from .view_matching import choose_views, clear_crops, clear_frames, encode_crops, subject_crops

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Stage1Result:
    """The subject in the video, and a prediction without rotations for each target.

    views: the index of the reference chosen for each target. seconds: per step so far.
    """

    subject: Subject
    predictions: list[RigPrediction]
    views: list[int]
    seconds: dict[str, float]


def _releasing(work: Callable[P, Generator[Progress, None, T]]) -> Callable[P, Generator[Progress, None, T]]:
    """Release the device's memory when the generator ends. `work` has ended by then, and its variables hold no tensors."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> Generator[Progress, None, T]:
        with releasing_device_memory():
            return (yield from work(*args, **kwargs))

    return run


@_releasing
def capture(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
    """Capture the motion of a video's subject for each target. Yields Progress; returns a Motion per target, in order.

    A Motion has J rotations and positions per frame, in the armature axes and units of its target's rig, or of its natural one. It is
    refined as the settings say; while that goes on, each Progress has the raw takes (`so_far`).
    If a graphics card runs out of memory, the capture goes on with half as many frames at once, then on the CPU; the motions'
    provenance says so under "notes". Closing the generator stops the work and releases its memory.
    Raises UserError if the video cannot be read, has no subject, a model is missing, or memory runs out on the CPU too.
    """
    clock = Clock()
    model = yield from _load_model(settings, clock)
    stage1, predictions, plan = yield from predictions_of(model, targets, clip, settings, clock)
    subject = stage1.subject
    shared = {"clip": asdict(subject.clip or clip), "settings": asdict(settings), "model": model.card, "seconds": clock.seconds}
    shared |= {
        "device": plan.device.type,
        "notes": [note for note in (subject.note, _note_of_others(clip, subject), plan.note) if note],
    }
    motions = []
    for target, prediction, view in zip(targets, predictions, stage1.views, strict=True):
        about = {**shared, "view": view}
        motion = motion_of(prediction, subject.times, subject.boxes, subject.confidence, settings, about)
        motion = bridge_lost_frames(motion, subject.lost)
        motions.append(with_joints_of(motion, target.natural) if target.natural else motion)
    if settings.refine_mode == "off":
        return motions
    with clock("refine"), closing(_refined(targets, motions, subject.clip or clip, subject, settings, plan)) as work:
        return (yield from work)


def _note_of_others(clip: Clip, subject: Subject) -> str:
    """A sentence about further objects that could be meant; "" if there are none, or the user chose by a box."""
    count = len(subject.others)
    if clip.box is not None or not count:
        return ""
    return f"{count} other {'object' if count == 1 else 'objects'} could be the subject: check with Show Subject, or draw a subject box."


def _refined(
    targets: Sequence[Target],
    motions: Sequence[Motion],
    clip: Clip,
    subject: Subject,
    settings: Settings,
    plan: ComputePlan,
) -> Generator[Progress, None, list[Motion]]:
    """Fit the takes to the footage. Yields Progress with the raw takes."""
    rigs = [target.natural or target.rig for target in targets]
    surfaces = [target.surface or capsules(rig) for target, rig in zip(targets, rigs, strict=True)]
    fits = [FitTarget(*each) for each in zip(rigs, surfaces, motions, strict=True)]
    cpu = torch.device("cpu")
    # Metal lacks some of the operations
    for device in (plan.device, cpu) if plan.device.type == "cuda" else (cpu,):
        work = refine(fits, footage_of(clip, subject), settings.refine_mode, device=device)
        try:
            return (yield from changed(work, lambda progress: replace(progress, so_far=list(motions))))
        except (RuntimeError, cv2.error) as error:
            if device == cpu or not ran_out(error):
                raise
            release_device_memory(error)
        yield Progress("The graphics card ran out of memory: refining goes on with the CPU.", 0, 1, "")
    raise AssertionError("the CPU comes last")


@_releasing
def capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Stage1Result]:
    """Find the subject and run stage 1 alone. Yields Progress and raises as `capture` does."""
    clock = Clock()
    model = yield from _load_model(settings, clock)
    with clock("subject"):
        subject = yield from staged(
            "Finding the subject", find_kept_subject(clip, model.encoder.device, settings.isnet, settings.cache)
        )

    def stage1(model: Model, plan: ComputePlan) -> Generator[Progress, None, Stage1Result]:
        return run_video2pose(model, targets, clip, subject, plan, clock, settings.refine_mode != "off")

    return (yield from _within_memory(model, settings, clock, stage1))[0]


def predictions_of(
    model: Model, targets: Sequence[Target], clip: Clip, settings: Settings, clock: Clock
) -> Generator[Progress, None, tuple[Stage1Result, list[RigPrediction], ComputePlan]]:
    """Run both stages with a model that is loaded already. Yields Progress.

    Returns the result of stage 1, the predictions with rotations, and the plan that the work was done by in the end.
    """
    with clock("subject"):
        subject = yield from staged(
            "Finding the subject", find_kept_subject(clip, model.encoder.device, settings.isnet, settings.cache)
        )

    def both(model: Model, plan: ComputePlan) -> Generator[Progress, None, tuple[Stage1Result, list[RigPrediction]]]:
        stage1 = yield from run_video2pose(model, targets, clip, subject, plan, clock, settings.refine_mode != "off")
        return stage1, (yield from run_pose2rot(model, stage1.predictions, plan, clock))

    (stage1, predictions), plan = yield from _within_memory(model, settings, clock, both)
    return stage1, predictions, plan


def _within_memory(
    model: Model, settings: Settings, clock: Clock, work: Callable[[Model, ComputePlan], Generator[Progress, None, T]]
) -> Generator[Progress, None, tuple[T, ComputePlan]]:
    """Do the work by the plan for the model's device, and by fallback plans after errors that those avoid.

    Returns the work's result and the last plan.
    """
    plan = compute_plan_of(model.encoder.device, model.config, settings)
    while True:
        try:
            return (yield from work(model, plan)), plan
        except (RuntimeError, MemoryError, cv2.error) as error:
            fallback = fallback_for(plan, error)
            if fallback is None:
                raise
            release_device_memory(error)
        if fallback.device != plan.device:
            model = yield from _load_model(replace(settings, device=fallback.device.type), clock)
        plan = fallback
        yield Progress(plan.note, 0, 1, "")


def run_video2pose(
    model: Model, targets: Sequence[Target], clip: Clip, subject: Subject, plan: ComputePlan, clock: Clock, fitted: bool = False
) -> Generator[Progress, None, Stage1Result]:
    """Match the views and run stage 1 for all targets at once; the video's images are encoded once. Yields Progress.

    fitted: rough takes from several sides are laid on the film to find its side, instead of going by looks alone.
    Returns positions (T, K, 3) of each target in its reference camera's frame, relative to the root, rig units (RigPrediction).
    Raises UserError if a reference image is empty. Errors of torch that say that memory ran out pass through.
    """
    clip = subject.clip or clip
    squares = model.encoder.squares(subject.boxes)
    with clock("view"):
        crops = clear_crops(model, clip, subject, squares)
        film = partial(few_frames, footage=footage_of(clip, subject), frames=clear_frames(subject.confidence)) if fitted else None
        views, tokens = yield from staged("Matching the view", choose_views(model, plan, targets, crops, film))
    rigs = [target.rig for target in targets]
    references = [target.references[view] for target, view in zip(targets, views, strict=True)]
    inputs, scales = network_inputs_of(model, rigs, references, tokens)
    frames = len(subject.times)
    with clock("video2pose"), closing(encode_crops(model, plan, subject_crops(model, clip, subject, squares))) as chunks:
        parts = predict_positions(model.network, inputs, chunks, frames, plan.core, plan.half)
        position = yield from staged("Reading the motion", collect(parts, frames))
    predictions = split_predictions(rigs, references, scales, position, None, model.config.tips)
    return Stage1Result(subject, predictions, views, clock.seconds)


def run_pose2rot(
    model: Model, predictions: Sequence[RigPrediction], plan: ComputePlan | None = None, clock: Clock | None = None
) -> Generator[Progress, None, list[RigPrediction]]:
    """Run stage 2 on positions from stage 1 or any other source. Yields Progress.

    predictions: all with the same number of frames T. plan: how to compute, found for the model's device if not given.
    Returns the predictions with rot6d (T, K, 6), local rotations in the reference camera's frame.
    """
    plan = plan or compute_plan_of(model.encoder.device, model.config, Settings())
    rigs, references = [each.rig for each in predictions], [each.reference for each in predictions]
    # stage 2 reads only the pose of the reference, so its image may be blank
    blank = torch.zeros(len(rigs), 1, model.config.token_width, device=model.encoder.device)
    inputs, scales = network_inputs_of(model, rigs, references, blank)
    frames, joints = len(predictions[0].position), inputs.names.shape[1]
    position = blank.new_zeros(len(rigs), frames, joints, 3)
    for row, prediction, scale in zip(position, predictions, scales, strict=True):
        row[:, : prediction.position.shape[1]] = torch.from_numpy(prediction.position / scale).to(position.dtype)
    with (clock or Clock())("pose2rot"):
        parts = predict_rotations(model.network, inputs, position, plan.core, plan.half)
        rot6d = yield from staged("Solving rotations", collect(parts, frames))
    return split_predictions(rigs, references, scales, position, rot6d, model.config.tips)


def _load_model(settings: Settings, clock: Clock) -> Generator[Progress, None, Model]:
    yield Progress("Loading the model", 0, 1, "")
    with clock("load"):
        return load_model(settings.model, pick_device(settings.device), settings.weights)


class Clock:
    """Adds up seconds per step: `with clock("step"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start

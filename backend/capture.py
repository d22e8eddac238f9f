"""From a video to Motions: the generator that everything else calls (DESIGN section 1)."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from traceback import clear_frames
from typing import TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

from .ahead import DEPTH, ahead
from .clip import Clip, Settings
from .compute import Plan, give_back, given_back, mixed, otherwise, plan_of, uploaded
from .errors import UserError
from .inference import Take, anchor_of, collected, motion_of, reference_crop, run_pose2rot, run_video2pose, split_takes
from .motion import Motion
from .rig import Reference, Rig
from .rotation import Array
from .subject import Subject, find_subject
from .video import read_frames
from .vision import Image
from .weights import Model, load_model, pick_device

CLEAR_FRAMES = 5  # frames of the clip that the views are compared with

T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """`done` of `total` of a stage, named as a user would say it. unit: what is counted, or '' if it says nothing to a user."""

    stage: str
    done: int
    total: int
    unit: str = "frame"


@dataclass(frozen=True, eq=False)
class Target:
    """A rig and its reference pose seen from several sides; the capture picks the side that looks most like the video.

    A single reference is taken as it is.
    """

    rig: Rig
    references: tuple[Reference, ...]

    def __post_init__(self) -> None:
        if not self.references:
            raise UserError(f"Rig '{self.rig.name}' has no reference picture: render at least one view of it.")


@dataclass(frozen=True, eq=False)
class Watched:
    """What stage 1 leaves: the subject, and each rig's take without rotations with the view that was chosen for it."""

    subject: Subject
    takes: list[Take]
    views: list[int]
    seconds: dict[str, float]


def capture(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
    """Yields Progress and returns one Motion per target, in order. Closing it stops the work and frees its memory.

    A graphics card whose memory runs out is asked for half as much, then left alone; the take's provenance says so in "notes".
    Raises UserError with a sentence for the user: unreadable video, no subject, model missing, out of memory.
    """
    with given_back():
        return (yield from _capture(targets, clip, settings))


def _capture(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, list[Motion]]:
    clock = Clock()
    model = yield from _load(settings, clock)
    watched, takes, plan = yield from takes_of(model, targets, clip, settings, clock)
    subject = watched.subject
    shared = {"clip": asdict(clip), "settings": asdict(settings), "model": model.card, "seconds": clock.seconds}
    shared |= {"device": plan.device.type, "notes": [plan.note] if plan.note else []}
    return [
        motion_of(take, subject.times, subject.boxes, subject.confidence, settings, {**shared, "view": view})
        for take, view in zip(takes, watched.views, strict=True)
    ]


def takes_of(
    model: Model, targets: Sequence[Target], clip: Clip, settings: Settings, clock: Clock
) -> Generator[Progress, None, tuple[Watched, list[Take], Plan]]:
    """Both stages: what the first saw, the takes with their rotations, and the plan by which they came about in the end."""
    subject = yield from _find(clip, clock)

    def both(model: Model, plan: Plan) -> Generator[Progress, None, tuple[Watched, list[Take]]]:
        watched = yield from watch(model, targets, clip, subject, plan, clock)
        return watched, (yield from solve(model, watched.takes, plan, clock))

    (watched, takes), plan = yield from _within_memory(model, settings, clock, both)
    return watched, takes, plan


def capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Watched]:
    """Stage 1 alone."""
    with given_back():
        return (yield from _capture_positions(targets, clip, settings))


def _capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Watched]:
    clock = Clock()
    model = yield from _load(settings, clock)
    subject = yield from _find(clip, clock)
    work = partial(watch, targets=targets, clip=clip, subject=subject, clock=clock)
    return (yield from _within_memory(model, settings, clock, lambda model, plan: work(model, plan=plan)))[0]


def _find(clip: Clip, clock: Clock) -> Generator[Progress, None, Subject]:
    with clock("subject"):
        return (yield from _staged("Finding the subject", find_subject(clip)))


def _within_memory(
    model: Model, settings: Settings, clock: Clock, work: Callable[[Model, Plan], Generator[Progress, None, T]]
) -> Generator[Progress, None, tuple[T, Plan]]:
    """Does the work by the plan for the model's device, and by others where memory runs out or Metal cannot; -> its result and the
    last plan."""
    plan = plan_of(model.encoder.device, model.config, settings)
    while True:
        try:
            return (yield from work(model, plan)), plan
        except (RuntimeError, MemoryError, cv2.error) as error:
            following = otherwise(plan, error)
            if following is None:
                raise
            clear_frames(error.__traceback__)  # they hold the tensors of what failed
        if following.device != plan.device:
            model = yield from _load(replace(settings, device=following.device.type), clock)
        plan = following
        give_back()
        yield Progress(plan.note, 0, 1, "")


def watch(
    model: Model, targets: Sequence[Target], clip: Clip, subject: Subject, plan: Plan, clock: Clock
) -> Generator[Progress, None, Watched]:
    """Choose the views, and run stage 1 for all rigs at once; image features are computed once."""
    squares = model.encoder.squares(subject.boxes)
    with clock("view"):
        yield Progress("Matching the view", 0, len(targets), "")
        views, tokens = _choose_views(model, plan, targets, clear_crops(model, clip, subject, squares))
    rigs = [target.rig for target in targets]
    references = [target.references[view] for target, view in zip(targets, views, strict=True)]
    anchor, scales = anchor_of(model, rigs, references, tokens)
    frames = len(subject.times)
    with clock("video2pose"), closing(_tokens(model, plan, _crops(model, clip, subject, squares))) as chunks:
        parts = run_video2pose(model.network, anchor, chunks, frames, plan.core, plan.half)
        position = yield from collected(parts, frames, lambda done: Progress("Reading the motion", done, frames))
    takes = split_takes(rigs, references, scales, position, None, model.config.tips)
    return Watched(subject, takes, views, clock.seconds)


def solve(
    model: Model, takes: Sequence[Take], plan: Plan | None = None, clock: Clock | None = None
) -> Generator[Progress, None, list[Take]]:
    """Stage 2 on the positions of stage 1, or of any other source: takes of one length -> the takes with their rotations."""
    plan = plan or plan_of(model.encoder.device, model.config, Settings())
    rigs, references = [take.rig for take in takes], [take.reference for take in takes]
    # stage 2 reads the pose of the reference alone: its picture may be blank
    blank = torch.zeros(len(takes), 1, model.config.image_width, device=model.encoder.device)
    anchor, scales = anchor_of(model, rigs, references, blank)
    frames, joints = len(takes[0].position), anchor.names.shape[1]
    position = blank.new_zeros(len(takes), frames, joints, 3)
    for row, take, scale in zip(position, takes, scales, strict=True):
        row[:, : take.position.shape[1]] = torch.from_numpy(take.position / scale).to(position.dtype)
    with (clock or Clock())("pose2rot"):
        parts = run_pose2rot(model.network, anchor, position, plan.core, plan.half)
        rot6d = yield from collected(parts, frames, lambda done: Progress("Solving rotations", done, frames))
    return split_takes(rigs, references, scales, position, rot6d, model.config.tips)


def result_of(work: Generator[object, None, T]) -> T:
    """Run a generator to its end in silence; -> what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value


def clear_crops(model: Model, clip: Clip, subject: Subject, squares: Array) -> Array:
    """(n, 224, 224, 3) uint8: the most certain frame of each of a few stretches of the clip."""
    stretches = np.array_split(np.arange(len(squares)), min(CLEAR_FRAMES, len(squares)))
    wanted = {int(part[np.argmax(subject.confidence[part])]) for part in stretches}
    crops = []
    with closing(_crops(model, clip, subject, squares, wanted)) as pictures:
        for picture in pictures:
            crops.append(picture)
            if len(crops) == len(wanted):
                break
    return np.stack(crops)


def _crops(
    model: Model, clip: Clip, subject: Subject, squares: Array, only: Container[int] | None = None
) -> Generator[Image, None, None]:
    """(224, 224, 3) uint8 of each frame, or of those in `only`."""
    with closing(read_frames(clip, only=only)) as frames:
        for frame in frames:
            yield model.encoder.cut(frame.image, subject.matte(frame.index), squares[frame.index])


def match_view(views: Tensor, frames: Tensor) -> int:
    """Tokens of V reference pictures (V, S, C) and of n frames (n, S, C) -> the view most like the frames, by cosine.

    What counts is the pair of frames that a view is most like: the others show poses that are like the reference from no side.
    """
    likeness = torch.nn.functional.cosine_similarity(views.flatten(1)[:, None], frames.flatten(1)[None], dim=-1)
    return int(likeness.topk(min(2, len(frames)), dim=1).values.mean(1).argmax())


def _choose_views(model: Model, plan: Plan, targets: Sequence[Target], crops: Array) -> tuple[list[int], Tensor]:
    """-> the index of each target's view, and the tokens (B, S, C) of those views."""
    frames = _encoded(model, plan, crops)
    chosen, tokens = [], []
    for target in targets:
        views = _encoded(model, plan, [reference_crop(reference, model.encoder.cut) for reference in target.references])
        chosen.append(match_view(views, frames) if len(views) > 1 else 0)
        tokens.append(views[chosen[-1]])
    return chosen, torch.stack(tokens)


def _encoded(model: Model, plan: Plan, crops: Sequence[Image] | Array) -> Tensor:
    return torch.cat(list(_tokens(model, plan, (crop for crop in crops))))


def _tokens(model: Model, plan: Plan, crops: Generator[Image, None, None]) -> Generator[Tensor, None, None]:
    """Image tokens (n, S, C) of the crops, `plan.batch` at a time; the crops are made on a thread of their own."""
    device = model.encoder.device
    with closing(ahead(crops, depth=plan.batch + DEPTH)) as pictures:
        while batch := list(islice(pictures, plan.batch)):
            with mixed(device, plan.half):
                tokens = model.encoder.encode(uploaded(np.stack(batch), device))
            yield tokens.float()


def _load(settings: Settings, clock: Clock) -> Generator[Progress, None, Model]:
    yield Progress("Loading the model", 0, 1, "")
    with clock("load"):
        return load_model(settings.model, pick_device(settings.device), settings.weights)


def _staged(stage: str, work: Generator[tuple[int, int], None, T]) -> Generator[Progress, None, T]:
    """Pass a generator of (done, total) on as Progress, and its result back."""
    with closing(work):
        while True:
            try:
                done, total = next(work)
            except StopIteration as stop:
                return stop.value
            yield Progress(stage, done, total)


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

"""From a video to Motions: the generator that everything else calls (DESIGN section 1)."""

from __future__ import annotations

import time
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .ahead import DEPTH, ahead
from .clip import Clip, Settings
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
    """`done` of `total` of a stage, named as a user would say it."""

    stage: str
    done: int
    total: int


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

    Raises UserError with a sentence for the user: unreadable video, no subject, model missing, out of memory.
    """
    with _memory_errors():
        clock = Clock()
        model = yield from _load(settings, clock)
        watched = yield from watch(model, targets, clip, settings, clock)
        takes = yield from solve(model, watched.takes, clock)
        shared = {"clip": asdict(clip), "settings": asdict(settings), "model": model.card, "seconds": clock.seconds}
        subject = watched.subject
        return [
            motion_of(take, subject.times, subject.boxes, subject.confidence, settings, {**shared, "view": view})
            for take, view in zip(takes, watched.views, strict=True)
        ]


def capture_positions(targets: Sequence[Target], clip: Clip, settings: Settings) -> Generator[Progress, None, Watched]:
    """Stage 1 alone."""
    with _memory_errors():
        clock = Clock()
        model = yield from _load(settings, clock)
        return (yield from watch(model, targets, clip, settings, clock))


def watch(
    model: Model, targets: Sequence[Target], clip: Clip, settings: Settings, clock: Clock
) -> Generator[Progress, None, Watched]:
    """Find the subject, choose the views, and run stage 1 for all rigs at once; image features are computed once."""
    with clock("subject"):
        subject = yield from _staged("Finding the subject", find_subject(clip))
    squares = model.encoder.squares(subject.boxes)
    with clock("view"):
        yield Progress("Matching the view", 0, len(targets))
        views, tokens = _choose_views(model, targets, clear_crops(model, clip, subject, squares))
    rigs = [target.rig for target in targets]
    references = [target.references[view] for target, view in zip(targets, views, strict=True)]
    anchor, scales = anchor_of(model, rigs, references, tokens)
    frames = len(subject.times)
    with clock("video2pose"), closing(_tokens(model, clip, subject, squares, settings.batch)) as chunks:
        parts = run_video2pose(model.network, anchor, chunks, frames)
        position = yield from collected(parts, frames, lambda done: Progress("Reading the motion", done, frames))
    takes = split_takes(rigs, references, scales, position, None, model.config.tips)
    return Watched(subject, takes, views, clock.seconds)


def solve(model: Model, takes: Sequence[Take], clock: Clock | None = None) -> Generator[Progress, None, list[Take]]:
    """Stage 2 on the positions of stage 1, or of any other source: takes of one length -> the takes with their rotations."""
    rigs, references = [take.rig for take in takes], [take.reference for take in takes]
    # stage 2 reads the pose of the reference alone: its picture may be blank
    blank = torch.zeros(len(takes), 1, model.config.image_width, device=model.encoder.device)
    anchor, scales = anchor_of(model, rigs, references, blank)
    frames, joints = len(takes[0].position), anchor.names.shape[1]
    position = blank.new_zeros(len(takes), frames, joints, 3)
    for row, take, scale in zip(position, takes, scales, strict=True):
        row[:, : take.position.shape[1]] = torch.from_numpy(take.position / scale)
    with (clock or Clock())("pose2rot"):
        parts = run_pose2rot(model.network, anchor, position)
        rot6d = yield from collected(parts, frames, lambda done: Progress("Solving rotations", done, frames))
    return split_takes(rigs, references, scales, position, rot6d, model.config.tips)


def result_of(work: Generator[Progress, None, T]) -> T:
    """Run a generator of Progress to its end in silence; -> what it returns."""
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
    """Tokens of V reference pictures (V, S, C) and of n frames (n, S, C) -> the view most like the frames, by cosine."""
    likeness = torch.nn.functional.cosine_similarity(views.flatten(1)[:, None], frames.flatten(1)[None], dim=-1)
    return int(likeness.mean(1).argmax())


def _choose_views(model: Model, targets: Sequence[Target], crops: Array) -> tuple[list[int], Tensor]:
    """-> the index of each target's view, and the tokens (B, S, C) of those views."""
    frames = model.encoder.encode(crops)
    chosen, tokens, likeness, cut = [], [], model.encoder.likeness, model.encoder.cut
    for target in targets:
        views = model.encoder.encode(np.stack([reference_crop(reference, cut) for reference in target.references]))
        chosen.append(match_view(views[..., likeness], frames[..., likeness]) if len(views) > 1 else 0)
        tokens.append(views[chosen[-1]])
    return chosen, torch.stack(tokens)


def _tokens(model: Model, clip: Clip, subject: Subject, squares: Array, batch: int) -> Generator[Tensor, None, None]:
    """Image tokens (n, S, C) of the clip, `batch` frames at a time."""
    crops: list[Image] = []
    with closing(ahead(_crops(model, clip, subject, squares), depth=batch + DEPTH)) as pictures:
        for picture in pictures:
            crops.append(picture)
            if len(crops) == batch:
                yield model.encoder.encode(np.stack(crops))
                crops = []
    if crops:
        yield model.encoder.encode(np.stack(crops))


def _load(settings: Settings, clock: Clock) -> Generator[Progress, None, Model]:
    yield Progress("Loading the model", 0, 1)
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


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Running out of memory becomes a sentence."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise UserError(
            "The device ran out of memory: trim the clip, capture fewer rigs at once, or set the device to CPU."
        ) from error

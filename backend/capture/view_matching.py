"""Chooses the reference view in which the rig looks most like the subject in the video."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..arrays import Array, Image
from ..model.eyes import split_tokens
from ..rig.rig import Target
from ..segmentation.subject import Subject, frames_of
from ..video.clip import Clip
from ..video.prefetch import DEPTH, prefetch
from ..weights.model_file import Model
from .inference import reference_crop
from .memory_plan import ComputePlan, autocast, to_device
from .side_fitting import FewFrames, choose_side

CLEAR_FRAMES = 10  # frames of the clip to compare the views with


def clear_frames(confidence: Array) -> NDArray[np.int64]:
    """The frames to compare the views with, in order: the most certain one of each stretch of the clip. confidence: (T,)."""
    stretches = np.array_split(np.arange(len(confidence)), min(CLEAR_FRAMES, len(confidence)))
    return np.array([int(part[np.argmax(confidence[part])]) for part in stretches])


def clear_crops(model: Model, clip: Clip, subject: Subject, squares: Array) -> Array:
    """Crops (n, 224, 224, 3) uint8 of the clear frames. squares: (T, 4) of all frames, in pixels."""
    wanted, crops = set(clear_frames(subject.confidence).tolist()), []
    with closing(subject_crops(model, clip, subject, squares, wanted)) as images:
        for image in images:
            crops.append(image)
            if len(crops) == len(wanted):
                break
    return np.stack(crops)


def subject_crops(
    model: Model, clip: Clip, subject: Subject, squares: Array, only: Container[int] | None = None
) -> Generator[Image, None, None]:
    """Yield a crop (224, 224, 3) uint8 of each frame, or of the frames in `only`. squares: (T, 4) in pixels."""
    with closing(frames_of(subject, clip, only=only)) as frames:
        for frame in frames:
            yield model.encoder.cut(frame.image, subject.matte(frame.index), squares[frame.index])


def likeness_of(views: Tensor, frames: Tensor, width: int) -> Array:
    """(V,) how much each view is like the frames, as a cosine. views: tokens (V, S, C), frames: tokens (n, S, C); their first `width`
    channels count, those of the frozen encoder.

    Only the two frames that a view is most like count: in the others the subject may be in a pose that resembles no view.
    """
    looks, shown = (split_tokens(each, width)[0].flatten(1) for each in (views, frames))
    likeness = torch.nn.functional.cosine_similarity(looks[:, None], shown[None], dim=-1)
    return likeness.topk(min(2, len(frames)), dim=1).values.mean(1).float().cpu().numpy()


def choose_views(
    model: Model, plan: ComputePlan, targets: Sequence[Target], crops: Array, film: Callable[[Tensor], FewFrames] | None
) -> Generator[tuple[int, int], None, tuple[list[int], Tensor]]:
    """Match the views of B targets to crops of the video. Yields (done, total) -> the index of the view of each, and the tokens
    (B, S, C) of those views.

    film: what the crops' tokens belong to, for takes that are laid on it, or None if looks alone are to decide.
    """
    frames = torch.cat(list(encode_crops(model, plan, (crop for crop in crops))))
    chosen, tokens = [], []
    for done, target in enumerate(targets):
        yield done, len(targets)
        images = (reference_crop(reference, model.encoder.cut) for reference in target.references)
        views = torch.cat(list(encode_crops(model, plan, images)))
        likeness = likeness_of(views, frames, model.config.image_width)
        if film is None or len(views) == 1:
            chosen.append(int(np.argmax(likeness)))
        else:
            work = choose_side(model, plan, target, views, likeness, film(frames))
            chosen.append((yield from _at(work, done, len(targets))))
        tokens.append(views[chosen[-1]])
    return chosen, torch.stack(tokens)


def _at(work: Generator[None, None, int], done: int, total: int) -> Generator[tuple[int, int], None, int]:
    """Give each step of the work the same progress."""
    with closing(work):
        while True:
            try:
                next(work)
            except StopIteration as stop:
                return stop.value
            yield done, total


def encode_crops(model: Model, plan: ComputePlan, crops: Generator[Image, None, None]) -> Generator[Tensor, None, None]:
    """Yield image tokens (n, S, C) of the crops, plan.batch at a time. The crops are made on a thread of their own."""
    device = model.encoder.device
    with closing(prefetch(crops, depth=plan.batch + DEPTH)) as images:
        while batch := list(islice(images, plan.batch)):
            with autocast(device, plan.half):
                tokens = model.encoder.encode(to_device(np.stack(batch), device))
            yield tokens.float()

"""Chooses the reference view in which the rig looks most like the subject in the video."""

from __future__ import annotations

from collections.abc import Container, Generator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ..arrays import Array, Image
from ..model.eyes import split_tokens
from ..rig.rig import Target
from ..segmentation.subject import Subject
from ..video.clip import Clip
from ..video.prefetch import DEPTH, prefetch
from ..video.reader import read_frames
from ..weights.model_file import Model
from .inference import reference_crop
from .memory_plan import ComputePlan, autocast, to_device

CLEAR_FRAMES = 5  # frames of the clip to compare the views with


def clear_crops(model: Model, clip: Clip, subject: Subject, squares: Array) -> Array:
    """Crops (n, 224, 224, 3) uint8 of the frames to compare the views with: the most certain one of each stretch of the clip.

    squares: (T, 4) of all frames, in pixels.
    """
    stretches = np.array_split(np.arange(len(squares)), min(CLEAR_FRAMES, len(squares)))
    wanted = {int(part[np.argmax(subject.confidence[part])]) for part in stretches}
    crops = []
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
    with closing(read_frames(clip, only=only)) as frames:
        for frame in frames:
            yield model.encoder.cut(frame.image, subject.matte(frame.index), squares[frame.index])


def match_view(views: Tensor, frames: Tensor) -> int:
    """The index of the view that is most like the frames, by cosine. views: tokens (V, S, C), frames: tokens (n, S, C), of the frozen
    encoder alone.

    Only the two frames that a view is most like count: in the others the subject may be in a pose that resembles no view.
    """
    likeness = torch.nn.functional.cosine_similarity(views.flatten(1)[:, None], frames.flatten(1)[None], dim=-1)
    return int(likeness.topk(min(2, len(frames)), dim=1).values.mean(1).argmax())


def choose_views(model: Model, plan: ComputePlan, targets: Sequence[Target], crops: Array) -> tuple[list[int], Tensor]:
    """Match the views of B targets to crops of the video -> the index of the view of each, and the tokens (B, S, C) of those views."""
    frames = torch.cat(list(encode_crops(model, plan, (crop for crop in crops))))
    chosen, tokens = [], []
    for target in targets:
        images = (reference_crop(reference, model.encoder.cut) for reference in target.references)
        views = torch.cat(list(encode_crops(model, plan, images)))
        looks, shown = (split_tokens(each, model.config.image_width)[0] for each in (views, frames))
        chosen.append(match_view(looks, shown) if len(views) > 1 else 0)
        tokens.append(views[chosen[-1]])
    return chosen, torch.stack(tokens)


def encode_crops(model: Model, plan: ComputePlan, crops: Generator[Image, None, None]) -> Generator[Tensor, None, None]:
    """Yield image tokens (n, S, C) of the crops, plan.batch at a time. The crops are made on a thread of their own."""
    device = model.encoder.device
    with closing(prefetch(crops, depth=plan.batch + DEPTH)) as images:
        while batch := list(islice(images, plan.batch)):
            with autocast(device, plan.half):
                tokens = model.encoder.encode(to_device(np.stack(batch), device))
            yield tokens.float()

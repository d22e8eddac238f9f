"""Running the network over clips of any length, exactly (docs/architecture.md, Any length, exactly), and turning its output into Motions.

Frames pass through in windows that overlap by what one output frame depends on, so the result is that of the whole clip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..capture_settings import Settings
from ..encoders.crops import Image, crop, crop_box
from ..errors import UserError
from ..geometry.camera import view_yaw
from ..geometry.rotations import (
    Array,
    continuous,
    matrix_to_quaternion,
    matrix_to_yaw,
    rot6d_to_matrix,
    yaw_to_matrix,
)
from ..model.encode_rig import collate, encode_reference_pairs, encode_skeleton
from ..model.inputs import NetworkInputs
from ..model.network import Video2Pose2Rot
from ..motion.motion import Motion
from ..rig.rig import Reference, Rig
from ..rig.skeleton import local_to_global, network_axes, pose_to_network, posed_heads, skeleton_of
from ..weights.model_file import Model
from .memory_plan import autocast

Cut = Callable[[Image, Image, Array], Image]

CORE = 64  # output frames per window
SEEN_ALPHA = 8  # of 255: what counts as the subject in a reference image


@dataclass(frozen=True, eq=False)
class RigPrediction:
    """What the network says of one rig, in the reference view's frame: positions (T, K, 3) in rig units and relative to the
    root, rot6d (T, K, 6) local rows or None when the second stage has not run. azimuth: the reference view's."""

    rig: Rig
    reference: Reference
    position: Array
    rot6d: Array | None
    azimuth: float


def reference_square(reference: Reference) -> Array:
    """(4,) the square around the subject in the reference image. Raises UserError if it shows nothing."""
    rows, columns = np.nonzero(reference.image[..., 3] > SEEN_ALPHA)
    if not len(rows):
        raise UserError("The reference image is empty: show the character's meshes, or choose another view.")
    return crop_box(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))


def reference_crop(reference: Reference, cut: Cut = crop) -> Image:
    """(224, 224, 3) uint8: the image as the encoder sees it. cut: the encoder's own way, lite's by default."""
    return cut(reference.image[..., :3], reference.image[..., 3], reference_square(reference))


def network_inputs_of(
    model: Model, rigs: Sequence[Rig], references: Sequence[Reference], tokens: Tensor
) -> tuple[NetworkInputs, list[float]]:
    """Rigs with the view chosen for each and that view's tokens (B, S, C) -> the network's input, and each rig's scale."""
    config = model.config
    pairs = [
        encode_reference_pairs(
            rig, reference.pose[None], [reference.azimuth], reference.projection, reference_square(reference), config
        )
        for rig, reference in zip(rigs, references, strict=True)
    ]
    return collate([encode_skeleton(rig, config, model.names) for rig in rigs], pairs, tokens), [pair.scale for pair in pairs]


def windows(frames: int, margin: int, core: int = CORE) -> Iterator[tuple[int, int, int, int]]:
    """(first, last + 1) of the frames to read, and of those to keep, until all are covered.

    A clip that fits into the frames that a window reads anyway is one window.
    """
    core = frames if frames <= core + 2 * margin else core
    for start in range(0, frames, core):
        end = min(start + core, frames)
        yield max(0, start - margin), min(frames, end + margin), start, end


@torch.inference_mode()
def predict_positions(
    network: Video2Pose2Rot,
    inputs: NetworkInputs,
    chunks: Iterable[Tensor],
    frames: int,
    core: int = CORE,
    half: torch.dtype | None = None,
) -> Iterator[Tensor]:
    """Stage 1 over image tokens that arrive in chunks (n, S, C), `frames` in all -> positions (B, n', J, 3) in order.

    Only one window of tokens is held. half: the type of its products, None for that of the weights.
    """
    source, held, first = iter(chunks), inputs.tokens.new_zeros(0, *inputs.tokens.shape[1:]), 0
    for low, high, start, end in windows(frames, network.config.margins[0], core):
        parts, first, count = [held[low - first :]], low, len(held) - (low - first)
        while low + count < high:
            parts.append(next(source).to(held))
            count += len(parts[-1])
        held = torch.cat(parts)
        with autocast(inputs.tokens.device, half):
            position = network.video2pos(held[None, : high - low], inputs)[0]
        yield position[:, start - low : end - low].to(inputs.position.dtype)


@torch.inference_mode()
def predict_rotations(
    network: Video2Pose2Rot, inputs: NetworkInputs, position: Tensor, core: int = CORE, half: torch.dtype | None = None
) -> Iterator[Tensor]:
    """Stage 2 over positions (B, T, J, 3) -> local rot6d (B, n', J, 6) in order."""
    for low, high, start, end in windows(position.shape[1], network.config.margins[1], core):
        with autocast(position.device, half):
            rot6d = network.pos2rot(position[:, low:high], inputs)
        yield rot6d[:, start - low : end - low].to(inputs.rot6d.dtype)


def collect(parts: Iterator[Tensor], frames: int, tick: Callable[[int], Any]) -> Generator[Any, None, Tensor]:
    """Gather (B, n, ...) parts along the frames, yielding tick(frames done) after each."""
    gathered: list[Tensor] = []
    done = 0
    for part in parts:
        gathered.append(part)
        done += part.shape[1]
        yield tick(min(done, frames))
    return torch.cat(gathered, dim=1)


def split_predictions(
    rigs: Sequence[Rig],
    references: Sequence[Reference],
    scales: Sequence[float],
    position: Tensor,
    rot6d: Tensor | None,
    tips: bool,
) -> list[RigPrediction]:
    """Network output for B padded rigs -> one Take each, in rig units."""
    takes = []
    for i, (rig, reference, scale) in enumerate(zip(rigs, references, scales, strict=True)):
        joints = len(skeleton_of(rig, tips))
        # widened only when it has left the device: Metal has no float64
        turned = None if rot6d is None else rot6d[i, :, :joints].cpu().double().numpy()
        place = position[i, :, :joints].cpu().double().numpy() * scale
        takes.append(RigPrediction(rig, reference, place, turned, reference.azimuth))
    return takes


def motion_of(
    take: RigPrediction, times: Array, boxes: Array, confidence: Array, settings: Settings, provenance: dict[str, Any]
) -> Motion:
    """A take -> a Motion in armature axes; confidence (T,) of the subject. provenance gains the camera's azimuth.

    The network's frame is the reference camera's: p_camera = Y(a) p_network (camera.view_yaw). Which azimuth a the video was
    really shot from nobody knows; the matched view is off by up to half the step between views. With heading "rig" a is
    therefore corrected by the mean yaw d of the root away from the reference: Y(a)^T is a yaw by a, so turning everything by
    -d is the same as a camera at a - d.
    """
    assert take.rot6d is not None
    rig, count = take.rig, len(take.rig.names)
    axes = network_axes(rig)
    rotations = local_to_global(rig.parents, rot6d_to_matrix(take.rot6d[:, :count]))
    seen = take.position[:, :count]
    # what stage 1 saw, and where the rotations put it: their mean is nearer the truth than either (MPJPE on the validation clips
    # 0.80 of copying, against 0.84 for each)
    position = (seen + posed_heads(skeleton_of(rig, tips=False), rotations, seen)) / 2
    azimuth = take.azimuth
    if settings.heading == "rig":
        reference = pose_to_network(rig, take.reference.pose, tips=False)[0][0]
        # yaw of the root away from the reference, as a mean direction over the frames
        yaw = matrix_to_yaw(view_yaw(azimuth).T @ rotations[:, 0] @ reference.T)
        azimuth -= float(np.angle(np.exp(1j * yaw).mean()))
    back = yaw_to_matrix(np.array(azimuth))  # Y(a)^T
    # camera -> network: G -> Y^T G; network -> armature: p -> A^T p and G -> A^T G A (skeleton.network_axes)
    rotations = axes.T @ (back @ rotations) @ axes
    positions = position @ (axes.T @ back).T
    quaternions = continuous(matrix_to_quaternion(rotations))
    spread = np.broadcast_to(confidence[:, None], (len(times), count))
    return Motion(rig.names, times, quaternions, positions, boxes, spread, {**provenance, "azimuth": azimuth})

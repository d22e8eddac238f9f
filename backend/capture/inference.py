"""Runs the network over clips of any length, and makes Motions of its output.

The network reads the clip in windows that overlap by the frames that an output frame depends on, so the result is exactly that of the
whole clip (docs/architecture.md, Any length, exactly).
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
from .memory_plan import CORE, autocast

Cut = Callable[[Image, Image, Array], Image]

VISIBLE_ALPHA = 8  # of 255: pixels above it show the character in a reference image


@dataclass(frozen=True, eq=False)
class RigPrediction:
    """The network's output for one rig over T frames, in the frame of the reference's camera (y up).

    position: (T, K, 3) relative to the root, rig units; K joints, leaf tips included if the model has them.
    rot6d: (T, K, 6) local rotations, or None before stage 2. azimuth: of the reference's camera, radians.
    """

    rig: Rig
    reference: Reference
    position: Array
    rot6d: Array | None
    azimuth: float


def reference_square(reference: Reference) -> Array:
    """The square around the character in the reference image, (4,) x0 y0 x1 y1 in pixels. Raises UserError if the image is empty."""
    rows, columns = np.nonzero(reference.image[..., 3] > VISIBLE_ALPHA)
    if not len(rows):
        raise UserError("The reference image is empty: show the character's meshes, or choose another view.")
    return crop_box(np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]))


def reference_crop(reference: Reference, cut: Cut = crop) -> Image:
    """Crop the reference image as the encoder wants it, (224, 224, 3) uint8 RGB. cut: the encoder's cropping, lite's by default."""
    return cut(reference.image[..., :3], reference.image[..., 3], reference_square(reference))


def network_inputs_of(
    model: Model, rigs: Sequence[Rig], references: Sequence[Reference], tokens: Tensor
) -> tuple[NetworkInputs, list[float]]:
    """The network's inputs for B rigs, and the scale of each (rig units per unit of the network).

    references: the view chosen for each rig. tokens: (B, S, C) of those views' images.
    """
    config = model.config
    pairs = [
        encode_reference_pairs(
            rig, reference.pose[None], [reference.azimuth], reference.projection, reference_square(reference), config
        )
        for rig, reference in zip(rigs, references, strict=True)
    ]
    return collate([encode_skeleton(rig, config, model.names) for rig in rigs], pairs, tokens), [pair.scale for pair in pairs]


def windows(frames: int, margin: int, core: int = CORE) -> Iterator[tuple[int, int, int, int]]:
    """Yield windows that cover all frames: start and end of the frames to read, start and end of those to keep. Ends are exclusive.

    A clip no longer than the frames that a window reads is one window.
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
    """Run stage 1 over image tokens that arrive in chunks (n, S, C), `frames` in all. Yields positions (B, n, J, 3) in order.

    core: output frames of a window; one window of tokens is in memory at a time. half: see ComputePlan.
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
    """Run stage 2 over positions (B, T, J, 3). Yields local rot6d (B, n, J, 6) in order."""
    for low, high, start, end in windows(position.shape[1], network.config.margins[1], core):
        with autocast(position.device, half):
            rot6d = network.pos2rot(position[:, low:high], inputs)
        yield rot6d[:, start - low : end - low].to(inputs.rot6d.dtype)


def collect(parts: Iterator[Tensor], frames: int) -> Generator[tuple[int, int], None, Tensor]:
    """Join parts (B, n, ...) along the frames. Yields (frames done, frames in all) after each; returns (B, frames, ...)."""
    gathered: list[Tensor] = []
    done = 0
    for part in parts:
        gathered.append(part)
        done += part.shape[1]
        yield min(done, frames), frames
    return torch.cat(gathered, dim=1)


def split_predictions(
    rigs: Sequence[Rig],
    references: Sequence[Reference],
    scales: Sequence[float],
    position: Tensor,
    rot6d: Tensor | None,
    tips: bool,
) -> list[RigPrediction]:
    """The network's output for B padded rigs, position (B, T, K, 3) and rot6d (B, T, K, 6), as one prediction per rig, in rig units."""
    predictions = []
    for i, (rig, reference, scale) in enumerate(zip(rigs, references, scales, strict=True)):
        joints = len(skeleton_of(rig, tips))
        # to float64 after the transfer: Metal has none
        own_rot6d = None if rot6d is None else rot6d[i, :, :joints].cpu().double().numpy()
        own_position = position[i, :, :joints].cpu().double().numpy() * scale
        predictions.append(RigPrediction(rig, reference, own_position, own_rot6d, reference.azimuth))
    return predictions


def motion_of(
    prediction: RigPrediction, times: Array, boxes: Array, confidence: Array, settings: Settings, provenance: dict[str, Any]
) -> Motion:
    """Make a Motion in armature axes of a prediction with rotations.

    times: (T,) seconds. boxes: (T, 4) and confidence: (T,) of the subject. provenance: kept with the motion, which adds the camera's
    azimuth to it.
    """
    assert prediction.rot6d is not None
    rig, count = prediction.rig, len(prediction.rig.names)
    axes = network_axes(rig)
    rotations = local_to_global(rig.parents, rot6d_to_matrix(prediction.rot6d[:, :count]))
    predicted = prediction.position[:, :count]
    # The mean of stage 1's positions and those that the rotations give is nearer the truth than either: on the validation clips its
    # MPJPE is 0.80 of copying the reference, against 0.84 for each.
    position = (predicted + posed_heads(skeleton_of(rig, tips=False), rotations, predicted)) / 2
    # The prediction is in the camera's frame, p_camera = Y(a) p_network (camera.view_yaw). The azimuth a of the video's camera is
    # unknown: that of the matched view is off by up to half the step between views. With heading "rig" the motion is rotated by -d, the
    # mean yaw of the root away from the reference. As Y(a)^T is a yaw by a, that is the same as a camera at a - d.
    azimuth = prediction.azimuth
    if settings.heading == "rig":
        reference = pose_to_network(rig, prediction.reference.pose, tips=False)[0][0]
        # the mean of directions, not of angles, which wrap
        yaw = matrix_to_yaw(view_yaw(azimuth).T @ rotations[:, 0] @ reference.T)
        azimuth -= float(np.angle(np.exp(1j * yaw).mean()))
    back = yaw_to_matrix(np.array(azimuth))  # Y(a)^T
    # camera -> network: G -> Y^T G; network -> armature: p -> A^T p and G -> A^T G A (skeleton.network_axes)
    rotations = axes.T @ (back @ rotations) @ axes
    positions = position @ (axes.T @ back).T
    quaternions = continuous(matrix_to_quaternion(rotations))
    spread = np.broadcast_to(confidence[:, None], (len(times), count))
    return Motion(rig.names, times, quaternions, positions, boxes, spread, {**provenance, "azimuth": azimuth})

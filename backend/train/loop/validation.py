"""Measures a run on held-out windows while it trains, and compares it with copying the reference pose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from ...encoders.efficientnet import Encoder
from ...geometry.torch_kinematics import geodesic_angle, rot6d_to_matrix
from ...model.config import Config
from ...model.inputs import NetworkInputs
from ...model.network import Video2Pose2Rot
from ..evaluation.ablations import inputs_without
from ..evaluation.metrics import CENTIMETRES
from ..packs.rig_packs import Pack
from ..samples.samples import Recipe, Sample, Windows
from .losses import Batch, batch_of, with_trained_eyes

SEED = 20_000  # of the windows, so that all runs have the same
BATCH = 8


class HeldOutWindows:
    """`count` windows of each set of packs, the same in all runs."""

    def __init__(
        self, sets: Mapping[str, Sequence[Pack]], config: Config, encoder: Callable[[], Encoder], frames: int, count: int
    ) -> None:
        self.windows: dict[str, list[Sample]] = {}
        for name, packs in sets.items():
            if packs:
                made = encoder()
                source = iter(Windows(packs, config, made.encode, Recipe(frames), SEED, str(made.device)))
                self.windows[name] = sorted(islice(source, count), key=lambda sample: len(sample.body.skeleton))

    @torch.inference_mode()
    def measure(self, network: Video2Pose2Rot, without: Sequence[str] = ()) -> dict[str, dict[str, float]]:
        """Figures by set: mpjpe_cm, angle_deg, the same for copying (copy_*), and liveness; positions over all joints, angles over those that rotate.

        without: parts of the method that the network lacks (ablations).
        """
        return {name: _measure_windows(network, windows, without) for name, windows in self.windows.items()}


def _measure_windows(network: Video2Pose2Rot, windows: Sequence[Sample], without: Sequence[str]) -> dict[str, float]:
    device = next(network.parameters()).device
    sums: dict[str, float] = {}
    for start in range(0, len(windows), BATCH):
        batch = batch_of(windows[start : start + BATCH], device)
        batch = with_trained_eyes(network, batch)
        for key, value in _sum_errors(network, batch, inputs_without(batch.inputs, without)).items():
            sums[key] = sums.get(key, 0.0) + value.item()
    joints, rotating = sums["joints"], sums["rotating"]
    return {
        "mpjpe_cm": CENTIMETRES * sums["distance"] / joints, "copy_mpjpe_cm": CENTIMETRES * sums["copy_distance"] / joints,
        "angle_deg": sums["angle"] / rotating, "copy_angle_deg": sums["copy_angle"] / rotating,
        "liveness": sums["travel"] / max(sums["true_travel"], 1e-6),
    }  # fmt: skip


def _sum_errors(network: Video2Pose2Rot, batch: Batch, shown: NetworkInputs) -> dict[str, Tensor]:
    """Sums over the batch's frames and joints, and the counts to divide them by. shown: the inputs that the network gets."""
    inputs = batch.inputs
    position, rot6d = network(batch.image, shown)
    rotations, copied = rot6d_to_matrix(rot6d), rot6d_to_matrix(inputs.rot6d[:, :1]).expand_as(batch.rotations)
    counted = batch.weight.expand(position.shape[:3])
    rotating = batch.rotates.expand(position.shape[:3])
    return {
        "joints": counted.sum(), "rotating": rotating.sum(),
        "distance": ((position - batch.position).norm(dim=-1) * counted).sum(),
        "copy_distance": ((inputs.position[:, :1] - batch.position).norm(dim=-1) * counted).sum(),
        "angle": (geodesic_angle(rotations, batch.rotations).rad2deg() * rotating).sum(),
        "copy_angle": (geodesic_angle(copied, batch.rotations).rad2deg() * rotating).sum(),
        "travel": (position.diff(dim=1).norm(dim=-1) * counted[:, 1:]).sum(),
        "true_travel": (batch.position.diff(dim=1).norm(dim=-1) * counted[:, 1:]).sum(),
    }  # fmt: skip

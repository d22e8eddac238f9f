"""What a training step minimises (docs/network.md, Training and the data set's layout), over a padded batch of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry.torch_kinematics import geodesic_angle, local_to_global, pick, rot6d_to_matrix
from ...model.encode_rig import collate
from ...model.inputs import NetworkInputs
from ...model.network import Video2Pose2Rot
from ..samples.samples import Sample

WEIGHTS = {"position": 4.0, "place": 2.0, "rotation": 1.0, "root": 0.5, "turning": 1.0, "speed": 4.0, "chain": 2.0, "travel": 4.0}
STILL = 1e-3  # body units a frame: below it a step's length is as good as zero, and its gradient bounded


@dataclass(frozen=True, eq=False)
class Batch:
    """image (B, T, S, C); position (B, T, K, 3); turns (B, T, K, 3, 3) local; uv (B, T, K, 2); weight (B, 1, K) over joints,
    rotates (B, 1, K) those with a rotation of their own."""

    inputs: NetworkInputs
    image: Tensor
    position: Tensor
    rotations: Tensor
    uv: Tensor
    weight: Tensor
    rotates: Tensor


def batch_of(samples: Sequence[Sample], device: torch.device | str, pairs: int = 1) -> Batch:
    """Pad to the rig with most joints; pairs: how many of the samples' reference pairs the network sees."""
    tokens = torch.stack([sample.tokens for sample in samples]).to(device, torch.float32)
    inputs = collate([s.body for s in samples], [s.pairs for s in samples], tokens[:, 0])
    inputs = replace(inputs, position=inputs.position[:, :pairs], rot6d=inputs.rot6d[:, :pairs])
    joints = inputs.names.shape[1]

    def stack(values: list[Tensor]) -> Tensor:
        padded = [F.pad(value.movedim(1, -1), (0, joints - value.shape[1])).movedim(-1, 1) for value in values]
        return torch.stack(padded).to(device)

    eye = torch.eye(3, device=device)
    rotations = stack([s.rotations for s in samples])
    rotations = torch.where(inputs.graph.mask[:, None, :, None, None], rotations, eye)
    weight = inputs.graph.mask[:, None].float()
    return Batch(
        inputs, tokens[:, 1:], stack([s.position for s in samples]), rotations, stack([s.uv for s in samples]), weight,
        weight * ~inputs.static_rotation[:, None],
    )  # fmt: skip


def losses(
    model: Video2Pose2Rot, batch: Batch, predicted: Tensor, cut: bool = False, geodesic: bool = False
) -> dict[str, Tensor]:
    """The terms of WEIGHTS, unweighted. predicted (B,) bool: whose second stage reads predicted positions (mixed poses);
    the others read the true ones with a little noise. Gradients flow through both stages, unless they are cut between them.
    geodesic: rotations are judged by the angle between them, in radians, instead of entry by entry."""
    with torch.autocast(batch.image.device.type, torch.bfloat16):
        position, uv = model.video2pos(batch.image, batch.inputs)
        noisy = batch.position + torch.randn_like(batch.position) * 0.02
        entry = torch.where(predicted[:, None, None, None], position.detach() if cut else position, noisy)
        rot6d = model.pos2rot(entry, batch.inputs)
    rotations = rot6d_to_matrix(rot6d.float())
    weight, rotates = batch.weight, batch.rotates
    apart = geodesic_angle(rotations, batch.rotations) if geodesic else _huber(rotations - batch.rotations, 0.3).sum(-1)
    chained = _chained(rotations, batch)
    terms = {
        "position": _mean(_huber(position - batch.position, 0.1), weight),
        "speed": _mean(_huber(position.diff(dim=1) - batch.position.diff(dim=1), 0.1), weight),
        "rotation": _mean(apart, rotates),
        "root": _mean(apart[:, :, :1], rotates[:, :, :1]),
        "turning": _mean(_huber(rotations.diff(dim=1) - batch.rotations.diff(dim=1), 0.3).sum(-1), rotates),
        "chain": _mean(_huber(chained - batch.position, 0.1), weight),
        "travel": _mean((travel(chained) - travel(batch.position)).abs(), weight[:, 0]),
    }
    if uv is not None:
        terms["place"] = _mean(_huber(uv - batch.uv, 0.1), weight)
    return terms


def total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([WEIGHTS[key] * value for key, value in terms.items()]).sum()


def _chained(rotations: Tensor, batch: Batch) -> Tensor:
    """Positions by forward kinematics of the predicted rotations and the true bones.

    A bone is the true step from parent to joint in the parent's true axes: the rest offset where bones keep their length,
    and what it has become where a joint translates or stretches, so that only rotations are judged.
    """
    graph = batch.inputs.graph
    true = local_to_global(graph.parents, batch.rotations)
    bone = batch.position - pick(batch.position, graph.parents)
    own = (pick(true, graph.parents).transpose(-1, -2) @ bone[..., None])[..., 0]
    steps = (pick(local_to_global(graph.parents, rotations), graph.parents) @ own[..., None])[..., 0]
    return graph.ancestors[:, None].to(steps.dtype) @ steps


def travel(heads: Tensor) -> Tensor:
    """(B, T, K, 3) -> (B, K) mean length of a joint's steps.

    The other terms are least where the network, in doubt of where a limb goes, leaves it between the possible places: this one
    asks that it goes as far as the true one, wherever it is.
    """
    return (heads.diff(dim=1).square().sum(-1) + STILL**2).sqrt().mean(1)


def _huber(difference: Tensor, delta: float) -> Tensor:
    return F.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=delta).sum(-1) / delta


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)

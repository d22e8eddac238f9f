"""The losses of a training step, over a padded batch of samples (docs/network.md, Training and the data set's layout)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...encoders.efficientnet import normalise
from ...geometry.torch_kinematics import geodesic_angle, local_to_global, pick, rot6d_to_matrix
from ...model.encode_rig import collate
from ...model.eyes import join_tokens
from ...model.inputs import NetworkInputs
from ...model.layers import frames_apart
from ...model.network import Video2Pose2Rot
from ...segmentation.isnet import best_dtype
from ..samples.samples import Sample

WEIGHTS = {
    "position": 4.0, "place": 2.0, "rotation": 1.0, "root": 0.5, "turning": 1.0, "speed": 4.0, "chain": 3.0, "travel": 6.0,
    "likeness": 0.5, "bone": 2.0,
}  # fmt: skip
APART = {"turning": 0.0, "speed": 0.0, "travel": 4.0}  # of frames that do not follow each other
STILL = 1e-3  # body units per frame: shorter steps count as zero, which bounds the gradient of their length
SHORTEST = 0.03  # body units: a shorter bone has no direction worth learning
MOVING = 0.02  # body units, root mean square: a window that moves less has no movement to be like


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples, padded to K joints.

    image: (B, T, S, C) tokens. position: (B, T, K, 3). rotations: (B, T, K, 3, 3), local. uv: (B, T, K, 2).
    weight: (B, 1, K), 0 for padding. rotates: (B, 1, K), 0 also for joints without a rotation of their own.
    apart: the frames do not follow each other. crops: (B, T + 1, 224, 224, 3) uint8, the reference's first, for trained eyes.
    """

    inputs: NetworkInputs
    image: Tensor
    position: Tensor
    rotations: Tensor
    uv: Tensor
    weight: Tensor
    rotates: Tensor
    apart: bool = False
    crops: Tensor | None = None


def batch_of(samples: Sequence[Sample], device: torch.device | str, pairs: int = 1) -> Batch:
    """Pad the samples to the rig with most joints. pairs: number of each sample's reference pairs that the network gets."""
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
        weight * ~inputs.static_rotation[:, None], all(s.apart for s in samples), _stacked_crops(samples, device),
    )  # fmt: skip


def _stacked_crops(samples: Sequence[Sample], device: torch.device | str) -> Tensor | None:
    crops = [sample.crops for sample in samples if sample.crops is not None]
    return torch.stack(crops).to(device) if len(crops) == len(samples) else None


def with_trained_eyes(model: Video2Pose2Rot, batch: Batch) -> Batch:
    """Add what the model's trained eyes see to the tokens, if it has some. Gradients flow back to the eyes."""
    if model.eyes is None:
        return batch
    assert batch.crops is not None
    count = batch.crops.shape[1]
    seen = model.eyes(normalise(batch.crops.flatten(0, 1))).unflatten(0, (-1, count))  # (B, T + 1, S, 4 E)
    inputs = replace(batch.inputs, tokens=join_tokens(batch.inputs.tokens, seen[:, 0]))
    return replace(batch, inputs=inputs, image=join_tokens(batch.image, seen[:, 1:]))


def losses(
    model: Video2Pose2Rot, batch: Batch, predicted: Tensor, cut: bool = False, geodesic: bool = False
) -> dict[str, Tensor]:
    """The losses by name, before they are weighted by WEIGHTS.

    predicted: (B,) bool, the samples whose stage 2 reads predicted positions; the others read the true ones with a little noise.
    cut: no gradient flows from stage 2 into stage 1. geodesic: the rotation loss is the angle in radians instead of the difference of
    the matrices' entries. Half precision is used where the hardware calculates with it.
    """
    half = training_dtype(batch.image.device)
    autocast = torch.autocast(batch.image.device.type, torch.bfloat16, enabled=half != torch.float32)
    with autocast, fast_attention(batch.image.device), frames_apart(model, batch.apart):
        batch = with_trained_eyes(model, batch)
        position, places = model.video2pos(batch.image, batch.inputs)
        noisy = batch.position + torch.randn_like(batch.position) * 0.02
        entry = torch.where(predicted[:, None, None, None], position.detach() if cut else position, noisy)
        rot6d = model.pos2rot(entry, batch.inputs)
    rotations = rot6d_to_matrix(rot6d.float())
    weight, rotates = batch.weight, batch.rotates
    error = geodesic_angle(rotations, batch.rotations) if geodesic else _huber(rotations - batch.rotations, 0.3).sum(-1)
    chained = _chained_positions(rotations, batch)
    terms = {
        "position": _mean(_huber(position - batch.position, 0.1), weight),
        "speed": _mean(_huber(position.diff(dim=1) - batch.position.diff(dim=1), 0.1), weight),
        "rotation": _mean(error, rotates),
        "root": _mean(error[:, :, :1], rotates[:, :, :1]),
        "turning": _mean(_huber(rotations.diff(dim=1) - batch.rotations.diff(dim=1), 0.3).sum(-1), rotates),
        "chain": _mean(_huber(chained - batch.position, 0.1), weight),
        "travel": _mean((travel(chained) - travel(batch.position)).abs(), weight[:, 0]),
        "likeness": _unlikeness(chained, batch.position, weight),
        "bone": _bones_apart(chained, batch),
    }
    if places:  # as each step found them: the fine one would otherwise be ignored before it has learnt to see
        terms["place"] = torch.stack([_mean(_huber(uv - batch.uv, 0.1), weight) for uv in places]).mean()
    return terms


def total(terms: dict[str, Tensor], apart: bool = False) -> Tensor:
    """The weighted sum of the losses. apart: of frames that do not follow each other."""
    weights = WEIGHTS | APART if apart else WEIGHTS
    return torch.stack([weights[key] * value for key, value in terms.items()]).sum()


def training_dtype(device: torch.device) -> torch.dtype:
    """bfloat16, but float32 on a processor that does not calculate with it: emulated, a step takes twenty times as long."""
    return best_dtype(device) if device.type == "cpu" else torch.bfloat16


@contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """Attention as two products and a softmax on a processor, whose fused attention is slow backwards in bfloat16: a step takes a
    quarter less."""
    if device.type != "cpu":
        yield
        return
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # a setting of all devices, despite its name
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _chained_positions(rotations: Tensor, batch: Batch) -> Tensor:
    """Positions (B, T, K, 3) by forward kinematics of the predicted rotations with the true bones, so that only rotations count.

    A true bone is the true offset from the parent in the parent's true axes: the rest offset, or another one where a joint translates.
    """
    graph = batch.inputs.graph
    true = local_to_global(graph.parents, batch.rotations)
    bone = batch.position - pick(batch.position, graph.parents)
    own = (pick(true, graph.parents).transpose(-1, -2) @ bone[..., None])[..., 0]
    steps = (pick(local_to_global(graph.parents, rotations), graph.parents) @ own[..., None])[..., 0]
    return graph.ancestors[:, None].to(steps.dtype) @ steps


def _bones_apart(heads: Tensor, batch: Batch) -> Tensor:
    """Between the directions of the bones of heads (B, T, K, 3) and the true ones, from each joint's parent to the joint."""
    parents = batch.inputs.graph.parents
    bone, true = (values - pick(values, parents) for values in (heads, batch.position))
    length = true.norm(dim=-1)
    apart = F.normalize(bone, dim=-1, eps=1e-3) - F.normalize(true, dim=-1, eps=1e-3)
    return _mean(_huber(apart, 0.3), batch.weight * (length > SHORTEST))


def travel(heads: Tensor) -> Tensor:
    """Heads (B, T, K, 3) -> (B, K) the mean distance that a joint travels from frame to frame.

    When the network is unsure where a limb goes, the other losses are least if the limb stays between the possible places. This one asks
    it to travel as far as the true limb.
    """
    return (heads.diff(dim=1).square().sum(-1) + STILL**2).sqrt().mean(1)


def _unlikeness(heads: Tensor, true: Tensor, weight: Tensor) -> Tensor:
    """1 minus the correlation of the movements of heads (B, T, K, 3), as movement.motion_correlation has it, in windows that move.

    It asks for the right movement at any size: a limb that keeps still because it is in doubt costs as much as one that errs.
    """
    moved, truly = (_movement(values, weight) for values in (heads, true))
    size = (truly.square().sum((1, 2, 3)) / (weight.sum((1, 2)) * heads.shape[1])).sqrt()  # (B,) root mean square of a joint
    lengths = moved.square().sum((1, 2, 3)).add(1e-6).sqrt() * truly.square().sum((1, 2, 3)).add(1e-6).sqrt()
    alike = (moved * truly).sum((1, 2, 3)) / lengths
    return _mean(1 - alike, (size > MOVING).float())


def _movement(heads: Tensor, weight: Tensor) -> Tensor:
    """Heads (B, T, K, 3) relative to the mean of the joints in each frame and to each joint's mean over the frames; 0 for padding."""
    share = (weight / weight.sum(-1, keepdim=True))[..., None]  # (B, 1, K, 1)
    centred = heads - (heads * share).sum(2, keepdim=True)
    return (centred - centred.mean(1, keepdim=True)) * weight[..., None]


def _huber(difference: Tensor, delta: float) -> Tensor:
    return F.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=delta).sum(-1) / delta


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    weight = weight.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp(min=1)

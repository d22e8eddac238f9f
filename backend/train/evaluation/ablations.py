"""Leaves out parts of the method, in training and in measuring, to see what each part is worth.

reference: no reference pair; instead the rest pose, identity rotations and an empty image, which a rig alone would give.
rest: no rest offsets. gradient: none flows from stage 2 into stage 1. side: the reference image is taken from any side.
names: no joint names. tips: no joints at the tails of leaf bones. aids: no geometric layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import UserError
from ...geometry.torch_kinematics import matrix_to_rot6d
from ...model.config import Config
from ...model.inputs import NetworkInputs
from ...weights.model_file import Model
from ..samples.samples import SIDE_ERROR

PARTS = ("reference", "rest", "gradient", "side", "names", "tips", "aids")


def config_without(config: Config, parts: Sequence[str]) -> Config:
    """The config of a network without these parts. Raises UserError for an unknown part."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UserError(f"There is no part '{unknown[0]}' to leave out: choose among {', '.join(PARTS)}.")
    aids = config.aids and "aids" not in parts
    return replace(config, tips=config.tips and "tips" not in parts, aids=aids, eyes=config.eyes if aids else 0)


def side_error(parts: Sequence[str]) -> float:
    """Standard deviation, in radians, of the azimuth between video and reference. Without "side", all sides are equally likely."""
    return 10 * np.pi if "side" in parts else SIDE_ERROR


def inputs_without(inputs: NetworkInputs, parts: Sequence[str]) -> NetworkInputs:
    """Blank the inputs that belong to these parts."""
    if "reference" in parts:
        position = _rest_position(inputs)
        identity = matrix_to_rot6d(torch.eye(3)).to(inputs.rot6d).expand_as(inputs.rot6d[:, :1])
        tokens = torch.zeros_like(inputs.tokens)
        inputs = replace(inputs, position=position, rot6d=identity, tokens=tokens, uv=_project_front(position))
    if "rest" in parts:
        inputs = replace(inputs, offsets=torch.zeros_like(inputs.offsets))
    if "names" in parts:
        inputs = replace(inputs, names=torch.zeros_like(inputs.names))
    return inputs


class Without(nn.Module):
    """A network whose inputs lack some parts, as they did in its training."""

    def __init__(self, network: nn.Module, parts: Sequence[str]) -> None:
        super().__init__()
        self.network, self.parts = network, tuple(parts)
        self.config: Config = network.config

    def video2pos(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Stage 1: see Video2Pose.forward."""
        return self.network.video2pos(image, inputs_without(inputs, self.parts))

    def pos2rot(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        """Stage 2: see Pose2Rot.forward."""
        return self.network.pos2rot(position, inputs_without(inputs, self.parts))


def as_trained(model: Model) -> Model:
    """The model without the parts that it was trained without, according to its card."""
    plan = model.card.get("plan")
    parts = plan.get("without", ()) if isinstance(plan, dict) else ()
    return replace(model, network=Without(model.network, parts)) if parts else model


def _rest_position(inputs: NetworkInputs) -> Tensor:
    """Positions at rest (B, 1, J, 3), in the rig's own axes: the sum of the offsets from the root down."""
    return (inputs.graph.ancestors.to(inputs.offsets.dtype) @ inputs.offsets)[:, None]


def _project_front(position: Tensor) -> Tensor:
    """Positions (B, 1, J, 3) -> uv (B, J, 2) of the joints in an image from the front, y down."""
    return torch.stack([position[:, 0, :, 0], -position[:, 0, :, 1]], dim=-1) * 0.7

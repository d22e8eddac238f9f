"""Parts of the method that can be left out, to see what each is worth: in training, and in the same way when measuring.

reference: no reference pair (rest pose, identity rotations and an empty image instead, as a rig alone would give).
rest: no rest offsets. gradient: none flows from the second stage into the first. side: the reference image is taken from
any side. names: no joint names. tips: leaf bones end in their heads. aids: none of the geometric aids.
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
    """Raises UserError for a part that there is not."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise UserError(f"There is no part '{unknown[0]}' to leave out: choose among {', '.join(PARTS)}.")
    return replace(config, tips=config.tips and "tips" not in parts, aids=config.aids and "aids" not in parts)


def side_error(parts: Sequence[str]) -> float:
    """Standard deviation in radians of the azimuth between video and reference; so wide that any side is as likely."""
    return 10 * np.pi if "side" in parts else SIDE_ERROR


def masked(inputs: NetworkInputs, parts: Sequence[str]) -> NetworkInputs:
    """The inputs without the parts that the network is told through it."""
    if "reference" in parts:
        position = _rest_position(inputs)
        identity = matrix_to_rot6d(torch.eye(3)).to(inputs.rot6d).expand_as(inputs.rot6d[:, :1])
        tokens = torch.zeros_like(inputs.tokens)
        inputs = replace(inputs, position=position, rot6d=identity, tokens=tokens, uv=_front(position))
    if "rest" in parts:
        inputs = replace(inputs, offsets=torch.zeros_like(inputs.offsets))
    if "names" in parts:
        inputs = replace(inputs, names=torch.zeros_like(inputs.names))
    return inputs


class Without(nn.Module):
    """A network that is measured as it was trained: without some parts."""

    def __init__(self, network: nn.Module, parts: Sequence[str]) -> None:
        super().__init__()
        self.network, self.parts = network, tuple(parts)
        self.config: Config = network.config

    def video2pos(self, image: Tensor, inputs: NetworkInputs) -> tuple[Tensor, Tensor | None]:
        return self.network.video2pos(image, masked(inputs, self.parts))

    def pos2rot(self, position: Tensor, inputs: NetworkInputs) -> Tensor:
        return self.network.pos2rot(position, masked(inputs, self.parts))


def trained(model: Model) -> Model:
    """The model as it was trained: what its card says it was trained without stays left out."""
    plan = model.card.get("plan")
    parts = plan.get("without", ()) if isinstance(plan, dict) else ()
    return replace(model, network=Without(model.network, parts)) if parts else model


def _rest_position(inputs: NetworkInputs) -> Tensor:
    """(B, 1, J, 3): the sum of the offsets from the root down, in the rig's own axes."""
    return (inputs.graph.ancestors.to(inputs.offsets.dtype) @ inputs.offsets)[:, None]


def _front(position: Tensor) -> Tensor:
    """(B, 1, J, 3) -> where an image from the front would show the joints, (B, J, 2): x, and y downwards."""
    return torch.stack([position[:, 0, :, 0], -position[:, 0, :, 1]], dim=-1) * 0.7

"""Apple's Metal has no float64: nothing on the device may be of that type. Devices without storage stand in for it."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from anyrig.backend.bench import random_anchor, random_rig
from anyrig.backend.config import LITE, Config
from anyrig.backend.inference import run_pose2rot, run_video2pose, split_takes
from anyrig.backend.model import Video2Pose2Rot
from anyrig.backend.rig import Reference
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

REFUSAL = "the device has no float64"


class Metal(TorchDispatchMode):
    """The meta device, without float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.is_nonzero.default:
            return True  # "have all joints been reached?"
        out = func(*args, **(kwargs or {}))
        for each in tree_leaves(out):
            if isinstance(each, torch.Tensor) and each.device.type == "meta" and each.dtype == torch.float64:
                raise TypeError(f"{func}: {REFUSAL}")
        return out


class OnMetal(torch.Tensor):
    """A tensor that must come to the processor before it may be widened."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(func, types, args, kwargs)
        if func is torch.Tensor.cpu:
            return out.as_subclass(torch.Tensor)
        if isinstance(out, OnMetal) and out.dtype == torch.float64:
            raise TypeError(f"{func}: {REFUSAL}")
        return out


@pytest.mark.parametrize("config", [Config(), LITE], ids=["release", "lite"])
def test_both_stages_run_without_float64(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which meta does not know
    network = Video2Pose2Rot(config).to("meta").eval()
    with Metal():
        anchor = random_anchor(config, [6], 1, config.grid**2, device="meta")
        assert anchor.names.is_meta and anchor.offsets.dtype == torch.float32
        tokens = torch.empty(10, config.grid**2, config.image_width, device="meta")
        position = torch.cat(list(run_video2pose(network, anchor, [tokens], 10)), dim=1)
        rot6d = torch.cat(list(run_pose2rot(network, anchor, position)), dim=1)
    assert rot6d.is_meta and rot6d.shape == (1, 10, anchor.names.shape[1], 6)


def test_results_are_widened_on_the_processor() -> None:
    rig, picture = random_rig(4), np.zeros((8, 8, 4), np.uint8)
    reference = Reference(np.array(rig.rest), picture, 0.0, np.eye(3, 4))
    position, rot6d = (torch.randn(1, 5, 4, width).as_subclass(OnMetal) for width in (3, 6))
    with pytest.raises(TypeError, match=REFUSAL):
        position.double()
    (take,) = split_takes([rig], [reference], [2.0], position, rot6d, tips=False)
    assert take.position.dtype == np.float64 and take.rot6d is not None
    assert np.array_equal(take.position, 2 * position[0].cpu().double().numpy())

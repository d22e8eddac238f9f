"""What Apple's Metal lacks or does wrong, as far as it can be tested on other machines, by devices without storage."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from anyrig.backend.capture.inference import predict_positions, predict_rotations, split_predictions
from anyrig.backend.capture.memory_plan import to_device
from anyrig.backend.encoders import efficientnet
from anyrig.backend.encoders.dinov2 import Dinov2, Dinov2Encoder, VitConfig
from anyrig.backend.encoders.efficientnet import EfficientNetLite0, Encoder
from anyrig.backend.hardware import metal
from anyrig.backend.hardware.metal import layout_of
from anyrig.backend.model.config import LITE, TINY, Config
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.rig.rig import Reference
from anyrig.backend.train.benchmark.benchmark import Stopwatch, random_inputs, random_rig
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
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
        inputs = random_inputs(config, [6], 1, config.grid**2, device="meta")
        assert inputs.names.is_meta and inputs.offsets.dtype == torch.float32
        tokens = torch.empty(10, config.grid**2, config.token_width, device="meta")
        position = torch.cat(list(predict_positions(network, inputs, [tokens], 10)), dim=1)
        rot6d = torch.cat(list(predict_rotations(network, inputs, position)), dim=1)
    assert rot6d.is_meta and rot6d.shape == (1, 10, inputs.names.shape[1], 6)


def test_results_are_widened_on_the_processor() -> None:
    rig, image = random_rig(4), np.zeros((8, 8, 4), np.uint8)
    reference = Reference(np.array(rig.rest), image, 0.0, np.eye(3, 4))
    position, rot6d = (torch.randn(1, 5, 4, width).as_subclass(OnMetal) for width in (3, 6))
    with pytest.raises(TypeError, match=REFUSAL):
        position.double()
    (take,) = split_predictions([rig], [reference], [2.0], position, rot6d, tips=False)
    assert take.position.dtype == np.float64 and take.rot6d is not None
    assert np.array_equal(take.position, 2 * position[0].cpu().double().numpy())


def both_stages(config: Config) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = Video2Pose2Rot(config).eval()
    inputs = random_inputs(config, [6, 4], 1, config.grid**2)
    tokens = torch.randn(40, config.grid**2, config.image_width)
    position = torch.cat(list(predict_positions(network, inputs, [tokens], 40)), dim=1)
    return [position, torch.cat(list(predict_rotations(network, inputs, position)), dim=1)]


def encoders() -> tuple[Encoder, Dinov2Encoder]:
    torch.manual_seed(0)
    return Encoder(EfficientNetLite0().state_dict()), Dinov2Encoder(Dinov2(VitConfig(64, 1, 1, 128, 14, 5)))


def test_attention_sees_no_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what it says of views elsewhere."""
    crops = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    expected = [*both_stages(TINY), encoders()[1].encode(crops)]
    seen: list[bool] = []
    plain = F.scaled_dot_product_attention

    def attend(*parts: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(all(part.is_contiguous() for part in (*parts, attn_mask) if part is not None))
        return plain(*parts, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    both_stages(TINY)
    assert not all(seen)
    seen.clear()
    monkeypatch.setattr(metal, "on_metal", lambda _: True)
    found = [*both_stages(TINY), encoders()[1].encode(crops)]
    assert len(seen) > 10 and all(seen)
    for left, right in zip(expected, found, strict=True):
        assert (left - right).abs().max() < 1e-5


def test_convolutions_lie_in_the_order_of_their_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    assert layout_of(torch.device("mps")) == torch.contiguous_format
    assert layout_of(torch.device("cuda")) == layout_of(torch.device("cpu")) == torch.channels_last
    elsewhere = encoders()[0]
    assert not all(weight.is_contiguous() for weight in elsewhere.network.parameters())
    monkeypatch.setattr(efficientnet, "layout_of", lambda _: torch.contiguous_format)
    here = encoders()[0]
    assert all(weight.is_contiguous() for weight in here.network.parameters())
    given: list[bool] = []
    monkeypatch.setattr(here.network, "features", lambda images: (given.append(images.is_contiguous()), plain(images))[1])
    plain = type(here.network).features.__get__(here.network)
    assert (here.encode(crops) - elsewhere.encode(crops)).abs().max() < 1e-4 and given == [True]


class Waiting(TorchFunctionMode):
    """Refuses copies that nobody waits for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not (kwargs or {}).get("non_blocking"), f"{func} does not wait"
        return func(*args, **(kwargs or {}))


def test_images_are_waited_for() -> None:
    """Only pinned memory, which CUDA alone gets, outlives what was given up."""
    crops = np.zeros((1, 224, 224, 3), np.uint8)
    with Waiting():
        with pytest.raises(AssertionError, match="does not wait"):
            torch.zeros(1).to("meta", non_blocking=True)
        assert to_device(crops, torch.device("meta")).is_meta
        for encoder in encoders():
            encoder.encode(crops)


def test_the_benchmark_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    watch = Stopwatch(torch.device("mps"))
    with watch("a step", 1):
        assert len(waited) == 1
    assert len(waited) == 2

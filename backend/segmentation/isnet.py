"""Finds the object that stands out in an image, whatever it is, with the network ISNet.

Architecture of Qin et al. 2022 ("Highly Accurate Dichotomous Image Segmentation"), made of the residual U-blocks of U2-Net
(Qin et al. 2020). Every convolution is 3 x 3, with the batch norm folded in. B: images, H and W: their height and width, SIDE for
the published weights. docs/models.md, ISNet, says where those come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..hardware.metal import layout_of
from .isnet_files import REMEDY, isnet_files

Array = NDArray[np.uint8]

SIDE = 1024  # pixels of the square that the network sees; with fewer it takes another object for the subject, or none
HALF = SIDE // 2  # and of its result
GPU_BATCH = 4  # images at once

# dilations of a block's encoders; a block without pools widens its view by dilation alone
RSU7, RSU6, RSU5, RSU4 = ((1,) * (depth - 1) + (2,) for depth in (7, 6, 5, 4))
RSU4F = (1, 2, 4, 8)
ENCODER = (RSU7, RSU6, RSU5, RSU4, RSU4F, RSU4F)
DECODER = ENCODER[-2::-1]

Widths = tuple[tuple[int, int], ...]  # per stage: channels inside it, channels of its result


@dataclass(frozen=True)
class Config:
    """Sets the channels of the network; the defaults are those of the published weights."""

    stem: int = 64
    encoder: Widths = ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512))
    decoder: Widths = ((256, 512), (128, 256), (64, 128), (32, 64), (16, 64))


PUBLISHED = Config()


class Conv(nn.Conv2d):
    """Convolves without a change of size, then ReLU."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1) -> None:
        super().__init__(inputs, outputs, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


class ResidualUBlock(nn.Module):
    """Adds the result of a small U-net to its input: (B, inputs, H, W) -> (B, outputs, H, W).

    Between encoders the size halves, except before the last; in RSU4F it stays.
    """

    def __init__(self, dilations: Sequence[int], inputs: int, mid: int, outputs: int) -> None:
        super().__init__()
        between = [mid] * (len(dilations) - 2)
        self.pooled = dilations != RSU4F
        self.entry = Conv(inputs, outputs)
        self.down = _convs([outputs, *between, mid], [*between, mid, mid], dilations)
        self.up = _convs([2 * mid] * (len(dilations) - 1), [*between, outputs], dilations[-2::-1])

    def forward(self, x: Tensor) -> Tensor:
        x = entry = self.entry(x)
        skips: list[Tensor] = []
        for conv in self.down[:-1]:
            x = conv(halved(x) if skips and self.pooled else x)
            skips.append(x)  # (B, mid, H / 2^i, W / 2^i)
        x = self.down[-1](x)
        for conv in self.up:
            x = conv(joined(x, skips.pop()))
        return x.add_(entry)


def _convs(inputs: Sequence[int], outputs: Sequence[int], dilations: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(Conv(*each) for each in zip(inputs, outputs, dilations, strict=True))


def halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def joined(x: Tensor, skip: Tensor) -> Tensor:
    """Enlarge what comes from below to the encoder's size and put the encoder's result behind it."""
    if x.shape[-2:] != skip.shape[-2:]:
        x = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([x, skip], dim=1)


class ISNet(nn.Module):
    """Computes logits (B, H / 2, W / 2) of the subject's cover from images (B, 3, H, W), RGB as `normalised` returns them.

    Training used the results of all decoder stages; this is the finest, the only one needed afterwards. The convolutions are
    defined in the order in which they run, which is also their order in the published graph.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.stem, 3, stride=2, padding=1)
        width, skips = config.stem, []
        self.encoder = nn.ModuleList()
        for dilations, (mid, outputs) in zip(ENCODER, config.encoder, strict=True):
            self.encoder.append(ResidualUBlock(dilations, width, mid, outputs))
            width = outputs
            skips.append(width)
        skips.pop()
        self.decoder = nn.ModuleList()
        for dilations, (mid, outputs) in zip(DECODER, config.decoder, strict=True):
            self.decoder.append(ResidualUBlock(dilations, width + skips.pop(), mid, outputs))
            width = outputs
        self.side = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)  # (B, 64, 512, 512)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(halved(x) if skips else x)  # 64 x 512, 128 x 256, 256 x 128, 512 x 64, 512 x 32, 512 x 16
            skips.append(x)
        x = skips.pop()
        for stage in self.decoder:
            x = stage(joined(x, skips.pop()))  # 512 x 32, 256 x 64, 128 x 128, 64 x 256, 64 x 512
        return self.side(x)[:, 0]


# Loading


def load_isnet(device: torch.device, own: str | Path = "", dtype: torch.dtype | None = None) -> ISNet:
    """Load the network onto `device`, in `best_dtype` unless another is given. own: a file that the user chose (see `isnet_files`).

    Raises UserError if a file is missing, cannot be read or holds something else. The caller frees the memory (0.1 to 0.2 GB)
    by dropping the network.
    """
    files = isnet_files(own)
    stored, config = _read(files)
    try:
        with torch.device("meta"):
            network = ISNet(config)
    except (TypeError, ValueError) as error:
        raise _foreign(files[0], f"its config is another: {error}") from error
    expected, found = stored_layout(network), {key: (tuple(value.shape), value.dtype) for key, value in stored.items()}
    if expected != found:
        key = min(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise _foreign(files[0], f"'{key}' is missing" if key not in found else f"'{key}' does not fit")
    network.load_state_dict(dequantised({key: value.to(device) for key, value in stored.items()}), assign=True)
    return network.to(dtype=dtype or best_dtype(device), memory_format=layout_of(device)).requires_grad_(False).eval()


def best_dtype(device: torch.device) -> torch.dtype:
    """Choose half precision where the hardware calculates with it. A processor without such instructions would be slower with it."""
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu":
        able = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
        if able.get("avx512_bf16") or able.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


def stored_layout(network: ISNet) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """List shape and type of every tensor that the files hold: of each convolution its weight, the weight's step for each output
    channel, and its bias."""
    found = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found[f"{name}.weight"] = (tuple(module.weight.shape), torch.int8)
            found[f"{name}.step"] = ((module.out_channels,), torch.float32)
            found[f"{name}.bias"] = ((module.out_channels,), torch.float16)
    return found


def dequantised(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply tensors as in `stored_layout` out to the network's state dict, float32."""
    state = {}
    for key, value in stored.items():
        name, _, kind = key.rpartition(".")
        if kind == "weight":
            state[key] = value.float() * stored[f"{name}.step"][:, None, None, None]
        elif kind == "bias":
            state[key] = value.float()
    return state


def _read(files: Sequence[Path]) -> tuple[dict[str, Tensor], Config]:
    """Read all tensors of the files, and the config, which must be the same in each."""
    stored: dict[str, Tensor] = {}
    sources = []
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                card = json.loads(file.metadata()["card"])
                stored |= {key: file.get_tensor(key) for key in file.keys()}
            config = Config(card["config"]["stem"], *(tuple(map(tuple, card["config"][each])) for each in ("encoder", "decoder")))
            sources.append((card["source"], config))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise _foreign(path, "it has no config") from error
        except (SafetensorError, OSError) as error:
            raise _foreign(path, str(error)) from error
    if sources[-1] != sources[0]:
        raise _foreign(files[-1], f"it does not belong to '{files[0].name}'")
    return stored, config


def _foreign(path: Path, why: str) -> UserError:
    return UserError(f"'{path}' is damaged or is not ISNet as AnyRig stores it ({why}): {REMEDY}, or reinstall AnyRig.")


# Use


def normalised(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Scale images (B, H, W, 3) uint8 RGB to (B, 3, H, W) as the network was trained; exact in half precision too."""
    return ((images.to(dtype) - 128) / 256).permute(0, 3, 1, 2)


def squashed(frame: Array) -> Array:
    """Resize (H, W, 3) to (SIDE, SIDE, 3): the network was trained on images squashed to squares, not on images with borders."""
    height, width = frame.shape[:2]
    # averages where several pixels become one, which bilinear sampling would skip
    frame = cv2.resize(frame, (min(width, SIDE), min(height, SIDE)), interpolation=cv2.INTER_AREA)
    return cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


@torch.inference_mode()
def find_mattes(network: ISNet, frames: Sequence[Array] | Array) -> Array:
    """Find the subject's cover (N, HALF, HALF) uint8 in frames (N, H, W, 3) uint8 RGB, in each frame by itself.

    The network has no finer detail: the caller resizes to (W, H).
    """
    weight = network.side.weight
    mattes = np.empty((len(frames), HALF, HALF), np.uint8)
    step = 1 if weight.device.type == "cpu" else GPU_BATCH
    for start in range(0, len(frames), step):
        images = torch.from_numpy(np.stack([squashed(frame) for frame in frames[start : start + step]]))
        x = normalised(images.to(weight.device), weight.dtype).contiguous(memory_format=layout_of(weight.device))
        cover = network(x).float().sigmoid() * 255  # (B, HALF, HALF)
        mattes[start : start + step] = cover.round().byte().cpu().numpy()
    return mattes

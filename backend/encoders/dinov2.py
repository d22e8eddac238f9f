"""DINOv2 (Oquab et al. 2023), the image encoder of the released weights, and the preparation of its images.

Parameters are named as in the safetensors of facebook/dinov2-small, -base and -large. B images, S tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..arrays import Array, Image
from ..errors import UserError
from ..hardware.metal import attended, layout_of
from .crops import composite_rgba, crop_box

SIZE = 224
SHORT_SIDE = 256  # of the image before its centre is cut out
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
HEAD_WIDTH = 64  # in all published sizes
LEFT_OUT = ("embeddings.mask_token",)  # only used in training
NAMES = {384: "dinov2-small", 768: "dinov2-base", 1024: "dinov2-large", 1536: "dinov2-giant"}


@dataclass(frozen=True)
class VitConfig:
    """grid: patches along each side of the training images, for which the position table was made."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    hidden: int = 4096
    patch: int = 14
    grid: int = 37

    @property
    def name(self) -> str:
        """The published name of this size, for the user."""
        return NAMES.get(self.width, f"dinov2 of width {self.width}")


class Embeddings(nn.Module):
    """Images (B, 3, H, W) -> tokens (B, S, D) with their positions added, the class token first."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + config.grid**2, config.width))
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(3, config.width, config.patch, config.patch)})

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1, 1 + rows * columns, D): the table, bicubically stretched to another grid as transformers does it."""
        table = self.position_embeddings
        if (rows, columns) == (self.grid, self.grid):
            return table
        square = table[:, 1:].float().unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        stretched = F.interpolate(square, size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat([table[:, :1], stretched.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](images)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        return tokens + self.positions(*patches.shape[-2:])


class Attention(nn.Module):
    """Attention over (B, S, D), with the file's names attention.{query,key,value} and output.dense."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention = nn.ModuleDict({name: nn.Linear(config.width, config.width) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(config.width, config.width)})

    def forward(self, x: Tensor) -> Tensor:
        parts = (self.attention[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value"))
        mixed = attended(*parts)  # (B, H, S, d)
        return self.output["dense"](mixed.transpose(1, 2).flatten(-2))


class Scale(nn.Module):
    """Multiplies (..., D) by a factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.lambda1


class Mlp(nn.Module):
    """Two linear layers with GELU between them, (..., D) -> (..., D)."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    """Pre-norm attention and MLP, each scaled per channel."""

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.width, eps=1e-6), nn.LayerNorm(config.width, eps=1e-6)
        self.attention, self.mlp = Attention(config), Mlp(config)
        self.layer_scale1, self.layer_scale2 = Scale(config.width), Scale(config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale1(self.attention(self.norm1(x)))
        return x + self.layer_scale2(self.mlp(self.norm2(x)))


class Dinov2(nn.Module):
    """Images (B, 3, H, W) as `normalise` makes them, sides multiples of the patch -> tokens (B, S, D), the class token first.

    S = 1 + H W / patch^2: `last_hidden_state` of the published model.
    """

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.layers))})
        self.layernorm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embeddings(images)
        for layer in self.encoder["layer"]:  # type: ignore[union-attr]
            x = layer(x)
        return self.layernorm(x)


def parameters_to_keep(keys: Iterable[str]) -> dict[str, str]:
    """-> the file's keys that belong to the encoder, and our names for them. Leaves out a classifier's head and the mask."""
    found = {key: key.removeprefix("dinov2.") for key in keys if not key.startswith("classifier.")}
    return {key: ours for key, ours in found.items() if ours not in LEFT_OUT}


def config_of(shapes: Mapping[str, tuple[int, ...]], source: str) -> VitConfig:
    """Infer the sizes from the shapes of our keys. Raises UserError if they are not a DINOv2's."""
    try:
        width, _, patch, _ = shapes["embeddings.patch_embeddings.projection.weight"]
        positions = shapes["embeddings.position_embeddings"][1]
        hidden = shapes["encoder.layer.0.mlp.fc1.weight"][0]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{source}' is not a DINOv2 ViT-S, -B or -L ({error}): get model.safetensors of facebook/dinov2-large."
        ) from error
    layers = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("encoder.layer."))
    return VitConfig(width, layers, max(width // HEAD_WIDTH, 1), hidden, patch, round((positions - 1) ** 0.5))


def normalise(crops: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Crops (B, H, W, 3) uint8 RGB -> (B, 3, H, W), normalised by ImageNet's mean and deviation."""
    mean, deviation = (torch.tensor(values, dtype=torch.float32, device=crops.device) for values in (MEAN, DEVIATION))
    return ((crops.to(torch.float32) / 255 - mean) / deviation).to(dtype).permute(0, 3, 1, 2)


def prepare_images(image: Image) -> Image:
    """(H, W, 3) uint8 -> (224, 224, 3) uint8 as the published processor does: shorter side to 256, bicubic, then the centre.

    The processor resizes with Pillow. torch differs by at most two levels of a pixel, which changes the tokens by less than
    bfloat16 does.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    rows, columns = int(SHORT_SIDE * height / short), int(SHORT_SIDE * width / short)  # cut to whole pixels, as transformers does
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (rows, columns), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    top, left = (rows - SIZE) // 2, (columns - SIZE) // 2
    return np.ascontiguousarray(resized[top : top + SIZE, left : left + SIZE])


def crop_exactly(image: Image, matte: Image, square: Array) -> Image:
    """Cut a square (4,), rounded to pixels, out of an image (H, W, 3) with its matte (H, W) -> (224, 224, 3) on white; uint8."""
    x0, y0 = (round(float(edge)) for edge in square[:2])
    side = max(round(float(square[2] - square[0])), 1)
    height, width = matte.shape
    rows, columns = slice(max(y0, 0), max(min(y0 + side, height), 0)), slice(max(x0, 0), max(min(x0 + side, width), 0))
    ink = composite_rgba(np.dstack([image[rows, columns], matte[rows, columns]]), 255)
    canvas = np.full((side, side, 3), 255, np.uint8)
    top, left = rows.start - y0, columns.start - x0
    canvas[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return prepare_images(canvas)


class Dinov2Encoder:
    """The frozen image encoder of `release`. It has the methods of efficientnet.Encoder."""

    def __init__(self, network: Dinov2, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = torch.device(device), dtype
        self.network = network.to(device=self.device, dtype=dtype).requires_grad_(False).eval()
        self.width = network.config.width
        self.grid = SIZE // network.config.patch

    def squares(self, boxes: Array) -> Array:
        """Boxes (T, 4) -> the squares (T, 4) to cut out, of each frame by itself (docs/network.md, Image features)."""
        return crop_box(boxes)

    def cut(self, image: Image, matte: Image, square: Array) -> Image:
        """The crop (224, 224, 3) uint8 of an image (H, W, 3) with its matte (H, W), as in the network's training."""
        return crop_exactly(image, matte, square)

    @torch.no_grad()
    def encode(self, crops: Image | Tensor) -> Tensor:
        """Crops (B, 224, 224, 3) uint8 RGB -> tokens (B, 257, D) on the encoder's device, in its dtype."""
        images = normalise(torch.as_tensor(crops).to(self.device), self.dtype)
        return self.network(images.contiguous(memory_format=layout_of(self.device)))

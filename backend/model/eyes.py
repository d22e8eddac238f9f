"""The eyes of `lite` that are trained with the network: a small convolutional network from crops to a fine map, and who reads it.

The frozen encoder sees what ImageNet needed, 16 pixels at a time. These see where parts of a body are, 8 pixels at a time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .layers import exact

WIDTHS = (16, 24, 48, 96)  # at strides 2, 4, 8 and 16


class Down(nn.Sequential):
    """Half the size, other channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU())


class Mix(nn.Module):
    """Adds what two convolutions make of the map. Without norms, which take a processor longer than the convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x + self.second(F.relu(self.first(x)))


class Eyes(nn.Module):
    """Crops of 16 G pixels -> a map of 2 G x 2 G cells, kept as four more parts of each of the G x G tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        two, four, eight, sixteen = WIDTHS
        self.down = nn.Sequential(Down(3, two), Down(two, four), Down(four, eight))
        self.fine = nn.Sequential(Mix(eight), Mix(eight))
        self.coarse = nn.Sequential(Down(eight, sixteen), Mix(sixteen), Mix(sixteen), Mix(sixteen))
        self.back = nn.Conv2d(sixteen, eight, 1)
        self.out = nn.Sequential(Mix(eight), nn.Conv2d(eight, channels, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, Mix):  # starts as a small change
                module.second.weight.data.mul_(0.3)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, 16 G, 16 G), as the frozen encoder's -> (N, G G, 4 channels), row by row."""
        fine = self.fine(self.down(images.contiguous(memory_format=torch.channels_last)))
        above = self.back(self.coarse(fine))
        seen = self.out(fine + F.interpolate(above, scale_factor=2, mode="bilinear", align_corners=False))
        # each cell at one size, whatever the convolutions have grown to: without it a run diverges
        seen = F.layer_norm(seen.permute(0, 2, 3, 1), seen.shape[1:2]).permute(0, 3, 1, 2)
        return F.pixel_unshuffle(seen, 2).flatten(2).transpose(1, 2)


def fine_cells(tokens: Tensor, grid: int) -> Tensor:
    """The eyes' part of tokens (..., G G, 4 E) -> the cells of the fine map (..., 4 G G, E), row by row.

    `pixel_unshuffle` put channel e of the cell (row r, column c) of a token's 2 x 2 at 4 e + 2 r + c.
    """
    cells = tokens.unflatten(-1, (-1, 2, 2)).unflatten(-4, (grid, grid))  # (..., G rows, G columns, E, r, c)
    return cells.movedim(-3, -1).transpose(-4, -3).flatten(-5, -2)  # (..., G rows, r, G columns, c, E) -> (..., 4 G G, E)


def split_tokens(tokens: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Tokens (..., S, C + 4 E) -> what the frozen encoder saw (..., S, C), and what the trained eyes did (..., S, 4 E)."""
    return tokens[..., :width], tokens[..., width:]


def join_tokens(tokens: Tensor, seen: Tensor) -> Tensor:
    """The inverse of `split_tokens`."""
    return torch.cat([tokens, seen.to(tokens.dtype)], dim=-1)


class FineReadout(nn.Module):
    """Finds the joints in the fine map: near the places that are known roughly, where the map is like the reference at the joint."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.grid = config.grid
        self.query = nn.Linear(config.width, config.eyes)
        self.describe = nn.Linear(config.eyes, config.eyes, bias=False)
        self.to_features = nn.Linear(config.eyes, config.width)
        self.gate = nn.Linear(config.width, 1)
        self.likeness = nn.Parameter(torch.tensor(1.5))
        self.near = nn.Parameter(torch.tensor(-1.5))
        nn.init.eye_(self.describe.weight)
        nn.init.constant_(self.gate.bias, -2.0)
        for layer in (self.query, self.to_features):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.gate.weight)

    def centres(self) -> Tensor:
        """(4 S, 2) uv of the cells' centres, row by row."""
        cells = 2 * self.grid
        line = (torch.arange(cells, dtype=self.near.dtype, device=self.near.device) * 2 + 1) / cells - 1
        return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)

    def forward(self, x: Tensor, uv: Tensor, seen: Tensor, reference: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, J, D), uv (B, T, J, 2) known roughly, what the eyes saw in the frames (B or 1, T, S, 4 E) and in the reference
        (B, S, 4 E), where the joints are at `places` (B, J, 2) -> the places found in the fine map (B, T, J, 2), those and uv mixed by the
        gate (B, T, J, 2), and what is to be added to x (B, T, J, D)."""
        cells, centres = fine_cells(seen, self.grid), self.centres()  # (B or 1, T, 4 S, E)
        image = fine_cells(reference, self.grid).transpose(1, 2).unflatten(-1, (2 * self.grid, 2 * self.grid))
        at_joint = F.grid_sample(image.to(places.dtype), places[:, :, None], padding_mode="border", align_corners=False)
        wanted = F.normalize(self.describe(at_joint[..., 0].transpose(1, 2)), dim=-1)[:, None] + self.query(x)  # (B, T, J, E)
        alike = wanted @ F.normalize(cells, dim=-1).transpose(-1, -2)  # (B, T, J, 4 S)
        with exact(x):
            rough = uv.detach()
            # |uv - c|^2 without a difference for each pair: uv^2 - 2 uv c + c^2, of which uv^2 makes no difference to a softmax
            away = centres.square().sum(-1) - 2 * rough @ centres.T
            scores = self.likeness.exp() * alike.to(away.dtype) - away / (2 * torch.exp(2 * self.near))
            share = scores.softmax(-1)
            found = share @ centres
        gate = self.gate(x).sigmoid().to(uv.dtype)
        return found, uv + gate * (found.detach() - uv), self.to_features(share.to(cells.dtype) @ cells)

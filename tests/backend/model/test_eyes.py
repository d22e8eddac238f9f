"""Trained eyes: the order of their cells, what the fine readout finds, and that they travel with the tokens and the model file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.encoders.efficientnet import EfficientNetLite0
from anyrig.backend.model.config import LITE, TINY
from anyrig.backend.model.eyes import Eyes, FineReadout, fine_cells, join_tokens, split_tokens
from anyrig.backend.model.network import Video2Pose2Rot
from anyrig.backend.weights.model_file import load_model, save_model
from torch.nn.functional import pixel_unshuffle

SEEING = replace(TINY, eyes=8)


def test_cells_are_the_map_row_by_row() -> None:
    values = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    tokens = pixel_unshuffle(values, 2).flatten(2).transpose(1, 2)  # as Eyes.forward returns them
    assert torch.equal(fine_cells(tokens, 4), values.flatten(2).transpose(1, 2))
    assert torch.equal(fine_cells(tokens[:, None], 4)[:, 0], fine_cells(tokens, 4))


def test_eyes_see_where_something_is() -> None:
    """A change in a corner of the picture changes the cells there, by one size whatever it is, and not those far off."""
    torch.manual_seed(0)
    eyes, images = Eyes(8), torch.randn(1, 3, 224, 224).repeat(2, 1, 1, 1)
    images[1, :, :16, 200:] += 2.0
    plain, changed = fine_cells(eyes(images), 14).unflatten(1, (28, 28))
    difference = (changed - plain).norm(dim=-1)
    assert difference[0, 27] > 0.1 and difference[0, 27] > 20 * difference[14:, :14].max()
    assert torch.allclose(changed.square().mean(-1), torch.ones(28, 28), atol=0.05)


@pytest.fixture
def readout() -> FineReadout:
    torch.manual_seed(0)
    return FineReadout(replace(LITE, eyes=16))


def test_the_fine_readout_finds_what_looks_like_the_reference_at_the_joint(readout: FineReadout) -> None:
    """Every cell of the reference looks different; in the frame the same cells lie 3 columns further right and a row lower."""
    cells = torch.randn(28, 28, 16)
    shifted = cells.roll((1, 3), (0, 1))
    tokens = [pixel_unshuffle(each.permute(2, 0, 1)[None], 2).flatten(2).transpose(1, 2) for each in (cells, shifted)]
    centres = readout.centres().unflatten(0, (28, 28))
    joints = centres[[8, 14, 20], [10, 14, 20]][None]  # (1, 3, 2)
    rough = joints[:, None] + 0.05
    with torch.no_grad():
        readout.likeness.fill_(3.5)
        found, mixed, more = readout(torch.zeros(1, 1, 3, 128), rough, tokens[1][:, None], tokens[0], joints)
    true = centres[[9, 15, 21], [13, 17, 23]]
    assert (found[0, 0] - true).abs().max() < 0.02
    gate = torch.sigmoid(torch.tensor(-2.0))
    assert torch.allclose(mixed, rough + gate * (found - rough), atol=1e-6) and not more.any()


def test_a_wrong_place_teaches_the_eyes(readout: FineReadout) -> None:
    seen = torch.randn(1, 1, 196, 64, requires_grad=True)
    places = torch.zeros(1, 2, 2)
    found, mixed, _ = readout(torch.randn(1, 1, 2, 128), places[:, None], seen, torch.randn(1, 196, 64), places)
    (found - 0.2).square().sum().backward(retain_graph=True)
    assert seen.grad is not None and seen.grad.abs().max() > 0
    seen.grad = None
    mixed.square().sum().backward()
    assert seen.grad is None or not seen.grad.any()  # the gate chooses between places, it does not move them


def test_one_clip_for_many_rigs_is_as_each_alone(readout: FineReadout) -> None:
    x, uv, seen = torch.randn(3, 2, 5, 128), torch.rand(3, 2, 5, 2), torch.randn(1, 2, 196, 64)
    reference, places = torch.randn(3, 196, 64), torch.rand(3, 5, 2)
    together = readout(x, uv, seen, reference, places)
    for row in range(3):
        alone = readout(*(each[row : row + 1] for each in (x, uv)), seen, reference[row : row + 1], places[row : row + 1])
        assert all(torch.allclose(a[row], b[0], atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_tokens_come_apart_as_they_were_joined() -> None:
    tokens, seen = torch.randn(2, 196, 432), torch.randn(2, 196, 32)
    parts = split_tokens(join_tokens(tokens, seen), 432)
    assert torch.equal(parts[0], tokens) and torch.equal(parts[1], seen)
    assert SEEING.token_width == 432 + 32 and TINY.token_width == 432


def test_a_model_file_keeps_its_eyes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Video2Pose2Rot(SEEING)
    save_model(tmp_path / "seeing.safetensors", network, EfficientNetLite0().state_dict(), {})
    model = load_model(str(tmp_path / "seeing.safetensors"), torch.device("cpu"))
    crops = np.random.default_rng(0).integers(0, 255, (2, 224, 224, 3)).astype(np.uint8)
    tokens = model.encoder.encode(crops)
    assert model.config == SEEING and tokens.shape == (2, 196, SEEING.token_width)
    images = (torch.from_numpy(crops).permute(0, 3, 1, 2) - 127.0) / 128
    assert model.network.eyes is not None
    assert torch.allclose(split_tokens(tokens, 432)[1], model.network.eyes(images), atol=1e-4)

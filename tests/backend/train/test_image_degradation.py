"""Each fault does what it says to a disc on nothing."""

import numpy as np
import pytest
import torch
from anyrig.backend.train.samples import image_degradation
from torch import Tensor


def disc(frames: int = 4, size: int = 64) -> Tensor:
    """A red disc of radius 0.3 in the middle."""
    line = (torch.arange(size) + 0.5) / size - 0.5
    alpha = (line[:, None].square() + line.square() < 0.09).float().expand(frames, size, size)
    red = torch.tensor([0.8, 0.1, 0.1]).expand(frames, size, size, 3)
    return torch.cat([red * alpha[..., None], alpha[..., None]], dim=-1)


def area(rgba: Tensor) -> float:
    return rgba[..., 3].mean().item()


@pytest.mark.parametrize("name", ["occlude", "drop_matte"])
def test_some_of_the_subject_goes_missing(name: str) -> None:
    whole = disc()
    lost = [1 - area(getattr(image_degradation, name)(whole, np.random.default_rng(seed))) / area(whole) for seed in range(40)]
    assert max(lost) > 0.05 and max(lost) < 0.95 and min(lost) >= 0
    for seed in range(10):
        after = getattr(image_degradation, name)(whole, np.random.default_rng(seed))
        assert (after[..., 3] <= whole[..., 3]).all() and torch.equal(after[..., :3], whole[..., :3])


def test_an_occluder_moves_steadily() -> None:
    hidden = [(disc(6)[..., 3] - image_degradation.occlude(disc(6), np.random.default_rng(seed))[..., 3]) for seed in range(40)]
    seen = [h for h in hidden if all(frame.sum() > 40 for frame in h)]
    assert seen
    for gone in seen:
        rows = torch.arange(64.0)[:, None]
        centre = (gone * rows).sum((1, 2)) / gone.sum((1, 2))
        assert centre.diff().diff().abs().max() < 4


def test_a_halo_has_one_colour_and_the_subject_keeps_its_own() -> None:
    before, after = disc(), image_degradation.add_halo(disc(), np.random.default_rng(1))
    rim = (after[..., 3] > 0.5) & (before[..., 3] < 0.5)
    assert 0.02 < rim.float().mean() < 0.3
    assert after[rim][:, :3].std(0).max() < 1e-6
    inside = before[..., 3] > 0.5
    assert torch.allclose(after[inside], before[inside])


def test_litter_lies_outside_the_subject() -> None:
    before = disc()
    after = image_degradation.add_clutter(before, np.random.default_rng(2))
    inside = before[..., 3] > 0.5
    assert torch.equal(after[inside], before[inside]) and area(after) > area(before)


def test_softness_keeps_the_mean_and_lowers_the_contrast() -> None:
    image = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    for seed in range(12):
        after = image_degradation.blur(image, np.random.default_rng(seed))
        assert after.shape == image.shape and abs(after.mean() - image.mean()) < 0.02
        assert after.std() < 0.95 * image.std()


def test_images_come_on_white_and_are_seeded() -> None:
    first, again, other = (image_degradation.degrade(disc(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.dtype == torch.uint8 and first.shape == (4, 64, 64, 3)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first[:, 0, 0].float().mean() > 240


def test_nothing_to_spoil_is_left_alone() -> None:
    empty = torch.zeros(3, 32, 32, 4)
    for _, fault in image_degradation.FAULTS:
        fault(empty, np.random.default_rng(0))
    assert torch.equal(image_degradation.drop_matte(empty, np.random.default_rng(0)), empty)

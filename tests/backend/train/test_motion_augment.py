"""Motions that no clip has: what they keep of the clip, and that samples are made of them."""

import numpy as np
import torch
from anyrig.backend.model.config import TINY
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.train.samples import motion_augment
from anyrig.backend.train.samples.samples import Recipe, Windows
from anyrig.tests.backend.train.test_rig_augment import make_pack


def in_parent(pack: Pack, poses: np.ndarray) -> np.ndarray:
    above = poses[:, np.maximum(pack.rig.parents, 0)].astype(np.float64)
    local = np.linalg.inv(above) @ poses
    local[:, 0] = poses[:, 0]
    return local


def window(pack: Pack) -> np.ndarray:
    return pack.clips["move 0"].astype(np.float64)


def test_joints_turn_otherwise_and_keep_their_place_in_their_parents_frame() -> None:
    pack = make_pack()
    old = window(pack)
    new = motion_augment.perturb_motion(old, pack.rig, np.random.default_rng(0))
    before, after = in_parent(pack, old), in_parent(pack, new)
    assert np.abs(after[..., :3, 3] - before[..., :3, 3]).max() < 1e-6
    turned = np.abs(after[..., :3, :3] - before[..., :3, :3]).max((0, 2, 3))
    kept = pack.rig.static | pack.rig.translates
    kept[0] = True
    assert turned[kept].max() < 1e-6 and turned[~kept].min() > 1e-4
    rotations = after[..., :3, :3]
    assert np.abs(rotations @ rotations.swapaxes(-1, -2) - np.eye(3)).max() < 1e-6


def test_a_window_that_is_not_widened_and_does_not_swing_is_the_clips(monkeypatch) -> None:
    pack = make_pack()
    old = window(pack)
    monkeypatch.setattr(motion_augment, "SWINGING", 0.0)
    monkeypatch.setattr(motion_augment, "UNEVEN", 0.0)
    monkeypatch.setattr(motion_augment, "WIDER", (1.0, 1.0))
    assert np.abs(motion_augment.perturb_motion(old, pack.rig, np.random.default_rng(0)) - old).max() < 1e-5
    monkeypatch.setattr(motion_augment, "WIDER", (2.0, 2.0))
    new = in_parent(pack, motion_augment.perturb_motion(old, pack.rig, np.random.default_rng(0)))[:, 1, :3, :3]
    clip = in_parent(pack, old)[:, 1, :3, :3]
    step = clip[0].T @ clip[1]
    assert np.abs(new[0].T @ new[1] - step @ step).max() < 1e-5  # twice the turn about the same axis


def test_samples_are_made_of_them() -> None:
    def encode(crops: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(crops), 49, TINY.image_width)

    pack = make_pack()
    plain, other = (next(iter(Windows([pack], TINY, encode, Recipe(4, stirred=share), 3))) for share in (0.0, 1.0))
    assert plain.rotations.shape == other.rotations.shape
    assert (plain.rotations - other.rotations)[:, 1:].abs().max() > 1e-2
    assert other.position.isfinite().all() and other.uv.abs().max() < 3

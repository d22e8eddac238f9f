"""Clean-up as a whole: settings, presets, and where they are stored."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.motion.bvh import read_bvh, write_bvh
from anyrig.backend.motion.clean_up import PRESETS, CleanUp, clean_up, doubts, preset, settings_of, with_settings
from anyrig.backend.motion.feet import find_contacts, foot_slide
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.take_file import Take
from anyrig.backend.rig.rig import Rig
from anyrig.backend.train.creatures.creatures import creature
from anyrig.backend.video.clip import Clip

from .walkers import hopper, walk, with_noise


@pytest.fixture(scope="module")
def filmed() -> tuple[Rig, Motion, Motion]:
    """A rig, its true walk, and the take of a still camera at azimuth 0.6, 8 sizes away, with errors."""
    rig, true = walk(creature(2, "biped"), "Walk")
    noisy = with_noise(rig, true, 3.0)
    way, azimuth = true.travel, 0.6
    right, towards = np.array([np.cos(azimuth), np.sin(azimuth), 0]), np.array([np.sin(azimuth), -np.cos(azimuth), 0])
    depth = 30.0 - way @ towards
    scale = 640 / np.tan(0.35) / depth
    path = np.stack([640 + scale * (way @ right), 360 - scale * way[:, 2], scale], axis=1)
    about = {"azimuth": azimuth, "refine": {"azimuth": azimuth, "pitch": 0.0, "picture": [1280, 720]}}
    return rig, true, replace(noisy, travel=np.zeros((0, 3)), path=path, provenance=about)


def test_raw_is_the_take_itself(filmed: tuple[Rig, Motion, Motion]) -> None:
    rig, _, motion = filmed
    assert clean_up(rig, motion, preset("raw")) is motion


def test_natural_goes_along_on_firm_feet(filmed: tuple[Rig, Motion, Motion]) -> None:
    rig, true, motion = filmed
    clean = clean_up(rig, motion, preset("natural"))
    off = np.linalg.norm((clean.travel - true.travel)[:, :2], axis=1).max() / np.linalg.norm(true.travel[-1])
    assert off < 0.05
    contacts = find_contacts(rig, true)
    raw = replace(motion, travel=clean.travel)
    assert foot_slide(rig, clean, contacts) < 0.3 * foot_slide(rig, raw, contacts)


def test_a_game_loop_closes_on_the_spot(filmed: tuple[Rig, Motion, Motion]) -> None:
    rig, _, motion = filmed
    twice = _twice(motion)
    clean = clean_up(rig, twice, preset("game_loop"))
    assert len(clean) < 0.8 * len(twice) and np.allclose(np.abs((clean.rotations[0] * clean.rotations[-1]).sum(-1)), 1)
    assert not np.abs(clean.travel[:, :2]).max() > 1e-9


def _twice(motion: Motion) -> Motion:
    """The walk there, and the same frames again."""
    tracks = ("rotations", "positions", "boxes", "confidence", "path")
    longer = {key: np.concatenate([getattr(motion, key)[:-1]] * 2) for key in tracks}
    return Motion(
        motion.names, np.arange(2 * len(motion) - 2) * motion.times[1], provenance=motion.provenance, **longer
    )  # fmt: skip


def test_settings_are_stored_in_the_take(filmed: tuple[Rig, Motion, Motion], tmp_path: Path) -> None:
    rig, _, motion = filmed
    wanted = replace(preset("natural"), limbs=((rig.names[1], 0.5),), feet=0.7)
    stored = with_settings(motion, wanted)
    stored.save(tmp_path / "take.npz")
    assert settings_of(Motion.load(tmp_path / "take.npz")) == wanted == settings_of(Motion.from_json(stored.to_json()))
    assert np.array_equal(stored.rotations, motion.rotations) and settings_of(motion) == CleanUp()
    contacts = find_contacts(rig, clean_up(rig, motion, wanted))
    take = Take("a", "b", "2026-11-01 10:00:00", 1, Clip("a.mp4"), Settings(), rig, rig.rest, replace(stored, contacts=contacts))
    back = Take.from_data(take.data, "Take 'a'").motion
    assert settings_of(back) == wanted and np.array_equal(back.contacts, contacts) and np.array_equal(back.path, motion.path)


def test_doubts_are_told() -> None:
    rig, count = hopper(), 20
    joints = len(rig.names)
    still = Motion(
        rig.names, np.arange(count) / 30, np.tile([1.0, 0, 0, 0], (count, joints, 1)), np.zeros((count, joints, 3)),
        np.zeros((count, 4)), np.ones((count, joints)),
    )  # fmt: skip

    def seen(azimuth: float, camera: str, path: str) -> list[str]:
        motion = replace(still, provenance={"refine": {"azimuth": azimuth, "camera": camera}})
        return doubts(rig, motion, CleanUp(path=path))

    assert not seen(np.pi / 2, "still", "ground") and not seen(np.pi / 2, "unknown", "in place")
    assert "seen from the front or back" in seen(0.0, "still", "ground")[0]
    assert "camera itself moved" in seen(np.pi / 2, "unknown", "ground")[0]


def test_settings_that_make_no_sense_are_told() -> None:
    for values, words in (
        ({"feet": 2.0}, "Clean-up 'feet' is 2.0: choose a value from 0 to 1"),
        ({"smooth_seconds": -1.0}, "choose 0 or more"),
        ({"path": "up"}, "Clean-up 'path' is 'up'"),
        ({"hands": 1}, "Clean-up 'hands' is unknown"),
        ({"limbs": [["a"]]}, "cannot be read"),
    ):
        with pytest.raises(UserError, match=words):
            CleanUp.from_values(values)
    with pytest.raises(UserError, match="no clean-up 'tidy'"):
        preset("tidy")
    for each in PRESETS.values():
        assert CleanUp.from_values(json.loads(json.dumps(asdict(each)))) == each


def test_a_bvh_has_the_travel(filmed: tuple[Rig, Motion, Motion], tmp_path: Path) -> None:
    rig, true, _ = filmed
    write_bvh(tmp_path / "walk.bvh", rig, true)
    back, poses, _ = read_bvh(tmp_path / "walk.bvh")
    root: Array = poses[:, 0, :3, 3] @ back.world.T
    assert np.allclose(root - root[0], true.travel @ rig.world.T, atol=1e-5)

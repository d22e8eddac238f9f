"""`python -m backend refine`: a stored take and its video."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.cli import main
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.bvh import read_bvh
from anyrig.backend.motion.clean_up import preset, settings_of
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.swap_sides import swap_sides
from anyrig.backend.refine import refine as refine_module
from anyrig.backend.rig.limb_pairs import limb_pair
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.backend.refine.test_fit import star
from anyrig.tests.backend.refine.test_refine import FAST, footage_of, take


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The star's video before white, its rig, and a take whose limbs hardly move."""
    path = tmp_path_factory.mktemp("star")
    footage = footage_of(take(1.0))
    frames = [np.where(footage.matte(k)[..., None] >= 128, 60, 250).astype(np.uint8).repeat(3, axis=-1) for k in range(13)]
    write_video(path / "star.mp4", frames, 24.0)
    (path / "star.json").write_text(star().to_json())
    raw = take(0.2)
    replace(raw, provenance={**raw.provenance, "clip": asdict(Clip(str(path / "star.mp4")))}).save(path / "take.npz")
    return path


def command(folder: Path, *more: str) -> int:
    given = ["--take", str(folder / "take.npz"), "--rig", str(folder / "star.json"), "--out", str(folder / "out.npz")]
    return main(["refine", *given, "--isnet", "off", "--device", "cpu", *more])


def test_it_says_how_much_better_the_film_is_covered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--video", str(folder / "star.mp4")) == 0
    assert "overlap with the film: " in capsys.readouterr().out
    found = Motion.load(folder / "out.npz")
    before, after = found.provenance["refine"]["overlap"]
    assert after > before and found.raw is not None


def test_it_swaps_a_limb_that_was_taken_for_the_other(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(refine_module.SETTINGS, "quick", FAST)
    truth, rig = take(1.0), star()
    wrong = swap_sides(truth, rig, limb_pair(rig, "leg.L"))
    about = {**wrong.provenance, "clip": asdict(Clip(str(folder / "star.mp4")))}
    replace(wrong, provenance=about).save(folder / "wrong.npz")
    given = ["--video", str(folder / "star.mp4"), "--swap", "leg.R", "--take", str(folder / "wrong.npz")]
    assert command(folder, *given) == 0
    found = Motion.load(folder / "out.npz")
    errors = [np.degrees(geodesic_angle(each.matrices, truth.matrices)) for each in (wrong, found)]
    assert errors[1][:, 3:5].mean() < 0.3 * errors[0][:, 3:5].mean()
    assert np.delete(errors[1], [3, 4], axis=1).max() < 0.01, "only the limbs that were swapped are fitted"
    assert command(folder, "--video", str(folder / "star.mp4"), "--swap", "head") == 1
    assert "'head' belongs to no limb with a left and a right" in capsys.readouterr().err


def test_what_is_wrong_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "--video", "nowhere.mp4") == 1
    assert "The video 'nowhere.mp4' does not exist" in capsys.readouterr().err
    assert command(folder, "--video", str(folder / "star.mp4"), "--joints", "Wing") == 1
    assert "Wing" in capsys.readouterr().err


def test_clean_up_is_stored_and_the_bvh_is_clean(folder: Path) -> None:
    video, bvh = ("--video", str(folder / "star.mp4")), ("--bvh", str(folder / "out.bvh"))
    assert command(folder, *video, *bvh, "--clean-up", "natural") == 0
    found = Motion.load(folder / "out.npz")
    assert settings_of(found) == preset("natural") and not len(found.travel)
    poses = read_bvh(folder / "out.bvh")[1]
    assert len(poses) == len(found)

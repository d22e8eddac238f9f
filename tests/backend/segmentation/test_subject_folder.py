"""Subjects on disk: the folder that can be edited and given back, and the cache."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.errors import UserError
from anyrig.backend.progress import result_of
from anyrig.backend.segmentation import subject_cache
from anyrig.backend.segmentation.sightings import Candidate
from anyrig.backend.segmentation.subject import Subject, find_subject
from anyrig.backend.segmentation.subject_folder import write_subject
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.backend.outdoor import SIZE, walker

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "walk.mp4"
    masks = [walker(k, 70 + 6 * k, 90)[..., None] for k in range(20)]
    write_video(path, [(m * np.float32([120, 60, 30]) + (1 - m) * 250).astype(np.uint8) for m in masks], 25.0)
    return path


def subject_of(clip: Clip) -> Subject:
    return result_of(find_subject(clip, isnet="off"))


def command(video: Path, out: Path, *more: str) -> int:
    return main(["subject", "--video", str(video), "--out", str(out), "--cache", "", "--isnet", "off", *more])


def test_the_command_writes_a_folder(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "walk"
    assert command(video, out, "--trim", "0.2", "0.6") == 0
    assert sorted(file.name for file in out.iterdir()) == [*(f"{k:04d}.png" for k in range(10)), "sheet.png", "subject.json"]
    about = json.loads((out / "subject.json").read_text())
    assert about["source"] == "uniform" and about["frames"] == 10 and about["range"] == [0.2, 0.56]
    assert len(about["times"]) == len(about["boxes"]) == len(about["confidence"]) == 10
    matte = cv2.imread(str(out / "0003.png"), cv2.IMREAD_GRAYSCALE)
    truth = walker(8, 70 + 48, 90) >= 0.5
    assert matte.shape == SIZE and ((matte >= 128) == truth).mean() > 0.98
    assert cv2.imread(str(out / "sheet.png")).shape[1] == 6 * 320
    assert "10 mattes, found by uniform" in capsys.readouterr().out
    assert command(video, out) == 0, "its own folder may be written again"
    assert len(list(out.glob("0*.png"))) == 20


def test_other_files_are_not_overwritten(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert command(video, tmp_path) == 1
    assert "holds other files, such as 'notes.txt': choose an empty or a new folder" in capsys.readouterr().err


def test_an_edited_folder_is_the_matte_and_brings_its_range(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk"
    clip = Clip(str(video), start=0.2, end=0.6)
    result_of(write_subject(out, clip, subject_of(clip)))
    edited = cv2.imread(str(out / "0004.png"), cv2.IMREAD_GRAYSCALE)
    edited[:, :100] = 0
    cv2.imwrite(str(out / "0004.png"), edited)
    given = subject_of(Clip(str(video), matte=str(out)))
    assert given.source == "matte" and len(given.times) == 10
    assert given.clip is not None and given.clip.start == pytest.approx(0.19)
    np.testing.assert_array_equal(given.matte(4) >= 128, edited >= 128)
    part = subject_of(Clip(str(video), start=0.32, end=0.48, matte=str(out)))
    np.testing.assert_array_equal(part.matte(1) >= 128, edited >= 128)
    with pytest.raises(UserError, match=r"goes from 0.20 to 0.56 seconds of the video, but not to 0.76: trim the video"):
        subject_of(Clip(str(video), start=0.4, end=0.8, matte=str(out)))


def test_a_damaged_folder(video: Path, tmp_path: Path) -> None:
    (tmp_path / "subject.json").write_text("{}")
    with pytest.raises(UserError, match=r"subject.json' cannot be read .*: find the subject again, or delete it"):
        subject_of(Clip(str(video), matte=str(tmp_path)))


def test_a_missing_image_is_told(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "walk"
    result_of(write_subject(out, Clip(str(video)), subject_of(Clip(str(video)))))
    (out / "0007.png").unlink()
    with pytest.raises(UserError, match="has 19 frames where the video has 20: give one matte per frame"):
        subject_of(Clip(str(video), matte=str(out)))


def kept(clip: Clip, folder: Path) -> Subject:
    return result_of(subject_cache.find_kept_subject(clip, CPU, "off", str(folder)))


def test_the_cache_gives_back_the_same(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(str(video), start=0.1)
    first = kept(clip, tmp_path)
    monkeypatch.setattr(subject_cache, "find_subject", lambda *_: pytest.fail("found again"))
    second = kept(clip, tmp_path)
    for key in ("times", "boxes", "confidence"):
        np.testing.assert_array_equal(getattr(first, key), getattr(second, key))
    assert (first.source, first.mattes, first.size, first.clip, first.note) == (
        second.source, second.mattes, second.size, second.clip, second.note,
    )  # fmt: skip


def test_other_frames_have_another_place_in_the_cache(video: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    clip, folder = Clip(str(copy)), tmp_path / "cache"
    for other in (clip, replace(clip, end=0.5), replace(clip, box=(50, 50, 200, 160))):
        kept(other, folder)
    copy.write_bytes(video.read_bytes() + b"\0")
    kept(clip, folder)
    assert len(list(folder.iterdir())) == 4


def test_another_network_has_another_place_in_the_cache(video: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.safetensors"
    keys = {subject_cache._key(Clip(str(video)), CPU, choice) for choice in ("off", "", str(own))}
    for content in (b"one", b"another"):
        own.write_bytes(content)
        keys.add(subject_cache._key(Clip(str(video)), CPU, str(own)))
    assert len(keys) == 5


def test_the_cache_has_a_limit_and_survives_damage(video: Path, tmp_path: Path) -> None:
    files = []
    for end in (0.4, 0.5, 0.6):
        kept(Clip(str(video), end=end), tmp_path)
        files += [file for file in tmp_path.iterdir() if file not in files]
    sizes = [file.stat().st_size for file in files]
    assert subject_cache.make_room(tmp_path, limit=sum(sizes[1:])) == sum(sizes[1:])
    assert not files[0].exists() and files[1].exists() and files[2].exists(), "the oldest goes"
    files[2].write_bytes(b"damaged")
    assert len(kept(Clip(str(video), end=0.6), tmp_path).times) == 15
    unwritable = tmp_path / "file"
    unwritable.write_text("")
    assert len(kept(Clip(str(video), end=0.4), unwritable / "below").times) == 10


def test_candidates_are_kept(tmp_path: Path) -> None:
    other = Candidate((1.0, 2.0, 3.0, 4.0), 0.5)
    subject = Subject(np.zeros(2), np.zeros((2, 4)), np.ones(2), "isnet", [b"a", b"bc"], (4, 4), Clip("x"), "", (other,))
    subject_cache._save(tmp_path / "x.npz", subject)
    loaded = subject_cache._load(tmp_path / "x.npz")
    assert loaded is not None and loaded.others == (other,) and loaded.mattes == [b"a", b"bc"]
    assert asdict(loaded.clip or Clip("")) == asdict(Clip("x"))

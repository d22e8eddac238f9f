"""Cutting subjects out with the network: where its image lies, what it mends, and how it is trained."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.cli import main
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera
from anyrig.backend.progress import result_of
from anyrig.backend.segmentation.cutout_network import CHANNELS, SIDE, Cutout, cut_out, load_cutout, network_inputs, square_around
from anyrig.backend.segmentation.matte import Picker, shade_vectors
from anyrig.backend.segmentation.scenery_key import Scenery, find_scenery
from anyrig.backend.segmentation.subject import find_fixed_parts, find_subject
from anyrig.backend.train.cutout.train_cutout import Examples, loss_of, scene_of, scenes_in
from anyrig.backend.train.packs.rendered_clips import RenderedClip, save_mattes
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import read_frames
from anyrig.tests.backend.outdoor import outdoor_film
from safetensors import safe_open
from safetensors.torch import save_file

SHADE = (72.0, 65.0, 56.0)  # of the film's ground in shadow
DARK_LEGS = ((120.0, 80.0, 60.0), SHADE)


class Repeats(Cutout):
    """Answers with the rough matte that it was shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, 6] - 0.5) * 20


class Differs(Cutout):
    """Answers with all that differs from what is behind it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x[:, :3] - x[:, 3:6]).abs().amax(1) - 0.3) * 100


def overlap(left: np.ndarray, right: np.ndarray) -> float:
    return float((left & right).sum() / (left | right).sum())


def film(
    folder: Path, name: str = "walk", colours: tuple[tuple[float, float, float], ...] = DARK_LEGS, swing: float = 1.0
) -> Path:
    """A video and its mattes, as `build.py dev render --covers` writes them."""
    path = folder / f"{name}.mp4"
    masks = outdoor_film(path, swing, colours)
    save_mattes(path, ((mask * 255).round().astype(np.uint8) for mask in masks))
    RenderedClip.by(Camera((0, 0, 0), 1.0), "walker", name, 25.0, len(masks), {}).save(path.with_suffix(".json"))
    return path


@pytest.mark.parametrize("radius", [20, 60, 170])
def test_what_is_cut_out_comes_back_to_its_place(radius: int) -> None:
    image = np.zeros((400, 640, 3), np.uint8)
    rough = np.zeros((400, 640), np.uint8)
    cv2.circle(rough, (250, 190), radius, 255, -1)
    cv2.rectangle(rough, (250, 190), (250 + radius + 9, 196), 255, -1)
    matte = cut_out(Repeats(), image, image, rough, np.zeros(rough.shape, bool))
    assert overlap(matte >= 128, rough >= 128) > 0.97


def test_legs_that_pass_for_shadow_are_looked_at() -> None:
    rough, dark = np.zeros((100, 100), np.uint8), np.zeros((100, 100), bool)
    rough[20:40, 30:60], dark[40:80, 30:40] = 255, True
    left, top, side = square_around(rough, dark) or (0, 0, 0)
    assert side == pytest.approx(60 * 1.4) and (left, top) == pytest.approx((45 - 42, 50 - 42))
    assert square_around(np.zeros_like(rough), dark) is None, "shadow alone is nobody"


def test_without_a_rough_matte_there_is_none() -> None:
    nothing = np.zeros((50, 60), np.uint8)
    image = np.zeros((50, 60, 3), np.uint8)
    assert not cut_out(load_cutout(), image, image, nothing, nothing > 0).any()


def test_a_head_apart_belongs_to_its_body_and_a_scrap_far_off_does_not() -> None:
    """The picker sees a body; its head, above a gap, is no part of it, and reaches out of what the network looks at first."""
    ground = np.full((300, 400, 3), 200, np.uint8)
    image = ground.copy()
    image[120:220, 130:190] = image[66:106, 140:180] = image[150:160, 80:90] = 20
    scenery = Scenery(shade_vectors(ground), np.full((300, 400), 8.0, np.float32))
    picker = Picker()
    once = cut_out(Differs(), image, ground, Picker().pick(scenery.key(image)), np.zeros((300, 400), bool)) >= 128
    assert once[103, 160] and not once[80, 160]
    matte = scenery.pick(image, picker, 0.0, Differs()) >= 128
    assert matte[170, 160] and matte[80, 160] and not matte[155, 85]


def test_it_finds_what_colours_miss(tmp_path: Path) -> None:
    """Its legs pass for shadow; measured on images of another kind than those it was trained on."""
    path = tmp_path / "walk.mp4"
    masks = outdoor_film(path, 1.0, DARK_LEGS)
    images = np.stack([frame.image for frame in read_frames(Clip(str(path)))])
    scenery, network = find_scenery(images), load_cutout()
    assert scenery is not None
    before, after = [], []
    picker = Picker(None, find_fixed_parts(images, scenery.key))
    for image, mask in zip(images[::4], masks[::4], strict=True):
        rough, dark = scenery.key_with_shadow(image)
        rough = picker.pick(rough, 0.02)
        cut = cut_out(network, image, scenery.image, rough, dark)
        before.append(overlap(rough >= 128, mask >= 0.5))
        after.append(overlap(cut >= 128, mask >= 0.5))
    assert np.mean(before) < 0.6 and np.mean(after) > 0.8


def test_a_subject_of_the_shadows_colour_is_found(tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    masks = outdoor_film(path, 1.0, (SHADE, SHADE))
    images = np.stack([frame.image for frame in read_frames(Clip(str(path)))])
    assert find_scenery(images) is None and find_scenery(images, load_cutout()) is not None
    subject = result_of(find_subject(Clip(str(path)), isnet="off"))
    assert subject.source == "scenery"
    assert np.mean([overlap(subject.matte(index) >= 128, mask >= 0.5) for index, mask in enumerate(masks)]) > 0.7


def test_examples_are_sound_and_their_seed_decides(tmp_path: Path) -> None:
    scene = scene_of(film(tmp_path), "walker")
    assert scene is not None and scene.rough.shape == scene.mattes.shape == scene.dark.shape
    seen, covers = Examples([scene], 3).batch(6)
    assert seen.shape == (6, CHANNELS, SIDE, SIDE) and covers.shape == (6, SIDE, SIDE)
    assert seen.min() >= 0 and seen.max() <= 1.001 and 0 <= covers.min() and covers.max() <= 1
    assert ((covers > 0.5).float().mean((1, 2)) > 0.01).all()
    again, _ = Examples([scene], 3).batch(6)
    other, _ = Examples([scene], 4).batch(6)
    assert torch.equal(seen, again) and not torch.equal(seen, other)


def test_unchanged_it_sees_the_image_itself(tmp_path: Path) -> None:
    scene = scene_of(film(tmp_path, colours=((70, 90, 160), (60, 70, 120))), "walker")
    assert scene is not None
    square = square_around(scene.rough[0], scene.dark[0])
    assert square is not None
    seen = network_inputs(scene.images[0], scene.behind, scene.rough[0], scene.dark[0], square)
    row, column = np.array([84, 175])  # within the body
    y, x = (np.array([row - square[1], column - square[0]]) * SIDE / square[2]).astype(int)
    assert np.abs(seen[:3, y, x] * 255 - scene.images[0][row, column]).max() < 25
    assert seen[6, y, x] > 0.9 and seen[7, y, x] == 0


def test_the_command_trains(tmp_path: Path) -> None:
    film(tmp_path)
    out = tmp_path / "new folder" / "cutout.safetensors"
    options = ["--footage", str(tmp_path), "--out", str(out), "--budget", "0.05", "--batch", "2"]
    assert main(["cutout", *options]) == 0
    with safe_open(out, "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["videos"] == 1 and card["steps"] > 0
    seen, covers = Examples(list(scenes_in(tmp_path)), 0).batch(2)
    assert loss_of(load_cutout(out)(seen), covers).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x.safetensors", "--budget", "0"], "both must be above zero"),
        (["--out", "x.safetensors", "--budget", "1", "--batch", "0"], "both must be above zero"),
        (["--out", ".", "--budget", "1"], "'.' is a folder: name a file in it"),
        (["--out", "x.safetensors", "--budget", "1", "--start", "nowhere"], "'nowhere' is not a network that cuts subjects out"),
        (
            ["--out", "x.safetensors", "--budget", "1", "--start", "walk.mp4"],
            "'walk.mp4' is not a network that cuts subjects out",
        ),
        (["--out", "x.safetensors", "--budget", "1", "--start", "other.safetensors"], "it has other layers"),
    ],
)
def test_what_cannot_be_trained_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    film(tmp_path)
    monkeypatch.chdir(tmp_path)
    save_file({"weight": torch.zeros(1)}, "other.safetensors")
    assert main(["cutout", "--footage", ".", *options]) == 1
    assert message in capsys.readouterr().err and not Path("x.safetensors").exists()


def test_videos_that_cannot_be_trained_on(tmp_path: Path) -> None:
    path = film(tmp_path)
    covers = path.with_suffix(".covers.npz")
    kept = covers.read_bytes()
    covers.unlink()
    with pytest.raises(UserError, match=r"no mattes beside .*walk\.mp4.*--covers"):
        scene_of(path, "walker")
    covers.write_bytes(kept[:100])
    with pytest.raises(UserError, match=r"walk\.covers\.npz' cannot be read .*render again"):
        scene_of(path, "walker")
    save_mattes(path, [np.zeros((4, 4), np.uint8)] * 3)
    with pytest.raises(UserError, match="24 frames and 3 mattes"):
        scene_of(path, "walker")
    covers.write_bytes(kept)
    with pytest.raises(UserError, match="can be trained on"):
        list(scenes_in(_empty(path)))


def _empty(path: Path) -> Path:
    """A folder with a video of the ground alone."""
    folder = path.parent / "empty"
    folder.mkdir()
    from anyrig.backend.video.reader import write_video

    image = next(iter(read_frames(Clip(str(path))))).image
    image[:] = image[:, :8].mean(axis=1, keepdims=True)
    write_video(folder / "ground.mp4", [image] * 12, 25.0)
    save_mattes(folder / "ground.mp4", [np.zeros(image.shape[:2], np.uint8)] * 12)
    RenderedClip.by(Camera((0, 0, 0), 1.0), "walker", "ground", 25.0, 12, {}).save(folder / "ground.json")
    return folder

"""A look at the subject before the capture: it must show what `find_subject` takes, with the same box, cut and mirror."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.progress import result_of
from anyrig.backend.segmentation import preview as preview_module
from anyrig.backend.segmentation import subject as subject_module
from anyrig.backend.segmentation.matte import overlap
from anyrig.backend.segmentation.matte_finder import OFF
from anyrig.backend.segmentation.preview import ALL, MOMENTS, Moment, Preview, Shape, preview_subject
from anyrig.backend.segmentation.subject import Subject, find_subject
from anyrig.backend.segmentation.subject_cache import find_kept_subject
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.backend.outdoor import SIZE, noise_texture, walker

RED, BLUE = (190, 60, 40), (40, 70, 190)
CPU, FPS, FRAMES = torch.device("cpu"), 25.0, 18


class Coloured:
    """In place of ISNet: all that has a colour stands out. `looks`: how many images it has seen."""

    step, looks = 6, 0

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, image: np.ndarray) -> np.ndarray:
        type(self).looks += 1
        spread = image.max(axis=-1).astype(int) - image.min(axis=-1)
        return cv2.resize(np.where(spread > 40, 255, 0).astype(np.uint8), (512, 512))


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    Coloured.looks = 0
    for module in (preview_module, subject_module):
        monkeypatch.setattr(module, "MatteFinder", Coloured)
        monkeypatch.setattr(module, "uses_isnet", lambda isnet: isnet != OFF)


def painted(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return mask[..., None] * np.float32(colour) + (1 - mask[..., None]) * image


def film(path: Path, backdrop: np.ndarray, frames: int = FRAMES) -> Clip:
    """A large red figure left of the middle and a smaller blue one at the right; both walk to the right."""
    images = []
    for k in range(frames):
        image = painted(backdrop, walker(k, 70 + 2 * k, 90, scale=1.2), RED)
        image = painted(image, walker(k, 215 + 2 * k, 100, scale=0.9), BLUE)
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    write_video(path, images, FPS)
    return Clip(str(path))


def rough() -> np.ndarray:
    grey = noise_texture(np.random.default_rng(1), SIZE, 9, 60, 200).mean(axis=-1)
    return np.repeat(grey[..., None], 3, axis=-1)


def look(clip: Clip, isnet: str = "", folder: str = "") -> Preview:
    return result_of(preview_subject(clip, CPU, isnet, folder))


def shape_of(moment: Moment, number: int) -> Shape:
    return next(shape for shape in moment.shapes if shape.number == number)


def colour_of(moment: Moment, shape: Shape) -> str:
    mean = moment.image[shape.matte >= 200].mean(axis=0)
    return "red" if mean[0] > mean[2] else "blue"


def agrees(shown: Preview, subject: Subject, clip: Clip) -> bool:
    """Whether each picture shows the subject where `find_subject` finds it."""
    assert subject.clip is not None
    times = subject.times * subject.clip.speed + subject.clip.start
    shares = []
    for moment in shown.moments:
        x0, y0, x1, y1 = subject.boxes[np.abs(times - moment.time).argmin()]
        box = (shown.size[0] - x1, y0, shown.size[0] - x0, y1) if clip.mirror else (x0, y0, x1, y1)
        shares.append(overlap(shape_of(moment, shown.chosen).box, box))
    return min(shares) > 0.8


def test_the_pictures_show_the_subject_and_the_other_object(tmp_path: Path) -> None:
    clip = film(tmp_path / "two.mp4", rough())
    shown = look(clip)
    assert len(shown.moments) == MOMENTS == Coloured.looks and shown.source == "isnet" and not shown.note
    assert shown.moments[0].time == 0 and shown.moments[-1].time == pytest.approx((FRAMES - 1) / FPS)
    assert len(shown.others) == 1
    for moment in shown.moments:
        assert {colour_of(moment, shape): shape.number for shape in moment.shapes} == {
            "red": shown.chosen,
            "blue": shown.others[0],
        }
    assert agrees(shown, result_of(find_subject(clip)), clip)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("ground", ["rough", "uniform"])
def test_a_click_on_the_other_object_chooses_it_in_preview_and_capture(tmp_path: Path, ground: str, mirror: bool) -> None:
    plain = film(tmp_path / "two.mp4", rough() if ground == "rough" else np.full((*SIZE, 3), 120.0))
    clip = Clip(plain.path, mirror=mirror, start=0.2, speed=2.0)
    shown = look(clip)
    assert shown.source == ("isnet" if ground == "rough" else "uniform")
    moment = shown.moments[3]
    [other] = shown.others
    clicked = shape_of(moment, other)
    assert colour_of(moment, clicked) == "blue"
    boxed = Clip(plain.path, mirror=mirror, start=0.2, speed=2.0, box=clicked.box, box_time=moment.time - 1e-3)
    again = look(boxed)
    assert all(colour_of(each, shape_of(each, again.chosen)) == "blue" for each in again.moments)
    assert any(each.time == pytest.approx(moment.time) for each in again.moments)
    assert agrees(again, result_of(find_subject(boxed)), boxed)
    assert agrees(shown, result_of(find_subject(clip)), clip)


def test_of_several_shots_the_one_that_is_captured_is_shown(tmp_path: Path) -> None:
    first = [np.full((*SIZE, 3), (40, 90, 40), np.uint8)] * 12
    images = [painted(rough(), walker(k, 80 + 2 * k, 90), RED).clip(0, 255).astype(np.uint8) for k in range(FRAMES)]
    write_video(tmp_path / "cut.mp4", first + images, FPS)
    shown = look(Clip(str(tmp_path / "cut.mp4")))
    assert "2 shots: number 2 was captured" in shown.note and min(each.time for each in shown.moments) > 11.5 / FPS
    assert all(colour_of(each, shape_of(each, shown.chosen)) == "red" for each in shown.moments) and not shown.others


def test_a_short_shot_of_a_long_video_has_its_pictures(tmp_path: Path) -> None:
    long = [np.full((*SIZE, 3), (40, 90, 40), np.uint8)] * 404
    images = [painted(rough(), walker(k, 80 + 2 * k, 90), RED).clip(0, 255).astype(np.uint8) for k in range(12)]
    write_video(tmp_path / "cut.mp4", long + images, FPS)
    at = 408 / FPS
    shown = look(Clip(str(tmp_path / "cut.mp4"), box=(20, 20, 200, 170), box_time=at))
    assert len(shown.moments) >= MOMENTS and min(each.time for each in shown.moments) > 403.5 / FPS
    assert any(each.time == pytest.approx(at) for each in shown.moments) and "number 2 was captured" in shown.note
    assert all(colour_of(each, shape_of(each, shown.chosen)) == "red" for each in shown.moments)


def test_a_kept_subject_is_shown_without_the_network(tmp_path: Path) -> None:
    clip, folder = film(tmp_path / "two.mp4", rough()), str(tmp_path / "kept")
    subject = result_of(find_kept_subject(clip, CPU, "", folder))
    Coloured.looks = 0
    shown = look(clip, folder=folder)
    assert Coloured.looks == 0 and shown.source == "isnet" and agrees(shown, subject, clip)
    [other] = shown.others
    [told] = subject.others
    moment = next(each for each in shown.moments if any(shape.number == other for shape in each.shapes))
    assert moment.time == pytest.approx(told.time) and overlap(shape_of(moment, other).box, told.box) > 0.95


def test_alpha_is_shown_with_what_is_beside_it(tmp_path: Path) -> None:
    for k in range(8):
        image = np.zeros((120, 160, 4), np.uint8)
        image[30:90, 20 + 3 * k : 60 + 3 * k] = (40, 60, 190, 255)
        image[40:80, 110:140] = (190, 70, 40, 255)
        cv2.imwrite(str(tmp_path / f"{k:02d}.png"), image)
    clip = Clip(str(tmp_path / "00.png"))
    assert not look(clip).others, "all that is opaque is taken"
    shown = look(Clip(clip.path, box=(15, 25, 65, 95)))
    assert shown.source == "alpha" and len(shown.others) == 1 and Coloured.looks == 0
    assert [colour_of(each, shape_of(each, shown.chosen)) for each in shown.moments] == ["red"] * len(shown.moments)
    assert colour_of(shown.moments[0], shape_of(shown.moments[0], shown.others[0])) == "blue"


def test_nothing_to_see_is_told_by_empty_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "grey.mp4", [rough().astype(np.uint8)] * 8, FPS)
    shown = look(Clip(str(tmp_path / "grey.mp4")))
    assert shown.chosen == 0 and not shown.others and not any(each.shapes for each in shown.moments)


def test_progress_grows_to_its_end(tmp_path: Path) -> None:
    clip = film(tmp_path / "two.mp4", rough())
    told = [done for done, total in preview_subject(clip, CPU) if total == ALL]
    assert told == sorted(told) and told[0] == 0 and told[-1] == ALL

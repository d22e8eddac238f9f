"""Finding the subject: made-up films with known truth."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.segmentation.backdrop_key import find_uniform
from anyrig.backend.segmentation.matte_finder import OFF
from anyrig.backend.segmentation.scenery_key import find_scenery
from anyrig.backend.segmentation.subject import Subject, find_subject
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.backend.outdoor import SIZE, noise_texture, outdoor_film, outdoors, walker

FRAMES = 40

Place = Callable[[int], tuple[float, float]]


def found(clip: Clip, isnet: str = OFF) -> tuple[Subject, list[tuple[int, int]]]:
    """Without ISNet, if not told otherwise: it takes seconds an image, and has its own tests."""
    generator, progress = find_subject(clip, isnet=isnet), []
    while True:
        try:
            progress.append(next(generator))
        except StopIteration as stop:
            return stop.value, progress


def subject_of(clip: Clip) -> Subject:
    return found(clip)[0]


@cache
def skin_texture(height: int, width: int, seed: int) -> np.ndarray:
    coarse = noise_texture(np.random.default_rng(seed), (height, width), 9, 30, 140)
    return np.float32([60, 20, 0]) + 0.3 * coarse + 0.7 * coarse.mean(axis=-1, keepdims=True) * np.float32([1.0, 0.75, 0.5])


def painted(mask: np.ndarray, x: float, y: float, back: np.ndarray, seed: int = 5) -> np.ndarray:
    """The walker, brown with dark patches that move with it, over a background."""
    height, width = mask.shape
    shift = np.float32([[1, 0, x - 1.5 * width], [0, 1, y - 1.5 * height]])
    skin = cv2.warpAffine(skin_texture(3 * height, 3 * width, seed), shift, (width, height))
    return np.clip(mask[..., None] * skin + (1 - mask[..., None]) * back, 0, 255).astype(np.uint8)


def walk(frame: int) -> tuple[float, float]:
    return 70 + 4.5 * frame, 90 + 2 * np.sin(0.8 * frame)


def film(
    path: Path, back: Callable[[int], np.ndarray], place: Place = walk, frames: int = FRAMES, grain: float = 0.0
) -> list[np.ndarray]:
    """Writes a film and returns the true masks."""
    rng = np.random.default_rng(1)
    masks, images = [], []
    for frame in range(frames):
        masks.append(walker(frame, *place(frame)))
        image = painted(masks[-1], *place(frame), back(frame)).astype(np.float32)
        images.append(np.clip(image + grain * rng.standard_normal(image.shape), 0, 255).astype(np.uint8))
    write_video(path, images, 25.0)
    return masks


def iou(subject: Subject, masks: list[np.ndarray]) -> np.ndarray:
    values = []
    for index, mask in enumerate(masks):
        seen, true = subject.matte(index) >= 128, mask >= 0.5
        values.append((seen & true).sum() / max((seen | true).sum(), 1))
    return np.array(values)


def box_errors(subject: Subject, masks: list[np.ndarray]) -> np.ndarray:
    true = []
    for mask in masks:
        x, y, width, height = cv2.boundingRect((mask >= 0.5).astype(np.uint8))
        true.append((x, y, x + width, y + height))
    return np.abs(subject.boxes - np.array(true)).max(axis=1)


def flat(colour: tuple[float, float, float]) -> Callable[[int], np.ndarray]:
    return lambda frame: np.full((*SIZE, 3), colour, np.float32)


@cache
def photo(size: tuple[int, int] = SIZE, seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [share * noise_texture(rng, size, grain, 30, 240) for share, grain in ((0.5, 40), (0.3, 12), (0.2, 4))]
    coloured = np.sum(layers, axis=0)
    return 0.35 * coloured + 0.65 * coloured.mean(axis=-1, keepdims=True)


def panning(frame: int) -> np.ndarray:
    wide = photo((220, 800), 3)
    shift = np.float32([[1, 0, -20 - 7.3 * frame], [0, 1, -20 - 4 * np.sin(0.3 * frame)]])
    return cv2.warpAffine(wide, shift, SIZE[::-1])


def test_white_backdrop(tmp_path: Path) -> None:
    masks = film(tmp_path / "white.mp4", flat((250, 250, 250)))
    subject, progress = found(Clip(str(tmp_path / "white.mp4")))
    assert subject.source == "uniform"
    assert iou(subject, masks).min() > 0.9
    assert box_errors(subject, masks).max() <= 3
    assert subject.confidence.min() > 0.8
    np.testing.assert_allclose(subject.times, np.arange(FRAMES) / 25, atol=1e-6)
    assert progress[-1] == (FRAMES, FRAMES) and all(total == FRAMES for _, total in progress)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_noisy_green_backdrop_with_a_logo_and_uneven_light(tmp_path: Path) -> None:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    light = (0.75 + 0.25 * x / SIZE[1] - 0.2 * (y / SIZE[0]) ** 2)[..., None]
    back = np.float32([30, 190, 60]) * light
    back[8:20, 270:310:3] = 255
    masks = film(tmp_path / "green.mp4", lambda frame: back, grain=5.0)
    subject = subject_of(Clip(str(tmp_path / "green.mp4")))
    assert subject.source == "uniform"
    assert iou(subject, masks).min() > 0.9
    assert box_errors(subject, masks).max() <= 3


def test_an_animal_that_only_moves_its_head_is_no_logo(tmp_path: Path) -> None:
    body = np.zeros(SIZE, np.uint8)
    cv2.ellipse(body, (150, 90), (70, 30), 0, 0, 360, 255, -1)
    cv2.rectangle(body, (95, 90), (110, 165), 255, -1)
    cv2.rectangle(body, (190, 90), (205, 165), 255, -1)
    masks = []
    for frame in range(24):
        mask = body.copy()
        cv2.circle(mask, (228, round(75 + 14 * np.sin(0.5 * frame))), 15, 255, -1)
        masks.append(mask.astype(np.float32) / 255)
    images = (np.where(mask[..., None] > 0.5, 60, 232).repeat(3, axis=2).astype(np.uint8) for mask in masks)
    write_video(tmp_path / "idle.mp4", images, 25.0)
    assert iou(subject_of(Clip(str(tmp_path / "idle.mp4"))), masks).min() > 0.9


def test_white_backdrop_that_darkens_to_one_side(tmp_path: Path) -> None:
    x = np.linspace(0, 1, SIZE[1], dtype=np.float32)
    back = np.broadcast_to((250 - 110 * x)[None, :, None], (*SIZE, 3))
    masks = film(tmp_path / "shade.mp4", lambda frame: back, frames=20)
    subject = subject_of(Clip(str(tmp_path / "shade.mp4")))
    assert subject.source == "uniform"
    assert iou(subject, masks).min() > 0.9


def test_static_background(tmp_path: Path) -> None:
    back = photo()
    masks = film(tmp_path / "static.mp4", lambda frame: back, grain=2.0)
    subject = subject_of(Clip(str(tmp_path / "static.mp4")))
    assert subject.source == "static"
    assert iou(subject, masks).min() > 0.9
    assert box_errors(subject, masks).max() <= 4


def test_panning_background(tmp_path: Path) -> None:
    def place(frame: int) -> tuple[float, float]:
        return 150 + 15 * np.sin(0.2 * frame), 90

    masks = film(tmp_path / "pan.mp4", panning, place, frames=30)
    subject = subject_of(Clip(str(tmp_path / "pan.mp4")))
    assert subject.source == "grabcut"
    assert iou(subject, masks).min() > 0.75
    assert np.median(box_errors(subject, masks)) <= 4


def test_trembling_camera(tmp_path: Path) -> None:
    wide = photo((200, 340), 4)

    def back(frame: int) -> np.ndarray:
        shift = np.float32([[1, 0, -10 + 2 * np.sin(1.1 * frame)], [0, 1, -10 + 2 * np.cos(0.7 * frame)]])
        return cv2.warpAffine(wide, shift, SIZE[::-1])

    masks = film(tmp_path / "hand.mp4", back)
    subject = subject_of(Clip(str(tmp_path / "hand.mp4")))
    assert subject.source == "static"
    assert iou(subject, masks).min() > 0.85


def test_subject_out_of_view_is_lost_and_interpolated(tmp_path: Path) -> None:
    def place(frame: int) -> tuple[float, float]:
        return (120, 90) if frame < 14 else (160, 95) if frame >= 22 else (900, 900)

    back = np.full((*SIZE, 3), 245, np.float32)
    back[5:15, 10:60:4] = 20  # a logo must not stand in for the subject
    masks = film(tmp_path / "gone.mp4", lambda frame: back, place)
    subject = subject_of(Clip(str(tmp_path / "gone.mp4")))
    lost = np.arange(FRAMES)[14:22]
    assert (subject.confidence[lost] == 0).all()
    seen = np.setdiff1d(np.arange(FRAMES), lost)
    assert subject.confidence[seen].min() > 0.5
    assert box_errors(subject, masks)[seen].max() <= 3
    weight = (subject.times[lost] - subject.times[13]) / (subject.times[22] - subject.times[13])
    expected = subject.boxes[13] + weight[:, None] * (subject.boxes[22] - subject.boxes[13])
    np.testing.assert_allclose(subject.boxes[lost], expected, atol=1e-6)
    inside = cv2.boundingRect((subject.matte(17) >= 128).astype(np.uint8))
    np.testing.assert_allclose((inside[0], inside[1]), subject.boxes[17][:2], atol=2.5)


def test_confidence_falls_at_the_edge(tmp_path: Path) -> None:
    film(tmp_path / "edge.mp4", flat((40, 200, 60)), lambda frame: (160 - 5.0 * frame, 90), frames=34)
    subject = subject_of(Clip(str(tmp_path / "edge.mp4")))
    assert subject.confidence[:10].min() > 0.9
    assert subject.confidence[26:].max() < 0.75
    assert subject.boxes[28, 0] <= 1


def write_rgba(folder: Path, alphas: list[np.ndarray]) -> None:
    folder.mkdir()
    for index, alpha in enumerate(alphas):
        image = np.dstack([photo().astype(np.uint8), np.round(255 * alpha).astype(np.uint8)])
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)


def test_alpha_comes_first(tmp_path: Path) -> None:
    masks = [walker(frame, *walk(frame)) for frame in range(6)]
    write_rgba(tmp_path / "rgba", masks)
    subject = subject_of(Clip(str(tmp_path / "rgba")))
    assert subject.source == "alpha"
    assert iou(subject, masks).min() > 0.98 and box_errors(subject, masks).max() <= 1
    np.testing.assert_array_equal(subject.matte(3), np.round(255 * masks[3]).astype(np.uint8))


def test_opaque_alpha_says_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "opaque"
    folder.mkdir()
    for frame in range(8):
        mask = walker(frame, *walk(frame))
        image = painted(mask, *walk(frame), flat((250, 250, 250))(frame))
        cv2.imwrite(str(folder / f"{frame:03d}.png"), np.dstack([image[..., ::-1], np.full(SIZE, 255, np.uint8)]))
    assert subject_of(Clip(str(folder))).source == "uniform"


def write_mattes(folder: Path, mattes: list[np.ndarray]) -> str:
    folder.mkdir()
    for index, matte in enumerate(mattes):
        cv2.imwrite(str(folder / f"{index:03d}.png"), np.round(255 * matte).astype(np.uint8))
    return str(folder)


def test_given_matte(tmp_path: Path) -> None:
    video = tmp_path / "pan.mp4"
    masks = film(video, panning, frames=10)
    half = [cv2.resize(mask, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for mask in masks]
    whole = subject_of(Clip(str(video), matte=write_mattes(tmp_path / "whole", masks)))
    assert whole.source == "matte" and iou(whole, masks).min() > 0.98
    small = subject_of(Clip(str(video), matte=write_mattes(tmp_path / "half", half)))
    assert iou(small, masks).min() > 0.93
    trimmed = Clip(str(video), start=0.12, end=0.32, matte=str(tmp_path / "whole"))
    assert iou(subject_of(trimmed), masks[3:8]).min() > 0.98, "a matte of the whole file is trimmed with it"
    ranged = Clip(str(video), start=0.12, end=0.32, matte=write_mattes(tmp_path / "range", masks[3:8]))
    assert iou(subject_of(ranged), masks[3:8]).min() > 0.98


def test_matte_that_does_not_fit(tmp_path: Path) -> None:
    video = tmp_path / "pan.mp4"
    masks = film(video, panning, frames=10)
    with pytest.raises(UserError, match="has 7 frames where the video has 10: give one matte per frame"):
        subject_of(Clip(str(video), matte=write_mattes(tmp_path / "short", masks[:7])))
    square = [mask[:, :180] for mask in masks]
    with pytest.raises(UserError, match="180 x 180 pixels where the video has 320 x 180: give a matte of the same proportions"):
        subject_of(Clip(str(video), matte=write_mattes(tmp_path / "square", square)))
    with pytest.raises(UserError, match="does not exist"):
        subject_of(Clip(str(video), matte=str(tmp_path / "nowhere")))


def two_walkers(path: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A large walker on the right and a small one on the left, both on white."""
    large, small, images = [], [], []
    for frame in range(20):
        large.append(walker(frame, 220 + frame, 100))
        small.append(walker(frame, 60 + frame, 70, scale=0.6))
        image = painted(large[-1], 220 + frame, 100, flat((250, 250, 250))(frame)).astype(np.float32)
        images.append(painted(small[-1], 60 + frame, 70, image))
    write_video(path, images, 25.0)
    return large, small


def test_box_chooses_among_subjects(tmp_path: Path) -> None:
    large, small = two_walkers(tmp_path / "two.mp4")
    clip = str(tmp_path / "two.mp4")
    assert iou(subject_of(Clip(clip)), large).min() > 0.85
    chosen = subject_of(Clip(clip, box=(20, 40, 100, 110)))
    assert iou(chosen, small).min() > 0.8 and box_errors(chosen, small).max() <= 3
    with pytest.raises(UserError, match="lies outside the image of 320 x 180 pixels"):
        subject_of(Clip(clip, box=(400, 40, 500, 110)))


def test_mirrored_footage_takes_box_and_matte_of_the_file(tmp_path: Path) -> None:
    video = tmp_path / "two.mp4"
    masks = two_walkers(video)
    for own, box in zip(masks, ((160, 60, 290, 150), (20, 40, 100, 110)), strict=True):
        subject = subject_of(Clip(str(video), box=box, mirror=True))
        assert iou(subject, [mask[:, ::-1] for mask in own]).min() > 0.8
    matte = write_mattes(tmp_path / "given", masks[0])
    given = subject_of(Clip(str(video), matte=matte, mirror=True))
    assert iou(given, [mask[:, ::-1] for mask in masks[0]]).min() > 0.98


def test_box_stands_in_for_motion(tmp_path: Path) -> None:
    back = photo()
    masks = film(tmp_path / "still.mp4", lambda frame: back, lambda frame: (150, 90), frames=12)
    x, y, width, height = cv2.boundingRect((masks[0] >= 0.5).astype(np.uint8))
    subject = subject_of(Clip(str(tmp_path / "still.mp4"), box=(x - 6, y - 6, x + width + 6, y + height + 6)))
    assert subject.source == "grabcut"
    assert iou(subject, masks).mean() > 0.6


@pytest.mark.parametrize("box", [None, (20, 20, 60, 60)])
def test_nothing_to_be_found(tmp_path: Path, box: tuple[float, float, float, float] | None) -> None:
    write_video(tmp_path / "blank.mp4", [np.full((*SIZE, 3), 200, np.uint8)] * 6, 25.0)
    with pytest.raises(UserError, match="No subject was found in .*blank.mp4': draw the subject box .*, or give a matte file"):
        subject_of(Clip(str(tmp_path / "blank.mp4"), box=box))


@pytest.mark.parametrize(
    ("swing", "colours"),
    [
        pytest.param(1.0, ((70, 90, 160), (60, 70, 120)), id="in place"),
        pytest.param(0.4, ((70, 90, 160), (60, 70, 120)), id="nodding"),
        pytest.param(0.0, ((70, 90, 160), (60, 70, 120)), id="motionless"),
        pytest.param(1.0, ((122, 82, 48), (105, 66, 36)), id="browns near the ground's"),
        pytest.param(1.0, ((215, 205, 190), (120, 70, 40)), id="pale and brown"),
    ],
)
def test_subject_in_place_outdoors(tmp_path: Path, swing: float, colours: tuple[tuple[float, float, float], ...]) -> None:
    masks = outdoor_film(tmp_path / "outdoors.mp4", swing, colours)
    subject = subject_of(Clip(str(tmp_path / "outdoors.mp4")))
    assert subject.source == "scenery"
    assert iou(subject, masks).min() > 0.8
    assert np.median(box_errors(subject, masks)) <= 6, "the shadow is no part of the subject"


def test_sky_and_ground_are_no_uniform_backdrop() -> None:
    sandy = outdoors(ground=(196, 186, 168))  # the haze above the horizon has nearly the ground's colour
    sandy[: round(0.12 * SIZE[0])] = (178, 190, 200)
    assert find_uniform(np.repeat(sandy[None].astype(np.uint8), 4, axis=0)) is None


def test_scenery_is_not_seen_in_other_images() -> None:
    assert find_scenery(np.stack([painted(walker(k, 175, 92), 175, 92, photo()) for k in range(8)])) is None
    pans = [painted(walker(k, 175, 92), 175, 92, panning(k)) for k in range(8)]
    assert find_scenery(np.stack(pans)) is None
    assert find_scenery(np.repeat(outdoors()[None].astype(np.uint8), 4, axis=0)) is None, "nobody is there"


def test_large_videos_keep_small_mattes(tmp_path: Path) -> None:
    images = []
    for frame in range(4):
        mask = cv2.resize(walker(frame, 150, 90), (1280, 720))
        images.append(painted(mask, 600, 360, np.full((720, 1280, 3), 250, np.float32)))
    write_video(tmp_path / "large.mp4", images, 25.0)
    subject = subject_of(Clip(str(tmp_path / "large.mp4")))
    assert subject.matte(0).shape == (720, 1280) and subject.matte(0).dtype == np.uint8
    stored = cv2.imdecode(np.frombuffer(subject.mattes[0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.shape == (360, 640)
    assert subject.boxes[:, 2].max() > 640


def test_isnet_on_key_frames(tmp_path: Path) -> None:
    """A walker that the camera follows; seven frames are two looks at whole frames. The matte goes along between them."""

    def place(frame: int) -> tuple[float, float]:
        return 150 + 3 * frame, 90

    masks = film(tmp_path / "pan.mp4", panning, place, frames=7)
    subject, progress = found(Clip(str(tmp_path / "pan.mp4")), isnet="")
    assert subject.source == "isnet" and subject.note == "" and not subject.others
    assert iou(subject, masks).min() > 0.7
    assert progress[-1] == (7, 7)


def test_a_later_box_chooses_among_subjects_before_a_backdrop(tmp_path: Path) -> None:
    masks = two_walkers(tmp_path / "two.mp4")
    x, y, width, height = cv2.boundingRect((masks[1][15] >= 0.5).astype(np.uint8))
    clip = Clip(str(tmp_path / "two.mp4"), box=(x - 2, y - 2, x + width + 2, y + height + 2), box_time=15 / 25)
    subject = subject_of(clip)
    assert subject.source == "uniform"
    assert iou(subject, masks[1]).min() > 0.7
    with pytest.raises(UserError, match="was drawn at 3 s, outside the trim range"):
        Clip(clip.path, end=2.0, box=clip.box, box_time=3.0)


def test_of_several_shots_the_longest_or_that_of_the_box(tmp_path: Path) -> None:
    white, green = flat((250, 250, 250)), flat((40, 200, 60))
    masks = [walker(frame, *walk(frame)) for frame in range(40)]
    images = [painted(mask, *walk(k), (white if k < 26 else green)(k)) for k, mask in enumerate(masks)]
    write_video(tmp_path / "cut.mp4", images, 25.0)
    clip = Clip(str(tmp_path / "cut.mp4"))
    first = subject_of(clip)
    assert len(first.times) == 26 and iou(first, masks[:26]).min() > 0.85
    assert first.note.startswith("The video has 2 shots: number 1 was captured, the longest, from 0.00 to 1.02 seconds.")
    second = subject_of(Clip(clip.path, box=(100, 20, 320, 170), box_time=1.4))
    assert len(second.times) == 14 and iou(second, masks[26:]).min() > 0.85
    assert second.clip is not None and second.clip.start == pytest.approx(1.02) and second.times[0] == pytest.approx(0.02)
    assert "number 2 was captured, the one with the subject box" in second.note


def test_given_mattes_are_not_cut_down_to_a_shot(tmp_path: Path) -> None:
    masks = [walker(frame, *walk(frame)) for frame in range(30)]
    backs = (flat((250, 250, 250)), flat((40, 200, 60)))
    write_video(tmp_path / "cut.mp4", [painted(m, *walk(k), backs[k >= 18](k)) for k, m in enumerate(masks)], 25.0)
    given = Clip(str(tmp_path / "cut.mp4"), start=0.4, matte=write_mattes(tmp_path / "range", masks[10:]))
    subject = subject_of(given)
    assert len(subject.times) == 20 and subject.note == "" and iou(subject, masks[10:]).min() > 0.95

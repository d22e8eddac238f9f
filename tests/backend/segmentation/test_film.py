"""One subject over time: films of coloured walkers before grey, and a network made up for the test that takes all that is coloured."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from anyrig.backend.segmentation.film import STEP, Film, Follower, Request
from anyrig.backend.segmentation.sightings import Candidate, choose_labels
from anyrig.backend.segmentation.track import decode_matte
from anyrig.tests.backend.outdoor import SIZE, noise_texture, walker

RED, BLUE, GREEN = (190, 60, 40), (40, 70, 190), (40, 160, 60)

Film3 = tuple[list[np.ndarray], list[np.ndarray]]  # images and the true masks


def grey_ground(shift: float = 0.0) -> np.ndarray:
    wide = noise_texture(np.random.default_rng(1), (SIZE[0], 2 * SIZE[1]), 9, 60, 200).mean(axis=-1)
    motion = np.float32([[1, 0, -shift], [0, 1, 0]])
    return np.repeat(cv2.warpAffine(wide, motion, SIZE[::-1])[..., None], 3, axis=-1)


def painted(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int], x: float = 0.0) -> np.ndarray:
    """The image with a patterned shape over it; the pattern moves with x."""
    stripes = 0.75 + 0.25 * np.sin((np.arange(SIZE[1]) - x)[None, :, None] * 0.35)
    return mask[..., None] * np.float32(colour) * stripes + (1 - mask[..., None]) * image


def coloured(image: np.ndarray) -> np.ndarray:
    """The network: all that has a colour."""
    spread = image.max(axis=-1).astype(int) - image.min(axis=-1)
    return np.where(spread > 25, 255, 0).astype(np.uint8)


def follow(images: list[np.ndarray], find: Callable[[np.ndarray], np.ndarray] = coloured, request: Request | None = None) -> Film:
    follower = Follower(find, SIZE[::-1], STEP, request)
    for index, image in enumerate(images):
        follower.add(index / 25, np.clip(image, 0, 255).astype(np.uint8))
    return follower.finish()


def subject_masks(film: Film) -> tuple[list[np.ndarray], list[Candidate]]:
    chosen, others = choose_labels(film.sightings, film.labeller.joined, film.labeller.met, film.chosen)
    shown = zip(film.mattes, film.labels, strict=True)
    return [(decode_matte(m) >= 128) & np.isin(decode_matte(k), list(chosen)) for m, k in shown], others


def overlaps(found: list[np.ndarray], truth: list[np.ndarray]) -> np.ndarray:
    return np.array([((a & (b >= 0.5)).sum() / max((a | (b >= 0.5)).sum(), 1)) for a, b in zip(found, truth, strict=True)])


def test_between_key_frames_the_matte_goes_along() -> None:
    truth = [walker(k, 90 + 3 * k, 90) for k in range(3 * STEP + 3)]
    film = follow([painted(grey_ground(2.0 * k), mask, RED, 3.0 * k) for k, mask in enumerate(truth)])
    found, others = subject_masks(film)
    assert film.keys < len(truth) / 2, "most frames are carried"
    assert overlaps(found, truth).min() > 0.75 and overlaps(found, truth).mean() > 0.85
    assert not others
    assert len(film.times) == len(truth) and film.times[-1] == (len(truth) - 1) / 25


def crossing(frames: int = 40) -> Film3:
    """A large red animal walks to the right, a smaller blue one to the left and behind it."""
    images, truth = [], []
    for k in range(frames):
        small = walker(k, 270 - 5 * k, 80, scale=0.7)
        large = walker(k, 80 + 3 * k, 95)
        images.append(painted(painted(grey_ground(), small, BLUE, -5 * k), large, RED, 3 * k))
        truth.append(large)
    return images, truth


def test_two_animals_that_cross_stay_two() -> None:
    images, truth = crossing()
    found, others = subject_masks(follow(images))
    values = overlaps(found, truth)
    assert values[:8].min() > 0.8 and values[-8:].min() > 0.8, "the same animal before and after"
    assert np.median(values) > 0.75
    assert len(others) == 1 and others[0].box[2] - others[0].box[0] < 90, "the small one is told"


def test_a_box_on_a_later_frame_says_which() -> None:
    images, large = crossing()
    truth = [np.where(mask >= 0.5, 0, walker(k, 270 - 5 * k, 80, scale=0.7)) for k, mask in enumerate(large)]
    x, y, width, height = cv2.boundingRect((truth[36] >= 0.5).astype(np.uint8))
    film = follow(images, request=Request((x - 3, y - 3, x + width + 3, y + height + 3), 36 / 25))
    values = overlaps(subject_masks(film)[0], truth)
    assert values[-5:].min() > 0.7 and values[:8].min() > 0.7


def test_a_person_with_a_dog() -> None:
    """Now and then the two touch. The larger one is the subject, and the dog is no part of it."""
    images, truth = [], []
    for k in range(48):
        x = 70 + 3.5 * k
        person = np.zeros(SIZE, np.uint8)
        cv2.ellipse(person, (round(x), 80), (16, 45), 0, 0, 360, 255, -1)
        cv2.circle(person, (round(x), 28), 12, 255, -1)
        person = person.astype(np.float32) / 255
        dog = walker(k, x + 62 + 14 * np.sin(0.3 * k), 130, scale=0.55)
        images.append(painted(painted(grey_ground(), dog, BLUE, x), person, RED, x))
        truth.append(person)
    values = overlaps(subject_masks(follow(images))[0], truth)
    assert np.median(values) > 0.85 and (values > 0.6).mean() > 0.9


def test_a_crowd_behind_a_dancer_is_no_part_of_the_dancer() -> None:
    rng, calls = np.random.default_rng(3), iter(range(1000))
    images, truth = [], []
    for k in range(48):
        truth.append(walker(k, 160 + 6 * np.sin(0.4 * k), 95))
        images.append(painted(grey_ground(), truth[-1], RED, 6 * np.sin(0.4 * k)))

    def fickle(image: np.ndarray) -> np.ndarray:
        """On every third key frame a part of the crowd too, joined to the dancer."""
        matte = coloured(image)
        if next(calls) % 3 == 2:
            x = int(rng.integers(200, 260))
            cv2.rectangle(matte, (170, 20), (x, 85), 255, -1)
        return matte

    values = overlaps(subject_masks(follow(images, fickle))[0], truth)
    assert np.median(values) > 0.85 and (values > 0.7).mean() > 0.85


def test_a_fence_in_front_cuts_no_one_up() -> None:
    images, truth = [], []
    for k in range(40):
        mask = walker(k, 80 + 4 * k, 95)
        mask[:, 10::28] = mask[:, 11::28] = mask[:, 12::28] = mask[:, 13::28] = 0
        images.append(painted(grey_ground(), mask, RED, 4 * k))
        images[-1][:, 10::28] = images[-1][:, 11::28] = images[-1][:, 12::28] = images[-1][:, 13::28] = 90
        truth.append(mask)
    values = overlaps(subject_masks(follow(images))[0], truth)
    assert np.median(values) > 0.75 and values.min() > 0.55


def test_who_leaves_is_found_again_and_a_bench_is_not_taken_for_it() -> None:
    images, truth, bench = [], [], np.zeros(SIZE, np.float32)
    bench[120:150, 20:110] = 1
    for k in range(80):
        x = 160 + 6 * k if k < 32 else 1000 if k < 48 else 420 - 6 * (k - 48)
        truth.append(walker(k, x, 80))
        images.append(painted(painted(grey_ground(), bench, GREEN), truth[-1], RED, x))
    found, _ = subject_masks(follow(images))
    away = np.array([(mask >= 0.5).sum() < 20 for mask in truth])
    assert overlaps(found, truth)[:16].min() > 0.75 and overlaps(found, truth)[-16:].min() > 0.75
    assert max(mask.sum() for mask, gone in zip(found, away, strict=True) if gone) < 200, "nobody is there"


def test_a_second_look_when_the_network_takes_something_else() -> None:
    rock, calls = np.zeros(SIZE, np.float32), iter(range(1000))
    rock[130:170, 250:310] = 1
    truth = [walker(k, 90 + 2 * k, 80) for k in range(40)]
    images = [painted(painted(grey_ground(), rock, GREEN), mask, RED, 2 * k) for k, mask in enumerate(truth)]

    def distracted(image: np.ndarray) -> np.ndarray:
        """In the whole third key frame it sees only the rock; in a crop it sees what is there."""
        matte = coloured(image)
        if image.shape[:2] == SIZE and next(calls) == 2:
            matte[:, :240] = 0
        return matte

    assert overlaps(subject_masks(follow(images, distracted))[0], truth).min() > 0.7


def test_what_moves_in_the_middle_comes_before_what_lies_there() -> None:
    sofa = np.zeros(SIZE, np.float32)
    sofa[110:170, 10:120] = 1
    truth = [walker(k, 190 + 2 * np.sin(k), 70) for k in range(24)]
    images = [painted(painted(grey_ground(3 * k), sofa, GREEN, -3 * k), mask, RED) for k, mask in enumerate(truth)]
    assert overlaps(subject_masks(follow(images))[0], truth).min() > 0.7


def test_nothing_to_see() -> None:
    film = follow([grey_ground()] * 10)
    assert choose_labels(film.sightings, film.labeller.joined, film.labeller.met) == (set(), [])
    assert all(not decode_matte(matte).any() for matte in film.mattes)


@pytest.mark.parametrize("frames", [1, 2, STEP, STEP + 1])
def test_any_number_of_frames(frames: int) -> None:
    truth = [walker(k, 160, 90) for k in range(frames)]
    film = follow([painted(grey_ground(), mask, RED) for mask in truth])
    assert len(film.times) == len(film.mattes) == len(film.labels) == len(film.agreement) == frames
    assert overlaps(subject_masks(film)[0], truth).min() > 0.8


def test_the_memory_does_not_grow_with_the_length() -> None:
    follower = Follower(coloured, SIZE[::-1])
    mask = walker(0, 160, 90)
    image = painted(grey_ground(), mask, RED).astype(np.uint8)
    held = []
    for k in range(120):
        follower.add(k / 25, image)
        held.append(follower.frames_in_memory)
    assert max(held[40:]) == max(held[40:80]) <= 50


def test_one_wrong_key_frame_is_overruled_by_its_neighbours() -> None:
    truth, calls = [walker(k, 90 + 2 * k, 80) for k in range(40)], iter(range(1000))
    images = [painted(grey_ground(), mask, RED, 2 * k) for k, mask in enumerate(truth)]

    def dazzled(image: np.ndarray) -> np.ndarray:
        """The third key frame shows the subject with half of the landscape."""
        matte = coloured(image)
        if next(calls) == 2:
            matte[60:, 30:200] = 255
        return matte

    assert overlaps(subject_masks(follow(images, dazzled))[0], truth).min() > 0.75

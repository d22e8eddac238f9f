"""The camera that lays a rig on its footage: found again from boxes alone, with edges cut off and the subject lost."""

import numpy as np
import pytest
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.geometry.fit_camera import drawn_box, fit_boxes, fit_camera, outermost

SIZE = (640, 360)
POINTS = np.random.default_rng(3).uniform(-1, 1, (400, 3)) * [0.4, 1.0, 0.6]
TIMES = np.arange(40) / 30


def moving(frames: int = 40) -> list[np.ndarray]:
    """A cloud of points that stretches and sways."""
    return [POINTS * (1 + 0.1 * np.sin(0.3 * i + np.arange(3))) for i in range(frames)]


def film(
    clouds: list[np.ndarray], distance: np.ndarray, aside: np.ndarray, focal: float = 900.0
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes in an image whose middle is shifted by `aside`, and the rotation of its camera."""
    rotation = Camera((0, 0, 0), 1.0, 0.8, 0.1).rotation
    boxes = [drawn_box(cloud, d, rotation, np.zeros(3), focal) for cloud, d in zip(clouds, distance, strict=True)]
    return np.array(boxes) + np.tile(aside, 2) + np.tile(np.array(SIZE) / 2, 2), rotation


def test_boxes_give_scale_and_shift() -> None:
    drawn = np.tile([-30.0, -50.0, 40.0, 60.0], (20, 1)) + np.random.default_rng(0).normal(0, 5, (20, 4))
    scale, shift = np.exp(np.linspace(0, 0.5, 20)), np.stack([np.linspace(-90, 80, 20), np.linspace(5, 9, 20)], axis=1)
    seen = scale[:, None] * drawn + np.tile(shift, 2) + np.tile(np.array(SIZE) / 2, 2)
    found = fit_boxes(drawn, seen, np.ones(20), SIZE)
    assert np.allclose(found[0], scale, rtol=1e-9) and np.allclose(found[1], shift, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_short_takes(frames: int) -> None:
    drawn = np.tile([-30.0, -50.0, 40.0, 60.0], (frames, 1))
    seen = 1.5 * drawn + np.tile(np.array(SIZE) / 2, 2)
    assert np.allclose(fit_boxes(drawn, seen, np.ones(frames), SIZE)[0], 1.5)


def test_edges_cut_off_by_the_image_do_not_shrink_the_rig() -> None:
    drawn = np.tile([-30.0, -50.0, 40.0, 60.0], (30, 1))
    shift = np.stack([np.linspace(0, 330, 30), np.zeros(30)], axis=1)  # it walks out of the image
    whole = 1.4 * drawn + np.tile(shift, 2) + np.tile(np.array(SIZE) / 2, 2)
    seen = np.clip(whole, 0, [SIZE[0], SIZE[1]] * 2)
    assert (seen != whole).any()
    scale, found = fit_boxes(drawn, seen, np.ones(30), SIZE)
    assert np.allclose(scale, 1.4, rtol=1e-6) and np.allclose(found, shift, atol=0.01)


def test_lost_frames_take_the_scale_of_their_neighbours() -> None:
    drawn = np.tile([-30.0, -50.0, 40.0, 60.0], (30, 1))
    seen = 1.4 * drawn + np.tile(np.array(SIZE) / 2, 2)
    confidence = np.ones(30)
    seen[10:14], confidence[10:14] = [300, 150, 310, 160], 0.0
    assert np.allclose(fit_boxes(drawn, seen, confidence, SIZE)[0], 1.4)
    # a subject that is cut off or lost all along still gets a finite answer
    assert np.isfinite(fit_boxes(drawn, seen, np.zeros(30), SIZE)[0]).all()


def test_the_camera_comes_nearer_as_the_subject_grows() -> None:
    clouds, distance = moving(), np.linspace(9.0, 5.0, 40)
    aside = np.stack([np.linspace(-120, 120, 40), np.linspace(-20, 30, 40)], axis=1)
    seen, rotation = film(clouds, distance, aside)
    turned = np.concatenate(clouds) @ rotation.T
    radius = np.linalg.norm(turned - (turned.min(0) + turned.max(0)) / 2, axis=1).max()
    view = fit_camera(clouds, seen, np.ones(40), TIMES, rotation, SIZE, float(np.median(distance) / radius))
    assert np.abs(view.distance / distance - 1).max() < 0.03 and abs(view.focal / 900 - 1) < 0.03
    positions, shifts = view.at(TIMES)
    for index in (0, 20, 39):
        pixels = project(view.projection(positions[index], shifts[index]), clouds[index])
        box = np.array([*pixels.min(0), *pixels.max(0)])
        assert np.abs(box - seen[index]).max() < 3.0, index


def test_the_view_is_held_before_and_after_the_take() -> None:
    clouds = moving()
    seen, rotation = film(clouds, np.linspace(9.0, 5.0, 40), np.zeros((40, 2)))
    view = fit_camera(clouds, seen, np.ones(40), TIMES, rotation, SIZE)
    positions, _ = view.at(np.array([-5.0, 0.0, TIMES[-1], 99.0]))
    assert np.array_equal(positions[0], positions[1]) and np.array_equal(positions[2], positions[3])


def test_the_outermost_points_have_the_same_boxes() -> None:
    rotation, few = Camera((0, 0, 0), 1.0, 2.1, 0.4).rotation, outermost(POINTS)
    assert len(few) < len(POINTS) / 2
    boxes = [drawn_box(points, 4.0, rotation, np.zeros(3), 500.0) for points in (POINTS, few)]
    assert np.allclose(boxes[0], boxes[1])
    flat = POINTS * [1, 1, 0]
    assert np.array_equal(outermost(flat), flat) and len(outermost(POINTS[:2])) == 2

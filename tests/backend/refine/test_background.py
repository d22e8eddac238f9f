"""How the camera moves: a textured wall behind a subject that moves otherwise."""

import cv2
import numpy as np
from anyrig.backend.refine.background import Background, Seen

WIDTH, HEIGHT, FRAMES = 320, 180, 12


def seen(pan: float, zoom: float = 0.0, texture: bool = True) -> Seen:
    """What is seen of a wall that goes to the left by `pan` pixels a frame, with a subject that goes to the right."""
    wall = np.random.default_rng(0).integers(0, 255, (60, 120), np.uint8) if texture else np.full((60, 120), 128, np.uint8)
    wall = cv2.resize(wall, (720, 360), interpolation=cv2.INTER_CUBIC)
    background = Background(pixel=4.0)
    for frame in range(FRAMES):
        scale = np.exp(zoom * frame / FRAMES)
        view = np.array([[scale, 0, -40 - pan * frame], [0, scale, -40]])
        image = np.repeat(cv2.warpAffine(wall, view, (WIDTH, HEIGHT))[..., None], 3, axis=2)
        matte = np.zeros((HEIGHT, WIDTH), np.uint8)
        matte[60:140, 60 + 8 * frame : 110 + 8 * frame] = 255
        image[matte > 0] = (200, 40, 40)
        background.add(matte, image)
    times = np.arange(2 * FRAMES - 1) / 48
    return background.seen(times[::2], times)


def test_a_pan_is_told_in_pixels_of_the_video() -> None:
    found = seen(5.0)
    assert found.camera == "moves" and found.size == [4 * WIDTH, 4 * HEIGHT]
    shift = found.background[:, 0, 2]
    assert np.allclose(shift, 4 * 2.5 * np.arange(2 * FRAMES - 1), atol=4)
    assert np.allclose(found.background[:, :, :2], np.eye(2), atol=0.01)


def test_a_zoom_is_told() -> None:
    found = seen(0.0, zoom=0.3)
    scale = np.sqrt(np.linalg.det(found.background[-1, :, :2]))
    assert found.camera == "moves" and abs(np.log(scale) + 0.3 * (FRAMES - 1) / FRAMES) < 0.02


def test_a_camera_that_stands_is_told() -> None:
    found = seen(0.0)
    assert found.camera == "still" and not len(found.background)


def test_what_cannot_be_told_is_said() -> None:
    assert seen(5.0, texture=False).camera == "unknown"
    assert Background(1.0).seen(np.arange(3.0), np.arange(3.0)).camera == "unknown"

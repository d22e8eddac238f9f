"""The path: a walker with a known way, filmed by a camera that stands, pans or zooms."""

from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.arrays import Array
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, view_rotation
from anyrig.backend.motion.feet import size_of
from anyrig.backend.motion.motion import Motion
from anyrig.backend.motion.trajectory import MODES, path_by_boxes, with_travel
from anyrig.backend.rig.rig import Rig

from .walkers import hopper

SIZE = (1280, 720)
FPS = 30


def filmed(way: Array, pan: float = 0.0, zoom: float = 0.0, jump: float = 0.0, noise: float = 0.0) -> tuple[Rig, Motion, Array]:
    """A hopper that goes `way` (2,) units in three seconds over the ground, as a camera films it. -> the rig, its take, its travel (T, 3).

    pan: radians that the camera turns to follow it. zoom: logarithm of how much its lens lengthens. jump: height in the middle of the clip.
    noise: pixels, and percent of the scale.
    """
    rig, random = hopper(), np.random.default_rng(0)
    times = np.arange(3 * FPS) / FPS
    clock = times / times[-1]
    height = jump * np.clip(1 - ((clock - 0.5) / 0.12) ** 2, 0, None)
    travel = np.concatenate([clock[:, None] * way, height[:, None]], axis=1)
    camera = Camera((0.0, 0.0, 1.0), 8.0, 0.5, 0.1, width=SIZE[0], height=SIZE[1])
    root = rig.heads[0] + travel
    view = (root - camera.position) @ camera.rotation.T
    # a camera that turns to the right by a sees a point c at R_y(a) c
    angles, lens = pan * clock, camera.focal * np.exp(zoom * clock)
    pixels, scales = np.zeros((len(times), 2)), np.zeros(len(times))
    background = np.zeros((len(times), 2, 3))
    around = np.stack(
        [x.ravel() for x in np.meshgrid(np.linspace(-0.36, 0.36, 21), np.linspace(-0.2, 0.2, 11))] + [-np.ones(231)], axis=1
    )
    for frame, (angle, focal) in enumerate(zip(angles, lens, strict=True)):
        turn = view_rotation(-angle, 0.0)
        pixels[frame], scales[frame] = _seen(turn @ view[frame], focal)
        background[frame] = np.eye(2, 3)
        if frame:  # the far background from this frame to the one before, then on to the first
            step = view_rotation(angles[frame - 1] - angle, 0.0)
            was = _seen(around @ step, lens[frame - 1])[0]
            now = _seen(around, focal)[0]
            map_back = np.linalg.lstsq(np.c_[now, np.ones(len(now))], was, rcond=None)[0].T
            background[frame] = background[frame - 1] @ np.vstack([map_back, [0, 0, 1]])
    pixels += noise * random.normal(size=pixels.shape)
    scales *= 1 + noise / 100 * random.normal(size=scales.shape)
    count, joints = len(times), len(rig.names)
    provenance = {"azimuth": 0.5, "refine": {"azimuth": 0.5, "pitch": 0.1, "picture": list(SIZE)}}
    still = not pan and not zoom
    motion = Motion(
        rig.names, times, np.tile([1.0, 0, 0, 0], (count, joints, 1)), np.tile(rig.heads - rig.heads[0], (count, 1, 1)),
        np.zeros((count, 4)), np.ones((count, joints)), provenance, path=np.concatenate([pixels, scales[:, None]], axis=1),
        background=np.zeros((0, 2, 3)) if still else background,
    )  # fmt: skip
    return rig, motion, travel


def _seen(points: Array, focal: float) -> tuple[Array, Array]:
    """The pixels (..., 2) and the scales (...) of points (..., 3) in the camera's frame."""
    scale = focal / -points[..., 2]
    return np.array(SIZE) / 2 + scale[..., None] * points[..., :2] * (1, -1), scale


def error(found: Array, true: Array) -> float:
    """The greatest distance over the ground, in percent of the whole way."""
    return 100 * float(np.linalg.norm((found - true)[:, :2], axis=1).max() / np.linalg.norm(true[-1, :2]))


@pytest.mark.parametrize("pan", [0.0, 0.2, -0.2, 0.5])
@pytest.mark.parametrize("way", [(1.5, 0.0), (1.2, -0.9), (0.0, 1.5)])
def test_the_way_is_found(way: tuple[float, float], pan: float) -> None:
    rig, motion, true = filmed(np.array(way), pan)
    assert error(with_travel(rig, motion, "ground").travel, true) < 2
    assert error(with_travel(rig, motion, "free").travel, true) < 2


def test_a_zoom_is_no_way() -> None:
    rig, motion, true = filmed(np.array([1.0, 0.5]), zoom=0.5)
    assert error(with_travel(rig, motion, "ground").travel, true) < 2
    left_in = with_travel(rig, replace(motion, background=np.zeros((0, 2, 3))), "ground").travel
    assert error(left_in, true) > 100


@pytest.mark.parametrize("pan", [0.0, 0.3])
def test_noise_does_not_carry_it_away(pan: float) -> None:
    rig, motion, true = filmed(np.array([1.5, 0.5]), pan, noise=1.0)
    found = with_travel(rig, motion, "ground").travel
    drift = np.polyfit(motion.times, (found - true)[:, :2], 1)[0]
    assert error(found, true) < 5 and np.linalg.norm(drift) < 0.02 * size_of(rig)


@pytest.mark.parametrize("mode", ["ground", "in place"])
def test_a_jump_has_its_height(mode: str) -> None:
    rig, motion, true = filmed(np.array([1.0, 0.0]), jump=0.5)
    found = with_travel(rig, motion, mode).travel
    assert found[:, 2].max() == pytest.approx(0.5, rel=0.15)
    ground = true[:, 2] == 0
    assert np.abs(found[ground, 2]).max() < 0.05
    assert mode == "ground" or not found[:, :2].any()


def test_the_camera_left_in_follows_the_picture() -> None:
    rig, motion, _ = filmed(np.array([1.0, 0.0]), pan=0.1)
    found = with_travel(rig, motion, "picture").travel
    across = found @ np.array([np.cos(0.5), np.sin(0.5), 0.0])
    # the camera looks from azimuth 0.5, so that (cos, sin) is to its right
    assert across[-1] == pytest.approx(
        (motion.path[-1, 0] - motion.path[0, 0]) / np.exp(np.log(motion.path[:, 2]).mean()), rel=0.02
    )


def test_strength_0_and_as_captured_are_the_identity() -> None:
    rig, motion, _ = filmed(np.array([1.0, 0.0]))
    assert with_travel(rig, motion, "free", 0.0) is motion and with_travel(rig, motion, MODES[0]) is motion
    whole = with_travel(rig, motion, "free").travel
    assert np.allclose(with_travel(rig, motion, "free", 0.5).travel, whole / 2)


def test_a_subject_that_stands_goes_nowhere() -> None:
    rig, motion, _ = filmed(np.zeros(2))
    for mode in MODES[1:]:
        assert np.abs(with_travel(rig, motion, mode).travel).max() < 1e-9


def test_boxes_do_for_a_take_that_was_not_refined() -> None:
    rig, motion, true = filmed(np.array([1.5, 0.0]))
    heads = np.concatenate([rig.heads, rig.tails]) - rig.heads[0]
    flat = heads @ Camera((0, 0, 0), 1.0, 0.5, 0.1).rotation.T
    low, high = flat[:, :2].min(0), flat[:, :2].max(0)
    scale, place = motion.path[:, 2:], motion.path[:, :2]
    corners = [place + scale * (low[0], -high[1]), place + scale * (high[0], -low[1])]
    raw = replace(motion, path=np.zeros((0, 3)), boxes=np.concatenate(corners, axis=1))
    assert np.allclose(path_by_boxes(rig, raw), motion.path)
    assert error(with_travel(rig, raw, "ground").travel, true) < 2
    with pytest.raises(UserError, match="where the subject was"):
        with_travel(rig, replace(raw, boxes=np.zeros((len(raw), 4))), "free")
    with pytest.raises(UserError, match="Path 'up' is unknown"):
        with_travel(rig, motion, "up")


def test_the_frame_rate_does_not_matter() -> None:
    rig, motion, true = filmed(np.array([1.5, 0.5]), noise=0.0)
    tracks = ("times", "rotations", "positions", "boxes", "confidence", "path")
    half = replace(motion, **{key: getattr(motion, key)[::2] for key in tracks})
    found, every = (with_travel(rig, each, "ground").travel for each in (half, motion))
    assert np.abs(found - every[::2]).max() < 0.02 * np.linalg.norm(true[-1])

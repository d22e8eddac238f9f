"""The overlap of a take with its video: silhouettes of known shapes at unknown places and scales."""

import cv2
import numpy as np
import pytest
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.refine.overlap import (
    crop_matte,
    draw_silhouettes,
    fitted_overlap,
    mask_overlap,
    posed_points,
    take_overlap,
)
from anyrig.backend.rig.point_cloud import Surface
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import network_axes
from hypothesis import given, settings
from hypothesis import strategies as st


def ell(count: int = 6000) -> np.ndarray:
    """(P, 2) points of the letter L, two high and one wide, y up."""
    random = np.random.default_rng(0)
    upright = random.uniform((0, 0), (0.4, 2), (count, 2))
    foot = random.uniform((0, 0), (1, 0.4), (count // 2, 2))
    return np.concatenate([upright, foot])


def matte_of(left: float, bottom: float, scale: float, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """The same letter, drawn as polygons at a place of the image (pixels, y down) and so many pixels a unit."""
    corners = np.array([[0, 0], [1, 0], [1, 0.4], [0.4, 0.4], [0.4, 2], [0, 2]]) * (scale, -scale) + (left, bottom)
    return cv2.fillPoly(np.zeros(size, np.uint8), [np.rint(corners).astype(np.int32)], 255)


@settings(max_examples=20, deadline=None)
@given(st.floats(10, 200), st.floats(150, 230), st.floats(20, 70))
def test_the_same_shape_overlaps_wherever_it_is_and_however_large(left: float, bottom: float, scale: float) -> None:
    assert take_overlap(ell()[None], [matte_of(left, bottom, scale)])[0] > 0.93


def test_another_shape_overlaps_less() -> None:
    mirrored = ell() * (-1, 1)
    assert take_overlap(mirrored[None], [matte_of(100, 200, 50)])[0] < 0.8


def test_nothing_overlaps_nothing() -> None:
    empty = np.zeros((240, 320), np.uint8)
    assert take_overlap(ell()[None], [empty]) == [0.0] and not crop_matte(empty).any()
    assert mask_overlap(empty, empty) == 1.0 and mask_overlap(empty, ~empty) == 0.0


def test_place_and_scale_are_found_from_far_away() -> None:
    drawn = draw_silhouettes(ell()[None])[0]
    small = cv2.warpAffine(drawn, np.array([[0.5, 0, 50.0], [0, 0.5, 5.0]]), drawn.shape)
    assert fitted_overlap(drawn, np.where(small > 127, 255, 0).astype(np.uint8)) > 0.95


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_points_move_with_their_joints(angle: float) -> None:
    """A point on the far end of the second of two bones, both one unit long, turned about x by its joint."""
    rest = np.tile(np.eye(4), (2, 1, 1))
    rest[1, 2, 3] = 1
    nothing = np.zeros(2, bool)
    rig = Rig("arm", ("a", "b"), np.array([-1, 0]), rest, rest[:, :3, 3] + (0.0, 0, 1), nothing, nothing)
    point, all_of_b = np.array([[0, 0, 2.0]]), np.array([[1.0, 0, 0, 0]])
    surface = Surface(point, point, point, np.array([[1, 0, 0, 0]]), all_of_b)
    turned = np.stack([np.eye(3), axis_angle_to_matrix(np.array([1.0, 0, 0]), angle)])
    motion = Motion(
        ("a", "b"), np.zeros(1), matrix_to_quaternion(turned)[None], np.zeros((1, 2, 3)), np.zeros((1, 4)), np.ones((1, 2))
    )
    [[found]] = posed_points(rig, surface, motion)
    expected = np.array([0, -np.sin(angle), 1 + np.cos(angle)])
    assert np.allclose(found, network_axes(rig) @ expected)

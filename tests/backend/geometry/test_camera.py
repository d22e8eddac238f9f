"""A camera that holds points: they all are in its image, from every side at the same distance, and the margin is kept."""

import numpy as np
import pytest
from anyrig.backend.geometry.camera import frame_points, project


@pytest.mark.parametrize("margin", [1.05, 1.08, 1.1])
@pytest.mark.parametrize("fov", [0.3, 0.7])
def test_all_points_are_in_the_image_from_every_side(margin: float, fov: float) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 3)) * [0.3, 2.0, 1.0] + [5.0, -3.0, 0.5]
    cameras = [frame_points(points, azimuth, 0.2, 320, margin, fov) for azimuth in np.linspace(-3, 3, 7)]
    for camera in cameras:
        pixels = project(camera.projection, points)
        assert pixels.min() > 0 and pixels.max() < 320
        assert project(camera.projection, np.array(camera.target)) == pytest.approx([160, 160])
    assert len({camera.distance for camera in cameras}) == 1
    one = frame_points(points, 0.0, 0.2, 320, 1.0, fov)
    assert cameras[0].distance == pytest.approx(margin * one.distance)


def test_two_opposite_corners_stand_for_their_whole_box_and_a_single_point_has_a_camera() -> None:
    low, high = np.array([-1.0, 0.0, 2.0]), np.array([1.0, 4.0, 3.0])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (0, 4) for z in (2, 3)], np.float64)
    pair, box = (frame_points(points, 0.4, 0.0, 64) for points in (np.stack([low, high]), corners))
    assert pair.target == box.target and pair.distance == pytest.approx(box.distance)
    assert np.isfinite(frame_points(low[None], 0.0, 0.0, 64).projection).all()

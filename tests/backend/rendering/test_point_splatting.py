"""The point-splat renderer: geometry on the pixel, closed surfaces, skinning, and capsule bodies for any rig."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.geometry.rotations import Array, axis_angle_to_matrix
from anyrig.backend.rendering import point_splatting
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rig.point_cloud import Surface
from anyrig.backend.rig.rig import Rig
from torch import Tensor

UP = torch.tensor([0.0, 0.0, 1.0])
TOWARDS = torch.tensor([[[0.0, -1.0, 0.0]]])  # a normal that faces the front view


def projection_of(camera: Camera) -> Tensor:
    return torch.tensor(camera.projection, dtype=torch.float32)


def sphere(count: int, even: bool) -> Tensor:
    """(count, 3) unit vectors on a Fibonacci spiral, or at random."""
    if not even:
        return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(4)), dim=1)
    z = 1 - 2 * (torch.arange(count) + 0.5) / count
    turn = torch.arange(count) * np.pi * (3 - 5**0.5)
    return torch.stack([(1 - z * z).sqrt() * turn.cos(), (1 - z * z).sqrt() * turn.sin(), z], dim=1)


def make_rig(heads: list[list[float]], parents: list[int], tails: list[list[float]], world: Array | None = None) -> Rig:
    rest = np.tile(np.eye(4), (len(heads), 1, 1))
    rest[:, :3, 3] = heads
    nothing = np.zeros(len(heads), bool)
    names = tuple(f"bone {i}" for i in range(len(heads)))
    return Rig("rig", names, np.array(parents), rest, np.array(tails), nothing, nothing, np.eye(3) if world is None else world)


def biped(world: Array | None = None) -> Rig:
    heads = [[0, 0, 1.0], [0, 0, 1.1], [0, 0, 1.5], [0.15, 0, 0.95], [0.15, 0, 0.5], [-0.15, 0, 0.95], [-0.15, 0, 0.5]]
    heads += [[0.2, 0, 1.4], [-0.2, 0, 1.4]]
    tails = [[0, 0, 1.1], [0, 0, 1.5], [0, 0, 1.75], [0.15, 0, 0.5], [0.15, -0.05, 0], [-0.15, 0, 0.5], [-0.15, -0.05, 0]]
    tails += [[0.7, -0.2, 1.3], [-0.7, -0.2, 1.3]]
    return make_rig(heads, [-1, 0, 1, 0, 3, 0, 5, 1, 1], tails, world)


def bent(rig: Rig, frames: int, seed: int = 0) -> Array:
    """(frames, J, 4, 4): every joint turned and moved at random, slightly."""
    rng = np.random.default_rng(seed)
    pose = np.tile(np.array(rig.rest), (frames, 1, 1, 1))
    shape = pose.shape[:2]
    pose[..., :3, :3] = axis_angle_to_matrix(rng.normal(size=(*shape, 3)), rng.normal(0, 0.2, shape))
    pose[..., :3, 3] += rng.normal(0, 0.03, (*shape, 3))
    return pose


@pytest.mark.parametrize("azimuth,pitch", [(0.0, 0.0), (0.8, 0.3), (-2.5, -0.2)])
def test_a_point_lands_where_the_camera_projects_it(azimuth: float, pitch: float) -> None:
    camera = Camera((0.1, 0.2, 0.3), 4, azimuth, pitch, width=120, height=90)
    point, colour = np.array([0.4, -0.1, 0.6]), torch.tensor([[0.9, 0.1, 0.1]])
    column, row = np.floor(project(camera.projection, point)).astype(int)
    place = torch.tensor(point, dtype=torch.float32)[None, None]
    image = point_splatting.render(place, TOWARDS, colour, projection_of(camera), UP, 90, 120, spacing=torch.tensor([1e-4]))
    assert image.shape == (1, 90, 120, 4)
    assert image[0, row, column, 3] == 1
    assert image[0, row, column, 0] > 2 * image[0, row, column, 1]
    covered = image[0, ..., 3].nonzero().float().mean(0) + 0.5
    assert (covered - torch.tensor(project(camera.projection, point)[::-1].copy())).abs().max() < 0.75


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearer_point_wins(order: list[int]) -> None:
    camera = Camera((0, 0, 0), 4, width=64, height=64)
    points = torch.tensor([[[0.0, -0.5, 0.0], [0.0, 0.5, 0.0]]])[:, order]
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])[order]
    image = point_splatting.render(
        points, TOWARDS.expand(1, 2, 3), colours, projection_of(camera), -UP, 64, 64, spacing=torch.tensor([0.1, 0.1])
    )
    assert image[0, 32, 32, 0] > 0.4
    assert image[0, 32, 32, 2] < 0.3


def test_a_point_that_faces_away_loses_against_one_in_the_same_place() -> None:
    camera = Camera((0, 0, 0), 4, width=64, height=64)
    normals = torch.cat([-TOWARDS, TOWARDS], dim=1)
    colours = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    image = point_splatting.render(
        torch.zeros(1, 2, 3), normals, colours, projection_of(camera), UP, 64, 64, spacing=torch.tensor([0.1, 0.1])
    )
    assert image[0, 32, 32, 0] > image[0, 32, 32, 2]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_sphere_is_closed_and_has_the_right_outline(even: bool, samples: int) -> None:
    camera = Camera((0, 0, 0), 3.2, 0.4, 0.2, width=224, height=224)
    points = sphere(8000, even)[None]
    image = point_splatting.render(
        points, points, torch.full((8000, 3), 0.5), projection_of(camera), UP, 224, 224, samples=samples
    )[0, ..., 3]
    # the cone that touches a unit sphere from a distance d has the half angle asin(1 / d)
    outline = camera.focal / np.sqrt(camera.distance**2 - 1)
    centres = torch.arange(224) + 0.5 - 112
    radius = torch.hypot(centres[:, None], centres[None])
    assert (image[radius < outline - 1] == 1).all()
    assert (image[radius > outline + 1.5] == 0).all()
    assert abs(float(image.sum()) / (np.pi * outline**2) - 1) < 0.02


@pytest.mark.parametrize("even,most", [(True, 0), (False, 30)])
def test_a_closed_surface_hides_its_far_side(even: bool, most: int) -> None:
    """Random points may leave a void that is wider than a disc: at most 0.1 % of this one's 30,000 pixels."""
    camera = Camera((0, 0, 0), 3.2, width=224, height=224)
    points = sphere(8000, even)
    colours = torch.where(points[:, 1:2] < 0.25, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    image = point_splatting.render(points[None], points[None], colours, projection_of(camera), UP, 224, 224)[0]
    assert (image[..., 2] > image[..., 0]).sum() <= most


def test_light_falls_from_the_side_it_is_said_to_come_from() -> None:
    camera = Camera((0, 0, 0), 3.2, width=96, height=96)
    points = sphere(4000, True)[None].expand(2, -1, -1)
    light = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    image = point_splatting.render(points, points, torch.full((4000, 3), 0.6), projection_of(camera), light, 96, 96)
    above, below, right, left = (image[:, r, c, 0] for r, c in ((25, 48), (70, 48), (48, 70), (48, 25)))
    assert above[0] > below[0] + 0.1
    assert right[1] > left[1] + 0.1


def test_frames_are_independent_and_values_in_range() -> None:
    rig = biped()
    cloud = point_splatting.cloud_of(capsules(rig, 3000), rig.rest)
    points, normals = cloud.skin(torch.tensor(bent(rig, 3)))
    cameras = [Camera((0, 0, 0.9), 3, azimuth, width=80, height=60) for azimuth in (0, 1, 2)]
    projection = torch.stack([projection_of(camera) for camera in cameras])
    together = point_splatting.render(points, normals, cloud.colours, projection, UP, 60, 80, spacing=cloud.spacing, samples=2)
    assert together.dtype == torch.float32
    assert together.min() >= 0
    assert together.max() <= 1
    assert (together[..., :3][together[..., 3] == 0] == 0).all()
    for frame in range(3):
        one = slice(frame, frame + 1)
        alone = point_splatting.render(
            points[one], normals[one], cloud.colours, projection[one], UP, 60, 80, spacing=cloud.spacing, samples=2
        )
        assert torch.equal(alone, together[one])


def test_points_out_of_sight_are_left_out() -> None:
    points = sphere(500, True)[None]
    away = Camera((0, 20, 0), 4, np.pi, width=48, height=48)  # looks along -y from beyond: the sphere is in front
    behind = Camera((0, 20, 0), 4, 0.0, width=48, height=48)  # stands between the sphere and its target
    colours = torch.full((500, 3), 0.5)
    assert point_splatting.render(points, points, colours, projection_of(away), UP, 48, 48)[..., 3].sum() > 0
    assert point_splatting.render(points, points, colours, projection_of(behind), UP, 48, 48).sum() == 0
    aside = Camera((50, 0, 0), 4, width=48, height=48)
    assert point_splatting.render(points, points, colours, projection_of(aside), UP, 48, 48).sum() == 0
    inside = point_splatting.render(
        points, points, colours, projection_of(Camera((0, 0, 0), 0.5, width=48, height=48)), UP, 48, 48
    )
    assert torch.isfinite(inside).all()
    broken = points.clone()
    broken[0, 7] = torch.nan
    assert torch.isfinite(point_splatting.render(broken, points, colours, projection_of(away), UP, 48, 48)).all()


def test_a_surface_cut_by_the_edge_reaches_it() -> None:
    points = sphere(8000, True)[None]
    camera = Camera((0, 0, 0), 1.6, width=96, height=96)
    assert point_splatting.render(points, points, torch.ones(8000, 3), projection_of(camera), UP, 96, 96)[..., 3].min() == 1


def test_skinning_is_the_weighted_sum_of_what_the_joints_do() -> None:
    rig = biped()
    rng = np.random.default_rng(1)
    weights = rng.random((50, 4))
    surface = Surface(
        rng.normal(size=(50, 3)),
        np.tile([0.6, 0.0, 0.8], (50, 1)),
        rng.random((50, 3)),
        rng.integers(0, 9, (50, 4)),
        weights / weights.sum(1, keepdims=True),
    )
    pose = bent(rig, 4)
    points, normals = point_splatting.skin(surface, rig.rest, torch.tensor(pose))
    for frame in range(4):
        for index in range(50):
            blend = np.zeros((4, 4))
            for joint, weight in zip(surface.joints[index], surface.weights[index], strict=True):
                blend += weight * pose[frame, joint] @ np.linalg.inv(rig.rest[joint])
            np.testing.assert_allclose(points[frame, index], blend[:3, :3] @ surface.points[index] + blend[:3, 3], atol=2e-5)
            normal = blend[:3, :3] @ surface.normals[index]
            np.testing.assert_allclose(normals[frame, index], normal / np.linalg.norm(normal), atol=2e-5)


def test_a_surface_of_another_rig_is_refused() -> None:
    rig = biped()
    surface = capsules(rig, 100)
    with pytest.raises(UserError, match="joint 8, but the rig has 3"):
        point_splatting.cloud_of(surface, rig.rest[:3])


def test_spacing_is_the_side_of_a_points_share() -> None:
    points = sphere(4000, True)
    assert float(point_splatting.point_spacing(points, points).median()) == pytest.approx(np.sqrt(4 * np.pi / 4000), rel=0.1)
    doubled = torch.cat([points, points * 0.999])  # the inner side of a thin shell is not a neighbour
    both = point_splatting.point_spacing(doubled, torch.cat([points, -points]))
    assert float(both.median()) == pytest.approx(np.sqrt(4 * np.pi / 4000), rel=0.1)
    assert point_splatting.point_spacing(points[:1], points[:1]).tolist() == [0]


def test_a_turned_object_looks_like_a_turned_rig() -> None:
    world = axis_angle_to_matrix(np.array([0.3, -0.5, 0.8]), np.array(1.1))
    rig = biped(world)
    surface, pose = capsules(rig, 3000), bent(rig, 1)[0]
    turn = np.eye(4)
    turn[:3, :3] = world
    turned = replace(rig, rest=turn @ rig.rest, tails=rig.tails @ world.T, world=np.eye(3))
    moved = replace(surface, points=surface.points @ world.T, normals=surface.normals @ world.T)
    one = point_splatting.reference_view(rig, surface, pose, 0.7, size=128)
    two = point_splatting.reference_view(turned, moved, turn @ pose, 0.7, size=128)
    difference = np.abs(one.image.astype(int) - two.image).max(-1)
    assert (difference > 3).mean() < 0.005
    heads = pose[:, :3, 3]
    np.testing.assert_allclose(project(one.projection, heads), project(two.projection, heads @ world.T), atol=1e-6)


def test_references_show_the_pose_from_the_azimuth() -> None:
    rig = biped()
    surface = capsules(rig, 4000)
    pose = np.array(rig.rest)
    front, right, back = point_splatting.reference_views(rig, surface, pose, [0.0, np.pi / 2, np.pi], size=160)
    assert front.image.shape == (160, 160, 4)
    assert [view.azimuth for view in (front, right, back)] == [0.0, np.pi / 2, np.pi]
    # bone 7 is the arm on the +x side: at the right in the front view, at the left from behind, in front from +x
    tip = rig.tails[7]
    assert project(front.projection, tip)[0] > 100
    assert project(back.projection, tip)[0] < 60
    assert abs(project(right.projection, tip)[0] - 80) < 25
    for view in (front, right, back):
        pixels = project(view.projection, np.concatenate([rig.heads, rig.tails]))
        assert ((pixels > 0) & (pixels < 160)).all()
        inner = np.floor(project(view.projection, (rig.heads + rig.tails) / 2)).astype(int)
        assert (view.image[inner[:, 1], inner[:, 0], 3] == 255).all()
        rows, columns = np.nonzero(view.image[..., 3])
        assert min(rows.min(), columns.min(), 159 - rows.max(), 159 - columns.max()) >= 0
        assert 0.03 < (view.image[..., 3] > 0).mean() < 0.5
    head, feet = project(front.projection, rig.tails[2]), project(front.projection, rig.tails[4])
    assert head[1] < feet[1]


def test_a_pose_that_is_not_finite_is_refused() -> None:
    rig = biped()
    pose = np.array(rig.rest)
    pose[1, 0, 3] = np.nan
    with pytest.raises(UserError, match="no surface to draw"):
        point_splatting.reference_view(rig, capsules(rig, 500), pose, 0.0, size=32)


ODD_RIGS = {
    "single": make_rig([[0, 0, 0]], [-1], [[0, 0, 1]]),
    "no length": make_rig([[1, 2, 3]], [-1], [[1, 2, 3]]),
    "zero leaf": make_rig([[0, 0, 0], [0, 0, 1]], [-1, 0], [[0, 0, 1], [0, 0, 1]]),
    "zero middle": make_rig([[0, 0, 0], [0, 0, 1], [0, 0, 1]], [-1, 0, 1], [[0, 0, 1], [0, 0, 1], [0, 1, 1]]),
    "tails astray": make_rig([[0, 0, 0], [0, 0, 1], [0, 0, 2]], [-1, 0, 1], [[0, 0.3, 0], [0, 0.3, 1], [0, 0.3, 2]]),
    "huge": make_rig([[0, 0, 0], [0, 0, 4e3]], [-1, 0], [[0, 0, 4e3], [0, 3e3, 4e3]]),
    "tiny": make_rig([[0, 0, 0], [0, 0, 4e-4]], [-1, 0], [[0, 0, 4e-4], [0, 3e-4, 4e-4]]),
    "biped": biped(),
}


@pytest.mark.parametrize("kind", ODD_RIGS)
def test_any_rig_gets_a_body_that_can_be_seen(kind: str) -> None:
    rig = ODD_RIGS[kind]
    surface = capsules(rig, 1500)
    assert len(surface) == 1500
    assert np.isfinite(surface.points).all()
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(surface.weights.sum(1), 1, atol=1e-5)
    assert surface.weights.min() >= 0
    assert 0 <= surface.joints.min() <= surface.joints.max() < len(rig.names)
    assert 0 <= surface.colours.min() <= surface.colours.max() <= 1
    image = point_splatting.reference_view(rig, surface, np.array(rig.rest), 0.5, size=64).image
    assert (image[..., 3] > 0).mean() > 0.01
    np.testing.assert_array_equal(capsules(rig, 1500).points, surface.points)


def test_capsules_follow_the_bones() -> None:
    rig = biped()
    surface = capsules(rig, 4000)
    size = np.ptp(np.concatenate([rig.heads, rig.tails]), axis=0).max()
    main = surface.joints[np.arange(4000), surface.weights.argmax(1)]
    for joint in range(len(rig.names)):
        own = surface.points[main == joint]
        assert len(own) > 20
        axis = rig.tails[joint] - rig.heads[joint]
        along = np.clip((own - rig.heads[joint]) @ axis / (axis @ axis), 0, 1)
        distance = np.linalg.norm(own - rig.heads[joint] - along[:, None] * axis, axis=1)
        assert 0.01 * size < np.median(distance) < 0.14 * size
    left, right = (surface.colours[main == joint].mean(0) for joint in (3, 5))
    assert 0.03 < np.abs(left - right).max() < 0.4


def test_a_handle_below_the_body_gets_no_capsule() -> None:
    rig = biped()
    heads, tails = rig.heads.tolist(), rig.tails.tolist()
    handle = make_rig([[0, 0, 0], *heads], [-1, *(rig.parents + 1)], [[0, 0, 0.02], *tails])
    points = capsules(handle, 3000).points
    assert not ((np.abs(points[:, 0]) < 0.04) & (points[:, 2] < 0.6)).any()


def test_a_stalk_on_the_floor_keeps_its_first_bone() -> None:
    heads = [[0, 0, 0.5 * i] for i in range(3)]
    points = capsules(make_rig(heads, [-1, 0, 1], [[0, 0, 0.5 * i] for i in range(1, 4)]), 1000).points
    assert (points[:, 2] < 0.25).mean() > 0.1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_cuda_draws_what_the_cpu_draws() -> None:
    rig = biped()
    cloud = point_splatting.cloud_of(capsules(rig, 3000), rig.rest)
    pose, camera = torch.tensor(bent(rig, 2)), Camera((0, 0, 0.9), 3, 0.5, width=128, height=128)
    images = []
    for device in ("cpu", "cuda"):
        moved = cloud.to(device)
        drawn = point_splatting.render(
            *moved.skin(pose.to(device)),
            moved.colours,
            projection_of(camera).to(device),
            UP.to(device),
            128,
            128,
            spacing=moved.spacing,
        )
        images.append(drawn.cpu())
    assert ((images[0] - images[1]).abs().amax(-1) > 0.01).float().mean() < 0.005

"""Which points are kept: those that can be seen, evenly, closer where the body is thin."""

import bpy
import numpy as np
import pytest
from anyrig.addon.rig.point_sampling import bvh_trees, is_exposed, poisson_disc_sample, thickness
from anyrig.addon.rig.surface_points import surface_of
from anyrig.tests.addon.fixtures import BoneSpec, make_rig
from scipy.spatial import cKDTree

QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
TRIANGLES = np.concatenate([QUADS[:, :3], QUADS[:, [0, 2, 3]]])


def box(size: tuple[float, float, float]) -> np.ndarray:
    return (np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) - 0.5) * size


def plane(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random((count, 2)), np.zeros(count)]), np.tile([0.0, 0, 1], (count, 1))


def nearest(points: np.ndarray) -> np.ndarray:
    return cKDTree(points).query(points, 2)[0][:, 1]


def test_points_keep_apart() -> None:
    points, normals = plane(5000)
    kept = poisson_disc_sample(points, normals, np.full(5000, np.inf), 1.0, 500, np.random.default_rng(0))
    assert len(kept) == len(set(kept)) == 500
    spacing = np.sqrt(1 / 500)
    assert np.percentile(nearest(points[kept]), 5) > 0.6 * spacing > 3 * np.percentile(nearest(points[:500]), 5)
    # and leave no gaps
    assert cKDTree(points[kept]).query(points)[0].max() < 1.1 * spacing


def test_thin_parts_get_more() -> None:
    points, normals = plane(5000)
    depth = np.where(points[:, 0] < 0.5, 0.01, np.inf)
    kept = points[poisson_disc_sample(points, normals, depth, 1.0, 500, np.random.default_rng(0))]
    share = (kept[:, 0] < 0.5).mean()
    assert share > 0.75 and len(kept) == 500


def test_the_sides_of_a_sheet_do_not_drive_each_other_away() -> None:
    points, normals = plane(2000)
    both, sides = np.concatenate([points, points]), np.concatenate([normals, -normals])
    kept = poisson_disc_sample(both, sides, np.full(4000, np.inf), 2.0, 400, np.random.default_rng(0))
    assert (kept < 2000).mean() == pytest.approx(0.5, abs=0.03)


def test_few_candidates_are_all_kept() -> None:
    points, normals = plane(5)
    assert poisson_disc_sample(points, normals, np.ones(5), 1.0, 8, np.random.default_rng(0)).tolist() == list(range(5))


def test_thickness_is_the_way_through() -> None:
    tree = bvh_trees([box((1, 2, 3)), box((1, 1, 1)) + 10], [TRIANGLES, TRIANGLES])
    points, normals = np.array([[0.5, 0, 0], [0, 0.1, -1.5], [9.5, 10, 10]]), np.array([[1.0, 0, 0], [0, 0, -1], [-1, 0, 0]])
    assert thickness(tree, points, normals, 4.0) == pytest.approx([1, 3, 1], abs=0.01)


def test_what_is_inside_cannot_be_seen() -> None:
    tree = bvh_trees([box((4, 4, 4)), box((1, 1, 1))], [TRIANGLES, TRIANGLES])
    points, normals = np.array([[2.0, 0.3, 0.1], [0.5, 0.1, 0.2]]), np.tile([1.0, 0, 0], (2, 1))
    assert is_exposed(tree, points, normals, 4.0, np.random.default_rng(0)).tolist() == [True, False]


def nested() -> bpy.types.Object:
    """A box on bone 'in' inside the shell of bone 'out'."""
    obj = make_rig("Nest", [BoneSpec("out", None, (0, 0, 0), (0, 0, 1)), BoneSpec("in", "out", (0, 0, 0), (0, 0, 1))], mesh=False)
    for bone, size in (("out", 2.0), ("in", 1.0)):
        bpy.ops.mesh.primitive_cube_add(size=size)
        part = bpy.context.object
        part.parent, part.parent_type, part.parent_bone = obj, "BONE", bone
    bpy.context.view_layer.update()
    return obj


def test_hidden_parts_are_left_out_unless_a_pose_shows_them() -> None:
    obj = nested()
    assert set(surface_of(obj, ("out", "in"), 400).joints[:, 0]) == {0}
    pulled = np.tile(np.eye(4), (1, 2, 1, 1))
    pulled[0, 1, 0, 3] = 5.0
    assert set(surface_of(obj, ("out", "in"), 400, deforms=pulled).joints[:, 0]) == {0, 1}


def test_where_nothing_is_hidden_poses_change_nothing() -> None:
    obj = make_rig("Box", [BoneSpec("only", None, (0, 0, 0), (0, 0, 1))])
    still = np.tile(np.eye(4), (2, 1, 1, 1))
    assert np.array_equal(surface_of(obj, ("only",), 100).points, surface_of(obj, ("only",), 100, deforms=still).points)

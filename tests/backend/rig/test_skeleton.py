"""The skeleton as the network sees it: axes, kinematics, graph relations, tips."""

from collections import deque

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Y_UP, Camera, project, view_yaw
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, quaternion_to_matrix, yaw_to_matrix
from anyrig.backend.rig import skeleton as S
from anyrig.backend.rig.rig import Rig
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def trees(draw: st.DrawFn, most: int = 14) -> np.ndarray:
    """Parents of 1 to `most` joints, parents first."""
    count = draw(st.integers(1, most))
    return np.array([-1] + [draw(st.integers(0, joint - 1)) for joint in range(1, count)])


def rig_of(parents: np.ndarray, seed: int = 0, world: np.ndarray | None = None) -> Rig:
    random = np.random.default_rng(seed)
    count = len(parents)
    rest = np.tile(np.eye(4), (count, 1, 1))
    rest[:, :3, :3] = quaternion_to_matrix(random.normal(size=(count, 4)))
    rest[:, :3, 3] = random.normal(size=(count, 3))
    tails = rest[:, :3, 3] + random.normal(size=(count, 3))
    none = np.zeros(count, bool)
    world = quaternion_to_matrix(random.normal(size=4)) if world is None else world
    return Rig("rig", tuple(f"b{i}" for i in range(count)), parents, rest, tails, none, none, world)


def local_of(frames: int, count: int, seed: int = 1) -> np.ndarray:
    return quaternion_to_matrix(np.random.default_rng(seed).normal(size=(frames, count, 4)))


# axes


def test_up_is_up():
    rig = rig_of(np.array([-1, 0]), world=np.eye(3))
    axes = S.network_axes(rig)
    assert (axes @ [0, 0, 1]).tolist() == [0, 1, 0]  # a z-up point above is y-up above
    assert (axes @ [1, 0, 0]).tolist() == [1, 0, 0]
    assert (axes @ [0, -1, 0]).tolist() == [0, 0, 1]  # Blender's front view looks along +y: the viewer is at -y, which is +z
    assert np.linalg.det(axes) == pytest.approx(1)


def test_a_slanted_object_stands_upright_for_the_network():
    slant = axis_angle_to_matrix(np.array([1.0, 0, 0]), np.pi / 2)  # armature y becomes world z
    assert np.allclose(S.network_axes(rig_of(np.array([-1]), world=slant)) @ [0, 1, 0], [0, 1, 0])


def test_the_network_sees_the_world_and_not_the_armature():
    """Turn armature space about, and the object back: nothing changes."""
    parents = np.array([-1, 0, 1, 0])
    plain = rig_of(parents, world=np.eye(3))
    spin = np.eye(4)
    spin[:3, :3] = quaternion_to_matrix([0.3, -0.5, 0.2, 0.8])
    rest, tails = spin @ plain.rest, plain.tails @ spin[:3, :3].T
    turned = Rig("rig", plain.names, parents, rest, tails, plain.translates, plain.static, spin[:3, :3].T)
    pose = np.tile(np.eye(4), (2, 4, 1, 1))
    pose[..., :3, :3] = local_of(2, 4)
    pose[..., :3, 3] = np.random.default_rng(3).normal(size=(2, 4, 3))
    for left, right in zip(S.pose_to_network(plain, pose), S.pose_to_network(turned, spin @ pose), strict=True):
        assert np.allclose(left, right)
    assert np.allclose(S.skeleton_of(plain).offsets, S.skeleton_of(turned).offsets)


def test_a_level_camera_calls_its_own_side_front():
    for azimuth in (0.0, 0.4, 2.0, -3.0):
        camera = Camera((0, 0, 0), 5.0, azimuth)
        towards = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])  # 90 degrees looks from +x
        assert np.allclose(camera.position, 5 * towards)
        assert np.allclose(view_yaw(azimuth) @ Y_UP @ towards, [0, 0, 1])
        assert np.allclose(camera.rotation, view_yaw(azimuth) @ Y_UP)
        assert np.allclose(view_yaw(azimuth), yaw_to_matrix(-azimuth))


def test_the_image_is_upright_and_not_mirrored():
    camera = Camera((1.0, 2.0, 3.0), 10.0, azimuth=0.5, pitch=0.3, width=200, height=100)
    centre = project(camera.projection, np.array(camera.target))
    assert np.allclose(centre, [100, 50])
    above = project(camera.projection, np.array(camera.target) + [0, 0, 0.1])
    right = project(camera.projection, np.array(camera.target) + 0.1 * camera.rotation[0])
    assert above[1] < centre[1] and above[0] == pytest.approx(centre[0])
    assert right[0] > centre[0] and right[1] == pytest.approx(centre[1])
    assert camera.position[2] > 3  # positive pitch looks down
    edge = np.array(camera.target) + camera.rotation[0] * 10 * np.tan(camera.fov / 2)
    assert project(camera.projection, edge)[0] == pytest.approx(200)  # fov spans the longer side


# kinematics


@settings(max_examples=50, deadline=None)
@given(trees())
def test_identity_is_the_rest_pose(parents):
    rig = rig_of(parents)
    skeleton = S.skeleton_of(rig, tips=False)
    identity = np.tile(np.eye(3), (len(parents), 1, 1))
    rotations, positions = S.forward_kinematics(skeleton.parents, skeleton.offsets, identity)
    assert np.array_equal(rotations, identity)
    rest = (rig.heads - rig.heads[0]) @ S.network_axes(rig).T
    assert np.allclose(positions, rest) and np.allclose(skeleton.rest, rest)
    rotations, positions = S.pose_to_network(rig, rig.rest, tips=False)
    assert np.allclose(rotations, identity) and np.allclose(positions, rest)


@settings(max_examples=50, deadline=None)
@given(trees(), st.sampled_from([(np.float64, 1e-12), (np.float32, 1e-5)]))
def test_local_and_global_are_inverses(parents, kind):
    dtype, tolerance = kind
    local = local_of(3, len(parents)).astype(dtype)
    rotations = S.local_to_global(parents, local)
    assert rotations.dtype == dtype
    assert np.abs(S.global_to_local(parents, rotations) - local).max() < tolerance
    for joint, parent in enumerate(parents):
        expected = local[:, joint] if parent < 0 else rotations[:, parent] @ local[:, joint]
        assert np.abs(rotations[:, joint] - expected).max() < tolerance


@settings(max_examples=50, deadline=None)
@given(trees(), st.floats(-np.pi, np.pi))
def test_yaw_moves_only_positions_and_the_root(parents, angle):
    skeleton = S.skeleton_of(rig_of(parents))
    local = local_of(3, len(skeleton))
    rotations, positions = S.forward_kinematics(skeleton.parents, skeleton.offsets, local)
    yaw = yaw_to_matrix(angle)
    turned, moved = S.forward_kinematics(
        skeleton.parents, skeleton.offsets, np.concatenate([yaw @ local[:, :1], local[:, 1:]], 1)
    )
    assert np.allclose(moved, positions @ yaw.T)
    assert np.allclose(S.global_to_local(skeleton.parents, yaw @ rotations)[:, 1:], local[:, 1:])
    assert np.allclose(turned, yaw @ rotations)


@settings(max_examples=30, deadline=None)
@given(trees(), st.booleans())
def test_a_pose_reaches_the_network_and_kinematics_give_it_back(parents, tips):
    """Pose the rig as Blender would, joint by joint in armature axes: the network's kinematics agree."""
    rig = rig_of(parents)
    pose = np.array(np.broadcast_to(rig.rest, (2, *rig.rest.shape)))
    for joint, parent in enumerate(parents):
        about = np.tile(np.eye(4), (2, 1, 1))
        about[:, :3, :3] = local_of(2, 1, seed=joint)[:, 0]  # a turn in the bone's own axes
        above = np.eye(4) if parent < 0 else pose[:, parent] @ np.linalg.inv(rig.rest[parent])
        pose[:, joint] = above @ rig.rest[joint] @ about
    skeleton = S.skeleton_of(rig, tips)
    rotations, positions = S.pose_to_network(rig, pose, tips)
    again, places = S.forward_kinematics(skeleton.parents, skeleton.offsets, S.global_to_local(skeleton.parents, rotations))
    assert np.allclose(again, rotations) and np.allclose(places, positions)
    if tips:  # a tip is where the bone's tail is
        leaves = S.leaf_joints(rig.parents)
        local_tails = np.linalg.inv(rig.rest[leaves]) @ np.append(rig.tails[leaves], np.ones((len(leaves), 1)), 1)[..., None]
        tails = (pose[:, leaves] @ local_tails)[..., :3, 0]
        assert np.allclose(positions[:, len(parents) :], (tails - pose[:, :1, :3, 3]) @ S.network_axes(rig).T)


def test_scaled_bones_keep_their_turn():
    rig = rig_of(np.array([-1, 0]))
    pose = np.array(rig.rest)
    pose[1, :3, :3] *= np.array([3.0, 0.1, 2.0])
    assert np.allclose(S.pose_to_network(rig, pose)[0], np.eye(3))


# tips


@settings(max_examples=50, deadline=None)
@given(trees())
def test_every_leaf_has_one_tip_behind_the_joints(parents):
    skeleton = S.skeleton_of(rig_of(parents))
    count = len(parents)
    leaves = [joint for joint in range(count) if joint not in parents]
    assert skeleton.parents[count:].tolist() == leaves
    assert skeleton.tip.tolist() == [False] * count + [True] * len(leaves)
    assert skeleton.names[count:] == tuple(f"b{leaf} tip" for leaf in leaves)
    assert len(skeleton) == len(S.skeleton_of(rig_of(parents), tips=False)) + len(leaves)
    assert not skeleton.translates[count:].any() and not skeleton.static[count:].any()


# graph relations


def hops(parents: np.ndarray) -> np.ndarray:
    """Breadth-first search from every joint."""
    count = len(parents)
    near = [{int(parents[j])} - {-1} | {c for c in range(count) if parents[c] == j} for j in range(count)]
    result = np.full((count, count), -1)
    for start in range(count):
        result[start, start], queue = 0, deque([start])
        while queue:
            joint = queue.popleft()
            for other in near[joint]:
                if result[start, other] < 0:
                    result[start, other] = result[start, joint] + 1
                    queue.append(other)
    return result


def edge(parents: np.ndarray, row: int, column: int) -> int:
    if row == column:
        return 0 if row in parents else 5
    if parents[row] == column:
        return 1
    if parents[column] == row:
        return 2
    return 3 if parents[row] == parents[column] else 4


@settings(max_examples=150, deadline=None)
@given(trees(20))
def test_graph_relations_against_brute_force(parents):
    hop, edges = S.graph_relations(parents)
    count = len(parents)
    assert np.array_equal(hop, np.minimum(hops(parents), 5))
    assert np.array_equal(edges, [[edge(parents, row, column) for column in range(count)] for row in range(count)])


@settings(max_examples=100, deadline=None)
@given(trees(20))
def test_ancestor_mask_against_brute_force(parents):
    mask = S.ancestor_mask(parents)
    for joint in range(len(parents)):
        above, current = set(), joint
        while current >= 0:
            above.add(current)
            current = int(parents[current])
        assert set(np.flatnonzero(mask[joint])) == above


def test_long_chains():
    parents = np.arange(40) - 1
    hop, _ = S.graph_relations(parents)
    distance = np.abs(np.arange(40)[:, None] - np.arange(40))
    assert np.array_equal(hop, np.minimum(distance, 5))


# scale


def test_scale_is_the_largest_coordinate_of_rest_and_reference():
    rest, reference = np.array([[0, 0, 0], [1, -3, 2.0]]), np.array([[0, 0, 0], [0.5, 1, -2.0]])
    assert S.scale_of(rest, reference) == S.scale_of(reference, rest) == 3


def test_a_rig_without_extent_is_refused():
    with pytest.raises(UserError, match="All bones of the rig begin in one point"):
        S.scale_of(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(UserError):
        S.scale_of(np.full((1, 3), np.nan), np.zeros((1, 3)))

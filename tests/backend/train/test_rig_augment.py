"""Augmentation of the skeleton: what each change keeps and what it changes."""

import time
from dataclasses import replace

import numpy as np
import pytest
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, quaternion_to_matrix
from anyrig.backend.model.config import TINY
from anyrig.backend.rendering.point_splatting import skin
from anyrig.backend.rig.joint_names import clean_name
from anyrig.backend.rig.point_cloud import Surface
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import forward_kinematics, pose_to_network, skeleton_of
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.train.samples import name_augment, rig_augment
from anyrig.backend.train.samples.samples import Recipe, Windows

NAMES = ("Root", "Body", "Head", "Thigh.L", "Shin.L", "Thigh.R", "Shin.R", "Foot.L", "Foot.R", "Tail1", "Tail2")
PARENTS = np.array([-1, 0, 1, 1, 3, 1, 5, 0, 0, 1, 9])
HEADS = np.array(
    [[0, 0, 0], [0, 0, 1], [0, -0.5, 1.2], [0.2, 0, 1], [0.25, 0, 0.5], [-0.2, 0, 1], [-0.25, 0, 0.5], [0.25, 0, 0.1], [-0.25, 0, 0.1],
     [0, 0.3, 1.0], [0, 0.7, 1.1]]
)  # fmt: skip
TAILS = np.array(
    [[0, 0, 0.2], [0, -0.4, 1.1], [0, -0.9, 1.2], [0.25, 0, 0.5], [0.25, 0, 0.1], [-0.25, 0, 0.5], [-0.25, 0, 0.1], [0.25, -0.2, 0],
     [-0.25, -0.2, 0], [0, 0.7, 1.1], [0, 1.0, 1.3]]
)  # fmt: skip
JOINTS = len(NAMES)


def make_pack(seed: int = 0, sharp: bool = False, clips: int = 3, frames: int = 7) -> Pack:
    """A biped with a tail whose feet translate under the root; bones have rest axes of their own. sharp: one joint per point."""
    rng = np.random.default_rng(seed)
    rest = np.tile(np.eye(4), (JOINTS, 1, 1))
    rest[:, :3, :3], rest[:, :3, 3] = quaternion_to_matrix(rng.normal(size=(JOINTS, 4))), HEADS
    translates = np.array([name.startswith("Foot") for name in NAMES])
    rig = Rig("biped", NAMES, PARENTS, rest, TAILS, translates, np.arange(JOINTS) == 2)
    moves = {f"move {i}": clip_of(rig, rng, frames + i) for i in range(clips)}
    owner = np.repeat(np.arange(JOINTS), 30)
    points = HEADS[owner] + (TAILS - HEADS)[owner] * rng.uniform(0, 1, (len(owner), 1)) + rng.normal(0, 0.03, (len(owner), 3))
    joints = np.stack([owner, np.maximum(PARENTS[owner], 0), owner, owner], axis=-1)
    weights = np.zeros((len(owner), 4))
    weights[:, 1] = 0 if sharp else rng.uniform(0, 0.5, len(owner)) * (rng.random(len(owner)) < 0.5)
    weights[:, 0] = 1 - weights[:, 1]
    normals = rng.normal(size=points.shape)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return Pack("biped", rig, Surface(points, normals, rng.random(points.shape), joints, weights), moves, 24.0)


def clip_of(rig: Rig, rng: np.random.Generator, frames: int) -> np.ndarray:
    axes = rng.normal(size=(frames, JOINTS, 3))
    local = axis_angle_to_matrix(axes / np.linalg.norm(axes, axis=-1, keepdims=True), rng.uniform(-0.5, 0.5, (frames, JOINTS)))
    rotations, places = forward_kinematics(rig.parents, rig.heads - rig.heads[np.maximum(rig.parents, 0)], local)
    pose = np.tile(np.eye(4), (frames, JOINTS, 1, 1))
    pose[..., :3, :3] = rotations @ rig.rest[:, :3, :3]
    pose[..., :3, 3] = places + rng.normal(0, 0.5, (frames, 1, 3))
    pose[:, :, :3, 3] += rng.normal(0, 0.1, (frames, JOINTS, 3)) * rig.translates[:, None]
    return pose.astype(np.float32)


def skinned(pack: Pack, clip: str) -> tuple[np.ndarray, np.ndarray]:
    import torch

    points, normals = skin(pack.surface, pack.rig.rest, torch.from_numpy(np.ascontiguousarray(pack.clips[clip])))
    return points.numpy(), normals.numpy()


def by_name(pack: Pack, clip: str) -> dict[str, np.ndarray]:
    return {name: pack.clips[clip][:, joint, :3, 3] for joint, name in enumerate(pack.rig.names)}


def assert_same_shapes(left: Pack, right: Pack, tolerance: float = 1e-4) -> None:
    for clip in left.clips:
        for old, new in zip(skinned(left, clip), skinned(right, clip)):
            assert np.abs(old - new).max() < tolerance


def assert_proper(pack: Pack) -> None:
    """Right-handed rigid frames, unit weights, clips that fit the rig."""
    every = np.concatenate([pack.rig.rest, *(clip.reshape(-1, 4, 4) for clip in pack.clips.values())])
    assert np.abs(every[:, :3, :3] @ every[:, :3, :3].swapaxes(-1, -2) - np.eye(3)).max() < 1e-4
    assert np.linalg.det(every[:, :3, :3]).min() > 0.99
    assert np.array_equal(every[:, 3], np.broadcast_to([0, 0, 0, 1], (len(every), 4)))
    assert np.abs(pack.surface.weights.sum(1) - 1).max() < 1e-5
    assert 0 <= pack.surface.joints.min() and pack.surface.joints.max() < len(pack.rig.names)
    assert all(clip.shape[1:] == pack.rig.rest.shape and clip.dtype == np.float32 for clip in pack.clips.values())


def assert_bones_keep_their_length(pack: Pack) -> None:
    """Forward kinematics of the rotations gives the heads of all joints that do not translate."""
    skeleton = skeleton_of(pack.rig, tips=False)
    for clip in pack.clips.values():
        rotations, heads = pose_to_network(pack.rig, clip.astype(np.float64), tips=False)
        for joint in np.flatnonzero(~skeleton.translates)[1:]:
            parent = skeleton.parents[joint]
            assert np.abs(heads[:, parent] + rotations[:, parent] @ skeleton.offsets[joint] - heads[:, joint]).max() < 1e-4


def test_the_mirror_image_of_a_mirror_image_is_the_original() -> None:
    pack = make_pack()
    once = rig_augment.mirror_pack(pack)
    twice = rig_augment.mirror_pack(once)
    assert twice.rig.to_json() == pack.rig.to_json()
    for clip in pack.clips:
        assert np.array_equal(twice.clips[clip], pack.clips[clip])
    for key in ("points", "normals"):
        assert np.array_equal(getattr(twice.surface, key), getattr(pack.surface, key))


def test_a_mirrored_pack_shows_the_mirror_image() -> None:
    pack = make_pack()
    other = rig_augment.mirror_pack(pack)
    assert_proper(other)
    assert_bones_keep_their_length(other)
    for clip in pack.clips:
        for old, new in zip(skinned(pack, clip), skinned(other, clip)):
            assert np.abs(old * [-1, 1, 1] - new).max() < 1e-4
        places, images = by_name(pack, clip), by_name(other, clip)
        for name, partner in (("Shin.L", "Shin.R"), ("Foot.R", "Foot.L"), ("Tail2", "Tail2")):
            assert np.abs(places[name] * [-1, 1, 1] - images[partner]).max() < 1e-6


def test_the_plane_lies_between_the_sides() -> None:
    pack = make_pack()
    assert rig_augment.side_axis(pack.rig) == 0
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    rest = pack.rig.rest.copy()
    rest[:, :3] = quarter @ rest[:, :3]
    assert rig_augment.side_axis(replace(pack.rig, rest=rest, tails=pack.rig.tails @ quarter.T)) == 1


def test_partners_by_name_and_by_place() -> None:
    rig = make_pack().rig
    expected = [0, 1, 2, 5, 6, 3, 4, 8, 7, 9, 10]
    assert rig_augment.partners(rig).tolist() == expected
    assert rig_augment.partners(replace(rig, names=tuple(f"bone{i}" for i in range(JOINTS)))).tolist() == expected


@pytest.mark.parametrize(
    "name, other",
    [
        ("Hand.L", "Hand.R"), ("mixamorig:LeftUpLeg", "mixamorig:RightUpLeg"), ("hand_r", "hand_l"), ("PalmR.L", "PalmR.R"),
        ("LThigh", "RThigh"), ("UpperArmR", "UpperArmL"), ("Bip01 L Foot", "Bip01 R Foot"), ("rightfoot", "leftfoot"), ("左足", "右足"),
        ("lShldr", "rShldr"), ("leg_rgt_02", "leg_lft_02"), ("LEFT_ARM", "RIGHT_ARM"), ("DEF-thigh.R.001", "DEF-thigh.L.001"),
    ],
)  # fmt: skip
def test_sides_are_swapped_where_names_say_so(name: str, other: str) -> None:
    assert name_augment.swap_side(name) == other and name_augment.swap_side(other) == name
    swapped = {"Left": "Right", "Right": "Left"}
    assert clean_name(other).split() == [swapped.get(word, word) for word in clean_name(name).split()]


@pytest.mark.parametrize("name", ["Spine", "Bright.001", "Tail1", "Lower", "Rump", "Collar", "upright", "Bone.003", "Rail"])
def test_names_without_a_side_stay(name: str) -> None:
    assert name_augment.swap_side(name) == name


def test_bones_grow_as_asked_and_keep_their_length() -> None:
    pack = make_pack()
    factors = np.random.default_rng(1).uniform(0.6, 1.6, JOINTS)
    other = rig_augment.stretch_bones(pack, factors)
    assert_proper(other)
    assert_bones_keep_their_length(other)
    old, new = skeleton_of(pack.rig), skeleton_of(other.rig)
    grown = factors[old.parents]
    held = ~old.translates
    assert np.abs(new.offsets - old.offsets * grown[:, None])[held].max() < 1e-9
    for clip in pack.clips:
        before, after = (pose_to_network(p.rig, p.clips[clip].astype(np.float64)) for p in (pack, other))
        assert np.abs(before[0] - after[0]).max() < 1e-5  # rotations are kept
        lengths = [np.linalg.norm(heads - heads[:, old.parents], axis=-1) for heads in (before[1], after[1])]
        assert np.abs(lengths[1] - lengths[0] * grown)[:, held][:, 1:].max() < 1e-5  # the root has no parent
    feet = old.translates
    assert not np.allclose(new.offsets[feet], old.offsets[feet])


def test_the_skin_grows_with_its_bone() -> None:
    pack = make_pack(sharp=True)
    factors = np.random.default_rng(1).uniform(0.6, 1.6, JOINTS)
    other = rig_augment.stretch_bones(pack, factors)
    owner = pack.surface.joints[:, 0]
    for clip in pack.clips:
        before, after = (skinned(p, clip)[0] - p.clips[clip][:, :, :3, 3][:, owner] for p in (pack, other))
        assert np.abs(after - before * factors[owner][:, None]).max() < 1e-4
    assert np.array_equal(rig_augment.stretch_bones(pack, np.ones(JOINTS)).surface.points, pack.surface.points)


def test_a_foot_on_a_target_goes_with_its_leg() -> None:
    pack = make_pack()
    other = rig_augment.stretch_bones(pack, np.where(np.arange(JOINTS) == 4, 1.5, 1.0))
    shin, foot = NAMES.index("Shin.L"), NAMES.index("Foot.L")
    assert rig_augment.carriers(pack)[foot] == shin
    for clip in pack.clips:
        before, after = (p.clips[clip][:, foot, :3, 3] - p.clips[clip][:, shin, :3, 3] for p in (pack, other))
        assert np.abs(after - 1.5 * before).max() < 1e-5


def test_random_factors_are_the_same_on_both_sides() -> None:
    rig = make_pack().rig
    factors = rig_augment.random_factors(rig, np.random.default_rng(0))
    assert np.array_equal(factors, factors[rig_augment.partners(rig)]) and np.ptp(factors) > 0.01
    assert factors.min() > 0.5 and factors.max() < 2


def test_dropped_leaves_hand_their_skin_to_their_parents() -> None:
    pack = make_pack()
    gone = np.isin(NAMES, ["Head", "Tail1", "Tail2"])
    other = rig_augment.drop_joints(pack, gone)
    assert_proper(other)
    assert other.rig.names == tuple(name for name in NAMES if name not in ("Head", "Tail1", "Tail2"))
    old, new = by_name(pack, "move 1"), by_name(other, "move 1")
    assert all(np.array_equal(old[name], new[name]) for name in other.rig.names)
    parent_of = {name: NAMES[parent] for name, parent in zip(NAMES, PARENTS) if parent >= 0}
    assert all(other.rig.names[other.rig.parents[i]] == parent_of[name] for i, name in enumerate(other.rig.names) if i)
    heir = {name: name for name in NAMES} | {"Head": "Body", "Tail1": "Body", "Tail2": "Body"}
    expected = np.array([[heir[NAMES[j]] for j in row] for row in pack.surface.joints])
    assert np.array_equal(np.array(other.rig.names)[other.surface.joints], expected)
    assert np.array_equal(other.surface.weights, pack.surface.weights)


def test_random_leaves_are_leaves() -> None:
    rig = make_pack().rig
    seen = np.zeros(JOINTS, bool)
    for seed in range(30):
        gone = rig_augment.random_leaves(rig, np.random.default_rng(seed))
        assert not gone[0] and not (gone & rig.translates).any() and (~gone).sum() >= rig_augment.FEWEST
        assert not any(gone[parent] and not gone[joint] for joint, parent in enumerate(PARENTS) if parent >= 0)
        seen |= gone
    assert seen[NAMES.index("Tail1")] and seen[NAMES.index("Head")]


def test_another_order_is_the_same_by_name() -> None:
    pack = make_pack()
    order = rig_augment.random_order(PARENTS, np.random.default_rng(4))
    assert not np.array_equal(order, np.arange(JOINTS)) and sorted(order) == list(range(JOINTS))
    other = rig_augment.reorder_joints(pack, order)
    assert_same_shapes(pack, other, 1e-6)
    for clip in pack.clips:
        old, new = by_name(pack, clip), by_name(other, clip)
        assert all(np.array_equal(old[name], new[name]) for name in NAMES)
    for name in NAMES[1:]:
        parent = other.rig.parents[other.rig.names.index(name)]
        assert other.rig.names[parent] == NAMES[PARENTS[NAMES.index(name)]]
    for key in ("translates", "static"):
        assert np.array_equal(getattr(other.rig, key), getattr(pack.rig, key)[order])


def test_another_rest_pose_leaves_the_shapes_of_all_clips() -> None:
    pack = make_pack(sharp=True)
    for pose in (
        pack.clips["move 1"][3],
        rig_augment.bend_rest(pack, rig_augment.random_bends(pack.rig, np.random.default_rng(2))),
    ):
        other = rig_augment.change_rest(pack, pose)
        assert_proper(other)
        assert_same_shapes(pack, other)
        assert_bones_keep_their_length(other)
        assert np.abs(other.rig.rest - pose).max() < 1e-5
        rotations = other.rig.rotations(pack.clips["move 0"].astype(np.float64))
        assert geodesic_angle(rotations, pack.rig.rotations(pack.clips["move 0"].astype(np.float64))).max() > 0.1


def test_where_joints_share_skin_another_rest_pose_is_exact_in_that_pose_and_near_elsewhere() -> None:
    pack = make_pack()
    rest = pack.clips["move 1"][3]
    other = rig_augment.change_rest(pack, rest)
    assert_same_shapes(replace(pack, clips={"rest": rest[None]}), replace(other, clips={"rest": rest[None]}))
    for clip in pack.clips:
        apart = np.linalg.norm(skinned(other, clip)[0] - skinned(pack, clip)[0], axis=-1)
        alone = (pack.surface.weights == 1).any(1)
        assert apart[:, alone].max() < 1e-4 and np.median(apart[:, ~alone]) < 0.02 and apart.max() < 0.2


def test_bent_joints_keep_their_bones_and_sides_alike() -> None:
    pack = make_pack()
    rig = pack.rig
    for seed in range(8):
        bends = rig_augment.random_bends(rig, np.random.default_rng(seed))
        pose = rig_augment.bend_rest(pack, bends)
        assert np.array_equal(pose[0], rig.rest[0])
        rotations = rig.rotations(pose)
        for joint, above in enumerate(rig_augment.carriers(pack)):
            if above >= 0:
                length = np.linalg.norm(rig.heads[joint] - rig.heads[above])
                assert abs(np.linalg.norm(pose[joint, :3, 3] - pose[above, :3, 3]) - length) < 1e-9
                assert np.abs(rotations[above].T @ rotations[joint] - bends[joint]).max() < 1e-9
    symmetric = [
        rig_augment.bend_rest(pack, rig_augment.random_bends(rig, np.random.default_rng(seed)))[:, :3, 3] for seed in range(8)
    ]
    partner = rig_augment.partners(rig)
    alike = [np.abs(heads[partner] * [-1, 1, 1] - heads).max() < 1e-9 for heads in symmetric]
    assert 4 <= sum(alike) < 8


def test_other_bone_axes_move_nothing() -> None:
    pack = make_pack()
    axes = quaternion_to_matrix(np.random.default_rng(0).normal(size=(JOINTS, 4)))
    other = rig_augment.roll_bones(pack, axes)
    assert_proper(other)
    assert_same_shapes(pack, other, 1e-5)
    assert geodesic_angle(other.rig.rest[:, :3, :3], pack.rig.rest[:, :3, :3]).min() > 0.05
    for clip in pack.clips:
        before, after = (pose_to_network(p.rig, p.clips[clip].astype(np.float64)) for p in (pack, other))
        assert max(np.abs(b - a).max() for b, a in zip(before, after)) < 1e-5


def words_of(names: tuple[str, ...]) -> list[list[str]]:
    return [sorted(clean_name(name).split()) for name in names]


def test_new_names() -> None:
    rng = np.random.default_rng(0)
    assert all(clean_name(name) == "" for name in name_augment.blank_names(NAMES, np.ones(JOINTS, bool), rng))
    half = name_augment.blank_names(NAMES, np.arange(JOINTS) < 5, rng)
    assert half[5:] == NAMES[5:] and not set(half[:5]) & set(NAMES)
    for _ in range(20):  # every habit
        assert words_of(name_augment.restyle_names(NAMES, rng)) == words_of(NAMES)
    words = {word for name in words_of(name_augment.invent_names(NAMES, rng)) for word in name}
    assert not words & {word for name in words_of(NAMES) for word in name} - {"Left", "Right"}
    for _ in range(40):
        names = name_augment.rename_joints(NAMES, rng)
        assert len(names) == len(set(names)) == JOINTS


def test_windows_can_be_sampled_from_what_vary_makes() -> None:
    shapes, orders, names = set(), set(), set()
    for seed in range(40):
        pack = rig_augment.augment_rig(make_pack(), np.random.default_rng(seed))
        assert_proper(pack)
        assert_bones_keep_their_length(pack)
        shapes.add(len(pack.rig.names))
        orders.add(pack.rig.parents.tobytes())
        names.add(pack.rig.names)
    assert len(shapes) > 2 and len(orders) > 10 and len(names) > 10
    source = iter(Windows([pack], TINY, lambda crops: crops.float().mean((1, 2, 3))[:, None, None], Recipe(3), 0))
    sample = next(source)
    assert sample.position.isfinite().all() and sample.rotations.isfinite().all()
    assert sample.position.shape[1] == len(sample.body.skeleton)


def test_vary_is_seeded() -> None:
    one, two, other = (rig_augment.augment_rig(make_pack(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one.rig.to_json() == two.rig.to_json() and one.rig.to_json() != other.rig.to_json()
    assert all(np.array_equal(one.clips[clip], two.clips[clip]) for clip in one.clips)


def test_a_pack_is_left_as_it_was() -> None:
    pack, same = make_pack(), make_pack()
    for seed in range(10):
        rig_augment.augment_rig(pack, np.random.default_rng(seed))
    assert pack.rig.to_json() == same.rig.to_json() and np.array_equal(pack.surface.points, same.surface.points)
    assert all(np.array_equal(pack.clips[clip], same.clips[clip]) for clip in pack.clips)


def test_vary_is_quick() -> None:
    pack = make_pack(clips=12, frames=150)
    rig_augment.augment_rig(pack, np.random.default_rng(0))
    start = time.perf_counter()
    for seed in range(5):
        rig_augment.augment_rig(pack, np.random.default_rng(seed))
    assert (time.perf_counter() - start) / 5 < 0.5  # a tenth of that on an idle machine

"""Motion -> Action, read back from the evaluated bones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.keying import EULER_MODES, rotation_channel, sample, whole_frames, write_motion
from anyrig.addon.rig import pose_of, rig_from_armature
from anyrig.backend.errors import UserError
from anyrig.backend.motion import Motion
from anyrig.backend.rig import Rig
from anyrig.backend.rotation import Array, axis_angle_to_matrix, quaternion_to_matrix
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import RIGS, BoneSpec, make_rig, random_motion
from mathutils import Euler, Matrix, Quaternion
from scipy.spatial.transform import Rotation, Slerp

TOLERANCE = 1e-4
MODERN = bpy.app.version >= (4, 4)
CASES = [(name, None) for name in RIGS]
CASES += [
    ("skipped_bones", ("hips", "chest", "arm", "hand")),
    ("skipped_bones", ("chest", "hand")),
    ("driven_targets", tuple(fixtures.FREE_TARGETS)),
    ("human", ("upper_arm.L", "forearm.L", "upper_arm.R", "shin.R")),
]


def write(
    obj: bpy.types.Object, rig: Rig, motion: Motion, start: float = 1, fps: float = 30, name: str = "take"
) -> bpy.types.Action:
    return write_motion(obj, rig, motion, pose_of(obj, rig), name=name, start_frame=start, fps=fps)


def curves_of(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    if not MODERN:
        return list(action.fcurves)
    return [c for layer in action.layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]


def paths_of(action: bpy.types.Action) -> set[str]:
    return {curve.data_path for curve in curves_of(action)}


def keys_of(curve: bpy.types.FCurve) -> Array:
    keys = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", keys)
    return keys.reshape(-1, 2)


def played(obj: bpy.types.Object, rig: Rig, frames: Array) -> Array:
    """(F, J, 4, 4) poses as the evaluated file shows them."""
    poses = []
    for frame in frames:
        bpy.context.scene.frame_set(int(np.floor(frame)), subframe=float(frame % 1))
        poses.append(pose_of(obj, rig))
    return np.array(poses)


def assert_shows(obj: bpy.types.Object, rig: Rig, frames: Array, turns: Array, positions: Array) -> Array:
    """Asserts that the animation shows these turns (F, J, 3, 3) and the heads of translating joints; returns the poses."""
    poses = played(obj, rig, frames)
    moves = ~rig.static
    assert np.abs(rig.turns(poses) - turns)[:, moves].max() < TOLERANCE
    heads = poses[:, :, :3, 3] - poses[:, :1, :3, 3]
    assert np.abs(heads - positions)[:, rig.translates].max(initial=0) < TOLERANCE
    return poses


@pytest.mark.parametrize(("name", "bones"), CASES)
def test_the_bones_show_the_motion(name: str, bones: tuple[str, ...] | None) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj, bones)
    root = pose_of(obj, rig)[0, :3, 3]
    motion = random_motion(rig, 24, seed=len(name))
    write(obj, rig, motion, start=7)
    poses = assert_shows(obj, rig, 7 + np.arange(24), motion.matrices, motion.positions)
    assert np.abs(poses[:, 0, :3, 3] - root).max() < 1e-6


def random_rig(seed: int) -> bpy.types.Object:
    """Any flags, rotation modes, scales and present channels on any bone."""
    random = np.random.default_rng(seed)
    specs = []
    for row in range(12):
        parent = f"b{random.integers(row)}" if row and random.random() < 0.85 else None
        head = tuple(random.normal(size=3))
        flags = {
            "inherit_scale": random.choice(["FULL", "FIX_SHEAR", "ALIGNED", "AVERAGE", "NONE", "NONE_LEGACY"]),
            "use_inherit_rotation": bool(random.random() < 0.7),
            "use_local_location": bool(random.random() < 0.7),
            "use_deform": bool(random.random() < 0.7 or row == 11),
        }
        pose = {
            "rotation_mode": random.choice(["QUATERNION", "AXIS_ANGLE", *EULER_MODES]),
            "location": random.normal(size=3) * 0.3,
            "scale": random.uniform(0.7, 1.4, 3),
            "rotation_euler": random.normal(size=3),
            "rotation_quaternion": random.normal(size=4),
        }
        specs.append(
            BoneSpec(f"b{row}", parent, head, tuple(head + random.normal(size=3)), random.normal(), bone=flags, pose=pose)
        )
    return make_rig("Random", specs)


@pytest.mark.parametrize("seed", range(8))
def test_any_flags_on_any_bone(seed: int) -> None:
    obj = random_rig(seed)
    names = [bone.name for bone in obj.data.bones if bone.use_deform]
    rig = rig_from_armature(obj, names if seed % 2 else None)
    motion = random_motion(rig, 8, seed)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(8), motion.matrices, motion.positions)


@pytest.mark.parametrize(("fps", "base", "keys"), [(24, 1.0, 32), (25, 1.0, 33), (30, 1.001, 40), (30, 1.0, 40), (60, 1.0, 79)])
def test_scene_rates_by_timestamps(fps: int, base: float, keys: int) -> None:
    """40 frames at 30 fps last 1.3 s; each scene rate gets keys on its own whole frames."""
    obj = fixtures.two_roots()
    rig = rig_from_armature(obj)
    render = bpy.context.scene.render
    render.fps, render.fps_base = fps, base
    motion = random_motion(rig, 40, seed=5)
    action = write(obj, rig, motion, start=10, fps=render.fps / render.fps_base)
    frames = 10 + np.arange(keys)
    for curve in curves_of(action):
        assert np.array_equal(keys_of(curve)[:, 0], frames)
    # at 29.97 the last frame is 0.04 frames beyond the take's end, where it is held
    seconds = np.minimum((frames - 10) * render.fps_base / render.fps, motion.times[-1])
    turns = np.stack(
        [Slerp(motion.times, Rotation.from_matrix(m))(seconds).as_matrix() for m in motion.matrices.swapaxes(0, 1)], 1
    )
    positions = np.empty((keys, len(rig.names), 3))
    for joint in range(len(rig.names)):
        for axis in range(3):
            positions[:, joint, axis] = np.interp(seconds, motion.times, motion.positions[:, joint, axis])
    assert_shows(obj, rig, frames, turns, positions)


def test_a_fractional_start_still_keys_whole_frames() -> None:
    obj = fixtures.no_mesh()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 20, seed=1)
    action = write(obj, rig, motion, start=3.5)
    assert keys_of(curves_of(action)[0])[:, 0].tolist() == list(range(4, 23))
    # frame 4 lies halfway between the take's first two frames
    expected, _ = sample(motion, (np.arange(4, 23) - 3.5) / 30)
    assert_shows(obj, rig, np.arange(4, 23), quaternion_to_matrix(expected), np.zeros((19, 3, 3)))


def test_whole_frames_of_rounded_short_and_late_takes() -> None:
    milliseconds = np.round(np.arange(31) / 29.97, 3)
    assert whole_frames(milliseconds, 1, 29.97).tolist() == list(range(1, 32))
    assert whole_frames(np.array([0.0, 1 / 60]), 1, 24).tolist() == [1]
    assert whole_frames(np.array([0.01, 0.02]), 1, 24).tolist() == [2]
    assert whole_frames(np.array([2.0]), 1, 24).tolist() == [49]


def test_sampling_holds_outside_and_at_one_frame() -> None:
    rig = rig_from_armature(fixtures.no_mesh())
    motion = random_motion(rig, 5, seed=0)
    turns, positions = sample(motion, np.array([-1.0, 9.0]))
    assert np.allclose(np.abs((turns * motion.turns[[0, -1]]).sum(-1)), 1)
    assert np.allclose(positions, motion.positions[[0, -1]])
    one = random_motion(rig, 1, seed=0)
    assert np.array_equal(sample(one, np.array([0.0, 3.0]))[0], one.turns[[0, 0]])


def test_sampling_takes_the_shorter_way_and_equal_frames() -> None:
    rig = rig_from_armature(fixtures.no_mesh())
    turns = np.tile([1.0, 0, 0, 0], (3, 3, 1))
    turns[1, 0] = -np.array([np.cos(0.4), np.sin(0.4), 0, 0])
    motion = replace(random_motion(rig, 3, seed=0), turns=turns)
    halfway, _ = sample(motion, motion.times[:2] + np.diff(motion.times) / 2)
    assert np.allclose(np.abs(halfway[0, 0]), [np.cos(0.2), np.sin(0.2), 0, 0])
    assert np.array_equal(halfway[:, 1:], turns[:2, 1:])


def test_between_keys_the_motion_is_smooth() -> None:
    """Halfway between two keys the pose is close to halfway, for every rotation mode."""
    for name in ("euler_bones", "axis_angle_bones", "snake"):
        obj = RIGS[name]()
        rig = rig_from_armature(obj)
        angle = 2.5 * np.sin(np.arange(60) / 12)[:, None] * np.linspace(0.3, 1, len(rig.names))
        turns = axis_angle_to_matrix(np.broadcast_to([0.6, 0.0, 0.8], (*angle.shape, 3)), angle)
        motion = replace(random_motion(rig, 60, seed=2), turns=[[Matrix(m).to_quaternion() for m in row] for row in turns])
        write(obj, rig, motion)
        frames = 1.5 + np.arange(59)
        turned = rig.turns(played(obj, rig, frames))
        cosine = (np.einsum("fjab,fjab->fj", turned, quaternion_to_matrix(sample(motion, (frames - 1) / 30)[0])) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 3


SPIN = np.linspace(-9.0, 11.0, 120)


def spin(axis: list[float]) -> Array:
    return axis_angle_to_matrix(np.tile(axis, (len(SPIN), 1)), SPIN)


@pytest.mark.parametrize("mode", EULER_MODES)
@pytest.mark.parametrize("axis", range(3))
def test_eulers_do_not_wrap(mode: str, axis: int) -> None:
    values = rotation_channel("b", mode, spin(np.eye(3)[axis].tolist())).values
    assert np.abs(np.diff(values, axis=0)).max() < 0.2
    assert abs(np.ptp(values[:, axis]) - np.ptp(SPIN)) < 1e-4


@pytest.mark.parametrize("axis", [[0, 0, 1.0], [0.6, 0, 0.8], [0, -1.0, 0]])
def test_quaternions_and_axis_angles_do_not_flip(axis: list[float]) -> None:
    quaternions = rotation_channel("b", "QUATERNION", spin(axis)).values
    assert np.abs(np.diff(quaternions, axis=0)).max() < 0.1
    values = rotation_channel("b", "AXIS_ANGLE", spin(axis)).values
    assert np.abs(np.diff(values, axis=0)).max() < 0.2
    assert abs(np.ptp(values[:, 0]) - np.ptp(SPIN)) < 1e-5


def test_axis_angle_at_rest_keeps_its_axis() -> None:
    turns = axis_angle_to_matrix(np.tile([0, 0, 1.0], (5, 1)), np.array([0.0, 0.3, 0.0, -0.3, 0.0]))
    values = rotation_channel("b", "AXIS_ANGLE", turns).values
    assert np.allclose(values[:, 0], [0, 0.3, 0, -0.3, 0])
    assert np.allclose(values[1:, 1:], [0, 0, 1])


@pytest.mark.parametrize("mode", ["QUATERNION", "AXIS_ANGLE", *EULER_MODES])
def test_channels_mean_what_blender_means(mode: str) -> None:
    random = np.random.default_rng(4)
    turns = Rotation.random(50, random_state=4).as_matrix()
    turns[::7] = np.eye(3)
    turns[1::7] = axis_angle_to_matrix(random.normal(size=(len(turns[1::7]), 3)), np.full(len(turns[1::7]), np.pi))
    channel = rotation_channel("b", mode, turns)
    for values, turn in zip(channel.values, turns):
        if mode == "QUATERNION":
            shown = Quaternion(values).to_matrix()
        elif mode == "AXIS_ANGLE":
            shown = Matrix.Rotation(values[0], 3, values[1:])
        else:
            shown = Euler(values, mode).to_matrix()
        assert np.abs(np.array(shown) - turn).max() < 1e-5


def test_an_unknown_rotation_mode_is_refused() -> None:
    with pytest.raises(UserError, match="Bone 'b'.*'SPLINE'"):
        rotation_channel("b", "SPLINE", np.eye(3)[None])


def test_only_what_should_be_keyed_is_keyed() -> None:
    obj = fixtures.two_roots()
    rig = rig_from_armature(obj)
    static = np.array([name in ("stick", "chest", "shin.L") for name in rig.names])
    rig = replace(rig, static=static)
    before = pose_of(obj, rig)
    motion = random_motion(rig, 10, seed=3)
    action = write(obj, rig, motion)
    expected = {f'pose.bones["{name}"].rotation_quaternion' for name, still in zip(rig.names, static) if not still}
    expected |= {f'pose.bones["foot_target.{side}"].location' for side in "LR"}
    assert paths_of(action) == expected
    poses = played(obj, rig, 1 + np.arange(10))
    turned = rig.turns(poses)
    assert np.abs(turned - motion.matrices)[:, ~static].max() < TOLERANCE
    stick, chest = rig.names.index("stick"), rig.names.index("chest")
    assert np.allclose(poses[:, stick], before[stick], atol=1e-6)
    # a static child rides along with its parent, here at rest
    assert np.allclose(turned[:, chest], turned[:, 0], atol=1e-5)


def test_a_connected_joint_gets_no_location_keys() -> None:
    obj = fixtures.connected()
    rig = rig_from_armature(obj)
    rig = replace(rig, translates=[name in ("b", "d") for name in rig.names])
    motion = random_motion(rig, 6, seed=3)
    action = write(obj, rig, motion)
    assert {p for p in paths_of(action) if p.endswith("location")} == {'pose.bones["d"].location'}
    rig = replace(rig, translates=[name == "d" for name in rig.names])
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


def test_curves_are_grouped_and_editable() -> None:
    obj = fixtures.odd_names()
    rig = rig_from_armature(obj)
    action = write(obj, rig, random_motion(rig, 5, seed=0))
    for curve in curves_of(action):
        bone = obj.path_resolve(curve.data_path.rpartition(".")[0])
        assert curve.group.name == bone.name
        assert {key.interpolation for key in curve.keyframe_points} == {"BEZIER"}
        assert {key.handle_left_type for key in curve.keyframe_points} == {"AUTO_CLAMPED"}
    assert len(curves_of(action)) == 4 * len(rig.names)


def test_the_new_pose_shows_without_moving_the_frame() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 5, seed=0)
    bpy.context.scene.frame_set(3)
    write(obj, rig, motion)
    bpy.context.view_layer.update()
    assert np.abs(rig.turns(pose_of(obj, rig)) - motion.matrices[2]).max() < TOLERANCE


def test_each_call_makes_an_action_and_a_slot_of_its_own() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    first = write(obj, rig, random_motion(rig, 5, seed=0), name="walk.mp4")
    kept = {curve.data_path + str(curve.array_index): keys_of(curve).tolist() for curve in curves_of(first)}
    motion = random_motion(rig, 5, seed=1)
    second = write(obj, rig, motion, name="walk.mp4")
    assert (first.name, second.name) == ("walk.mp4", "walk.mp4.001")
    assert obj.animation_data.action == second
    assert kept == {curve.data_path + str(curve.array_index): keys_of(curve).tolist() for curve in curves_of(first)}
    assert_shows(obj, rig, 1 + np.arange(5), motion.matrices, motion.positions)
    if MODERN:
        assert obj.animation_data.action_slot == second.slots[0]
        assert [len(action.slots) for action in (first, second)] == [1, 1]
        assert second.slots[0].target_id_type == "OBJECT" and second.slots[0].name_display == obj.name
    else:
        assert second.id_root == "OBJECT"


def test_the_earlier_action_survives_saving(tmp_path: Path) -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    names = [write(obj, rig, random_motion(rig, 5, seed=seed), name=f"take {seed}").name for seed in range(3)]
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "takes.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "takes.blend"))
    assert [action.name for action in bpy.data.actions] == names
    assert bpy.data.objects["Human"].animation_data.action.name == "take 2"


def test_an_earlier_action_with_other_users_is_left_as_it_is() -> None:
    obj, other = fixtures.human(), fixtures.bird()
    rig = rig_from_armature(obj)
    shared = bpy.data.actions.new("shared")
    for user in (obj, other):
        user.animation_data_create().action = shared
    write(obj, rig, random_motion(rig, 3, seed=0))
    assert not shared.use_fake_user
    assert other.animation_data.action == shared


def test_two_armatures_share_nothing() -> None:
    """Two objects, even with the same armature data, each play their own take."""
    first = fixtures.two_roots()
    second = first.copy()
    bpy.context.collection.objects.link(second)
    rigs = [rig_from_armature(obj) for obj in (first, second)]
    motions = [random_motion(rig, 6, seed) for seed, rig in enumerate(rigs)]
    actions = [write(obj, rig, motion) for obj, rig, motion in zip((first, second), rigs, motions)]
    assert actions[0] != actions[1]
    for obj, rig, motion, action in zip((first, second), rigs, motions, actions):
        assert obj.animation_data.action == action
        assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


def snapshot(obj: bpy.types.Object) -> list[Any]:
    """Everything of the armature that keying must not touch."""
    bones = [(b.name, [*map(tuple, b.matrix_local)], b.use_connect, b.inherit_scale, b.use_deform) for b in obj.data.bones]
    pose = [(b.name, tuple(b.location), tuple(b.scale), b.rotation_mode, len(b.constraints)) for b in obj.pose.bones]
    meshes = [(m.name, [tuple(v.co) for v in m.vertices]) for m in bpy.data.meshes]
    return [bones, pose, meshes, [*map(tuple, obj.matrix_world)], bpy.context.scene.frame_current]


@pytest.mark.parametrize("name", ["human", "skipped_bones", "sheared"])
def test_the_rig_itself_is_not_modified(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    before = snapshot(obj)
    write(obj, rig, random_motion(rig, 4, seed=0))
    assert snapshot(obj) == before


def test_nla_tracks_are_kept() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    old = write(obj, rig, random_motion(rig, 4, seed=0))
    track = obj.animation_data.nla_tracks.new()
    track.strips.new("old", 1, old)
    track.mute = True
    motion = random_motion(rig, 4, seed=1)
    write(obj, rig, motion)
    assert [[strip.action for strip in t.strips] for t in obj.animation_data.nla_tracks] == [[old]]
    assert_shows(obj, rig, 1 + np.arange(4), motion.matrices, motion.positions)


def assert_refused(obj: bpy.types.Object, rig: Rig, motion: Motion, reference: Array, match: str) -> None:
    actions, used = len(bpy.data.actions), obj.animation_data and obj.animation_data.action
    with pytest.raises(UserError, match=match):
        write_motion(obj, rig, motion, reference, name="take", start_frame=1, fps=24)
    assert len(bpy.data.actions) == actions
    assert (obj.animation_data and obj.animation_data.action) == used


def test_tweak_mode_is_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 4, seed=0)
    old = write(obj, rig, motion)
    data = obj.animation_data
    strip = data.nla_tracks.new().strips.new("old", 1, old)
    data.action = None
    data.nla_tracks[0].select = strip.select = True
    data.nla_tracks.active = data.nla_tracks[0]
    data.use_tweak_mode = True
    assert data.use_tweak_mode
    assert_refused(obj, rig, motion, rig.rest, "'Human'.*tweak mode")


def test_takes_that_do_not_fit_are_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 4, seed=0)
    other = random_motion(rig_from_armature(fixtures.bird()), 4, seed=0)
    assert_refused(obj, rig, other, rig.rest, "bone 'body' is not in the rig")
    assert_refused(obj, rig, replace(motion, names=motion.names[::-1]), rig.rest, "'Human'.*joints differ")
    assert_refused(obj, rig, motion, rig.rest[:3], "reference pose.*'Human'")
    obj.data.bones["spine"].name = "backbone"
    assert_refused(obj, rig, motion, rig.rest, "Bone 'spine'.*'Human'")


def test_a_take_without_frames_is_refused() -> None:
    with pytest.raises(UserError, match="no frames"):
        random_motion(rig_from_armature(fixtures.no_mesh()), 0, seed=0)


def test_edit_mode_is_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    bpy.ops.object.mode_set(mode="EDIT")
    assert_refused(obj, rig, random_motion(rig, 4, seed=0), rig.rest, "'Human'.*edit mode")


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A file with the human in it; the current file is empty again."""
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {fixtures.human()})
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return path


def link(path: str) -> bpy.types.Object:
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.objects = ["Human"]
    obj = wanted.objects[0]
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.update()
    return obj


def test_linked_armatures_are_refused(library: str) -> None:
    obj = link(library)
    rig = rig_from_armature(obj)
    assert_refused(obj, rig, random_motion(rig, 4, seed=0), rig.rest, "Object 'Human' is linked.*override")


def test_library_overrides_are_keyed(library: str) -> None:
    obj = link(library).override_create(remap_local_usages=True)
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 6, seed=0)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


def test_linked_bones_in_a_local_object_are_keyed(library: str) -> None:
    linked = link(library)
    obj = bpy.data.objects.new("Local", linked.data)
    bpy.context.collection.objects.link(obj)
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 6, seed=0)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)

"""Motion -> Action, read back from the evaluated bones."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest
from anyrig.addon.keying.write_action import EULER_MODES, sample, write_motion
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, quaternion_to_matrix
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import RIGS, BoneSpec, make_rig, random_motion
from anyrig.tests.addon.playback import TOLERANCE, assert_shows, curves_of, keys_of, paths_of, played, write
from mathutils import Matrix
from scipy.spatial.transform import Rotation, Slerp

CASES = [(name, None) for name in RIGS]
CASES += [
    ("skipped_bones", ("hips", "chest", "arm", "hand")),
    ("skipped_bones", ("chest", "hand")),
    ("driven_targets", tuple(fixtures.FREE_TARGETS)),
    ("human", ("upper_arm.L", "forearm.L", "upper_arm.R", "shin.R")),
]


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


def test_heads_stay_around_the_root_wherever_it_stands_now() -> None:
    """The file may show another frame of an earlier action than the one the take was captured from."""
    obj = fixtures.two_roots()
    rig = rig_from_armature(obj)
    for frame, place in ((1, (0, 0, 0)), (20, (3, -1, 0.5))):
        obj.pose.bones["hips"].location = place
        obj.pose.bones["chest"].scale = np.add(place, 1.5)
        obj.pose.bones["hips"].keyframe_insert("location", frame=frame)
        obj.pose.bones["chest"].keyframe_insert("scale", frame=frame)
    bpy.context.scene.frame_set(1)
    reference = pose_of(obj, rig)
    bpy.context.scene.frame_set(12)
    root = pose_of(obj, rig)[0, :3, 3]
    motion = random_motion(rig, 6, seed=8)
    write_motion(obj, rig, motion, reference, name="take", start_frame=1, fps=30)
    poses = assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)
    assert np.abs(poses[:, 0, :3, 3] - root).max() < 1e-6


def test_a_bone_rolled_since_the_capture_still_takes_the_turn() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 4, seed=0)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    obj.data.edit_bones["forearm.L"].roll += 1.0
    bpy.ops.object.mode_set(mode="OBJECT")
    write(obj, rig, motion)
    assert_shows(obj, rig_from_armature(obj), 1 + np.arange(4), motion.matrices, motion.positions)


def test_metarigs() -> None:
    bpy.ops.preferences.addon_enable(module="rigify")  # stays enabled: Rigify cannot be enabled again once it was disabled
    for kind in ("human", "basic_quadruped", "bird"):
        getattr(bpy.ops.object, f"armature_{kind}_metarig_add")()
        obj = bpy.context.object
        rig = rig_from_armature(obj)
        motion = random_motion(rig, 4, seed=6)
        write(obj, rig, motion)
        assert_shows(obj, rig, 1 + np.arange(4), motion.matrices, motion.positions)


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
    rotations = np.stack(
        [Slerp(motion.times, Rotation.from_matrix(m))(seconds).as_matrix() for m in motion.matrices.swapaxes(0, 1)], 1
    )
    positions = np.empty((keys, len(rig.names), 3))
    for joint in range(len(rig.names)):
        for axis in range(3):
            positions[:, joint, axis] = np.interp(seconds, motion.times, motion.positions[:, joint, axis])
    assert_shows(obj, rig, frames, rotations, positions)


def test_a_fractional_start_still_keys_whole_frames() -> None:
    obj = fixtures.no_mesh()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 20, seed=1)
    action = write(obj, rig, motion, start=3.5)
    assert keys_of(curves_of(action)[0])[:, 0].tolist() == list(range(4, 23))
    # frame 4 lies halfway between the take's first two frames
    expected, _ = sample(motion, (np.arange(4, 23) - 3.5) / 30)
    assert_shows(obj, rig, np.arange(4, 23), quaternion_to_matrix(expected), np.zeros((19, 3, 3)))


def test_between_keys_the_motion_is_smooth() -> None:
    """Halfway between two keys the pose is close to halfway, for every rotation mode."""
    for name in ("euler_bones", "axis_angle_bones", "snake"):
        obj = RIGS[name]()
        rig = rig_from_armature(obj)
        angle = 2.5 * np.sin(np.arange(60) / 12)[:, None] * np.linspace(0.3, 1, len(rig.names))
        rotations = axis_angle_to_matrix(np.broadcast_to([0.6, 0.0, 0.8], (*angle.shape, 3)), angle)
        motion = replace(
            random_motion(rig, 60, seed=2), rotations=[[Matrix(m).to_quaternion() for m in row] for row in rotations]
        )
        write(obj, rig, motion)
        frames = 1.5 + np.arange(59)
        turned = rig.rotations(played(obj, rig, frames))
        cosine = (np.einsum("fjab,fjab->fj", turned, quaternion_to_matrix(sample(motion, (frames - 1) / 30)[0])) - 1) / 2
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 3


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
    turned = rig.rotations(poses)
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
    assert np.abs(rig.rotations(pose_of(obj, rig)) - motion.matrices[2]).max() < TOLERANCE

"""Rigs as they are found in real files, each captured onto with the operator: links, overrides, scenes, hiding, scales, locks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import rig_check
from anyrig.addon.command_line import commands
from anyrig.addon.keying.write_action import EULER_MODES
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.rig.bone_warnings import warnings_of
from anyrig.addon.rig.meshes import meshes_of
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, geodesic_angle, nearest_orthogonal
from anyrig.tests.addon import fixtures, synthetic
from anyrig.tests.addon.fixtures import BoneSpec, chain, make_rig
from anyrig.tests.addon.playback import assert_shows, curves_of, paths_of, played
from anyrig.tests.addon.synthetic import capture_onto, frames_of

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> synthetic.MadeUp:
    return synthetic.use(monkeypatch)


def assert_captured(made_up: synthetic.MadeUp, *objects: bpy.types.Object) -> None:
    assert capture_onto(*objects) == {"FINISHED"}
    for obj, rig, motion in zip(objects, made_up.rigs, made_up.motions, strict=True):
        assert obj.animation_data.action
        assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)


def assert_refused(made_up: synthetic.MadeUp, obj: bpy.types.Object, match: str) -> None:
    """Refused before anything is computed."""
    with pytest.raises(RuntimeError, match=match):
        capture_onto(obj)
    assert not made_up.rigs and not bpy.data.actions


# ---- libraries


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A file with a collection that holds the human and its mesh; the current file is empty again."""
    path, character = str(tmp_path / "library.blend"), bpy.data.collections.new("Character")
    fixtures.human()
    for obj in bpy.context.collection.objects:
        character.objects.link(obj)
    bpy.data.libraries.write(path, {character})
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return path


def linked_character(path: str) -> bpy.types.Collection:
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.collections = ["Character"]
    character = wanted.collections[0]
    bpy.context.scene.collection.children.link(character)
    bpy.context.view_layer.update()
    return character


def test_linked_characters_are_refused_before_the_video_is_read(made_up: synthetic.MadeUp, library: str) -> None:
    linked_character(library)
    assert_refused(made_up, bpy.data.objects["Human"], "'Human' is linked from another file: make a library override")


@pytest.mark.parametrize("editable", [False, True])
def test_overridden_characters_keep_their_keys_when_saved(
    made_up: synthetic.MadeUp, library: str, tmp_path: Path, editable: bool
) -> None:
    character = linked_character(library)
    made = character.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer, do_fully_editable=editable)
    bpy.context.scene.collection.children.unlink(character)
    obj = next(each for each in made.all_objects if each.type == "ARMATURE")
    assert_captured(made_up, obj)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    obj = next(each for each in bpy.data.objects if each.type == "ARMATURE" and each.override_library)
    (motion,) = made_up.motions
    assert_shows(obj, made_up.rigs[0], frames_of(motion), motion.matrices, motion.positions)


# ---- scenes, hiding, modes


def test_an_armature_of_another_scene_is_refused(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    other = bpy.data.scenes.new("Other")
    other.collection.objects.link(obj)
    bpy.context.scene.collection.objects.unlink(obj)
    bpy.context.scene.anyrig.armature = obj
    bpy.context.scene.anyrig["video"] = "/clips/walk.mp4"
    with pytest.raises(RuntimeError, match="'Human' is not in scene 'Scene' but in scene 'Other': switch to that scene first"):
        bpy.ops.anyrig.capture()
    assert not made_up.rigs and obj.animation_data is None


def test_an_armature_in_two_scenes_is_captured_onto(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    bpy.data.scenes.new("Other").collection.objects.link(obj)
    assert_captured(made_up, obj)


HIDING: dict[str, Callable[[bpy.types.Object], Any]] = {
    "eye": lambda obj: obj.hide_set(True),
    "monitor": lambda obj: setattr(obj, "hide_viewport", True),
    "camera": lambda obj: setattr(obj, "hide_render", True),
}


@pytest.mark.parametrize("how", HIDING)
def test_hidden_armatures_are_captured_onto_in_the_pose_that_their_mesh_shows(made_up: synthetic.MadeUp, how: str) -> None:
    obj = fixtures.human()
    bpy.context.scene.anyrig.armature = obj
    HIDING[how](obj)
    obj.pose.bones["hips"].rotation_quaternion = (0.6, 0, 0.8, 0)
    bpy.context.scene.anyrig["video"] = "/clips/walk.mp4"
    bpy.context.scene.render.fps = int(synthetic.FPS)
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)


@pytest.mark.parametrize("how", ["eye", "monitor"])
def test_an_armature_that_is_hidden_with_its_mesh_is_refused(made_up: synthetic.MadeUp, how: str) -> None:
    obj = fixtures.human()
    bpy.context.scene.anyrig.armature = obj
    bpy.context.scene.anyrig["video"] = "/clips/walk.mp4"
    for each in bpy.context.scene.objects:
        HIDING[how](each)
    with pytest.raises(RuntimeError, match="'Human' is hidden, and so are all its meshes: show one of them"):
        bpy.ops.anyrig.capture()
    assert not made_up.rigs


def test_an_armature_is_refused_whose_bones_are_edited_through_another_object(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    twin = obj.copy()
    bpy.context.collection.objects.link(twin)
    bpy.context.view_layer.objects.active = twin
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.context.scene.anyrig.armature = obj
    bpy.context.scene.anyrig["video"] = "/clips/walk.mp4"
    with pytest.raises(RuntimeError, match="'Human' is in edit mode.*leave edit mode"):
        bpy.ops.anyrig.capture()
    assert not made_up.rigs


# ---- objects that share things


def test_one_armature_datablock_used_twice(made_up: synthetic.MadeUp) -> None:
    first = fixtures.two_roots()
    second = first.copy()
    bpy.context.collection.objects.link(second)
    second.location = (2, 0, 0)
    assert_captured(made_up, first, second)
    assert first.animation_data.action != second.animation_data.action
    # and one after the other: the second take leaves the first armature's keys alone
    before = first.animation_data.action
    assert_captured(made_up, second)
    assert first.animation_data.action == before


def test_several_armatures_share_one_mesh(made_up: synthetic.MadeUp) -> None:
    """Each is keyed on the bones of its own that move the mesh."""
    body = fixtures.human()
    skin = next(obj for obj in bpy.data.objects if obj.type == "MESH")
    specs = chain(["jaw", "lip"], None, [(0, 0, 1.65), (0, -0.1, 1.62), (0, -0.15, 1.62)]) + [
        BoneSpec("loose", None, (1, 0, 0), (1, 0, 1))
    ]
    face = make_rig("Face", specs, mesh=False)
    for name in ("jaw", "lip"):
        skin.vertex_groups.new(name=name).add(range(8), 0.5, "REPLACE")
    skin.modifiers.new("Face", "ARMATURE").object = face
    bpy.context.view_layer.update()
    assert_captured(made_up, body, face)
    assert set(made_up.rigs[1].names) == {"jaw", "lip"} and len(made_up.rigs[0].names) == 21


# ---- sizes and scales


def test_three_hundred_bones(made_up: synthetic.MadeUp) -> None:
    points = [(0.3 * np.sin(0.2 * i), 0.02 * i, 0.3 * np.cos(0.2 * i)) for i in range(101)]
    specs = chain([f"a{i}" for i in range(100)], None, points)
    specs += chain([f"b{i}" for i in range(100)], "a50", [(x + 1, y, z) for x, y, z in points])
    specs += chain([f"c{i}" for i in range(100)], "a0", [(x - 1, y, z) for x, y, z in points])
    obj = make_rig("Three hundred", specs)
    assert_captured(made_up, obj)
    assert len(made_up.rigs[0].names) == 300 and len(curves_of(obj.animation_data.action)) == 1200


def test_bones_of_no_length(made_up: synthetic.MadeUp) -> None:
    """Blender removes bones shorter than a millionth when edit mode is left; importers make ones just above that."""
    specs = [BoneSpec("hips", None, (0, 0, 1), (0, 0, 1 + 3e-6)), BoneSpec("spine", "hips", (0, 0, 1), (0, 0.1, 1.4))]
    specs += [BoneSpec("tip", "spine", (0, 0.1, 1.4), (2e-6, 0.1, 1.4))]
    obj = make_rig("Short", specs)
    meshes_of(obj)[0].vertex_groups["hips"].add(range(8, 16), 0.5, "REPLACE")  # its own box is too small to count as skin
    assert_captured(made_up, obj)
    assert made_up.rigs[0].names == ("hips", "spine", "tip")


@pytest.mark.parametrize("scale", [(-1, 1, 1), (-0.5, -2, -1), (1, -1, 1)])
def test_mirrored_objects(made_up: synthetic.MadeUp, scale: tuple[float, float, float]) -> None:
    obj = fixtures.human()
    obj.scale, obj.rotation_euler = scale, (0.2, 0.4, -1)
    assert_captured(made_up, obj)
    world = made_up.rigs[0].world
    assert np.linalg.det(world) < 0 and np.allclose(world @ world.T, np.eye(3), atol=1e-6)
    assert np.allclose(world, nearest_orthogonal(np.array(obj.matrix_world)), atol=1e-6)


def test_a_mirrored_object_shows_the_turn_that_the_video_shows() -> None:
    """A turn seen in the world, taken into the axes of a mirrored armature and keyed there, turns the mesh so in the world."""
    obj = fixtures.human()
    obj.scale = (-1, 1, 1)
    rig = rig_from_armature(obj)
    seen = axis_angle_to_matrix(np.array([[0.0, 0.0, 1.0]]), np.array([0.7]))[0]
    turn = rig.world.T @ seen @ rig.world
    pose = np.tile(np.eye(4), (len(rig.names), 1, 1))
    pose[:, :3, :3] = turn @ rig.rest_rotations
    world = np.array(obj.matrix_world)[:3, :3]
    assert np.allclose(world @ rig.rotations(pose)[0] @ np.linalg.inv(world), seen, atol=1e-6)


def test_a_bone_mirrored_by_its_scale_is_refused(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    obj.pose.bones["upper_arm.R"].scale = (-1, 1, 1)
    assert_refused(
        made_up, obj, "Bone 'upper_arm.R' of armature 'Human' is mirrored by a negative scale: make the scale positive"
    )


def test_names_that_need_escaping(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.odd_names()
    obj.pose.bones['quote"d'].constraints.new("COPY_ROTATION").target = obj
    obj.pose.bones['quote"d'].constraints[0].subtarget = "back\\slash"
    obj.pose.bones['quote"d'].constraints[0].mute = True
    obj.pose.bones["back\\slash"].lock_rotation = (False, True, True)
    assert capture_onto(obj) == {"FINISHED"}
    paths = paths_of(obj.animation_data.action)
    assert {path.split("]")[0] + "]" for path in paths} >= {'pose.bones["quote\\"d"]', 'pose.bones["back\\\\slash"]'}
    assert len(paths) == 7
    obj.driver_add('pose.bones["quote\\"d"].rotation_quaternion', 0)
    assert any("'quote\"d'" in line and "driver" in line for line in warnings_of(obj, made_up.rigs[0].names))


# ---- locks


def lock(obj: bpy.types.Object, name: str, axes: tuple[bool, bool, bool], mode: str, w: bool = False, four: bool = False) -> Any:
    bone = obj.pose.bones[name]
    bone.rotation_mode, bone.lock_rotation, bone.lock_rotation_w, bone.lock_rotations_4d = mode, axes, w, four
    return bone


MODES = ("QUATERNION", "AXIS_ANGLE", *EULER_MODES)
AXES = [(True, False, False), (False, True, True), (True, True, True), (True, False, True)]


def rotation_values(bone: bpy.types.PoseBone) -> list[float]:
    paths = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}
    return list(getattr(bone, paths.get(bone.rotation_mode, "rotation_euler")))


def locked_euler(bone: bpy.types.PoseBone) -> Any:
    return np.array(bone.matrix_basis.to_euler(bone.rotation_mode if len(bone.rotation_mode) == 3 else "XYZ"))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("mode", MODES)
def test_locked_rotations_stay_and_the_others_make_up_for_them(
    made_up: synthetic.MadeUp, mode: str, axes: tuple[bool, bool, bool]
) -> None:
    obj = fixtures.human()
    bone = lock(obj, "forearm.L", axes, mode)
    bone.matrix_basis = bone.matrix_basis @ fixtures_turn(0.3)
    before, angles = rotation_values(bone), locked_euler(bone)
    assert capture_onto(obj) == {"FINISHED"}
    curves = {(c.data_path, c.array_index) for c in curves_of(obj.animation_data.action) if '"forearm.L"' in c.data_path}
    free = [axis for axis in range(3) if not axes[axis]]
    if len(mode) == 3:
        assert {index for _, index in curves} == set(free)
    else:
        assert len(curves) == (4 if free else 0)
    (rig,), (motion,) = made_up.rigs, made_up.motions
    at, others = rig.names.index("forearm.L"), [j for j, name in enumerate(rig.names) if name != "forearm.L"]
    poses = played(obj, rig, frames_of(motion))
    shown = rig.rotations(poses)
    assert geodesic_angle(shown[:, others], motion.matrices[:, others]).max() < 1e-3, "the hand makes up for the forearm"
    missed = geodesic_angle(shown[:, at], motion.matrices[:, at])
    assert missed.max() > 0.05, "nothing was locked"
    for frame in frames_of(motion):
        bpy.context.scene.frame_set(int(frame))
        now = rotation_values(bone)
        if len(mode) == 3:
            assert np.allclose(np.array(now)[list(axes)], np.array(before)[list(axes)], atol=1e-5)
        elif not free:
            assert np.allclose(now, before, atol=1e-5)
        else:
            assert euler_reaches(bone, angles, axes)


def fixtures_turn(angle: float) -> Any:
    from mathutils import Matrix

    return Matrix.Rotation(angle, 4, (0.6, 0.0, 0.8))


def euler_reaches(bone: bpy.types.PoseBone, angles: Any, axes: tuple[bool, bool, bool]) -> bool:
    """Whether one of the two sets of XYZ angles of the bone's rotation has the locked ones as they were."""
    first = locked_euler(bone)
    second = np.array([first[0] + np.pi, np.pi - first[1], first[2] + np.pi])
    return any(np.allclose(np.sin((each - angles)[list(axes)] / 2), 0, atol=1e-3) for each in (first, second))


@pytest.mark.parametrize("mode", ["XYZ", "YZX"])
def test_a_hinge_takes_the_angle_nearest_to_the_take(made_up: synthetic.MadeUp, mode: str) -> None:
    """No other angle about the free axis comes nearer to the wanted turn."""
    obj = fixtures.human()
    bone = lock(obj, "shin.L", (False, True, True), mode)
    assert capture_onto(obj) == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    at = rig.names.index("shin.L")
    wanted, parent = motion.matrices[:, at], motion.matrices[:, rig.parents[at]]
    rest = rig.rest_rotations[at]
    poses = played(obj, rig, frames_of(motion))
    missed = geodesic_angle(rig.rotations(poses)[:, at], wanted)
    tries = [axis_angle_to_matrix(np.array([1.0, 0, 0]), np.array(angle)) for angle in np.linspace(-np.pi, np.pi, 181)]
    least = np.min([geodesic_angle(parent @ rest @ each @ rest.T, wanted) for each in tries], axis=0)
    assert (missed <= least + 1e-3).all()
    assert np.abs(np.diff([bone_angle(obj, bone, frame) for frame in frames_of(motion)])).max() < np.pi


def bone_angle(obj: bpy.types.Object, bone: bpy.types.PoseBone, frame: int) -> float:
    bpy.context.scene.frame_set(int(frame))
    return bone.rotation_euler[0]


@pytest.mark.parametrize(
    ("axes", "w"),
    [((True, False, False), False), ((False, False, False), True), ((True, True, True), False), ((True, True, True), True)],
)
def test_quaternions_locked_by_component(made_up: synthetic.MadeUp, axes: tuple[bool, bool, bool], w: bool) -> None:
    obj = fixtures.human()
    bone = lock(obj, "forearm.L", axes, "QUATERNION", w, four=True)
    bone.rotation_quaternion = (0.8, 0.6, 0, 0)
    assert capture_onto(obj) == {"FINISHED"}
    locked = {index for index, each in enumerate((w, *axes)) if each}
    curves = {c.array_index for c in curves_of(obj.animation_data.action) if '"forearm.L"' in c.data_path}
    assert curves == ({0, 1, 2, 3} - locked if len(locked) < 3 else set())
    for frame in frames_of(made_up.motions[0]):
        bpy.context.scene.frame_set(int(frame))
        now = np.array(bone.rotation_quaternion)
        assert np.allclose(now[list(locked)], np.array((0.8, 0.6, 0, 0))[list(locked)], atol=1e-5)
        assert abs(np.linalg.norm(now) - 1) < 1e-4


def test_an_axis_angle_bone_with_a_locked_axis_is_a_hinge(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    bone = lock(obj, "forearm.L", (True, True, True), "AXIS_ANGLE", four=True)
    bone.rotation_axis_angle = (0.2, 0, 0, 1)
    assert capture_onto(obj) == {"FINISHED"}
    assert [c.array_index for c in curves_of(obj.animation_data.action) if '"forearm.L"' in c.data_path] == [0]
    bpy.context.scene.frame_set(3)
    assert tuple(bone.rotation_axis_angle)[1:] == (0, 0, 1)


def test_locked_locations_are_not_keyed(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.two_roots()
    bone = obj.pose.bones["foot_target.L"]
    bone.lock_location, bone.location = (False, True, False), (0.1, 0.2, 0.3)
    assert capture_onto(obj) == {"FINISHED"}
    curves = {
        c.array_index for c in curves_of(obj.animation_data.action) if c.data_path == 'pose.bones["foot_target.L"].location'
    }
    assert curves == {0, 2}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    poses = played(obj, rig, frames_of(motion))
    assert np.abs(rig.rotations(poses) - motion.matrices).max() < 1e-4
    assert bone.location[1] == pytest.approx(0.2)


# ---- warnings


def constrained() -> bpy.types.Object:
    obj = fixtures.human()
    bones = obj.pose.bones
    for name, kind in (("hand.L", "IK"), ("head", "COPY_ROTATION"), ("chest", "COPY_LOCATION"), ("neck", "COPY_ROTATION")):
        constraint = bones[name].constraints.new(kind)
        constraint.target, constraint.subtarget = obj, "foot.R"
    bones["hand.L"].constraints[0].chain_count = 3
    bones["neck"].constraints[0].mute = True
    bones["toe.L"].lock_rotation = (True, True, True)
    bones["toe.R"].lock_rotation = (False, True, True)
    driver = obj.driver_add('pose.bones["foot.L"].rotation_quaternion', 1)
    driver.driver.expression = "0.5"
    return obj


def test_bones_that_will_not_obey_are_named() -> None:
    obj = constrained()
    lines = warnings_of(obj, rig_from_armature(obj).names)
    assert lines == [
        "Bone 'head' will not follow its keys: a constraint (Copy Rotation) moves it; mute it to see the take.",
        "Bones 'hand.L', 'forearm.L', 'upper_arm.L' will not follow their keys: a constraint (Inverse Kinematics) moves them; "
        "mute it to see the take.",
        "Bone 'foot.L' will not follow its keys: a driver sets it; mute or remove it to see the take.",
        "Bone 'toe.L' will not rotate: the rotation is locked; unlock it in the bone's Transform panel if the take should rotate it.",
        "Bone 'toe.R' will follow the take only about the axes that are not locked.",
    ]
    assert warnings_of(obj, ["chest", "neck", "not there"]) == []
    assert warnings_of(fixtures.bird(), rig_from_armature(obj).names) == []


def test_settings_that_hide_the_take_are_named() -> None:
    obj = fixtures.human()
    obj.data.pose_position = "REST"
    data = obj.animation_data_create()
    data.nla_tracks.new().name = "Walk"
    data.nla_tracks[0].is_solo = True
    data.action_influence = 0.5
    found = "\n".join(warnings_of(obj, ["hips"]))
    assert "'Human' is in rest position" in found and "'Walk' of 'Human' plays solo" in found and "blended" in found


def test_check_rig_reports_them_before_the_capture() -> None:
    obj = constrained()
    bpy.context.view_layer.objects.active = obj
    assert bpy.ops.anyrig.check_rig() == {"FINISHED"}
    assert rig_check._found[obj.session_uid].warnings == warnings_of(obj, rig_from_armature(obj).names)
    bpy.data.objects["Human"].pose.bones["toe.L"].scale = (-1, 1, 1)
    with pytest.raises(RuntimeError, match="Bone 'toe.L'.*negative scale"):
        bpy.ops.anyrig.check_rig()


def test_the_bones_named_are_those_that_disobey(made_up: synthetic.MadeUp) -> None:
    obj = constrained()
    assert capture_onto(obj) == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    shown = rig.rotations(played(obj, rig, frames_of(motion)))
    missed = geodesic_angle(shown, motion.matrices).max(0)
    wrong = {name for name, angle in zip(rig.names, missed) if angle > 0.05}
    assert wrong >= {"head", "hand.L", "forearm.L", "upper_arm.L", "foot.L", "toe.L", "toe.R"}
    assert not wrong & {"hips", "spine", "chest", "neck", "thigh.L", "shin.L", "upper_arm.R", "foot.R"}


def test_the_command_line_prints_the_warnings(made_up: synthetic.MadeUp, capsys: pytest.CaptureFixture[str]) -> None:
    constrained()
    with bpy.context.temp_override(window=None):
        assert commands.main(["capture", "--video", "/clips/walk.mp4", "--armature", "Human"]) == 0
    printed = capsys.readouterr()
    assert "Warning: Bone 'head' will not follow its keys" in printed.err and made_up.rigs
    assert pose_of(bpy.data.objects["Human"], made_up.rigs[0]).shape == (21, 4, 4)

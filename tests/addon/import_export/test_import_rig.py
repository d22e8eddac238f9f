"""Rigs from files, and their actions: labels, who owns them, poses without stale channels."""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.import_export import import_rig as import_rig_module
from anyrig.addon.import_export.import_rig import import_rig
from anyrig.addon.rig.actions import (
    action_frames,
    action_label,
    actions_of,
    assign_action,
    find_action,
    pose_frames,
)
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.backend.errors import UserError
from anyrig.tests.addon.fixtures import chain, make_rig

NAMES = ("a", "b", "c")
POINTS = [(0.0, 0.0, 0.0), (0.0, 0.1, 1.0), (0.0, 0.0, 2.0), (0.0, 0.3, 2.5)]


def rig(name: str = "Rig", names: tuple[str, ...] = NAMES) -> bpy.types.Object:
    return make_rig(name, chain(list(names), None, POINTS))


def animate(obj: bpy.types.Object, name: str, keys: dict[str, list[float]], first: int = 1) -> bpy.types.Action:
    """A new action that turns bones about their x axes (radians), one key a frame."""
    data = obj.animation_data or obj.animation_data_create()
    data.action = action = bpy.data.actions.new(name)
    for bone, angles in keys.items():
        pose = obj.pose.bones[bone]
        for frame, angle in enumerate(angles, first):
            pose.rotation_quaternion = (math.cos(angle / 2), math.sin(angle / 2), 0, 0)
            pose.keyframe_insert("rotation_quaternion", frame=frame)
    return action


def as_strips(obj: bpy.types.Object, *actions: bpy.types.Action) -> None:
    """One NLA track per action, as exporters want several clips."""
    for action in actions:
        track = obj.animation_data.nla_tracks.new()
        track.name = action.name
        track.strips.new(action.name, int(action.frame_range[0]), action)
    obj.animation_data.action = None


def angles(poses: np.ndarray, joint: int) -> np.ndarray:
    """Turn of a joint against its parent, radians, away from the first frame's."""
    local = np.linalg.inv(poses[:, joint - 1]) @ poses[:, joint]
    turn = local @ np.linalg.inv(local[:1])
    return np.arccos(np.clip((turn[:, :3, :3].trace(axis1=1, axis2=2) - 1) / 2, -1, 1))


def test_bones_without_keys_are_at_rest_whatever_came_before() -> None:
    obj = rig()
    action = animate(obj, "Nod", {"a": [0.5, 1.0]})
    animate(obj, "Other", {"c": [0.7]})
    bpy.context.scene.frame_set(1)
    poses = pose_frames(obj, action, NAMES, [1, 2])
    rest = np.array([bone.matrix_local for bone in obj.data.bones])
    assert np.allclose(np.linalg.inv(poses[:, 0]) @ poses[:, 2], np.linalg.inv(rest[0]) @ rest[2], atol=1e-6)
    assert not np.allclose(poses[0, 0], poses[1, 0], atol=0.1)


def test_frames_between_keys_and_any_order_of_joints() -> None:
    obj = rig()
    action = animate(obj, "Nod", {"b": [0.0, 1.0]})
    for curve in (
        bpy.data.actions["Nod"].fcurves if not hasattr(action, "slots") else action.layers[0].strips[0].channelbags[0].fcurves
    ):
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"
    poses = pose_frames(obj, action, NAMES, [1, 1.5, 2])
    assert angles(poses, 1) == pytest.approx([0, 0.5, 1.0], abs=0.03)
    assert np.array_equal(pose_frames(obj, action, ("c", "a"), [1.5])[0], poses[1, [2, 0]])


def test_reading_poses_leaves_everything_as_it_was() -> None:
    obj = rig()
    action = animate(obj, "Nod", {"a": [0.5, 1.0]})
    mine = animate(obj, "Mine", {"b": [0.3]})
    as_strips(obj, action)
    assign_action(obj, mine)
    bpy.context.scene.frame_set(7, subframe=0.25)
    obj.pose.bones["c"].rotation_mode = "XYZ"
    obj.pose.bones["c"].rotation_euler = (0, 9.0, 0)  # more than a turn: a matrix would not bring it back
    bpy.context.view_layer.update()
    before = pose_of(obj, rig_from_armature(obj))
    pose_frames(obj, action, NAMES, [1, 2])
    assert obj.animation_data.action == mine and obj.animation_data.use_nla
    assert (bpy.context.scene.frame_current, bpy.context.scene.frame_subframe) == (7, 0.25)
    assert obj.pose.bones["c"].rotation_euler.y == 9.0
    assert np.allclose(pose_of(obj, rig_from_armature(obj)), before, atol=1e-6)


def test_motion_of_the_object_is_folded_in() -> None:
    obj = rig()
    action = animate(obj, "Walk", {"a": [0.0, 0.0]})
    for frame, y in ((1, 0.0), (2, 3.0)):
        obj.location.y = y
        obj.keyframe_insert("location", frame=frame)
    bpy.context.scene.frame_set(1)
    poses = pose_frames(obj, action, NAMES, [1, 2])
    assert np.allclose(poses[1, :, :3, 3] - poses[0, :, :3, 3], [0, 3, 0], atol=1e-5)
    assert obj.location.y == 0.0


def test_a_bone_that_does_not_exist_is_named() -> None:
    obj = rig()
    action = animate(obj, "Nod", {"a": [0.5]})
    with pytest.raises(UserError, match="Bone 'z' is not in armature 'Rig'"):
        pose_frames(obj, action, ("a", "z"), [1])


def test_actions_belong_to_the_armature_they_animate() -> None:
    first, twin = rig("First"), rig("Twin")
    stranger = rig("Stranger", ("x", "y", "z"))
    nod, loose = animate(first, "Nod", {"a": [0.1]}), animate(first, "Loose", {"b": [0.1]})
    animate(first, "Active", {"c": [0.1]})
    animate(twin, "Twin's", {"a": [0.1]})
    other = animate(stranger, "Other", {"x": [0.1]})
    as_strips(first, nod)
    assert [action.name for action in actions_of(first)] == ["Active", "Loose", "Nod"]
    assert loose in actions_of(twin) and nod not in actions_of(twin)
    assert actions_of(stranger) == [other]


def test_labels_drop_what_importers_add() -> None:
    obj = rig("Armature")
    for name in ("Armature|TRex_Run", "0|Attack", "Walk"):
        assert action_label(animate(obj, name, {"a": [0.1]})) == name.rsplit("|")[-1]
    legacy = animate(obj, "Armature|Jump_Armature", {"a": [0.1]})
    assert action_label(legacy) == ("Jump_Armature" if hasattr(legacy, "slots") else "Jump")


def test_actions_are_found_by_label_and_behind_a_prefix() -> None:
    obj = rig()
    run, walk = animate(obj, "X|TRex_Run", {"a": [0.1]}), animate(obj, "X|Walk", {"a": [0.1]})
    assert find_action(obj, "Walk") == walk and find_action(obj, "X|Walk") == walk
    assert find_action(obj, "TRex_Run") == run and find_action(obj, "run") == run
    with pytest.raises(UserError, match=r"no action 'Fly': choose one of its actions \('TRex_Run', 'Walk'\)"):
        find_action(obj, "Fly")
    animate(obj, "Y|Walk", {"a": [0.1]})
    with pytest.raises(UserError, match="could be any of 'X|Walk', 'Y|Walk'"):
        find_action(obj, "Walk")


def test_frames_are_whole_and_inside_the_action() -> None:
    action = animate(rig(), "Nod", {"a": [0.1, 0.2, 0.3]}, first=-1)
    assert action_frames(action).tolist() == [-1, 0, 1]


def export(path: Path, obj: bpy.types.Object) -> Path:
    """The scene as .glb, .fbx, .bvh or .blend."""
    match path.suffix:
        case ".glb":
            bpy.ops.export_scene.gltf(filepath=str(path), export_force_sampling=False, export_rest_position_armature=False)
        case ".fbx":
            bpy.ops.export_scene.fbx(filepath=str(path), add_leaf_bones=False, bake_anim_use_nla_strips=False)
        case ".bvh":
            bpy.context.view_layer.objects.active = obj
            bpy.ops.export_anim.bvh(filepath=str(path), frame_start=1, frame_end=3)
        case ".blend":
            bpy.ops.wm.save_as_mainfile(filepath=str(path), copy=True)
    return path


@pytest.mark.parametrize("kind", ["glb", "fbx", "bvh", "blend"])
def test_a_rig_comes_back_from_its_file_with_its_motion(kind: str, tmp_path: Path) -> None:
    obj = rig()
    bpy.context.scene.render.fps = 30 if kind == "bvh" else 24
    animate(obj, "Nod", {"b": [0.0, 0.6, 1.0]})
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 1, 3
    path = export(tmp_path / f"rig.{kind}", obj)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    found = import_rig(path)
    assert [bone.name for bone in found.data.bones if bone.name in NAMES] == list(NAMES)
    (action,) = actions_of(found)
    frames = action_frames(action)
    assert frames[:3].tolist() == ([0, 1, 2] if kind == "fbx" else [1, 2, 3])  # FBX counts from the scene's first frame
    assert angles(pose_frames(found, action, NAMES, frames[:3]), 1) == pytest.approx([0, 0.6, 1.0], abs=2e-3)
    assert bpy.context.scene.render.fps == (30 if kind == "bvh" else 24)
    assert not any(o.type == "MESH" and o.name.startswith("Icosphere") for o in bpy.data.objects)


def test_an_fbx_file_with_a_lamp(tmp_path: Path) -> None:
    """The older importer of Blender 5.0 fails on lamps. Where there is a newer one it reads the file, as if the older had not tried."""
    obj = rig()
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "POINT")))
    animate(obj, "Nod", {"b": [0.0, 0.6, 1.0]})
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 1, 3
    path = export(tmp_path / "rig.fbx", obj)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    found = import_rig(path)
    assert [bone.name for bone in found.data.bones] == list(NAMES)
    (action,) = actions_of(found)
    assert action_frames(action).tolist() == [0, 1, 2]
    assert angles(pose_frames(found, action, NAMES, [0, 1, 2]), 1) == pytest.approx([0, 0.6, 1.0], abs=2e-3)
    assert [len(kind) for kind in (bpy.data.armatures, bpy.data.lights, bpy.data.meshes)] == [1, 1, 1]


def test_a_failed_importer_leaves_nothing_and_its_error_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export(tmp_path / "rig.fbx", rig())
    before = set(bpy.data.user_map())

    def fail(path: Path) -> None:
        bpy.data.materials.new("half done")
        raise RuntimeError(f"{path.stem} is odd")

    monkeypatch.setattr(import_rig_module, "_import_older_fbx", fail)
    monkeypatch.setattr(import_rig_module, "_import_newer_fbx", fail)
    with pytest.raises(UserError, match="rig is odd"):
        import_rig(path)
    monkeypatch.setattr(import_rig_module, "_has_newer_fbx", lambda: False)
    with pytest.raises(UserError, match="rig is odd"):
        import_rig(path)
    assert set(bpy.data.user_map()) == before


def test_bones_without_keys_take_the_default_pose_of_a_gltf_file(tmp_path: Path) -> None:
    """The file's default pose bends c by 0.8; 'Nod' keys only b, 'Wave' keys only c."""
    obj = rig()
    nod, wave = animate(obj, "Nod", {"b": [0.0, 0.6]}), animate(obj, "Wave", {"c": [0.1, 0.4]})
    as_strips(obj, nod, wave)
    for track in obj.animation_data.nla_tracks:
        track.mute = True
    obj.pose.bones["b"].rotation_quaternion = (1, 0, 0, 0)
    obj.pose.bones["c"].rotation_quaternion = (math.cos(0.4), math.sin(0.4), 0, 0)
    bpy.context.view_layer.update()
    rest = np.array([bone.matrix_local for bone in obj.data.bones])
    path = export(tmp_path / "rig.glb", obj)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    found = import_rig(path)
    assert np.allclose([found.data.bones[name].matrix_local.translation for name in NAMES], rest[:, :3, 3], atol=1e-5)
    nod, wave = find_action(found, "Nod"), find_action(found, "Wave")
    for order in ((nod, wave), (wave, nod)):
        for action in order:  # in Blender itself too one action must not show through the other
            assign_action(found, action)
            bpy.context.scene.frame_set(int(action_frames(action)[0]))
        poses = pose_frames(found, order[-1], NAMES, action_frames(order[-1])[:1])
        assert np.allclose(pose_of(found, rig_from_armature(found)), poses[0], atol=1e-6)
        bent = angles(np.concatenate([rest[None], poses]), 2)[1]
        assert bent == pytest.approx(0.8 if order[-1] == nod else 0.1, abs=1e-3)


def test_a_blend_file_is_appended_to_a_scene_in_use(tmp_path: Path) -> None:
    animate(rig(), "Nod", {"b": [0.0, 0.6]})
    path = export(tmp_path / "rig.blend", bpy.data.objects["Rig"])
    bpy.data.objects["Rig"].name = "Already here"
    found = import_rig(path)
    assert found.name == "Rig" and "Already here" in bpy.context.scene.objects and "Rig" in bpy.context.scene.objects
    assert angles(pose_frames(found, actions_of(found)[0], NAMES, [1, 2]), 1) == pytest.approx([0, 0.6], abs=1e-3)


def test_the_armature_with_most_bones_or_the_named_one(tmp_path: Path) -> None:
    make_rig("Small", chain(["p"], None, POINTS[:2]))
    path = export(tmp_path / "two.blend", rig("Big"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert import_rig(path).name == "Big"
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert import_rig(path, "Small").name == "Small"
    with pytest.raises(UserError, match="no armature called 'Tiny': choose one of 'Big', 'Small'"):
        import_rig(path, "Tiny")


def test_unfit_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone.glb' does not exist"):
        import_rig(tmp_path / "gone.glb")
    for name, message in (("a.usd", "unknown format: use one of .blend"), ("b.glb", "not a glTF"), ("c.blend", "cannot be read")):
        (tmp_path / name).write_bytes(b"nothing of the sort")
        with pytest.raises(UserError, match=message):
            import_rig(tmp_path / name)
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.export_scene.gltf(filepath=str(tmp_path / "cube.glb"))
    with pytest.raises(UserError, match="'cube.glb' holds no armature"):
        import_rig(tmp_path / "cube.glb")

"""Armature -> Rig: which bones are joints, how they hang together, and that reading changes nothing."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.rig.meshes import meshes_of
from anyrig.backend.errors import UserError
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import RIGS, BoneSpec, add_mesh, chain, make_rig
from mathutils import Matrix

# what hangs elsewhere than in the armature, steps aside or is a prop: test_natural_rigs.py
REHUNG = {"two_roots", "armature_location", "skipped_bones", "hoofed", "footed_biped", "footed_spider"}


def parents_of(rig: Rig) -> dict[str, str | None]:
    return {name: rig.names[parent] if parent >= 0 else None for name, parent in zip(rig.names, rig.parents)}


def marked(rig: Rig, which: np.ndarray) -> set[str]:
    return {name for name, mark in zip(rig.names, which) if mark}


def new_object(name: str, data: bpy.types.ID | None) -> bpy.types.Object:
    obj = bpy.data.objects.new(name, data)
    bpy.context.collection.objects.link(obj)
    return obj


def box(name: str) -> bpy.types.Object:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [], [(0, 1, 2)])
    return new_object(name, mesh)


@pytest.mark.parametrize("name", RIGS)
def test_values_are_the_bones_own(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    for joint, bone in enumerate(rig.names):
        assert np.array_equal(rig.rest[joint], np.array(obj.data.bones[bone].matrix_local))
        assert np.array_equal(rig.tails[joint], np.array(obj.data.bones[bone].tail_local))
    assert Rig.from_json(rig.to_json()).names == rig.names


@pytest.mark.parametrize("name", sorted(set(RIGS) - REHUNG))
def test_one_root_keeps_armature_order_and_parents(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    order = [bone.name for bone in obj.data.bones if bone.name in rig.names]
    assert list(rig.names) == order
    assert parents_of(rig) == {n: obj.data.bones[n].parent.name if obj.data.bones[n].parent else None for n in order}
    assert not rig.translates.any() and not rig.static.any()


def test_feet_on_roots_hang_on_their_shins_and_a_prop_translates() -> None:
    rig = rig_from_armature(fixtures.two_roots())
    assert rig.names[0] == "hips"
    assert marked(rig, rig.hung) == {"foot_target.L", "foot_target.R"}
    assert marked(rig, rig.translates) == marked(rig, rig.props) == {"stick"}
    parents = parents_of(rig)
    assert [parents[n] for n in ("foot_target.L", "stick", "target_toe.L", "chest")] == [
        "shin.L",
        "hips",
        "foot_target.L",
        "hips",
    ]


def test_a_prop_of_many_bones_does_not_lead() -> None:
    specs = chain(["hips", "chest"], None, [(0, 0, 1), (0, 0, 2), (0, 0, 3)])
    whip = chain([f"whip {i}" for i in range(5)], None, [(5 + 0.1 * i, 0, 1) for i in range(6)])
    rig = rig_from_armature(make_rig("Whip", specs + whip))
    assert rig.names[0] == "hips" and marked(rig, rig.translates) == {"whip 0"}
    assert marked(rig, rig.props) == {f"whip {i}" for i in range(5)}


def test_of_equal_roots_the_first_leads() -> None:
    rig = rig_from_armature(make_rig("Twins", [BoneSpec(n, None, (i, 0, 0), (i, 0, 1)) for i, n in enumerate("ab")]))
    assert rig.names == ("a", "b")
    assert rig.translates.tolist() == [False, True]


def test_joints_are_weighted_deforming_bones_and_their_ancestors() -> None:
    """But for `master`, which moves nothing itself and carries all of the body."""
    rig = rig_from_armature(fixtures.skipped_bones())
    assert rig.names == ("hips", "spine_ctrl", "chest", "arm_ctrl", "arm", "hand")
    assert parents_of(rig)["arm"] == "arm_ctrl" and not (rig.translates | rig.static | rig.hung | rig.props).any()


def test_groups_with_zero_weight_do_not_count() -> None:
    obj = make_rig("Zero", chain(["a", "b"], None, [(0, 0, 0), (0, 0, 1), (0, 0, 2)]))
    skin = meshes_of(obj)[0]
    skin.vertex_groups["b"].add(range(len(skin.data.vertices)), 0.0, "REPLACE")
    assert rig_from_armature(obj).names == ("a",)


def test_without_mesh_all_deforming_bones_are_joints() -> None:
    assert rig_from_armature(fixtures.no_mesh()).names == ("pelvis", "spine", "neck")


def test_a_mesh_parented_with_armature_deform_counts_as_skinned() -> None:
    obj = make_rig("Virtual", chain(["a", "b"], None, [(0, 0, 0), (0, 0, 1), (0, 0, 2)]), mesh=False)
    skin = add_mesh(obj, ["a"])
    skin.modifiers.clear()
    skin.parent_type = "ARMATURE"
    assert rig_from_armature(obj).names == ("a",)


def test_an_object_on_a_bone_counts_as_its_weight() -> None:
    specs = chain(["a", "b", "c", "d"], None, [(0, 0, i) for i in range(5)])
    obj = make_rig(
        "Robot", [*specs[:2], BoneSpec("c", "b", (0, 0, 2), (0, 0, 3), bone={"use_deform": False}), specs[3]], mesh=False
    )
    for bone in "ac":
        knob, holder = box("knob"), new_object("holder", None)
        knob.parent = holder
        holder.parent, holder.parent_type, holder.parent_bone = obj, "BONE", bone
    assert rig_from_armature(obj).names == ("a", "b", "c")


def test_restriction_joins_over_skipped_bones() -> None:
    rig = rig_from_armature(fixtures.skipped_bones(), ["hips", "chest", "arm", "hand"])
    assert parents_of(rig) == {"hips": None, "chest": "hips", "arm": "chest", "hand": "arm"}
    assert not rig.translates.any()


def test_restriction_takes_no_bones_that_move_nothing() -> None:
    assert rig_from_armature(fixtures.skipped_bones(), ["chest", "helper", "elbow_pole"]).names == ("chest",)


def test_limbs_without_their_trunk_stay_attached_to_it() -> None:
    """An arm whose shoulder was left out hangs on flesh: it must not get location keys."""
    rig = rig_from_armature(fixtures.human(), ["upper_arm.L", "forearm.L", "hand.L", "upper_arm.R", "forearm.R"])
    assert rig.names[0] == "upper_arm.L"
    assert parents_of(rig)["upper_arm.R"] == "upper_arm.L"
    assert not rig.translates.any()


def test_targets_below_left_out_controls_translate() -> None:
    rig = rig_from_armature(fixtures.driven_targets(), fixtures.FREE_TARGETS)
    assert {n for n, t in zip(rig.names, rig.translates) if t} == set(fixtures.TARGET_FLAGS)


def test_connected_roots_do_not_translate() -> None:
    off = {"use_deform": False}
    specs = chain(["body", "head"], None, [(1, 0, 0), (1, 0, 1), (1, 0, 2)])
    specs += [BoneSpec("base", None, (0, 0, 0), (0, 0, 1), bone=off), BoneSpec("tip", "base", (0, 0, 1), (0, 0, 2), connect=True)]
    rig = rig_from_armature(make_rig("Connected", specs), ["body", "head", "tip"])
    assert parents_of(rig)["tip"] == "body"
    assert not rig.translates.any()


def test_world_is_the_rotation_of_the_object() -> None:
    obj = fixtures.transformed()
    rig = rig_from_armature(obj)
    axes = np.array(obj.matrix_world)[:3, :3]
    assert np.allclose(rig.world @ rig.world.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rig.world) > 0
    # every axis of the armature keeps its side in the world
    assert ((axes / np.linalg.norm(axes, axis=0) * rig.world).sum(0) > 0.9).all()


def test_world_of_a_turned_object() -> None:
    obj = fixtures.human()
    obj.matrix_world = Matrix.Translation((1, 2, 3)) @ Matrix.Rotation(0.7, 4, "X") @ Matrix.Scale(0.01, 4)
    assert np.allclose(rig_from_armature(obj).world, np.array(Matrix.Rotation(0.7, 3, "X")), atol=1e-6)


def test_meshes_of_leaves_out_bone_shapes_and_other_armatures() -> None:
    obj, other = fixtures.two_roots(), fixtures.human()
    hat, shape, worn, gone = box("hat"), box("shape"), box("worn by another"), box("gone")
    for child in (hat, shape, worn, gone):
        child.parent = obj
    hat.parent_type, hat.parent_bone = "BONE", "head"
    obj.pose.bones["head"].custom_shape = shape
    worn.modifiers.new("Armature", "ARMATURE").object = other
    bpy.context.collection.objects.unlink(gone)
    box("bystander")
    assert {mesh.name for mesh in meshes_of(obj)} == {"Two roots skin", "hat"}
    assert {mesh.name for mesh in meshes_of(other)} == {"Human skin", "worn by another"}


@pytest.mark.parametrize("name", RIGS)
def test_pose_is_the_evaluated_one(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    random = np.random.default_rng(3)
    for bone in obj.pose.bones:
        bone.rotation_quaternion = bone.rotation_axis_angle = random.normal(size=4)
        bone.rotation_euler = bone.location = random.normal(size=3)
    pose = pose_of(obj, rig)
    assert pose.dtype == np.float64
    bpy.context.view_layer.update()
    assert np.array_equal(pose, np.array([obj.pose.bones[bone].matrix for bone in rig.names]))
    assert not np.allclose(pose, rig.rest, atol=0.1)


def test_pose_sees_constraints() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    target = new_object("target", None)
    target.rotation_euler = (0.5, 0.3, 0.1)
    obj.pose.bones["head"].constraints.new("COPY_ROTATION").target = target
    turned = pose_of(obj, rig)[rig.names.index("head"), :3, :3]
    assert np.allclose(turned, np.array(target.rotation_euler.to_matrix()), atol=1e-6)


def test_reading_changes_nothing() -> None:
    obj = fixtures.skipped_bones()
    before = {bone.name: [list(row) for row in bone.matrix_basis] for bone in obj.pose.bones}
    counts = len(bpy.data.objects), len(bpy.data.actions), len(bpy.data.meshes)
    pose_of(obj, rig_from_armature(obj))
    assert before == {bone.name: [list(row) for row in bone.matrix_basis] for bone in obj.pose.bones}
    assert counts == (len(bpy.data.objects), len(bpy.data.actions), len(bpy.data.meshes))
    assert obj.animation_data is None


def test_another_kind_of_object_is_refused() -> None:
    with pytest.raises(UserError, match="'Lamp'.*not an armature"):
        rig_from_armature(new_object("Lamp", None))


def test_an_armature_without_bones_is_refused() -> None:
    with pytest.raises(UserError, match="'Empty'.*no bones"):
        rig_from_armature(make_rig("Empty", []))


def test_an_armature_without_deforming_bones_is_refused() -> None:
    with pytest.raises(UserError, match="'Stiff'.*Deform"):
        rig_from_armature(make_rig("Stiff", [BoneSpec("a", None, (0, 0, 0), (0, 0, 1), bone={"use_deform": False})]))


def test_edit_mode_is_refused() -> None:
    obj = fixtures.no_mesh()
    rig = rig_from_armature(obj)
    bpy.ops.object.mode_set(mode="EDIT")
    with pytest.raises(UserError, match="'No mesh'.*edit mode"):
        rig_from_armature(obj)
    with pytest.raises(UserError, match="edit mode"):
        pose_of(obj, rig)


def test_an_armature_outside_the_scene_is_refused() -> None:
    obj = fixtures.no_mesh()
    stray = bpy.data.objects.new("Stray", obj.data)
    with pytest.raises(UserError, match="'Stray'.*scene"):
        rig_from_armature(stray)


def test_unknown_and_useless_bones_are_refused() -> None:
    obj = fixtures.skipped_bones()
    with pytest.raises(UserError, match="Bone 'tail' is not in armature 'Skipped'"):
        rig_from_armature(obj, ["hips", "tail"])
    with pytest.raises(UserError, match="'Skipped'.*choose"):
        rig_from_armature(obj, ["elbow_pole"])


def test_a_renamed_bone_is_named() -> None:
    obj = fixtures.no_mesh()
    rig = rig_from_armature(obj)
    obj.data.bones["spine"].name = "backbone"
    with pytest.raises(UserError, match="Bone 'spine' is not in armature 'No mesh'"):
        pose_of(obj, rig)


def test_actions_of_the_file_decide_nothing() -> None:
    obj = fixtures.quadruped()
    bone = obj.pose.bones["back"]
    for frame in (1, 10):
        bone.location.x = frame
        bone.keyframe_insert("location", frame=frame)
    assert not rig_from_armature(obj).translates.any()

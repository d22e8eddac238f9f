"""Captures onto control rigs and onto rigs with makers' names, with the operator: what is keyed, what the limbs show, what is left alone."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.keying import control_keys, write_action
from anyrig.addon.rig import auto_rig_pro as auto_rig_pro_maker
from anyrig.addon.rig import rigify as rigify_maker
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.rig.bone_warnings import warnings_of
from anyrig.addon.rig.control_rigs import control_rig
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import Array, geodesic_angle
from anyrig.backend.rig.joint_names import clean_name
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon import fixtures, synthetic
from anyrig.tests.addon.control_fixtures import MAKERS, auto_rig_pro, rigify
from anyrig.tests.addon.fixtures import random_motion
from anyrig.tests.addon.playback import assert_shows, curves_of, keys_of, paths_of, played
from anyrig.tests.addon.synthetic import capture_onto, frames_of

TOLERANCE = np.radians(2)  # of limbs
SPINE = ("spine", "tail")


pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> synthetic.MadeUp:
    return synthetic.use(monkeypatch, frames=5, turning=0.3)


def missed(obj: bpy.types.Object, made_up: synthetic.MadeUp) -> tuple[Array, Array]:
    """(J,) most that the joints' turns, and the directions of their bones, are off, radians."""
    (rig,), (motion,) = made_up.rigs, made_up.motions
    shown, wanted = rig.rotations(played(obj, rig, frames_of(motion))), motion.matrices
    along = rig.rest_rotations[:, :, 1, None]
    angle = np.linalg.norm((shown - wanted) @ along, axis=(-2, -1))
    return geodesic_angle(shown, wanted).max(0), angle.max(0)


def limbs(rig: Rig) -> list[int]:
    return [joint for joint, name in enumerate(rig.names) if not any(word in name for word in SPINE)]


def keyed_bones(obj: bpy.types.Object) -> set[str]:
    return {path.split('"')[1] for path in paths_of(obj.animation_data.action)}


@pytest.mark.parametrize("kind", ["basic_human", "basic_quadruped", "bird"])
def test_rigify_rigs_get_keys_on_their_fk_controls(made_up: synthetic.MadeUp, kind: str) -> None:
    obj = rigify(kind)
    controls = control_rig(obj)
    assert controls is not None and controls.kind == rigify_maker.KIND
    before, head = channels_of(obj), pose_of(obj, rig_from_armature(obj))[0, :3, 3]
    assert capture_onto(obj) == {"FINISHED"}
    keyed = keyed_bones(obj)
    assert not [name for name in keyed if name.startswith(("ORG-", "DEF-", "MCH-", "VIS_")) or "_ik" in name]
    twists = set(controls.twists.values())
    assert all(name.startswith("tweak_spine") for name in twists)
    switches = {switch.bone for switch in controls.switches}
    assert len(switches) == {"basic_human": 4, "basic_quadruped": 4, "bird": 2}[kind]
    assert keyed == switches | twists | {"torso"} | {controls.controls[name] for name in made_up.rigs[0].names}
    turn, _ = missed(obj, made_up)
    assert turn.max() < TOLERANCE, dict(zip(made_up.rigs[0].names, np.degrees(turn).round(2), strict=True))
    heads = played(obj, made_up.rigs[0], frames_of(made_up.motions[0]))[:, 0, :3, 3]
    assert np.abs(heads - head).max() < 2e-3, "the root stays where it is"
    after = channels_of(obj)
    assert {name: value for name, value in before.items() if name not in keyed} == {
        n: v for n, v in after.items() if n not in keyed
    }


def channels_of(obj: bpy.types.Object) -> dict[str, Any]:
    """Every bone's channels and custom numbers."""
    return {
        bone.name: (
            [tuple(row) for row in bone.matrix_basis],
            {key: bone[key] for key in bone.keys() if isinstance(bone[key], float | int)},
        )
        for bone in obj.pose.bones
    }


def test_limbs_are_switched_to_fk_on_the_new_action_alone(made_up: synthetic.MadeUp) -> None:
    obj = rigify("basic_human")
    hand = obj.pose.bones["upper_arm_parent.L"]
    assert hand["IK_FK"] == 0.0
    assert capture_onto(obj) == {"FINISHED"}
    curve = next(c for c in curves_of(obj.animation_data.action) if c.data_path == 'pose.bones["upper_arm_parent.L"]["IK_FK"]')
    assert keys_of(curve).tolist() == [[1.0, 1.0]]
    bpy.context.scene.frame_set(3)
    assert hand["IK_FK"] == 1.0


def test_only_the_chosen_limbs_are_switched_and_keyed(made_up: synthetic.MadeUp) -> None:
    obj = rigify("basic_human")
    bones = obj.data.collections_all["Arm.L (FK)"].bones
    bpy.context.scene.anyrig.bones, bpy.context.scene.anyrig.collection = "COLLECTION", "Arm.L (FK)"
    assert capture_onto(obj) == {"FINISHED"}
    assert made_up.rigs[0].names == ("ORG-upper_arm.L", "ORG-forearm.L", "ORG-hand.L")
    assert keyed_bones(obj) == {bone.name for bone in bones} | {"upper_arm_parent.L"}
    assert missed(obj, made_up)[0].max() < TOLERANCE
    bpy.context.scene.anyrig.collection = "Arm.L (IK)"
    with pytest.raises(RuntimeError, match="None of the chosen bones.*choose FK controls"):
        capture_onto(obj)


def test_a_posed_rig_that_plays_an_action_stays_as_it_was_when_keying_fails(
    made_up: synthetic.MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = rigify("basic_human")
    assert capture_onto(obj) == {"FINISHED"}
    first = obj.animation_data.action
    obj.animation_data.action = None
    obj.pose.bones["thigh_parent.L"]["IK_FK"] = 0.25
    obj.pose.bones["hand_fk.L"].rotation_quaternion = (0.8, 0.6, 0, 0)
    obj.animation_data.action = first
    before, scenes = channels_of(obj), bpy.data.scenes[:]

    def fail(*_: Any) -> None:
        raise UserError("The disk is full: make room.")

    monkeypatch.setattr(write_action, "replace_action", fail)
    with pytest.raises(RuntimeError, match="disk is full"):
        capture_onto(obj)
    assert obj.animation_data.action == first and obj.animation_data.use_nla
    assert bpy.data.scenes[:] == scenes and bpy.data.actions[:] == [first]
    # capture_onto moved the scene to frame 1, where the first action plays: only what it does not key can be compared
    played_bones = keyed_bones(obj)
    after = channels_of(obj)
    assert {n: v for n, v in before.items() if n not in played_bones} == {n: v for n, v in after.items() if n not in played_bones}


def test_solving_leaves_the_pose_alone_and_looks_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above a control is reckoned with at once, not found out level by level."""
    obj = rigify("basic_human")
    obj.pose.bones["hand_fk.L"].rotation_quaternion = (0.8, 0.6, 0, 0)
    rig, looks, evaluate = rig_from_armature(obj), [], control_keys._evaluate
    monkeypatch.setattr(control_keys, "_evaluate", lambda *a: looks.append(1) or evaluate(*a))
    before, scenes = channels_of(obj), bpy.data.scenes[:]
    motion = random_motion(rig, 8, seed=0, turning=0.3)
    channels = write_action.solved_channels(obj, rig, motion, np.arange(8.0), 30.0)
    assert channels and channels_of(obj) == before and bpy.data.scenes[:] == scenes and obj.animation_data.action is None
    assert len(looks) <= 1 + 4 * 8


def test_an_action_in_use_does_not_mix_into_the_new_keys(made_up: synthetic.MadeUp) -> None:
    obj = rigify("basic_human")
    assert capture_onto(obj) == {"FINISHED"}
    assert capture_onto(obj) == {"FINISHED"}
    assert len(bpy.data.actions) == 2
    assert missed(obj, made_up)[0][limbs(made_up.rigs[0])].max() < TOLERANCE


def test_locked_controls_are_obeyed_and_their_neighbours_make_up_for_them(made_up: synthetic.MadeUp) -> None:
    obj = rigify("basic_human")
    control = obj.pose.bones["forearm_fk.L"]
    control.rotation_mode, control.lock_rotation = "XYZ", (False, True, True)
    assert capture_onto(obj) == {"FINISHED"}
    indices = {
        c.array_index for c in curves_of(obj.animation_data.action) if c.data_path == 'pose.bones["forearm_fk.L"].rotation_euler'
    }
    assert indices == {0}
    turn = missed(obj, made_up)[0]
    at = made_up.rigs[0].names.index("ORG-forearm.L")
    assert turn[at] > TOLERANCE
    assert turn[[joint for joint in limbs(made_up.rigs[0]) if joint != at]].max() < TOLERANCE


def test_a_take_is_applied_again_and_compared_on_a_control_rig(made_up: synthetic.MadeUp) -> None:
    obj = rigify("basic_human")
    obj.pose.bones["hand_fk.L"].rotation_quaternion = (0.8, 0.6, 0, 0)
    assert capture_onto(obj) == {"FINISHED"}
    first = {(c.data_path, c.array_index): keys_of(c).tolist() for c in curves_of(obj.animation_data.action)}
    assert bpy.ops.anyrig.take_compare() == {"FINISHED"}
    assert np.allclose(obj.pose.bones["hand_fk.L"].rotation_quaternion, (0.8, 0.6, 0, 0), atol=1e-5), "as it stood before"
    assert obj.pose.bones["upper_arm_parent.L"]["IK_FK"] == 0.0 and not any(obj.pose.bones["torso"].location)
    assert bpy.ops.anyrig.take_apply() == {"FINISHED"}
    again = {(c.data_path, c.array_index): keys_of(c).tolist() for c in curves_of(obj.animation_data.action)}
    assert first.keys() == again.keys()
    assert max(np.abs(np.array(first[key]) - again[key]).max() for key in first) < 0.02
    assert missed(obj, made_up)[0][limbs(made_up.rigs[0])].max() < TOLERANCE


def test_rigify_warnings_name_the_bones_without_control() -> None:
    obj = rigify("basic_human")
    lines = warnings_of(obj, rig_from_armature(obj).names)
    assert lines == ["Bones 'DEF-spine.005', 'DEF-pelvis.L', 'DEF-pelvis.R' will get no keys: no FK control rotates them."]


def test_a_metarig_is_keyed_itself(made_up: synthetic.MadeUp) -> None:
    bpy.ops.preferences.addon_enable(module="rigify")
    bpy.ops.object.armature_basic_human_metarig_add()
    obj = bpy.context.object
    assert control_rig(obj) is None
    assert capture_onto(obj) == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    assert keyed_bones(obj) == set(rig.names) == set(obj.data.bones.keys())
    assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)


# ---- Auto-Rig Pro


def test_auto_rig_pro_rigs_get_keys_on_their_fk_controls(made_up: synthetic.MadeUp) -> None:
    obj = auto_rig_pro()
    controls = control_rig(obj)
    assert controls is not None and controls.kind == auto_rig_pro_maker.KIND
    assert capture_onto(obj) == {"FINISHED"}
    sided = {
        f"c_{part}.{side}"
        for part in ("arm_fk", "forearm_fk", "hand_fk", "thigh_fk", "leg_fk", "foot_fk", "toes_fk", "shoulder")
        for side in "lr"
    }
    middle = {"c_root_master.x", "c_spine_01.x", "c_spine_02.x", "c_neck.x", "c_head.x"}
    switches = {f"c_{part}_ik.{side}" for part in ("hand", "foot") for side in "lr"}
    assert keyed_bones(obj) == sided | middle | switches
    bpy.context.scene.frame_set(2)
    assert obj.pose.bones["c_hand_ik.l"]["ik_fk_switch"] == 1.0
    assert missed(obj, made_up)[0].max() < TOLERANCE
    rig = made_up.rigs[0]
    assert rig.names[0] == "root.x" and rig.names[rig.parents[rig.names.index("arm.l")]] == "shoulder.l"
    assert any("Auto-Rig Pro" in line and "experimental" in line for line in warnings_of(obj, rig.names))


def test_auto_rig_pro_meshes_follow(made_up: synthetic.MadeUp) -> None:
    obj = auto_rig_pro()
    assert capture_onto(obj) == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    at = rig.names.index("forearm.l")
    bpy.context.scene.frame_set(4)
    bone = obj.pose.bones["forearm_stretch.l"]
    turn = np.array(bone.matrix)[:3, :3] @ np.linalg.inv(np.array(bone.bone.matrix_local)[:3, :3])
    assert geodesic_angle(turn, motion.matrices[3, at]) < TOLERANCE


# ---- makers' names


@pytest.mark.parametrize("maker", MAKERS)
def test_rigs_with_makers_names_are_captured_onto(made_up: synthetic.MadeUp, maker: str) -> None:
    obj = MAKERS[maker]()
    assert control_rig(obj) is None
    assert capture_onto(obj) == {"FINISHED"}
    (rig,), (motion,) = made_up.rigs, made_up.motions
    assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)
    assert not rig.translates.any() and not warnings_of(obj, rig.names)
    assert {group.name for mesh in bpy.data.objects for group in mesh.vertex_groups} <= set(rig.names)
    assert keyed_bones(obj) == set(rig.names)


@pytest.mark.parametrize(
    ("maker", "bone", "words"),
    [
        ("mixamo", "mixamorig:LeftForeArm", "Left Fore Arm"),
        ("vrm", "J_Bip_L_UpperLeg", "Left Upper Leg"),
        ("unreal", "lowerarm_r", "Lowerarm Right"),
        ("biped", "Bip01 R Thigh", "Right Thigh"),
        ("numbered", "Bone.007", ""),
    ],
)
def test_makers_names_are_read_as_words(maker: str, bone: str, words: str) -> None:
    obj = MAKERS[maker]()
    assert bone in rig_from_armature(obj).names
    assert clean_name(bone) == words


def test_other_rigs_are_keyed_by_their_deforming_bones() -> None:
    for make in fixtures.RIGS.values():
        assert control_rig(make()) is None

"""Bones, rigs and objects that are scaled to nothing, to flat or to mirrored, captured onto with the operator."""

from __future__ import annotations

from collections.abc import Callable

import bpy
import pytest
from anyrig.addon.keying.write_action import write_motion
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.rig.bone_scales import hidden_bones
from anyrig.addon.rig.bone_warnings import warnings_of
from anyrig.backend.errors import UserError
from anyrig.tests.addon import fixtures, synthetic
from anyrig.tests.addon.playback import assert_shows, paths_of
from anyrig.tests.addon.synthetic import capture_onto, frames_of

pytestmark = pytest.mark.usefixtures("registered")
ARM = ("upper_arm.R", "forearm.R", "hand.R")
Scale = tuple[float, float, float]


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> synthetic.MadeUp:
    return synthetic.use(monkeypatch)


def arm_of(obj: bpy.types.Object) -> list[str]:
    """The right arm, from the shoulder down, by the names that the fixture has."""
    return [name for name in ARM if name in obj.pose.bones]


def by_pose(obj: bpy.types.Object, scale: Scale) -> None:
    obj.pose.bones[ARM[0]].scale = scale


def by_keys(obj: bpy.types.Object, scale: Scale) -> None:
    by_pose(obj, scale)
    obj.pose.bones[ARM[0]].keyframe_insert("scale", frame=1)
    by_pose(obj, (1, 1, 1))
    obj.pose.bones[ARM[0]].keyframe_insert("scale", frame=40)
    bpy.context.scene.frame_set(1)


def by_driver(obj: bpy.types.Object, scale: Scale) -> None:
    for axis, value in enumerate(scale):
        obj.pose.bones[ARM[0]].driver_add("scale", axis).driver.expression = repr(float(value))


def by_constraint(obj: bpy.types.Object, scale: Scale) -> None:
    limit = obj.pose.bones[ARM[0]].constraints.new("LIMIT_SCALE")
    for axis, value in zip("xyz", scale):
        setattr(limit, f"use_max_{axis}", True)
        setattr(limit, f"max_{axis}", value)


@pytest.mark.parametrize(
    ("how", "scale"),
    [(by_pose, (0, 0, 0)), (by_pose, (1, 1, 1e-7)), (by_keys, (1, 0, 1)), (by_driver, (1e-9, 1e-9, 1e-9)), (by_constraint, (0, 0, 0))],
)
def test_hidden_bones_are_left_alone_and_the_rest_is_keyed(
    made_up: synthetic.MadeUp, how: Callable[[bpy.types.Object, Scale], None], scale: Scale
) -> None:
    obj = fixtures.human()
    how(obj, scale)
    bpy.context.view_layer.update()
    arm = arm_of(obj)
    assert len(arm) > 1 and list(hidden_bones(obj)) == arm and set(hidden_bones(obj).values()) == {ARM[0]}
    assert capture_onto(obj) == {"FINISHED"}
    rig, motion = made_up.rigs[0], made_up.motions[0]
    assert [name for name, still in zip(rig.names, rig.static) if still] == [name for name in rig.names if name in arm]
    keyed = paths_of(obj.animation_data.action)
    assert not any(name in path for name in arm for path in keyed) and len(keyed) == len(rig.names) - len(arm)
    assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)


def test_what_is_hidden_is_told_by_check_rig() -> None:
    obj = fixtures.human()
    by_pose(obj, (0, 0, 0))
    bpy.context.view_layer.update()
    below = len(arm_of(obj)) - 1
    said = f"Bone '{ARM[0]}' is scaled to nothing: it and {below} below it get no keys. Set its scale back to 1 to capture them."
    assert said in warnings_of(obj, rig_from_armature(obj).names)
    by_pose(obj, (1, 1, 1))
    obj.pose.bones[arm_of(obj)[-1]].scale = 0, 0, 0
    bpy.context.view_layer.update()
    said = f"Bone '{arm_of(obj)[-1]}' is scaled to nothing: it gets no keys. Set its scale back to 1 to capture it."
    assert said in warnings_of(obj, rig_from_armature(obj).names)


def test_small_scales_are_none_of_that(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    by_pose(obj, (1e-3, 1e-3, 1e-3))
    assert capture_onto(obj) == {"FINISHED"}
    rig, motion = made_up.rigs[0], made_up.motions[0]
    assert not rig.static.any()
    assert_shows(obj, rig, frames_of(motion), motion.matrices, motion.positions)


def refused(made_up: synthetic.MadeUp, obj: bpy.types.Object, words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        capture_onto(obj)
    assert not made_up.rigs and not bpy.data.actions


def test_a_hidden_root_hides_the_rig(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    root = rig_from_armature(obj).names[0]
    obj.pose.bones[root].scale = 0, 0, 0
    refused(made_up, obj, f"Bone '{root}' of armature 'Human' is scaled to nothing, and with it the whole rig: set its scale")


@pytest.mark.parametrize("scale", [(0, 0, 0), (1, 1, 0)])
@pytest.mark.parametrize("parented", [False, True])
def test_an_object_scaled_to_nothing(made_up: synthetic.MadeUp, scale: Scale, parented: bool) -> None:
    obj = fixtures.human()
    scaled = obj
    if parented:
        scaled = bpy.data.objects.new("Empty", None)
        bpy.context.collection.objects.link(scaled)
        obj.parent = scaled
    scaled.scale = scale
    refused(made_up, obj, "Armature 'Human' is scaled to nothing, by its own scale or by what it is parented to: set that")


def test_a_flat_bone_is_not_called_mirrored_and_a_mirrored_one_is_named_itself(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    obj.pose.bones[arm_of(obj)[-1]].scale = 1, 0, 1
    by_pose(obj, (-1, 1, 1))
    refused(made_up, obj, f"Bone '{ARM[0]}' of armature 'Human' is mirrored by a negative scale")


def test_a_bone_hidden_after_the_capture_is_named_when_the_take_is_applied(made_up: synthetic.MadeUp) -> None:
    obj = fixtures.human()
    assert capture_onto(obj) == {"FINISHED"}
    rig, motion = made_up.rigs[0], made_up.motions[0]
    reference = pose_of(obj, rig)
    by_pose(obj, (1, 0, 1))
    bpy.context.view_layer.update()
    with pytest.raises(UserError, match=f"Bone '{ARM[0]}' of armature 'Human' is scaled to nothing, so '{ARM[1]}' below it"):
        write_motion(obj, rig, motion, reference, name="again", start_frame=1, fps=30)
    assert "again" not in bpy.data.actions

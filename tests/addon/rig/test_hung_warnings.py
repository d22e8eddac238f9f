"""Warnings about limbs whose IK reaches for a foot that gets keys of its own."""

import bpy
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.rig.bone_warnings import warnings_of
from anyrig.tests.addon import fixtures


def test_ik_that_reaches_for_a_hung_foot_follows_its_keys() -> None:
    obj = fixtures.hoofed(ik=True)
    rig = rig_from_armature(obj)
    hung = [name for name, moved in zip(rig.names, rig.hung) if moved]
    assert len(hung) == 4 and warnings_of(obj, rig.names, hung) == []
    assert any(
        "constraint (Inverse Kinematics)" in line for line in warnings_of(obj, rig.names)
    )  # feet that stay where the armature has them


def test_ik_that_reaches_elsewhere_is_told() -> None:
    obj = fixtures.hoofed(ik=True)
    rig = rig_from_armature(obj)
    hung = [name for name, moved in zip(rig.names, rig.hung) if moved]
    other = bpy.data.objects.new("target", None)
    bpy.context.collection.objects.link(other)
    constraint = next(c for bone in obj.pose.bones for c in bone.constraints if c.type == "IK")
    constraint.target = other
    bpy.context.view_layer.update()
    assert any("constraint (Inverse Kinematics)" in line for line in warnings_of(obj, rig.names, hung))

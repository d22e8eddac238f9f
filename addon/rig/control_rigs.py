"""Finds out whose control rig an armature is, and saves and restores the pose of its controls.

A joint of such a rig is a bone that shows where the limb really is, whatever drives it: the network reads the joint, and a take is
checked there. A joint is never keyed. Its control is keyed instead, which rotates away from rest as the joint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy
from mathutils import Matrix

from . import auto_rig_pro, rigify
from .joint_controls import ControlRig

# one module per maker: `recognises(obj)` is true for its rigs, and `read_controls(obj)` reads one
MAKERS = (rigify, auto_rig_pro)


def control_rig(obj: bpy.types.Object) -> ControlRig | None:
    """The armature's controls; None for a rig without, whose deforming bones are keyed. Needs `obj.pose`."""
    if obj.pose is None:
        return None
    maker = next((each for each in MAKERS if each.recognises(obj)), None)
    return maker and maker.read_controls(obj)


def control_pose_of(obj: bpy.types.Object) -> dict[str, Any]:
    """The pose of the control of the whole body and of the twisted tweaks, and the limbs' switches, as JSON values."""
    rig = control_rig(obj)
    if rig is None:
        return {}
    whole = [*rig.twists.values()] + ([] if rig.whole is None else [rig.whole[0]])
    return {
        "basis": {name: [list(row) for row in obj.pose.bones[name].matrix_basis] for name in whole},
        "switches": [[switch.bone, switch.name, obj.pose.bones[switch.bone][switch.name]] for switch in rig.switches],
    }


def restore_controls(obj: bpy.types.Object, saved: Mapping[str, Any]) -> None:
    """Restore what `control_pose_of` saved; bones that are gone are ignored."""
    for name, rows in saved.get("basis", {}).items():
        if name in obj.pose.bones:
            obj.pose.bones[name].matrix_basis = Matrix(rows)
    for bone, name, value in saved.get("switches", []):
        if bone in obj.pose.bones and name in obj.pose.bones[bone]:
            obj.pose.bones[bone][name] = value
    obj.update_tag()


def key_bone(rig: ControlRig | None, joint: str) -> str:
    """The bone that is keyed for a joint: its control, or itself."""
    return rig.controls.get(joint, joint) if rig else joint

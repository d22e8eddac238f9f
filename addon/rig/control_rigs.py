"""Control rigs of every maker that is known here: which control turns which joint, and how the controls stand.

A joint of such a rig is a bone that shows where the limb really is, whatever drives it: the network reads the joint, and a take is
checked there. A joint is never keyed. Its control is keyed instead, which turns away from rest as the joint does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bpy
from mathutils import Matrix

from . import auto_rig_pro, rigify
from .joint_controls import ControlRig

# the modules of the makers: `recognises(obj)` asks whether a rig is theirs, `read_controls(obj)` reads it
MAKERS = (rigify, auto_rig_pro)


def control_rig(obj: bpy.types.Object) -> ControlRig | None:
    """What is known of the armature's controls; None for a rig without, whose deforming bones are keyed. Needs `obj.pose`."""
    if obj.pose is None:
        return None
    maker = next((each for each in MAKERS if each.recognises(obj)), None)
    return maker and maker.read_controls(obj)


def control_pose_of(obj: bpy.types.Object) -> dict[str, Any]:
    """How the control of the whole body and the twisted tweaks stand, and how limbs are switched, to return to; JSON values."""
    rig = control_rig(obj)
    if rig is None:
        return {}
    whole = [*rig.twists.values()] + ([] if rig.whole is None else [rig.whole[0]])
    return {
        "basis": {name: [list(row) for row in obj.pose.bones[name].matrix_basis] for name in whole},
        "switches": [[switch.bone, switch.name, obj.pose.bones[switch.bone][switch.name]] for switch in rig.switches],
    }


def restore_controls(obj: bpy.types.Object, stance: Mapping[str, Any]) -> None:
    """Put the armature as `stance_of` found it; bones that are gone are passed over."""
    for name, rows in stance.get("basis", {}).items():
        if name in obj.pose.bones:
            obj.pose.bones[name].matrix_basis = Matrix(rows)
    for bone, name, value in stance.get("switches", []):
        if bone in obj.pose.bones and name in obj.pose.bones[bone]:
            obj.pose.bones[bone][name] = value
    obj.update_tag()


def key_bone(rig: ControlRig | None, joint: str) -> str:
    """The bone that is keyed for a joint: its control, or itself."""
    return rig.controls.get(joint, joint) if rig else joint

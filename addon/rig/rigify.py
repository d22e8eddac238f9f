"""Reads rigs that Rigify generated: which control rotates which joint.

A joint is an ORG- bone, or the DEF- bone of a spine. It is driven by its FK control (`upper_arm_fk.L`), by the control of the same
name if it copies that one (`shoulder.L`, fingers), or by the control that its tweak hangs on (neck). The bones of faces follow
controls that slide: they have no joints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import bpy

from .joint_controls import ControlRig, Switch, joint_tree

KIND = "Rigify"
INNER = ("ORG-", "DEF-", "MCH-", "VIS_", "WGT-")
WHOLE = "torso"  # the control of the whole body
_SEGMENT = re.compile(r"\.\d+$")


def recognises(obj: bpy.types.Object) -> bool:
    """True if the armature has an ORG- bone with its DEF- bone."""
    bones = obj.data.bones
    return any(name.startswith("ORG-") and f"DEF-{name[4:]}" in bones for name in bones.keys())


def read_controls(obj: bpy.types.Object) -> ControlRig | None:
    """The rig's controls; None if none of them rotates a joint."""
    bones = obj.data.bones
    fk = {name.replace("_fk", "", 1): name for name in bones.keys() if "_fk" in name and not name.startswith(INNER)}
    deforming = _deforming(obj)
    taken: dict[str, str] = {}
    for name in bones.keys():
        if name.startswith("ORG-") and name in deforming:
            control = fk.get(name[4:]) or _copied(obj, name)
            if control is not None and control not in taken:
                taken[control] = name
    if not taken:
        return None
    shown = {joint: _shown(obj, joint, deforming[joint]) for joint in taken.values()}
    controls = {shown[joint]: control for control, joint in taken.items()}
    followers = {shown[joint]: deforming[joint] for joint in taken.values()}
    others = {name: shown[joint] for joint in taken.values() for name in (joint, *deforming[joint])}
    switches = _switches(obj, controls)
    stretched = frozenset(joint for joint in controls if _is_stretched(obj, joint, controls[joint]))
    twists = {joint: tweak for joint in stretched if (tweak := _twisting(obj, joint, controls[joint]))}
    whole = _whole(obj, controls)
    return ControlRig(KIND, controls, joint_tree(obj, controls, others), followers, switches, whole, stretched, twists)


def _is_stretched(obj: bpy.types.Object, joint: str, control: str) -> bool:
    """True if the joint lies between two tweaks that do not both move with its control, as in backs and tails."""
    pair = (obj.pose.bones.get(f"{prefix}{joint[4:]}") for prefix in ("DEF-", "ORG-"))
    kinds = {constraint.type for bone in pair if bone is not None for constraint in bone.constraints}
    if "STRETCH_TO" not in kinds or f"tweak_{joint[4:]}" not in obj.data.bones:
        return False
    return not obj.pose.bones[f"ORG-{joint[4:]}"].constraints or _twisting(obj, joint, control) is not None


def _twisting(obj: bpy.types.Object, joint: str, control: str) -> str | None:
    """The tweak that gives the joint its twist, if it does not hang on the joint's own control."""
    above = obj.data.bones[f"tweak_{joint[4:]}"].parent
    return f"tweak_{joint[4:]}" if above is not None and above.name != control else None


def _shown(obj: bpy.types.Object, joint: str, deforming: tuple[str, ...]) -> str:
    """The bone that shows where a limb is: the ORG- bone, which copies its control; in spines the DEF- bone, stretched over tweaks."""
    copies = any(constraint.type == "COPY_TRANSFORMS" for constraint in obj.pose.bones[joint].constraints)
    return joint if copies or len(deforming) != 1 else deforming[0]


def _deforming(obj: bpy.types.Object) -> dict[str, tuple[str, ...]]:
    """ORG- bone -> the DEF- bones that follow it: one of the same name, or several if the limb has segments."""
    found: dict[str, list[str]] = {}
    for name in obj.data.bones.keys():
        if name.startswith("DEF-"):
            whole = f"ORG-{name[4:]}"
            joint = whole if whole in obj.data.bones else _SEGMENT.sub("", whole)
            found.setdefault(joint, []).append(name)
    return {joint: tuple(names) for joint, names in found.items()}


def _copied(obj: bpy.types.Object, joint: str) -> str | None:
    """The control that a bone copies: the one of its own name, else the target of its constraint or the parent of that tweak."""
    bones, same = obj.pose.bones, joint[4:]
    hung = bones[joint].parent
    if same in bones and hung is not None and "tweak" in hung.name:
        return same  # a tail
    targets = [
        constraint.subtarget
        for constraint in bones[joint].constraints
        if constraint.type == "COPY_TRANSFORMS" and constraint.target == obj and constraint.influence == 1
    ]
    if not targets:
        return None
    if same in bones:
        return same
    for target in targets:
        bone = bones.get(target)
        for each in (bone, bone and bone.parent):
            if each is not None and not each.name.startswith(INNER) and "tweak" not in each.name and "_ik" not in each.name:
                return each.name
    return None


def _switches(obj: bpy.types.Object, controls: Mapping[str, str]) -> tuple[Switch, ...]:
    """The properties IK_FK, 1 for FK, of bones such as `upper_arm_parent.L`."""
    found = []
    for bone in obj.pose.bones:
        joint = f"ORG-{bone.name.replace('_parent', '', 1)}"
        for name in ("IK_FK", "IK/FK"):
            if name in bone and joint in controls:
                found.append(Switch(bone.name, name, 1.0, joint))
    return tuple(found)


def _whole(obj: bpy.types.Object, controls: Mapping[str, str]) -> tuple[str, str] | None:
    """`torso` and the joint whose rotation it takes: the nearest one of those that it carries."""
    bones = obj.data.bones
    if WHOLE not in bones:
        return None
    below = [joint for joint, control in controls.items() if bones[WHOLE] in bones[control].parent_recursive]
    head = bones[WHOLE].head_local
    nearest = min(below, key=lambda joint: (bones[joint].head_local - head).length, default=None)
    return None if nearest is None else (WHOLE, nearest)

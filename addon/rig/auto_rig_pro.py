"""Reads rigs whose bones are named as in Auto-Rig Pro: which control rotates which joint.

`c_arm_fk.l` rotates `arm.l`, and `c_spine_01.x` rotates `spine_01.x`. The names alone are known, so this is experimental.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

import bpy

from .joint_controls import ControlRig, Switch, joint_tree

KIND = "Auto-Rig Pro"
WHOLE = {"root.x": ("c_root_master.x", "c_root.x")}
JOINTS = {"toes": "toes_01"}
_FK = re.compile(r"^c_(.+?)_fk(\.[lrx])$")
_OWN = re.compile(r"^c_(.+?)(\.[lrx])$")
_LAYERS = ("", "_stretch", "_twist", "_twist_offset", "_twist_twk", "_bend")


def recognises(obj: bpy.types.Object) -> bool:
    """True if the armature has Auto-Rig Pro's root control, or more than two bones with names of its FK controls."""
    names = obj.data.bones.keys()
    return "c_root_master.x" in names or sum(_FK.match(name) is not None for name in names) > 2


def read_controls(obj: bpy.types.Object) -> ControlRig | None:
    """The rig's controls; None if none of them rotates a joint."""
    names = set(obj.data.bones.keys())
    controls: dict[str, str] = {}
    for joint, control in _pairs(names):
        if control not in controls.values():
            controls.setdefault(joint, control)
    if not controls:
        return None
    deforming = {joint: tuple(name for name in names if _is_layer_of(name, joint)) for joint in controls}
    switches = []
    for joint, bone in (("hand", "c_hand_ik"), ("foot", "c_foot_ik")):
        for side in (".l", ".r"):
            found = obj.pose.bones.get(bone + side)
            if found is not None and "ik_fk_switch" in found and joint + side in controls:
                switches.append(Switch(found.name, "ik_fk_switch", 1.0, joint + side))
    order = {name: controls[name] for name in obj.data.bones.keys() if name in controls}
    return ControlRig(KIND, order, joint_tree(obj, order, {}), deforming, tuple(switches))


def _pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """(joint, control). FK controls come first, because a rig may have both `c_hand_fk.l` and `c_hand.l`."""
    for joint, candidates in WHOLE.items():
        control = next((name for name in candidates if name in names), None)
        if joint in names and control:
            yield joint, control
    for pattern in (_FK, _OWN):
        for name in sorted(names):
            match = pattern.match(name)
            if match is None or "_ik" in name:
                continue
            stem, side = JOINTS.get(match[1], match[1]), match[2]
            layers = ("", "_stretch", "_twist") if pattern is _FK else ("",)
            joint = next((stem + layer + side for layer in layers if stem + layer + side in names), None)
            if joint is not None:
                yield joint, name


def _is_layer_of(name: str, joint: str) -> bool:
    """True if a bone is the joint, or a stretching or twisting part of it."""
    stem, _, side = joint.rpartition(".")
    stem = re.sub("_(stretch|twist)$", "", stem)
    return name.removeprefix("c_") in {f"{stem}{layer}.{side}" for layer in _LAYERS} and (name == joint or "_" in name)

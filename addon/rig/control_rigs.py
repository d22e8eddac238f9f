"""Control rigs: which control turns which joint. Rigify's generated rigs, and rigs that name their bones as Auto-Rig Pro does.

A joint of such a rig is a bone that shows where the limb really is, whatever drives it: the network reads it and its turns are
checked there. It is never keyed. What is keyed is its control, whose own turn away from rest is the joint's. Rigify: ORG- bones
(DEF- bones of spines), driven by FK controls (`upper_arm_fk.L`), or by the control of the same name where the bone copies one (`shoulder.L`, fingers), or
by the control that its tweak hangs on (neck). Faces, whose bones follow controls that slide, have none. Auto-Rig Pro: `arm.l` and
`c_arm_fk.l`, `spine_01.x` and `c_spine_01.x`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

RIGIFY, AUTO_RIG_PRO = "Rigify", "Auto-Rig Pro"
INNER = ("ORG-", "DEF-", "MCH-", "VIS_", "WGT-")
WHOLE = "torso"  # Rigify's control of the whole body
TOUCHING = 1e-3  # of the rig's size: how near a tail and a head are that belong together
ARP_WHOLE = {"root.x": ("c_root_master.x", "c_root.x")}
ARP_JOINTS = {"toes": "toes_01"}
_ARP_FK = re.compile(r"^c_(.+?)_fk(\.[lrx])$")
_ARP_OWN = re.compile(r"^c_(.+?)(\.[lrx])$")
_ARP_LAYERS = ("", "_stretch", "_twist", "_twist_offset", "_twist_twk", "_bend")
_SEGMENT = re.compile(r"\.\d+$")


@dataclass(frozen=True)
class Switch:
    """A custom property of a control that lets a limb follow its FK controls. joint: one that the limb starts with."""

    bone: str
    name: str
    value: float
    joint: str


@dataclass(frozen=True, eq=False)
class ControlRig:
    """controls: joint -> control. whole: a control that turns the whole body, and the joint it takes its turn from.

    parents: joint -> joint, parents first. deforming: joint -> the bones of the mesh that follow it.
    stretched: joints that lie between two tweaks. twists: of these -> the tweak whose twist the joint takes over, where that does
    not hang on the joint's own control.
    """

    kind: str
    controls: dict[str, str]
    parents: dict[str, str | None]
    deforming: dict[str, tuple[str, ...]]
    switches: tuple[Switch, ...]
    whole: tuple[str, str] | None = None
    stretched: frozenset[str] = frozenset()
    twists: dict[str, str] = field(default_factory=dict)

    def keyed(self, joints: Collection[str]) -> dict[str, str]:
        """Control -> the joint whose turn it takes, of those among `joints`."""
        found = {control: joint for joint, control in self.controls.items() if joint in joints}
        if self.whole is not None and self.whole[1] in joints:
            found = {self.whole[0]: self.whole[1], **found}
        return found


def control_rig(obj: bpy.types.Object) -> ControlRig | None:
    """What is known of the armature's controls; None for a rig without, whose deforming bones are keyed. Needs `obj.pose`."""
    bones = obj.data.bones
    if obj.pose is None:
        return None
    if any(name.startswith("ORG-") and f"DEF-{name[4:]}" in bones for name in bones.keys()):
        return _rigify(obj)
    if "c_root_master.x" in bones or sum(_ARP_FK.match(name) is not None for name in bones.keys()) > 2:
        return _auto_rig_pro(obj)
    return None


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


# ---- Rigify


def _rigify(obj: bpy.types.Object) -> ControlRig | None:
    bones = obj.data.bones
    fk = {name.replace("_fk", "", 1): name for name in bones.keys() if "_fk" in name and not name.startswith(INNER)}
    deforming = _rigify_deforming(obj)
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
    switches = _rigify_switches(obj, controls)
    stretched = frozenset(joint for joint in controls if _is_stretched(obj, joint, controls[joint]))
    twists = {joint: tweak for joint in stretched if (tweak := _twisting(obj, joint, controls[joint]))}
    whole = _whole(obj, controls)
    return ControlRig(RIGIFY, controls, _parents(obj, controls, others), followers, switches, whole, stretched, twists)


def _is_stretched(obj: bpy.types.Object, joint: str, control: str) -> bool:
    """Whether it lies between two tweaks that do not both move with its control: in backs and tails."""
    pair = (obj.pose.bones.get(f"{prefix}{joint[4:]}") for prefix in ("DEF-", "ORG-"))
    kinds = {constraint.type for bone in pair if bone is not None for constraint in bone.constraints}
    if "STRETCH_TO" not in kinds or f"tweak_{joint[4:]}" not in obj.data.bones:
        return False
    return not obj.pose.bones[f"ORG-{joint[4:]}"].constraints or _twisting(obj, joint, control) is not None


def _twisting(obj: bpy.types.Object, joint: str, control: str) -> str | None:
    above = obj.data.bones[f"tweak_{joint[4:]}"].parent
    return f"tweak_{joint[4:]}" if above is not None and above.name != control else None


def _shown(obj: bpy.types.Object, joint: str, deforming: tuple[str, ...]) -> str:
    """Where a limb is: at the ORG- bone, which copies its control. Spines are only where their DEF- bones are, stretched over tweaks."""
    copies = any(constraint.type == "COPY_TRANSFORMS" for constraint in obj.pose.bones[joint].constraints)
    return joint if copies or len(deforming) != 1 else deforming[0]


def _rigify_deforming(obj: bpy.types.Object) -> dict[str, tuple[str, ...]]:
    """ORG- bone -> the DEF- bones that follow it: one of its name, or several where a limb is cut into segments."""
    found: dict[str, list[str]] = {}
    for name in obj.data.bones.keys():
        if name.startswith("DEF-"):
            whole = f"ORG-{name[4:]}"
            joint = whole if whole in obj.data.bones else _SEGMENT.sub("", whole)
            found.setdefault(joint, []).append(name)
    return {joint: tuple(names) for joint, names in found.items()}


def _copied(obj: bpy.types.Object, joint: str) -> str | None:
    """The control that a bone copies: of its own name, else the one that it names, or that its tweak hangs on."""
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


def _rigify_switches(obj: bpy.types.Object, controls: Mapping[str, str]) -> tuple[Switch, ...]:
    """`upper_arm_parent.L` has the property IK_FK, 1 for FK."""
    found = []
    for bone in obj.pose.bones:
        joint = f"ORG-{bone.name.replace('_parent', '', 1)}"
        for name in ("IK_FK", "IK/FK"):
            if name in bone and joint in controls:
                found.append(Switch(bone.name, name, 1.0, joint))
    return tuple(found)


def _whole(obj: bpy.types.Object, controls: Mapping[str, str]) -> tuple[str, str] | None:
    """Rigify's `torso`, which takes the turn of the joint that lies nearest to it among those it carries."""
    bones = obj.data.bones
    if WHOLE not in bones:
        return None
    below = [joint for joint, control in controls.items() if bones[WHOLE] in bones[control].parent_recursive]
    head = bones[WHOLE].head_local
    nearest = min(below, key=lambda joint: (bones[joint].head_local - head).length, default=None)
    return None if nearest is None else (WHOLE, nearest)


# ---- Auto-Rig Pro


def _auto_rig_pro(obj: bpy.types.Object) -> ControlRig | None:
    names = set(obj.data.bones.keys())
    controls: dict[str, str] = {}
    for joint, control in _arp_pairs(names):
        if control not in controls.values():
            controls.setdefault(joint, control)
    if not controls:
        return None
    deforming = {joint: tuple(name for name in names if _arp_layer_of(name, joint)) for joint in controls}
    switches = []
    for joint, bone in (("hand", "c_hand_ik"), ("foot", "c_foot_ik")):
        for side in (".l", ".r"):
            found = obj.pose.bones.get(bone + side)
            if found is not None and "ik_fk_switch" in found and joint + side in controls:
                switches.append(Switch(found.name, "ik_fk_switch", 1.0, joint + side))
    order = {name: controls[name] for name in obj.data.bones.keys() if name in controls}
    return ControlRig(AUTO_RIG_PRO, order, _parents(obj, order, {}), deforming, tuple(switches))


def _arp_pairs(names: Collection[str]) -> Iterator[tuple[str, str]]:
    """(joint, control); FK controls first, since `c_hand.l` could stand beside `c_hand_fk.l`."""
    for joint, candidates in ARP_WHOLE.items():
        control = next((name for name in candidates if name in names), None)
        if joint in names and control:
            yield joint, control
    for pattern in (_ARP_FK, _ARP_OWN):
        for name in sorted(names):
            match = pattern.match(name)
            if match is None or "_ik" in name:
                continue
            stem, side = ARP_JOINTS.get(match[1], match[1]), match[2]
            layers = ("", "_stretch", "_twist") if pattern is _ARP_FK else ("",)
            joint = next((stem + layer + side for layer in layers if stem + layer + side in names), None)
            if joint is not None:
                yield joint, name


def _arp_layer_of(name: str, joint: str) -> bool:
    """Whether a bone is the joint, or a stretching or twisting part of it."""
    stem, _, side = joint.rpartition(".")
    stem = re.sub("_(stretch|twist)$", "", stem)
    return name.removeprefix("c_") in {f"{stem}{layer}.{side}" for layer in _ARP_LAYERS} and (name == joint or "_" in name)


# ---- the tree


def _parents(obj: bpy.types.Object, controls: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str | None]:
    """Joint -> the joint that it hangs on; parents first. others: bone -> joint, of bones that follow joints.

    In turn: a joint above it in the armature; a joint that ends where it begins, since spines hang on their controls from the middle
    outwards; a joint whose control is above it. What would close a ring is passed over.
    """
    bones = obj.data.bones
    own = {**{name: joint for name, joint in others.items() if joint in controls}, **{joint: joint for joint in controls}}
    held = {control: joint for joint, control in controls.items()}
    found: dict[str, str | None] = {}
    ways: tuple[Callable[[str], Iterator[str]], ...] = (
        lambda joint: (own[each.name] for each in bones[joint].parent_recursive if each.name in own),
        lambda joint: _touching(bones, joint, controls),
        lambda joint: (held[each.name] for each in bones[joint].parent_recursive if each.name in held),
    )
    for way in ways:
        for joint in controls:
            if joint not in found:
                above = next((each for each in way(joint) if each != joint and not _is_below(each, joint, found)), None)
                if above is not None:
                    found[joint] = above
    return dict(_parents_first(controls, found))


def _touching(bones: bpy.types.ArmatureBones, joint: str, joints: Collection[str]) -> Iterator[str]:
    ends = np.array([(*bone.head_local, *bone.tail_local) for bone in bones]).reshape(-1, 3)
    near = TOUCHING * float(np.ptp(ends, axis=0).max())
    return (each for each in joints if (bones[each].tail_local - bones[joint].head_local).length < near)


def _is_below(joint: str, above: str, parents: Mapping[str, str | None]) -> bool:
    at: str | None = joint
    while at is not None:
        if at == above:
            return True
        at = parents.get(at)
    return False


def _parents_first(joints: Collection[str], parents: Mapping[str, str | None]) -> Iterator[tuple[str, str | None]]:
    def depth(joint: str) -> int:
        above = parents.get(joint)
        return 0 if above is None else 1 + depth(above)

    for joint in sorted(joints, key=depth):  # a stable sort: the armature's order among equals
        yield joint, parents.get(joint)

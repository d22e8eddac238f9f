"""Warns, in sentences, about constraints, drivers, locks and armature settings that keep bones from showing a take."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

import bpy

from . import auto_rig_pro
from .control_rigs import control_rig, key_bone
from .joint_controls import ControlRig
from .scales import hidden_bones

SHOWN = 3  # names in a sentence
# constraints that leave a bone's rotation as it is
HARMLESS = {
    "COPY_LOCATION",
    "COPY_SCALE",
    "LIMIT_LOCATION",
    "LIMIT_SCALE",
    "LIMIT_DISTANCE",
    "MAINTAIN_VOLUME",
    "FLOOR",
    "SHRINKWRAP",
}
_BONE = re.compile(r'pose\.bones\["((?:[^"\\]|\\.)*)"\]\.(\w+)')


def warnings_of(obj: bpy.types.Object, names: Sequence[str], hung: Collection[str] = ()) -> list[str]:
    """A sentence for each reason why keys on the bones `names` of an armature will not show the take.

    hung: those that are keyed to stay at the end of a limb (Rig.hung). A limb whose IK reaches for one of them follows its keys: the target
    is where they want it. Names that are not in the armature are ignored. Nothing changes.
    """
    controls = control_rig(obj)
    keyed = dict.fromkeys(key_bone(controls, name) for name in names)
    bones = [obj.pose.bones[name] for name in keyed if name in obj.pose.bones] if obj.pose else []
    lines = [
        *_of_armature(obj),
        *_of_scales(obj),
        *_of_constraints(bones, hung),
        *_of_drivers(obj, {bone.name for bone in bones}),
        *_of_locks(bones),
    ]
    return lines if controls is None else [*lines, *_of_controls(obj, controls, names)]


def _of_controls(obj: bpy.types.Object, rig: ControlRig, names: Sequence[str]) -> Iterator[str]:
    if rig.kind == auto_rig_pro.KIND and any(name in rig.controls for name in names):
        yield f"'{obj.name}' counts as an Auto-Rig Pro rig by its bones' names, which is experimental: check the take."
    followed = {name for joint in rig.controls for name in rig.deforming[joint]}
    left = [bone.name for bone in obj.data.bones if bone.use_deform and bone.name not in followed]
    if left and any(name in rig.controls for name in names):
        yield f"{_listed(left)} get no keys: no FK control rotates {_it(left)}."


def _of_armature(obj: bpy.types.Object) -> Iterator[str]:
    if obj.data.pose_position == "REST":
        yield f"Armature '{obj.name}' is in rest position and shows no keys: set it to Pose Position in its data properties."
    data = obj.animation_data
    if data is None:
        return
    if data.action_influence < 1 or data.action_blend_type != "REPLACE":
        yield f"The action of '{obj.name}' is blended with its NLA strips: set it to Replace and its influence to 1 to see the take alone."
    solo = next((track for track in data.nla_tracks if track.is_solo), None)
    if solo is not None:
        yield f"NLA track '{solo.name}' of '{obj.name}' plays solo and hides the take: switch its star off."


def _of_scales(obj: bpy.types.Object) -> Iterator[str]:
    hidden = hidden_bones(obj) if obj.pose else []
    if hidden:
        yield f"{_listed(hidden)} get no keys: a scale makes {_it(hidden)}, or the bones above, flat or nothing; set it to 1 to capture {_it(hidden)}."


def _of_constraints(bones: Sequence[bpy.types.PoseBone], hung: Collection[str]) -> Iterator[str]:
    """One sentence per kind of constraint. The other bones of an IK chain count too: only its last bone has the constraint."""
    kinds: dict[str, list[str]] = {}
    for bone in bones:
        for constraint in bone.constraints:
            if _acts(constraint) and constraint.type not in HARMLESS and not _reaches_for(constraint, bone, hung):
                kinds.setdefault(_kind(constraint), []).append(bone.name)
                if constraint.type in ("IK", "SPLINE_IK"):
                    kinds[_kind(constraint)] += _chain(bone, constraint.chain_count, getattr(constraint, "use_tail", True))
    keyed = {bone.name for bone in bones}
    for kind, found in kinds.items():
        found = [name for name in dict.fromkeys(found) if name in keyed]
        yield f"{_listed(found)} not follow {_its(found)} keys: a constraint ({kind}) moves {_it(found)}; mute it to see the take."


def _reaches_for(constraint: bpy.types.Constraint, bone: bpy.types.PoseBone, targets: Collection[str]) -> bool:
    """Whether it is the IK of a limb whose target is one of these bones of its own armature."""
    return constraint.type == "IK" and constraint.target == bone.id_data and constraint.subtarget in targets


def _acts(constraint: bpy.types.Constraint) -> bool:
    # the influence may be driven or keyed: only its present value is known
    return not constraint.mute and constraint.is_valid and (constraint.influence > 0)


def _kind(constraint: bpy.types.Constraint) -> str:
    return constraint.bl_rna.properties["type"].enum_items[constraint.type].name


def _chain(bone: bpy.types.PoseBone, count: int, use_tail: bool) -> list[str]:
    """The other bones of an IK chain; with count 0 up to the root. Without its tail the chain starts at the parent."""
    above = [parent.name for parent in bone.parent_recursive]
    return above[: count - use_tail] if count else above


def _of_drivers(obj: bpy.types.Object, names: Collection[str]) -> Iterator[str]:
    driven: dict[str, None] = {}
    for curve in obj.animation_data.drivers if obj.animation_data else ():
        match = _BONE.match(curve.data_path)
        if match is None or curve.mute:
            continue
        name = bpy.utils.unescape_identifier(match[1])
        if name in names and (match[2].startswith("rotation") or match[2] == "location"):
            driven[name] = None
    if driven:
        found = list(driven)
        yield f"{_listed(found)} not follow {_its(found)} keys: a driver sets {_it(found)}; mute or remove it to see the take."


def _of_locks(bones: Sequence[bpy.types.PoseBone]) -> Iterator[str]:
    from .locks import free_rotation, is_locked

    fixed = [bone.name for bone in bones if not free_rotation(bone)]
    partly = [bone.name for bone in bones if is_locked(bone) and bone.name not in fixed]
    if fixed:
        yield f"{_listed(fixed)} not rotate: the rotation is locked; unlock it in the bone's Transform panel if the take should rotate {_it(fixed)}."
    if partly:
        yield f"{_listed(partly)} follow the take only about the axes that are not locked."


def _listed(names: Sequence[str]) -> str:
    """The start of a sentence, up to "will"."""
    some = ", ".join(f"'{name}'" for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{'Bone' if len(names) == 1 else 'Bones'} {some}{more} will"


def _its(names: Sequence[str]) -> str:
    return "its" if len(names) == 1 else "their"


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"

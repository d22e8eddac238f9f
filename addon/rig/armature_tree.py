"""The skeleton in the armature's own tree, for networks that were trained on such trees (Config.natural is False).

It goes when no bundled weights need it: networks that are trained from now on see the natural skeleton.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import bpy
import numpy as np
from bpy.types import Action, Object

from ...backend.rig.rig import Rig
from .actions import actions_of
from .control_rigs import control_rig

SLIDE = 0.1  # of the skeleton's extent: an action that moves a bone's location further than this slides it
BONE_PATH = 'pose.bones["'


def in_armature_tree(obj: Object, rig: Rig, bones: Collection[str] | None = None) -> Rig:
    """The joints of a rig that `rig_from_armature` read, and their ancestors, in the tree that the armature has.

    Of several roots the one with most descendants is the root, and the others become its children. Those translate, unless they are
    connected; so do joints below the root that the armature's own actions slide. A control rig stays as it is.
    """
    controls = control_rig(obj)
    if controls is not None and all(name in controls.controls for name in rig.names):
        return rig
    names = {bone.name for name in rig.names for bone in (obj.data.bones[name], *obj.data.bones[name].parent_recursive)}
    if bones is not None:
        names &= set(bones) | set(rig.names)
    joints = {bone.name: bone for bone in obj.data.bones if bone.name in names}
    parents = {name: next((up.name for up in bone.parent_recursive if up.name in joints), None) for name, bone in joints.items()}
    order = _root_first(parents)
    free = {name for name in order[1:] if parents[name] is None and not joints[name].use_connect and not joints[name].parent}
    free |= {name for name in _sliding_bones(obj) & set(order[1:]) if not joints[name].use_connect}
    index = {name: joint for joint, name in enumerate(order)}
    nothing = np.zeros(len(order), np.bool_)
    return replace(
        rig,
        names=tuple(order),
        parents=np.array([-1] + [index[parents[name] or order[0]] for name in order[1:]]),
        rest=np.array([joints[name].matrix_local for name in order], np.float64),
        tails=np.array([joints[name].tail_local for name in order], np.float64),
        translates=np.array([name in free for name in order]),
        static=nothing,
        labels=_labels(rig, order),
        hung=nothing,
        props=nothing,
    )


def _labels(rig: Rig, order: list[str]) -> tuple[str, ...]:
    known = dict(zip(rig.names, rig.labels))
    return tuple(known.get(name, name) for name in order) if rig.labels else ()


def _root_first(parents: dict[str, str | None]) -> list[str]:
    below = dict.fromkeys(parents, 0)
    for name in reversed(parents):
        if (parent := parents[name]) is not None:
            below[parent] += below[name] + 1
    root = max((name for name, parent in parents.items() if parent is None), key=below.__getitem__)
    return [root, *(name for name in parents if name != root)]


def _sliding_bones(obj: Object) -> set[str]:
    """Bones whose location an action of this armature changes by more than SLIDE of the skeleton's extent."""
    heads = np.array([bone.head_local for bone in obj.data.bones])
    limit = SLIDE * float(np.ptp(heads, axis=0).max())
    return {
        bpy.utils.unescape_identifier(curve.data_path.removeprefix(BONE_PATH).partition('"]')[0])
        for action in actions_of(obj)
        for curve in _curves_of(action)
        if curve.data_path.startswith(BONE_PATH) and curve.data_path.endswith("].location") and _moves_by(curve) > limit
    }


def _curves_of(action: Action) -> list[bpy.types.FCurve]:
    if not hasattr(action, "layers"):
        return list(action.fcurves)
    bags = (bag for layer in action.layers for strip in layer.strips for bag in strip.channelbags)
    return [curve for bag in bags for curve in bag.fcurves]


def _moves_by(curve: bpy.types.FCurve) -> float:
    values = np.empty(2 * len(curve.keyframe_points), np.float32)
    curve.keyframe_points.foreach_get("co", values)
    return float(np.ptp(values[1::2])) if len(values) else 0.0

"""Finds the actions made for an armature, assigns them, and reads which bones they move; with or without Blender's slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
from bpy.types import Action, AnimData, Object, PoseBone

from ...backend.arrays import Array
from ...backend.errors import UserError

BONE_PATH = 'pose.bones["'
CHANNELS = ("location", "rotation_quaternion", "rotation_euler", "rotation_axis_angle", "scale")


def actions_of(obj: Object) -> list[Action]:
    """The actions made for this armature, sorted by name: those it uses (active or in the NLA), and those that mostly animate its bones.

    An action that only another armature uses belongs to that one, even if the bones have the same names.
    """
    own = _used_actions(obj)
    others: set[Action] = set()
    for other in bpy.data.objects:
        if other.type == "ARMATURE" and other != obj:
            others |= _used_actions(other)
    bones = {bone.name for bone in obj.data.bones}
    found = [a for a in bpy.data.actions if a in own or a not in others]
    return sorted((a for a in found if _share(a, bones) >= 0.5), key=lambda a: a.name)


def _used_actions(obj: Object) -> set[Action]:
    data = obj.animation_data
    if data is None:
        return set()
    strips = {strip.action for track in data.nla_tracks for strip in track.strips}
    return {action for action in strips | {data.action} if action is not None}


def _share(action: Action, bones: set[str]) -> float:
    """The share of the bones animated by the action (in its best slot) that are among `bones`."""
    return max((_known(names, bones) for _, names in _animated(action)), default=0.0)


def _known(names: set[str], bones: set[str]) -> float:
    return len(names & bones) / len(names) if names else 0.0


def _animated(action: Action) -> Iterator[tuple[Any, set[str]]]:
    """(slot, names of the bones it animates); Blender 4.2 has no slots, there it is None."""
    if not hasattr(action, "slots"):
        yield None, _bone_names(action.fcurves)
        return
    for slot in action.slots:
        bags = [strip.channelbag(slot) for layer in action.layers for strip in layer.strips]
        yield slot, set().union(*(_bone_names(bag.fcurves) for bag in bags if bag is not None))


def _bone_names(curves: Any) -> set[str]:
    return {_bone_name(curve.data_path) for curve in curves if curve.data_path.startswith(BONE_PATH)}


def _bone_name(path: str) -> str:
    return bpy.utils.unescape_identifier(path[len(BONE_PATH) : path.rindex('"]')])


def action_label(action: Action) -> str:
    """The clip's own name: the part after the last '|', without the '_Armature' that Blender 4.2's glTF importer appends."""
    label = action.name.rsplit("|", 1)[-1]
    if hasattr(action, "slots"):
        return label
    ends = [f"_{obj.name}" for obj in bpy.data.objects if obj.type == "ARMATURE"]
    end = max((end for end in ends if label.endswith(end) and label != end), key=len, default="")
    return label[: len(label) - len(end)]


def find_action(obj: Object, name: str) -> Action:
    """The action of this armature with this full name, label, or label after a prefix ('Trex_Run' for 'Run').

    Raises UserError if there is none, or if there are several.
    """
    actions = actions_of(obj)
    tests: list[Callable[[Action], bool]] = [
        lambda action: action.name == name,
        lambda action: action_label(action) == name,
        lambda action: action_label(action).lower().endswith(f"_{name.lower()}"),
    ]
    for test in tests:
        found = [action for action in actions if test(action)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"'{action.name}'" for action in found)
            raise UserError(f"Action '{name}' of '{obj.name}' could be any of {names}: give the full name.")
    known = ", ".join(f"'{action_label(action)}'" for action in actions) or "none"
    raise UserError(f"Armature '{obj.name}' has no action '{name}': choose one of its actions ({known}).")


def action_frames(action: Action) -> Array:
    """The whole frames inside the action's range, (F,); a last partial frame is left out."""
    start, end = action.frame_range
    first = math.ceil(start - 1e-3)
    return np.arange(first, max(first, math.floor(end + 1e-3)) + 1, dtype=np.float64)


def assign_action(obj: Object, action: Action) -> None:
    """Make the action the armature's active one, in the slot that animates its bones. The earlier action is not kept."""
    set_action(obj.animation_data or obj.animation_data_create(), action, suitable_slot(obj, action))


def replace_action(obj: Object, action: Action | None) -> None:
    """Assign the action, or none, and keep the armature's earlier action in the file.

    The earlier action gets a fake user if nothing else would keep it when the file is saved.
    """
    data = obj.animation_data
    earlier = data and data.action
    if earlier == action:
        return
    if earlier is not None and earlier.library is None and earlier.users == 1:
        earlier.use_fake_user = True
    if action is None:
        data.action = None
    else:
        assign_action(obj, action)


def set_action(data: AnimData, action: Action | None, slot: Any) -> None:
    """Make the action active in this slot. With None Blender chooses the slot, if it has slots."""
    data.action = action
    if action is not None and slot is not None:
        data.action_slot = slot


def suitable_slot(obj: Object, action: Action) -> Any:
    """The action's slot that animates most of the armature's bones; None if there is none, as in Blender 4.2."""
    bones = {bone.name for bone in obj.data.bones}
    return max(_animated(action), key=lambda pair: _known(pair[1], bones), default=(None, set()))[0]


def pose_frames(obj: Object, action: Action, joints: Sequence[str], frames: Sequence[float] | Array) -> Array:
    """The evaluated poses of the named bones: (F, J, 4, 4) joint matrices, armature space, constraints included.

    Bones without keys are at rest, whatever pose the armature was in. Motion of the armature object itself is folded into the
    joints, relative to its present place. The scene, the pose and the active action are left as they were. Raises UserError for a
    name that is no bone.
    """
    order = [obj.pose.bones.find(name) for name in joints]
    if -1 in order:
        raise UserError(f"Bone '{joints[order.index(-1)]}' is not in armature '{obj.name}': pick the rig again.")
    world = np.array(obj.matrix_world, dtype=np.float64)
    poses = np.empty((len(frames), len(joints), 4, 4))
    flat = np.empty(16 * len(obj.pose.bones), np.float32)
    with undisturbed(obj):
        assign_action(obj, action)
        reset_pose(obj)
        for i, frame in enumerate(frames):
            whole = math.floor(frame)
            bpy.context.scene.frame_set(whole, subframe=float(frame - whole))
            obj.pose.bones.foreach_get("matrix", flat)
            # foreach_get gives each matrix by columns
            matrices = flat.reshape(-1, 4, 4).transpose(0, 2, 1)[order]
            # World point = W_f P x. In the armature axes of the call's W: W^-1 W_f P x.
            moved = np.array(obj.matrix_world, dtype=np.float64)
            poses[i] = matrices if np.array_equal(moved, world) else np.linalg.solve(world, moved) @ matrices
    return poses


def reset_pose(obj: Object) -> None:
    """Clear the channels of every bone. Constraints still act."""
    for bone in obj.pose.bones:
        bone.matrix_basis.identity()


@contextmanager
def undisturbed(obj: Object) -> Iterator[None]:
    """Switch the NLA off inside the block, and restore the frame, action, NLA, object transform and pose afterwards."""
    scene = bpy.context.scene
    frame, subframe = scene.frame_current, scene.frame_subframe
    data = obj.animation_data or obj.animation_data_create()
    action, use_nla, slot = data.action, data.use_nla, getattr(data, "action_slot", None)
    channels = [(item, _channels(item)) for item in (obj, *obj.pose.bones)]
    data.use_nla = False  # unmuted strips would be mixed into the action
    try:
        yield
    finally:
        set_action(data, action, slot)
        data.use_nla = use_nla
        scene.frame_set(frame, subframe=subframe)
        for item, values in channels:
            for name, value in values.items():
                setattr(item, name, value)
        bpy.context.view_layer.update()


def _channels(item: Object | PoseBone) -> dict[str, tuple[float, ...]]:
    """The raw channels: a matrix would lose full turns of Euler angles."""
    return {name: tuple(getattr(item, name)) for name in CHANNELS}

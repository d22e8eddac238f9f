"""Writes a `Motion` as an `Action`, with bulk keys: the only file that knows rotation modes, slots and legacy actions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.rotations import continuous, matrix_to_quaternion, quaternion_to_matrix
from ...backend.motion.motion import Motion, sample
from ...backend.rig.rig import Rig
from ..rig import locks
from ..rig.actions import replace_action
from ..rig.armature import basis_channels, pose_of
from ..rig.control_rigs import control_rig
from ..rig.joint_controls import ControlRig
from ..rig.validation import check_writable
from . import control_keys

if TYPE_CHECKING:
    from ...backend.motion.key_reduction import Keys

EULER_MODES = ("XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX")
# Video timestamps are rounded, often to milliseconds: a whole frame so little outside the take still gets its key.
SLACK = 0.05


class Channel(NamedTuple):
    """One animated property of one bone. values: (F, n). indices: the components that get keys, None for all.

    path: a property of the pose bone, or a custom one in brackets and quotes. keys: fewer keys for these values; None for one each.
    """

    bone: str
    path: str
    values: Array
    indices: tuple[int, ...] | None = None
    keys: Keys | None = None


def write_motion(
    obj: bpy.types.Object,
    rig: Rig,
    motion: Motion,
    reference: Array,
    *,
    name: str,
    start_frame: float,
    fps: float,
    degrees: float = 0.0,
    percent: float = 0.0,
    turns: Array | None = None,
) -> bpy.types.Action:
    """Key the take on the armature, as a new action called `name` (and a new slot, where Blender has them), and return it.

    Time t of the take falls on frame `start_frame` + t `fps`, with fps = render.fps / render.fps_base. Keys are on whole frames, where
    an animator can edit them: the take is sampled there, rotations by slerp and positions linearly.
    reference: (J, 4, 4) pose the take was captured from. Static joints get no keys, and only joints that translate get a location,
    measured from the root's head, which keeps its present place, or goes along with the take's travel from where it is at rest. Channels
    that are not keyed keep their present values, so the scale and location of all other bones are used as they are now.
    degrees, percent: greatest error of fewer keys (key_reduction.joint_tolerances); 0 keys every frame.
    turns: (F, 3, 3) rotations in armature axes before those of the take, at each key (object_turns.py), or None.
    The armature's earlier action stays in the file. Only the new action and the armature's animation data change, and nothing at all
    if this raises UserError: linked object, NLA tweak mode, edit mode, take or bones that do not fit the rig.
    """
    check_writable(obj)
    _check_fit(rig, motion, reference)
    pose_of(obj, rig)  # raises for bones that were renamed or deleted meanwhile, and brings the present pose up to date
    frames = whole_frames(motion.times, start_frame, fps)
    channels = solved_channels(obj, rig, motion, frames - start_frame, fps, turns)
    if degrees > 0 and percent > 0:
        channels = fewer_keys(rig, channels, frames, degrees, percent)
    action = build_action(name, obj.name, frames, channels)
    replace_action(obj, action)
    return action


def _check_fit(rig: Rig, motion: Motion, reference: Array) -> None:
    if motion.names != rig.names:
        strange = next((name for name in motion.names if name not in rig.names), None)
        what = f"bone '{strange}' is not in the rig" if strange else "the joints differ"
        raise UserError(f"The take does not fit rig '{rig.name}' ({what}): capture it again.")
    if np.shape(reference) != rig.rest.shape:
        raise UserError(f"The reference pose does not fit rig '{rig.name}': take it from the same armature and bones.")


def whole_frames(times: Array, start_frame: float, fps: float) -> Array:
    """(F,) the whole scene frames that the take (seconds, increasing) covers; at least one."""
    exact = start_frame + times[[0, -1]] * fps
    first, last = np.ceil(exact[0] - SLACK), np.floor(exact[1] + SLACK)
    return np.arange(first, max(first, last) + 1)


def solved_channels(
    obj: bpy.types.Object, rig: Rig, motion: Motion, frames: Array, fps: float, turns: Array | None = None
) -> list[Channel]:
    """The channels to key for the take at `frames` (F,) after its start. turns: as in `write_motion`."""
    quaternions, positions = sample(motion, frames / fps)
    global_rotations = quaternion_to_matrix(quaternions)
    travel = travel_at(motion, frames / fps) if len(motion.travel) else None
    if turns is not None:
        global_rotations = turns[:, None] @ global_rotations
        positions = np.einsum("fab,fjb->fja", turns, positions)
        travel = None if travel is None else np.einsum("fab,fb->fa", turns, travel)
    controls = control_rig(obj)
    if controls is not None and all(name in controls.controls for name in rig.names):
        return _control_channels(obj, rig, controls, global_rotations)
    rotations, locations = basis_channels(obj, rig, global_rotations, positions, travel)
    return _channels(obj, rig, rotations, locations, travel is not None)


def travel_at(motion: Motion, seconds: Array) -> Array:
    """(F, 3) the travel at any times (F,), linearly; held before and after."""
    return np.stack([np.interp(seconds, motion.times, column) for column in motion.travel.T], axis=1)


def _control_channels(obj: bpy.types.Object, rig: Rig, controls: ControlRig, global_rotations: Array) -> list[Channel]:
    """Channels of the controls, and of every switch that makes a captured limb follow them: one key."""
    solved, locations = control_keys.solve_controls(obj, rig, controls, global_rotations)
    channels = [bone_rotation_channel(obj.pose.bones[name], rotations) for name, rotations in solved.items()]
    if controls.whole is not None and len(locations):
        whole = obj.pose.bones[controls.whole[0]]
        channels.append(Channel(whole.name, "location", locations, locks.free_location(whole)))
    for switch in controls.switches:
        if switch.joint in rig.names:
            path = f'["{bpy.utils.escape_identifier(switch.name)}"]'
            channels.append(Channel(switch.bone, path, np.array([[switch.value]])))
    return channels


def _channels(obj: bpy.types.Object, rig: Rig, rotations: Array, locations: Array, travels: bool) -> list[Channel]:
    channels = []
    for joint, name in enumerate(rig.names):
        if rig.static[joint]:
            continue
        bone = obj.pose.bones[name]
        channels.append(bone_rotation_channel(bone, rotations[:, joint]))
        moves = rig.translates[joint] or rig.hung[joint] or (joint == 0 and travels)
        if moves and not obj.data.bones[name].use_connect:
            channels.append(Channel(name, "location", locations[:, joint], locks.free_location(bone)))
    return channels


def fewer_keys(rig: Rig, channels: list[Channel], frames: Array, degrees: float, percent: float) -> list[Channel]:
    """The channels with the fewest keys that keep their error under that of key_reduction.joint_tolerances.

    A location may be off by `percent` of the rig's size. A control may be off by what the most sensitive joint allows.
    """
    from ...backend.motion import key_reduction
    from ...backend.motion.feet import size_of

    errors = {
        "rotation_quaternion": key_reduction.quaternion_error,
        "rotation_euler": key_reduction.euler_error,
        "rotation_axis_angle": key_reduction.axis_angle_error,
    }
    tolerances = key_reduction.joint_tolerances(rig, degrees, percent)
    allowed = dict(zip(rig.names, tolerances.tolist(), strict=True))
    lengths = percent / 100 * size_of(rig)
    fewer = []
    for channel in channels:
        if len(channel.values) == len(frames) and channel.path == "location":
            keys = key_reduction.reduced(frames, channel.values, key_reduction.distance, lengths)
            channel = channel._replace(keys=keys)
        elif len(channel.values) == len(frames) and channel.path in errors:
            tolerance = allowed.get(channel.bone, float(tolerances.min()))
            channel = channel._replace(keys=key_reduction.reduced(frames, channel.values, errors[channel.path], tolerance))
        fewer.append(channel)
    return fewer


def bone_rotation_channel(bone: bpy.types.PoseBone, rotations: Array) -> Channel:
    """The rotations (F, 3, 3), which respect the bone's locks, in the bone's rotation mode; locked components get no keys."""
    channel, free = rotation_channel(bone.name, bone.rotation_mode, rotations), locks.free_rotation(bone)
    if not locks.is_locked(bone):
        return channel
    # many values mean one rotation: take the one whose locked components keep their value
    if channel.path == "rotation_euler":
        channel = channel._replace(values=locks.locked_eulers(bone, rotations))
    elif bone.lock_rotations_4d and channel.path == "rotation_quaternion":
        channel = channel._replace(values=locks.locked_quaternions(bone, rotations))
    elif bone.lock_rotations_4d:
        channel = channel._replace(values=locks.locked_axis_angles(bone, rotations))
    return channel._replace(indices=free)


def rotation_channel(bone: str, mode: str, rotations: Array) -> Channel:
    """(F, 3, 3) -> the channel of a bone of this rotation mode, without jumps from frame to frame.

    Raises UserError for a mode other than quaternion, the six Euler orders and axis-angle.
    """
    if mode == "QUATERNION":
        return Channel(bone, "rotation_quaternion", continuous(matrix_to_quaternion(rotations)))
    if mode == "AXIS_ANGLE":
        return Channel(bone, "rotation_axis_angle", _axis_angles(matrix_to_quaternion(rotations)))
    if mode in EULER_MODES:
        return Channel(bone, "rotation_euler", _eulers(rotations, mode))
    raise UserError(f"Bone '{bone}' has the unknown rotation mode '{mode}': set it to Quaternion.")


def _eulers(rotations: Array, mode: str) -> Array:
    """(F, 3) radians: of all angles for one rotation, those nearest to the frame before."""
    matrices = rotations.tolist()  # a Matrix is made from lists in a fifth of the time
    angles = [Matrix(matrices[0]).to_euler(mode)]
    for matrix in matrices[1:]:
        angles.append(Matrix(matrix).to_euler(mode, angles[-1]))
    return np.array(angles, np.float64)


def _axis_angles(quaternions: Array) -> Array:
    """(F, 4) wxyz -> (F, 4) angle in radians, then the axis.

    Quaternions of either sign, (a, v), (-a, -v) and (a + 2 pi k, v) are all the same rotation. The axis takes the sign nearest to the
    frame before, and then the angle takes the k nearest to it, so neither jumps where the rotation passes through zero or 2 pi.
    """
    result: list[tuple[float, ...]] = []
    angle, axis = 0.0, (0.0, 1.0, 0.0)
    for w, x, y, z in quaternions.tolist():
        length = math.sqrt(x * x + y * y + z * z)
        if length > 1e-9:
            side = -1.0 if result and x * axis[0] + y * axis[1] + z * axis[2] < 0 else 1.0
            length *= side
            axis = (x / length, y / length, z / length)
        turn = 2 * math.atan2(length, w)
        angle = turn + 2 * math.pi * round((angle - turn) / (2 * math.pi))
        result.append((angle, *axis))
    return np.array(result)


def build_action(name: str, slot_name: str, frames: Array, channels: list[Channel]) -> bpy.types.Action:
    """The new action with all its keys, in a slot of its own (from Blender 4.4 on), not yet in use."""
    action = bpy.data.actions.new(name)
    bag = action
    if hasattr(action, "slots"):
        slot = action.slots.new(id_type="OBJECT", name=slot_name)
        bag = action.layers.new("Layer").strips.new(type="KEYFRAME").channelbag(slot, ensure=True)
    else:
        action.id_root = "OBJECT"
    points = np.stack([frames, frames], axis=1).astype(np.float32)  # one buffer for every curve
    bezier = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items["BEZIER"].value
    shapes = np.full(len(frames), bezier, np.int32)
    for channel in channels:
        if channel.indices == ():
            continue
        group = bag.groups.get(channel.bone) or bag.groups.new(channel.bone)
        owner = f'pose.bones["{bpy.utils.escape_identifier(channel.bone)}"]'
        path = owner + (channel.path if channel.path.startswith("[") else f".{channel.path}")
        for index, values in enumerate(channel.values.T):
            if channel.indices is not None and index not in channel.indices:
                continue
            curve = bag.fcurves.new(path, index=index)
            curve.group = group
            if channel.keys is not None:
                _fill_fitted(curve, channel.keys, index, bezier)
                continue
            # a switch has a single key
            count = len(values)
            points[:count, 1] = values
            _fill(curve, points[:count], shapes[:count])
    return action


def _fill(curve: bpy.types.FCurve, points: Array, shapes: NDArray[np.int32]) -> None:
    """Add Bezier keys with Blender's usual clamped handles, which never overshoot and stay smooth if keys are deleted.

    points: (F, 2) float32 frames and values. shapes: (F,) int32, the interpolation of each key.
    """
    keys = curve.keyframe_points
    keys.add(len(points))
    keys.foreach_set("co", points.ravel())
    keys.foreach_set("interpolation", shapes)
    curve.update()


def _fill_fitted(curve: bpy.types.FCurve, fitted: Keys, index: int, bezier: int) -> None:
    """Add the keys of one component, with handles that were fitted and stay in line with each other."""
    aligned = bpy.types.Keyframe.bl_rna.properties["handle_left_type"].enum_items["ALIGNED"].value
    left, right = fitted.handles()
    keys, count = curve.keyframe_points, len(fitted)
    keys.add(count)
    keys.foreach_set("co", np.stack([fitted.frames, fitted.values[:, index]], axis=1).astype(np.float32).ravel())
    for name, value in (("interpolation", bezier), ("handle_left_type", aligned), ("handle_right_type", aligned)):
        keys.foreach_set(name, np.full(count, value, np.int32))
    # after the types, which would move them
    keys.foreach_set("handle_left", left[:, index].astype(np.float32).ravel())
    keys.foreach_set("handle_right", right[:, index].astype(np.float32).ravel())
    curve.update()

"""The keys of a control rig: found by posing its controls and looking where the rig takes them, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.geometry.rotations import Array, geodesic_angle, nearest_rotation
from ...backend.rig.rig import Rig
from ..rendering.scratch_scene import scratch_scene
from ..rig import locks
from ..rig.actions import set_action
from ..rig.joint_controls import ControlRig
from .control_twists import NEAR, Twists

STEPS = 20  # looks at the rig for one frame, at most
SETTLED = 1e-3  # radians
CHANNELS = ("location", "rotation_quaternion", "rotation_euler", "rotation_axis_angle", "scale")
Evaluate = Callable[[], Array]


def solve_controls(obj: bpy.types.Object, rig: Rig, controls: ControlRig, rotations: Array) -> tuple[dict[str, Array], Array]:
    """Control -> rotations (T, 3, 3) of its own channels, with which it turns by its joint's G (turns: (T, J, 3, 3)).

    And the locations (T, 3) of the control of the whole body that keep the root's head where it is; none if the rig has no such control.

    Controls hang on mechanisms that no formula of ours knows (constraints, drivers), so the rig is asked. A control shows C = S B, S
    the space that it hangs in and B its own rotation. If the control above it is about to be turned further by D, its space becomes
    D S, and B = (D S)^T C_wanted brings it to its turn. Where the rig does otherwise (a neck that follows half) the next look
    tells. The armature's animation, channels and switches are afterwards what they were.
    """
    keyed = controls.keyed(rig.names)
    order = _order(obj, keyed, controls)
    joints = [rig.names.index(keyed[name]) for name in order]
    rest = nearest_rotation(np.array([obj.data.bones[name].matrix_local for name in order], np.float64))
    places: dict[str | None, int] = {None: -1, **{name: index for index, name in enumerate(order)}}
    above = [places[_above(obj, name, keyed, controls)] for name in order]
    wanted = rotations[:, joints] @ rest
    whole = order.index(controls.whole[0]) if controls.whole and controls.whole[0] in order else -1
    twists = Twists(obj, controls, order, [keyed[name] for name in order])
    twisted: list[Array] = []
    result, locations = np.empty_like(wanted), np.zeros((0 if whole < 0 else len(wanted), 3))
    with _alone(obj, [*order, *twists.names], controls, rig.names) as look:
        posing, root = _Posing(obj, order, above, twists, look), obj.pose.bones.find(rig.names[0])
        head = posing.posed[root, :3, 3].copy()
        for frame, target in enumerate(wanted):
            posing.settle(target, rotations[frame, joints])
            result[frame] = posing.basis
            twisted.append(twists.basis)
            if whole >= 0:
                locations[frame] = posing.moved(whole, head - posing.posed[root, :3, 3])
    found = {name: result[:, index] for index, name in enumerate(order)}
    return found | {name: np.array(twisted)[:, index] for index, name in enumerate(twists.names)}, locations


class _Posing:
    """The controls in `order`, posed until the rig shows what is wanted of it.

    above: the place in `order` of the control that each hangs on, or -1. basis: (N, 3, 3), how their own channels turn them.
    posed: (bones, 4, 4), what the rig makes of it.
    """

    def __init__(self, obj: bpy.types.Object, order: Sequence[str], above: Sequence[int], twists: Twists, look: Evaluate) -> None:
        self._bones = [obj.pose.bones[name] for name in order]
        self._at = [obj.pose.bones.find(name) for name in order]
        self._stand = [(bone.location.copy(), bone.scale.copy()) for bone in self._bones]
        self._above, self._twists, self._look = above, twists, look
        self.basis = np.array([bone.matrix_basis.to_quaternion().to_matrix() for bone in self._bones], np.float64)
        self.posed = look()

    def settle(self, target: Array, rotations: Array) -> None:
        """target: (N, 3, 3) what the controls should show; turns: (N, 3, 3) G of their joints."""
        for _ in range(STEPS):
            shown = nearest_rotation(self.posed[self._at])
            better = _step(self._bones, self._above, self.basis, shown, self._twists.aims @ target)
            far = geodesic_angle(self.basis, better).max()
            bent = self._twists.correct(self.posed, rotations) if far < NEAR else np.inf
            if far < SETTLED and bent < SETTLED:
                return
            self.basis = better
            _pose(self._bones, self._stand, better)
            self.posed = self._look()

    def moved(self, index: int, further: Array) -> Array:
        """(3,) location with which a control moves on by `further` (3,), armature axes. It shows S B diag(scale), and l moves it
        by S l."""
        location, scale = (np.array(part) for part in self._stand[index])
        space = self.posed[self._at[index]][:3, :3] / scale @ self.basis[index].T
        return location + np.linalg.solve(space, further)


def _step(bones: Sequence[bpy.types.PoseBone], above: Sequence[int], basis: Array, shown: Array, target: Array) -> Array:
    """(N, 3, 3) better rotations of the controls' own channels; those above come first."""
    better, further = np.empty_like(basis), np.empty_like(basis)
    for index, bone in enumerate(bones):
        space = shown[index] @ basis[index].T
        if above[index] >= 0:
            space = further[above[index]] @ space
        better[index] = locks.apply_locks(bone, (space.T @ target[index])[None])[0]
        further[index] = space @ better[index] @ shown[index].T
    return nearest_rotation(better)  # rounding must not add up over the frames


def _order(obj: bpy.types.Object, keyed: Mapping[str, str], controls: ControlRig) -> list[str]:
    """The controls, each after the one that it hangs on."""
    done: dict[str, None] = {}

    def add(name: str) -> None:
        up = _above(obj, name, keyed, controls)
        if up is not None and up not in done:
            add(up)
        done[name] = None

    for name in keyed:
        if name not in done:
            add(name)
    return list(done)


def _above(obj: bpy.types.Object, name: str, keyed: Mapping[str, str], controls: ControlRig) -> str | None:
    """The nearest control above, itself or through the joint that it drives."""
    for bone in obj.data.bones[name].parent_recursive:
        control = controls.controls.get(bone.name, bone.name)
        if control in keyed and control != name:
            return control
    return None


def _pose(bones: Sequence[bpy.types.PoseBone], stand: Sequence[tuple[Any, Any]], basis: Array) -> None:
    for bone, (location, scale), rotation in zip(bones, stand, basis.tolist(), strict=True):
        bone.matrix_basis = Matrix.LocRotScale(location, Matrix(rotation), scale)


@contextmanager
def _alone(obj: bpy.types.Object, order: Sequence[str], controls: ControlRig, joints: Sequence[str]) -> Iterator[Evaluate]:
    """The armature without its animation and with its limbs on FK, in a scene of its own, where no mesh is deformed.

    Gives a function that evaluates it and returns the pose matrices (bones, 4, 4).
    """
    kept = [(obj.pose.bones[name], {key: tuple(getattr(obj.pose.bones[name], key)) for key in CHANNELS}) for name in order]
    switches = [
        (obj.pose.bones[s.bone], s.name, obj.pose.bones[s.bone][s.name], s.value) for s in controls.switches if s.joint in joints
    ]
    hidden, playing = obj.hide_viewport, _stop(obj)
    try:
        with scratch_scene(obj) as stage:
            obj.hide_viewport = False
            for bone, name, before, value in switches:
                bone[name] = type(before)(value)
            obj.update_tag()
            yield lambda: _evaluate(obj, stage.scene.view_layers[0])
    finally:
        for bone, name, before, _ in switches:
            bone[name] = before
        for bone, values in kept:
            for key, value in values.items():
                setattr(bone, key, value)
        obj.hide_viewport = hidden
        _play(obj, playing)
        obj.update_tag()


def _evaluate(obj: bpy.types.Object, layer: bpy.types.ViewLayer) -> Array:
    layer.update()
    posed = obj.evaluated_get(layer.depsgraph).pose.bones
    flat = np.empty(16 * len(posed), np.float32)
    posed.foreach_get("matrix", flat)
    # Blender stores columns one after the other
    return flat.reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)


def _stop(obj: bpy.types.Object) -> tuple[Any, Any, bool] | None:
    """Take the action away and switch the NLA off; what they were."""
    data = obj.animation_data
    if data is None:
        return None
    before = data.action, getattr(data, "action_slot", None), data.use_nla
    data.use_nla = False
    data.action = None
    return before


def _play(obj: bpy.types.Object, before: tuple[Any, Any, bool] | None) -> None:
    if before is None:
        return
    data = obj.animation_data
    action, slot, data.use_nla = before
    set_action(data, action, slot)

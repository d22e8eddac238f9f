"""Solves the keys of a control rig: poses its controls frame by frame, and reads the pose that the rig makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array
from ...backend.geometry.rotations import geodesic_angle, nearest_rotation
from ...backend.rig.rig import Rig
from ..rendering.scratch_scene import scratch_scene
from ..rig import locks
from ..rig.actions import set_action
from ..rig.joint_controls import ControlRig
from .control_twists import NEAR, Twists

STEPS = 20  # evaluations of the rig for one frame, at most
SETTLED = 1e-3  # radians
CHANNELS = ("location", "rotation_quaternion", "rotation_euler", "rotation_axis_angle", "scale")
Evaluate = Callable[[], Array]


def solve_controls(obj: bpy.types.Object, rig: Rig, controls: ControlRig, rotations: Array) -> tuple[dict[str, Array], Array]:
    """Solve the controls' own channels so that each control rotates by its joint's global rotation.

    rotations: (T, J, 3, 3), away from rest. Returns control -> rotations (T, 3, 3) of its own channels, and the locations (T, 3) of the
    control of the whole body that keep the root's head in its place; (0, 3) if the rig has no such control. The armature's animation,
    channels and switches are restored.

    Controls hang on mechanisms that no formula here covers (constraints, drivers), so Blender evaluates the rig. A control shows
    C = S B with its space S and its own rotation B. If the control above it is about to rotate further by D, the space becomes D S,
    and B = (D S)^T C_wanted gives the wanted rotation. Where the rig behaves otherwise, as a neck that follows by half, the next
    evaluation corrects it.
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
    """Poses the controls in `order` until the rig shows the wanted rotations.

    above: the index in `order` of the control that each hangs on, or -1. basis: (N, 3, 3), the rotations of their own channels.
    posed: (bones, 4, 4), the evaluated pose.
    """

    def __init__(self, obj: bpy.types.Object, order: Sequence[str], above: Sequence[int], twists: Twists, look: Evaluate) -> None:
        self._bones = [obj.pose.bones[name] for name in order]
        self._at = [obj.pose.bones.find(name) for name in order]
        self._stand = [(bone.location.copy(), bone.scale.copy()) for bone in self._bones]
        self._above, self._twists, self._look = above, twists, look
        self.basis = np.array([bone.matrix_basis.to_quaternion().to_matrix() for bone in self._bones], np.float64)
        self.posed = look()

    def settle(self, target: Array, rotations: Array) -> None:
        """target: (N, 3, 3) wanted rotations of the controls. rotations: (N, 3, 3) wanted global rotations of their joints."""
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
        """(3,) the location that moves a control by `further` (3,), armature axes: it shows S B diag(scale), and l moves it by S l."""
        location, scale = (np.array(part) for part in self._stand[index])
        space = self.posed[self._at[index]][:3, :3] / scale @ self.basis[index].T
        return location + np.linalg.solve(space, further)


def _step(bones: Sequence[bpy.types.PoseBone], above: Sequence[int], basis: Array, shown: Array, target: Array) -> Array:
    """(N, 3, 3) better rotations of the controls' own channels. A control comes after the one above it."""
    better, further = np.empty_like(basis), np.empty_like(basis)
    for index, bone in enumerate(bones):
        space = shown[index] @ basis[index].T
        if above[index] >= 0:
            space = further[above[index]] @ space
        better[index] = locks.apply_locks(bone, (space.T @ target[index])[None])[0]
        further[index] = space @ better[index] @ shown[index].T
    return nearest_rotation(better)  # otherwise rounding errors would add up over the frames


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
    """The nearest control above: as a bone itself, or by the joint that it drives."""
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
    """Take the armature's animation away, switch its limbs to FK, and restore everything afterwards.

    Yields a function that evaluates the armature and returns the pose matrices (bones, 4, 4). It runs in a scene without meshes,
    because deforming them on every evaluation would be slow.
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
    # foreach_get gives each matrix by columns
    return flat.reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)


def _stop(obj: bpy.types.Object) -> tuple[Any, Any, bool] | None:
    """Take the action away and switch the NLA off; returns what `_play` restores."""
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

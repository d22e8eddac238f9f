"""Corrects backs and tails of control rigs, whose bones are stretched between tweaks and do not simply rotate as their controls do.

The direction of such a bone comes from its control, and also from the neighbours' controls where Rigify gives two controls one pivot.
Its twist comes from the tweak at which it begins, which may hang on a neighbour's control. So the control is aimed until the bone has
the wanted direction, and the tweak, which Rigify leaves free for nothing but twist, is twisted.
"""

from __future__ import annotations

from collections.abc import Sequence

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array
from ...backend.geometry.rotations import matrix_to_rotvec, nearest_rotation, rotvec_to_matrix
from ..rig import locks
from ..rig.joint_controls import ControlRig

NEAR = 0.035  # radians; bones are corrected once their controls are this near


class Twists:
    """The stretched joints among those of the controls in `order`. joints: the joint of each control."""

    def __init__(self, obj: bpy.types.Object, controls: ControlRig, order: Sequence[str], joints: Sequence[str]) -> None:
        self._obj = obj
        self.aims = np.tile(np.eye(3), (len(order), 1, 1))  # rotations in front of the controls' wanted ones
        self._rows = [
            row for row, joint in enumerate(joints) if controls.controls.get(joint) == order[row] and joint in controls.stretched
        ]
        shown = [joints[row] for row in self._rows]
        self._tweaks = [controls.twists.get(joint) for joint in shown]
        self._at = [obj.pose.bones.find(joint) for joint in shown]
        self._rest = nearest_rotation(np.array([obj.data.bones[joint].matrix_local for joint in shown]).reshape(-1, 4, 4))
        self._signs = [self._sign(joint, tweak) for joint, tweak in zip(shown, self._tweaks, strict=True)]

    @property
    def names(self) -> list[str]:
        """The tweaks to be keyed."""
        return [name for name in self._tweaks if name is not None]

    @property
    def basis(self) -> Array:
        """(N, 3, 3) rotations of their own channels."""
        found = [self._obj.pose.bones[name].matrix_basis.to_quaternion().to_matrix() for name in self.names]
        return np.array(found, np.float64).reshape(-1, 3, 3)

    def correct(self, poses: Array, rotations: Array) -> float:
        """Aim the controls and twist the tweaks; returns the largest error in radians.

        poses: (bones, 4, 4) as evaluated. rotations: (C, 3, 3) wanted global rotations of the controls' joints.
        """
        worst = 0.0
        for index, row in enumerate(self._rows):
            shown = nearest_rotation(poses[self._at[index]])
            vector = matrix_to_rotvec(rotations[row] @ self._rest[index] @ shown.T)
            worst = max(worst, float(np.linalg.norm(vector)))
            tweak = self._tweaks[index]
            if tweak is not None:
                twist = float(vector @ shown[:, 1])
                vector = vector - twist * shown[:, 1]
                self._twist(tweak, self._signs[index] * twist)
            self.aims[row] = rotvec_to_matrix(vector) @ self.aims[row]
        return worst

    def _twist(self, tweak: str, angle: float) -> None:
        bone = self._obj.pose.bones[tweak]
        location, rotation, scale = (bone.matrix_basis @ Matrix.Rotation(angle, 4, "Y")).decompose()
        allowed = locks.apply_locks(bone, np.array(rotation.to_matrix(), np.float64)[None])[0]
        bone.matrix_basis = Matrix.LocRotScale(location, Matrix(allowed.tolist()), scale)

    def _sign(self, joint: str, tweak: str | None) -> float:
        """-1 for a tweak that points against its bone, as in tails, which are controlled from the body outwards."""
        along = [np.array(self._obj.data.bones[name].matrix_local)[:3, 1] for name in (joint, tweak or joint)]
        return 1.0 if along[0] @ along[1] > 0 else -1.0

"""The controls of a rig as plain values: which control rotates which joint, and the tree of the joints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import bpy
import numpy as np

TOUCHING = 1e-3  # of the rig's size: a tail and a head this near belong together


@dataclass(frozen=True)
class Switch:
    """A custom property of a control that makes a limb follow its FK controls. joint: the first one of the limb."""

    bone: str
    name: str
    value: float
    joint: str


@dataclass(frozen=True, eq=False)
class ControlRig:
    """A rig of one maker.

    kind: the maker's name. controls: joint -> control. parents: joint -> joint, parents first. deforming: joint -> the bones of the
    mesh that follow it. whole: a control that rotates the whole body, and the joint whose rotation it takes. stretched: joints that
    lie between two tweaks. twists: stretched joint -> the tweak that gives it its twist, if that tweak does not hang on the joint's
    own control.
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
        """Control -> the joint whose rotation it takes, for joints among `joints`."""
        found = {control: joint for joint, control in self.controls.items() if joint in joints}
        if self.whole is not None and self.whole[1] in joints:
            found = {self.whole[0]: self.whole[1], **found}
        return found


def joint_tree(obj: bpy.types.Object, controls: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str | None]:
    """Joint -> its parent joint, parents first. others: bone -> joint, for bones that follow joints.

    Three rules are tried one after another. The parent is a joint above it in the armature. Else it is a joint that ends where this
    one begins: the bones of spines hang on controls from the middle outwards. Else it is the joint of a control above it. A parent
    that would close a circle is not taken.
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

"""Takes on game rigs: a foot that hangs on no shin in the armature is keyed so that it stays at its shin's end."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

import bpy
import numpy as np
import pytest
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import BoneSpec, chain, make_rig, random_motion
from anyrig.tests.addon.playback import TOLERANCE, assert_hung, assert_shows, curves_of, paths_of, played, write
from mathutils import Matrix, Vector

FRAMES = 1 + np.arange(12)
MAKERS = {
    "hoofed": (fixtures.hoofed, fixtures.HOOVES, set()),
    "footed_biped": (fixtures.footed_biped, fixtures.FEET, {"Root"}),
    "footed_spider": (fixtures.footed_spider, fixtures.CLAWS, {"ground"}),
}


def assert_captured(obj: bpy.types.Object, rig: Rig, seed: int = 3) -> set[str]:
    """A random take, played back, shows its rotations with all feet in place; -> the paths that it keys."""
    motion = random_motion(rig, len(FRAMES), seed)
    action = write(obj, rig, motion)
    assert_shows(obj, rig, FRAMES, motion.matrices, motion.positions)
    return paths_of(action)


@pytest.mark.parametrize("name", MAKERS)
def test_feet_are_keyed_in_place_and_the_ground_root_is_not(name: str) -> None:
    make, parts, aside = MAKERS[name]
    obj = make()
    rig = rig_from_armature(obj)
    expected = {f'pose.bones["{bone.name}"].rotation_quaternion' for bone in obj.data.bones if bone.name not in aside}
    expected |= {f'pose.bones["{foot}"].location' for foot in parts}
    assert assert_captured(obj, rig) == expected


@pytest.mark.parametrize("apart", [0.0, 0.02])
@pytest.mark.parametrize("name", MAKERS)
def test_live_ik_agrees_with_the_keyed_legs(name: str, apart: float) -> None:
    """The keyed targets are where the legs want them: the constraints change nothing that could be seen. apart: from shin to foot."""
    make, parts, _ = MAKERS[name]
    obj = make(ik=True)
    move(obj, parts, apart)
    rig = rig_from_armature(obj)
    assert rig.hung.sum() == len(parts)
    motion = random_motion(rig, 40, seed=3)
    write(obj, rig, motion)
    frames = 1 + np.arange(40)
    with_ik = played(obj, rig, frames)
    assert np.abs(rig.rotations(with_ik) - motion.matrices).max() < TOLERANCE
    if not apart:
        assert_hung(rig, with_ik)
    for bone in obj.pose.bones:
        for constraint in bone.constraints:
            constraint.mute = True
    without = played(obj, rig, frames)
    size = np.ptp(rig.heads, axis=0).max()
    assert np.abs(with_ik - without)[..., :3, 3].max() < 2e-5 * size
    assert np.degrees(geodesic_angle(rig.rotations(with_ik), rig.rotations(without))).max() < 0.01
    # the constraints do act: a target that moves takes its leg along
    target, shin = next(iter(parts.items()))
    obj.animation_data.action = None
    for bone in obj.pose.bones:
        bone.matrix_basis.identity()
    rest = pose_of(obj, rig)
    for muted in (True, False):
        for constraint in obj.pose.bones[shin].constraints:
            constraint.mute = muted
        obj.pose.bones[target].location = (0, 0.1 * size, 0)
        moved = np.abs(pose_of(obj, rig) - rest)[rig.names.index(shin)].max()
        assert (moved > 0.01) == (not muted)


def move(obj: bpy.types.Object, names: Collection[str], by: float) -> None:
    """Move bones back at rest."""
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    for name in names:
        bone = obj.data.edit_bones[name]
        bone.head, bone.tail = bone.head + Vector((0, by, 0)), bone.tail + Vector((0, by, 0))
    bpy.ops.object.mode_set(mode="OBJECT")


# what a user may have done to a rig before the take is written
STATES: dict[str, Callable[[bpy.types.Object], None]] = {
    "ground root posed": lambda obj: pose(obj, "Root"),
    "body posed": lambda obj: pose(obj, "Body"),
    "leg scaled": lambda obj: setattr(obj.pose.bones["thigh.L"], "scale", (1.3, 1.3, 1.3)),
    "shin scaled unevenly": lambda obj: setattr(obj.pose.bones["shin.L"], "scale", (1.2, 0.9, 1.1)),
    "foot scaled": lambda obj: setattr(obj.pose.bones["foot.L"], "scale", (1.2, 0.9, 1.1)),
    "foot moved": lambda obj: pose(obj, "foot.R"),
    "foot in Euler angles": lambda obj: setattr(obj.pose.bones["foot.L"], "rotation_mode", "YZX"),
    "foot in armature axes": lambda obj: setattr(obj.data.bones["foot.L"], "use_local_location", False),
    "object by 100, turned": lambda obj: setattr(obj, "matrix_world", Matrix.Rotation(-np.pi / 2, 4, "X") @ Matrix.Scale(100, 4)),
}


def pose(obj: bpy.types.Object, name: str) -> None:
    bone = obj.pose.bones[name]
    bone.location, bone.rotation_quaternion = (0.3, -0.1, 0.2), (0.7, 0.1, -0.5, 0.5)


@pytest.mark.parametrize("state", STATES)
def test_feet_stay_in_place_whatever_was_done_to_the_rig(state: str) -> None:
    obj = fixtures.footed_biped()
    STATES[state](obj)
    bpy.context.view_layer.update()
    assert_captured(obj, rig_from_armature(obj))


@pytest.mark.parametrize("state", [{}, {"use_local_location": False}, {"inherit_scale": "NONE"}, {"use_inherit_rotation": False}])
def test_feet_beside_the_body_under_a_posed_and_scaled_root(state: dict[str, object]) -> None:
    obj = fixtures.footed_spider()
    for name in fixtures.CLAWS:
        for key, value in state.items():
            setattr(obj.data.bones[name], key, value)
    pose(obj, "ground")
    obj.pose.bones["ground"].scale = (0.7, 0.7, 0.7)
    bpy.context.view_layer.update()
    assert_captured(obj, rig_from_armature(obj))


def test_chosen_bones_with_and_without_the_shin() -> None:
    obj = fixtures.footed_biped()
    with_shin = rig_from_armature(obj, ["Body", "thigh.L", "shin.L", "foot.L"])
    assert 'pose.bones["foot.L"].location' in assert_captured(obj, with_shin)
    alone = rig_from_armature(obj, ["head", "foot.L"])
    assert not [path for path in assert_captured(obj, alone) if path.endswith("location")]


def test_a_foot_without_its_shin_goes_with_the_thigh() -> None:
    obj = fixtures.footed_biped()
    without = rig_from_armature(obj, ["Body", "thigh.L", "foot.L"])
    assert 'pose.bones["foot.L"].location' in assert_captured(obj, without)
    # the shin, which has no keys, ends where the foot is
    whole = rig_from_armature(obj)
    poses = played(obj, whole, FRAMES)
    shin, foot = (whole.names.index(name) for name in ("shin.L", "foot.L"))
    ends = poses[:, shin] @ np.linalg.inv(whole.rest[shin]) @ np.append(whole.tails[shin], 1)
    assert np.abs(ends[:, :3] - poses[:, foot, :3, 3]).max() < TOLERANCE


def test_a_kept_foot_goes_where_the_take_says() -> None:
    obj = fixtures.footed_biped()
    rig = rig_from_armature(obj, keep=["foot.L"])
    assert rig.translates[rig.names.index("foot.L")]
    paths = assert_captured(obj, rig)
    assert {'pose.bones["foot.L"].location', 'pose.bones["foot.R"].location'} <= paths


def test_a_part_may_hang_on_a_part() -> None:
    """Bones are solved after what they hang on, whatever their order in the armature."""
    specs = chain(["claw", "tip"], None, [(0.1, -0.2, 0.05), (0.1, -0.3, 0.03), (0.1, -0.35, 0.03)])
    specs += [BoneSpec("foot", None, (0.1, 0, 0.1), (0.1, -0.2, 0.05))]
    specs += chain(["hips", "chest"], None, [(0, 0, 1), (0, 0, 1.3), (0, 0, 1.8)])
    specs += chain(["thigh", "shin"], "hips", [(0.1, 0, 1), (0.1, -0.05, 0.5), (0.1, 0, 0.1)])
    obj = make_rig("Claw", specs)
    fixtures.join_skin(obj, {"foot": "shin", "claw": "foot"})
    rig = rig_from_armature(obj)
    assert {rig.names[j]: rig.names[rig.parents[j]] for j in np.flatnonzero(rig.hung)} == {"foot": "shin", "claw": "foot"}
    assert_captured(obj, rig)


# ---- armatures that changed since the capture


def edit(obj: bpy.types.Object, name: str, parent: str | None) -> None:
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    bones = obj.data.edit_bones
    bones[name].parent = bones[parent] if parent else None
    bpy.ops.object.mode_set(mode="OBJECT")


def test_a_foot_that_was_parented_to_its_shin_meanwhile() -> None:
    obj = fixtures.footed_biped()
    rig = rig_from_armature(obj)
    edit(obj, "foot.L", "shin.L")
    assert_captured(obj, rig)
    values = [
        key.co.y
        for c in curves_of(obj.animation_data.action)
        if c.data_path == 'pose.bones["foot.L"].location'
        for key in c.keyframe_points
    ]
    assert np.abs(values).max() < 1e-5


def test_a_foot_that_carries_its_shin_meanwhile_is_refused() -> None:
    obj = fixtures.footed_biped()
    rig = rig_from_armature(obj)
    edit(obj, "shin.L", "foot.L")
    with pytest.raises(UserError, match="Bone 'foot.L' of armature 'Footed' now carries 'shin.L'.*capture the take again"):
        write(obj, rig, random_motion(rig, 3, seed=0))


# ---- takes of version 0.1


def stored_by_0_1(obj: bpy.types.Object, translates: set[str]) -> Rig:
    """The rig as 0.1 stored it with a take: in the armature's own tree, with the first root in front, without hung joints and props."""
    bones = sorted(obj.data.bones, key=lambda bone: bone.name != "Root")  # sorted() keeps the order of the others
    names = [bone.name for bone in bones]
    return Rig.from_json(
        json.dumps(
            {
                "name": obj.name,
                "names": names,
                "parents": [-1] + [names.index(bone.parent.name) if bone.parent else 0 for bone in bones[1:]],
                "rest": [[list(row) for row in bone.matrix_local] for bone in bones],
                "tails": [list(bone.tail_local) for bone in bones],
                "translates": [name in translates for name in names],
                "static": [False] * len(names),
                "world": np.eye(3).tolist(),
                "labels": [],
            }
        )
    )


def test_takes_of_version_0_1_apply_as_before() -> None:
    """They key the root at the ground, and put feet and body where the take has them."""
    obj = fixtures.footed_biped()
    free = {"foot.L", "foot.R", "Body"}
    rig = stored_by_0_1(obj, free)
    assert rig.names[0] == "Root" and not (rig.hung | rig.props).any()
    motion = random_motion(rig, len(FRAMES), seed=4)
    action = write(obj, rig, motion)
    poses = assert_shows(obj, rig, FRAMES, motion.matrices, motion.positions)
    expected = {f'pose.bones["{name}"].rotation_quaternion' for name in rig.names}
    assert paths_of(action) == expected | {f'pose.bones["{name}"].location' for name in free}
    # the take moves the feet away from their shins, and they go
    shin, foot = (rig.names.index(name) for name in ("shin.L", "foot.L"))
    taken = poses[:, shin] @ np.linalg.inv(rig.rest[shin]) @ np.append(rig.heads[foot], 1)
    assert np.abs(taken[:, :3] - poses[:, foot, :3, 3]).max() > 0.1

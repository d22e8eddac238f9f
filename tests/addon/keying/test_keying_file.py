"""What keying does to the rest of the file: earlier actions, other users, libraries, and nothing at all when it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.keying.write_action import write_motion
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import Array
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.fixtures import RIGS, random_motion
from anyrig.tests.addon.playback import MODERN, assert_shows, curves_of, keys_of, write


def test_each_call_makes_an_action_and_a_slot_of_its_own() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    first = write(obj, rig, random_motion(rig, 5, seed=0), name="walk.mp4")
    kept = {curve.data_path + str(curve.array_index): keys_of(curve).tolist() for curve in curves_of(first)}
    motion = random_motion(rig, 5, seed=1)
    second = write(obj, rig, motion, name="walk.mp4")
    assert (first.name, second.name) == ("walk.mp4", "walk.mp4.001")
    assert obj.animation_data.action == second
    assert kept == {curve.data_path + str(curve.array_index): keys_of(curve).tolist() for curve in curves_of(first)}
    assert_shows(obj, rig, 1 + np.arange(5), motion.matrices, motion.positions)
    if MODERN:
        assert obj.animation_data.action_slot == second.slots[0]
        assert [len(action.slots) for action in (first, second)] == [1, 1]
        assert second.slots[0].target_id_type == "OBJECT" and second.slots[0].name_display == obj.name
    else:
        assert second.id_root == "OBJECT"


def test_the_earlier_action_survives_saving(tmp_path: Path) -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    names = [write(obj, rig, random_motion(rig, 5, seed=seed), name=f"take {seed}").name for seed in range(3)]
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "takes.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "takes.blend"))
    assert [action.name for action in bpy.data.actions] == names
    assert bpy.data.objects["Human"].animation_data.action.name == "take 2"


def test_an_earlier_action_with_other_users_is_left_as_it_is() -> None:
    obj, other = fixtures.human(), fixtures.bird()
    rig = rig_from_armature(obj)
    shared = bpy.data.actions.new("shared")
    for user in (obj, other):
        user.animation_data_create().action = shared
    write(obj, rig, random_motion(rig, 3, seed=0))
    assert not shared.use_fake_user
    assert other.animation_data.action == shared


def test_two_armatures_share_nothing() -> None:
    """Two objects, even with the same armature data, each play their own take."""
    first = fixtures.two_roots()
    second = first.copy()
    bpy.context.collection.objects.link(second)
    rigs = [rig_from_armature(obj) for obj in (first, second)]
    motions = [random_motion(rig, 6, seed) for seed, rig in enumerate(rigs)]
    actions = [write(obj, rig, motion) for obj, rig, motion in zip((first, second), rigs, motions)]
    assert actions[0] != actions[1]
    for obj, rig, motion, action in zip((first, second), rigs, motions, actions):
        assert obj.animation_data.action == action
        assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


def snapshot(obj: bpy.types.Object) -> list[Any]:
    """Everything of the armature that keying must not touch."""
    bones = [(b.name, [*map(tuple, b.matrix_local)], b.use_connect, b.inherit_scale, b.use_deform) for b in obj.data.bones]
    pose = [(b.name, tuple(b.location), tuple(b.scale), b.rotation_mode, len(b.constraints)) for b in obj.pose.bones]
    meshes = [(m.name, [tuple(v.co) for v in m.vertices]) for m in bpy.data.meshes]
    return [bones, pose, meshes, [*map(tuple, obj.matrix_world)], bpy.context.scene.frame_current]


@pytest.mark.parametrize("name", ["human", "skipped_bones", "sheared"])
def test_the_rig_itself_is_not_modified(name: str) -> None:
    obj = RIGS[name]()
    rig = rig_from_armature(obj)
    before = snapshot(obj)
    write(obj, rig, random_motion(rig, 4, seed=0))
    assert snapshot(obj) == before


def test_nla_tracks_are_kept() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    old = write(obj, rig, random_motion(rig, 4, seed=0))
    track = obj.animation_data.nla_tracks.new()
    track.strips.new("old", 1, old)
    track.mute = True
    motion = random_motion(rig, 4, seed=1)
    write(obj, rig, motion)
    assert [[strip.action for strip in t.strips] for t in obj.animation_data.nla_tracks] == [[old]]
    assert_shows(obj, rig, 1 + np.arange(4), motion.matrices, motion.positions)


def assert_refused(obj: bpy.types.Object, rig: Rig, motion: Motion, reference: Array, match: str) -> None:
    actions, used = len(bpy.data.actions), obj.animation_data and obj.animation_data.action
    with pytest.raises(UserError, match=match):
        write_motion(obj, rig, motion, reference, name="take", start_frame=1, fps=24)
    assert len(bpy.data.actions) == actions
    assert (obj.animation_data and obj.animation_data.action) == used


def test_tweak_mode_is_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 4, seed=0)
    old = write(obj, rig, motion)
    data = obj.animation_data
    strip = data.nla_tracks.new().strips.new("old", 1, old)
    data.action = None
    data.nla_tracks[0].select = strip.select = True
    data.nla_tracks.active = data.nla_tracks[0]
    data.use_tweak_mode = True
    assert data.use_tweak_mode
    assert_refused(obj, rig, motion, rig.rest, "'Human'.*tweak mode")


def test_takes_that_do_not_fit_are_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 4, seed=0)
    other = random_motion(rig_from_armature(fixtures.bird()), 4, seed=0)
    assert_refused(obj, rig, other, rig.rest, "bone 'body' is not in the rig")
    assert_refused(obj, rig, replace(motion, names=motion.names[::-1]), rig.rest, "'Human'.*joints differ")
    assert_refused(obj, rig, motion, rig.rest[:3], "reference pose.*'Human'")
    obj.data.bones["spine"].name = "backbone"
    assert_refused(obj, rig, motion, rig.rest, "Bone 'spine'.*'Human'")


def test_a_take_without_frames_is_refused() -> None:
    with pytest.raises(UserError, match="no frames"):
        random_motion(rig_from_armature(fixtures.no_mesh()), 0, seed=0)


def test_a_scale_too_uneven_to_turn_under_is_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    obj.pose.bones["shin.L"].scale = (0.01, 1, 3)
    assert_refused(obj, rig, random_motion(rig, 20, seed=0), rig.rest, "Bone 'foot.L'.*scale")


def test_edit_mode_is_refused() -> None:
    obj = fixtures.human()
    rig = rig_from_armature(obj)
    bpy.ops.object.mode_set(mode="EDIT")
    assert_refused(obj, rig, random_motion(rig, 4, seed=0), rig.rest, "'Human'.*edit mode")


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A file with the human in it; the current file is empty again."""
    path = str(tmp_path / "library.blend")
    bpy.data.libraries.write(path, {fixtures.human()})
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return path


def link(path: str) -> bpy.types.Object:
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.objects = ["Human"]
    obj = wanted.objects[0]
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.update()
    return obj


def test_linked_armatures_are_refused(library: str) -> None:
    obj = link(library)
    rig = rig_from_armature(obj)
    assert_refused(obj, rig, random_motion(rig, 4, seed=0), rig.rest, "Object 'Human' is linked.*override")


def test_library_overrides_are_keyed(library: str) -> None:
    obj = link(library).override_create(remap_local_usages=True)
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 6, seed=0)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


def test_linked_bones_in_a_local_object_are_keyed(library: str) -> None:
    linked = link(library)
    obj = bpy.data.objects.new("Local", linked.data)
    bpy.context.collection.objects.link(obj)
    rig = rig_from_armature(obj)
    motion = random_motion(rig, 6, seed=0)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)

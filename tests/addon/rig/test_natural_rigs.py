"""Armature -> Rig for game rigs: feet that only the skin joins to their shins, and roots that only carry rigging."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bmesh
import bpy
import numpy as np
import pytest
from anyrig.addon.rig.armature import read_rig, rig_from_armature
from anyrig.addon.rig.meshes import meshes_of
from anyrig.addon.rig.skin import read_skin
from anyrig.backend.rig.natural_skeleton import describe
from anyrig.backend.rig.rig import Rig
from anyrig.tests.addon import fixtures
from anyrig.tests.addon.control_fixtures import rigify
from anyrig.tests.addon.fixtures import CLAWS, FEET, HOOVES, BoneSpec, add_mesh, chain, make_rig, random_motion
from anyrig.tests.addon.playback import assert_shows, write
from anyrig.tests.addon.rig.test_armature import marked, parents_of
from anyrig.tests.addon.rig.test_visible_meshes import WAYS
from mathutils import Matrix

# rig -> what hangs on what, the root joint, the bones that step aside
GAME_RIGS: dict[str, tuple[dict[str, str], str, set[str]]] = {
    "hoofed": (HOOVES, "pelvis", set()),
    "footed_biped": (FEET, "Body", {"Root"}),
    "footed_spider": (CLAWS, "thorax", {"ground"}),
}


def game_rig(name: str, **options: Any) -> bpy.types.Object:
    return getattr(fixtures, name)(**options)


def assert_natural(name: str, rig: Rig) -> None:
    """The rig is that of the table above, whole."""
    hung, root, aside = GAME_RIGS[name]
    above = {bone.name: bone.parent and bone.parent.name for bone in bpy.data.objects[rig.name].data.bones}
    expected = {bone: parent for bone, parent in (above | hung | {root: None}).items() if bone not in aside}
    assert rig.names[0] == root and parents_of(rig) == expected
    assert marked(rig, rig.hung) == set(hung)
    assert not (rig.translates | rig.props | rig.static).any()


def parts_of(rig: Rig) -> dict[str, str]:
    return {name: rig.names[parent] for name, parent, hung in zip(rig.names, rig.parents, rig.hung) if hung}


# ---- what hangs where


@pytest.mark.parametrize("ik", [False, True], ids=["plain", "ik"])
@pytest.mark.parametrize("name", GAME_RIGS)
def test_feet_hang_on_their_legs_and_the_ground_root_steps_aside(name: str, ik: bool) -> None:
    assert_natural(name, rig_from_armature(game_rig(name, ik=ik)))


def test_what_hangs_where_is_told() -> None:
    natural = read_rig(fixtures.footed_biped())[1]
    assert natural is not None
    assert [line.split(":")[0] for line in describe(natural)] == [
        "'foot.L' hangs on 'shin.L'",
        "'foot.R' hangs on 'shin.R'",
        "'Root' steps aside for 'Body', which carries the body.",
    ]


@pytest.mark.parametrize("name", GAME_RIGS)
def test_names_decide_nothing(name: str) -> None:
    obj = game_rig(name)
    number = {bone.name: f"bone {index}" for index, bone in enumerate(obj.data.bones)}
    for bone in obj.data.bones:
        bone.name = number[bone.name]
    assert parts_of(rig_from_armature(obj)) == {number[foot]: number[shin] for foot, shin in GAME_RIGS[name][0].items()}


@pytest.mark.parametrize("name", GAME_RIGS)
def test_the_present_pose_decides_nothing(name: str) -> None:
    """Even if the mesh has modifiers: it is looked at at rest."""
    obj = game_rig(name)
    if name == "hoofed":
        meshes_of(obj)[0].modifiers.new("Thick", "SOLIDIFY").thickness = 1e-4
    random = np.random.default_rng(2)
    for bone in obj.pose.bones:
        bone.rotation_quaternion, bone.location = random.normal(size=4), random.normal(size=3)
    assert_natural(name, rig_from_armature(obj))


@pytest.mark.parametrize("foot", sorted(HOOVES))
def test_a_hoof_that_is_kept_is_a_prop(foot: str) -> None:
    rig = rig_from_armature(fixtures.hoofed(), keep=[foot])
    assert marked(rig, rig.hung) == set(HOOVES) - {foot}
    assert parents_of(rig)[foot] == "pelvis" and marked(rig, rig.translates) == {foot}
    assert marked(rig, rig.props) == {foot, *(["hind_toe." + foot[-1]] if foot.startswith("hind") else [])}


def test_kept_bones_beside_a_ground_root() -> None:
    obj = fixtures.footed_spider()
    rig = rig_from_armature(obj, keep=["claw_2.L"])
    assert marked(rig, rig.hung) == set(CLAWS) - {"claw_2.L"}
    assert marked(rig, rig.translates) == {"claw_2.L"} and rig.names[0] == "thorax"
    rig = rig_from_armature(obj, keep=["ground"])
    assert rig.names[0] == "ground" and marked(rig, rig.hung) == set(CLAWS) and parents_of(rig)["thorax"] == "ground"
    rig = rig_from_armature(obj, keep=["ground", *CLAWS])
    assert parents_of(rig) == {bone.name: bone.parent and bone.parent.name for bone in obj.data.bones}
    assert not (rig.hung | rig.translates | rig.props).any()


# ---- chosen bones


def test_a_foot_with_its_shin_hangs_on_it() -> None:
    rig = rig_from_armature(fixtures.footed_biped(), ["Body", "shin.L", "foot.L", "toe.L", "foot.R"])
    assert parts_of(rig) == {"foot.L": "shin.L", "foot.R": "Body"}
    assert parents_of(rig)["toe.L"] == "foot.L" and not rig.translates.any()


def test_without_their_legs_feet_stay_where_they_are() -> None:
    rig = rig_from_armature(fixtures.footed_biped(), ["chest", "head", "foot.L", "foot.R"])
    assert rig.names[0] == "chest" and parents_of(rig)["foot.L"] == "chest"
    assert not (rig.hung | rig.translates).any()


def test_a_toe_without_its_foot_hangs_on_the_shin() -> None:
    assert parts_of(rig_from_armature(fixtures.footed_biped(), ["shin.L", "toe.L"])) == {"toe.L": "shin.L"}


def test_a_root_at_the_ground_is_no_joint_even_if_it_is_chosen() -> None:
    rig = rig_from_armature(fixtures.footed_biped(), ["Root", "Body", "chest"])
    assert rig.names == ("Body", "chest")


# ---- meshes of all sorts


def test_without_a_mesh_the_ends_of_the_bones_decide() -> None:
    obj = fixtures.hoofed()
    bpy.data.objects.remove(meshes_of(obj)[0])
    assert read_skin(obj, obj.data.bones.keys()) is None
    assert_natural("hoofed", rig_from_armature(obj))


def test_without_a_mesh_a_root_that_nothing_was_taken_from_stays() -> None:
    obj = fixtures.footed_biped()
    bpy.data.objects.remove(meshes_of(obj)[0])
    rig = rig_from_armature(obj)
    assert rig.names[0] == "Root" and parts_of(rig) == FEET


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("modified", [False, True])
def test_a_hidden_mesh_counts(way: str, modified: bool) -> None:
    obj = fixtures.footed_biped()
    (skin,) = meshes_of(obj)
    if modified:
        skin.modifiers.new("Thick", "SOLIDIFY").thickness = 1e-4
    WAYS[way](skin)
    bpy.context.view_layer.update()
    assert_natural("footed_biped", rig_from_armature(obj))


def mirror(obj: bpy.types.Object) -> bpy.types.Object:
    """Cut off the right half of the mesh, which a Mirror modifier makes again, with the weights of the other side."""
    (skin,) = meshes_of(obj)
    boxes = [group.name for group in skin.vertex_groups]  # of 8 vertices each
    half = bmesh.new()
    half.from_mesh(skin.data)
    bmesh.ops.delete(half, geom=[each for each in half.verts if boxes[each.index // 8].endswith(".R")])
    half.to_mesh(skin.data)
    half.free()
    skin.modifiers.new("Mirror", "MIRROR")
    skin.modifiers.move(1, 0)
    bpy.context.view_layer.update()
    return skin


@pytest.mark.parametrize("name", GAME_RIGS)
def test_the_mirrored_half_of_a_mesh_has_skin(name: str) -> None:
    obj = game_rig(name)
    mirror(obj)
    assert_natural(name, rig_from_armature(obj))


def test_a_mirror_that_is_switched_off_makes_none() -> None:
    obj = fixtures.hoofed()
    skin = mirror(obj)
    skin.modifiers["Mirror"].use_mirror_vertex_groups = False
    assert not [name for name in rig_from_armature(obj).names if name.endswith(".R")]
    skin.modifiers["Mirror"].use_mirror_vertex_groups, skin.modifiers["Mirror"].show_viewport = True, False
    assert not [name for name in rig_from_armature(obj).names if name.endswith(".R")]


def carried_boxes(obj: bpy.types.Object) -> None:
    """Instead of its skin, a box of its own for each bone, which the bone carries."""
    (skin,) = meshes_of(obj)
    names = [group.name for group in skin.vertex_groups]
    bpy.data.objects.remove(skin)
    for name in names:
        box = add_mesh(obj, [name])
        box.modifiers.clear()
        box.parent_type, box.parent_bone = "BONE", name
        bpy.context.view_layer.update()
        box.matrix_world = obj.matrix_world
    bpy.context.view_layer.update()


@pytest.mark.parametrize("name", GAME_RIGS)
def test_a_robot_of_boxes_on_bones(name: str) -> None:
    """Also while it is posed: its boxes are looked at at rest."""
    obj = game_rig(name)
    carried_boxes(obj)
    assert_natural(name, rig_from_armature(obj))
    for bone in obj.pose.bones:
        bone.rotation_quaternion = (0.8, 0.3, -0.4, 0.2)
    assert_natural(name, rig_from_armature(obj))


@pytest.mark.parametrize("name", GAME_RIGS)
def test_a_scaled_and_turned_object(name: str) -> None:
    """As importers make them: by 100, and by -90 degrees about x; with a mesh that is not parented to it."""
    obj = game_rig(name)
    (skin,) = meshes_of(obj)
    obj.matrix_world = Matrix.Translation((3, 1, -2)) @ Matrix.Rotation(-np.pi / 2, 4, "X") @ Matrix.Scale(100, 4)
    bpy.context.view_layer.update()
    assert_natural(name, rig_from_armature(obj))
    world = skin.matrix_world.copy()
    skin.parent = None
    skin.matrix_world = world
    bpy.context.view_layer.update()
    assert_natural(name, rig_from_armature(obj))


def test_bones_that_do_not_deform_move_no_skin() -> None:
    """A group that is called like one weighs nothing: the shin's skin is its own."""
    specs = chain(["hips", "shin"], None, [(0, 0, 1), (0, 0, 0.5), (0, 0, 0.1)])
    specs += [BoneSpec("pole", None, (0, 0, 0.5), (0, 0.2, 0.5), bone={"use_deform": False})]
    obj = make_rig("Pole", specs)
    (skin,) = meshes_of(obj)
    skin.vertex_groups.new(name="pole").add(range(16), 1.0, "REPLACE")
    found = read_skin(obj, ["hips", "shin", "pole"])
    assert found is not None and not found.weights[found.joints == 2].any()
    assert rig_from_armature(obj).names == ("hips", "shin")


def test_skin_of_bones_that_are_no_joints_is_their_ancestors() -> None:
    obj = make_rig("Tail", chain(["a", "b", "c"], None, [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)]))
    found = read_skin(obj, ["a", "b"])
    assert found is not None
    share = np.bincount(found.joints.ravel(), found.weights.ravel()) / found.weights.sum()
    assert share == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


# ---- control rigs, libraries


def test_control_rigs_keep_the_tree_of_their_maker() -> None:
    obj = rigify("human")
    rig = rig_from_armature(obj)
    assert read_rig(obj)[1] is None
    assert not (rig.hung | rig.translates | rig.props).any()
    assert parents_of(rig)["ORG-foot.L"] == "ORG-shin.L"


@pytest.fixture
def library(tmp_path: Path) -> str:
    """A file with the footed biped and its mesh; the current file is empty again."""
    path = str(tmp_path / "library.blend")
    obj = fixtures.footed_biped()
    meshes_of(obj)[0].modifiers.new("Thick", "SOLIDIFY").thickness = 1e-4
    bpy.data.libraries.write(path, {obj, *meshes_of(obj)})
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return path


def link(path: str) -> bpy.types.Object:
    with bpy.data.libraries.load(path, link=True) as (_, wanted):
        wanted.objects = ["Footed", "Footed skin"]
    for obj in wanted.objects:
        bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.update()
    return wanted.objects[0]


def test_a_linked_armature(library: str) -> None:
    assert_natural("footed_biped", rig_from_armature(link(library)))


def test_a_library_override_is_keyed(library: str) -> None:
    linked = link(library)
    obj = linked.override_create(remap_local_usages=True)
    skin = bpy.data.objects["Footed skin"].override_create(remap_local_usages=True)
    skin.modifiers["Armature"].object = skin.parent = obj
    bpy.context.view_layer.update()
    rig = rig_from_armature(obj)
    assert_natural("footed_biped", rig)
    motion = random_motion(rig, 6, seed=0)
    write(obj, rig, motion)
    assert_shows(obj, rig, 1 + np.arange(6), motion.matrices, motion.positions)


# ---- reading changes nothing


def skin_on_a_bone(obj: bpy.types.Object) -> None:
    """The skin, which the armature deforms, is also parented to a bone."""
    (skin,) = meshes_of(obj)
    skin.parent_type, skin.parent_bone = "BONE", "chest"
    bpy.context.view_layer.update()
    skin.matrix_world = obj.matrix_world
    bpy.context.view_layer.update()


# what makes reading look at the armature at rest, and nothing
SKINS: dict[str, Callable[[bpy.types.Object], Any]] = {
    "skin": meshes_of,
    "modifiers": mirror,
    "boxes": carried_boxes,
    "on a bone": skin_on_a_bone,
}


@pytest.mark.parametrize("kind", SKINS)
def test_skin_is_read_at_rest(kind: str) -> None:
    obj = fixtures.footed_biped()
    SKINS[kind](obj)
    at_rest = read_skin(obj, obj.data.bones.keys())
    for bone in obj.pose.bones:
        bone.rotation_quaternion, bone.location = (0.8, 0.3, -0.4, 0.2), (0.1, 0.2, -0.1)
    bpy.context.view_layer.update()
    posed = read_skin(obj, obj.data.bones.keys())
    assert at_rest is not None and posed is not None and np.allclose(at_rest.points, posed.points, atol=1e-5)
    assert np.array_equal(at_rest.joints, posed.joints) and np.array_equal(at_rest.weights, posed.weights)


@pytest.mark.parametrize("kind", SKINS)
@pytest.mark.parametrize("position", ["POSE", "REST"])
def test_reading_changes_nothing_in_the_file(kind: str, position: str, tmp_path: Path) -> None:
    """Nor does it change the pose that is shown, keyed or not."""
    obj = fixtures.footed_biped()
    SKINS[kind](obj)
    rig = rig_from_armature(obj)
    write(obj, rig, random_motion(rig, 10, seed=1))
    bpy.context.scene.frame_set(4)
    obj.pose.bones["shin.L"].rotation_quaternion = (0.6, 0, 0.8, 0)  # not keyed: the next frame would undo it
    obj.data.pose_position = position
    bpy.context.view_layer.update()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "before.blend"))
    before = state(obj)
    for _ in range(2):
        assert_natural("footed_biped", rig_from_armature(obj))
        assert state(obj) == before


@pytest.mark.parametrize("kind", SKINS)
def test_reading_is_no_step_to_undo(kind: str) -> None:
    obj = fixtures.footed_biped()
    SKINS[kind](obj)
    for value in (1.0, 2.0):
        obj.location.x = value
        bpy.ops.ed.undo_push(message=f"x is {value}")
    rig_from_armature(obj)
    bpy.ops.ed.undo()
    assert bpy.data.objects["Footed"].location.x == 1.0


def state(obj: bpy.types.Object) -> list[Any]:
    """All that a user could notice: data-blocks, transforms, channels, shown poses and meshes, modes, whether the file was changed."""
    graph = bpy.context.evaluated_depsgraph_get()
    blocks = [sorted(block.name for block in getattr(bpy.data, kind)) for kind in ("objects", "meshes", "actions", "armatures")]
    bones = [(bone.name, *map(tuple, bone.matrix_basis), *map(tuple, bone.matrix)) for bone in obj.pose.bones]
    shown = [[tuple(v.co) for v in mesh.evaluated_get(graph).data.vertices] for mesh in meshes_of(obj)]
    places = [(each.name, *map(tuple, each.matrix_world)) for each in bpy.data.objects]
    scene, layer = bpy.context.scene, bpy.context.view_layer
    view = [scene.frame_current, scene.frame_subframe, layer.objects.active, obj.mode, obj.data.pose_position]
    chosen = [each.name for each in layer.objects if each.select_get()]
    animated = [obj.animation_data.action, obj.animation_data.use_nla]
    return [blocks, bones, shown, places, view, chosen, animated, bpy.data.is_dirty]

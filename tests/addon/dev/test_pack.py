"""Rig packs: skeleton, poses and skinned surface in world axes agree with what Blender shows."""

from __future__ import annotations

import math
from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.dev.pack import make_pack, pack_command, pack_files, world_poses, world_rig
from anyrig.addon.rig.actions import pose_frames
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.rig.surface_points import strongest, surface_of
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import Array, geodesic_angle, nearest_rotation
from anyrig.backend.rig.point_cloud import Surface
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.tests.addon.fixtures import add_mesh, chain, make_rig
from mathutils import Matrix
from mathutils.bvhtree import BVHTree

TURNED = Matrix.Translation((1, 2, 3)) @ Matrix.Rotation(-math.pi / 2, 4, "X") @ Matrix.Scale(100, 4)
MIRRORED = Matrix.Translation((1, 0, 0)) @ Matrix.Rotation(0.4, 4, "Z") @ Matrix.Diagonal((-2, 2, 2, 1))
LINEAR_GREEN = (0.1, 0.5, 0.2, 1.0)
DISPLAY_GREEN = (0.34919, 0.73536, 0.48453)  # IEC 61966-2-1 of it


def three_bones() -> bpy.types.Object:
    """A chain of three bones, each with a box."""
    return make_rig("Chain", chain(["a", "b", "c"], None, [(0, 0, 0), (0, 0.01, 0.01), (0, 0.02, 0.01), (0, 0.03, 0)]))


def skin_of(obj: bpy.types.Object) -> bpy.types.Object:
    return next(child for child in bpy.data.objects if child.type == "MESH" and child.parent == obj)


def add_part(obj: bpy.types.Object, bone: str, place: tuple[float, float, float]) -> bpy.types.Object:
    """A small cube that hangs on a bone, without weights."""
    bpy.ops.mesh.primitive_cube_add(size=0.004)
    part = bpy.context.object
    part.name = "Part"
    part.parent, part.parent_type, part.parent_bone = obj, "BONE", bone
    part.location = place
    bpy.context.view_layer.update()
    return part


def animate(obj: bpy.types.Object, name: str, keys: dict[str, list[tuple[float, float, float]]]) -> bpy.types.Action:
    """A new action: Euler angles of bones on frames 1, 2, ..."""
    data = obj.animation_data or obj.animation_data_create()
    data.action = action = bpy.data.actions.new(name)
    for bone, angles in keys.items():
        pose = obj.pose.bones[bone]
        pose.rotation_mode = "XYZ"
        for frame, euler in enumerate(angles, 1):
            pose.rotation_euler = euler
            pose.keyframe_insert("rotation_euler", frame=frame)
    return action


def skinned(surface: Surface, rest: Array, pose: Array) -> Array:
    """(P, 3) points moved by joint matrices (J, 4, 4), straight from the definition."""
    deform = pose @ np.linalg.inv(rest)
    points = np.column_stack([surface.points, np.ones(len(surface))])
    return np.einsum("pk,pkij,pj->pi", surface.weights, deform[surface.joints], points)[:, :3]


def shown(objects: list[bpy.types.Object]) -> BVHTree:
    """The triangles that Blender shows now, in world axes."""
    vertices, faces = [], []
    depsgraph = bpy.context.evaluated_depsgraph_get()
    for obj in objects:
        evaluated = obj.evaluated_get(depsgraph)
        start = len(vertices)
        vertices += [evaluated.matrix_world @ v.co for v in evaluated.data.vertices]
        faces += [[start + i for i in face.vertices] for face in evaluated.data.polygons]
    return BVHTree.FromPolygons(vertices, faces)


def paint(obj: bpy.types.Object, colour: tuple[float, ...] = LINEAR_GREEN) -> bpy.types.Node:
    """A material with this base colour; returns its shader node."""
    material = bpy.data.materials.new("Paint")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    obj.data.materials.append(material)
    shader = next(node for node in material.node_tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Base Color"].default_value = colour
    return shader


@pytest.mark.parametrize("world", [Matrix(), TURNED, MIRRORED], ids=["plain", "turned and scaled", "mirrored"])
def test_the_posed_surface_is_what_blender_shows(world: Matrix) -> None:
    obj = three_bones()
    part = add_part(obj, "b", (0.01, 0, 0))
    animate(obj, "Bend", {"a": [(0.3, 0, 1.0), (0, 0.7, 0)], "b": [(1.2, 0, 0), (0, 0, 0.5)]})
    obj.matrix_world = world
    pack = make_pack(obj, "Chain")
    assert list(pack.clips) == ["Bend"] and pack.clips["Bend"].shape == (2, 3, 4, 4)
    size = float(np.ptp(pack.surface.points, axis=0).max())
    for frame, pose in enumerate(pack.clips["Bend"].astype(np.float64), 1):
        bpy.context.scene.frame_set(frame)
        tree = shown([skin_of(obj), part])
        distances = [tree.find_nearest(point)[3] for point in skinned(pack.surface, pack.rig.rest, pose)[::40]]
        assert max(distances) < 1e-4 * size
        for bone, head in zip(pack.rig.names, pose[:, :3, 3]):
            assert np.allclose(obj.matrix_world @ obj.pose.bones[bone].head, head, atol=1e-5 * size)


def test_the_rest_pose_is_rigid_and_in_world_axes() -> None:
    obj = three_bones()
    obj.matrix_world = TURNED
    rig = make_pack(obj, "Chain").rig
    assert np.allclose(rig.world, np.eye(3))
    assert np.allclose(rig.rest[:, :3, :3] @ rig.rest[:, :3, :3].swapaxes(1, 2), np.eye(3), atol=1e-6)
    assert np.allclose(rig.heads[1], [1, 2 + 1, 3 - 1], atol=1e-4)  # (0, .01, .01) -> 100 (0, z, -y) + (1, 2, 3)
    assert np.allclose(rig.tails[2], [1, 2, 3 - 3], atol=1e-4)
    along = rig.tails - rig.heads
    assert np.allclose(rig.rest[:, :3, 1], along / np.linalg.norm(along, axis=1, keepdims=True), atol=1e-5)


def test_turns_in_world_axes_are_the_armatures_turned() -> None:
    """For W = T S Q with even scale: G_world = Q G Q^-1."""
    obj = three_bones()
    action = animate(obj, "Bend", {"b": [(1.2, 0.1, 0)]})
    obj.matrix_world = TURNED
    bpy.context.view_layer.update()
    rig, world = rig_from_armature(obj), np.array(obj.matrix_world, np.float64)
    poses = pose_frames(obj, action, rig.names, [1])
    moved = world_rig(rig, world, "x")
    axes = nearest_rotation(world)
    found = moved.rotations(world_poses(rig, moved, world, poses))
    assert np.degrees(geodesic_angle(found, axes @ rig.rotations(poses) @ axes.T)).max() < 1e-3


def test_the_pose_at_packing_time_does_not_matter() -> None:
    obj = three_bones()
    before = surface_of(obj, ("a", "b", "c"))
    obj.pose.bones["a"].rotation_quaternion = (0.5, 0.5, 0.5, 0.5)
    after = surface_of(obj, ("a", "b", "c"))
    assert np.array_equal(before.points, after.points)
    assert obj.data.pose_position == "POSE"


def test_points_are_spread_by_area() -> None:
    obj = make_rig("Two", chain(["long", "short"], None, [(0, 0, 0), (0, 0, 3), (0, 0, 4)]))
    surface = surface_of(obj, ("long", "short"), points=4000)
    share = (surface.joints[:, 0] == 0).mean()
    assert len(surface) == 4000 and share == pytest.approx(0.9, abs=0.005)  # boxes of lengths 3 and 1: areas 9 to 1


def test_weights_follow_the_vertex_groups() -> None:
    obj = three_bones()
    skin = skin_of(obj)
    skin.vertex_groups["b"].add(range(8), 3.0, "REPLACE")  # clipped to 1 by Blender: half a, half b
    skin.vertex_groups.new(name="not a bone").add(range(24), 1.0, "REPLACE")
    surface = surface_of(obj, ("a", "b", "c"))
    assert np.allclose(surface.weights.sum(1), 1)
    shared = surface.weights[:, 1] > 0
    assert np.allclose(surface.weights[shared], [0.5, 0.5, 0, 0]) and set(surface.joints[shared][:, :2].ravel()) == {0, 1}
    assert set(surface.joints[~shared][:, 0]) == {1, 2}


def test_a_part_on_a_bone_has_weight_one_to_it() -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    part = add_part(obj, "c", (0, 0, 0))
    below = part.copy()
    bpy.context.collection.objects.link(below)
    below.parent, below.parent_type = part, "OBJECT"
    surface = surface_of(obj, ("a", "b", "c"))
    assert np.allclose(surface.weights, [1, 0, 0, 0]) and set(surface.joints[:, 0]) == {2}


def test_bones_outside_the_rig_hand_their_weights_to_the_nearest_joint_above() -> None:
    surface = surface_of(three_bones(), ("a", "b"))
    assert set(surface.joints[surface.weights > 0]) == {0, 1} and (surface.joints[:, 0] == 1).mean() > 0.5


def test_only_the_four_strongest_joints_count() -> None:
    joints, weights = strongest(np.array([[0.1, 0.3, 0.05, 0.2, 0.35], [0, 0, 1.0, 0, 0]]))
    assert joints.tolist() == [[4, 1, 3, 0], [2, 0, 0, 0]]
    assert np.allclose(weights, [[0.35 / 0.95, 0.3 / 0.95, 0.2 / 0.95, 0.1 / 0.95], [1, 0, 0, 0]])


@pytest.mark.parametrize("world", [Matrix(), TURNED, MIRRORED], ids=["plain", "turned and scaled", "mirrored"])
def test_normals_point_outwards(world: Matrix) -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    add_part(obj, "a", (0, 0, 0))
    obj.matrix_world = world
    surface = surface_of(obj, ("a", "b", "c"))
    arms = surface.points - surface.points.mean(0)
    assert np.allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-5)
    assert ((surface.normals * arms).sum(1) > 0).all()


def test_normals_stay_upright_on_stretched_meshes() -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    part = add_part(obj, "a", (0, 0, 0))
    part.rotation_euler = (0.5, 0.6, 0.7)
    obj.matrix_world = Matrix.Diagonal((1, 2, 5, 1))
    surface = surface_of(obj, ("a", "b", "c"), points=200)
    tree = shown([part])
    faces = np.array([tree.find_nearest(point)[1] for point in surface.points])
    assert np.median((surface.normals * faces).sum(1)) == pytest.approx(1, abs=1e-5)


def test_base_colour_is_converted_for_display() -> None:
    obj = three_bones()
    assert np.allclose(surface_of(obj, ("a",)).colours, 0.90634, atol=1e-4)  # no material: Blender's grey, 0.8 linear
    paint(skin_of(obj))
    assert np.allclose(surface_of(obj, ("a",)).colours, DISPLAY_GREEN, atol=1e-4)


def test_viewport_colour_without_nodes() -> None:
    obj = three_bones()
    paint(skin_of(obj))
    material = skin_of(obj).data.materials[0]
    material.node_tree.nodes.clear()
    material.diffuse_color = LINEAR_GREEN
    assert np.allclose(surface_of(obj, ("a",)).colours, DISPLAY_GREEN, atol=1e-4)


def test_texture_colours_are_looked_up() -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    part = add_part(obj, "a", (0, 0, 0))  # the cube's own UV map puts every side in its own place
    for loop in part.data.uv_layers[0].data:
        loop.uv = (0.75, 0.25)
    shader = paint(part)
    image = bpy.data.images.new("Texture", 2, 2)
    image.pixels[:] = [0, 0, 0, 1, 0.25, 0.5, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1]  # stored values are already for display
    texture = shader.id_data.nodes.new("ShaderNodeTexImage")
    texture.image = image
    shader.id_data.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    assert np.allclose(surface_of(obj, ("a",)).colours, [0.25, 0.5, 1.0], atol=0.003)


def test_vertex_colours_times_a_colour() -> None:
    obj = three_bones()
    skin = skin_of(obj)
    shader = paint(skin)
    attribute = skin.data.color_attributes.new("Tint", "FLOAT_COLOR", "CORNER")
    attribute.data.foreach_set("color", np.tile([0.5, 1.0, 0.5, 1.0], len(attribute.data)).astype(np.float32))
    tree = shader.id_data
    mix = tree.nodes.new("ShaderNodeMix")
    mix.data_type, mix.blend_type = "RGBA", "MULTIPLY"
    mix.inputs[0].default_value = 1.0
    sockets = {socket.name: socket for socket in mix.inputs if socket.enabled}
    sockets["B"].default_value = (0.2, 0.5, 0.4, 1.0)
    tint = tree.nodes.new("ShaderNodeVertexColor")
    tint.layer_name = "Tint"
    tree.links.new(tint.outputs["Color"], sockets["A"])
    tree.links.new(next(s for s in mix.outputs if s.enabled), shader.inputs["Base Color"])
    assert np.allclose(surface_of(obj, ("a",)).colours, DISPLAY_GREEN, atol=1e-4)


def test_emission_behind_a_mix_with_transparency() -> None:
    """The form in which the glTF importer brings unlit materials."""
    obj = three_bones()
    tree = paint(skin_of(obj)).id_data
    output = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeOutputMaterial")
    mix, light = tree.nodes.new("ShaderNodeMixShader"), tree.nodes.new("ShaderNodeEmission")
    light.inputs["Color"].default_value = LINEAR_GREEN
    tree.links.new(tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
    tree.links.new(light.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs["Surface"])
    assert np.allclose(surface_of(obj, ("a",)).colours, DISPLAY_GREEN, atol=1e-4)


def test_transparent_parts_are_left_out() -> None:
    obj = three_bones()
    part = add_part(obj, "c", (0, 0, 0))
    paint(part).inputs["Alpha"].default_value = 0.1
    grey = surface_of(obj, ("a", "b", "c")).colours
    assert 0 < len(grey) < 8000 and np.allclose(grey, 0.90634, atol=1e-4)


def test_a_second_root_becomes_a_joint_that_translates() -> None:
    foot = chain(["foot"], None, [(1, 0, 0), (1, 0, 1)])
    obj = make_rig("Two", chain(["body", "head"], None, [(0, 0, 0), (0, 0, 1), (0, 0, 2)]) + foot)
    animate(obj, "Kick", {"body": [(0, 0, 1.0)]})
    rig = make_pack(obj, "Two").rig
    assert rig.names == ("body", "head", "foot") and rig.parents.tolist() == [-1, 0, 0]
    assert rig.translates.tolist() == [False, False, True] and not rig.static.any()


def test_a_pack_survives_its_file(tmp_path: Path) -> None:
    obj = three_bones()
    animate(obj, "Bend", {"b": [(1.2, 0.1, 0), (0, 0, 0)]})
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.001
    pack = make_pack(obj, "Chain")
    pack.save(tmp_path / "chain.npz")
    again = Pack.load(tmp_path / "chain.npz")
    assert again.name == "Chain" and again.fps == pytest.approx(29.97003) and again.rig.names == pack.rig.names
    assert np.array_equal(again.clips["Bend"], pack.clips["Bend"])
    assert all(np.array_equal(getattr(again.surface, key), getattr(pack.surface, key)) for key in vars(pack.surface))


def test_an_armature_that_moves_no_mesh_is_refused() -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    with pytest.raises(UserError, match="'Chain' moves no visible mesh"):
        make_pack(obj, "Chain")


def save_blend(path: Path) -> Path:
    add_mesh(make_rig("Saved", chain(["a", "b"], None, [(0, 0, 0), (0, 0, 1), (0, 0, 2)]), mesh=False), ["a", "b"])
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def test_the_command_packs_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    good = save_blend(tmp_path / "good.blend")
    lines: list[str] = []
    code = pack_command([str(tmp_path / "gone.glb"), str(good), "-o", str(tmp_path / "packs")], lines.append)
    assert code == 1 and "gone.glb' does not exist" in lines[0] and "2 joints, 0 clips" in lines[1]
    assert Pack.load(tmp_path / "packs" / "good.npz").rig.names == ("a", "b")
    assert pack_command([str(good), "-o", str(tmp_path / "packs")], lines.append) == 0


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'fox': rename one"):
        list(pack_files(["a/fox.glb", "b/fox.fbx"], tmp_path))


def textured(uv: tuple[float, float], interpolation: str) -> Array:
    """The colour of a cube that shows one place of an image with a black and a white column."""
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    part = add_part(obj, "a", (0, 0, 0))
    for loop in part.data.uv_layers[0].data:
        loop.uv = uv
    shader = paint(part)
    image = bpy.data.images.new("Texture", 2, 1)
    image.pixels[:] = [0, 0, 0, 1, 1, 1, 1, 1]
    texture = shader.id_data.nodes.new("ShaderNodeTexImage")
    texture.image, texture.interpolation = image, interpolation
    shader.id_data.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    return surface_of(obj, ("a", "b", "c"), 50).colours


def test_between_texels_their_light_is_mixed() -> None:
    assert np.allclose(textured((0.5, 0.5), "Linear"), 0.73536, atol=0.003)  # half the light, for display
    assert np.allclose(textured((0.51, 0.5), "Closest"), 1)
    assert np.allclose(textured((0.49, 0.5), "Closest"), 0)


def test_normals_of_a_box_shaded_smoothly_are_those_of_its_sides() -> None:
    obj = three_bones()
    bpy.data.objects.remove(skin_of(obj))
    part = add_part(obj, "a", (0, 0, 0))
    part.data.shade_smooth()
    bpy.context.view_layer.update()
    surface = surface_of(obj, ("a", "b", "c"), 500)
    tree = shown([part])
    faces = np.array([tree.find_nearest(point)[1] for point in surface.points])
    assert ((surface.normals * faces).sum(1) > 0.93).all()

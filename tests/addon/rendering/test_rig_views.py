"""Reference views: the projection is Blender's own, the image shows the pose, and the user's file stays as it was."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import cv2
import numpy as np
import pytest
from anyrig.addon.rendering import rig_views
from anyrig.addon.rendering.scratch_scene import NAME
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.backend.geometry.camera import project
from anyrig.tests.addon.fixtures import human, no_mesh, transformed

AZIMUTHS = [0.0, 0.9, 2.5, -1.3]


def mesh_object(name: str, points: np.ndarray, faces: list[tuple[int, ...]], parent: bpy.types.Object) -> bpy.types.Object:
    """A mesh carried by the armature, points given in the world."""
    data = bpy.data.meshes.new(name)
    data.from_pydata(points.tolist(), [], faces)
    obj = bpy.data.objects.new(name, data)
    bpy.context.collection.objects.link(obj)
    obj.parent = parent
    obj.matrix_parent_inverse = parent.matrix_world.inverted()
    bpy.context.view_layer.update()
    return obj


def cube(centre: np.ndarray, half: float) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return centre + half * corners, faces


def colour(obj: bpy.types.Object, rgb: tuple[float, float, float]) -> None:
    material = bpy.data.materials.new("paint")
    if material.node_tree is None:
        material.use_nodes = True
    material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*rgb, 1.0)
    obj.data.materials.append(material)


@pytest.fixture
def marked() -> Iterator[tuple[bpy.types.Object, np.ndarray]]:
    """A scaled and rotated armature that carries two cubes: a large green one, and a small red one off to its side."""
    obj = transformed()
    for mesh in [child for child in bpy.data.objects if child.type == "MESH"]:
        bpy.data.objects.remove(mesh)
    middle = np.array([0.5, -0.3, 1.0])
    spot = middle + [0.25, -0.45, 0.65]
    for name, centre, half, rgb in (("big", middle, 0.2, (0, 1, 0)), ("small", spot, 0.02, (1, 0, 0))):
        colour(mesh_object(name, *cube(centre, half), obj), rgb)
    yield obj, spot


@pytest.mark.parametrize("engine", [rig_views.WORKBENCH, rig_views.CYCLES])
def test_projection_is_where_blender_draws(marked: tuple[bpy.types.Object, np.ndarray], engine: str) -> None:
    obj, spot = marked
    in_armature = np.linalg.inv(np.array(obj.matrix_world)) @ [*spot, 1.0]
    seen = 0
    for reference in rig_views.render_views(obj, rig_from_armature(obj), AZIMUTHS, size=256, pitch=0.3, engine=engine):
        red, green, _, alpha = np.moveaxis(reference.image.astype(float), -1, 0)
        weight = np.where((red > 2 * green + 10) & (alpha > 0), alpha, 0.0)
        if not weight.sum():
            continue
        rows, columns = np.mgrid[:256, :256] + 0.5
        centroid = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        assert np.abs(project(reference.projection, in_armature[:3]) - centroid).max() < 0.35
        seen += 1
    assert seen >= 3


def test_whole_rig_is_in_the_image_and_turns_with_the_azimuth() -> None:
    obj = human()
    obj.rotation_euler.z, obj.scale = 0.7, (2, 2, 2)
    rig = rig_from_armature(obj)
    references = rig_views.render_views(obj, rig, [0.0, 0.7 + math.pi / 2], size=128)
    spans = []
    for reference in references:
        mask = reference.image[..., 3] > 128
        assert mask.any() and not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        spans.append(np.ptp(np.flatnonzero(mask.any(0))) / np.ptp(np.flatnonzero(mask.any(1))))
        pixels = project(reference.projection, rig.heads)
        assert mask[pixels[:, 1].astype(int), pixels[:, 0].astype(int)].mean() > 0.7
    # the arms are out to the sides: the front is wide; a quarter turn beyond the object's own turn sees it edge-on
    assert spans[0] > 0.5 and spans[1] < 0.3
    assert [reference.azimuth for reference in references] == [0.0, 0.7 + math.pi / 2]


def test_pose_that_is_not_keyed_is_seen_and_kept() -> None:
    obj = human()
    bone = obj.pose.bones["hips"]
    for frame, height in ((1, 0.0), (20, 1.0)):
        bone.location.x = height
        bone.keyframe_insert("location", frame=frame)
    bpy.context.scene.frame_set(1)
    bone.location.x = 0.3
    rig = rig_from_armature(obj)
    now = pose_of(obj, rig)
    current = rig_views.render_views(obj, rig, [0.4], size=64)[0]
    other = rig_views.render_views(obj, rig, [0.4], size=64, frame=20)[0]
    assert np.array_equal(current.pose, now)
    assert np.allclose(np.linalg.norm(other.pose[0, :3, 3] - rig.heads[0]), 1.0, atol=1e-5)
    assert np.isclose(bone.location.x, 0.3) and bpy.context.scene.frame_current == 1
    assert np.array_equal(pose_of(obj, rig), now)
    # each camera follows the mesh as posed at its frame: the projected root stays where it was in the image
    roots = [project(reference.projection, reference.pose[0, :3, 3]) for reference in (current, other)]
    assert np.abs(roots[0] - roots[1]).max() < 0.1


def simple_values(struct: bpy.types.bpy_struct) -> dict[str, Any]:
    values = {}
    for prop in struct.bl_rna.properties:
        if prop.identifier != "use_nodes" and prop.type in ("BOOLEAN", "INT", "FLOAT", "STRING", "ENUM"):
            value = getattr(struct, prop.identifier)
            values[prop.identifier] = tuple(value) if getattr(prop, "is_array", False) else value
    return values


def file_state() -> dict[str, Any]:
    """Everything in the file that a render could disturb."""
    scene, layer = bpy.context.scene, bpy.context.view_layer
    collections = {
        prop.identifier: [(item.name, item.users) for item in getattr(bpy.data, prop.identifier)]
        for prop in bpy.types.BlendData.bl_rna.properties
        if prop.type == "COLLECTION"
    }
    objects = {
        obj.name: (
            obj.hide_render,
            obj.hide_viewport,
            obj.hide_get(),
            obj.select_get(),
            obj.mode,
            np.array(obj.matrix_world).tolist(),
        )
        for obj in scene.objects
    }
    structs = (
        scene,
        scene.render,
        scene.render.image_settings,
        scene.view_settings,
        scene.display,
        scene.display.shading,
        scene.cycles,
    )
    return {
        "data": collections,
        "objects": objects,
        "settings": [simple_values(struct) for struct in structs],
        "camera": scene.camera,
        "active": layer.objects.active,
        "scene": bpy.context.window.scene,
        "materials": [[slot.material for slot in obj.material_slots] for obj in scene.objects],
    }


@pytest.fixture
def furnished() -> bpy.types.Object:
    """A file with settings of the user's own."""
    obj = human()
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("shot", bpy.data.cameras.new("shot"))
    scene.collection.objects.link(scene.camera)
    scene.render.engine, scene.render.resolution_x, scene.render.filepath = "CYCLES", 77, "//mine/"
    scene.frame_set(13)
    hidden = bpy.data.objects.new("hidden", bpy.data.meshes.new("hidden"))
    scene.collection.objects.link(hidden)
    hidden.hide_set(True)
    bpy.data.scenes.new(NAME)
    bpy.data.images.new("mine", 4, 4)
    mesh = next(child for child in scene.objects if child.type == "MESH" and child is not hidden)
    red = bpy.data.materials.new("red")
    mesh.data.materials.append(None)
    mesh.material_slots[0].link = "OBJECT"
    mesh.material_slots[0].material = red
    bpy.context.view_layer.update()
    return obj


@pytest.mark.parametrize("engine", [rig_views.WORKBENCH, rig_views.CYCLES])
@pytest.mark.parametrize("frame", [None, 5])
def test_file_is_left_as_it_was(furnished: bpy.types.Object, engine: str, frame: int | None) -> None:
    rig = rig_from_armature(furnished)
    before = file_state()
    rig_views.render_views(furnished, rig, [0.0], size=32, engine=engine, frame=frame)
    assert file_state() == before


def test_file_is_left_as_it_was_after_an_error(furnished: bpy.types.Object, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = rig_from_armature(furnished)
    before = file_state()
    with pytest.raises(TypeError, match="NO_SUCH_ENGINE"):
        rig_views.render_views(furnished, rig, [0.0], size=32, engine="NO_SUCH_ENGINE", frame=2)
    assert file_state() == before

    def fail(*_: object) -> None:
        raise RuntimeError("no light")

    monkeypatch.setattr(rig_views.Studio, "place", fail)
    with pytest.raises(RuntimeError, match="no light"):
        rig_views.render_views(furnished, rig, [0.0], size=32)
    assert file_state() == before


def test_last_render_of_the_user_is_kept(furnished: bpy.types.Object, tmp_path: Path) -> None:
    scene = bpy.context.scene
    scene.render.engine, scene.render.resolution_y = "BLENDER_WORKBENCH", 40
    bpy.ops.render.render()
    images = []
    for name in ("before.png", "after.png"):
        bpy.data.images["Render Result"].save_render(str(tmp_path / name), scene=scene)
        images.append(cv2.imread(str(tmp_path / name), cv2.IMREAD_UNCHANGED))
        rig_views.render_views(furnished, rig_from_armature(furnished), [0.0], size=32)
    assert images[0].shape[:2] == (40, 77) and np.array_equal(*images)


def test_colours_are_the_materials_and_modifiers_are_applied() -> None:
    obj = human()
    mesh = next(child for child in bpy.data.objects if child.type == "MESH")
    colour(mesh, (0.0, 0.0, 0.8))
    rig = rig_from_armature(obj)
    reference = rig_views.render_views(obj, rig, [0.0], size=64)[0]
    red, _, blue, alpha = np.moveaxis(reference.image.astype(int), -1, 0)
    inside = alpha == 255
    assert (blue[inside] > 100).mean() > 0.9 and red[inside].max() < 60
    mesh.modifiers.new("doubled", "MIRROR").use_axis = (False, False, True)
    assert (rig_views.render_views(obj, rig, [0.0], size=64)[0].image[..., 3] > 0).sum() != (alpha > 0).sum()


@pytest.mark.parametrize("hide", ["no mesh", "viewport", "render"])
def test_without_a_visible_mesh_capsules_are_drawn(hide: str) -> None:
    obj = no_mesh() if hide == "no mesh" else human()
    for mesh in [child for child in bpy.data.objects if child.type == "MESH"]:
        mesh.hide_viewport, mesh.hide_render = hide == "viewport", hide == "render"
    bpy.context.view_layer.update()
    rig = rig_from_armature(obj)
    before = file_state()
    references = rig_views.render_views(obj, rig, [0.0, 1.0], size=96)
    assert file_state() == before
    drawn = rig_views.draw_capsules(rig, pose_of(obj, rig), [0.0, 1.0], size=96)
    assert all(np.array_equal(left.image, right.image) for left, right in zip(references, drawn, strict=True))
    for reference, azimuth in zip(references, [0.0, 1.0], strict=True):
        assert reference.azimuth == azimuth and reference.image.shape == (96, 96, 4)
        pixels = project(reference.projection, reference.pose[:, :3, 3]).astype(int)
        assert (reference.image[pixels[:, 1], pixels[:, 0], 3] > 0).mean() > 0.8
        assert np.array_equal(reference.pose, pose_of(obj, rig))

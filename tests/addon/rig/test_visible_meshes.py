"""A mesh that the user does not see is in no image of the rig: not in the reference views, the movie, the demo or a pack."""

from collections.abc import Callable

import bpy
import numpy as np
import pytest
from anyrig.addon.dev import render_action, render_clips
from anyrig.addon.rendering import rig_views
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.rig.meshes import meshes_of, visible_meshes
from anyrig.addon.rig.surface_points import surface_of
from anyrig.tests.addon.fixtures import add_mesh, human


def own_collection(mesh: bpy.types.Object) -> bpy.types.LayerCollection:
    collection = bpy.data.collections.new("hats")
    bpy.context.scene.collection.children.link(collection)
    bpy.context.scene.collection.objects.unlink(mesh)
    collection.objects.link(mesh)
    return bpy.context.view_layer.layer_collection.children["hats"]


def move_to_another_scene(mesh: bpy.types.Object) -> None:
    bpy.data.scenes.new("Other").collection.objects.link(mesh)
    bpy.context.scene.collection.objects.unlink(mesh)


# way of hiding -> what it does; behind each, who drew the mesh all the same when every place had a rule of its own
WAYS: dict[str, Callable[[bpy.types.Object], None]] = {
    "eye": lambda mesh: mesh.hide_set(True),  # demo, pack
    "monitor": lambda mesh: setattr(mesh, "hide_viewport", True),  # pack
    "camera": lambda mesh: setattr(mesh, "hide_render", True),
    "collection's eye": lambda mesh: setattr(own_collection(mesh), "hide_viewport", True),  # demo, pack
    "collection's monitor": lambda mesh: setattr(own_collection(mesh).collection, "hide_viewport", True),  # demo, pack
    "excluded collection": lambda mesh: setattr(own_collection(mesh), "exclude", True),  # demo, pack
    "another scene": move_to_another_scene,  # demo
}


@pytest.mark.parametrize("way", WAYS)
def test_a_hidden_mesh_is_in_no_image(way: str) -> None:
    obj = human()
    (skin,) = meshes_of(obj)
    hat = add_mesh(obj, ["head"])
    hat.scale = (2, 2, 2)
    bpy.context.view_layer.update()
    assert set(visible_meshes(obj)) == {skin, hat}
    WAYS[way](hat)
    bpy.context.view_layer.update()
    assert set(meshes_of(obj)) == {skin, hat} and visible_meshes(obj) == [skin]
    action = obj.animation_data_create().action = bpy.data.actions.new("still")
    assert render_clips.RenderedArmature(obj, action).objects == (obj, skin)
    hidden = images_of(obj)
    bpy.data.objects.remove(hat)
    assert all(np.array_equal(*pair) for pair in zip(hidden, images_of(obj), strict=True))


def images_of(obj: bpy.types.Object) -> list[np.ndarray]:
    """A reference view, an image of the demo and its camera, and the points of a pack."""
    rig = rig_from_armature(obj)
    camera = render_action.frame_motion(obj, [0.0], 0.3, 0.1, 48)
    (view,) = rig_views.render_views(obj, rig, [0.3], size=48)
    (image,) = render_action.render_action(obj, rig, [0.0], camera)
    return [view.image, view.projection, image, camera.projection, surface_of(obj, rig.names, points=200).points]

"""The scratch scene: what it holds, and that nothing of it is left."""

import bpy
import numpy as np
import pytest
from anyrig.addon.rendering.posed_points import go_to, world_vertices
from anyrig.addon.rendering.scratch_scene import scratch_scene
from anyrig.tests.addon.fixtures import human

KINDS = ("scenes", "objects", "meshes", "cameras", "materials", "images")


def names() -> dict[str, list[str]]:
    return {kind: getattr(bpy.data, kind).keys() for kind in KINDS}


def test_copies_follow_their_mesh_and_keep_their_materials() -> None:
    obj = human()
    (mesh,) = (each for each in bpy.data.objects if each.type == "MESH")
    mesh.data.materials.append(bpy.data.materials.new("skin"))
    for frame, turn in ((1, 0.0), (5, 1.0)):
        obj.pose.bones["hips"].rotation_mode = "XYZ"
        obj.pose.bones["hips"].rotation_euler.x = turn
        obj.pose.bones["hips"].keyframe_insert("rotation_euler", frame=frame)
    build = mesh.modifiers.new("build", "BUILD")
    build.frame_start, build.frame_duration = 5, 20
    before = names()
    with scratch_scene(obj, mesh) as played, scratch_scene() as stage:
        copy = stage.add(mesh, go_to(played.scene, 1))
        counts = []
        for frame in (3, 15, 30):
            graph = go_to(played.scene, frame)
            stage.replace(copy, mesh, graph)
            assert np.array_equal(world_vertices(copy), world_vertices(mesh.evaluated_get(graph)))
            assert [material.name for material in copy.data.materials] == ["skin"]
            counts.append(len(copy.data.vertices))
        assert counts[1] > 0 and len(set(counts)) > 1
        assert stage.scene not in obj.users_scene and played.scene in obj.users_scene
    assert names() == before


@pytest.mark.parametrize("shown", [False, True])
def test_it_goes_after_an_error_and_in_no_window(shown: bool) -> None:
    obj, users, before = human(), bpy.context.scene, names()
    users.render.fps = 50
    window = bpy.context.window_manager.windows[0]
    with bpy.context.temp_override(window=None):
        with pytest.raises(RuntimeError, match="no light"), scratch_scene(obj, shown=shown) as stage:
            assert (window.scene == stage.scene) == shown and stage.scene.render.fps == 50
            stage.scene.camera = stage.new_object(bpy.data.cameras.new("camera"))
            stage.scene.render.resolution_x = stage.scene.render.resolution_y = 16
            stage.scene.render.engine = "BLENDER_WORKBENCH"
            image = stage.render()
            assert image is not None and image.shape == (16, 16, 4)
            raise RuntimeError("no light")
    assert window.scene == users and names() == before

"""Renders an action of a rig with one still camera, and chooses a plain backdrop for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import bpy
import numpy as np

from ...backend.arrays import Image
from ...backend.errors import UserError
from ...backend.geometry.camera import Camera, frame_points
from ..rendering.engines import WORKBENCH
from ..rendering.posed_points import go_to, points_of
from ..rendering.scratch_scene import NAME, ScratchScene, place_camera, scratch_scene
from ..rig.armature import pose_of
from ..rig.meshes import visible_meshes

if TYPE_CHECKING:
    from ...backend.rig.rig import Rig

FRAMING_SAMPLES = 24
MARGIN = 1.05
# Keying needs a colour that the character has nowhere: the one farthest from its colours is chosen.
BACKDROPS = ((40, 170, 70), (60, 90, 200), (200, 60, 160), (235, 235, 235), (30, 30, 34), (220, 190, 60))


@contextmanager
def staged_scene(obj: bpy.types.Object, size: int) -> Iterator[ScratchScene]:
    """Make a scratch scene with the armature, its visible meshes and a camera, which is shown and rendered with Workbench."""
    colours = dict(show_base_colours(visible_meshes(obj)))
    try:
        with scratch_scene(obj, *visible_meshes(obj), shown=True) as stage:
            stage.scene.camera = stage.new_object(bpy.data.cameras.new(NAME))
            set_up_render(stage.scene, size)
            yield stage
    finally:
        for material, colour in colours.items():
            material.diffuse_color = colour


def set_up_render(scene: bpy.types.Scene, size: int) -> None:
    render, shading = scene.render, scene.display.shading
    render.engine = WORKBENCH
    render.resolution_x = render.resolution_y = size
    scene.display.render_aa = "5"
    shading.light, shading.color_type = "STUDIO", "TEXTURE"
    shading.show_cavity = shading.show_shadows = shading.show_specular_highlight = False


def show_base_colours(meshes: Sequence[bpy.types.Object]) -> Iterator[tuple[bpy.types.Material, tuple[float, ...]]]:
    """Set the viewport colours of materials, which Workbench shows, to the shader's colours, which importers set.

    Yields every changed material with the viewport colour it had.
    """
    materials = {slot.material for mesh in meshes for slot in mesh.material_slots if slot.material and slot.material.node_tree}
    for material in materials:
        shader = next((node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED"), None)
        if shader and not shader.inputs["Base Color"].is_linked:
            yield material, tuple(material.diffuse_color)
            material.diffuse_color = (*shader.inputs["Base Color"].default_value[:3], 1.0)


def frame_motion(obj: bpy.types.Object, frames: Sequence[float], azimuth: float, pitch: float, size: int) -> Camera:
    """A camera at `azimuth` and `pitch` (radians) that holds the rig's visible meshes, or bones, on all frames of its action."""
    step, meshes = max(1, len(frames) // FRAMING_SAMPLES), visible_meshes(obj)
    with staged_scene(obj, size) as stage:
        points = np.concatenate([points_of(obj, meshes, go_to(stage.scene, frame)) for frame in frames[::step]])
    return frame_points(points, azimuth, pitch, size, MARGIN)


def render_action(obj: bpy.types.Object, rig: Rig, frames: Sequence[float], camera: Camera) -> list[Image]:
    """Render the rig on the frames of its active action, (H, W, 4) uint8 RGBA each; capsules if it has no visible mesh.

    Raises UserError if an image cannot be made.
    """
    if not visible_meshes(obj):
        return render_capsules(obj, rig, frames, camera)
    images = []
    with staged_scene(obj, camera.width) as stage:
        place_camera(stage.scene.camera, camera.rotation, camera.position, camera.distance, camera.fov)
        for frame in frames:
            go_to(stage.scene, frame)
            image = stage.render()
            if image is None:
                raise UserError("Workbench did not render an image: install an OpenGL driver (Debian: libegl1 libgl1-mesa-dri).")
            images.append(image)
    return images


def render_capsules(obj: bpy.types.Object, rig: Rig, frames: Sequence[float], camera: Camera) -> list[Image]:
    """Draw the same images of a rig without a visible mesh, without Blender."""
    from ...backend.rendering import still_images

    cloud, size = still_images.capsule_cloud(rig), (camera.width, camera.height)
    images = []
    with staged_scene(obj, camera.width) as stage:
        for frame in frames:
            posed = obj.evaluated_get(go_to(stage.scene, frame))
            pose, world = pose_of(posed, rig), np.array(posed.matrix_world)
            images.append(still_images.still_image(cloud, pose, camera.rotation, camera.projection, size, world, samples=2))
    return images


def plain_backdrop(images: Sequence[Image]) -> tuple[int, int, int]:
    """The backdrop colour that is farthest from every colour of the character."""
    seen = np.concatenate([image[::4, ::4][image[::4, ::4, 3] > 128][:, :3] for image in images[::5]])
    if not len(seen):
        return BACKDROPS[0]
    return max(BACKDROPS, key=lambda colour: float(np.linalg.norm(seen - np.array(colour, float), axis=1).min()))

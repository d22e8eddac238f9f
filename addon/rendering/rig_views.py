"""Renders a rig from chosen sides, in a scratch scene: the capture's reference views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import bpy
import numpy as np

from ...backend.arrays import Array, Image
from ...backend.errors import UserError
from ...backend.geometry.camera import Camera, frame_points
from ...backend.rig.rig import Reference, Rig
from ..rig.armature import pose_of
from ..rig.meshes import visible_meshes
from .engines import CYCLES, WORKBENCH
from .posed_points import go_to, world_vertices
from .scratch_scene import NAME, ScratchScene, place_camera, scratch_scene


def render_views(
    obj: bpy.types.Object,
    rig: Rig,
    azimuths: Sequence[float],
    size: int = 320,
    pitch: float = 0.1,
    *,
    frame: int | None = None,
    engine: str = WORKBENCH,
) -> list[Reference]:
    """Render the armature in one pose from every azimuth: its visible meshes, or capsules along its bones if there are none.

    Arguments and errors are those of `render_meshes`; capsules need torch.
    """
    pose, references = render_meshes(obj, rig, azimuths, size, pitch, frame=frame, engine=engine)
    return references or draw_capsules(rig, pose, azimuths, size, pitch)


def render_meshes(
    obj: bpy.types.Object,
    rig: Rig,
    azimuths: Sequence[float],
    size: int = 320,
    pitch: float = 0.1,
    *,
    frame: int | None = None,
    engine: str = WORKBENCH,
) -> tuple[Array, list[Reference]]:
    """Render the armature's visible meshes in one pose from every azimuth; returns the pose (J, 4, 4) and the views.

    azimuths: radians, world axes (camera.Camera). frame: a frame of the current scene, or None for the present pose, keyed or not.
    size: pixels of the square images. engine: Workbench needs a working OpenGL or Vulkan driver, Cycles does not. There are no views
    of an armature without visible meshes. The projections map ARMATURE space to pixels. Raises UserError if an image cannot be made.
    """
    meshes = visible_meshes(obj)
    with _evaluated([obj, *meshes], frame) as depsgraph:
        posed = obj.evaluated_get(depsgraph)
        pose, matrix = pose_of(posed, rig), np.array(posed.matrix_world)
        with scratch_scene() as stage:
            studio = Studio(stage, engine, size, size)
            points = np.concatenate([np.zeros((0, 3)), *(world_vertices(studio.add(mesh, depsgraph)) for mesh in meshes)])
            cameras = [frame_points(points, azimuth, pitch, size) for azimuth in azimuths] if len(points) else []
            images = [studio.shoot(camera) for camera in cameras]
    # armature space -> world by the object's own matrix, world -> pixels by the camera
    return pose, [
        Reference(pose, image, camera.azimuth, camera.projection @ matrix) for image, camera in zip(images, cameras, strict=True)
    ]


def draw_capsules(rig: Rig, pose: Array, azimuths: Sequence[float], size: int = 320, pitch: float = 0.1) -> list[Reference]:
    """Draw the same views of a rig without a visible mesh: capsules along its bones. Uses torch and no bpy; runs on any thread."""
    from ...backend.rendering import point_splatting

    return point_splatting.reference_views(rig, point_splatting.capsules(rig), pose, azimuths, pitch, size)


@contextmanager
def _evaluated(objects: Sequence[bpy.types.Object], frame: int | None) -> Iterator[bpy.types.Depsgraph]:
    """Evaluate the objects as they are in the user's scene, or at a frame in a scratch scene.

    Moving the user's scene to the frame and back would discard pose changes that are not keyed.
    """
    if frame is None:
        yield bpy.context.evaluated_depsgraph_get()
        return
    with scratch_scene(*objects) as stage:
        yield go_to(stage.scene, frame)


class Studio:
    """Renders copies of posed meshes with one camera and even light. stage: the scratch scene of the copies."""

    def __init__(self, stage: ScratchScene, engine: str, width: int, height: int) -> None:
        self.stage, self._engine, self._width, self._height = stage, engine, width, height
        render = stage.scene.render
        render.engine = engine
        render.resolution_x, render.resolution_y = width, height
        (self._light_cycles if engine == CYCLES else self._light_workbench)()
        stage.scene.camera = stage.new_object(bpy.data.cameras.new(NAME))

    def add(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
        """Copy the mesh as it is posed, with modifiers applied and in its colours; returns the copy."""
        copy = self.stage.add(mesh, depsgraph)
        for index, material in enumerate(copy.data.materials):
            copy.data.materials[index] = self._paint(material)
        return copy

    def shoot(self, camera: Camera) -> Image:
        """Render one image (H, W, 4) uint8 RGBA, straight alpha. Raises UserError if Blender makes none."""
        self.place(camera.rotation, camera.position, camera.distance, camera.fov)
        return self.snap()

    def snap(self) -> Image:
        """`shoot` with the camera where `place` put it."""
        image = self.stage.render()
        if image is None or image.shape != (self._height, self._width, 4):
            raise UserError("The rig's image could not be rendered: choose Cycles in the add-on's preferences.", fix="use_cycles")
        return image

    def place(
        self, rotation: Array, position: Array, distance: float, fov: float, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Place the camera; the arguments are those of `place_camera`."""
        place_camera(self.stage.scene.camera, rotation, position, distance, fov, shift)

    def _light_workbench(self) -> None:
        display = self.stage.scene.display
        display.render_aa = "5"
        shading = display.shading
        # Blender's most even studio light: it shades forms, yet keeps colours nearly as bright as they are
        shading.light, shading.studio_light, shading.color_type = "STUDIO", "paint.sl", "TEXTURE"
        shading.show_cavity = shading.show_shadows = shading.show_specular_highlight = False

    def _light_cycles(self) -> None:
        scene = self.stage.scene
        scene.cycles.device = "CPU"
        scene.cycles.samples, scene.cycles.use_denoising = 8, False
        world = scene.world = self.stage.own(bpy.data.worlds.new(NAME))
        # Even light from all sides: no side is darker than another, and the shading of the meshes still shows their form.
        if world.node_tree is None:  # before Blender 5.0
            world.use_nodes = True
        assert world.node_tree is not None
        world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)

    def _paint(self, material: bpy.types.Material | None) -> bpy.types.Material | None:
        """Workbench shows image textures and viewport colours. If a material has only a base colour, make one that shows it."""
        colour = _base_colour(material) if self._engine == WORKBENCH else None
        if colour is None:
            return material
        paint = self.stage.own(bpy.data.materials.new(NAME))
        paint.diffuse_color = colour
        return paint


def _base_colour(material: bpy.types.Material | None) -> tuple[float, float, float, float] | None:
    if material is None or material.node_tree is None:
        return None
    nodes = material.node_tree.nodes
    if any(node.type == "TEX_IMAGE" for node in nodes):
        return None
    shader = next((node for node in nodes if node.type == "BSDF_PRINCIPLED"), None)
    if shader is None or shader.inputs["Base Color"].is_linked:
        return None
    red, green, blue, _ = shader.inputs["Base Color"].default_value
    return red, green, blue, 1.0

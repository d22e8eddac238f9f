"""Images of a rig from chosen sides, taken in a scene of their own: the user's scene is only read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.errors import UserError
from ...backend.geometry.camera import Camera, fit_distance
from ...backend.geometry.rotations import Array
from ...backend.rig.rig import Reference, Rig
from ..rig.armature import meshes_of, pose_of
from .engines import CYCLES, WORKBENCH
from .posed_points import to_world


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
    """The armature in one pose, seen from every azimuth: its visible meshes, or capsules along its bones if there are none.

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
    """The pose (J, 4, 4), and the armature's visible meshes in it seen from every azimuth (radians, world axes: camera.Camera).

    frame: a frame of the current scene, or None for the pose as it stands, keyed or not. size: pixels of the square images.
    engine: Workbench needs a working OpenGL or Vulkan driver, Cycles does not. There are no views of an armature without
    visible meshes. The projections map ARMATURE space to pixels. Raises UserError if an image cannot be made.
    """
    meshes = _visible(meshes_of(obj))
    with _evaluated([obj, *meshes], frame) as depsgraph:
        posed = obj.evaluated_get(depsgraph)
        pose, matrix = pose_of(posed, rig), np.array(posed.matrix_world)
        with Studio(engine, size, size) as studio:
            points = np.concatenate([np.zeros((0, 3)), *(studio.add(mesh, depsgraph) for mesh in meshes)])
            cameras = [_camera(points, azimuth, pitch, size) for azimuth in azimuths] if len(points) else []
            images = [studio.shoot(camera) for camera in cameras]
    # armature space -> world by the object's own matrix, world -> pixels by the camera
    return pose, [
        Reference(pose, image, camera.azimuth, camera.projection @ matrix) for image, camera in zip(images, cameras, strict=True)
    ]


def draw_capsules(rig: Rig, pose: Array, azimuths: Sequence[float], size: int = 320, pitch: float = 0.1) -> list[Reference]:
    """The same views of a rig that has no mesh to show: capsules along the bones. Uses torch and no bpy; any thread."""
    from ...backend.rendering import point_splatting

    return point_splatting.reference_views(rig, point_splatting.capsules(rig), pose, azimuths, pitch, size)


def _visible(meshes: Sequence[bpy.types.Object]) -> list[bpy.types.Object]:
    return [mesh for mesh in meshes if mesh.visible_get() and not mesh.hide_render]


@contextmanager
def _evaluated(objects: Sequence[bpy.types.Object], frame: int | None) -> Iterator[bpy.types.Depsgraph]:
    """The evaluated objects: as they stand in the user's scene, or at a frame, evaluated in a scene made for it.

    Moving the user's scene to the frame and back would discard pose changes that are not keyed.
    """
    if frame is None:
        yield bpy.context.evaluated_depsgraph_get()
        return
    scene = bpy.data.scenes.new("AnyRig frame")
    try:
        for obj in objects:
            scene.collection.objects.link(obj)
        scene.frame_set(frame)
        yield scene.view_layers[0].depsgraph
    finally:
        bpy.data.batch_remove([scene])  # scenes.remove() ends a Blender that is in no window


def _camera(points: Array, azimuth: float, pitch: float, size: int) -> Camera:
    """The camera that holds all world points (P, 3) in its image; the same distance from every side."""
    centre = (points.min(0) + points.max(0)) / 2
    radius = max(float(np.linalg.norm(points - centre, axis=1).max()), 1e-6)
    x, y, z = (float(value) for value in centre)
    return Camera((x, y, z), fit_distance(radius, Camera.fov), azimuth, pitch, width=size, height=size)


class Studio:
    """A scene with copies of posed meshes and one camera; leaving it removes everything that it made."""

    def __init__(self, engine: str, width: int, height: int) -> None:
        self._engine, self._width, self._height = engine, width, height
        self._made: list[bpy.types.ID] = []
        self._images: set[bpy.types.Image] = set()

    def __enter__(self) -> Self:
        self._images = set(bpy.data.images)
        self._scene = bpy.data.scenes.new("AnyRig views")
        with ExitStack() as undo:
            undo.callback(self._remove)
            self._set_up()
            undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def add(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> Array:
        """Copy the mesh as it is posed, modifiers applied, in its colours -> its points (P, 3) in the world."""
        evaluated = mesh.evaluated_get(depsgraph)
        data = bpy.data.meshes.new_from_object(evaluated, depsgraph=depsgraph)
        self._made.append(data)
        for index, slot in enumerate(mesh.material_slots):
            if index >= len(data.materials):
                data.materials.append(None)
            data.materials[index] = self._paint(slot.material)
        copy = bpy.data.objects.new("AnyRig view", data)
        self._made.append(copy)
        copy.matrix_world = evaluated.matrix_world
        self._scene.collection.objects.link(copy)
        points = np.empty(len(data.vertices) * 3, np.float32)
        data.vertices.foreach_get("co", points)
        return to_world(evaluated.matrix_world, points.reshape(-1, 3))

    def shoot(self, camera: Camera) -> np.ndarray:
        """One image (H, W, 4) uint8 RGBA, straight alpha."""
        self.place(camera.rotation, camera.position, camera.distance, camera.fov)
        return self.snap()

    def snap(self) -> np.ndarray:
        """The image of the camera as it was placed."""
        import cv2

        from ...backend.video.reader import decode_image

        with tempfile.TemporaryDirectory(dir=bpy.app.tempdir) as folder:
            path = Path(folder) / "view.png"
            self._scene.render.filepath = str(path)
            # After rendering, the operator re-evaluates the context's scene at its frame, which discards pose changes that are
            # not keyed: that must not be the user's scene.
            with bpy.context.temp_override(scene=self._scene, view_layer=self._scene.view_layers[0]):
                bpy.ops.render.render(write_still=True)
            image = decode_image(path) if path.is_file() else None
        if image is None or image.shape != (self._height, self._width, 4):
            raise UserError("The rig's image could not be rendered: choose Cycles in the add-on's preferences.", fix="use_cycles")
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)

    def _set_up(self) -> None:
        render, image = self._scene.render, self._scene.render.image_settings
        render.engine = self._engine
        render.resolution_x, render.resolution_y = self._width, self._height
        render.resolution_percentage = 100
        render.film_transparent = True
        render.use_compositing = render.use_sequencer = False
        image.file_format, image.color_mode, image.color_depth, image.compression = "PNG", "RGBA", "8", 0
        self._scene.view_settings.view_transform = "Standard"
        (self._light_cycles if self._engine == CYCLES else self._light_workbench)()
        lens = bpy.data.cameras.new("AnyRig view")
        self._made.append(lens)
        self._scene.camera = bpy.data.objects.new("AnyRig view", lens)
        self._made.append(self._scene.camera)
        self._scene.collection.objects.link(self._scene.camera)

    def _light_workbench(self) -> None:
        self._scene.display.render_aa = "5"
        shading = self._scene.display.shading
        # Blender's most even studio light: forms are shaded, yet colours come out nearly as bright as they are
        shading.light, shading.studio_light, shading.color_type = "STUDIO", "paint.sl", "TEXTURE"
        shading.show_cavity = shading.show_shadows = shading.show_specular_highlight = False

    def _light_cycles(self) -> None:
        self._scene.cycles.device = "CPU"
        self._scene.cycles.samples, self._scene.cycles.use_denoising = 8, False
        world = bpy.data.worlds.new("AnyRig view")
        self._made.append(world)
        self._scene.world = world
        # An even light from all sides: shape shows through the meshes' own shade, and no side is darker than another.
        if world.node_tree is None:  # before Blender 5.0
            world.use_nodes = True
        assert world.node_tree is not None
        world.node_tree.nodes["Background"].inputs["Color"].default_value = (1, 1, 1, 1)

    def _paint(self, material: bpy.types.Material | None) -> bpy.types.Material | None:
        """Workbench shows an image texture or the viewport colour; where only a base colour is set, show that instead."""
        colour = _base_colour(material) if self._engine == WORKBENCH else None
        if colour is None:
            return material
        paint = bpy.data.materials.new("AnyRig view")
        self._made.append(paint)
        paint.diffuse_color = colour
        return paint

    def place(
        self, rotation: Array, position: Array, distance: float, fov: float, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """rotation: world -> camera. distance: to what is looked at. fov: over the longer side. shift: Blender's own."""
        # `rotation` takes world axes to (right, up, towards the viewer), which are the axes of Blender's camera object: its matrix in
        # the world is the inverse rotation beside the position.
        placed, lens = self._scene.camera, self._scene.camera.data
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation.T, position
        placed.matrix_world = Matrix(matrix.tolist())
        lens.sensor_fit, lens.angle = "AUTO", fov
        lens.shift_x, lens.shift_y = shift
        lens.clip_start, lens.clip_end = distance * 1e-2, distance * 1e2

    def _remove(self) -> None:
        images = [image for image in bpy.data.images if image.type == "RENDER_RESULT" and image not in self._images]
        # scenes.remove() asks for a window, and `blender -b FILE --command` is in none: it would end Blender
        bpy.data.batch_remove([self._scene])
        bpy.data.batch_remove([*self._made, *images])


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

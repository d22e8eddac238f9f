"""Makes a scene for evaluating and rendering rigs, and removes it afterwards: the user's scene is only read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import bpy
import numpy as np
from mathutils import Matrix

from ...backend.arrays import Array, Image

NAME = "AnyRig"
Made = TypeVar("Made", bound=bpy.types.ID)


@contextmanager
def scratch_scene(*objects: bpy.types.Object, shown: bool = False) -> Iterator[ScratchScene]:
    """Make a scene with these objects, the frame rate of the user's scene and transparent images; remove it after the block.

    Parents and constraint targets of the objects are evaluated although they are not in the scene.
    shown: the window shows the scene meanwhile. Blender renders a scene that no window shows without moving its animation on.
    """
    window, users = current_window(), bpy.context.scene
    made = ScratchScene(bpy.data.scenes.new(NAME))
    try:
        if shown:
            window.scene = made.scene
        _set_up(made.scene, users)
        for obj in objects:
            made.scene.collection.objects.link(obj)
        yield made
    finally:
        if shown:
            window.scene = users
        made.remove()


def _set_up(scene: bpy.types.Scene, users: bpy.types.Scene) -> None:
    render, image = scene.render, scene.render.image_settings
    render.fps, render.fps_base = users.render.fps, users.render.fps_base
    render.resolution_percentage = 100
    render.film_transparent = True
    render.use_compositing = render.use_sequencer = False
    image.file_format, image.color_mode, image.color_depth, image.compression = "PNG", "RGBA", "8", 0
    scene.view_settings.view_transform = "Standard"


class ScratchScene:
    """A scene, and the data-blocks that are removed together with it. scene: Blender's own, with one view layer."""

    def __init__(self, scene: bpy.types.Scene) -> None:
        self.scene = scene
        self._made: list[bpy.types.ID] = []

    def own(self, made: Made) -> Made:
        """Remove this new data-block together with the scene."""
        self._made.append(made)
        return made

    def new_object(self, data: bpy.types.ID) -> bpy.types.Object:
        """Add a new object with this new data; both are removed together with the scene."""
        self.own(data)
        obj = self.own(bpy.data.objects.new(NAME, data))
        self.scene.collection.objects.link(obj)
        return obj

    def add(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
        """Add a copy of the mesh as it is posed, modifiers applied, with the materials of its slots; returns the copy."""
        posed = mesh.evaluated_get(depsgraph)
        data = bpy.data.meshes.new_from_object(posed, depsgraph=depsgraph)
        copy = self.new_object(data)
        copy.matrix_world = posed.matrix_world
        # a slot's material may belong to the object, which the copied data does not know
        for index, slot in enumerate(mesh.material_slots):
            if index >= len(data.materials):
                data.materials.append(None)
            data.materials[index] = slot.material
        return copy

    def replace(self, copy: bpy.types.Object, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> None:
        """Give a copy that `add` returned the place and the shape that its mesh has now; its materials stay."""
        posed, before = mesh.evaluated_get(depsgraph), copy.data
        copy.matrix_world = posed.matrix_world
        if len(before.vertices) == len(posed.data.vertices):
            points = np.empty(3 * len(before.vertices), np.float32)
            posed.data.vertices.foreach_get("co", points)
            before.vertices.foreach_set("co", points)
            before.update()
            return
        # a modifier makes another number of vertices on every frame
        data = self.own(bpy.data.meshes.new_from_object(posed, depsgraph=depsgraph))
        data.materials.clear()
        for material in before.materials:
            data.materials.append(material)
        copy.data = data
        self._made.remove(before)
        bpy.data.meshes.remove(before)

    def render(self) -> Image | None:
        """Render the scene's camera: (H, W, 3) uint8 RGB, or (H, W, 4) RGBA with straight alpha; None if Blender makes no image."""
        import cv2

        from ...backend.video.image_sequence import decode_image

        before = set(bpy.data.images)
        # Blender's own temporary folder may have been tidied away
        with tempfile.TemporaryDirectory(dir=bpy.app.tempdir if os.path.isdir(bpy.app.tempdir) else None) as folder:
            path = Path(folder) / "image.png"
            self.scene.render.filepath = str(path)
            try:
                # After rendering, the operator evaluates the context's scene at its frame, which discards pose changes that
                # are not keyed: that must not be the user's scene.
                with bpy.context.temp_override(scene=self.scene, view_layer=self.scene.view_layers[0]):
                    bpy.ops.render.render(write_still=True)
            finally:
                self._made += [each for each in bpy.data.images if each.type == "RENDER_RESULT" and each not in before]
            image = decode_image(path) if path.is_file() else None
        if image is None:
            return None
        return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)

    def remove(self) -> None:
        """Remove the scene and everything that was made for it."""
        # scenes.remove() asks for a window and ends a Blender that is in none, as `blender -b FILE --command` is
        bpy.data.batch_remove([self.scene])
        bpy.data.batch_remove(self._made)


def current_window() -> bpy.types.Window:
    """The context's window, reached through its window manager; the file's first where the context has none.

    In Blender 4.2 `bpy.context.window` takes its owner from the context, which a rig's script or driver can leave pointing at
    freed memory: assigning to such a window's properties ends Blender. `blender -b FILE --command` is in no window at all.
    """
    windows = bpy.context.window_manager.windows
    return next((window for window in windows if window == bpy.context.window), windows[0])


def place_camera(
    obj: bpy.types.Object,
    rotation: Array,
    position: Array,
    distance: float,
    fov: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Place a camera object.

    rotation: (3, 3) world -> camera (x right, y up, z towards the viewer). position: (3,) in the world. distance: to its target, for
    the clipping. fov: radians, over the longer side. shift: in longer sides of the image, as in Blender.
    """
    # `rotation` takes world axes to (right, up, towards the viewer), which are the axes of Blender's camera object: its matrix in
    # the world is the inverse rotation beside the position.
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.T, position
    obj.matrix_world = Matrix(matrix.tolist())
    lens = obj.data
    lens.sensor_fit, lens.angle = "AUTO", fov
    lens.shift_x, lens.shift_y = shift
    lens.clip_start, lens.clip_end = distance * 1e-2, distance * 1e2

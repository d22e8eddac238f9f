"""Renders a rig outdoors with Cycles: ground, sky, a sun with shadows, and a still camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector
from numpy.typing import NDArray

from ...backend.errors import UserError
from ...backend.geometry.camera import Camera
from ..rendering.engines import WORKBENCH
from ..rendering.scratch_scene import ScratchScene, place_camera, scratch_scene

NAME = "AnyRig film"
PHYSICAL = ("NISHITA", "SINGLE_SCATTERING")  # one kind of sky, renamed in Blender 5.0
SKY = 0.11  # strength at which a display shows the physical sky well
SUN = 3.4
HORIZON = 40.0  # half the ground's side, in distances of the camera
TILE = 3.0  # the side of the ground's image, in widths of the camera's view
PIXELS = 512
COARSEST = 6.0  # waves across the ground's image: coarser ones are no stronger
# two colours (linear) of the ground's patches: grass, sand, asphalt, earth, snow, planks, tiles
GROUNDS = (
    ((0.05, 0.11, 0.02), (0.11, 0.17, 0.05)),
    ((0.38, 0.29, 0.17), (0.52, 0.42, 0.28)),
    ((0.04, 0.04, 0.045), (0.09, 0.09, 0.09)),
    ((0.10, 0.06, 0.035), (0.19, 0.13, 0.08)),
    ((0.62, 0.65, 0.70), (0.80, 0.81, 0.84)),
    ((0.20, 0.11, 0.05), (0.32, 0.20, 0.10)),
    ((0.22, 0.23, 0.25), (0.36, 0.36, 0.35)),
)


@dataclass(frozen=True)
class Weather:
    """The surroundings. elevation, bearing: of the sun, radians; the bearing is like a camera's azimuth. ground: index of GROUNDS.

    pattern: a seed for the ground's patches.
    """

    elevation: float
    bearing: float
    ground: int
    pattern: int


def weather_of(rng: np.random.Generator, azimuth: float) -> Weather:
    """Draw a sun that is never right behind the subject, and a ground."""
    bearing = azimuth + rng.uniform(-2.0, 2.0)
    return Weather(rng.uniform(0.5, 1.1), bearing, int(rng.integers(len(GROUNDS))), int(rng.integers(2**31)))


@contextmanager
def outdoor_scene_of(objects: Sequence[bpy.types.Object], engine: str, samples: int) -> Iterator[ScratchScene]:
    """A scratch scene with these objects alone, shown in the window."""
    with scratch_scene(*objects, shown=True) as stage:
        stage.scene.render.film_transparent, stage.scene.render.image_settings.color_mode = False, "RGB"
        _set_up(stage.scene, engine, samples)
        yield stage


def _set_up(scene: bpy.types.Scene, engine: str, samples: int) -> None:
    scene.render.engine = engine
    if engine == WORKBENCH:
        shading = scene.display.shading
        scene.display.render_aa = "5"
        shading.light, shading.color_type = "STUDIO", "TEXTURE"
        shading.show_shadows, shading.show_cavity, shading.show_specular_highlight = True, False, False
        return
    scene.render.use_persistent_data = True
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.use_adaptive_sampling = "CPU", samples, False
    cycles.use_denoising = _can_denoise(cycles)
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 4, 1, 1
    cycles.use_animated_seed = True  # the remaining noise changes from frame to frame, as in a video


def _can_denoise(cycles: Any) -> bool:
    """Choose the denoiser; False if this Blender was built without it, and refuses its name."""
    try:
        cycles.denoiser = "OPENIMAGEDENOISE"
    except TypeError:
        return False
    cycles.denoising_prefilter, cycles.denoising_quality = "FAST", "FAST"
    return True


@contextmanager
def surroundings(scene: bpy.types.Scene, camera: Camera, floor: float, weather: Weather) -> Iterator[None]:
    """Add a camera, the sky, the sun and the ground at height `floor` to the scene, and remove them after the block."""
    made: list[bpy.types.ID] = []
    towards = Vector(_towards(weather))
    try:
        world = _sky(scene, weather)
        made += [world, *_ground(scene, camera, floor, weather), *_sun(scene, towards), *_lens(scene, camera)]
        scene.display.light_direction = towards
        yield
    finally:
        bpy.data.batch_remove(made)


@contextmanager
def nothing_around(scene: bpy.types.Scene, camera: Camera) -> Iterator[None]:
    """Add the camera alone, with transparency behind the subject, and restore the scene after the block."""
    render = scene.render
    mode, clear = render.image_settings.color_mode, render.film_transparent
    made = _lens(scene, camera)
    render.image_settings.color_mode, render.film_transparent = "RGBA", True
    try:
        yield
    finally:
        render.image_settings.color_mode, render.film_transparent = mode, clear
        bpy.data.batch_remove(made)


def _lens(scene: bpy.types.Scene, camera: Camera) -> list[bpy.types.ID]:
    scene.render.resolution_x, scene.render.resolution_y = camera.width, camera.height
    scene.camera = _object(scene, bpy.data.cameras.new(NAME))
    place_camera(scene.camera, camera.rotation, camera.position, camera.distance, camera.fov)
    # the ground reaches to the horizon
    scene.camera.data.clip_end = 2 * HORIZON * camera.distance
    return [scene.camera, scene.camera.data]


def _towards(weather: Weather) -> tuple[float, float, float]:
    """The direction to the sun in world axes. As for a camera's azimuth, bearing 0 is on the side of -y (camera.Camera)."""
    flat = np.cos(weather.elevation)
    return (
        float(flat * np.sin(weather.bearing)),
        float(-flat * np.cos(weather.bearing)),
        float(np.sin(weather.elevation)),
    )


def _object(scene: bpy.types.Scene, data: bpy.types.ID) -> bpy.types.Object:
    obj = bpy.data.objects.new(NAME, data)
    scene.collection.objects.link(obj)
    return obj


def _sky(scene: bpy.types.Scene, weather: Weather) -> bpy.types.World:
    world = scene.world = bpy.data.worlds.new(NAME)
    world.color = (0.35, 0.5, 0.75)  # what Workbench shows
    tree = node_tree(world)
    sky = tree.nodes.new("ShaderNodeTexSky")
    known = {item.identifier for item in sky.bl_rna.properties["sky_type"].enum_items}
    sky.sky_type = next(kind for kind in PHYSICAL if kind in known)
    # Blender's sky counts the sun's rotation from +y clockwise as seen from above: x = sin, y = cos. The bearing has x = sin,
    # y = -cos, which is the rotation pi - bearing.
    sky.sun_disc, sky.sun_elevation, sky.sun_rotation = False, weather.elevation, float(np.pi - weather.bearing)
    background = tree.nodes["Background"]
    background.inputs["Strength"].default_value = SKY
    tree.links.new(sky.outputs["Color"], background.inputs["Color"])
    return world


def node_tree(owner: bpy.types.World | bpy.types.Material) -> Any:
    """The nodes of a new world or material."""
    if owner.node_tree is None:  # before Blender 5.0
        owner.use_nodes = True
    return owner.node_tree


def _sun(scene: bpy.types.Scene, towards: Vector) -> list[bpy.types.ID]:
    light = bpy.data.lights.new(NAME, "SUN")
    light.energy, light.angle, light.color = SUN, 0.02, (1.0, 0.95, 0.87)
    lamp = _object(scene, light)
    # a lamp shines along its own -z
    lamp.matrix_world = towards.to_track_quat("Z", "Y").to_matrix().to_4x4()
    return [lamp, light]


def _ground(scene: bpy.types.Scene, camera: Camera, floor: float, weather: Weather) -> list[bpy.types.ID]:
    mesh = bpy.data.meshes.new(NAME)
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    x, y, _ = camera.target
    side = HORIZON * camera.distance
    ground = _object(scene, mesh)
    ground.matrix_world = Matrix.Translation((x, y, floor)) @ Matrix.Diagonal((side, side, 1, 1))
    # the ground's own x and y go from -1 to 1
    tiles = 2 * side / (TILE * 2 * camera.distance * np.tan(camera.fov / 2))
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32) * tiles
    mesh.uv_layers.new().data.foreach_set("uv", corners.astype(np.float32).ravel())
    paint, image = bpy.data.materials.new(NAME), bpy.data.images.new(NAME, PIXELS, PIXELS, float_buffer=True)
    image.colorspace_settings.name = "Non-Color"  # linear already
    pixels = patches(*GROUNDS[weather.ground], weather.pattern)
    image.pixels.foreach_set(pixels.astype(np.float32).ravel())
    mesh.materials.append(paint)
    paint.diffuse_color = pixels[0, 0]
    _cover(node_tree(paint), image)
    return [ground, mesh, paint, image]


def patches(dark: Sequence[float], light: Sequence[float], seed: int) -> NDArray[np.floating]:
    """(PIXELS, PIXELS, 4) linear RGBA between the two colours: clouds with more coarse than fine detail, which tile.

    An image renders three times as fast as Cycles' own noise.
    """
    white = np.random.default_rng(seed).standard_normal((PIXELS, PIXELS))
    frequency = np.hypot(np.fft.fftfreq(PIXELS)[:, None], np.fft.rfftfreq(PIXELS)) * PIXELS
    shaped = np.fft.irfft2(np.fft.rfft2(white) / np.maximum(frequency, COARSEST) ** 1.4, s=white.shape)
    share = np.clip(0.5 + 0.3 * (shaped - shaped.mean()) / shaped.std(), 0, 1)[..., None]
    return np.concatenate([np.array(dark) * (1 - share) + np.array(light) * share, np.ones_like(share)], axis=2)


def _cover(tree: Any, image: bpy.types.Image) -> None:
    texture, shader = tree.nodes.new("ShaderNodeTexImage"), tree.nodes["Principled BSDF"]
    texture.image = image
    shader.inputs["Roughness"].default_value = 1.0
    tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])


def render_frame(stage: ScratchScene, count: int, pose: Callable[[bpy.types.Scene, int], Any]) -> Iterator[NDArray[np.uint8]]:
    """Render the frames 0 to count - 1, each after `pose(scene, frame)`.

    Yields images (H, W, 3) uint8 RGB, or mattes (H, W) uint8 if the scene is transparent (nothing_around). Raises UserError if an
    image cannot be made.
    """
    for frame in range(count):
        pose(stage.scene, frame)
        image = stage.render()
        if image is None:
            raise UserError(f"Frame {frame} was not rendered: choose the other engine with --engine.")
        yield image[..., 3] if image.shape[2] == 4 else image

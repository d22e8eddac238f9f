"""A walk filmed by a camera that moves along and comes nearer, with the truth as its take: what the checks are tested on."""

import math
from pathlib import Path

import bpy
import cv2
import numpy as np
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.dev import demo_character
from anyrig.addon.rig import actions
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.geometry.camera import Camera
from anyrig.backend.geometry.rotations import continuous, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Reference
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from mathutils import Matrix

WIDTH, HEIGHT = 192, 144
FRAMES = 12
GREEN = (40, 170, 70)


def shoot(folder: Path) -> np.ndarray:
    """The current scene through its camera, (H, W, 4) uint8 RGBA; render settings and scene are as they were afterwards."""
    render, image = bpy.context.scene.render, bpy.context.scene.render.image_settings
    before = (render.engine, render.film_transparent, render.filepath, image.file_format, image.color_mode)
    render.engine, render.film_transparent, render.filepath = "BLENDER_WORKBENCH", True, str(folder / "shot.png")
    image.file_format, image.color_mode = "PNG", "RGBA"
    bpy.ops.render.render(write_still=True)
    render.engine, render.film_transparent, render.filepath, image.file_format, image.color_mode = before
    for result in [image for image in bpy.data.images if image.type == "RENDER_RESULT"]:
        bpy.data.images.remove(result)
    return cv2.cvtColor(cv2.imread(str(folder / "shot.png"), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1.0, rows.max() + 1.0]


def walker() -> bpy.types.Object:
    obj = demo_character.make_character(demo_character.WALKER, demo_character.WALK_FRAMES)
    bpy.context.scene.render.fps = 24
    return obj


_filmed: dict[tuple[float, float], tuple[list[np.ndarray], bytes]] = {}


def film(obj: bpy.types.Object, folder: Path, azimuth: float, pitch: float) -> tuple[list[np.ndarray], Clip]:
    """The masks of the subject, and the video; rendered once for each side."""
    key, path = (azimuth, pitch), folder / "walk.mp4"
    if key not in _filmed:
        _filmed[key] = _film(obj, folder, azimuth, pitch), path.read_bytes()
    masks, video = _filmed[key]
    path.write_bytes(video)
    return masks, Clip(str(path))


def _film(obj: bpy.types.Object, folder: Path, azimuth: float, pitch: float) -> list[np.ndarray]:
    """Writes walk.mp4: the subject crosses the image and becomes half as large again."""
    scene = bpy.context.scene
    lens = bpy.data.cameras.new("true")
    camera = bpy.data.objects.new("true", lens)
    scene.collection.objects.link(camera)
    before = scene.camera, scene.render.resolution_x, scene.render.resolution_y
    scene.camera, scene.render.resolution_x, scene.render.resolution_y, lens.angle = camera, WIDTH, HEIGHT, 0.5
    masks, images = [], []
    for index in range(FRAMES):
        near, aside = 7.2 - 2.4 * index / FRAMES, 0.35 - 0.7 * index / FRAMES
        place = Camera((aside, 0.3 * aside, 0.8), near, azimuth, pitch)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = place.rotation.T, place.position
        camera.matrix_world = Matrix(matrix.tolist())
        scene.frame_set(1 + 2 * index)
        image = shoot(folder)
        masks.append(image[..., 3] > 127)
        alpha = image[..., 3:] / 255
        images.append(np.rint(image[..., :3] * alpha + np.array(GREEN) * (1 - alpha)).astype(np.uint8))
    write_video(folder / "walk.mp4", images, 12.0)
    scene.camera, scene.render.resolution_x, scene.render.resolution_y = before
    bpy.data.objects.remove(camera)
    bpy.data.cameras.remove(lens)
    return masks


def take(obj: bpy.types.Object, masks: list[np.ndarray], clip: Clip, azimuth: float, start: int = 1) -> bpy.types.Text:
    """The truth, as if the network had found it, keyed on the armature and stored."""
    rig = rig_from_armature(obj)
    frames = [1.0 + 2 * index for index in range(FRAMES)]
    poses = actions.pose_frames(obj, obj.animation_data.action, rig.names, frames)
    heads = poses[:, :, :3, 3]
    motion = Motion(
        names=rig.names,
        times=np.arange(FRAMES) / 12.0,
        rotations=continuous(matrix_to_quaternion(rig.rotations(poses))),
        positions=heads - heads[:, :1],
        boxes=np.array([box_of(mask) for mask in masks]),
        confidence=np.ones((FRAMES, len(rig.names))),
        provenance={"azimuth": azimuth},
    )
    pose = pose_of(obj, rig)
    subject = run_capture.ArmatureInput(obj.session_uid, rig, pose, (azimuth,), ())
    view = Reference(pose, np.zeros((4, 4, 4), np.uint8), azimuth, np.eye(3, 4))
    params = CaptureParams(clip, Settings(model="tiny", device="cpu"))
    value = run_capture.CaptureRequest(params, (subject,), bpy.context.scene.session_uid, start)
    run_capture.write(value, [run_capture.CaptureResult(motion, view)])
    return take_store.stored()[0]


def filmed(
    folder: Path, azimuth: float = math.radians(50), pitch: float = 0.15
) -> tuple[bpy.types.Object, bpy.types.Text, list[np.ndarray]]:
    obj = walker()
    masks, clip = film(obj, folder, azimuth, pitch)
    return obj, take(obj, masks, clip, azimuth), masks


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / (first | second).sum())

"""The overlay: a camera that shows the rig over its video. A second click removes it and restores the scene."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)
from mathutils import Matrix

from ...backend.errors import UserError
from ..capture import take_store
from ..keying.animation_state import CHANNELS, Animation
from ..ui.operator_base import AnyRigOperator
from . import takes, viewport_state

if TYPE_CHECKING:
    from ...backend.geometry.fit_camera import CameraFit
    from ...backend.motion.take_file import Take

NAME = "AnyRig overlay"
POSE = "pose"  # key of the state: the channels of the armature's bones before it played the take
# types of objects that can hide the video; lights, cameras and armatures cannot
SOLID = {"MESH", "CURVE", "SURFACE", "META", "FONT", "CURVES", "POINTCLOUD", "VOLUME", "GPENCIL", "GREASEPENCIL"}
RENDER = ("resolution_x", "resolution_y", "resolution_percentage", "pixel_aspect_x", "pixel_aspect_y")


class ANYRIG_Hidden(bpy.types.PropertyGroup):
    obj: PointerProperty(type=bpy.types.Object)


class ANYRIG_Overlay(bpy.types.PropertyGroup):
    """The scene before the overlay, stored with it so that it can be restored after the file was saved and loaded."""

    on: BoolProperty()
    camera: PointerProperty(type=bpy.types.Object)
    had_camera: PointerProperty(type=bpy.types.Object)
    resolution: FloatVectorProperty(size=5)
    hidden: CollectionProperty(type=ANYRIG_Hidden)
    armature: PointerProperty(type=bpy.types.Object)
    had_action: PointerProperty(type=bpy.types.Action)
    had_slot: StringProperty()
    switched: BoolProperty()
    screen: StringProperty()
    area: IntProperty(default=-1)
    perspective: StringProperty()
    zoom: FloatProperty()
    offset: FloatVectorProperty(size=2)
    rotation: FloatVectorProperty(size=4)
    location: FloatVectorProperty(size=3)
    distance: FloatProperty()
    lock_camera: BoolProperty()
    use_local_camera: BoolProperty()


class ANYRIG_OT_overlay(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.overlay"
    bl_label = "Overlay on Footage"
    bl_description = "Show the rig over its video through a camera matched to the take; click again to restore the scene"
    bl_options = {"REGISTER", "UNDO"}

    elevation: FloatProperty(
        name="Elevation",
        description="Angle of the video's camera above the level of the subject; the capture does not find it",
        default=0.1,
        soft_min=-0.8,
        soft_max=1.2,
        subtype="ANGLE",
    )
    turn: FloatProperty(
        name="Turn",
        description="Turn the camera around the subject, if the side that the capture found is a little off",
        default=0.0,
        soft_min=-0.8,
        soft_max=0.8,
        subtype="ANGLE",
    )
    distance: FloatProperty(
        name="Distance",
        description="Distance of the video's camera in sizes of the subject; the nearer, the larger are near limbs",
        default=6.0,
        min=1.5,
        soft_max=30.0,
    )
    as_refined: BoolProperty(
        name="As Refined",
        description="See a refined take as refining has laid it on the video: no Elevation, Turn or Distance is needed then",
        default=True,
    )
    hide_others: BoolProperty(
        name="Hide Other Objects", description="Hide objects that could hide the rig or its video", default=True
    )

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        found = context.scene.anyrig_overlay.on or takes.selected(context)
        return super().obstacle(context) or ("" if found else takes.NO_TAKE)

    def run(self, context: bpy.types.Context) -> str:
        if context.scene.anyrig_overlay.on:
            remove_overlay(context)
        else:
            aim = (self.turn, self.elevation, self.distance)
            show_overlay(context, takes.selected(context), aim, self.hide_others, self.as_refined)
        return ""


def show_overlay(
    context: bpy.types.Context,
    text: bpy.types.Text | None,
    aim: tuple[float, float, float],
    hide_others: bool,
    as_refined: bool = True,
) -> None:
    """Set up the overlay of a take. aim: turn and elevation in radians, distance in radii of the subject (CameraGuess).

    as_refined: see a refined take through the camera of the fit, whatever the aim.

    Raises UserError, and changes nothing: no take, its video, armature or action is missing, or the armature cannot be written.
    """
    from ..rig.meshes import meshes_of
    from . import footage_camera

    if text is None:
        raise UserError("There is no take in this file: capture one.")
    raw = footage_camera.relocate_video(take_store.read(text), context.scene.anyrig.video)
    size, first = footage_camera.video_size(raw.clip)
    obj, fps = takes.target_of(context, text, raw.rig.names), take_store.about(text)["fps"]
    match = footage_camera.camera_of_fit if as_refined else footage_camera.match_camera
    with takes.showing(obj, text):
        view = match(obj, raw, size, fps, footage_camera.CameraGuess(*aim))
    camera = _make_camera(raw, view, fps, first)
    state = context.scene.anyrig_overlay
    _show_take(state, obj, text)
    context.scene.collection.objects.link(camera)
    _note(state, context.scene, camera)
    context.scene.camera = camera
    render = context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = *size, 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    if hide_others:
        _hide_others(state, context, {obj, camera, *meshes_of(obj)})
    viewport_state.look_through_camera(state, context)
    state.on = True


def remove_overlay(context: bpy.types.Context) -> None:
    """Restore what `show_overlay` changed, and remove what it made, except what was deleted meanwhile.

    Raises UserError, and changes nothing, if the armature cannot play its action again.
    """
    scene, state = context.scene, context.scene.anyrig_overlay
    if state.switched and state.armature is not None:
        _play_as_before(state)
    viewport_state.ViewportState.of(state).restore()
    for item in state.hidden:
        if item.obj is not None and item.obj.name in context.view_layer.objects:
            item.obj.hide_set(False)
    for name, value in zip(RENDER, state.resolution, strict=True):
        setattr(scene.render, name, value if name.startswith("pixel") else round(value))
    had = state.had_camera
    scene.camera = had if had is not None and had.users_scene else None
    camera = state.camera
    _forget(state)
    if camera is not None:
        _remove(camera)


def _forget(state: ANYRIG_Overlay) -> None:
    for name in state.bl_rna.properties.keys():
        if name not in ("rna_type", "name"):
            state.property_unset(name)
    state.hidden.clear()
    state.pop(POSE, None)


def _show_take(state: ANYRIG_Overlay, obj: bpy.types.Object, text: bpy.types.Text) -> None:
    if take_store.plays(obj, take_store.action_of(text)):
        return
    before = Animation.of(obj)
    takes.show(obj, text)
    state.armature, state.switched, state.had_action = obj, True, before.action
    state.had_slot = before.slot.identifier if before.slot else ""
    state[POSE] = {name: values.tolist() for name, values in before.channels.items()}


def _play_as_before(state: ANYRIG_Overlay) -> None:
    """Restore the action that the armature played, and its pose, of which an action may set only a part."""
    obj = state.armature
    takes.assign(obj, state.had_action)
    if state.had_action is not None and state.had_slot and state.had_slot in state.had_action.slots:
        obj.animation_data.action_slot = state.had_action.slots[state.had_slot]
    for name, values in state.get(POSE, {}).items():
        if len(values) == CHANNELS[name] * len(obj.pose.bones):
            obj.pose.bones.foreach_set(name, values)
    obj.update_tag()


def _note(state: ANYRIG_Overlay, scene: bpy.types.Scene, camera: bpy.types.Object) -> None:
    state.camera, state.had_camera = camera, scene.camera
    state.resolution = [getattr(scene.render, name) for name in RENDER]


# ---- the camera and its video


def _make_camera(raw: Take, view: CameraFit, fps: float, first: int) -> bpy.types.Object:
    """A camera with the video in its background. first: the file's frame, from 0, that the take begins with."""
    lens = bpy.data.cameras.new(NAME)
    camera = bpy.data.objects.new(NAME, lens)
    lens.clip_start, lens.clip_end = view.distance.min() * 1e-2, view.distance.max() * 1e2
    frames = whole_frames(raw, fps)
    seconds = (frames - raw.start_frame) / fps
    try:
        _key_camera(camera, view, frames, seconds)
        _add_background(lens, raw, frames, seconds, first)
    except RuntimeError as error:  # Blender cannot load the file
        _remove(camera)
        raise UserError(
            f"Blender cannot load '{raw.clip.path}' ({str(error).strip()}): convert it to H.264 in an mp4 file."
        ) from error
    return camera


def whole_frames(raw: Take, fps: float) -> np.ndarray:
    """The scene frames that the take has keys on."""
    from ..keying.write_action import whole_frames as covered

    return covered(raw.motion.times, raw.start_frame, fps).astype(int)


def _key_camera(camera: bpy.types.Object, view: CameraFit, frames: np.ndarray, seconds: np.ndarray) -> None:
    """Key the view's position and shift on every frame.

    The rows of `rotation` are the camera's axes in the world, which are those of Blender's camera object. Blender's image of a
    point at x right and y up of the axis, at depth d: with S the longer side in pixels, l the lens and w the sensor,
    u = W/2 + S (l/w x/d - shift_x) and v = H/2 - S (l/w y/d - shift_y). The view's is u = W/2 + f x/d + t_x and
    v = H/2 - f y/d + t_y. So l = w f / S, shift_x = -t_x / S, shift_y = t_y / S.
    """
    lens, longer = camera.data, max(view.width, view.height)
    camera.rotation_euler = Matrix(view.rotation.T.tolist()).to_euler()
    lens.sensor_fit, lens.lens = "AUTO", lens.sensor_width * view.focal / longer
    for frame, position, shift in zip(frames, *view.at(seconds), strict=True):
        camera.location = position
        lens.shift_x, lens.shift_y = -shift[0] / longer, shift[1] / longer
        camera.keyframe_insert("location", frame=int(frame))
        for path in ("shift_x", "shift_y"):
            lens.keyframe_insert(path, frame=int(frame))


def _add_background(lens: bpy.types.Camera, raw: Take, frames: np.ndarray, seconds: np.ndarray, first: int) -> None:
    """Show the video behind the rig, with its own frame at every scene frame.

    A movie clip plays one frame of the video per scene frame, whatever the two rates are. An image has an offset that can be keyed:
    at scene frame F it shows number F - frame_start + 1 + frame_offset. So a trimmed, slowed or unevenly timed video is shown as it
    was captured.
    """
    from ...backend.video.reader import image_files

    files = image_files(raw.clip)
    image = bpy.data.images.load(str(files[0] if files else Path(raw.clip.path)), check_existing=False)
    image.name, image.source = NAME, "SEQUENCE" if files else "MOVIE"
    back = lens.background_images.new()
    back.image, back.alpha, back.display_depth, back.frame_method = image, 1.0, "BACK", "STRETCH"
    back.use_flip_x = bool(getattr(raw.clip, "mirror", False))
    lens.show_background_images = True
    user = back.image_user
    user.use_auto_refresh, user.frame_start, user.frame_duration = True, int(frames[0]), len(frames)
    shown = video_frame_numbers(raw, seconds, first, [video_frame_at(file) for file in files])
    for frame, number in zip(frames, shown, strict=True):
        user.frame_offset = int(number - (frame - frames[0] + 1))
        lens.keyframe_insert("background_images[0].image_user.frame_offset", frame=int(frame))


def video_frame_numbers(raw: Take, seconds: np.ndarray, first: int, numbers: list[int]) -> np.ndarray:
    """The video's frame to show at each time: video files count from 1, image sequences have their own `numbers`."""
    times = raw.motion.times
    nearest = np.abs(times[None] - seconds[:, None]).argmin(1) + first
    return np.array(numbers)[np.minimum(nearest, len(numbers) - 1)] if numbers else nearest + 1


def video_frame_at(file: Path) -> int:
    found = re.search(r"\d+(?=\D*$)", file.stem)
    return int(found.group()) if found else 1


def _remove(camera: bpy.types.Object) -> None:
    lens = camera.data
    actions = [data.animation_data.action for data in (camera, lens) if data.animation_data and data.animation_data.action]
    images = [back.image for back in lens.background_images if back.image is not None]
    bpy.data.objects.remove(camera)
    bpy.data.cameras.remove(lens)
    bpy.data.batch_remove([item for item in (*images, *actions) if item.users == 0])


# ---- other objects of the scene


def _hide_others(state: ANYRIG_Overlay, context: bpy.types.Context, kept: set[bpy.types.Object]) -> None:
    for obj in context.view_layer.objects:
        solid = obj.type in SOLID or (obj.type == "EMPTY" and obj.instance_type == "COLLECTION")
        if solid and obj not in kept and not obj.hide_get():
            obj.hide_set(True)
            state.hidden.add().obj = obj


CLASSES = (ANYRIG_Hidden, ANYRIG_Overlay, ANYRIG_OT_overlay)


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.anyrig_overlay = PointerProperty(type=ANYRIG_Overlay)


def unregister() -> None:
    del bpy.types.Scene.anyrig_overlay
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)

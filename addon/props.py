"""What the panel edits, kept with the scene, and the plain parameters that a capture is started with."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from dataclasses import dataclass

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty, PointerProperty, StringProperty

from ..backend.clip import Clip, Settings
from ..backend.errors import UserError
from . import prefs


@dataclass(frozen=True)
class CaptureParams:
    """All that a capture needs beside the armatures.

    reference_frame: scene frame of the reference pose, None = the pose as it stands. azimuth: radians, None = the best of all
    sides. start_frame: scene frame of the first key, None = the current frame. engine: what draws the reference views.
    """

    clip: Clip
    settings: Settings
    reference_frame: int | None = None
    azimuth: float | None = None
    start_frame: int | None = None
    engine: str = prefs.WORKBENCH


def params_from_context(context: bpy.types.Context) -> CaptureParams:
    """What the panel says. Raises UserError if no video is chosen, or a value is not allowed."""
    props = context.scene.anyrig
    if not props.video:
        raise UserError("No video is chosen: pick one in the AnyRig panel.")
    clip = Clip(bpy.path.abspath(props.video), start=props.trim_start, end=props.trim_end or None)
    model = bpy.path.abspath(props.model_file) if props.model == "FILE" else props.model
    if not model:
        raise UserError("No weights file is chosen: pick one in the AnyRig panel or choose another model.")
    device = prefs.default_device(context) if props.device == "DEFAULT" else props.device
    return CaptureParams(
        clip=clip,
        settings=Settings(model=model, device=device, heading=props.heading.lower()),
        reference_frame=props.reference_frame if props.reference == "FRAME" else None,
        azimuth=props.azimuth if props.view == "AZIMUTH" else None,
        start_frame=props.start_frame if props.start == "FRAME" else None,
        engine=prefs.engine(context),
    )


def armature_from_context(context: bpy.types.Context) -> bpy.types.Object | None:
    """The picked armature, else the active one, else the one that deforms the active mesh."""
    # `blender -b FILE --command` has no window, and context.object belongs to one
    picked, active = context.scene.anyrig.armature, context.view_layer.objects.active
    if picked is not None:
        return picked
    if active is None:
        return None
    return active if active.type == "ARMATURE" else active.find_armature()


def armatures_from_context(context: bpy.types.Context) -> list[bpy.types.Object]:
    """All armatures that a capture is for: the picked one, else the selected ones, else the active one.

    A selected mesh stands for the armature that deforms it. The active one comes first.
    """
    picked, active = context.scene.anyrig.armature, armature_from_context(context)
    selected = [] if picked is not None else [obj for obj in context.view_layer.objects if obj.select_get()]
    found = [obj if obj.type == "ARMATURE" else obj.find_armature() for obj in selected]
    if not any(found):
        return [] if active is None else [active]
    first = [active] if active in found else []
    return [obj for obj in dict.fromkeys([*first, *found]) if obj is not None]


def _is_armature(_props: ANYRIG_Props, obj: bpy.types.Object) -> bool:
    return obj.type == "ARMATURE"


def _describe_video(props: ANYRIG_Props, _context: bpy.types.Context) -> None:
    """Read the length and rate once, when the path changes; drawing must not open files."""
    props.video_text = describe_video(bpy.path.abspath(props.video)) if props.video else ""


def describe_video(path: str) -> str:
    """One line for the panel: length, rate and size of a video, or what is wrong with it."""
    try:
        from ..backend.video import probe

        info = probe(Clip(path))
    except UserError as error:
        return str(error)
    except ImportError:
        return "OpenCV is missing: install the AnyRig zip made for this system."
    return f"{info.duration:.2f} s, {info.frames} frames at {info.fps:.4g} fps, {info.width} x {info.height}"


class ANYRIG_Props(bpy.types.PropertyGroup):
    armature: PointerProperty(
        name="Armature",
        description="The rig to animate; all selected armatures if empty",
        type=bpy.types.Object,
        poll=_is_armature,
    )
    video: StringProperty(
        name="Video",
        description="A video file, or one picture of a numbered sequence",
        subtype="FILE_PATH",
        update=_describe_video,
    )
    video_text: StringProperty(name="Length and rate")
    trim_start: FloatProperty(name="Trim Start", description="Seconds into the video", min=0.0, subtype="TIME_ABSOLUTE")
    trim_end: FloatProperty(name="End", description="Seconds into the video; 0 is its end", min=0.0, subtype="TIME_ABSOLUTE")
    reference: EnumProperty(
        name="Reference",
        description="The pose that shows the network what the rig looks like",
        items=(
            ("CURRENT", "Current Pose", "The pose as it stands, keyed or not"),
            ("FRAME", "Frame", "The pose at a frame of the scene"),
        ),
    )
    reference_frame: IntProperty(name="Frame", description="Frame of the reference pose", default=1)
    view: EnumProperty(
        name="View",
        description="The side from which the video sees the subject in the reference pose",
        items=(
            ("AUTO", "Automatic", "The side that looks most like the video"),
            ("AZIMUTH", "Angle", "A side of your choice"),
        ),
    )
    azimuth: FloatProperty(
        name="Angle",
        description="0 is Blender's front view, 90 degrees looks from +X",
        subtype="ANGLE",
        soft_min=-3.141593,
        soft_max=3.141593,
    )
    heading: EnumProperty(
        name="Heading",
        description="Which way the character faces",
        items=(
            ("RIG", "As Reference", "On average as in the reference pose; turns within the take are kept"),
            ("VIEW", "As Seen", "As seen in the video by a camera on the chosen side"),
        ),
    )
    model: EnumProperty(
        name="Model",
        items=(
            ("lite", "Lite", "Comes with the add-on; works offline, on any device"),
            ("release", "Released V2", "The public weights of video2pose2rot: a download of 2.6 GB, best on a graphics card"),
            ("FILE", "File", "Weights from a file of your own"),
        ),
    )
    model_file: StringProperty(name="Weights", description="A .safetensors file", subtype="FILE_PATH")
    device: EnumProperty(
        name="Device",
        items=(("DEFAULT", "Preferences", "The device chosen in the add-on's preferences"), *prefs.DEVICES),
    )
    start: EnumProperty(
        name="Start",
        description="Where the first key goes",
        items=(("CURRENT", "Current Frame", "The scene's current frame"), ("FRAME", "Frame", "A frame of your choice")),
    )
    start_frame: IntProperty(name="Frame", description="Frame of the first key", default=1)


def register() -> None:
    bpy.utils.register_class(ANYRIG_Props)
    bpy.types.Scene.anyrig = PointerProperty(type=ANYRIG_Props)


def unregister() -> None:
    del bpy.types.Scene.anyrig
    bpy.utils.unregister_class(ANYRIG_Props)

"""The settings of the panel, stored with the scene."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import bpy
from bpy.props import (
    BoolProperty,
    EnumProperty,
    FloatProperty,
    IntProperty,
    IntVectorProperty,
    PointerProperty,
    StringProperty,
)

from ...backend.errors import UserError, missing_library
from ...backend.video.clip import Clip
from ..keying.nla import ACTION, STRIP
from ..rig.keyed_bones import COLLECTION, DEFORM, SELECTED
from . import preference_values, view_sides


def _is_armature(_props: ANYRIG_Props, obj: bpy.types.Object) -> bool:
    return obj.type == "ARMATURE"


def _describe_video(props: ANYRIG_Props, _context: bpy.types.Context) -> None:
    """Read the length and rate when the path or rate changes, since drawing must not open files."""
    props.video_text, props.video_fix = "", ""
    props.video_frames, props.video_fps, props.video_size = 0, 0.0, (0, 0)
    if not props.video:
        return
    try:
        from ...backend.video.image_sequence import is_sequence
        from ...backend.video.reader import probe

        path = bpy.path.abspath(props.video)
        props.video_is_sequence = is_sequence(path)
        info = probe(Clip(path, fps=props.fps or None))
    except UserError as error:
        props.video_text, props.video_fix = str(error), error.fix
    except ImportError as error:
        props.video_text = str(missing_library(error, "OpenCV"))
    else:
        props.video_frames, props.video_fps, props.video_size = info.frames, info.fps, (info.width, info.height)
        props.video_text = f"{info.duration:.2f} s, {info.frames} frames at {info.fps:.4g} fps, {info.width} x {info.height}"


def frames_to_read(props: ANYRIG_Props) -> int:
    """The number of video frames within the trim range; 0 without a video."""
    if not props.video_frames:
        return 0
    duration = props.video_frames / props.video_fps
    seconds = min(props.trim_end or duration, duration) - props.trim_start
    return max(0, round(seconds * props.video_fps))


class ANYRIG_Props(bpy.types.PropertyGroup):
    armature: PointerProperty(
        name="Armature",
        description="Rig to animate; all selected armatures if empty",
        type=bpy.types.Object,
        poll=_is_armature,
    )
    bones: EnumProperty(
        name="Bones",
        description="Which bones get keys",
        items=(
            (DEFORM, "Deform", "All bones that move a mesh, and their parents"),
            (SELECTED, "Selected", "Only the bones selected in pose mode; the others keep their pose"),
            (COLLECTION, "Collection", "Only the bones of a bone collection; the others keep their pose"),
        ),
    )
    collection: StringProperty(name="Collection", description="Bone collection whose bones get keys")
    video: StringProperty(
        name="Video",
        description="A video file, or one image of a numbered sequence",
        subtype="FILE_PATH",
        update=_describe_video,
    )
    video_text: StringProperty(
        name="Length and Rate", description="Length and frame rate of the video, or the reason why it cannot be read"
    )
    video_fix: StringProperty(options={"HIDDEN"})
    video_frames: IntProperty(options={"HIDDEN"})
    video_fps: FloatProperty(options={"HIDDEN"})
    video_size: IntVectorProperty(size=2, options={"HIDDEN"})
    video_is_sequence: BoolProperty(options={"HIDDEN"})
    speed: FloatProperty(
        name="Speed Factor",
        description="How many times faster the real motion was, for example 4 for slow motion at a quarter of the speed",
        default=1.0,
        min=0.01,
        max=100.0,
        soft_min=0.1,
        soft_max=10.0,
    )
    mirror: BoolProperty(name="Mirrored Footage", description="Swap left and right back in a mirrored video, such as a selfie")
    fps: FloatProperty(
        name="Frame Rate",
        description="Frames per second of the video; 0 for the file's own rate, or 24 for an image sequence",
        min=0.0,
        max=1000.0,
        update=_describe_video,
    )
    use_box: BoolProperty(
        name="Subject Box",
        description="Mark the subject on one frame. Useful when several people or animals are visible",
    )
    box: IntVectorProperty(
        name="Box",
        description="Left, top, right and bottom of the subject, in pixels from the top left",
        size=4,
        default=(0, 0, 100, 100),
    )
    box_time: FloatProperty(
        name="Box Time",
        description="The frame that the box is drawn on, in seconds of the video; 0 for the first frame of the trim range",
        min=0.0,
        subtype="TIME_ABSOLUTE",
    )
    matte: StringProperty(
        name="Matte",
        description="A video, or one image of a numbered sequence, with the subject in white; empty to find the subject",
        subtype="FILE_PATH",
    )
    trim_start: FloatProperty(
        name="Trim Start", description="Start of the range to capture, in seconds of the video", min=0.0, subtype="TIME_ABSOLUTE"
    )
    trim_end: FloatProperty(
        name="End",
        description="End of the range to capture, in seconds of the video; 0 for its end",
        min=0.0,
        subtype="TIME_ABSOLUTE",
    )
    reference: EnumProperty(
        name="Reference",
        description="Pose that shows the network what the rig looks like",
        items=(
            ("CURRENT", "Current Pose", "The pose that the rig has now, keyed or not"),
            ("FRAME", "Frame", "The pose at a frame of the scene"),
        ),
    )
    reference_frame: IntProperty(name="Frame", description="Frame of the reference pose", default=1)
    view: EnumProperty(
        name="View",
        description="Side from which the video shows the subject in the reference pose",
        items=(
            ("AUTO", "Automatic", "The side that looks most like the video"),
            ("SIDE", "Image", "Choose among images of the rig"),
            ("AZIMUTH", "Angle", "Any side, by its angle"),
        ),
    )
    side: EnumProperty(name="Side", description="Side from which the video shows the subject", items=view_sides.items)
    azimuth: FloatProperty(
        name="Angle",
        description="0 is Blender's front view, 90 degrees looks from +X",
        subtype="ANGLE",
        soft_min=-3.141593,
        soft_max=3.141593,
    )
    heading: EnumProperty(
        name="Heading",
        description="Direction that the character faces",
        items=(
            ("RIG", "As Reference", "On average as in the reference pose; the take keeps its turns"),
            ("VIEW", "As Seen", "As seen in the video by a camera on the chosen side"),
        ),
    )
    model: EnumProperty(
        name="Model",
        description="Weights of the network",
        items=(
            ("lite", "Lite", "Comes with the add-on; works offline, on any device"),
            ("release", "Released V2", "The public weights of video2pose2rot: a download of 2.6 GB, best on a graphics card"),
            ("FILE", "File", "Weights from a file of your own"),
        ),
    )
    model_file: StringProperty(name="Weights", description="A .safetensors file", subtype="FILE_PATH")
    refine: EnumProperty(
        name="Refine",
        description="Fit the take to the subject's silhouette and movement in the video after the capture; the raw take is kept with it",
        items=(
            ("AUTO", "Automatic", "Quick for Lite, off for other models"),
            ("OFF", "Off", "The take as the network leaves it"),
            ("QUICK", "Quick", "Seconds for a short video"),
            ("THOROUGH", "Thorough", "Takes longer"),
        ),
    )
    device: EnumProperty(
        name="Device",
        description="Device that the network runs on",
        items=(("DEFAULT", "Preferences", "The device chosen in the add-on's preferences"), *preference_values.DEVICES),
    )
    start: EnumProperty(
        name="Start",
        description="Frame of the first key",
        items=(("CURRENT", "Current Frame", "The scene's current frame"), ("FRAME", "Frame", "A frame of your choice")),
    )
    start_frame: IntProperty(name="Frame", description="Frame of the first key", default=1)
    output: EnumProperty(
        name="Keys As",
        description="Where the new action goes; the earlier one stays in the file",
        items=(
            (ACTION, "Action", "The armature's action in use"),
            (STRIP, "NLA Strip", "A strip on a new track on top; an action in use is pushed down onto a track below it"),
        ),
    )
    extend_range: BoolProperty(name="Extend Scene Range", description="Extend the scene's frame range to the whole take")


def register() -> None:
    bpy.utils.register_class(ANYRIG_Props)
    bpy.types.Scene.anyrig = PointerProperty(type=ANYRIG_Props)


def unregister() -> None:
    del bpy.types.Scene.anyrig
    bpy.utils.unregister_class(ANYRIG_Props)

"""The plain values that a capture starts from, read from the scene's properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bpy

from ...backend.capture_settings import Settings
from ...backend.errors import UserError
from ...backend.video.clip import Clip
from ..keying.nla import ACTION, STRIP
from ..rendering import engines
from ..rig.keyed_bones import COLLECTION, DEFORM, SELECTED
from . import preference_values, view_sides

if TYPE_CHECKING:
    from .scene_properties import ANYRIG_Props


@dataclass(frozen=True)
class CaptureParams:
    """The settings of a capture, all but its armatures.

    reference_frame: scene frame of the reference pose, None = the current pose. azimuth: radians, None = the best of all sides.
    start_frame: scene frame of the first key, None = the current frame. engine: renders the reference views. bones: DEFORM,
    SELECTED or COLLECTION (keyed_bones.chosen_bones), with the bone collection `collection`. output: ACTION or STRIP (keying/nla.py).
    extend_range: whether to extend the scene's frame range to the take. keep_bones: names of bones that stay where the armature has
    them, beside those that the scene stores (kept_bones.py).
    """

    clip: Clip
    settings: Settings
    reference_frame: int | None = None
    azimuth: float | None = None
    start_frame: int | None = None
    engine: str = engines.WORKBENCH
    bones: str = DEFORM
    collection: str = ""
    output: str = ACTION
    extend_range: bool = False
    keep_bones: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for key, known in (("bones", (DEFORM, SELECTED, COLLECTION)), ("output", (ACTION, STRIP))):
            if getattr(self, key) not in known:
                raise UserError(f"Unknown {key} '{getattr(self, key)}': choose one of {', '.join(known)}.")


def params_from_context(context: bpy.types.Context, *, video: str = "") -> CaptureParams:
    """The settings of the panel, with another `video` if one is given. Raises UserError if none is chosen, or a value is not allowed."""
    props = context.scene.anyrig
    clip = clip_from_props(props, video)
    model = bpy.path.abspath(props.model_file) if props.model == "FILE" else props.model
    if not model:
        raise UserError("No weights file is chosen: pick one in the AnyRig panel or choose another model.", fix="use_lite")
    return CaptureParams(
        clip=clip,
        settings=Settings(
            model=model, device=device_from_context(context), heading=props.heading.lower(), refine=props.refine.lower()
        ),
        reference_frame=props.reference_frame if props.reference == "FRAME" else None,
        azimuth=azimuth_from_props(props),
        engine=preference_values.engine(context),
        bones=props.bones,
        collection=props.collection,
        **output_from_props(props),
    )


def device_from_context(context: bpy.types.Context) -> str:
    """The panel's device, which may be that of the preferences."""
    device = context.scene.anyrig.device
    return preference_values.default_device(context) if device == "DEFAULT" else device


def output_from_props(props: ANYRIG_Props) -> dict[str, Any]:
    """The settings under Output, as fields of `CaptureParams`."""
    start = props.start_frame if props.start == "FRAME" else None
    return {"start_frame": start, "output": props.output, "extend_range": props.extend_range}


def clip_from_props(props: ANYRIG_Props, video: str = "", with_box: bool = True) -> Clip:
    """The panel's video with its settings, the subject box among them if `with_box`.

    Raises UserError if none is chosen, or a value is not allowed.
    """
    video = video or props.video
    if not video:
        raise UserError("No video is chosen: pick one in the AnyRig panel.", fix="choose_video")
    return Clip(
        bpy.path.abspath(video),
        start=props.trim_start,
        end=props.trim_end or None,
        speed=props.speed,
        fps=props.fps or None,
        box=box_of(props.box) if with_box and props.use_box else None,
        box_time=(props.box_time or None) if with_box and props.use_box else None,
        matte=bpy.path.abspath(props.matte) or None,
        mirror=props.mirror,
    )


def box_of(numbers: Sequence[int]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = map(float, numbers)
    return x0, y0, x1, y1


def azimuth_from_props(props: ANYRIG_Props) -> float | None:
    """The panel's side in radians; None for the best of all sides."""
    if props.view == "SIDE":
        return view_sides.azimuth_of(props.side)
    return props.azimuth if props.view == "AZIMUTH" else None

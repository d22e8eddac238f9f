"""The options of `anyrig capture`, all that the panel offers. They are stored under the keys of a jobs file."""

from __future__ import annotations

import argparse

import bpy

from ..batch import jobs_file
from ..rendering import engines
from ..settings import preference_values
from ..settings.capture_params import CaptureParams


def add_options(parser: argparse.ArgumentParser) -> None:
    """All but --video, --armature and what is saved."""
    _add_rig(parser.add_argument_group("rig"))
    _add_video(parser.add_argument_group("video"))
    keys = parser.add_argument_group("keys")
    keys.add_argument("--start-frame", type=int, metavar="N", help="frame of the first key (default: the current frame)")
    keys.add_argument("--nla", action="store_true", help="as a strip on a new NLA track instead of the action in use")
    keys.add_argument("--extend-range", action="store_true", help="let the scene's frame range grow to show the whole take")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="M", help="lite, release, or a weights file (default: lite)")
    model.add_argument("--device", metavar="D", help="auto, cuda, mps or cpu (default: as in the preferences)")


def _add_rig(rig: argparse._ArgumentGroup) -> None:
    rig.add_argument(
        "--bones",
        metavar="deform|selected|collection:NAME",
        help="which bones get keys (default: deform, all that move a mesh)",
    )
    rig.add_argument("--reference", type=int, metavar="FRAME", help="frame of the reference pose (default: the pose as saved)")
    rig.add_argument(
        "--azimuth",
        dest="view",
        type=float,
        metavar="DEGREES",
        help="side of the view: 0 is Blender's front, 90 from +X (default: found)",
    )
    rig.add_argument("--heading", choices=("rig", "view"), help="face as the reference does, or as seen (default: rig)")
    rig.add_argument("--engine", choices=tuple(engines.ENGINES), help="what draws the rig (default: as in the preferences)")


def _add_video(video: argparse._ArgumentGroup) -> None:
    video.add_argument("--trim", type=float, nargs=2, metavar=("A", "B"), help="seconds of the video to use")
    video.add_argument("--speed", type=float, metavar="X", help="how many times faster the motion really was (default: 1)")
    video.add_argument("--fps", type=float, metavar="F", help="frame rate, for sequences of images (default: the file's, or 24)")
    video.add_argument("--mirror", action="store_true", help="left and right are swapped in the video: swap them back")
    video.add_argument(
        "--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="pixels around the subject on the first frame used"
    )
    video.add_argument("--matte", metavar="V", help="a video or sequence that is white where the subject is (default: found)")


def params_from_options(context: bpy.types.Context, options: argparse.Namespace) -> CaptureParams:
    """The settings of the capture. Raises UserError for values that are not allowed."""
    known = jobs_file.keys()
    values = {key: value for key, value in vars(options).items() if key in known and value is not None}
    device, engine = preference_values.default_device(context), preference_values.engine(context)
    return jobs_file.params_of(values, device=device, engine=engine)

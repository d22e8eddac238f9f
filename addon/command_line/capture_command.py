"""`anyrig capture`: all that the panel offers, as options. They are stored under the keys of a jobs file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from ...backend.errors import UserError
from ...backend.output_checks import check_outputs, check_suffix
from ..batch import jobs_file
from ..import_export.export_take import bvh_paths
from ..rendering import engines
from ..rig.bone_warnings import warnings_of
from ..settings import preference_values
from ..settings.capture_params import CaptureParams
from ..settings.chosen_armatures import armature_from_context
from .console import ProgressLine, say, warn

if TYPE_CHECKING:
    from ..capture.run_capture import CaptureRequest, CaptureResult


REFINE = ("off", "quick", "thorough")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", required=True, metavar="V", help="a video, or one image of a numbered sequence")
    parser.add_argument(
        "--armature", action="append", default=[], metavar="NAME", help="repeat for several; default: the active one"
    )
    _add_rig(parser.add_argument_group("rig"))
    _add_video(parser.add_argument_group("video"))
    keys = parser.add_argument_group("keys")
    keys.add_argument("--start-frame", type=int, metavar="N", help="frame of the first key (default: the current frame)")
    keys.add_argument("--nla", action="store_true", help="write the keys to a strip on a new NLA track")
    keys.add_argument("--extend-range", action="store_true", help="extend the scene's frame range to the whole take")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="M", help="lite, release, or a weights file (default: lite)")
    add_refine(model)
    model.add_argument("--device", metavar="D", help="auto, cuda, mps or cpu (default: as in the preferences)")
    parser.add_argument("--out", metavar="FILE.blend", help="save a copy of the file with the keys")
    parser.add_argument("--bvh", metavar="OUT.bvh", help="write the motion as BVH; several armatures: OUT-NAME.bvh")


def _add_rig(rig: argparse._ArgumentGroup) -> None:
    rig.add_argument(
        "--bones",
        metavar="deform|selected|collection:NAME",
        help="bones that get keys (default: deform, all that move a mesh)",
    )
    add_keep_bone(rig)
    rig.add_argument("--reference", type=int, metavar="FRAME", help="frame of the reference pose (default: the current pose)")
    rig.add_argument(
        "--azimuth",
        dest="view",
        type=float,
        metavar="DEGREES",
        help="side of the view: 0 is Blender's front, 90 from +X (default: automatic)",
    )
    rig.add_argument(
        "--heading", choices=("rig", "view"), help="face as in the reference pose, or as in the video (default: rig)"
    )
    rig.add_argument(
        "--engine", choices=tuple(engines.ENGINES), help="engine that renders the rig (default: as in the preferences)"
    )


def add_keep_bone(group: argparse._ActionsContainer) -> None:
    """The option that leaves bones in place, under its key of a jobs file."""
    group.add_argument(
        "--keep-bone",
        dest="keep_bones",
        action="append",
        metavar="NAME",
        help="leave this bone where the armature has it, instead of hanging it on the bone its surface touches (repeatable)",
    )


def add_refine(group: argparse._ActionsContainer) -> None:
    """The option that says whether takes are laid on the film."""
    group.add_argument(
        "--refine", choices=REFINE, help="lay the take on the film (default: quick for lite, off for other models)"
    )


def _add_video(video: argparse._ArgumentGroup) -> None:
    video.add_argument("--trim", type=float, nargs=2, metavar=("A", "B"), help="seconds of the video to use")
    video.add_argument("--speed", type=float, metavar="X", help="how many times faster the real motion was (default: 1)")
    video.add_argument("--fps", type=float, metavar="F", help="frame rate, for sequences of images (default: the file's, or 24)")
    video.add_argument("--mirror", action="store_true", help="swap left and right back in a mirrored video")
    video.add_argument(
        "--box", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="pixels around the subject on one frame"
    )
    video.add_argument(
        "--box-time", type=float, metavar="T", help="second of the video that --box belongs to (default: the first frame used)"
    )
    video.add_argument("--matte", metavar="V", help="a video or sequence with the subject in white (default: found by AnyRig)")


def params_from_options(context: bpy.types.Context, options: argparse.Namespace) -> CaptureParams:
    """The settings of the capture. Raises UserError for values that are not allowed."""
    known = jobs_file.keys()
    values = {key: value for key, value in vars(options).items() if key in known and value is not None}
    device, engine = preference_values.default_device(context), preference_values.engine(context)
    return jobs_file.params_of(values, device=device, engine=engine)


def run(options: argparse.Namespace) -> int:
    """Exit code 0. Raises UserError."""
    from ..capture import run_capture

    objects, params = _armatures(bpy.context, options.armature), params_from_options(bpy.context, options)
    _check_outputs(options, [obj.name for obj in objects])
    line = ProgressLine()
    request, results, _ = run_capture.run_capture(bpy.context, objects, params, line.show)
    line.end()
    for subject, result in zip(request.subjects, results, strict=True):
        say(f"{subject.rig.name}: {len(result.motion)} frames of '{request.name}' keyed from frame {request.start_frame} on")
    for obj, subject in zip(objects, request.subjects, strict=True):
        keyed_feet = [name for name, moved in zip(subject.rig.names, subject.rig.hung) if moved]
        for sentence in warnings_of(obj, subject.rig.names, keyed_feet):
            warn(f"Warning: {sentence}")
    for note in results[0].motion.provenance.get("notes", ()):
        warn(note)
    _save(options, request, results)
    return 0


def _check_outputs(options: argparse.Namespace, armatures: Sequence[str]) -> None:
    """Raises UserError if a file cannot be written as asked, before the capture."""
    takes = bvh_paths(Path(options.bvh), armatures) if options.bvh else []
    check_outputs(options.out, *takes, inputs=(options.video, options.matte, options.model, bpy.data.filepath))
    check_suffix(options.out, ".blend")
    check_suffix(options.bvh, ".bvh")


def _armatures(context: bpy.types.Context, names: Sequence[str]) -> list[bpy.types.Object]:
    """The named armatures; without names the active one, else the only one in the scene."""
    known = {obj.name: obj for obj in context.scene.objects if obj.type == "ARMATURE"}
    listed = ", ".join(f"'{name}'" for name in known) or "none"
    for name in names:
        if name not in known:
            raise UserError(f"There is no armature '{name}' in scene '{context.scene.name}': it has {listed}.")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    found = armature_from_context(context) or (next(iter(known.values())) if len(known) == 1 else None)
    if found is None:
        raise UserError(f"No armature of scene '{context.scene.name}' is chosen ({listed}): name one with --armature NAME.")
    return [found]


def _save(options: argparse.Namespace, request: CaptureRequest, results: Sequence[CaptureResult]) -> None:
    if options.bvh:
        from ..import_export.export_take import bvh_files

        for path, write in bvh_files(Path(options.bvh), request, results):
            write(path)
    if options.out:
        save_copy(options.out)
    if not options.bvh and not options.out:
        warn("Nothing was saved: give --out FILE.blend or --bvh OUT.bvh.")


def save_copy(path: str) -> None:
    """Write the file, as it is now, to a path. Raises UserError."""
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(Path(path).absolute()), copy=True)
    except RuntimeError as error:
        raise UserError(f"File '{path}' cannot be written ({str(error).strip()}): choose another folder.") from error

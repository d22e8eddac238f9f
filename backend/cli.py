"""`python -m backend`: captures and downloads weights without Blender. The repository adds the commands of train/parsers.py."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .capture.inference import RigPrediction, motion_of
from .capture.pipeline import Stage1Result, capture, capture_positions, run_pose2rot
from .capture_settings import Settings
from .errors import NOT_NPZ, UserError
from .geometry.camera import side_azimuths
from .hardware.device_memory import releasing_device_memory
from .hardware.devices import pick_device
from .motion.bvh import read_bvh
from .motion.motion import Motion, with_joints_of
from .output_checks import check_outputs, check_suffix
from .progress import drained, size_text, staged
from .refine import refine_command
from .rendering.capsules import capsules
from .rendering.point_splatting import reference_views
from .rig.natural_rig import natural_rig
from .rig.rig import Rig, Target
from .rig.skeleton import skeleton_of
from .segmentation.subject_cache import find_kept_subject, subject_folder
from .segmentation.subject_folder import SHEET, write_subject
from .video.clip import Clip
from .video.reader import probe
from .weights.fetch import fetch_files, use_local_files
from .weights.model_file import load_model
from .weights.registry import TABLE, Folder, named, takes_natural_skeleton
from .whole_file import whole_file


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status: 0, or 1 with a sentence on stderr after an error of the user.

    argparse exits with 2 if the arguments are wrong.
    """
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"'{error.filename}' cannot be read or written ({error.strerror or error}): check the path.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend", description="Capture the motion of a video without Blender.")
    commands = parser.add_subparsers(required=True)
    _add_capture(commands.add_parser("capture", help="capture a video's motion for a rig as a take (npz)"))
    _add_subject(commands.add_parser("subject", help="find the subject of a video, and write its mattes as a folder of images"))
    _add_refine(commands.add_parser("refine", help="lay a stored take on its video again"))
    _add_weights(commands.add_parser("weights", help="list, download or remove the released weights"))
    if find_spec(f"{__package__}.train") is not None:  # left out of the zip
        from .train.parsers import add_commands

        add_commands(commands)
    return parser


def _add_capture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", help="video file, folder of images, or one image of a numbered sequence")
    parser.add_argument("--rig", required=True, help="rig file (.json or .bvh)")
    parser.add_argument("--reference", default="rest", help="rest, or a frame number of the BVH file's motion (default: rest)")
    parser.add_argument("--model", default="lite", help="lite, release, tiny, or a model file (default: lite)")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    _add_clip(parser)
    parser.add_argument(
        "--heading", default="rig", choices=("rig", "view"),
        help="rig: rotate the take to face as the reference pose does, on average; view: trust the matched view (default: rig)",
    )  # fmt: skip
    parser.add_argument(
        "--refine", default="auto", choices=("auto", "off", "quick", "thorough"),
        help="fit the take to the subject's silhouette and the optical flow (default: auto, which is quick for lite and off for others)",
    )  # fmt: skip
    parser.add_argument("--stage", choices=("video2pose", "pose2rot"), help="run one stage alone")
    parser.add_argument("--positions", help="npz file from --stage video2pose, for --stage pose2rot")
    parser.add_argument("--out", required=True, type=Path, help="npz file to write")
    parser.add_argument("--bvh", type=Path, help="also write the take to this BVH file")
    refine_command.add_clean_up(parser)
    parser.set_defaults(run=_run_capture)


def _add_clip(parser: argparse.ArgumentParser) -> None:
    """Options that say which part of a video, and what in it."""
    parser.add_argument("--trim", nargs=2, type=float, metavar=("A", "B"), help="start and end of the part to use, in seconds")
    parser.add_argument(
        "--box", nargs=4, type=float, metavar=("X0", "Y0", "X1", "Y1"), help="box around the subject, in pixels from the top left"
    )
    parser.add_argument(
        "--box-time",
        type=float,
        metavar="T",
        help="the box belongs to the frame at T seconds (default: the first frame of the part)",
    )
    parser.add_argument(
        "--matte", metavar="PATH", help="video, folder or sequence of the subject's mattes, or a folder of `subject`"
    )
    parser.add_argument(
        "--isnet", default="", metavar="FILE", help="file of ISNet to use, or off for models of clear origin alone"
    )
    parser.add_argument(
        "--cache", default=str(subject_folder()), metavar="DIR",
        help="keeps found subjects here; '' for not at all (default: a folder in the user's data)",
    )  # fmt: skip


def _add_subject(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--video", required=True, help="video file, folder of images, or one image of a numbered sequence")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    _add_clip(parser)
    parser.add_argument("--out", required=True, type=Path, help="folder to write: 0000.png and on, subject.json, sheet.png")
    parser.set_defaults(run=_run_subject)


def _add_refine(parser: argparse.ArgumentParser) -> None:
    refine_command.add_arguments(parser)
    parser.set_defaults(run=lambda options: print(refine_command.run_refine(options)))


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--download", metavar="NAME", help="download one file of the list, or release for all missing ones")
    parser.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="use a file, or a folder of files, that you have already"
    )
    parser.add_argument("--remove", action="store_true", help="delete downloaded weights")
    parser.add_argument("--mirror", default="", metavar="URL", help="download from here instead of the hub")
    parser.add_argument(
        "--folder", default="", metavar="DIR", help="folder of the weights (default: $ANYRIG_WEIGHTS or the user's data)"
    )
    parser.set_defaults(run=_run_weights)


def _clip_of(options: argparse.Namespace) -> Clip:
    start, end = options.trim or (0.0, None)
    box = None if options.box is None else tuple(options.box)
    return Clip(options.video, start, end, box=box, box_time=options.box_time, matte=options.matte)


def _run_subject(options: argparse.Namespace) -> None:
    clip, device = _clip_of(options), pick_device(options.device)
    probe(clip)
    with releasing_device_memory():
        subject = drained(staged("Finding the subject", find_kept_subject(clip, device, options.isnet, options.cache)))
    drained(staged("Writing the mattes", write_subject(options.out, clip, subject)))
    if subject.note:
        print(subject.note, file=sys.stderr)
    for other in subject.others:
        box = " ".join(f"{value:.0f}" for value in other.box)
        print(f"This could be meant too: --box {box} --box-time {other.time:.2f}", file=sys.stderr)
    print(f"{options.out}: {len(subject.times)} mattes, found by {subject.source}; look at {options.out / SHEET}")


def _run_capture(options: argparse.Namespace) -> None:
    check_suffix(options.out, ".npz", "")
    check_suffix(options.bvh, ".bvh")
    inputs = (options.rig, options.video, options.matte, options.positions, options.model, options.isnet)
    check_outputs(options.out, options.bvh, inputs=inputs)
    own, poses = _load_rig(options.rig)
    natural = natural_rig(own)
    rig = natural if takes_natural_skeleton(options.model) else own  # what the network is shown
    if poses is not None:
        poses = poses[:, [own.names.index(name) for name in rig.names]]
    pose = _reference_pose(options.reference, rig, poses)
    settings = Settings(
        model=options.model,
        device=options.device,
        heading=options.heading,
        isnet=options.isnet,
        cache=options.cache,
        refine=options.refine,
    )
    if options.stage == "pose2rot":
        motion = _motion_from_positions(options.positions, rig, pose, settings)
    else:
        if not options.video:
            raise UserError("There is no video: give one with --video, or positions with --stage pose2rot --positions FILE.")
        clip = _clip_of(options)
        probe(clip)  # raises before the views are drawn, which takes seconds
        target = Target(rig, tuple(reference_views(rig, capsules(rig), pose, side_azimuths())), natural)
        if options.stage == "video2pose":
            _write_positions(options.out, drained(capture_positions([target], clip, settings)))
            return
        motion = drained(capture([target], clip, settings))[0]
    for note in motion.provenance.get("notes", ()):
        print(note, file=sys.stderr)
    motion = with_joints_of(motion, natural)
    for sentence in refine_command.save_cleaned(options, natural, motion):
        print(sentence, file=sys.stderr)


def _run_weights(options: argparse.Namespace) -> None:
    folder = Folder(options.folder)
    if options.remove:
        print(f"{size_text(folder.remove())} freed in {folder.path}")
    if options.source:
        drained(use_local_files(folder, options.source))
    if options.download:
        drained(fetch_files(folder, options.mirror, named(options.download)))
    print(f"in {folder.path}:")
    for item in TABLE:
        state = str(folder.file(item)) if folder.has(item) else "missing"
        print(f"{item.name:<18} {size_text(item.size):>8}  {item.licence:<28} {item.repo}/{item.file}: {state}")


def _load_rig(path: str) -> tuple[Rig, np.ndarray | None]:
    """The rig of a file, and the poses (F, J, 4, 4) of the file's motion if it has one."""
    if path.lower().endswith(".bvh"):
        rig, poses, _ = read_bvh(path)
        return rig, poses
    return Rig.load(path), None


def _reference_pose(choice: str, rig: Rig, poses: np.ndarray | None) -> np.ndarray:
    """(J, 4, 4) in armature space: the rest pose, or a frame of the rig file's motion. Raises UserError for another choice."""
    if choice == "rest":
        return np.array(rig.rest)
    if not choice.isdigit() or poses is None or int(choice) >= len(poses):
        known = "rest" if poses is None else f"rest, or a frame from 0 to {len(poses) - 1}"
        raise UserError(f"Rig '{rig.name}' has no reference '{choice}': give {known}.")
    return poses[int(choice)]


def _write_positions(path: Path, stage1: Stage1Result) -> None:
    """Write the result of stage 1 for one rig as npz.

    position: (T, K, 3) relative to the root, y up, in the frame of the chosen view's camera, rig units. times: (T,). names: (K,), leaf
    tips included. azimuth: of that camera. boxes: (T, 4) and confidence: (T,) of the subject.
    """
    prediction, subject = stage1.predictions[0], stage1.subject
    names = skeleton_of(prediction.rig, tips=prediction.position.shape[1] > len(prediction.rig.names)).names
    with whole_file(path) as part, part.open("wb") as file:  # numpy appends .npz to a name
        np.savez_compressed(
            file, position=prediction.position, times=subject.times, names=np.array(names), azimuth=prediction.azimuth,
            boxes=subject.boxes, confidence=subject.confidence,
        )  # fmt: skip


def _motion_from_positions(path: str | None, rig: Rig, pose: np.ndarray, settings: Settings) -> Motion:
    """Run stage 2 on a file of `_write_positions`. Raises UserError if it cannot be read or belongs to another rig."""
    if not path:
        raise UserError("There are no positions: give the file of --stage video2pose with --positions.")
    try:
        with np.load(path) as file:
            data = {key: file[key] for key in ("position", "times", "names", "azimuth", "boxes", "confidence")}
    except (*NOT_NPZ, OSError) as error:
        raise UserError(f"Positions '{path}' cannot be read ({error}): write them with --stage video2pose.") from error
    names = list(skeleton_of(rig, tips=len(data["names"]) > len(rig.names)).names)
    if names != data["names"].tolist():
        raise UserError(f"Positions '{path}' belong to another rig than '{rig.name}': write them again with this one.")
    azimuth = float(data["azimuth"])
    [reference] = reference_views(rig, capsules(rig), pose, [azimuth])
    model = load_model(settings.model, pick_device(settings.device), settings.weights)
    with releasing_device_memory():
        [prediction] = drained(run_pose2rot(model, [RigPrediction(rig, reference, data["position"], None, azimuth)]))
    return motion_of(prediction, data["times"], data["boxes"], data["confidence"], settings, {"positions": path})

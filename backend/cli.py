"""The command line of the backend: capture, and what train/parsers.py adds in the repository. Runs without Blender."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .capture.inference import RigPrediction, motion_of
from .capture.memory_plan import releasing_device_memory
from .capture.pipeline import Stage1Result, capture, capture_positions, run_pose2rot
from .capture_settings import Settings
from .errors import NOT_NPZ, UserError
from .geometry.camera import side_azimuths
from .hardware.devices import pick_device
from .motion.bvh import read_bvh, write_bvh
from .motion.motion import Motion
from .output_checks import check_outputs
from .progress import drained, size_text
from .rendering.capsules import capsules
from .rendering.point_splatting import reference_views
from .rig.rig import Rig, Target
from .rig.skeleton import skeleton_of
from .video.clip import Clip
from .video.reader import probe
from .weights.fetch import fetch_files, use_local_files
from .weights.model_file import load_model
from .weights.registry import TABLE, Folder, named


def main(arguments: Sequence[str]) -> int:
    """Run a command; 0 on success, 1 with a sentence on stderr after a user's error, 2 after a wrong command line."""
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
    parser = argparse.ArgumentParser(prog="python -m backend", description="Video to motion of a rig, without Blender.")
    commands = parser.add_subparsers(required=True)
    take = commands.add_parser("capture", help="video and rig to a take (npz), or one stage of it")
    take.add_argument("--video", help="video file, image folder, or one image of a numbered sequence")
    take.add_argument("--rig", required=True, help="a rig as .json or .bvh")
    take.add_argument("--reference", default="rest", help="rest, or a frame number of the BVH's own motion")
    take.add_argument("--model", default="lite", help="lite, release, tiny, or a model file")
    take.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    take.add_argument("--start", type=float, default=0.0, help="seconds")
    take.add_argument("--end", type=float, help="seconds")
    take.add_argument("--heading", default="rig", choices=("rig", "view"))
    take.add_argument("--stage", choices=("video2pose", "pose2rot"), help="run one stage alone")
    take.add_argument("--positions", help="with --stage pose2rot: the npz that --stage video2pose wrote")
    take.add_argument("--out", required=True, type=Path)
    take.add_argument("--bvh", type=Path, help="also write the take as BVH")
    take.set_defaults(run=_capture)
    weights = commands.add_parser("weights", help="list, download or remove the released weights")
    weights.add_argument("--download", metavar="NAME", help="release for all that is missing, or one name of the list")
    weights.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="use files that are there already: one, or a folder of them"
    )
    weights.add_argument("--remove", action="store_true", help="delete what was downloaded")
    weights.add_argument("--mirror", default="", metavar="URL", help="take the hub's place")
    weights.add_argument(
        "--folder", default="", metavar="DIR", help="where the weights lie (default: $ANYRIG_WEIGHTS or the user's data)"
    )
    weights.set_defaults(run=_weights)
    if find_spec(f"{__package__}.train") is not None:  # left out of the zip
        from .train.parsers import add_commands

        add_commands(commands)
    return parser


def _capture(options: argparse.Namespace) -> None:
    check_outputs(options.out, options.bvh)
    rig, poses = _load_rig(options.rig)
    pose = _reference_pose(options.reference, rig, poses)
    settings = Settings(model=options.model, device=options.device, heading=options.heading)
    if options.stage == "pose2rot":
        _pose2rot(options, rig, pose, settings)
        return
    if not options.video:
        raise UserError("There is no video: give one with --video, or positions with --stage pose2rot --positions FILE.")
    clip = Clip(options.video, options.start, options.end)
    probe(clip)  # raises before the views are drawn, which takes seconds
    target = Target(rig, tuple(reference_views(rig, capsules(rig), pose, side_azimuths())))
    if options.stage == "video2pose":
        _write_positions(options.out, drained(capture_positions([target], clip, settings)), settings)
        return
    _write(options, rig, drained(capture([target], clip, settings))[0])


def _weights(options: argparse.Namespace) -> None:
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


def _write(options: argparse.Namespace, rig: Rig, motion: Motion) -> None:
    motion.save(options.out)
    if options.bvh:
        write_bvh(options.bvh, rig, motion)


def _load_rig(path: str) -> tuple[Rig, np.ndarray | None]:
    """A rig, and the poses (F, J, 4, 4) of its own motion if the file has any."""
    if path.lower().endswith(".bvh"):
        rig, poses, _ = read_bvh(path)
        return rig, poses
    return Rig.load(path), None


def _reference_pose(choice: str, rig: Rig, poses: np.ndarray | None) -> np.ndarray:
    if choice == "rest":
        return np.array(rig.rest)
    if not choice.isdigit() or poses is None or int(choice) >= len(poses):
        known = "rest" if poses is None else f"rest, or a frame from 0 to {len(poses) - 1}"
        raise UserError(f"Rig '{rig.name}' has no reference '{choice}': give {known}.")
    return poses[int(choice)]


def _write_positions(path: Path, watched: Stage1Result, settings: Settings) -> None:
    """npz: position (T, K, 3) relative to the root in the network's axes turned as the chosen view sees them, rig units;
    times (T,); names (K,), tips included; azimuth, boxes and confidence for the second stage."""
    take, subject = watched.takes[0], watched.subject
    names = skeleton_of(take.rig, tips=take.position.shape[1] > len(take.rig.names)).names
    with path.open("wb") as file:  # given a name, numpy would append .npz to it
        np.savez_compressed(
            file, position=take.position, times=subject.times, names=np.array(names), azimuth=take.azimuth, boxes=subject.boxes,
            confidence=subject.confidence,
        )  # fmt: skip


def _pose2rot(options: argparse.Namespace, rig: Rig, pose: np.ndarray, settings: Settings) -> None:
    if not options.positions:
        raise UserError("There are no positions: give the file of --stage video2pose with --positions.")
    try:
        with np.load(options.positions) as file:
            data = {key: file[key] for key in ("position", "times", "names", "azimuth", "boxes", "confidence")}
    except (*NOT_NPZ, OSError) as error:
        raise UserError(
            f"Positions '{options.positions}' cannot be read ({error}): write them with --stage video2pose."
        ) from error
    names = list(skeleton_of(rig, tips=len(data["names"]) > len(rig.names)).names)
    if names != data["names"].tolist():
        raise UserError(
            f"Positions '{options.positions}' belong to another rig than '{rig.name}': write them again with this one."
        )
    azimuth = float(data["azimuth"])
    [seen] = reference_views(rig, capsules(rig), pose, [azimuth])
    model = load_model(settings.model, pick_device(settings.device), settings.weights)
    with releasing_device_memory():
        take = drained(run_pose2rot(model, [RigPrediction(rig, seen, data["position"], None, azimuth)]))[0]
    _write(
        options,
        rig,
        motion_of(take, data["times"], data["boxes"], data["confidence"], settings, {"positions": options.positions}),
    )

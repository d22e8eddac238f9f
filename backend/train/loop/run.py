"""The training loop: a pool of samples that keeps being renewed, a schedule over the budget, checkpoints, curves."""

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
from ...model.network import Video2Pose2Rot
from ...weights.model_file import encoder_of, load_network, save_model
from ..evaluation import ablations
from ..packs.rig_packs import Pack
from ..release_data.dataset import ReleaseWindows
from ..release_data.dataset_folder import Release
from ..samples.samples import Recipe, Sample, Windows
from . import distributed
from .curves import draw_curves
from .losses import batch_of, losses, total
from .provenance import provenance
from .validation import Watch

log = logging.getLogger(__name__)

WARM_UP = 200  # steps
LOG_EVERY = 50  # steps
PAIR_COUNTS = (1, 1, 1, 1, 2, 3)  # reference pairs that a step shows


@dataclass(frozen=True)
class TrainingPlan:
    """How a run goes. minutes, steps: the budget, whichever is spent first; it drives the learning rate and the mixed-pose
    schedule, and a resumed run keeps what it has spent. pool: samples made before the first step and kept; fresh: how many of
    them a step replaces, on average (a small machine learns more from samples seen again than from waiting for new ones);
    mixed: share of the budget until stage 2 sees predicted positions alone (docs/network.md, Training and the data set's layout); average: of the weights, per
    step; watched: windows of each held-out set that the curves are measured on; varied, creatures, stirred: shares of the
    samples (samples.Recipe); geodesic: the rotation loss is the angle; without: parts of the method that are left out
    (ablations.py)."""

    minutes: float = math.inf
    steps: float = math.inf
    batch: int = 8
    frames: int = 6
    pool: int = 640
    fresh: float = 0.25
    rate: float = 2.5e-3
    decay: float = 1e-2
    mixed: float = 0.3
    average: float = 0.998
    seed: int = 0
    workers: int = 1
    watched: int = 32
    save_every: float = 120.0
    varied: float = 0.5
    creatures: float = 0.25
    stirred: float = 0.3
    geodesic: bool = False
    device: str = "auto"
    without: tuple[str, ...] = ()
    config: Config = field(default=LITE)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", ablations.config_without(self.config, self.without))
        if not math.isfinite(min(self.minutes, self.steps)):
            raise UserError("A training run needs an end: give its budget in minutes or in steps.")

    def recipe(self) -> Recipe:
        return Recipe(self.frames, ablations.side_error(self.without), self.varied, self.creatures, stirred=self.stirred)

    def progress(self, spent: float, step: int) -> float:
        """Share of the budget that `spent` seconds and `step` steps are."""
        return max(spent / (60 * self.minutes), step / self.steps)


class Run:
    """One training run on rig packs, or on the public release's data set, in a folder: `last.pt` to resume from, `model.safetensors` to use, `log.jsonl` and `curves.png` to read.

    held: names of sets -> packs of clips that are never trained on, measured at every checkpoint.
    Under torchrun every process makes one Run in the same folder; each draws its own samples, the first one writes.
    """

    def __init__(
        self, plan: TrainingPlan, source: Sequence[Pack] | Release, encoder: str | Path, folder: Path, start: str | None = None,
        held: Mapping[str, Sequence[Pack]] | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.source, self.folder, self.held = plan, source, folder, held or {}
        self.device = pick_device(plan.device)
        self.encoder_state = {} if isinstance(source, Release) else encoder_of(encoder)
        torch.manual_seed(plan.seed)
        self.network = Video2Pose2Rot(plan.config).to(self.device).train()
        if start is not None:
            self.network.load_state_dict(self._kept(start))
        self.average = Video2Pose2Rot(plan.config).to(self.device).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.optimisers = _optimisers(self.network, plan)
        # every process starts from the same weights, then draws its own samples and noise
        self.rng = np.random.default_rng([plan.seed, distributed.rank()])
        torch.manual_seed(plan.seed + 1 + distributed.rank())
        self.step, self.spent = 0, 0.0
        self.pool: list[int] = []  # numbers of the samples in the pool
        self.drawn = 0  # samples made so far
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def _kept(self, start: str) -> dict[str, Tensor]:
        """The weights to go on from; those of layers that a part left out changes stay random.

        Raises UserError if the network in `start` differs in more than that.
        """
        network = load_network(start, self.device)
        if ablations.config_without(network.config, self.plan.without) != self.plan.config:
            raise UserError(
                f"The network in '{start}' has other sizes or parts than the one to train: start from one that was trained alike."
            )
        begun, own = network.state_dict(), self.network.state_dict()
        return {key: begun[key] if key in begun and begun[key].shape == value.shape else value for key, value in own.items()}

    def train(self) -> Path:
        """Train until the budget is spent; -> the model file."""
        if self._finished():
            return self.folder / "model.safetensors"
        source = self._samples()
        samples = [next(source) for _ in range(self.plan.pool)]
        held = self.held if distributed.rank() == 0 else {}
        watch = Watch(held, self.plan.config, self._encoder, self.plan.frames, self.plan.watched)
        terms: dict[str, list[float]] = {}
        tick, saved = time.monotonic(), self.spent
        while not self._finished():
            self._renew(samples, source)
            now = time.monotonic()
            for key, value in self._step(self._draw(samples), now - tick).items():
                terms.setdefault(key, []).append(value)
            tick = now
            if self.step % LOG_EVERY == 0:
                self._log(terms)
                terms = {}
            if self.spent - saved > self.plan.save_every:
                self._checkpoint(watch)
                saved = self.spent
        return self._checkpoint(watch)

    def _finished(self) -> bool:
        return self.plan.progress(self.spent, self.step) >= 1

    def save(self) -> Path:
        """Write the checkpoint and the averaged model; each file is replaced whole."""
        path = self.folder / "model.safetensors"
        chance = {"rng": self.rng.bit_generator.state, "torch": torch.get_rng_state(), "pool": self.pool, "drawn": self.drawn}
        processes = distributed.all_gather(chance)
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
        """Where the weights come from."""
        plan = {k: v for k, v in asdict(self.plan).items() if k != "config" and v != math.inf}
        effort = {
            "steps": self.step,
            "minutes": round(self.spent / 60, 1),
            "device": str(self.device),
            "processes": distributed.count(),
        }
        return {**_extent(self.source), **effort, **provenance(self.device), "plan": plan}

    def _encoder(self) -> Encoder:
        return Encoder(self.encoder_state, self.device, torch.bfloat16 if self.device.type != "mps" else torch.float32)

    def _samples(self) -> Iterator[Sample]:
        """The samples of the pool, those of a resumed run again, and then new ones for ever."""
        if not self.pool:
            self.pool = list(range(self.plan.pool))
            self.drawn = self.plan.pool
        seed = self.plan.seed + 7919 * distributed.rank()
        numbers = _Numbers(tuple(self.pool), self.drawn)
        workers = self.plan.workers
        if isinstance(self.source, Release):
            return _loaded(ReleaseWindows(self.source, self.plan.config, self.plan.frames, seed, numbers), workers)
        encode, device = self._encoder().encode, str(self.device)
        if self.device.type == "cpu" or not workers:
            return _loaded(Windows(self.source, self.plan.config, encode, self.plan.recipe(), seed, device, numbers), workers)
        # worker processes cannot share the GPU that this one holds: they draw the images, and the GPU reads them here
        crops = _loaded(
            Windows(self.source, self.plan.config, torch.nn.Identity(), self.plan.recipe(), seed, "cpu", numbers), workers
        )
        return (replace(sample, tokens=encode(sample.tokens.to(torch.uint8)).to("cpu", torch.float16)) for sample in crops)

    def _renew(self, samples: list[Sample], source: Iterator[Sample]) -> None:
        for _ in range(self.rng.poisson(self.plan.fresh)):
            place = int(self.rng.integers(len(samples)))
            samples[place], self.pool[place] = next(source), self.drawn
            self.drawn += 1

    def _draw(self, pool: Sequence[Sample]) -> list[Sample]:
        """A batch of rigs with similar joint counts, so that little is padded."""
        size = self.plan.batch
        some = self.rng.choice(len(pool), min(4 * size, len(pool)), replace=False)
        ordered = sorted((pool[i] for i in some), key=lambda sample: len(sample.body.skeleton))
        # all processes draw rigs of one size, so that none waits for another
        start = int(np.random.default_rng([self.plan.seed, self.step]).integers(len(ordered) - size + 1))
        return ordered[start : start + size]

    def _step(self, samples: Sequence[Sample], elapsed: float = 0.0) -> dict[str, float]:
        """One update; elapsed: seconds since the last one began."""
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
        total(terms).backward()
        self.spent = distributed.average(self.network, self.spent + elapsed)  # one clock, so that all stop after the same step
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        self.step += 1
        self._blend()
        return {key: value.item() for key, value in terms.items()}

    @torch.no_grad()
    def _blend(self) -> None:
        keep = min(self.plan.average, (1 + self.step) / (10 + self.step))
        for slow, fast in zip(self.average.parameters(), self.network.parameters(), strict=True):
            slow.lerp_(fast, 1 - keep)

    def _checkpoint(self, watch: Watch) -> Path:
        path = self.save()
        if distributed.rank() == 0:
            self._write(
                {"step": self.step, "seconds": round(self.spent, 1), "watch": watch.measure(self.average, self.plan.without)}
            )
            draw_curves(self.folder / "log.jsonl", self.folder / "curves.png")
        return path

    def _log(self, terms: dict[str, list[float]]) -> None:
        if distributed.rank() > 0:
            return
        means = {key: float(np.mean(values)) for key, values in terms.items()}
        speed = self.step * self.plan.batch * distributed.count() / max(self.spent, 1e-9)
        self._write({"step": self.step, "seconds": round(self.spent, 1), "samples_per_second": round(speed, 2), **means})
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        log.info("step %d, %.1f min, %.1f samples/s: %s", self.step, self.spent / 60, speed, shown)

    def _write(self, line: dict[str, object]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.spent = state["step"], state["spent"]
        if len(state["processes"]) != distributed.count():  # other processes than then: other samples, from where they stopped
            self.drawn = max(chance["drawn"] for chance in state["processes"]) + self.plan.pool
            self.pool = list(range(self.drawn - self.plan.pool, self.drawn))
            return
        chance = state["processes"][distributed.rank()]
        self.rng.bit_generator.state = chance["rng"]
        torch.set_rng_state(chance["torch"].cpu())
        self.pool, self.drawn = list(chance["pool"]), chance["drawn"]


def _loaded(windows: IterableDataset[Sample], workers: int) -> Iterator[Sample]:
    return iter(DataLoader(windows, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None))


def _extent(source: Sequence[Pack] | Release) -> dict[str, object]:
    """How much there was to learn from, for the card."""
    if isinstance(source, Release):
        return {"dataset": source.folder.name, "views": len(source.group("train"))}
    return {"rigs": len(source), "clips": sum(len(pack.clips) for pack in source)}


@dataclass(frozen=True)
class _Numbers:
    """The numbers of a pool, then those from `after` on; can be gone through again by every worker."""

    pool: tuple[int, ...]
    after: int

    def __iter__(self) -> Iterator[int]:
        return chain(self.pool, count(self.after))


def _optimisers(network: nn.Module, plan: TrainingPlan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers (in 200 steps from one start its losses were 3 to 5 % below AdamW's), AdamW for
    embeddings, vectors and what has a narrow side."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, value in network.named_parameters():
        wide = value.dim() == 2 and min(value.shape) >= 16 and "_emb" not in name
        (matrices if wide else others).append(value)
    muon = torch.optim.Muon(matrices, lr=plan.rate, weight_decay=plan.decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=plan.rate / 3, weight_decay=0.0, betas=(0.9, 0.98), fused=others[0].device.type == "cuda")
    for optimiser in (muon, adam):
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]

"""The training loop: a pool of samples that a worker keeps renewing, a schedule over the time budget, checkpoints."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..config import LITE, Config
from ..model import Video2Pose2Rot
from ..packs import Pack
from ..vision import Encoder
from ..weights import encoder_of, load_model, pick_device, save_model
from . import peers
from .losses import batch_of, losses, total
from .samples import Sample, Windows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How a run goes. minutes: the budget, which drives the learning rate and the mixed-pose schedule; a resumed run keeps the
    minutes already spent. pool: samples made before the first step and kept; fresh: how many of them a step replaces, on average
    (a small machine learns more from samples seen again than from waiting for new ones); mixed: share of the budget until
    stage 2 sees predicted positions alone (SPEC-V2 section 8)."""

    minutes: float
    batch: int = 8
    frames: int = 6
    pool: int = 640
    fresh: float = 0.25
    rate: float = 3e-3
    decay: float = 1e-2
    mixed: float = 0.4
    average: float = 0.998
    seed: int = 0
    workers: int = 1
    save_every: float = 120.0
    device: str = "auto"
    config: Config = field(default=LITE)


class Run:
    """One training run in a folder: `last.pt` to resume from, `model.safetensors` to use, `log.jsonl` to plot."""

    def __init__(self, plan: Plan, packs: Sequence[Pack], encoder: str | Path, folder: Path, start: str | None = None) -> None:
        self.plan, self.packs, self.folder = plan, packs, folder
        self.device = pick_device(plan.device)
        self.encoder_state = encoder_of(encoder)
        torch.manual_seed(plan.seed)
        self.network = Video2Pose2Rot(plan.config).to(self.device).train()
        if start is not None:
            self.network.load_state_dict(load_model(start, self.device).network.state_dict())
        self.average = Video2Pose2Rot(plan.config).to(self.device).eval()
        self.average.load_state_dict(self.network.state_dict())
        self.optimisers = _optimisers(self.network, plan)
        self.step, self.spent = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        # every process starts from the same weights, then draws its own samples and noise
        self.rng = np.random.default_rng([plan.seed, self.step, peers.rank()])
        torch.manual_seed(plan.seed + 1000 * (self.step + 1) + peers.rank())

    def train(self) -> Path:
        """Train until the budget is spent; -> the model file."""
        source = self._samples()
        pool = [next(source) for _ in range(self.plan.pool)] if self.spent < self.plan.minutes * 60 else []
        terms: dict[str, list[float]] = {}
        tick = saved = time.monotonic()
        while self.spent < self.plan.minutes * 60:
            for _ in range(self.rng.poisson(self.plan.fresh)):
                pool[int(self.rng.integers(len(pool)))] = next(source)
            now = time.monotonic()
            for key, value in self._step(self._draw(pool), now - tick).items():
                terms.setdefault(key, []).append(value)
            tick = now
            if self.step % 50 == 0:
                self._log(terms)
                terms = {}
            if now - saved > self.plan.save_every:
                self.save()
                saved = now
        return self.save()

    def save(self) -> Path:
        """Write the checkpoint and the averaged model, from the first process alone; each file is replaced whole."""
        path = self.folder / "model.safetensors"
        if peers.rank() > 0:
            return path
        state = {
            "network": self.network.state_dict(), "average": self.average.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers], "step": self.step, "spent": self.spent,
        }  # fmt: skip
        partial = self.folder / "last.partial"
        torch.save(state, partial)
        partial.replace(self.folder / "last.pt")
        save_model(path, self.average, self.encoder_state, self.card())
        return path

    def card(self) -> dict[str, object]:
        """Where the weights come from."""
        plan = {key: value for key, value in asdict(self.plan).items() if key != "config"}
        return {"rigs": len(self.packs), "clips": sum(len(p.clips) for p in self.packs), "steps": self.step,
                "minutes": round(self.spent / 60, 1), "device": str(self.device), "plan": plan}  # fmt: skip

    def _samples(self) -> Iterator[Sample]:
        # worker processes cannot share a CUDA context that this one opened: there, samples are made in line
        workers = self.plan.workers if self.device.type == "cpu" else 0
        dtype = torch.bfloat16 if self.device.type != "mps" else torch.float32
        encoder = Encoder(self.encoder_state, self.device, dtype)
        seed = self.plan.seed + self.step + 7919 * peers.rank()  # a resumed run draws new samples
        windows = Windows(self.packs, self.plan.config, encoder.encode, self.plan.frames, seed, str(self.device))
        return iter(DataLoader(windows, batch_size=None, num_workers=workers, prefetch_factor=4 if workers else None))

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
        progress = min(self.spent / (self.plan.minutes * 60), 1.0)
        share = min(1.0, (self.step + 1) / 200) * (0.02 + 0.98 * math.cos(progress * math.pi / 2) ** 2)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * share
        batch = batch_of(samples, self.device)
        mixed = 0.1 + 0.9 * min(progress / self.plan.mixed, 1.0)
        predicted = torch.from_numpy(self.rng.random(len(samples)) < mixed).to(self.device)
        terms = losses(self.network, batch, predicted)
        self.network.zero_grad(set_to_none=True)
        total(terms).backward()
        self.spent = peers.average(self.network, self.spent + elapsed)  # one clock, so that all stop after the same step
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

    def _log(self, terms: dict[str, list[float]]) -> None:
        if peers.rank() > 0:
            return
        means = {key: float(np.mean(values)) for key, values in terms.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "seconds": round(self.spent, 1), **means}) + "\n")
        shown = "  ".join(f"{key} {value:.4f}" for key, value in means.items())
        log.info("step %d, %.1f of %.0f min: %s", self.step, self.spent / 60, self.plan.minutes, shown)

    def _resume(self) -> None:
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.spent = state["step"], state["spent"]


def _optimisers(network: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices between layers (in 200 steps from one start its losses were 3 to 5 % below AdamW's), AdamW for
    embeddings, vectors and what has a narrow side."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, value in network.named_parameters():
        wide = value.dim() == 2 and min(value.shape) >= 16 and "_emb" not in name
        (matrices if wide else others).append(value)
    muon = torch.optim.Muon(matrices, lr=plan.rate, weight_decay=plan.decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(others, lr=plan.rate / 3, weight_decay=0.0, betas=(0.9, 0.98))
    for optimiser in (muon, adam):
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return [muon, adam]

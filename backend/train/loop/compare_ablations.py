"""One table of what each part of the method is worth: runs that differ in one part alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...hardware.devices import pick_device
from ...weights.model_file import load_model
from ..evaluation.ablations import as_trained
from ..evaluation.evaluate_packs import evaluate
from ..evaluation.metrics import summarise
from ..packs.rig_packs import Pack
from ..packs.splits import split_packs
from .run import Run, TrainingPlan


def compare(
    plan: TrainingPlan, packs: Sequence[Pack], splits: Path | None, encoder: str, folder: Path, parts: Sequence[str],
    start: str | None = None,
) -> Iterator[dict[str, float | str]]:  # fmt: skip
    """Train by `plan` with everything, then without each of `parts`, each in its own folder (finished ones are not trained
    again), and measure on the validation clips: rows of metrics.summarise with `without`. With `start`, a model, every run
    goes on from its weights, as far as the part leaves layers to hold them."""
    split = split_packs(packs, splits)
    for part in ("", *parts):
        without = (part,) if part else ()
        run = Run(replace(plan, without=without), split["train"], encoder, folder / (part or "whole"), start)
        model = as_trained(load_model(str(run.train()), pick_device(plan.device)))
        rows = list(evaluate(split["validation"], packs, "validation", model, plan.seed))
        yield {"without": part, **summarise(rows)}

"""Compares runs that differ in one part of the method, to see what the part is worth."""

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


def compare_ablations(
    plan: TrainingPlan, packs: Sequence[Pack], splits: Path | None, encoder: str, folder: Path, parts: Sequence[str],
    start: str | None = None,
) -> Iterator[dict[str, float | str]]:  # fmt: skip
    """Train by a plan with all parts, then without each of `parts`, and measure the validation clips. Yields a row per run.

    Every run has a folder of its own in `folder`; a finished one is not trained again. start: a model that every run starts from, as far
    as the layers fit without the part. A row has `without` and the figures of metrics.summarise.
    """
    split = split_packs(packs, splits)
    for part in ("", *parts):
        without = (part,) if part else ()
        run = Run(replace(plan, without=without), split["train"], encoder, folder / (part or "whole"), start)
        model = as_trained(load_model(str(run.train()), pick_device(plan.device)))
        rows = list(evaluate(split["validation"], packs, "validation", model, plan.seed))
        yield {"without": part, **summarise(rows)}

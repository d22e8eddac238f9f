"""Draws the learning curves of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANELS = (("mpjpe_cm", "MPJPE, cm of a 1 m cube"), ("angle_deg", "angle, degrees"), ("liveness", "liveness"))


def draw_curves(log: Path, out: Path) -> None:
    """Draw the log of a run as a PNG: losses, and figures of the held-out sets; dashed lines are those of copying the reference."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(16, 4), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(PANELS))
    _plot_losses(first, [line for line in lines if "watch" not in line])
    for axes, (key, title) in zip(others, PANELS, strict=True):
        _plot_held_out(axes, [line for line in lines if line.get("watch")], key)
        axes.set(title=title, xlabel="step")
    partial = out.with_name(f"{out.stem}.partial.png")
    figure.savefig(partial, dpi=80)
    partial.replace(out)


def _plot_losses(axes: Axes, lines: Sequence[dict[str, Any]]) -> None:
    names = [key for key in lines[0] if key not in ("step", "seconds", "samples_per_second")] if lines else []
    for name in names:
        axes.plot([line["step"] for line in lines], [line[name] for line in lines], label=name, linewidth=1)
    axes.set(title="training losses", xlabel="step", yscale="log")
    if names:
        axes.legend(fontsize=7)


def _plot_held_out(axes: Axes, lines: Sequence[dict[str, Any]], key: str) -> None:
    steps = [line["step"] for line in lines]
    for name in lines[0]["watch"] if lines else ():
        (line,) = axes.plot(steps, [entry["watch"][name][key] for entry in lines], label=name)
        if f"copy_{key}" in lines[0]["watch"][name]:
            axes.axhline(lines[0]["watch"][name][f"copy_{key}"], linestyle="--", color=line.get_color())
    if lines:
        axes.legend(fontsize=8)

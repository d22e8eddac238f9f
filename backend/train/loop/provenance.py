"""Describes where and with what a model was trained, for the card inside its file."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch


def provenance(device: torch.device) -> dict[str, object]:
    """Date (UTC), torch, hardware, and the commit of the code, or "unknown" outside a repository."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "date": datetime.now(UTC).date().isoformat(), "torch": torch.__version__, "commit": _commit(),
        "hardware": gpu or f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads",
    }  # fmt: skip


def _commit() -> str:
    """The commit, with a + if files were changed since."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for arguments in (("rev-parse", "--short=12", "HEAD"), ("status", "--porcelain", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.strip() + ("+" if changes.strip() else "")

"""Locates the files of ISNet's weights. Needs no torch, so that panels can ask."""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import UserError

DATA = Path(__file__).parents[1] / "data"
BUNDLED = (DATA / "isnet-1.safetensors", DATA / "isnet-2.safetensors")
REMEDY = "choose the file isnet-1.safetensors of an AnyRig that has it"


def is_bundled() -> bool:
    """Tell whether ISNet is in this AnyRig."""
    return all(file.is_file() for file in BUNDLED)


def isnet_files(own: str | Path = "") -> tuple[Path, ...]:
    """List the files to load: those of AnyRig, or the user's own, given by one of them (NAME-1 and NAME-2 belong together).

    Raises UserError if one is missing.
    """
    files = _parts(Path(own)) if str(own) else BUNDLED
    missing = next((file for file in files if not file.is_file()), None)
    if missing is None:
        return files
    if files is BUNDLED:
        raise UserError(
            f"This AnyRig has no ISNet, the network that finds subjects ('{missing}' is missing): {REMEDY}, or install that one."
        )
    raise UserError(f"ISNet's file '{missing}' does not exist: {REMEDY}.")


def _parts(path: Path) -> tuple[Path, ...]:
    part = re.fullmatch(r"(.+-)[12]", path.stem)
    return tuple(path.with_name(f"{part[1]}{number}{path.suffix}") for number in (1, 2)) if part else (path,)

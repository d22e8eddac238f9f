"""`build.py dev skeletons`: a Markdown table of what hangs where in the natural skeletons of rig files."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy

from ...backend.errors import UserError
from ...backend.rig.natural_skeleton import describe
from ..import_export.import_rig import import_rig
from ..rig.armature import read_rig

_log = logging.getLogger(__name__)
HEADER = ("file", "joints", "root", "what differs from the armature")
NOTHING, CONTROLS = "nothing", "nothing: its controls are in the tree of their maker"


def rows_of(path: str | Path) -> Iterator[tuple[str, str, str, str]]:
    """The table's rows for a rig file, one for each difference. The open file is replaced. Raises UserError if it is no rig."""
    # unlike read_factory_settings this leaves preferences, and so the running add-on, alone
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    obj = import_rig(path)
    rig, natural = read_rig(obj)
    first = (Path(path).name, str(len(rig.names)), rig.names[0])
    for line in [CONTROLS] if natural is None else describe(natural) or [NOTHING]:
        yield (*first, line)
        first = ("", "", "")


def skeletons_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`build.py dev skeletons FILES...`: the table goes to `say`, then a line for each file that is no rig; 1 if there is one."""
    parser = argparse.ArgumentParser(prog="build.py dev skeletons", description="Show what hangs where in rig files, as a table.")
    parser.add_argument("files", nargs="+", help=".glb .gltf .fbx .bvh .blend")
    options = parser.parse_args(args)
    say(_row(HEADER))
    say(_row(["---"] * len(HEADER)))
    errors = []
    for path in options.files:
        try:
            for row in rows_of(path):
                say(_row(row))
        except UserError as error:
            errors.append(error)
    for error in errors:
        say(str(error))
    return 1 if errors else 0


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

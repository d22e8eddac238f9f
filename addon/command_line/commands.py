"""`blender -b FILE --command anyrig batch|capture|diagnostics|download|movie|refine ...`: the add-on without a window.

A command imports its modules only when it is called, so that `diagnostics` also works if a library is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bpy

from ...backend.errors import UserError
from ..tasks.task import Task
from . import capture_command
from .console import ProgressLine, say, warn, with_user_errors

ID = "anyrig"
USAGE = f"blender -b FILE --command {ID}"


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 1 a sentence on stderr says what is wrong with the input, 2 wrong arguments."""
    return with_user_errors(_run, arguments)


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=USAGE, description="Key the motion seen in a video onto armatures.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="batch|capture|diagnostics|download|movie|refine")
    _add_batch(commands)
    capture = commands.add_parser("capture", help="key the motion seen in a video onto armatures")
    capture_command.add_options(capture)
    capture.set_defaults(run=capture_command.run)
    text = "print versions, libraries and devices, for bug reports"
    commands.add_parser("diagnostics", help=text, description=text.capitalize() + ".").set_defaults(run=_diagnostics)
    _add_download(commands)
    _add_movie(commands)
    _add_refine(commands)
    return parser


def _diagnostics(_options: argparse.Namespace) -> int:
    from ..preferences.diagnostics import report

    print(report(bpy.context), end="")
    return 0


# ---- batch


def _add_batch(commands: Any) -> None:
    batch = commands.add_parser(
        "batch",
        help="capture many videos onto many rigs, listed in a JSON file",
        description="Capture many videos onto many rigs, one job of JOBS.json after another.",
    )
    batch.add_argument(
        "jobs", nargs="?", metavar="JOBS.json", help='{"defaults": {...}, "jobs": [{"file", "video", "outputs", ...}]}'
    )
    batch.add_argument("--job", action="append", default=[], metavar="N", help="only these jobs: 2 or 4-6 or 1,3 (repeatable)")
    capture_command.add_keep_bone(batch)
    capture_command.add_refine(batch)
    batch.add_argument("--resume", action="store_true", help="skip jobs whose outputs exist and whose inputs are unchanged")
    batch.add_argument("--json", metavar="OUT", help="write the results to this file, again after every job")
    batch.add_argument("--check", action="store_true", help="run nothing: check the jobs file, and that its inputs exist")
    batch.add_argument("--flamenco", metavar="FOLDER", help="write the Flamenco job type to this folder and end")
    batch.set_defaults(run=_batch)


def _batch(options: argparse.Namespace) -> int:
    from ..batch import run_jobs_file

    return run_jobs_file.run_command(options, say)


# ---- download


def _add_download(commands: Any) -> None:
    download = commands.add_parser(
        "download",
        help="list, download or remove the released weights",
        prog=f"blender -b --command {ID} download",
        description="List, download or remove the released weights.",
    )
    download.add_argument(
        "name", nargs="?", metavar="NAME", help="release for all that is missing, or one name of the list; none: list"
    )
    download.add_argument("--from", dest="source", metavar="PATH", help="use files that you have: one, or a folder of them")
    download.add_argument("--mirror", metavar="URL", help="download from here instead (default: as in the preferences)")
    download.add_argument("--remove", action="store_true", help="delete the downloaded files")
    download.set_defaults(run=_download)


def _download(options: argparse.Namespace) -> int:
    from ...backend.progress import size_text
    from ...backend.weights.fetch import fetch_files, use_local_files
    from ...backend.weights.registry import CONVERTED_SIZE, TABLE, Folder, named
    from ..settings import preference_values

    folder, line = Folder(preference_values.weights_folder(bpy.context)), ProgressLine()
    if options.remove:
        say(f"{size_text(folder.remove())} freed")
    if options.source:
        Task(use_local_files(folder, Path(options.source))).drain(line.show).result()
    if options.name:
        if not bpy.app.online_access:
            raise UserError("Online access is off: start Blender with --online-mode, or allow it in Preferences > System.")
        mirror = preference_values.mirror(bpy.context) if options.mirror is None else options.mirror
        Task(fetch_files(folder, mirror, named(options.name))).drain(line.show).result()
    line.end()
    say(f"In {folder.path}, {size_text(CONVERTED_SIZE)} more for the converted network:")
    for item in TABLE:
        state = folder.file(item) if folder.has(item) else "missing"
        say(f"{item.name}: {size_text(item.size)}, {item.licence}, {item.repo}/{item.file}: {state}")
    return 0


# ---- movie


def _add_movie(commands: Any) -> None:
    movie = commands.add_parser(
        "movie",
        help="make a movie of a take's video beside the rig",
        description="Write a movie of a take's video beside the rig, seen from the same side.",
    )
    movie.add_argument("--take", metavar="NAME", help="the take's name, as listed in the panel (default: the newest)")
    movie.add_argument("--out", required=True, type=Path, metavar="OUT.mp4", help="the movie to write")
    movie.add_argument("--height", type=int, default=480, metavar="PIXELS", help="of the images (default: 480)")
    movie.add_argument("--over", action="store_true", help="a third image: the rig over its video")
    movie.add_argument("--outline", action="store_true", help="draw the rig's outline onto the video")
    movie.set_defaults(run=_movie)


def _movie(options: argparse.Namespace) -> int:
    from ..capture import take_store
    from ..review.side_by_side_movie import MovieParams, movie_steps
    from ..settings import preference_values

    text = _named_take(options.take)
    engine = preference_values.engine(bpy.context)
    params = MovieParams(options.out.absolute(), max(options.height, 16), options.over, engine, options.outline)
    frames = Task(movie_steps(bpy.context, text, params)).drain().result()
    say(f"{take_store.label(text)}: {frames} frames written to {options.out}")
    return 0


def _named_take(name: str | None) -> bpy.types.Text:
    """The newest stored take, or the newest of this name. Raises UserError."""
    from ..capture import take_store

    found = take_store.stored()
    wanted = [text for text in found if name in (None, take_store.label(text), text.name)]
    if not wanted:
        listed = ", ".join(f"'{take_store.label(text)}'" for text in found) or "none"
        raise UserError(
            f"There is no take '{name}' in this file: it has {listed}." if name else "There is no take in this file: capture one."
        )
    return wanted[0]


# ---- refine


def _add_refine(commands: Any) -> None:
    refine = commands.add_parser(
        "refine",
        help="fit a take to its video again",
        description="Fit a take to its video again: the result is a new take and a new action beside the old ones.",
    )
    refine.add_argument("--take", metavar="NAME", help="the take's name, as listed in the panel (default: the newest)")
    refine.add_argument("--mode", choices=("quick", "thorough"), default="quick", help="how long to look for a better fit")
    refine.add_argument("--frames", type=int, nargs=2, metavar=("FIRST", "LAST"), help="only these frames of the scene")
    refine.add_argument("--around-pins", action="store_true", help="only the frames around pinned poses")
    bones = refine.add_mutually_exclusive_group()
    bones.add_argument("--bone", action="append", default=[], metavar="NAME", help="let only this bone change (repeatable)")
    text = "exchange left and right of the limb that this bone belongs to, then fit both alone (repeatable)"
    bones.add_argument("--swap", action="append", default=[], metavar="NAME", help=text)
    refine.add_argument("--out", metavar="FILE.blend", help="save a copy of the file with the take and its keys")
    refine.set_defaults(run=_refine)


def _refine(options: argparse.Namespace) -> int:
    from ...backend.output_checks import check_outputs, check_suffix
    from ..review import refine_take

    check_outputs(options.out, inputs=(bpy.data.filepath,))
    check_suffix(options.out, ".blend")
    text, line = _named_take(options.take), ProgressLine()
    part = refine_take.PINS if options.around_pins else refine_take.RANGE if options.frames else refine_take.WHOLE
    choice = refine_take.RefineChoice(
        options.mode, part, tuple(options.frames or (1, 1)), False, tuple(options.swap or options.bone), bool(options.swap)
    )
    request = refine_take.gather(bpy.context, text, choice)
    take = Task(refine_take.steps(request)).drain(line.show).result()
    line.end()
    refine_take.write(request, take)
    say(refine_take.describe(request, take))
    if options.out:
        capture_command.save_copy(options.out)
    else:
        warn("Nothing was saved: give --out FILE.blend.")
    return 0


# ---- Blender's --command

_handles: list[Any] = []


def reset() -> None:
    """Unregister the command."""
    while _handles:
        bpy.utils.unregister_cli_command(_handles.pop())


def register() -> None:
    _handles.append(bpy.utils.register_cli_command(ID, main))


def unregister() -> None:
    reset()

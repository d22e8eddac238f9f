"""`blender -b FILE --command anyrig batch|capture|diagnostics|download|movie ...`: the add-on without a window."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bpy

from ...backend.errors import UserError
from ...backend.output_checks import check_outputs
from ..rig.bone_warnings import warnings_of
from ..settings.chosen_armatures import armature_from_context
from ..tasks import task
from .capture_options import add_options, params_from_options

if TYPE_CHECKING:
    from ..capture.run_capture import CaptureRequest, CaptureResult

ID = "anyrig"
USAGE = f"blender -b FILE --command {ID}"


def main(arguments: list[str]) -> int:
    """Exit code: 0 done, 1 a sentence on stderr says what is wrong with the input, 2 wrong arguments."""
    run = RUN.get(arguments[0]) if arguments else None
    return with_user_errors(_capture, arguments) if run is None else with_user_errors(run, arguments[1:])


def with_user_errors(run: Callable[[list[str]], int], arguments: list[str]) -> int:
    """Exit code of a command. What a user can mend goes to stderr as one sentence."""
    try:
        return run(arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        reason = error.strerror or error
        print(f"Error: '{error.filename}' cannot be read or written ({reason}): check the path.", file=sys.stderr)
        return 1
    except SystemExit as end:  # argparse has printed its message; 0 is --help
        return int(end.code or 0)


def say(text: str) -> None:
    print(text, flush=True)


def _loaded(module: str, function: str, *more: str) -> Callable[[list[str]], int]:
    """A command of another module, which is imported when it is called."""

    def run(arguments: list[str]) -> int:
        return getattr(import_module(module, __package__), function)(arguments, say, *more)

    return run


def _diagnostics(arguments: list[str]) -> int:
    from ..preferences.diagnostics import report

    parser = argparse.ArgumentParser(prog=f"{USAGE} diagnostics", description="Print what a report of a problem needs.")
    parser.parse_args(arguments)
    print(report(bpy.context), end="")
    return 0


RUN = {
    "batch": _loaded("..batch.run_jobs_file", "batch_command", USAGE),
    "diagnostics": _diagnostics,
    "download": _loaded("..released_model.weights_panel", "download_command"),
    "movie": _loaded("..review.side_by_side_movie", "movie_command"),
}


def _capture(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    check_outputs(options.out, options.bvh)
    context = bpy.context
    objects = _armatures(context, options.armature)
    from ..capture import run_capture

    line = _Line()
    take, results, _ = run_capture.run_capture(context, objects, params_from_options(context, options), line.show)
    line.end()
    for subject, result in zip(take.subjects, results, strict=True):
        print(f"{subject.rig.name}: {len(result.motion)} frames of '{take.name}' keyed from frame {take.start_frame} on")
    for obj, subject in zip(objects, take.subjects, strict=True):
        for sentence in warnings_of(obj, subject.rig.names):
            print(f"Warning: {sentence}", file=sys.stderr)
    for note in results[0].motion.provenance.get("notes", ()):
        print(note, file=sys.stderr)
    _save(options, take, results)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=USAGE, description="Key the motion seen in a video onto armatures.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="batch|capture|diagnostics|download|movie")
    commands.add_parser("batch", help="capture many videos onto many rigs, as a JSON file says", add_help=False)
    commands.add_parser("diagnostics", help="print versions, libraries and devices, for reports of problems", add_help=False)
    commands.add_parser("download", help="list, download or remove the released weights", add_help=False)
    commands.add_parser("movie", help="make a movie of a take's input beside the rig", add_help=False)
    capture = commands.add_parser("capture", help="key the motion seen in a video onto armatures")
    capture.add_argument("--video", required=True, metavar="V", help="a video, or one image of a numbered sequence")
    capture.add_argument(
        "--armature", action="append", default=[], metavar="NAME", help="repeat for several; default: the active one"
    )
    add_options(capture)
    capture.add_argument("--out", metavar="FILE.blend", help="save a copy of the file with the keys")
    capture.add_argument("--bvh", metavar="OUT.bvh", help="write the motion as BVH; several armatures: OUT-NAME.bvh")
    return parser


def _armatures(context: bpy.types.Context, names: Sequence[str]) -> list[bpy.types.Object]:
    """The named armatures; without names the active one, else the only one in the scene."""
    known = {obj.name: obj for obj in context.scene.objects if obj.type == "ARMATURE"}
    listed = ", ".join(f"'{name}'" for name in known) or "none"
    for name in names:
        if name not in known:
            raise UserError(f"There is no armature '{name}' in scene '{context.scene.name}': it has {listed}.")
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    found = armature_from_context(context) or (next(iter(known.values())) if len(known) == 1 else None)
    if found is None:
        raise UserError(f"Say which armature to animate with --armature NAME: scene '{context.scene.name}' has {listed}.")
    return [found]


def _save(options: argparse.Namespace, take: CaptureRequest, results: Sequence[CaptureResult]) -> None:
    if options.bvh:
        from ..import_export.export_take import bvh_files

        for path, write in bvh_files(Path(options.bvh), take, results):
            write(path)
    if options.out:
        try:
            bpy.ops.wm.save_as_mainfile(filepath=str(Path(options.out).absolute()), copy=True)
        except RuntimeError as error:
            raise UserError(f"File '{options.out}' cannot be written ({str(error).strip()}): choose another folder.") from error
    if not options.bvh and not options.out:
        print("Nothing was saved: give --out FILE.blend or --bvh OUT.bvh.", file=sys.stderr)


class _Line:
    """A progress line; on a terminal it is overwritten, in a log only each stage is told."""

    def __init__(self) -> None:
        self._stage = ""

    def show(self, snapshot: task.Snapshot) -> None:
        if sys.stdout.isatty():
            print(f"\r{snapshot.text:<60}", end="", flush=True)
        elif snapshot.stage != self._stage:
            print(snapshot.stage, flush=True)
        self._stage = snapshot.stage

    def end(self) -> None:
        if self._stage and sys.stdout.isatty():
            print()


_handles: list[Any] = []


def register() -> None:
    _handles.append(bpy.utils.register_cli_command(ID, main))


def unregister() -> None:
    while _handles:
        bpy.utils.unregister_cli_command(_handles.pop())

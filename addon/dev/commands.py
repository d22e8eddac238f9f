"""`python3 build.py dev COMMAND ...`: the tools of the repository that need Blender."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from ..command_line.console import say, with_user_errors

USAGE = "build.py dev"
# name -> module, function, help text
COMMANDS = {
    "bench-keys": ("keying_benchmark", "bench_command", "time the writing of keys against keyframe_insert"),
    "pack": ("pack", "pack_command", "make rig packs for training"),
    "pictures": ("pictures", "pictures_command", "make the README's moving picture again"),
    "render": ("render_clips", "render_command", "render videos of rigs with ground, sky and shadows, for measuring"),
    "sheet": ("contact_sheet", "sheet_command", "draw rigs as training sees them, beside Blender's own images"),
    "skeletons": ("skeletons", "skeletons_command", "show what hangs where in rig files, as a table"),
}


def main(arguments: Sequence[str]) -> int:
    """Run a command. Exit code: 0 done, 1 an error, which is written to stderr, 2 wrong arguments."""
    return with_user_errors(_run, list(arguments))


def _run(arguments: list[str]) -> int:
    chosen = _parser().parse_args(arguments[:1]).command
    module, function, _ = COMMANDS[chosen]
    command: Callable[[list[str], Callable[[str], None]], int] = getattr(import_module(f".{module}", __package__), function)
    return command(arguments[1:], say)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=USAGE, description="Tools of the repository that need Blender.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(COMMANDS))
    for name, (_, _, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

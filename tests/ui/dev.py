"""Run by Blender: `blender -b --python dev.py -- COMMAND ...` is `build.py dev COMMAND ...` in this Blender."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path


def main(arguments: list[str]) -> int:
    spec = ModuleSpec("anyrig", None, is_package=True)
    spec.submodule_search_locations = [str(Path(__file__).resolve().parents[2])]
    sys.modules["anyrig"] = importlib.util.module_from_spec(spec)
    from anyrig.addon.dev import commands

    return commands.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))

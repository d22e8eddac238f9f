"""Makes the repository importable as the package `anyrig`, laid out as in the zip: anyrig.addon, anyrig.backend."""

import importlib.util
import os
import shutil
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

# the tests' tensors are small: a second thread would wait more than it works
os.environ.setdefault("OMP_NUM_THREADS", "1")
# the user's folder of found subjects is no place for those of tests
os.environ["ANYRIG_CACHE"] = tempfile.mkdtemp(prefix="anyrig-subjects-")

ROOT = Path(__file__).resolve().parents[1]

_spec = ModuleSpec("anyrig", None, is_package=True)
_spec.submodule_search_locations = [str(ROOT)]
sys.modules.setdefault("anyrig", importlib.util.module_from_spec(_spec))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_EXIT] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """bpy 4.2 and 4.5 crash or hang while the interpreter shuts down; leave before that, with the right code."""
    shutil.rmtree(os.environ["ANYRIG_CACHE"], ignore_errors=True)
    if "bpy" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash.get(_EXIT, 0))


_EXIT = pytest.StashKey[int]()

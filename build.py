#!/usr/bin/env python3
"""The developer's one command: `test`, `demo`, `package`, `dev`. Needs nothing but the standard library.

Starts under any Python from 3.9; the environments it makes in .venv/ need Python 3.11, the one Blender 4.2 to 5.0 ship.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree as xml
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterable, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parent
VERSIONS = ("5.0", "4.5", "4.2")
MARKER = "installed.txt"
PRINTING = threading.Lock()  # held while the output of a process is printed
TEST_TIMEOUT = 1200  # seconds for one pytest process: a hang must not eat all the time that a build machine gives

# What the bpy wheels and Workbench load on Linux -> Debian's package of it
LIBRARIES = {
    "libX11.so.6": "libx11-6", "libXi.so.6": "libxi6", "libXrender.so.1": "libxrender1", "libXfixes.so.3": "libxfixes3",
    "libXext.so.6": "libxext6", "libxkbcommon.so.0": "libxkbcommon0", "libSM.so.6": "libsm6", "libICE.so.6": "libice6",
    "libXxf86vm.so.1": "libxxf86vm1", "libuuid.so.1": "libuuid1", "libgomp.so.1": "libgomp1", "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
}  # fmt: skip
# Loaded by name at run time, so there is no library to try: a file that shows the package is there
DRIVERS = {
    "libgl1-mesa-dri": ("/usr/lib/*/dri/*_dri.so", "/usr/lib*/dri/*_dri.so"),
    "libegl-mesa0": ("/usr/share/glvnd/egl_vendor.d/*.json", "/etc/glvnd/egl_vendor.d/*.json"),
}

# The repository as the package `anyrig`, laid out as in the zip (tests/conftest.py does the same)
SHIM = """\
import importlib.util, runpy, sys
from importlib.machinery import ModuleSpec
spec = ModuleSpec("anyrig", None, is_package=True)
spec.submodule_search_locations = [sys.argv[1]]
sys.modules["anyrig"] = importlib.util.module_from_spec(spec)
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""
# None in sys.modules makes `import bpy` raise ModuleNotFoundError
PYTEST_WITHOUT_BPY = "import sys; sys.modules['bpy'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


class BuildError(Exception):
    """Something went wrong that one sentence explains."""


class Counts(NamedTuple):
    passed: int
    failed: int
    skipped: int

    def __add__(self, other: Counts) -> Counts:  # type: ignore[override]
        return Counts(*(mine + theirs for mine, theirs in zip(self, other)))


# ---- Python and environments


def say(text: str) -> None:
    print(f"build: {text}", flush=True)


def python_candidates() -> Iterable[list[str]]:
    """Commands that may start Python 3.11, the likeliest first."""
    yield [sys.executable]
    yield ["python3.11"]
    if os.name == "nt":
        yield ["py", "-3.11"]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    yield from ([str(path)] for path in sorted(pyenv.glob("3.11*/bin/python"), reverse=True))
    uv = shutil.which("uv")
    if uv:
        found = subprocess.run([uv, "python", "find", "3.11"], capture_output=True, text=True)
        if found.returncode == 0:
            yield [found.stdout.strip()]


def is_python311(command: Sequence[str]) -> bool:
    """Whether the command is a Python 3.11 that can make virtual environments (Debian splits ensurepip off)."""
    code = "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))"
    try:
        return subprocess.run([*command, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def find_python(candidates: Iterable[Sequence[str]] | None = None) -> list[str]:
    """The first candidate that works. Raises BuildError if there is none."""
    for command in python_candidates() if candidates is None else candidates:
        if is_python311(command):
            return list(command)
    raise BuildError(
        "Python 3.11 with its venv module was not found: Blender's wheels need it. Install it (Debian: apt-get install "
        "python3.11-venv; anywhere: `uv python install 3.11` or `pyenv install 3.11`) and run this again."
    )


def requirements(version: str, pyproject: Path = ROOT / "pyproject.toml") -> list[str]:
    """What the environment of a Blender version holds."""
    import tomllib

    groups = tomllib.loads(pyproject.read_text(encoding="utf-8"))["dependency-groups"]
    names = [f"bpy-{version}", "runtime", "test"] + (["lint", "train", "parity"] if version == VERSIONS[0] else [])
    return [requirement for name in names for requirement in groups[name]]


def environment_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def environment(version: str) -> Path:
    """The Python of `.venv/VERSION`, made or brought up to date if need be."""
    folder = ROOT / ".venv" / version
    python = environment_python(folder)
    wanted = requirements(version)
    stamp = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()
    marker = folder / MARKER
    if python.exists() and marker.exists() and marker.read_text().strip() == stamp:
        return python
    ensure_libraries()
    if not python.exists():
        say(f"making .venv/{version} with Python 3.11")
        run([*find_python(), "-m", "venv", str(folder)])
    say(f"installing into .venv/{version}: {' '.join(wanted)}")
    run([str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted])
    check_bpy(python, version)
    marker.write_text(stamp + "\n")
    return python


def check_bpy(python: Path, version: str) -> None:
    """Raises BuildError, with the loader's own words, if bpy cannot be imported."""
    tried = subprocess.run([str(python), "-c", "import bpy"], capture_output=True, text=True)
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or [f"exit code {tried.returncode}"])[-1]
        raise BuildError(f"Blender {version} does not start in .venv/{version} ({last}): install the library it names.")


def missing_packages() -> list[str]:
    """Debian packages of the system libraries that are not there; nothing outside Linux."""
    if not sys.platform.startswith("linux"):
        return []
    missing = [package for library, package in LIBRARIES.items() if not loads(library)]
    return missing + [package for package, patterns in DRIVERS.items() if not any(found(p) for p in patterns)]


def loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def found(pattern: str) -> bool:
    return any(Path("/").glob(pattern.lstrip("/")))


def ensure_libraries() -> None:
    """Install what Blender's wheels load, where that is possible without asking; else raise BuildError with the command."""
    missing = missing_packages()
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BuildError(f"Blender needs system libraries that are not here; run: sudo {shlex.join(install)}")
    say(f"installing system libraries: {' '.join(missing)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet)
    run([*install[:2], "-qq", *install[2:]], env=quiet)


def run(command: Sequence[str], env: dict[str, str] | None = None) -> None:
    """Run to the end. Raises BuildError if it fails."""
    code = subprocess.run(command, cwd=ROOT, env=env).returncode
    if code:
        raise BuildError(f"`{shlex.join(command[:6])} ...` failed with exit code {code}.")


# ---- test


def test(versions: Sequence[str]) -> int:
    """Lint, then every test: the backend without bpy, the rest with it, the add-on on each Blender. Returns an exit code.

    A test uses one core, so two processes run side by side where there are two; the output of each comes when it ends.
    """
    main = environment(VERSIONS[0])
    total = lint(main)
    jobs = []
    for version in versions:
        python = environment(version)
        jobs.append((f"tests/addon on Blender {version}", [str(python), "-m", "pytest"], ["tests/addon"]))
    if VERSIONS[0] in versions:
        rest = sorted(str(path) for path in Path("tests").glob("test_*.py"))
        jobs.insert(1, ("tests/backend, with bpy blocked", [str(main), "-c", PYTEST_WITHOUT_BPY], ["tests/backend"]))
        jobs.append(("tests of the build and the demo", [str(main), "-m", "pytest"], rest))
    with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for counts in pool.map(lambda job: pytest(job[1], job[2], job[0]), jobs):
            total += counts
    print(f"{total.passed} passed, {total.failed} failed" + (f", {total.skipped} skipped" if total.skipped else ""), flush=True)
    return 1 if total.failed or not total.passed else 0


def lint(python: Path) -> Counts:
    """What ruff has to say of the rules and of the layout; each that is broken counts as one failure."""
    failed = 0
    for words in (["check"], ["format", "--check"]):
        say(f"ruff {' '.join(words)}")
        failed += bool(subprocess.run([str(python), "-m", "ruff", *words, "--no-cache", "."], cwd=ROOT).returncode)
    return Counts(0, failed, 0)


def pytest(start: Sequence[str], paths: Sequence[str], what: str = "") -> Counts:
    """One pytest process, whose output is shown when it ends. A run that crashes, hangs or collects nothing counts as one failure."""
    what = what or " ".join(paths)
    say(f"{what} ...")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        report = Path(folder) / "report.xml"
        command = [*start, "-q", f"--junitxml={report}", *paths]
        try:
            code = subprocess.run(command, cwd=ROOT, timeout=TEST_TIMEOUT, stdout=output, stderr=subprocess.STDOUT).returncode
        except subprocess.TimeoutExpired:
            code = None
        output.seek(0)
        with PRINTING:
            say(f"{what}:")
            print(output.read().decode(errors="replace"), flush=True)
        if code is None:
            say(f"{what}: no end after {TEST_TIMEOUT} s")
            return Counts(0, 1, 0)
        return judge(code, report.read_text(encoding="utf-8") if report.exists() else None, " ".join(paths))


def judge(code: int, report: str | None, what: str) -> Counts:
    """Counts of a JUnit report; anything that makes the run untrustworthy adds a failure, so that it cannot pass."""
    if report is None:
        say(f"{what}: pytest died with exit code {code} before it could report")
        return Counts(0, 1, 0)
    totals = [0, 0, 0, 0]
    for suite in xml.fromstring(report).iter("testsuite"):
        values = [int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")]
        totals = [a + b for a, b in zip(totals, values)]
    tests, failures, errors, skipped = totals
    failed = failures + errors
    passed = max(0, tests - failed - skipped)
    if not failed and code:
        say(f"{what}: exit code {code} though no test failed")
        failed = 1
    return Counts(passed, failed, skipped)


# ---- command line


def run_in_blender(module: str, arguments: Sequence[str]) -> int:
    """Run a module of the package `anyrig` in the environment of the newest Blender; -> its exit code."""
    python = environment(VERSIONS[0])
    return subprocess.run([str(python), "-c", SHIM, str(ROOT), module, *arguments]).returncode


def package(arguments: Sequence[str]) -> int:
    """In the environment, whose bpy wheel holds Blender's own extension builder."""
    return subprocess.run([str(environment(VERSIONS[0])), str(ROOT / "package.py"), *arguments]).returncode


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="build.py", description="Tests, tries and packages AnyRig.")
    commands = top.add_subparsers(dest="command", required=True)
    tests = commands.add_parser("test", help="lint and every test, on Blender 5.0, 4.5 and 4.2")
    tests.add_argument("--version", action="append", choices=VERSIONS, help="only this Blender; may be repeated")
    commands.add_parser("demo", add_help=False, help="the main job on an example or on your files; `demo --help` tells more")
    commands.add_parser("package", add_help=False, help="an installable zip; `package --help` tells more")
    commands.add_parser("dev", add_help=False, help="tools of the repository that need Blender; `dev --help` lists them")
    return top


def main(arguments: Sequence[str]) -> int:
    if sys.version_info[:2] != (3, 11):
        return subprocess.run([*find_python(), str(Path(__file__).resolve()), *arguments]).returncode
    if arguments[:1] == ["demo"]:
        return run_in_blender("anyrig.addon.dev.demo", arguments[1:])
    if arguments[:1] == ["dev"]:
        return run_in_blender("anyrig.addon.dev.commands", arguments[1:])
    if arguments[:1] == ["package"]:
        return package(arguments[1:])
    options = parser().parse_args(arguments)
    return test(options.version or VERSIONS)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BuildError as error:
        sys.exit(f"build: {error}")

"""Installable zips: `build.py package` runs this in the environment that holds Blender's own extension builder.

Without --platform one zip without wheels, for a Blender whose Python has torch, and for tests. With it, one zip per combination of
platform, Python and torch, which brings the wheels of `[tool.anyrig.wheels]` in pyproject.toml along.
"""

from __future__ import annotations

import argparse
import email
import itertools
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).resolve().parent
PLATFORMS = ("linux-x64", "windows-x64", "macos-arm64")
PYTHONS = ("3.11", "3.13")
TORCHES = ("cpu", "cuda")
STAGED = ("addon/**/*.py", "addon/batch/flamenco/*.js", "backend/**/*.py", "backend/data/**/*")
DEVELOPERS = ("addon/dev/", "backend/train/", "backend/baseline/")  # what only developers use stays out of the zip
ISNET = "backend/data/isnet-"  # its weights, whose licence is not certain (docs/models.md)
EPOCH = (2024, 1, 1, 0, 0, 0)  # of every file in a zip: the same bytes whenever it is built
INIT = '''\
"""AnyRig: keys the motion seen in a video onto any armature."""

from .addon import register, unregister

__all__ = ["register", "unregister"]
'''


class PackageError(Exception):
    """Something went wrong that one sentence explains."""


class Bundle(NamedTuple):
    """Which wheels go into a zip."""

    platform: str
    python: str
    torch: str

    @property
    def name(self) -> str:
        return f"{self.platform}-py{self.python.replace('.', '')}-{self.torch}"


def say(text: str) -> None:
    print(f"package: {text}", flush=True)


def run(command: Sequence[str]) -> None:
    """Run to the end. Raises PackageError if it fails."""
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        raise PackageError(f"`{shlex.join(command[:6])} ...` failed with exit code {code}.")


# ---- the extension's own files


def staged_files() -> dict[str, Path]:
    """Path inside the zip -> file in the repository. What only developers use stays out."""
    files = {"blender_manifest.toml": ROOT / "blender_manifest.toml", "LICENSE": ROOT / "LICENSE"}
    for path in sorted(path for pattern in STAGED for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        if path.is_file() and "__pycache__" not in path.parts and not name.startswith(DEVELOPERS):
            files[name] = path
    return files


def stage(folder: Path, isnet: bool = True) -> None:
    """Copy what belongs into the zip, wheels aside."""
    for name, source in staged_files().items():
        if name.startswith(ISNET) and not isnet:
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / "__init__.py").write_text(INIT, encoding="utf-8", newline="\n")


def manifest_version() -> str:
    return tomllib.loads((ROOT / "blender_manifest.toml").read_text(encoding="utf-8"))["version"]


# ---- wheels


def load_pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wheel_requirements(bundle: Bundle, pyproject: Mapping[str, Any]) -> list[str]:
    """The pinned requirements of a zip. Raises PackageError for a combination that does not exist or a name that Blender ships."""
    table = pyproject["tool"]["anyrig"]["wheels"]
    torch = table["platforms"][bundle.platform].get(bundle.torch)
    if torch is None:
        raise PackageError(f"There is no torch with {bundle.torch} for {bundle.platform}: leave --torch out.")
    runtime = [each for each in pyproject["dependency-groups"]["runtime"] if Requirement(each).name != "torch"]
    wanted = [*torch, *runtime, *table["common"]]
    refuse_denied([Requirement(each).name for each in wanted], table["denied"])
    return wanted


def refuse_denied(names: Sequence[str], denied: Sequence[str]) -> None:
    """Raises PackageError if Blender ships one of the names: its own copy must stay the one that is imported."""
    hits = sorted({canonicalize_name(name) for name in names} & {canonicalize_name(name) for name in denied})
    if hits:
        raise PackageError(f"Blender ships {', '.join(hits)} itself: take it out of [tool.anyrig.wheels] in pyproject.toml.")


def download(bundle: Bundle, requirements: Sequence[str], tags: Sequence[str], indexes: Sequence[str], folder: Path) -> None:
    """Fetch exactly these wheels, from the indexes or else from where pip is configured to look. Raises PackageError."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--implementation", "cp", "--python-version", bundle.python]
    command += ["--abi", f"cp{bundle.python.replace('.', '')}", *(f"--platform={tag}" for tag in tags)]
    command += [f"--index-url={url}" for url in indexes[:1]] + [f"--extra-index-url={url}" for url in indexes[1:]]
    say(f"fetching {len(requirements)} wheels for {bundle.name}")
    code = subprocess.run([*command, *requirements]).returncode
    if code:
        raise PackageError(
            f"The wheels for {bundle.name} could not be fetched (pip said why above): if torch is missing, name an index that has "
            f"it with --index-url, PyTorch's own for instance, then repeat --index-url with the usual one for the rest."
        )


def wheels_in(folder: Path) -> dict[str, tuple[Version, Path]]:
    """Canonical name -> version and file of each wheel."""
    found = {}
    for path in sorted(folder.glob("*.whl")):
        name, version, _, _ = parse_wheel_filename(path.name)
        found[str(name)] = (version, path)
    return found


def needs(wheel: Path) -> list[Requirement]:
    """What a wheel says it needs."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1]
        return [Requirement(text) for text in email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])]


def check_closed(folder: Path, bundle: Bundle, table: Mapping[str, Any]) -> None:
    """Raises PackageError if Blender ships one of the wheels, or one needs what is neither there nor in Blender."""
    wheels = wheels_in(folder)
    refuse_denied(list(wheels), table["denied"])
    denied = {canonicalize_name(name) for name in table["denied"]}
    here = {key: str(value) for key, value in default_environment().items()}
    here |= {"python_version": bundle.python, "python_full_version": f"{bundle.python}.0"}
    here |= table["platforms"][bundle.platform]["markers"]
    todo = [(name, "") for name in wheels]
    seen = set(todo)
    for name, extra in todo:  # grows while it runs: an extra that is asked for has needs of its own
        for need in needs(wheels[name][1]):
            other = canonicalize_name(need.name)
            if other in denied or (need.marker and not need.marker.evaluate({**here, "extra": extra})):
                continue
            if other not in wheels or not need.specifier.contains(wheels[other][0], prereleases=True):
                raise PackageError(f"{wheels[name][1].name} needs {need}: put it into [tool.anyrig.wheels] in pyproject.toml.")
            new = {(str(other), each) for each in need.extras} - seen
            seen |= new
            todo += sorted(new)


def manifest_with_wheels(manifest: str, bundle: Bundle, names: Sequence[str]) -> str:
    """The manifest with `platforms` and `wheels`, before its first table, where they belong to the top level."""
    lines = manifest.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if line.startswith("[")), len(lines))
    wheels = "".join(f'  "./wheels/{name}",\n' for name in sorted(names))
    lines.insert(first, f'platforms = ["{bundle.platform}"]\nwheels = [\n{wheels}]\n\n')
    return "".join(lines)


def add_wheels(folder: Path, bundle: Bundle, indexes: Sequence[str]) -> None:
    """Put the wheels and their mention in the manifest into the staged copy."""
    pyproject = load_pyproject()
    table = pyproject["tool"]["anyrig"]["wheels"]
    wanted = wheel_requirements(bundle, pyproject)
    download(bundle, wanted, table["platforms"][bundle.platform]["tags"], indexes, folder / "wheels")
    check_closed(folder / "wheels", bundle, table)
    manifest = folder / "blender_manifest.toml"
    names = [path.name for _, path in wheels_in(folder / "wheels").values()]
    manifest.write_text(manifest_with_wheels(manifest.read_text(encoding="utf-8"), bundle, names), encoding="utf-8", newline="\n")


# ---- the zip


def extension_tool(environment: Path) -> Path:
    """Blender's own extension builder, from the bpy wheel installed in an environment."""
    wheels = [environment / "lib/python3.11/site-packages/bpy", environment / "Lib/site-packages/bpy"]
    tools = [tool for wheel in wheels for tool in wheel.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py")]
    if not tools:
        raise PackageError(f"{environment} holds no blender_ext.py: delete the folder and run this again.")
    return tools[0]


def entries(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, zipfile.ZipInfo]]:
    """Each file, in the order of names, and how it is to be written: without its time, its mode or its builder's system."""
    for old in sorted(archive.infolist(), key=lambda info: info.filename):
        if not old.is_dir():
            new = zipfile.ZipInfo(old.filename, EPOCH)
            new.compress_type, new.create_system, new.external_attr = old.compress_type, 3, 0o100644 << 16
            new.file_size = old.file_size
            yield old, new


def settle(source: Path, target: Path) -> None:
    """Write the zip anew so that its bytes depend on its files alone: not on the folder's order, the clock or the time zone."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compresslevel=9) as new:
        for before, after in entries(old):
            after._compresslevel = 9  # type: ignore[attr-defined]  # `open` takes it from nowhere else
            with old.open(before) as reader, new.open(after, "w") as writer:
                shutil.copyfileobj(reader, writer, 1 << 20)


def package(out: Path, bundle: Bundle | None = None, indexes: Sequence[str] = (), isnet: bool = True) -> Path:
    """Build and validate a zip in `out`, with ISNet's weights or without; it appears there when all is well. Raises PackageError."""
    tool = [sys.executable, str(extension_tool(Path(sys.prefix)))]
    suffix = (f"-{bundle.name}" if bundle else "") + ("" if isnet else "-without-isnet")
    target = out.resolve() / f"anyrig-{manifest_version()}{suffix}.zip"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="anyrig-") as name:
        folder, raw, done = Path(name, "files"), Path(name, "raw.zip"), Path(name, "done.zip")
        stage(folder, isnet)
        if bundle:
            add_wheels(folder, bundle, indexes)
        run([*tool, "validate", str(folder)])
        run([*tool, "build", "--source-dir", str(folder), "--output-filepath", str(raw)])
        settle(raw, done)
        run([*tool, "validate", str(done)])
        shutil.move(done, target)
    say(f"{target} is {target.stat().st_size / 1e6:.1f} MB")
    return target


# ---- command line


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="build.py package",
        description="Without --platform: a zip without wheels, for a Blender whose Python has torch. Options may be repeated; "
        "one zip is made per combination.",
    )
    top.add_argument("--platform", action="append", choices=PLATFORMS, help="bundle the wheels of this system")
    top.add_argument("--python", action="append", choices=PYTHONS, help="of that Blender: 4.2 to 5.0 have 3.11 (default)")
    top.add_argument("--torch", action="append", choices=TORCHES, help="cpu (default; Metal on macOS) or cuda")
    top.add_argument("--index-url", action="append", default=[], metavar="URL", help="ask here, not where pip is set to")
    top.add_argument("--without-isnet", action="store_true", help="leave out the weights of uncertain licence (docs/models.md)")
    top.add_argument("--out", type=Path, default=ROOT / "dist")
    return top


def bundles(options: argparse.Namespace) -> list[Bundle | None]:
    """The zips that were asked for; None is the one without wheels. Raises PackageError for options that ask for nothing."""
    if options.platform:
        choices = (options.platform, options.python or PYTHONS[:1], options.torch or TORCHES[:1])
        return [Bundle(*each) for each in itertools.product(*choices)]
    if options.python or options.torch or options.index_url:
        raise PackageError("A zip without --platform holds no wheels: add --platform, or leave the other options out.")
    return [None]


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    for bundle in bundles(options):
        package(options.out, bundle, options.index_url, not options.without_isnet)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PackageError as error:
        sys.exit(f"package: {error}")

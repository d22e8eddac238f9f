"""package.py: what a zip holds, its wheels, and that a build which must not succeed leaves nothing."""

import ast
import hashlib
import itertools
import os
import shutil
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from anyrig.tests.scripts import load_script
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


package = load_script("package")
Bundle = package.Bundle
LINUX = Bundle("linux-x64", "3.11", "cpu")


# ---- the zip without wheels


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.package(tmp_path_factory.mktemp("one"))


def names_in(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def manifest_in(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return tomllib.loads(archive.read("blender_manifest.toml").decode())


def test_the_zip_holds_what_the_extension_needs_and_nothing_else(zipped: Path):
    names = names_in(zipped)
    assert {"__init__.py", "blender_manifest.toml", "LICENSE", "addon/__init__.py", "backend/capture/pipeline.py"} <= names
    assert "addon/batch/flamenco/anyrig_batch.js" in names
    strange = [name for name in names if name.startswith((*package.DEVELOPERS, "tests", "docs")) or "__pycache__" in name]
    assert not strange
    assert names == {*package.staged_files(), "__init__.py"}
    assert {name.split("/")[0] for name in names} == {"__init__.py", "blender_manifest.toml", "LICENSE", "addon", "backend"}


def test_every_module_and_weight_of_the_repository_is_staged_or_left_out_on_purpose():
    left = {path.relative_to(ROOT).as_posix() for part in ("addon", "backend") for path in (ROOT / part).rglob("*.py")}
    left |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "backend" / "data").rglob("*") if path.is_file()}
    assert {name for name in left if name.startswith(package.DEVELOPERS)} == left - set(package.staged_files())


def absent_imports(name: str, present: set[str]) -> list[str]:
    """Modules of ours that a staged file imports, anywhere in it, and that are not staged."""
    missing = []
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = Path(name).parents[node.level - 1]
        for module in [node.module] if node.module else [alias.name for alias in node.names]:
            path = (folder / module.replace(".", "/")).as_posix()
            if not {f"{path}.py", f"{path}/__init__.py"} & present:
                missing.append(path)
    return missing


# what only the repository can do, and what says so where it is missing
KNOWN_ABSENT = {
    "backend/cli.py": ["backend/train/parsers"],
}


def test_what_is_in_the_zip_imports_only_what_is_in_it():
    present = set(package.staged_files())
    absent = {name: absent_imports(name, present) for name in present if name.endswith(".py")}
    assert {name: sorted(set(found)) for name, found in absent.items() if found} == KNOWN_ABSENT


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The extension without its weights, which take most of a build's time."""
    names = ("blender_manifest.toml", "LICENSE", "addon/__init__.py", "backend/errors.py")
    files = {name: ROOT / name for name in names}
    monkeypatch.setattr(package, "staged_files", lambda: files)
    return files


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_clock_the_time_zone_and_the_order_of_files_do_not_show(
    small: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = digest(package.package(tmp_path / "one"))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    backwards = dict(reversed(small.items()))
    monkeypatch.setattr(package, "staged_files", lambda: backwards)
    copy = shutil.copyfile

    def later(source: Path, target: Path) -> None:
        copy(source, target)
        os.utime(target, (1.9e9, 1.9e9))
        target.chmod(0o755)

    monkeypatch.setattr(shutil, "copyfile", later)
    try:
        assert digest(package.package(tmp_path / "two")) == first
    finally:
        monkeypatch.undo()
        time.tzset()


def test_settling_keeps_every_file_and_its_compression(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
        archive.writestr("b.py", "x = 1\n" * 100, zipfile.ZIP_DEFLATED)
        archive.writestr("a/w.whl", b"wheel" * 100, zipfile.ZIP_STORED)
        archive.mkdir("empty")
    package.settle(tmp_path / "raw.zip", tmp_path / "done.zip")
    with zipfile.ZipFile(tmp_path / "done.zip") as archive:
        assert archive.namelist() == ["a/w.whl", "b.py"] and archive.testzip() is None
        assert archive.read("b.py") == b"x = 1\n" * 100 and archive.read("a/w.whl") == b"wheel" * 100
        assert [info.compress_type for info in archive.infolist()] == [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


def test_isnet_is_left_out_when_asked(small: dict[str, Path], tmp_path: Path):
    isnet = {path.relative_to(ROOT).as_posix() for path in (ROOT / "backend" / "data").glob("isnet*")}
    assert len(isnet) == 2
    small |= dict.fromkeys([*isnet, "backend/data/lite.safetensors"], ROOT / "LICENSE")
    assert package.main(["--out", str(tmp_path)]) == package.main(["--out", str(tmp_path), "--without-isnet"]) == 0
    whole, other = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
    assert other.name == f"{whole.stem}-without-isnet.zip"
    assert names_in(whole) - names_in(other) == isnet and "backend/data/lite.safetensors" in names_in(other)


def test_a_manifest_that_blender_refuses_leaves_no_zip(small: dict[str, Path], tmp_path: Path):
    bad = tmp_path / "bad.toml"
    text = (ROOT / "blender_manifest.toml").read_text()
    bad.write_text(text.replace('tagline = "Keys', 'tagline = "Keys.').replace('any armature"', 'any armature."'))
    small["blender_manifest.toml"] = bad
    with pytest.raises(package.PackageError, match="validate .* failed with exit code 1"):
        package.package(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_an_environment_without_bpy_is_named(tmp_path: Path):
    with pytest.raises(package.PackageError, match="holds no blender_ext.py"):
        package.extension_tool(tmp_path)


# ---- the table of wheels, against an index made here


# what the real ones say that they need
NEEDS = {
    "torch": [
        "filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2", "fsspec>=0.8.5",
    ],
    "scipy": ["numpy<2.5,>=1.23.5"],
    "opencv-python-headless": ['numpy>=1.21.2; python_version >= "3.10"', 'numpy>=1.26.0; python_version >= "3.12"'],
    "sympy": ["mpmath<1.4,>=1.1.0"],
    "jinja2": ["MarkupSafe>=2.0"],
    "cuda-toolkit": ['nvidia-cublas==13.1.*; extra == "cublas"', 'nvidia-nvtx==13.0.*; extra == "nvtx"', 'no-such; extra == "all"'],
    "cuda-bindings": ["cuda-pathfinder>=1.4.2"],
}  # fmt: skip
CUDA_NEEDS = [
    'cuda-toolkit[cublas,nvtx]==13.0.3; platform_system == "Linux"',
    'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"',
]
COMPILED = ("torch", "scipy", "markupsafe", "triton", "cuda-bindings")
TAGS = {"linux-x64": "manylinux_2_28_x86_64", "windows-x64": "win_amd64", "macos-arm64": "macosx_12_0_arm64"}
COMBINATIONS = [Bundle(*each) for each in itertools.product(package.PLATFORMS, package.PYTHONS, package.TORCHES)]
POSSIBLE = [each for each in COMBINATIONS if each[::2] != ("macos-arm64", "cuda")]


def make_wheel(folder: Path, name: str, version: str, tag: str, needs: Iterable[str] = ()) -> Path:
    """A wheel with nothing in it but what it says of itself."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", *(f"Requires-Dist: {need}\n" for need in needs)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "".join(metadata))
        archive.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def tag_of(name: str, bundle: Any) -> str:
    abi = "cp" + bundle.python.replace(".", "")
    if name in COMPILED:
        return f"{abi}-{abi}-{TAGS[bundle.platform]}"
    if name in ("opencv-python-headless", "safetensors"):
        return f"cp37-abi3-{TAGS[bundle.platform]}"
    return f"py3-none-{TAGS[bundle.platform]}" if name.startswith("nvidia") else "py3-none-any"


def torches(bundle: Any) -> list[tuple[str, list[str]]]:
    """Versions of torch that indexes have for a system, whatever was asked for."""
    common = NEEDS["torch"]
    if bundle.platform == "macos-arm64":
        return [("2.13.0", common + CUDA_NEEDS)]
    plain = [("2.13.0+cpu", common), ("2.13.0", common + CUDA_NEEDS), ("2.14.1", common)]
    return plain if bundle.platform == "linux-x64" else [*plain, ("2.13.0+cu130", common)]


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an index with every wheel of the table, other ones beside them, and numpy."""
    root = tmp_path_factory.mktemp("index")
    pyproject = package.load_pyproject()
    for bundle in POSSIBLE:
        make_wheel(root / "numpy", "numpy", "1.26.4", tag_of("scipy", bundle))
        for version, needs in torches(bundle):
            make_wheel(root / "torch", "torch", version, tag_of("torch", bundle), needs)
        for text in package.wheel_requirements(bundle, pyproject):
            need = Requirement(text)
            if need.name != "torch":
                [pin] = need.specifier
                make_wheel(root / need.name, need.name, pin.version, tag_of(need.name, bundle), NEEDS.get(need.name, ()))
    for folder in root.iterdir():
        links = "".join(f'<a href="{path.name.replace("+", "%2B")}">{path.name}</a>\n' for path in sorted(folder.glob("*.whl")))
        (folder / "index.html").write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
    return root.as_uri()


@pytest.fixture
def no_pip_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


EXPECTED_TORCH = {
    ("linux-x64", "cpu"): "2.13.0+cpu",
    ("linux-x64", "cuda"): "2.13.0",
    ("windows-x64", "cpu"): "2.13.0+cpu",
    ("windows-x64", "cuda"): "2.13.0+cu130",
    ("macos-arm64", "cpu"): "2.13.0",
}


@pytest.mark.parametrize("bundle", POSSIBLE, ids=lambda bundle: bundle.name)
def test_each_combination_brings_its_wheels(
    bundle: Any, wheelhouse: str, small: dict[str, Path], no_pip_settings: None, tmp_path: Path
):
    before = (ROOT / "blender_manifest.toml").read_bytes()
    made = package.package(tmp_path, bundle, [wheelhouse])
    assert made.name == f"anyrig-{package.manifest_version()}-{bundle.name}.zip"
    wheels = {name for name in names_in(made) if name.endswith(".whl")}
    manifest = manifest_in(made)
    assert {f"./{name}" for name in wheels} == set(manifest["wheels"]) and manifest["platforms"] == [bundle.platform]
    assert {**manifest_in_tree(), "wheels": manifest["wheels"], "platforms": manifest["platforms"]} == manifest
    torch = f"wheels/torch-{EXPECTED_TORCH[bundle.platform, bundle.torch]}-{tag_of('torch', bundle)}.whl"
    assert [name for name in wheels if name.startswith("wheels/torch-")] == [torch]
    assert len(wheels) == len(package.wheel_requirements(bundle, package.load_pyproject()))
    assert not any(name.startswith("wheels/numpy") for name in wheels)
    assert (ROOT / "blender_manifest.toml").read_bytes() == before


def manifest_in_tree() -> dict[str, Any]:
    return tomllib.loads((ROOT / "blender_manifest.toml").read_text())


def test_the_index_may_come_from_pips_own_settings(
    wheelhouse: str, small: dict[str, Path], no_pip_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_INDEX_URL", wheelhouse)
    first, second = (digest(package.package(tmp_path / name, LINUX)) for name in ("one", "two"))
    assert first == second


def test_several_indexes_are_asked_together(wheelhouse: str, no_pip_settings: None, tmp_path: Path):
    (tmp_path / "torch").mkdir()
    wanted = package.wheel_requirements(LINUX, package.load_pyproject())
    tags = package.load_pyproject()["tool"]["anyrig"]["wheels"]["platforms"]["linux-x64"]["tags"]
    package.download(LINUX, wanted, tags, [tmp_path.as_uri(), wheelhouse], tmp_path / "wheels")
    assert len(list((tmp_path / "wheels").iterdir())) == len(wanted)


def test_wheels_that_are_not_there_are_one_sentence(
    small: dict[str, Path], no_pip_settings: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(package.PackageError, match="wheels for linux-x64-py311-cpu could not be fetched"):
        package.package(tmp_path / "out", LINUX, [tmp_path.as_uri()])
    assert not list((tmp_path / "out").iterdir())
    assert "torch==2.13.0+cpu" in capfd.readouterr().err


def test_a_table_that_lacks_a_wheel_makes_no_zip(
    wheelhouse: str, small: dict[str, Path], no_pip_settings: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pyproject = package.load_pyproject()
    common = pyproject["tool"]["anyrig"]["wheels"]["common"]
    common[:] = [each for each in common if not each.startswith("jinja2")]
    monkeypatch.setattr(package, "load_pyproject", lambda: pyproject)
    with pytest.raises(package.PackageError, match="torch.* needs jinja2: put it into"):
        package.package(tmp_path / "out", LINUX, [wheelhouse])
    assert not list((tmp_path / "out").iterdir())


def test_torch_with_cuda_on_a_mac_is_refused():
    with pytest.raises(package.PackageError, match="no torch with cuda for macos-arm64"):
        package.wheel_requirements(Bundle("macos-arm64", "3.11", "cuda"), package.load_pyproject())


@pytest.mark.parametrize("name", ["numpy", "NumPy", "charset_normalizer", "requests", "setuptools"])
def test_what_blender_ships_is_refused_in_the_table(
    name: str, small: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pyproject = package.load_pyproject()
    pyproject["tool"]["anyrig"]["wheels"]["common"].append(f"{name}==1.0")
    monkeypatch.setattr(package, "load_pyproject", lambda: pyproject)
    with pytest.raises(package.PackageError, match="Blender ships .* itself"):
        package.package(tmp_path / "out", LINUX)
    assert not list((tmp_path / "out").iterdir())


def wheels_table() -> dict[str, Any]:
    return package.load_pyproject()["tool"]["anyrig"]["wheels"]


@pytest.fixture
def wheels(tmp_path: Path) -> Callable[..., None]:
    """Makes wheels in one folder and checks them as those of a zip for Linux."""

    def check(*made: tuple[str, str, list[str]]) -> None:
        for name, version, needs in made:
            make_wheel(tmp_path / "wheels", name, version, "py3-none-any", needs)
        package.check_closed(tmp_path / "wheels", LINUX, wheels_table())

    return check


def test_what_blender_ships_is_refused_among_the_wheels(wheels: Callable[..., None]):
    with pytest.raises(package.PackageError, match="Blender ships numpy itself"):
        wheels(("numpy", "1.26.4", []))


def test_a_wheel_that_lacks_another_is_named(wheels: Callable[..., None]):
    with pytest.raises(package.PackageError, match=r"torch-2\.13\.0-py3-none-any\.whl needs filelock"):
        wheels(("torch", "2.13.0", ["filelock"]))


def test_a_wheel_of_the_wrong_version_is_lacking(wheels: Callable[..., None]):
    with pytest.raises(package.PackageError, match="needs mpmath<1.4"):
        wheels(("sympy", "1.14.0", ["mpmath<1.4"]), ("mpmath", "1.4.0", []))


def test_a_need_of_an_extra_counts_once_it_is_asked_for(wheels: Callable[..., None]):
    wheels(("toolkit", "1", ['cublas; extra == "cublas"']), ("other", "1", []))
    with pytest.raises(package.PackageError, match="toolkit-1-py3-none-any.whl needs cublas"):
        wheels(("other", "1", ["toolkit[cublas]"]))


def test_needs_of_other_systems_do_not_count(wheels: Callable[..., None]):
    wheels(("torch", "2.13.0", ['wmi; platform_system == "Windows"', 'tomli; python_version < "3.11"', "numpy"]))


def test_the_table_has_all_that_runs_and_only_pins():
    pyproject = package.load_pyproject()
    runtime = {Requirement(each).name for each in pyproject["dependency-groups"]["runtime"]}
    for bundle in POSSIBLE:
        needs = [Requirement(each) for each in package.wheel_requirements(bundle, pyproject)]
        assert runtime <= {need.name for need in needs} and len({need.name for need in needs}) == len(needs)
        assert all("==" in {pin.operator for pin in need.specifier} for need in needs)


@pytest.mark.parametrize("text", ["a = 1\n[t]\nb = 2\n", "a = 1\n"])
def test_the_wheels_stand_at_the_top_level_of_the_manifest(text: str):
    manifest = tomllib.loads(package.manifest_with_wheels(text, LINUX, ["b.whl", "a.whl"]))
    assert manifest == {**tomllib.loads(text), "platforms": ["linux-x64"], "wheels": ["./wheels/a.whl", "./wheels/b.whl"]}


# ---- options


def asked(*arguments: str) -> list[Any]:
    return package.bundles(package.parser().parse_args(arguments))


def test_options_become_zips():
    assert asked() == [None]
    assert asked("--platform", "linux-x64") == [LINUX]
    both = ("--platform", "linux-x64", "--platform", "windows-x64", "--torch", "cuda", "--python", "3.11", "--python", "3.13")
    assert [each.name for each in asked(*both)] == [
        "linux-x64-py311-cuda", "linux-x64-py313-cuda", "windows-x64-py311-cuda", "windows-x64-py313-cuda",
    ]  # fmt: skip


@pytest.mark.parametrize("option", [("--torch", "cpu"), ("--python", "3.11"), ("--index-url", "file:///x")])
def test_options_about_wheels_ask_for_a_platform(option: tuple[str, str]):
    with pytest.raises(package.PackageError, match="add --platform"):
        asked(*option)

"""The zip as a user installs it: from file into a profile of its own, used, upgraded and removed without a trace.

Set ANYRIG_BUNDLE to a zip made with `build.py package --platform ...` to go the same way with the wheels that it brings and the
`lite` weights; 2 GB of disk, one to three minutes and no network on each Blender.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.video.reader import write_video

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = os.environ.get("ANYRIG_BUNDLE", "")
# a second extension: what installing and removing ours must not touch
OTHER = """schema_version = "1.0.0"
id = "other"
version = "1.2.3"
name = "Other"
tagline = "Another extension"
maintainer = "Somebody"
type = "add-on"
license = ["SPDX-License-Identifier: GPL-3.0-or-later"]
blender_version_min = "4.2.0"
"""


@pytest.fixture(scope="module")
def plain_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the extension builder of the Blender that runs this test."""
    spec = importlib.util.spec_from_file_location("anyrig_package", ROOT / "package.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["anyrig_package"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    return package.package(tmp_path_factory.mktemp("zip"))


def older(new: Path, path: Path) -> Path:
    """The same extension as version 0.0.1, with a file that the new one has no more."""
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(path, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "blender_manifest.toml":
                data = re.sub(rb'(?m)^version = ".*"$', b'version = "0.0.1"', data)
            target.writestr(info, data)
        target.writestr("addon/gone.py", "")
    return path


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile with something of the user's in every place."""
    folder = tmp_path / "profile"
    other = folder / "extensions" / "user_default" / "other"
    for path, text in {
        other / "blender_manifest.toml": OTHER,
        other / "__init__.py": "def register():\n    pass\n\n\ndef unregister():\n    pass\n",
        folder / "extensions" / ".user" / "user_default" / "other" / "data.txt": "mine",
        folder / "scripts" / "presets" / "mine.py": "import bpy\n",
        folder / "config" / "bookmarks.txt": "[Bookmarks]\n",
        folder / "datafiles" / "mine.txt": "mine",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


# what Blender itself leaves once anything was installed
BLENDERS = {"extensions/.cache", "extensions/.cache/compat.dat"}
BLENDERS |= {"extensions/user_default/.blender_ext", "extensions/user_default/.blender_ext/cache"}
# ... or brought wheels: the folders that they were in, empty
BLENDERS |= {f"extensions/.local{below}" for below in ("", "/lib", "/lib/python3.11", "/lib/python3.11/site-packages")}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder (None), but for Blender's own and what Python compiled."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
    return {name: data for name, data in found.items() if name not in BLENDERS and "__pycache__" not in name.split("/")}


def blender(profile: Path, *steps: str) -> str:
    """One start of Blender; returns what it printed."""
    env = {**os.environ, "BLENDER_USER_RESOURCES": str(profile), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("installed.py")), *steps]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = re.findall(r"^done (\w+)$", done.stdout, re.MULTILINE)
    assert ran == [step.partition("=")[0] for step in steps], done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def moving_box(path: Path) -> Path:
    frames = np.full((6, 64, 80, 3), 200, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:56, 12 + 4 * index : 32 + 4 * index] = (40, 90, 160)
    write_video(path, frames, 12.0)
    return path


def live(zipped: Path, profile: Path, tmp_path: Path, model: str) -> str:
    """A whole life of the extension in a profile, over two starts of Blender; the profile is as before at its end."""
    capture = f"capture={moving_box(tmp_path / 'box.mp4')},{model}"
    before = contents(profile)
    blender(profile, f"install={older(zipped, tmp_path / 'older.zip')}")
    assert (profile / "extensions" / "user_default" / "anyrig" / "addon" / "gone.py").is_file()
    steps = ["restart", "preferences", capture, "toggle", f"upgrade={zipped}", capture, "diagnostics", "toggle", "remove"]
    said = blender(profile, *steps)
    after = contents(profile)
    assert not set(after) ^ set(before), sorted(set(after) ^ set(before))
    assert after == before
    return said


def test_installed_used_upgraded_and_removed(plain_zip: Path, profile: Path, tmp_path: Path) -> None:
    said = live(plain_zip, profile, tmp_path, "tiny")
    assert re.search(r"^Info: AnyRig: \d+\.\d+\.\d+ in .*user_default/anyrig$", said, re.MULTILINE), said


@pytest.mark.skipif(not BUNDLE, reason="ANYRIG_BUNDLE names no zip with wheels")
def test_the_bundled_wheels_are_those_that_run(profile: Path, tmp_path: Path) -> None:
    said = live(Path(BUNDLE).resolve(), profile, tmp_path, "lite")
    unpacked = profile / "extensions" / ".local"
    where = re.findall(r"^torch \S+ in (.*)$", said, re.MULTILINE)
    assert len(where) == 2 and all(Path(path).is_relative_to(unpacked) for path in where), where
    for name in ("torch", "scipy", "cv2", "safetensors"):
        assert re.search(rf"^Info: {name}: \d\S+ in {re.escape(str(unpacked))}/", said, re.MULTILINE), said
    assert "Info: numpy: " in said and f"in {unpacked}/lib/python3.11/site-packages/numpy" not in said
    sys.stdout.write(said)
    shutil.rmtree(profile)

"""ISNet in the preferences: what reaches a capture, what is drawn, and the kept subjects that can be cleared."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import pytest
from anyrig.addon.capture import run_capture
from anyrig.addon.preferences import kept_subjects
from anyrig.addon.settings import preference_values, presets
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.segmentation import matte_finder, subject_cache
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.drawn import Layout, texts

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user folder of an add-on that is installed."""
    monkeypatch.setattr(bpy.utils, "extension_path_user", lambda _id, path: str(tmp_path / path))
    return tmp_path / "subjects"


def prefer(monkeypatch: pytest.MonkeyPatch, **values: Any) -> SimpleNamespace:
    found = SimpleNamespace(**{"clear_origin": False, "isnet_file": "", "weights_folder": "", **values})
    monkeypatch.setattr(preference_values, "preferences", lambda _context: found)
    return found


def settings(**values: Any) -> Settings:
    params = CaptureParams(Clip("v.mp4"), Settings(**values))
    return run_capture.with_preferences(bpy.context, params).settings


def test_the_preferences_reach_the_capture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer(monkeypatch)
    assert settings() == Settings(cache=str(folder))
    prefer(monkeypatch, isnet_file="/nets/isnet-1.safetensors")
    assert settings().isnet == "/nets/isnet-1.safetensors"
    prefer(monkeypatch, isnet_file="/nets/isnet-1.safetensors", clear_origin=True)
    assert settings().isnet == preference_values.ISNET_OFF == matte_finder.OFF
    assert settings(isnet="/mine.safetensors", cache="/kept") == Settings(isnet="/mine.safetensors", cache="/kept")


def test_an_addon_that_is_not_installed_keeps_nothing() -> None:
    assert settings() == Settings() and kept_subjects.kept_bytes() == 0


def test_presets_hold_neither() -> None:
    assert not {"isnet", "cache", "box", "use_box", "box_time"} & {*presets.NAMES}


def test_the_kept_subjects_are_cleared(folder: Path) -> None:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}{subject_cache.SUFFIX}").write_bytes(bytes(1500))
    (folder / "c.subject.partial").write_bytes(bytes(10))
    (folder / "mine.txt").write_bytes(bytes(10))
    assert kept_subjects.kept_bytes() == 3010
    assert bpy.ops.anyrig.clear_subjects() == {"FINISHED"}
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("values", "bundled", "shown"),
    [
        ({}, True, "ISNet is in this AnyRig"),
        ({}, False, "ISNet is not in this AnyRig"),
        ({"clear_origin": True}, True, ""),
        ({"isnet_file": "/isnet-1.safetensors"}, False, ""),
    ],
)
def test_the_preferences_say_whether_isnet_is_there(
    values: dict[str, Any], bundled: bool, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_subjects, "is_bundled", lambda: bundled)
    layout = Layout()
    kept_subjects.draw(layout, prefer(monkeypatch, **values))  # type: ignore[arg-type]
    labels = " ".join(texts(layout.drawn, "label"))
    assert ("this AnyRig" in labels) == bool(shown) and shown in labels and "docs/models.md" in labels
    assert ("operator", "anyrig.clear_subjects") in layout.drawn

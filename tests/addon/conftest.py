"""Every test with bpy starts in an empty file; those that ask for it, with the add-on registered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import pytest
from anyrig import addon
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.tasks import background_runner
from anyrig.backend.segmentation import matte_finder


@pytest.fixture(autouse=True)
def empty_file() -> None:
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)


@pytest.fixture(autouse=True, scope="session")
def no_isnet() -> Iterator[None]:
    """It takes seconds an image. The videos of these tests have plain backdrops or alpha, before which no network is needed."""

    def refuse(*_: Any) -> None:
        raise AssertionError("this test's video is not before a plain backdrop: ISNet would have to look at it")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matte_finder, "load_isnet", refuse)
        yield


@pytest.fixture
def small_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views of 32 pixels: their size is tested in test_view."""

    def render(*arguments: Any, **options: Any) -> Any:
        return render_meshes(*arguments, size=32, **options)

    render_meshes = run_capture.render_meshes
    monkeypatch.setattr(run_capture, "render_meshes", render)


@pytest.fixture
def registered() -> Iterator[None]:
    addon.register()
    yield
    addon.unregister()


@pytest.fixture
def registered_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registered, with temporary files and the store of takes in a folder of the test's own."""
    monkeypatch.setattr(take_store.tempfile, "gettempdir", lambda: str(tmp_path))
    addon.register()
    yield
    addon.unregister()
    background_runner.set_status("")

"""Check Device and Copy Diagnostics: what is told, to whom, and what is kept back."""

import hashlib
import importlib
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import pytest
import torch
from anyrig.addon.command_line import commands
from anyrig.addon.preferences import diagnostics, panel
from anyrig.addon.settings import preference_values
from anyrig.addon.tasks import background_runner
from anyrig.backend.errors import UserError
from anyrig.backend.hardware import devices
from anyrig.backend.hardware.devices import Finding, Gpu, Torch

pytestmark = pytest.mark.usefixtures("registered")


class Layout:
    """Remembers what is drawn: (text, icon, alert) of labels, ids of operators."""

    def __init__(self, labels: list[Any] | None = None, operators: list[str] | None = None, alert: bool = False) -> None:
        self.labels: list[Any] = [] if labels is None else labels
        self.operators: list[str] = [] if operators is None else operators
        self.alert = alert

    def column(self, **_options: Any) -> "Layout":
        return Layout(self.labels, self.operators, self.alert)

    row = box = column

    def prop(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def label(self, text: str, icon: str = "NONE", **_options: Any) -> None:
        self.labels.append((text, icon, self.alert))

    def operator(self, name: str, icon: str, **_options: Any) -> None:
        self.operators.append(name)


def drawn() -> Layout:
    layout = Layout()
    values = SimpleNamespace(layout=layout, clear_origin=False, isnet_file="")
    panel.ANYRIG_Preferences.draw(values, bpy.context)  # type: ignore[arg-type]
    return layout


def text_of(layout: Layout) -> str:
    return " ".join(text for text, _, _ in layout.labels)


# ---- the preferences


def test_the_preferences_say_which_torch_there_is() -> None:
    folder = str(Path(torch.__file__).parent)
    assert diagnostics.library_folder("torch") == (torch.__version__, folder)
    layout = drawn()
    assert re.match(rf"PyTorch {re.escape(torch.__version__)} in \S", text_of(layout)) and layout.labels[0][1] == "FILE_FOLDER"
    assert layout.operators[:2] == ["anyrig.check_device", "anyrig.copy_diagnostics"]


def test_the_version_is_that_of_the_module_that_would_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another torch further up sys.path, as a folder of packages beside Blender's own is."""
    (tmp_path / "cv2").mkdir()
    (tmp_path / "cv2" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    assert diagnostics.library_folder("cv2") == ("of unknown version", str(tmp_path / "cv2"))
    (tmp_path / "opencv_python-9.8.7.dist-info").mkdir()
    (tmp_path / "opencv_python-9.8.7.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: opencv-python\nVersion: 9.8.7\n"
    )
    importlib.invalidate_caches()
    assert diagnostics.library_folder("cv2") == ("9.8.7", str(tmp_path / "cv2"))


def test_missing_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert diagnostics.torch_text() == "PyTorch is missing: install the AnyRig zip made for this system."
    assert drawn().labels[0] == ("PyTorch is missing: install the AnyRig zip made for this system.", "ERROR", True)
    assert "torch: missing\n" in diagnostics.report(bpy.context)


def test_drawing_is_quick_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("loaded while drawing")

    monkeypatch.setattr(devices, "look_up_devices", refuse)
    monkeypatch.setattr(diagnostics.importlib, "import_module", refuse)
    drawn()
    began = time.process_time()
    drawn()
    assert time.process_time() - began < 0.05


def test_check_device_tells_and_stays_in_the_preferences() -> None:
    assert bpy.ops.anyrig.check_device() == {"FINISHED"}
    text = text_of(drawn())
    assert f"PyTorch {torch.__version__}" in text and "Captures run on " in text
    addon.unregister()
    addon.register()
    assert "Captures run on" not in text_of(drawn())


@pytest.fixture
def blackwell(monkeypatch: pytest.MonkeyPatch) -> Torch:
    """A torch for CUDA with a card that is newer than it."""
    found = Torch("2.5.1", "CUDA 12.4", ("sm_80", "sm_90"), (Gpu("NVIDIA GeForce RTX 5090", "sm_120", 32 * 2**30),))
    monkeypatch.setattr(devices, "look_up_devices", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "free_memory", lambda _: 30 * 2**30)
    return found


def test_a_card_that_torch_was_not_built_for_is_an_error_in_words(blackwell: Torch) -> None:
    first, second = diagnostics.check(bpy.context)
    assert not first.good and "is newer than what PyTorch 2.5.1 was built for (up to sm_90)" in first.text
    assert second == Finding("Captures run on the processor.", True)
    bpy.ops.anyrig.check_device()
    layout = drawn()
    assert first.text in text_of(layout) and [alert for _, icon, alert in layout.labels if icon == "ERROR"] == [True]
    text = diagnostics.report(bpy.context)
    assert "\nMade for: CUDA 12.4 (sm_80 sm_90)\n" in text
    assert "\nGPU 0: NVIDIA GeForce RTX 5090, sm_120, 32.0 GB, 30.0 GB free\n" in text


def test_a_device_that_fails_its_first_computation_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "try_device", lambda _: "no kernel image is available")
    last = diagnostics.check(bpy.context)[-1]
    assert not last.good and last.text.endswith("failed (no kernel image is available): set Device to CPU.")


def test_a_device_that_was_asked_for_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preference_values, "default_device", lambda _: "mps")
    if not torch.backends.mps.is_available():
        assert diagnostics.check(bpy.context)[-1].text.startswith("Device 'mps' does not work with the torch found here")


def test_a_torch_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise UserError("PyTorch does not load (c10.dll): install the AnyRig zip made for this system.")

    monkeypatch.setattr(devices, "look_up_devices", broken)
    assert diagnostics.check(bpy.context) == [
        Finding(str(UserError("PyTorch does not load (c10.dll): install the AnyRig zip made for this system.")), False)
    ]
    assert "\nDevice: PyTorch does not load (c10.dll): install" in diagnostics.report(bpy.context)


# ---- the text


def test_the_command_prints_all_that_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["diagnostics"]) == 0
    text = capsys.readouterr().out
    values = dict(line.split(": ", 1) for line in text.splitlines())
    assert values["Blender"].startswith(bpy.app.version_string) and values["Python"] == sys.version.split()[0]
    assert re.match(r"\d+\.\d+\.\d+ in ", values["AnyRig"])
    for name in ("torch", "numpy", "scipy", "cv2", "safetensors"):
        assert re.match(r"\d+\.\d+\S* in \S", values[name]), values[name]
    assert re.fullmatch(r"\d+\.\d GB, (\d+\.\d GB|unknown) free", values["Memory"])
    assert re.search(r"lite\.safetensors, \d+\.\d MB, sha256 [0-9a-f]{16}", text)
    assert values["Preferences"] == "device auto, reference views BLENDER_WORKBENCH"
    assert {"System", "Processor", "Made for", "Device", "Weights", "Scene", "Disk for temporary files"} <= set(values)


def test_wrong_arguments_of_the_command_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["diagnostics", "--loud"]) == 2
    assert "usage:" in capsys.readouterr().err


def test_the_last_message_is_in_it_and_the_weights_are_named_without_their_folder() -> None:
    props = bpy.context.scene.anyrig
    props.model, props.model_file = "FILE", "/secret/place/mine.safetensors"
    background_runner.set_status("Video 'x.mp4' cannot be read: choose another one.", is_error=True)
    text = diagnostics.report(bpy.context)
    background_runner.set_status("")
    assert "\nLast error: Video 'x.mp4' cannot be read: choose another one.\n" in text
    assert "\nScene: model mine.safetensors, device DEFAULT\n" in text and "secret" not in text
    assert "Last" not in diagnostics.report(bpy.context)


def test_released_weights_are_named_without_reading_their_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "_own_folder", lambda: tmp_path)
    (tmp_path / "small.safetensors").write_bytes(b"small")
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(2_600_000_000)  # a hole: it takes no room on the disk
    text = diagnostics.report(bpy.context)
    assert "\nWeights: small.safetensors, 0.0 MB, sha256 " + hashlib.sha256(b"small").hexdigest()[:16] in text
    assert "\nWeights: large.safetensors, 2600.0 MB\n" in text


def test_a_library_that_does_not_load_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    text = diagnostics.library_text("cv2")
    assert text.endswith("does not load: ImportError: libGL.so.1: cannot open shared object file") and str(tmp_path) in text


def test_no_name_of_the_user_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics.Path, "home", lambda: Path("/home/jane"))
    monkeypatch.setattr(diagnostics, "account", lambda: "jane")
    private = diagnostics.private
    assert private("in /home/jane/.config/blender") == "in ~/.config/blender"
    assert private("in '/home/jane' and /home/janet/x") == "in '~' and /home/janet/x"
    assert private("/mnt/jane/x\n/media/jane\n/srv/janes") == "/mnt/<user>/x\n/media/<user>\n/srv/janes"
    assert private(r"D:\work\jane\x, jane the name of a bone") == r"D:\work\<user>\x, jane the name of a bone"


def test_home_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics.Path, "home", lambda: r"C:\Users\Jane D")
    monkeypatch.setattr(diagnostics, "account", lambda: "")
    assert diagnostics.private(r"C:\Users\Jane D\AppData\torch") == r"~\AppData\torch"
    monkeypatch.setattr(diagnostics.Path, "home", lambda: "/")
    assert diagnostics.private("/usr/lib") == "/usr/lib"


def test_the_operator_puts_it_on_the_clipboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A background Blender drops what is put there, so the window is a stand-in."""
    reports: list[str] = []
    operator = SimpleNamespace(report=lambda _kind, text: reports.append(text))
    window = SimpleNamespace(
        scene=bpy.context.scene, preferences=bpy.context.preferences, window_manager=SimpleNamespace(clipboard="")
    )
    monkeypatch.setattr(diagnostics, "in_background", lambda: False)
    assert diagnostics.ANYRIG_OT_copy_diagnostics.execute(operator, window) == {"FINISHED"}  # type: ignore[arg-type]
    text = window.window_manager.clipboard
    assert text.startswith("AnyRig: ") and "\nBlender: " in text and "with a window" in text
    assert reports == [f"{len(text.splitlines())} lines are on the clipboard: paste them into your report"]


def test_the_operator_reports_it_without_a_window(capfd: pytest.CaptureFixture[str]) -> None:
    assert bpy.ops.anyrig.copy_diagnostics() == {"FINISHED"}
    printed = capfd.readouterr().out
    text = diagnostics.report(bpy.context)
    names = re.findall(r"^Info: ([^:]+): ", printed, re.MULTILINE)
    assert names == [line.split(": ")[0] for line in text.splitlines()] and "truncated" not in printed

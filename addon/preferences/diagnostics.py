"""Check Device and Copy Diagnostics: the installed PyTorch, the devices it can use, and the facts for a bug report."""

from __future__ import annotations

import getpass
import hashlib
import importlib
import importlib.metadata
import importlib.util
import platform
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import bpy

from ...backend.errors import UserError, missing_library
from ...backend.hardware import devices, system_info
from ...backend.hardware.devices import Finding
from ..settings import preference_values
from ..tasks import background_runner
from ..ui.wrapped_label import wrapped

HERE = Path(__file__).resolve().parents[2]
# module -> the distributions that may contain it
LIBRARIES = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "cv2": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python", "opencv"),
    "safetensors": ("safetensors",),
}
LARGE = 200e6  # bytes
WRAP = 80  # characters that fit the preferences at their usual width
# what importing a library raises that was built for another system, numpy or Python
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)

_checked: list[Finding] = []


# ---- libraries and devices


def library_folder(name: str) -> tuple[str, str] | None:
    """Version and folder of an importable module, found without importing it; None if there is none."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    # not importlib.metadata.version, which may find another one further up sys.path
    found = (
        each for known in LIBRARIES[name] for each in importlib.metadata.distributions(name=known, path=[str(folder.parent)])
    )
    return next((each.version for each in found), "of unknown version"), str(folder)


def torch_text() -> str:
    """Version and folder of the PyTorch that a capture would use, found without importing it."""
    found = library_folder("torch")
    if found is None:
        return str(missing_library(None, "PyTorch"))
    return private(f"PyTorch {found[0]} in {found[1]}")


def library_text(name: str) -> str:
    """Version and folder of a library that a capture needs; imports it to see whether it loads."""
    found = library_folder(name)
    if found is None:
        return "missing"
    try:
        module = importlib.import_module(name)
    except BROKEN as error:
        return f"{found[0]} in {found[1]} does not load: {type(error).__name__}: {error}"
    return f"{getattr(module, '__version__', found[0])} in {found[1]}"


def card_of_blender() -> str:
    """The graphics card that Blender draws with; '' without a window."""
    import gpu

    try:
        return f"{gpu.platform.vendor_get()} {gpu.platform.renderer_get()}".strip()
    except SystemError:  # "GPU functions for drawing are not available in background mode"
        return ""


def check(context: bpy.types.Context) -> list[Finding]:
    """Load PyTorch and compare it with the device. The last finding names the device of a capture."""
    try:
        found = devices.look_up_devices()
    except UserError as error:
        return [Finding(str(error), False)]
    return [*devices.findings(found, card_of_blender()), _run_on(preference_values.default_device(context))]


def _run_on(wanted: str) -> Finding:
    """Try the device that a capture would run on."""
    from ...backend.hardware.devices import pick_device

    try:
        chosen = str(pick_device(wanted))
    except UserError as error:
        return Finding(str(error), False)
    failure = devices.try_device(chosen)
    if failure:
        return Finding(f"A first computation on '{chosen}' failed ({failure}): set Device to CPU.", False)
    names = {"cpu": "the processor", "cuda": "the graphics card (CUDA)", "mps": "the graphics processor (Metal)"}
    return Finding(f"Captures run on {names[chosen]}.", True)


# ---- the text


def report(context: bpy.types.Context) -> str:
    """The facts for a bug report, one per line, without the user's name. Loads PyTorch."""
    lines = [
        f"{name}: {value}" for part in (_program, _machine, _libraries, _devices, _settings) for name, value in part(context)
    ]
    return private("\n".join(lines)) + "\n"


def _program(_context: bpy.types.Context) -> Iterator[tuple[str, str]]:
    manifest = tomllib.loads((HERE / "blender_manifest.toml").read_text(encoding="utf-8"))
    yield "AnyRig", f"{manifest['version']} in {HERE}"
    build = bpy.app.build_hash.decode(errors="replace")
    window = "without a window" if in_background() else "with a window"
    yield "Blender", f"{bpy.app.version_string} ({build}, {window})"
    yield "Python", platform.python_version()


def _machine(_context: bpy.types.Context) -> Iterator[tuple[str, str]]:
    yield "System", platform.platform()
    yield "Processor", system_info.processor()
    total, free = system_info.memory()
    yield "Memory", f"{_size(total)}, {_size(free)} free"
    yield "Disk for temporary files", f"{_size(shutil.disk_usage(bpy.app.tempdir).free)} free"
    yield "Blender's graphics", card_of_blender() or "unknown without a window"


def _libraries(_context: bpy.types.Context) -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        yield name, library_text(name)


def _devices(context: bpy.types.Context) -> Iterator[tuple[str, str]]:
    try:
        found = devices.look_up_devices()
    except UserError as error:
        yield "Device", str(error)
        return
    yield "Made for", f"{found.toolkit or 'the processor'} ({' '.join(found.archs) or 'no graphics cards'})"
    for index, gpu in enumerate(found.gpus):
        free = _size(devices.free_memory(f"cuda:{index}"))
        yield f"GPU {index}", f"{gpu.name}, {gpu.arch}, {_size(gpu.memory)}, {free} free"
    for finding in [*devices.findings(found, card_of_blender()), _run_on(preference_values.default_device(context))]:
        yield "Device", finding.text


def _settings(context: bpy.types.Context) -> Iterator[tuple[str, str]]:
    for path in [*sorted((HERE / "backend" / "data").glob("*.safetensors")), *sorted(_own_folder().rglob("*.safetensors"))]:
        yield "Weights", f"{path.name}, {path.stat().st_size / 1e6:.1f} MB{_checksum(path)}"
    yield (
        "Preferences",
        f"device {preference_values.default_device(context)}, reference views {preference_values.engine(context)}",
    )
    props = context.scene.anyrig
    name = Path(props.model_file).name if props.model == "FILE" else props.model
    yield "Scene", f"model {name}, device {props.device}"
    text, is_error = background_runner.status()
    if text:
        yield "Last error" if is_error else "Last message", text


def _checksum(path: Path) -> str:
    if (
        path.stat().st_size > LARGE
    ):  # the released weights: their download was checked, and reading gigabytes would freeze Blender
        return ""
    with path.open("rb") as file:
        return f", sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _own_folder() -> Path:
    """The extension's folder of downloads; a folder that does not exist if it is not installed, as in tests."""
    try:
        return Path(bpy.utils.extension_path_user(preference_values.ROOT))
    except ValueError:
        return HERE / "none"


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 2**30:.1f} GB"


def private(text: str) -> str:
    """Replace the user's home folder by ~, and the account's name in other paths by <user>."""
    home = str(Path.home())
    if len(home) > 3:  # not "/" or "C:\"
        text = re.sub(rf"{re.escape(home)}(?=[/\\]|\W|$)", "~", text)
    name = account()
    return re.sub(rf"(?<=[/\\]){re.escape(name)}(?=[/\\]|$)", "<user>", text, flags=re.MULTILINE) if name else text


def account() -> str:
    """The name of the logged-in user; '' if there is none, as in a container."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


# ---- operators and drawing


def in_background() -> bool:
    return bpy.app.background


class ANYRIG_OT_check_device(bpy.types.Operator):
    bl_idname = "anyrig.check_device"
    bl_label = "Check Device"
    bl_description = "Check whether PyTorch can use this computer's graphics card, which takes seconds"

    def execute(self, context: bpy.types.Context) -> set[str]:
        _checked[:] = check(context)
        for finding in _checked:
            self.report({"INFO"} if finding.good else {"WARNING"}, finding.text)
        return {"FINISHED"}


class ANYRIG_OT_copy_diagnostics(bpy.types.Operator):
    bl_idname = "anyrig.copy_diagnostics"
    bl_label = "Copy Diagnostics"
    bl_description = "Copy version and device information for a bug report. Contains no personal data"

    def execute(self, context: bpy.types.Context) -> set[str]:
        text = report(context)
        if in_background():  # without a clipboard
            for line in text.splitlines():  # Blender cuts long reports
                self.report({"INFO"}, line)
            return {"FINISHED"}
        context.window_manager.clipboard = text
        self.report({"INFO"}, f"{len(text.splitlines())} lines are on the clipboard: paste them into your report")
        return {"FINISHED"}


def draw(layout: bpy.types.UILayout) -> None:
    """Draw the installed PyTorch and the findings of Check Device in the preferences."""
    _draw_finding(layout, Finding(torch_text(), library_folder("torch") is not None), "FILE_FOLDER")
    for finding in _checked:
        _draw_finding(layout, Finding(private(finding.text), finding.good), "CHECKMARK")
    row = layout.row()
    row.operator(ANYRIG_OT_check_device.bl_idname, icon="VIEWZOOM")
    row.operator(ANYRIG_OT_copy_diagnostics.bl_idname, icon="COPYDOWN")


def _draw_finding(layout: bpy.types.UILayout, finding: Finding, icon: str) -> None:
    inner = layout.column()
    inner.alert = not finding.good
    wrapped(inner, finding.text, icon if finding.good else "ERROR", WRAP)


CLASSES = (ANYRIG_OT_check_device, ANYRIG_OT_copy_diagnostics)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Forget the findings of Check Device."""
    _checked.clear()


def unregister() -> None:
    reset()
    _unregister_classes()

"""One start of Blender on a profile of its own: `python installed.py STEP...`, a process of test_install.py.

Not a test: it runs outside pytest, where the extension is known under its installed name alone. Each step is a function.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy

MODULE = "bl_ext.user_default.anyrig"
HEAVY = ("torch", "cv2", "scipy", "safetensors")
SOON = 0.5  # seconds of processor time that Blender's start may wait for us; importing torch alone takes several times that


def main(steps: list[str]) -> None:
    here = (install, restart, preferences, capture, diagnostics, toggle, upgrade, remove)
    for step in steps:
        name, _, arguments = step.partition("=")
        began = time.perf_counter()
        {each.__name__: each for each in here}[name](*filter(None, arguments.split(",")))
        print(f"{name} took {time.perf_counter() - began:.2f} s")
        print(f"done {name}", flush=True)


def enabled() -> bool:
    return MODULE in bpy.context.preferences.addons


def traces() -> list[str]:
    """What of the extension Blender knows: modules, classes, properties, preferences, operators, commands."""
    found = [name for name in sys.modules if name == MODULE or name.startswith(MODULE + ".")]
    found += [name for name in dir(bpy.types) if name.startswith("ANYRIG_")]
    found += [
        f"{each.__name__}.anyrig"
        for each in (bpy.types.Scene, bpy.types.Object, bpy.types.WindowManager)
        if hasattr(each, "anyrig")
    ]
    found += [f"operator {name}" for name in dir(bpy.ops.anyrig)]
    found += [
        handler.__module__ for name in dir(bpy.app.handlers) for handler in handlers(name) if "anyrig" in handler.__module__
    ]
    return found + (["preferences"] if enabled() else [])


def handlers(name: str) -> list:
    value = getattr(bpy.app.handlers, name)
    return list(value) if isinstance(value, list) else []


def files() -> Path:
    return Path(os.environ["BLENDER_USER_RESOURCES"], "extensions", "user_default", "anyrig")


def install(path: str, overwrite: bool = False) -> None:
    """From a file, as the menu does. FINISHED says nothing about success, so what is there afterwards is asked."""
    options = {"repo": "user_default", "enable_on_install": True, "overwrite": overwrite}
    before = set(sys.modules)
    bpy.ops.extensions.package_install_files(filepath=path, **options)
    assert enabled() and bpy.types.Scene.anyrig and bpy.ops.anyrig.capture.poll() is False
    loaded = {name.split(".")[0] for name in set(sys.modules) - before}
    assert not loaded & set(HEAVY), f"registering loaded {sorted(loaded & set(HEAVY))}"


def restart() -> None:
    """The next start: the bpy module reads no saved preferences, so it is enabled again from what lies in the profile."""
    assert files().is_dir() and not enabled()
    began = time.process_time()
    bpy.ops.preferences.addon_enable(module=MODULE)
    spent = time.process_time() - began
    print(f"registered in {spent:.3f} s")
    assert enabled() and not set(HEAVY) & set(sys.modules), "registering loaded a library of the capture"
    assert spent < SOON, f"registering took {spent:.2f} s of processor time"


class Layout:
    """Remembers what the preferences draw."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments, **_options: self

    def label(self, text: str, **_options: Any) -> None:
        self.said.append(text)


def preferences() -> None:
    """Drawn before anything else has run, they name the torch and load nothing."""
    layout = Layout()
    drawn = bpy.context.preferences.addons[MODULE].preferences
    values = SimpleNamespace(layout=layout, clear_origin=drawn.clear_origin, isnet_file=drawn.isnet_file)
    type(drawn).draw(values, bpy.context)
    assert layout.said and layout.said[0].startswith("PyTorch "), layout.said
    assert not set(HEAVY) & set(sys.modules), "drawing the preferences loaded a library of the capture"


def rig() -> bpy.types.Object:
    """Five bones one above the other; without a mesh, so that no graphics driver is needed."""
    data = bpy.data.armatures.new("Rig")
    obj = bpy.data.objects.new("Rig", data)
    bpy.context.collection.objects.link(obj)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    parent = None
    for index in range(5):
        bone = data.edit_bones.new(f"bone {index}")
        bone.head, bone.tail, bone.parent = (0, 0, index / 5), (0, 0.01 * index, (index + 1) / 5), parent
        parent = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    return obj


def capture(video: str, model: str) -> None:
    """From the video to keys, by the installed operator."""
    obj = rig()
    props = bpy.context.scene.anyrig
    props.armature, props.video, props.device = obj, video, "cpu"
    props.model, props.model_file = ("lite", "") if model == "lite" else ("FILE", model)
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    first, last = map(int, obj.animation_data.action.frame_range)
    assert last - first >= 5, (first, last)
    assert len(set(poses(obj, range(first, last + 1)))) > 1, "every frame has the same pose"
    import torch

    print(f"torch {torch.__version__} in {torch.__file__}")
    props.armature = None
    bpy.data.objects.remove(obj)


def poses(obj: bpy.types.Object, frames: Iterable[int]) -> Iterator[tuple[float, ...]]:
    """All bones' matrices at each frame, rounded."""
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        yield tuple(round(value, 4) for bone in obj.pose.bones for row in bone.matrix for value in row)


def diagnostics() -> None:
    """Without a window the operator prints its text."""
    assert bpy.ops.anyrig.check_device() == {"FINISHED"}
    assert bpy.ops.anyrig.copy_diagnostics() == {"FINISHED"}


def toggle() -> None:
    """Disabled, nothing of it is known; enabled, all of it is back; the take's action outlives both."""
    actions = [action.name for action in bpy.data.actions]
    bpy.ops.preferences.addon_disable(module=MODULE)
    # Blender keeps the modules of what was disabled, to enable it faster
    left = [name for name in traces() if not name.startswith("bl_ext.")]
    assert not left, left
    bpy.ops.preferences.addon_enable(module=MODULE)
    assert enabled() and bpy.ops.anyrig.capture.poll() is False
    assert actions and [action.name for action in bpy.data.actions] == actions


def upgrade(path: str) -> None:
    """Over the older version that is enabled: the new files are there, the old ones are not, the user's stay."""
    assert "0.0.1" in (files() / "blender_manifest.toml").read_text() and (files() / "addon" / "gone.py").is_file()
    own = Path(bpy.utils.extension_path_user(MODULE, create=True), "take.json")
    own.write_text(json.dumps({"kept": True}))
    bpy.ops.extensions.package_install_files(filepath=path, repo="user_default", enable_on_install=True, overwrite=True)
    assert enabled() and bpy.ops.anyrig.capture.poll() is False
    assert "0.0.1" not in (files() / "blender_manifest.toml").read_text() and not (files() / "addon" / "gone.py").exists()
    assert json.loads(own.read_text()) == {"kept": True}


def remove() -> None:
    names = [repo.module for repo in bpy.context.preferences.extensions.repos]
    bpy.ops.extensions.package_uninstall(repo_index=names.index("user_default"), pkg_id="anyrig")
    assert not traces(), traces()


if __name__ == "__main__":
    main(sys.argv[1:])

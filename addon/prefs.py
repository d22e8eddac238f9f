"""Preferences: what draws the reference views, the usual device, and which PyTorch is there."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, StringProperty

WORKBENCH, CYCLES = "BLENDER_WORKBENCH", "CYCLES"
ENGINES = {"workbench": WORKBENCH, "cycles": CYCLES}  # as commands and files call them
DEVICES = (
    ("auto", "Automatic", "The graphics card where PyTorch can use it, else the processor"),
    ("cuda", "CUDA", "An NVIDIA graphics card (or AMD with ROCm)"),
    ("mps", "Metal", "An Apple graphics processor"),
    ("cpu", "CPU", "The processor: works everywhere"),
)
# Inside the zip this file is bl_ext.REPOSITORY.anyrig.addon.prefs; preferences belong to the extension's root.
ROOT = (__package__ or "").rpartition(".")[0]


class ANYRIG_Preferences(bpy.types.AddonPreferences):
    bl_idname = ROOT

    engine: EnumProperty(
        name="Reference Views",
        description="What draws the pictures of the rig that are compared with the video",
        items=(
            (WORKBENCH, "Workbench", "Fast; needs a working graphics driver"),
            (CYCLES, "Cycles", "For machines without a graphics driver, where Workbench would end Blender"),
        ),
    )
    device: EnumProperty(
        name="Device",
        description="Where the network runs unless the panel says otherwise",
        items=DEVICES,
    )
    weights_folder: StringProperty(
        name="Weights Folder",
        description="Where the released weights lie; empty: with the extension's own files",
        subtype="DIR_PATH",
    )
    mirror: StringProperty(
        name="Weights Mirror",
        description="Address to download the released weights from; empty: the hub where they were published",
    )

    def draw(self, _context: bpy.types.Context) -> None:
        from . import diagnostics  # which reads these preferences

        column = self.layout.column()
        column.use_property_split = True
        column.prop(self, "engine")
        column.prop(self, "device")
        column.prop(self, "weights_folder")
        column.prop(self, "mirror")
        diagnostics.draw(self.layout.box())


def preferences(context: bpy.types.Context) -> ANYRIG_Preferences | None:
    """None where the add-on runs without being installed, as in tests."""
    addon = context.preferences.addons.get(ROOT)
    return None if addon is None else addon.preferences


def engine(context: bpy.types.Context) -> str:
    """The render engine for reference views."""
    found = preferences(context)
    return WORKBENCH if found is None else found.engine


def default_device(context: bpy.types.Context) -> str:
    """The device that the panel's "Preferences" stands for."""
    found = preferences(context)
    return "auto" if found is None else found.device


def weights_folder(context: bpy.types.Context) -> str:
    """Where the released weights lie; '' where the add-on runs without being installed: the backend's own choice."""
    found = preferences(context)
    if found is not None and found.weights_folder:
        return bpy.path.abspath(found.weights_folder)
    try:
        return bpy.utils.extension_path_user(ROOT, path="weights")
    except ValueError:
        return ""


def mirror(context: bpy.types.Context) -> str:
    """What takes the place of the hub, or ''."""
    found = preferences(context)
    return "" if found is None else found.mirror


def register() -> None:
    bpy.utils.register_class(ANYRIG_Preferences)


def unregister() -> None:
    bpy.utils.unregister_class(ANYRIG_Preferences)

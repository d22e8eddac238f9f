"""Reads the preferences: the engine for reference views, the device, the folders, the mirror of the weights, ISNet."""

from __future__ import annotations

import bpy

from ..rendering.engines import WORKBENCH

DEVICES = (
    ("auto", "Automatic", "The graphics card if PyTorch can use it, else the processor"),
    ("cuda", "CUDA", "An NVIDIA graphics card (or AMD with ROCm)"),
    ("mps", "Metal", "An Apple graphics processor"),
    ("cpu", "CPU", "The processor: works everywhere"),
)
ISNET_OFF = "off"  # as `Settings.isnet` names it
# Inside the zip this package is bl_ext.REPOSITORY.anyrig.addon.settings, and preferences belong to the extension's root. Cut from the
# right, since a repository may be called `addon`.
ROOT = (__package__ or "").rpartition(".addon.")[0]


def preferences(context: bpy.types.Context) -> bpy.types.AddonPreferences | None:
    """The preferences; None if the add-on runs without being installed, as in tests."""
    addon = context.preferences.addons.get(ROOT)
    return None if addon is None else addon.preferences


def engine(context: bpy.types.Context) -> str:
    """The render engine for reference views."""
    found = preferences(context)
    return WORKBENCH if found is None else found.engine


def default_device(context: bpy.types.Context) -> str:
    """The device of the preferences, which is used if Device is "Preferences" in the panel."""
    found = preferences(context)
    return "auto" if found is None else found.device


def weights_folder(context: bpy.types.Context) -> str:
    """The folder of the released weights; '' for the backend's own choice, if the add-on runs without being installed."""
    found = preferences(context)
    if found is not None and found.weights_folder:
        return bpy.path.abspath(found.weights_folder)
    try:
        return bpy.utils.extension_path_user(ROOT, path="weights")
    except ValueError:
        return ""


def mirror(context: bpy.types.Context) -> str:
    """The address to download the weights from, or '' for the hub that publishes them."""
    found = preferences(context)
    return "" if found is None else found.mirror


def isnet(context: bpy.types.Context) -> str:
    """`Settings.isnet`: the user's own file, '' for AnyRig's, ISNET_OFF for models of clear origin alone."""
    found = preferences(context)
    if found is None:
        return ""
    return ISNET_OFF if found.clear_origin else bpy.path.abspath(found.isnet_file)


def subject_folder() -> str:
    """The folder that keeps the subjects of videos; '' for none, if the add-on runs without being installed."""
    try:
        return bpy.utils.extension_path_user(ROOT, path="subjects")
    except ValueError:
        return ""

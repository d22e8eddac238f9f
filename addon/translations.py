"""The German interface; English is what the code says."""

from __future__ import annotations

import bpy

GERMAN: dict[str, str] = {}


def register() -> None:
    bpy.app.translations.register(__name__, {"de_DE": {("*", key): text for key, text in GERMAN.items()}})


def unregister() -> None:
    bpy.app.translations.unregister(__name__)

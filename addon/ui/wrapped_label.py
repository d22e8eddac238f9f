"""Draws sentences in panels, in lines that fit the width."""

from __future__ import annotations

import textwrap

import bpy

WRAP = 38  # characters that fit a sidebar of the usual width
OF_ICON = 4  # characters as wide as an icon


def wrapped(layout: bpy.types.UILayout, text: str, icon: str = "NONE", width: int = WRAP) -> None:
    """Draw the text in lines of at most `width` characters, the icon before the first. Blender's labels do not wrap."""
    column = layout.column(align=True)
    for index, line in enumerate(textwrap.wrap(text, width if icon == "NONE" else width - OF_ICON)):
        column.label(text=line, icon=icon if index == 0 else "BLANK1" if icon != "NONE" else "NONE", translate=False)

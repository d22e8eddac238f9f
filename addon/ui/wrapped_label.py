"""Sentences in panels."""

from __future__ import annotations

import textwrap

import bpy

WRAP = 38  # characters that fit a sidebar of the usual width
OF_ICON = 4  # characters that an icon takes the place of


def wrapped(layout: bpy.types.UILayout, text: str, icon: str = "NONE", width: int = WRAP) -> None:
    """The text in lines of at most `width` characters, the icon before the first: labels do not wrap by themselves."""
    column = layout.column(align=True)
    for index, line in enumerate(textwrap.wrap(text, width if icon == "NONE" else width - OF_ICON)):
        column.label(text=line, icon=icon if index == 0 else "BLANK1" if icon != "NONE" else "NONE", translate=False)

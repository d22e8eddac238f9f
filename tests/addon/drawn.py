"""A stand-in for Blender's layouts, which takes down what a panel draws."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bpy


class Layout:
    def __init__(self, drawn: list[tuple[str, Any]] | None = None) -> None:
        self.drawn = [] if drawn is None else drawn
        self.enabled = True

    def _sub(self, **_: Any) -> "Layout":
        return Layout(self.drawn)

    row = column = box = split = _sub

    def prop(self, _data: Any, name: str, **_: Any) -> None:
        self.drawn.append(("prop", name))

    def prop_search(self, _data: Any, name: str, _where: Any, _items: str, **_: Any) -> None:
        self.drawn.append(("prop", name))

    def operator(self, name: str, text: str | None = None, **_: Any) -> SimpleNamespace:
        self.drawn.append(("operator", name))
        if text is not None:
            self.drawn.append(("text", text))
        return SimpleNamespace()

    def label(self, text: str, icon: str = "NONE", **_: Any) -> None:
        self.drawn += [("label", text), ("icon", icon)]

    def __getattr__(self, kind: str) -> Callable[..., None]:
        return lambda *arguments, **options: self.drawn.append((kind, options.get("text", arguments[0] if arguments else None)))


def draw(*panels: type) -> list[tuple[str, Any]]:
    """(kind, name or text) of everything that the panels draw, in order."""
    layout = Layout()
    for panel in panels:
        stand_in = SimpleNamespace(layout=layout, content=lambda *arguments, panel=panel: panel.content(None, *arguments))
        panel.draw(stand_in, bpy.context)
    return layout.drawn


def texts(drawn: list[tuple[str, Any]], kind: str) -> list[Any]:
    return [text for each, text in drawn if each == kind]

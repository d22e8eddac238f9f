"""Registers the classes of a module that keeps something of the open file, which it forgets before another file is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import bpy


def register_with_reset(classes: Sequence[type], reset: Callable[[], None]) -> tuple[Callable[[], None], Callable[[], None]]:
    """The functions `register` and `unregister` of such a module.

    reset: forgets all that the module keeps; it is called before a file is loaded, and before the classes are unregistered.
    """
    register_classes, unregister_classes = bpy.utils.register_classes_factory(classes)

    @bpy.app.handlers.persistent
    def before_load(*_: Any) -> None:
        reset()

    def register() -> None:
        register_classes()
        bpy.app.handlers.load_pre.append(before_load)

    def unregister() -> None:
        reset()
        bpy.app.handlers.load_pre.remove(before_load)
        unregister_classes()

    return register, unregister

"""AnyRig's Blender side: register and unregister, nothing else. torch is loaded when a capture starts, never here."""

from . import command, diagnostics, job, operators, panels, prefs, props, takes, takes_panel

MODULES = (prefs, props, job, panels, operators, takes, takes_panel, diagnostics, command)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()

"""AnyRig's Blender side: register and unregister, nothing else. torch is loaded when a capture starts, never here."""

from . import (
    check_panel,
    command,
    diagnostics,
    job,
    jobs_queue,
    naming,
    operators,
    overlay,
    panels,
    prefs,
    props,
    queue_operators,
    queue_panel,
    skeleton_lines,
    takes,
    takes_panel,
    weights,
)

MODULES = (
    prefs,
    props,
    job,
    panels,
    operators,
    weights,
    naming,
    takes,
    takes_panel,
    overlay,
    skeleton_lines,
    check_panel,
    jobs_queue,
    queue_operators,
    queue_panel,
    diagnostics,
    command,
)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()

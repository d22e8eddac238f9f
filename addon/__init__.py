"""AnyRig's Blender side: register and unregister, nothing else. torch is loaded when a capture starts, never here."""

from . import (
    background_runner,
    check_panel,
    command,
    diagnostics,
    fixes,
    jobs_queue,
    looking,
    menus,
    naming,
    operators,
    overlay,
    panels,
    preferences_panel,
    presets,
    props,
    queue_operators,
    queue_panel,
    reference_views,
    rig_check,
    sides,
    skeleton_lines,
    subject_box,
    takes,
    takes_panel,
    turns,
    video_file,
    weights,
)

MODULES = (
    preferences_panel,
    sides,
    props,
    background_runner,
    turns,
    presets,
    panels,
    operators,
    fixes,
    video_file,
    subject_box,
    reference_views,
    rig_check,
    menus,
    weights,
    naming,
    takes,
    takes_panel,
    overlay,
    looking,
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

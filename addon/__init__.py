"""AnyRig's Blender side: register and unregister, nothing else. torch is loaded when a capture starts, never here."""

from .batch import job_queue, queue_operators, queue_panel
from .capture import operators, panels, rig_check, show_sides, subject_box, video_file
from .command_line import commands
from .preferences import diagnostics, panel
from .released_model import joint_name_table, weights_panel
from .review import overlay, review_panel, skeleton_lines, takes, takes_panel, viewport_state
from .settings import presets, scene_properties, view_sides
from .tasks import background_runner, modal_runner
from .ui import fix_buttons, menus

MODULES = (
    panel,
    view_sides,
    scene_properties,
    background_runner,
    modal_runner,
    presets,
    panels,
    operators,
    fix_buttons,
    video_file,
    subject_box,
    show_sides,
    rig_check,
    menus,
    weights_panel,
    joint_name_table,
    takes,
    takes_panel,
    overlay,
    viewport_state,
    skeleton_lines,
    review_panel,
    job_queue,
    queue_operators,
    queue_panel,
    diagnostics,
    commands,
)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()

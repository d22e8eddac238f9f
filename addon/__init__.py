"""AnyRig's Blender side: register and unregister, nothing else. torch is loaded when a capture starts, never here."""

from importlib import import_module

# Modules register in this order and unregister in the reverse one. Blender refuses a panel whose parent is not registered, so
# capture.panels comes before released_model. The properties that panels draw come before the panels, and the runner of tasks before
# all that starts one: the queue and the movie stop first, then the runner cancels what is left.
NAMES = (
    "preferences.panel",
    "preferences.kept_subjects",
    "settings.view_sides",
    "settings.scene_properties",
    "tasks.background_runner",
    "tasks.modal_runner",
    "settings.presets",
    "capture.panels",
    "capture.operators",
    "capture.keep_unrefined",
    "ui.fix_buttons",
    "capture.video_file",
    "capture.viewport_pictures",
    "capture.subject_box",
    "capture.show_subject",
    "capture.show_sides",
    "capture.kept_bones",
    "capture.rig_check",
    "ui.menus",
    "released_model.weights_panel",
    "released_model.joint_name_table",
    "review.takes",
    "review.takes_panel",
    "review.clean_up",
    "review.refine_operators",
    "review.overlay",
    "review.viewport_state",
    "review.skeleton_lines",
    "review.review_panel",
    "batch.job_queue",
    "batch.queue_operators",
    "batch.queue_panel",
    "preferences.diagnostics",
    "command_line.commands",
)
MODULES = [import_module(f".{name}", __package__) for name in NAMES]


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()

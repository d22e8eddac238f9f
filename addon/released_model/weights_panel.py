"""The panel of the released weights: lists them, downloads them, uses local files, removes them."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import bpy
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import StringProperty

from ...backend.errors import UserError
from ...backend.progress import Progress, size_text
from ...backend.weights.fetch import fetch_files, use_local_files
from ...backend.weights.registry import TABLE, Folder, Item, names_text
from ..settings import preference_values
from ..tasks import background_runner
from ..tasks.task import Task
from ..ui.operator_base import AnyRigOperator
from ..ui.wrapped_label import wrapped

OFFLINE = "Online access is off: allow it in Preferences > System"
OFFLINE_PANEL = "Online access is off: allow it in Preferences > System, or use local files."


def weights_folder_of(context: bpy.types.Context) -> Folder:
    """The folder of this Blender's weights."""
    return Folder(preference_values.weights_folder(context))


def total_size(items: list[Item]) -> str:
    """The size of several files, in words."""
    return size_text(sum(item.size for item in items))


class _WeightsOperator(AnyRigOperator):
    """An operator that runs `steps` in the background if a user clicked, and waits for them otherwise."""

    bl_options = {"REGISTER", "INTERNAL"}
    in_background = False
    cancelled = "Cancelled: the next download continues where this one stopped."

    def steps(self, context: bpy.types.Context) -> Generator[Progress, None, list[Item]]:
        raise NotImplementedError

    def run(self, context: bpy.types.Context) -> str:
        task, cancelled = Task(self.steps(context)), self.cancelled
        if self.in_background:
            background_runner.run_in_background(task, lambda task: background_runner.conclude(task, cancelled, _describe))
            return ""
        return _describe(task.drain().result())


class ANYRIG_OT_download_weights(_WeightsOperator, bpy.types.Operator):
    bl_idname = "anyrig.download_weights"
    bl_label = "Download Released Weights"
    bl_description = "Download the public weights and their two encoders; a cancelled download continues the next time"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if bpy.app.online_access else OFFLINE)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        if not self.in_background:
            return self.execute(context)
        return context.window_manager.invoke_props_dialog(self, width=460)

    def draw(self, context: bpy.types.Context) -> None:
        column = self.layout.column(align=True)
        for item in weights_folder_of(context).missing():
            column.label(text=f"{item.repo}: {size_text(item.size)}, licence {item.licence}", icon="IMPORT")
        column.label(text=f"To {weights_folder_of(context).path}", icon="FILE_FOLDER")

    def steps(self, context: bpy.types.Context) -> Generator[Progress, None, list[Item]]:
        return fetch_files(weights_folder_of(context), preference_values.mirror(context))


class ANYRIG_OT_adopt_weights(_WeightsOperator, bpy.types.Operator):
    bl_idname = "anyrig.adopt_weights"
    bl_label = "Use Local Files"
    bl_description = "Search a folder and its subfolders for the released weights, and use them where they are"
    cancelled = "Cancelled: only the files checked so far are used."

    directory: StringProperty(subtype="DIR_PATH")

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def steps(self, context: bpy.types.Context) -> Generator[Progress, None, list[Item]]:
        if not self.directory:
            raise UserError("No folder is chosen: choose the folder of the released weights.")
        return use_local_files(weights_folder_of(context), Path(bpy.path.abspath(self.directory)))


class ANYRIG_OT_remove_weights(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.remove_weights"
    bl_label = "Remove Released Weights"
    bl_description = "Delete the downloaded files; local files stay where they are"
    bl_options = {"REGISTER", "INTERNAL"}

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(self, event)

    def run(self, context: bpy.types.Context) -> str:
        message = f"{size_text(weights_folder_of(context).remove())} freed."
        background_runner.set_status(message)
        return message


def _describe(items: list[Item]) -> str:
    return f"Ready: {names_text(items)}." if items else "Nothing was missing."


class ANYRIG_PT_weights(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_weights"
    bl_label = "Released Weights"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_parent_id = "ANYRIG_PT_model"
    bl_order = 51

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return context.scene.anyrig.model == "release"

    def draw(self, context: bpy.types.Context) -> None:
        layout, here = self.layout, weights_folder_of(context)
        missing = here.missing()
        _draw_table(layout.column(align=True), here)
        if missing and not bpy.app.online_access:
            column = layout.column()
            column.alert = True
            wrapped(column, iface_(OFFLINE_PANEL), "ERROR")
            layout.operator("screen.userpref_show", text="Open Preferences", icon="PREFERENCES").section = "SYSTEM"
        if missing:
            row = layout.row()
            row.scale_y = 1.3
            row.operator(ANYRIG_OT_download_weights.bl_idname, text=_download_text(missing), icon="IMPORT", translate=False)
            layout.operator(ANYRIG_OT_adopt_weights.bl_idname, text="Use Local Files...", icon="FILE_FOLDER")
        if len(missing) < len(TABLE):
            layout.operator(ANYRIG_OT_remove_weights.bl_idname, text="Remove", icon="TRASH")


def _draw_table(column: bpy.types.UILayout, here: Folder) -> None:
    for item in TABLE:
        row = column.split(factor=0.68)
        row.label(text=item.name, icon="CHECKMARK" if here.has(item) else "IMPORT", translate=False)
        row.label(text=size_text(item.size), translate=False)
    for licence in dict.fromkeys(item.licence for item in TABLE):
        names = ", ".join(item.name for item in TABLE if item.licence == licence)
        wrapped(column, f"{iface_('Licence')} ({names}): {licence}")


def _download_text(missing: list[Item]) -> str:
    return iface_("Download ({size})", "Operator").format(size=total_size(missing))


CLASSES = (ANYRIG_OT_download_weights, ANYRIG_OT_adopt_weights, ANYRIG_OT_remove_weights, ANYRIG_PT_weights)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

"""The panel of the queue."""

from __future__ import annotations

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..tasks import background_runner
from ..ui.wrapped_label import wrapped
from . import job_queue

ICONS = {job_queue.WAITING: "SORTTIME", job_queue.DONE: "CHECKMARK", job_queue.FAILED: "ERROR"}


class ANYRIG_UL_queue(bpy.types.UIList):
    """The jobs: their states, videos and armatures."""

    bl_idname = "ANYRIG_UL_queue"

    def draw_item(
        self,
        _context: bpy.types.Context,
        layout: bpy.types.UILayout,
        _data: Any,
        item: job_queue.ANYRIG_QueueJob,
        _icon: int,
        _active: Any,
        _property: str,
    ) -> None:
        running = item.key == job_queue.running_key()
        row = layout.split(factor=0.6)
        row.label(text=item.video, icon="PLAY" if running else ICONS[item.state], translate=False)
        row.label(text=job_queue.names_of(item), translate=False)


class ANYRIG_PT_queue(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_queue"
    bl_label = "Queue"
    bl_description = "Jobs to capture one after another"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_options = {"DEFAULT_CLOSED"}
    bl_order = 90

    def draw(self, context: bpy.types.Context) -> None:
        layout, queue = self.layout, context.scene.anyrig_queue
        row = layout.row(align=True)
        row.operator("anyrig.queue_add", icon="ADD")
        row.operator("anyrig.queue_add_videos", text="Add Videos", icon="FILE_FOLDER")
        row = layout.row()
        row.template_list(ANYRIG_UL_queue.bl_idname, "", queue, "jobs", queue, "index", rows=3)
        _draw_side(row.column(align=True))
        if queue.jobs:
            _draw_chosen(layout, queue.jobs[min(max(queue.index, 0), len(queue.jobs) - 1)])
        waiting = len(job_queue.waiting(context.scene))
        row = layout.row()
        row.scale_y = 1.4
        if job_queue.running_key():
            row.operator("anyrig.cancel", text=_counted("Stop Queue ({count} waiting)", waiting), icon="CANCEL", translate=False)
        else:
            row.operator("anyrig.queue_run", text=_counted("Run Queue ({count})", waiting), icon="PLAY", translate=False)


def _counted(text: str, count: int) -> str:
    return iface_(text, "Operator").format(count=count)


def _draw_side(column: bpy.types.UILayout) -> None:
    column.operator("anyrig.queue_remove", text="", icon="REMOVE")
    column.menu(ANYRIG_MT_queue.bl_idname, text="", icon="DOWNARROW_HLT")
    column.separator()
    column.operator("anyrig.queue_move", text="", icon="TRIA_UP").direction = "UP"
    column.operator("anyrig.queue_move", text="", icon="TRIA_DOWN").direction = "DOWN"


def _draw_chosen(layout: bpy.types.UILayout, item: job_queue.ANYRIG_QueueJob) -> None:
    """Draw the error of the chosen job."""
    if item.message and background_runner.status()[0] != item.message:
        column = layout.column()
        column.alert = item.state == job_queue.FAILED
        wrapped(column, item.message, "ERROR")


class ANYRIG_MT_queue(bpy.types.Menu):
    bl_idname = "ANYRIG_MT_queue"
    bl_label = "Queue"
    bl_description = "More operations on the queue"

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator("anyrig.queue_retry", icon="FILE_REFRESH")
        layout.operator("anyrig.queue_clear", text="Remove Jobs That Are Done").which = "DONE"
        layout.operator("anyrig.queue_clear", text="Remove All Jobs").which = "ALL"
        layout.separator()
        layout.operator("anyrig.queue_export", icon="EXPORT")
        layout.operator("anyrig.save_flamenco")


CLASSES = (ANYRIG_UL_queue, ANYRIG_MT_queue, ANYRIG_PT_queue)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

"""The panel of takes."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as iface_

from ..capture import take_store
from . import takes


class ANYRIG_UL_takes(bpy.types.UIList):
    """The texts of the file that carry takes, newest first."""

    bl_idname = "ANYRIG_UL_takes"

    def draw_item(
        self,
        _context: bpy.types.Context,
        layout: bpy.types.UILayout,
        _data: Any,
        item: bpy.types.Text,
        _icon: int,
        _active: Any,
        _property: str,
    ) -> None:
        if not take_store.is_take(item):
            return
        about, action = take_store.about(item), take_store.action_of(item)
        row = layout.split(factor=0.62)
        row.label(text=f"{video_name(about)} > {about['armature']}", icon="ACTION" if action else "FILE", translate=False)
        # without the year, and of a refined take without the date, which would not fit: both are shown below the list
        row.label(text=covered(about) or about["date"][5:16].replace("T", " "), translate=False)

    def filter_items(self, _context: bpy.types.Context, data: Any, name: str) -> tuple[list[int], list[int]]:
        return arrange(getattr(data, name), self.filter_name, self.bitflag_filter_item)


def covered(about: dict[str, Any]) -> str:
    """The overlap of a refined take with its video, before and after, as "62 > 85 %"; "" for other takes."""
    if "overlap" not in about:
        return ""
    before, after = about["overlap"]
    return f"{100 * before:.0f} > {100 * after:.0f} %"


def arrange(texts: Any, search: str, flag: int) -> tuple[list[int], list[int]]:
    """-> for every text, `flag` if it is a take that matches the search, else 0; and its place in the list, newest first."""
    shown = [flag if take_store.is_take(text) and search.lower() in _words(text) else 0 for text in texts]
    order = {text.name: place for place, text in enumerate(take_store.stored())}
    others = iter(range(len(order), len(texts)))
    return shown, [order[text.name] if text.name in order else next(others) for text in texts]


def _words(text: bpy.types.Text) -> str:
    about = take_store.about(text)
    return " ".join(str(about[key]) for key in ("video", "armature", "model", "date", "name")).lower()


def video_name(about: dict[str, Any]) -> str:
    # the file may come from another system
    return PurePath(about["video"].replace("\\", "/")).name


class ANYRIG_PT_takes(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_takes"
    bl_label = "Takes"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_order = 70

    def draw(self, context: bpy.types.Context) -> None:
        layout, props, text = self.layout, context.scene.anyrig_takes, takes.selected(context)
        if text is not None:
            layout.template_list(ANYRIG_UL_takes.bl_idname, "", bpy.data, "texts", props, "index", rows=3)
            _draw_take(layout, text)
            column = layout.column(align=True)
            row = column.row(align=True)
            row.operator("anyrig.take_show", text="Show", icon="PLAY")
            row.operator("anyrig.take_compare", text="Compare", icon="ARROW_LEFTRIGHT")
            column.prop_search(props, "other", bpy.data, "actions", text="With")
            row = layout.row(align=True)
            row.operator("anyrig.take_apply", text="Apply Again", icon="FILE_REFRESH")
            row.operator("anyrig.take_delete", text="Delete", icon="TRASH")
        layout.operator("anyrig.take_recover", icon="RECOVER_LAST")


def _draw_take(layout: bpy.types.UILayout, text: bpy.types.Text) -> None:
    about = take_store.about(text)
    column = layout.column(align=True)
    frames = iface_("{count} frames from frame {first}").format(count=about["frames"], first=about["start_frame"])
    column.label(text=f"{about['name']}: {frames}", translate=False)
    date, model = about["date"][:16].replace("T", " "), PurePath(about["model"]).name
    column.label(text=f"{iface_('Model')}: {model}, {date}", translate=False)
    if covered(about):
        before, after = (100 * share for share in about["overlap"])
        words = iface_("Overlap {after:.0f} %, {before:.0f} % before Refine")
        column.label(text=words.format(before=before, after=after), translate=False)
    if take_store.action_of(text) is None:
        column.label(text="Its action is not in this file", icon="INFO")


CLASSES = (ANYRIG_UL_takes, ANYRIG_PT_takes)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

"""Entries in the Object and Pose menus. F3 finds them too."""

from __future__ import annotations

import bpy

HOSTS = ("VIEW3D_MT_object", "VIEW3D_MT_pose")
ENTRIES = (
    ("anyrig.capture", "ARMATURE_DATA"),
    ("anyrig.cancel", "CANCEL"),
    (None, ""),
    ("anyrig.choose_video", "FILE_MOVIE"),
    ("anyrig.pick_armature", "OUTLINER_OB_ARMATURE"),
    ("anyrig.check_rig", "VIEWZOOM"),
    ("anyrig.show_subject", "HIDE_OFF"),
    ("anyrig.draw_box", "SELECT_SET"),
    ("anyrig.show_sides", "CAMERA_DATA"),
    ("anyrig.match_fps", "TIME"),
    ("anyrig.copy_conversion", "COPYDOWN"),
    (None, ""),
    ("anyrig.take_refine", "MOD_SHRINKWRAP"),
    ("anyrig.swap_sides", "MOD_MIRROR"),
    ("anyrig.pin_pose", "PINNED"),
    ("anyrig.unpin_pose", "UNPINNED"),
    (None, ""),
    ("anyrig.check_device", "VIEWZOOM"),
    ("anyrig.copy_diagnostics", "COPYDOWN"),
)


class ANYRIG_MT_menu(bpy.types.Menu):
    bl_idname = "ANYRIG_MT_menu"
    bl_label = "AnyRig"
    bl_description = "Capture motion from a video"

    def draw(self, _context: bpy.types.Context) -> None:
        layout = self.layout
        layout.operator_context = "INVOKE_DEFAULT"
        for name, icon in ENTRIES:
            if name is None:
                layout.separator()
            else:
                layout.operator(name, icon=icon)


def draw_entry(menu: bpy.types.Menu, _context: bpy.types.Context) -> None:
    menu.layout.separator()
    menu.layout.menu(ANYRIG_MT_menu.bl_idname, icon="ARMATURE_DATA")


def register() -> None:
    bpy.utils.register_class(ANYRIG_MT_menu)
    for host in HOSTS:
        getattr(bpy.types, host).append(draw_entry)


def unregister() -> None:
    for host in HOSTS:
        getattr(bpy.types, host).remove(draw_entry)
    bpy.utils.unregister_class(ANYRIG_MT_menu)

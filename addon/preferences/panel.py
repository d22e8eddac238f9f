"""The add-on's preferences, as Blender stores and draws them."""


# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from ..rendering.engines import CYCLES, WORKBENCH
from ..settings.preference_values import DEVICES, ROOT


class ANYRIG_Preferences(bpy.types.AddonPreferences):
    bl_idname = ROOT

    engine: EnumProperty(
        name="Reference Views",
        description="Engine that renders the images of the rig that are compared with the video",
        items=(
            (WORKBENCH, "Workbench", "Fast; needs a working graphics driver"),
            (CYCLES, "Cycles", "For machines without a graphics driver, where Workbench crashes Blender"),
        ),
    )
    device: EnumProperty(
        name="Device",
        description="Device that the network runs on, unless the panel chooses another",
        items=DEVICES,
    )
    weights_folder: StringProperty(
        name="Weights Folder",
        description="Folder of the released weights; the extension's own folder if empty",
        subtype="DIR_PATH",
    )
    mirror: StringProperty(
        name="Weights Mirror",
        description="Address to download the released weights from; the hub that publishes them if empty",
    )

    clear_origin: BoolProperty(
        name="Only Models of Clear Origin",
        description="Find subjects without ISNet, whose licence nobody has stated clearly; older methods find less",
    )
    isnet_file: StringProperty(
        name="ISNet File",
        description="Your own file of ISNet, isnet-1.safetensors, with isnet-2.safetensors beside it; the one in AnyRig if empty",
        subtype="FILE_PATH",
    )

    def draw(self, _context: bpy.types.Context) -> None:
        from . import diagnostics, kept_subjects  # which read these preferences

        column = self.layout.column()
        column.use_property_split = True
        column.prop(self, "engine")
        column.prop(self, "device")
        column.prop(self, "weights_folder")
        column.prop(self, "mirror")
        diagnostics.draw(self.layout.box())
        kept_subjects.draw(self.layout.box(), self)


CLASSES = (ANYRIG_Preferences,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

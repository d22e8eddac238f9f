"""The operator Show Sides: renders the rig from eight sides, to choose the video's side by an image."""

from __future__ import annotations

import bpy

from ...backend.errors import missing_library
from ..rig.keyed_bones import chosen_bones
from ..settings import preference_values, view_sides
from ..settings.chosen_armatures import armature_from_context
from ..ui.operator_base import AnyRigOperator
from .kept_bones import kept_bones

SIZE = 128  # pixels of a thumbnail


class ANYRIG_OT_show_sides(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.show_sides"
    bl_label = "Show Sides"
    bl_description = "Render the rig in its reference pose from eight sides, to choose the video's side by an image"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if armature_from_context(context) else "Pick an armature")

    def run(self, context: bpy.types.Context) -> str:
        draw_sides(context, armature_from_context(context))
        context.scene.anyrig.view = "SIDE"
        return ""


def draw_sides(context: bpy.types.Context, obj: bpy.types.Object, size: int = SIZE) -> None:
    """Render the armature from all sides and show the images. Raises UserError, also if torch is missing, which rigs without meshes need."""
    from ..rendering.rig_views import render_views
    from ..rig.armature import rig_from_armature

    props = context.scene.anyrig
    rig = rig_from_armature(obj, chosen_bones(obj, props.bones, props.collection), kept_bones(context.scene, obj))
    frame = props.reference_frame if props.reference == "FRAME" else None
    try:
        views = render_views(obj, rig, view_sides.AZIMUTHS, size, frame=frame, engine=preference_values.engine(context))
    except ImportError as error:
        raise missing_library(error) from error
    view_sides.show_sides([view.image for view in views])


CLASSES = (ANYRIG_OT_show_sides,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

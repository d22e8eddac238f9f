"""Refine Take: its settings, its operator, and its part of the panel of takes."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import TYPE_CHECKING

import bpy
from bpy.props import BoolProperty, EnumProperty, IntProperty, PointerProperty, StringProperty

from ...backend.errors import missing_library
from ..capture import take_store
from ..capture.operators import push_undo
from ..tasks import background_runner
from ..tasks.task import Task
from ..ui.operator_base import AnyRigOperator
from . import takes

if TYPE_CHECKING:
    from ...backend.motion.take_file import Take
    from .refine_take import RefineChoice, RefineRequest


class ANYRIG_Refine(bpy.types.PropertyGroup):
    mode: EnumProperty(
        name="Refine",
        description="How long to look for a better fit",
        items=(("QUICK", "Quick", "Seconds for a short video"), ("THOROUGH", "Thorough", "Takes longer")),
    )
    part: EnumProperty(
        name="Frames",
        description="Which part of the take may change",
        items=(
            ("WHOLE", "Whole Take", "All frames; without pins and with all bones it starts from the take as the network left it"),
            ("RANGE", "Range", "Only some frames of the scene; it passes smoothly into the frames around them"),
            ("PINS", "Around Pins", "Only from 30 frames before the first pinned pose to 30 after the last"),
        ),
    )
    first: IntProperty(name="First Frame", description="First frame of the scene that may change", default=1)
    last: IntProperty(name="Last", description="Last frame of the scene that may change", default=25)
    bones: BoolProperty(name="Selected Bones", description="Only bones that are selected in pose mode may change")


class _RefineOperator(AnyRigOperator):
    """An operator that makes a new take of a stored one, in the background if a user clicked: `choice` says what to change."""

    take: StringProperty(
        name="Take",
        description="Name of the take's text data-block; the take chosen in the list if empty",
        options={"SKIP_SAVE", "HIDDEN"},
    )
    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if takes.selected(context) else takes.NO_TAKE)

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        done = self.execute(context)
        # what has only started changed nothing, so there must be no undo step yet
        return {"CANCELLED"} if self.in_background else done

    def choice(self, context: bpy.types.Context) -> RefineChoice:
        """What of the take to change."""
        raise NotImplementedError

    def run(self, context: bpy.types.Context) -> str:
        """Start in the background if a user clicked; `finish` writes the keys. Otherwise wait for the keys."""
        refine_take = load_refine()
        text = take_store.find_take(self.take) if self.take else takes.selected(context)
        request = refine_take.gather(context, text, self.choice(context))
        task = Task(refine_take.steps(request))
        if self.in_background:
            background_runner.run_in_background(task, lambda task: _finish_and_push_undo(request, task, self.bl_label))
            return ""
        message = _write(context, request, task.drain().result())
        background_runner.set_status(message)
        return message


class ANYRIG_OT_take_refine(_RefineOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_refine"
    bl_label = "Refine Take"
    bl_description = (
        "Fit this take to its video again, with the settings below: the result is a new take and a new action beside the old ones"
    )
    bl_options = {"REGISTER", "UNDO"}

    def choice(self, context: bpy.types.Context) -> RefineChoice:
        return choice_of(context.scene.anyrig_refine)


class ANYRIG_OT_swap_sides(_RefineOperator, bpy.types.Operator):
    bl_idname = "anyrig.swap_sides"
    bl_label = "Swap Left and Right"
    bl_description = (
        "Exchange what the limb of each selected bone does with its counterpart on the other side, on the frames chosen above, "
        "then fit both to the video: the result is a new take and a new action beside the old ones"
    )
    bl_options = {"REGISTER", "UNDO"}

    def choice(self, context: bpy.types.Context) -> RefineChoice:
        return dataclasses.replace(choice_of(context.scene.anyrig_refine), mode="quick", swap=True)


class _PinOperator(AnyRigOperator):
    """An operator on the pins of the take chosen in the list."""

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if takes.selected(context) else takes.NO_TAKE)


class ANYRIG_OT_pin_pose(_PinOperator, bpy.types.Operator):
    bl_idname = "anyrig.pin_pose"
    bl_label = "Pin Pose"
    bl_description = "Store the pose of the selected bones at this frame in the take: Refine Take keeps it and leads up to it"
    bl_options = {"REGISTER", "UNDO"}

    def run(self, context: bpy.types.Context) -> str:
        from . import pose_pins

        message = pose_pins.pin(context, takes.selected(context))
        background_runner.set_status(message)
        return message


class ANYRIG_OT_unpin_pose(_PinOperator, bpy.types.Operator):
    bl_idname = "anyrig.unpin_pose"
    bl_label = "Unpin Pose"
    bl_description = (
        "Let Refine Take change the pose of the selected bones at this frame again, or of all pinned bones of a frame"
    )
    bl_options = {"REGISTER", "UNDO"}

    frame: IntProperty(
        name="Frame",
        description="A frame of the take, from 0, whose pins are removed; -1 for the selected bones at the current frame",
        default=-1,
        min=-1,
        options={"SKIP_SAVE", "HIDDEN"},
    )

    def run(self, context: bpy.types.Context) -> str:
        from . import pose_pins

        message = pose_pins.unpin(context, takes.selected(context), self.frame if self.frame >= 0 else None)
        background_runner.set_status(message)
        return message


def choice_of(props: ANYRIG_Refine) -> RefineChoice:
    """The settings below Refine Take."""
    return load_refine().RefineChoice(props.mode.lower(), props.part, (props.first, props.last), props.bones)


def load_refine() -> ModuleType:
    """Import refine_take. Raises UserError if a library is missing, as in a zip made for another system."""
    try:
        from . import refine_take
    except ImportError as error:
        raise missing_library(error) from error
    return refine_take


def finish(request: RefineRequest, task: Task) -> background_runner.TaskOutcome:
    """Write the keys of a take that was refined in the background, and show in the panel how it ended. Main thread."""

    return background_runner.conclude(task, "Cancelled: nothing was changed.", lambda take: _write(bpy.context, request, take))


def _write(context: bpy.types.Context, request: RefineRequest, take: Take) -> str:
    """Write the keys, choose the new take in the list, and return the panel's sentence."""
    refine_take = load_refine()
    takes.select(context, refine_take.write(request, take))
    return refine_take.describe(request, take)


def _finish_and_push_undo(request: RefineRequest, task: Task, label: str) -> None:
    if finish(request, task).status == background_runner.DONE:
        push_undo(label)


class ANYRIG_PT_refine(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_refine"
    bl_label = "Refine Take"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_parent_id = "ANYRIG_PT_takes"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return takes.selected(context) is not None

    def draw(self, context: bpy.types.Context) -> None:
        layout, props = self.layout, context.scene.anyrig_refine
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(props, "mode")
        layout.prop(props, "part")
        if props.part == "RANGE":
            column = layout.column(align=True)
            column.prop(props, "first")
            column.prop(props, "last")
        layout.prop(props, "bones")
        layout.operator("anyrig.take_refine", icon="MOD_SHRINKWRAP")
        layout.operator("anyrig.swap_sides", icon="MOD_MIRROR")
        row = layout.row(align=True)
        row.operator("anyrig.pin_pose", icon="PINNED")
        row.operator("anyrig.unpin_pose", text="Unpin", icon="UNPINNED")
        column = layout.column(align=True)
        for frame, line in _pin_rows(context):
            row = column.row()
            row.label(text=line, icon="PINNED", translate=False)
            row.operator("anyrig.unpin_pose", text="", icon="X", emboss=False).frame = frame


def _pin_rows(context: bpy.types.Context) -> list[tuple[int, str]]:
    text = takes.selected(context)
    if text is None or not take_store.pins_of(text):
        return []
    from . import pose_pins

    return pose_pins.rows(text)


CLASSES = (ANYRIG_Refine, ANYRIG_OT_take_refine, ANYRIG_OT_swap_sides, ANYRIG_OT_pin_pose, ANYRIG_OT_unpin_pose, ANYRIG_PT_refine)


def register() -> None:
    for each in CLASSES:
        bpy.utils.register_class(each)
    bpy.types.Scene.anyrig_refine = PointerProperty(type=ANYRIG_Refine)


def unregister() -> None:
    del bpy.types.Scene.anyrig_refine
    for each in reversed(CLASSES):
        bpy.utils.unregister_class(each)

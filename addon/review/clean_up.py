"""Clean Up: the operator that applies clean-up settings to a stored take, and its part of the panel of takes.

The settings are the operator's own properties: in Blender's Adjust Last Operation panel they are sliders, and every change shows at once.
"""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty

from ...backend.errors import UserError
from ..capture import take_store
from . import takes

if TYPE_CHECKING:
    from ...backend.motion.clean_up import CleanUp

PRESETS = (
    ("RAW", "Raw", "As the take was captured, with a key on every frame"),
    ("NATURAL", "Natural", "Smooth, with the path over the ground and feet that stand"),
    ("GAME_LOOP", "Game Loop", "One clean cycle on the spot"),
)
AS_STORED = "AS_STORED"
LIMBS = "limbs"  # has no slider
HEADINGS = (
    ("FREE", "Free", "As captured"),
    ("SMOOTHED", "Smoothed", "Turns slowly"),
    ("LOCKED", "Locked", "Faces one way"),
)
PATHS = (
    ("AS_CAPTURED", "As Captured", "The root stays in place"),
    ("IN_PLACE", "In Place", "Up and down alone"),
    ("GROUND", "Ground", "Over a level ground, with jumps"),
    ("FREE", "Free", "In all directions, as seen"),
    ("PICTURE", "Picture", "Across the picture, as the camera shows it"),
)


def _share(name: str, description: str) -> Any:
    return FloatProperty(name=name, description=description, min=0.0, max=1.0, subtype="FACTOR")


class ANYRIG_OT_take_clean_up(takes.TakeOperator, bpy.types.Operator):
    bl_idname = "anyrig.take_clean_up"
    bl_label = "Clean Up Take"
    bl_description = "Write the keys of this take again, cleaned up, as a new action. The take keeps the captured motion and stores the settings"
    bl_options = {"REGISTER", "UNDO"}

    preset: EnumProperty(
        name="Preset",
        description="Settings to start from",
        items=((AS_STORED, "As Stored", "The settings that the take was cleaned up with last"), *PRESETS),
        default=AS_STORED,
        options={"SKIP_SAVE", "HIDDEN"},
    )
    repair: _share("Repair Heading", "Take out flips and turns that are too sudden to be true")
    hidden: _share("Hidden Limbs", "How far limbs that the camera did not see follow those of the other side, half a cycle later")
    smooth: _share("Smooth", "How much jitter is taken out; hits keep their peak")
    smooth_seconds: FloatProperty(name="Width", description="Seconds that jitter is averaged over", min=0.0, max=1.0, default=0.1)
    heading: EnumProperty(name="Heading", description="How the body may turn about the vertical", items=HEADINGS)
    heading_strength: _share("Heading Strength", "How far the heading is changed")
    heading_seconds: FloatProperty(
        name="Width", description="Seconds that the heading is smoothed over", min=0.0, max=5.0, default=0.3
    )
    path: EnumProperty(name="Path", description="Where the root goes", items=PATHS)
    path_strength: _share("Path Strength", "How much of the path the root takes")
    feet: _share("Feet", "How firmly feet stand on the ground")
    loop: BoolProperty(name="One Loop", description="Write one clean cycle, the mean of all cycles of the take")
    keys_degrees: FloatProperty(
        name="Angle Error", description="Degrees that fewer keys may be off at joints; 0 keys every frame", min=0.0, max=45.0
    )
    keys_percent: FloatProperty(
        name="End Error",
        description="Percent of the rig's size that fewer keys may be off at the ends; 0 keys every frame",
        min=0.0,
        max=50.0,
    )

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self._start()
        return self.execute(context)

    def _start(self) -> None:
        """Take the values of the preset, or of the take."""
        from ...backend.motion.clean_up import preset, settings_of

        text = take_store.find_take(self.take) if self.take else takes.selected(bpy.context)
        stored = self.preset == AS_STORED
        settings = settings_of(take_store.read(text).motion) if stored else preset(self.preset.lower())
        for name, value in asdict(settings).items():
            if name != LIMBS:
                setattr(self, name, value.replace(" ", "_").upper() if isinstance(value, str) else value)
        self.preset = AS_STORED  # adjusting goes on from here

    def use(self, context: bpy.types.Context, text: bpy.types.Text) -> str:
        from ...backend.motion.clean_up import settings_of, with_settings
        from ..capture import run_capture

        if self.preset != AS_STORED:
            self._start()
        take = take_store.read(text)
        obj = takes.target_of(context, text, take.rig.names)
        settings = self._settings(settings_of(take.motion))
        take_store.replace_motion(text, with_settings(take.motion, settings))
        try:
            action = run_capture.apply_again(context, text, obj)
        except UserError:
            take_store.replace_motion(text, take.motion)
            raise
        takes.select(context, text)
        return f"Take '{action.name}': cleaned up on '{obj.name}'."

    def _settings(self, stored: CleanUp) -> CleanUp:
        """The operator's values; what it has no slider for is as stored."""
        from ...backend.motion.clean_up import CleanUp

        values = asdict(stored)
        for name in (field.name for field in fields(CleanUp)):
            if name != LIMBS:
                value = getattr(self, name)
                # Blender's numbers have single precision
                value = round(value, 6) if isinstance(value, float) else value
                values[name] = value.replace("_", " ").lower() if isinstance(value, str) else value
        return CleanUp.from_values(values)


class ANYRIG_PT_clean_up(bpy.types.Panel):
    bl_idname = "ANYRIG_PT_clean_up"
    bl_label = "Clean Up"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "AnyRig"
    bl_parent_id = "ANYRIG_PT_takes"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return takes.selected(context) is not None

    def draw(self, _context: bpy.types.Context) -> None:
        row = self.layout.row(align=True)
        for name, label, _ in PRESETS:
            row.operator(ANYRIG_OT_take_clean_up.bl_idname, text=label).preset = name
        self.layout.operator(ANYRIG_OT_take_clean_up.bl_idname, text="Adjust", icon="OPTIONS").preset = AS_STORED


CLASSES = (ANYRIG_OT_take_clean_up, ANYRIG_PT_clean_up)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

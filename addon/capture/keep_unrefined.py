"""After a capture that was cancelled while it refined: a choice whether to keep the take as it was before that, or to discard it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import bpy

from ..tasks import background_runner
from ..tasks.registration import register_with_reset
from ..ui.operator_base import AnyRigOperator

if TYPE_CHECKING:
    from .run_capture import CaptureRequest, CaptureResult

OFFER = "Cancelled: nothing was changed. The take is complete but for refining: keep it unrefined, or discard it."
DISCARDED = "Discarded: nothing was changed."
NOTHING = "No capture was cancelled while it refined"


@dataclass
class _State:
    """The capture that was cancelled last, if its take can be kept."""

    offer: tuple[CaptureRequest, list[CaptureResult]] | None = None


_state = _State()


def offered() -> tuple[CaptureRequest, list[CaptureResult]] | None:
    """The capture whose take can be kept, and its results; None if there is none."""
    return _state.offer


def offer(request: CaptureRequest, results: list[CaptureResult]) -> None:
    """Let the user choose. The request and results are those of `unrefined`."""
    _state.offer = request, results


def reset() -> None:
    """Withdraw the offer: the user has chosen, another capture starts, or another file is loaded."""
    _state.offer = None


class ANYRIG_OT_keep_unrefined(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.keep_unrefined"
    bl_label = "Keep Unrefined Take"
    bl_description = "Key the take of the cancelled capture as it was before refining; Refine Take can refine it later"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if offered() else NOTHING)

    def run(self, _context: bpy.types.Context) -> str:
        from . import operators

        found = offered()
        assert found is not None
        message = operators.write_results(*found)
        reset()
        background_runner.set_status(message)
        return message


class ANYRIG_OT_discard_unrefined(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.discard_unrefined"
    bl_label = "Discard Unrefined Take"
    bl_description = "Forget the take of the cancelled capture; nothing in the scene changes"

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if offered() else NOTHING)

    def run(self, _context: bpy.types.Context) -> str:
        reset()
        background_runner.set_status(DISCARDED)
        return DISCARDED


def draw(layout: bpy.types.UILayout) -> None:
    """Draw the two buttons as long as there is a choice."""
    if offered() is not None:
        row = layout.row(align=True)
        row.operator(ANYRIG_OT_keep_unrefined.bl_idname, text="Keep the Unrefined Take", icon="CHECKMARK")
        row.operator(ANYRIG_OT_discard_unrefined.bl_idname, text="Discard", icon="TRASH")


CLASSES = (ANYRIG_OT_keep_unrefined, ANYRIG_OT_discard_unrefined)
register, unregister = register_with_reset(CLASSES, reset)

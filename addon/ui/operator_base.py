"""The base class of AnyRig's operators: when a button is disabled and why, and how errors reach the user."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bpy

from ...backend.errors import UserError
from ..tasks import background_runner

# Blender registers no class that inherits `Operator` twice
Operator = bpy.types.Operator if TYPE_CHECKING else object


class AnyRigOperator(Operator):
    """Mixin for `bpy.types.Operator`. A subclass writes `run`, and extends `obstacle` where it needs an armature, a video or a take."""

    @classmethod
    def obstacle(cls, _context: bpy.types.Context) -> str:
        """Why the operator cannot run now, as the tooltip of its disabled button says it; '' if it can."""
        return "" if background_runner.current() is None else "A task is running: wait for it or cancel it"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        reason = cls.obstacle(context)
        if reason:
            cls.poll_message_set(reason)
        return not reason

    def run(self, context: bpy.types.Context) -> str:
        """Do the work and return a sentence to report, or ''. Raises UserError."""
        raise NotImplementedError

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            message = self.run(context)
        except UserError as error:
            return self.refuse(error)
        if message:
            self.report({"INFO"}, message)
        return {"FINISHED"}

    def refuse(self, error: UserError) -> set[str]:
        """Report the error, and show it in the panel with its fix button."""
        background_runner.set_error(error)
        self.report({"ERROR"}, str(error))
        return {"CANCELLED"}

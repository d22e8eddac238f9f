"""Names of the render engines that can draw a rig."""

from __future__ import annotations

WORKBENCH, CYCLES = "BLENDER_WORKBENCH", "CYCLES"
ENGINES = {"workbench": WORKBENCH, "cycles": CYCLES}  # as commands and files call them

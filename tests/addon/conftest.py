"""Every test with bpy starts in an empty file."""

import bpy
import pytest


@pytest.fixture(autouse=True)
def empty_file() -> None:
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)

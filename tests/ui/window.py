"""Run by Blender with a window: tells the test, ten times a second, what a user would see and what no screenshot shows.

`blender FILE --python window.py -- STATE.json`. The user's part, mouse and keys, comes from outside. What is copied with Ctrl-C is
collected here: over a button that is its operator, with Shift and Alt the path of its property, which tells where a button is.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import bpy

RUNNER = "bl_ext.user_default.anyrig.addon.tasks.background_runner"
SKIPPED = {"window_managers", "workspaces", "screens", "brushes", "palettes", "libraries"}
EVERY = 0.1
copied: list[str] = []
seen = {"ticks": 0}


def rectangle(region: bpy.types.Region, height: int) -> list[int]:
    """x, y, width, height in pixels of the screen, whose first row is at the top."""
    return [region.x, height - region.y - region.height, region.width, region.height]


def data_blocks() -> dict[str, list[str]]:
    found = {}
    for name in dir(bpy.data):
        collection = getattr(bpy.data, name)
        if name not in SKIPPED and isinstance(collection, bpy.types.bpy_prop_collection):
            found[name] = sorted(block.name_full for block in collection)
    return {name: names for name, names in found.items() if names}


def fingerprint() -> dict[str, object]:
    """All that a cancelled or undone capture must leave as it was."""
    poses, played = hashlib.sha256(), []
    for obj in bpy.data.objects:
        data = obj.animation_data
        played.append([obj.name, data.action.name if data and data.action else None, obj.mode, obj.select_get()])
        for bone in obj.pose.bones if obj.pose else ():
            poses.update(repr([list(row) for row in bone.matrix_basis]).encode())
    scene = bpy.context.scene
    frames = [scene.frame_current, scene.frame_start, scene.frame_end]
    return {"blocks": data_blocks(), "pose": poses.hexdigest(), "objects": played, "frames": frames}


def sidebar() -> dict[str, object]:
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    regions = {region.type: region for region in area.regions}
    panel = regions["UI"]
    return {
        "open": area.spaces.active.show_region_ui,
        "tab": getattr(panel, "active_panel_category", ""),
        "panel": rectangle(panel, window.height),
        "view": rectangle(regions["WINDOW"], window.height),
        "window": [window.width, window.height],
    }


def file_browser() -> dict[str, object] | None:
    """Blender's file browser, a window of its own: what is chosen in it, and where its regions are inside that window."""
    for window in bpy.context.window_manager.windows:
        area = window.screen.areas[0]
        if area.type == "FILE_BROWSER" and area.spaces.active.params is not None:
            params = area.spaces.active.params
            regions = {region.type: rectangle(region, window.height) for region in area.regions if region.height > 1}
            directory = params.directory.decode(errors="replace")
            return {
                "directory": directory,
                "filename": params.filename,
                "regions": regions,
                "size": [window.width, window.height],
            }
    return None


def running() -> dict[str, object]:
    runner = sys.modules.get(RUNNER)
    if runner is None:
        return {"installed": False}
    message, is_error = runner.status()
    current = runner.current()
    progress = None if current is None else [current.progress.stage, current.progress.fraction, current.progress.text]
    return {"installed": True, "progress": progress, "message": message, "is_error": is_error}


def tick() -> float:
    manager = bpy.context.window_manager
    if manager.clipboard:
        copied.append(manager.clipboard)
        manager.clipboard = ""
    seen["ticks"] += 1
    state = {"ticks": seen["ticks"], "copied": copied, **sidebar(), **running(), "scene": fingerprint()}
    state["browser"] = file_browser()
    queue = getattr(bpy.context.scene, "anyrig_queue", None)
    state["jobs"] = len(queue.jobs) if queue else 0
    props = getattr(bpy.context.scene, "anyrig", None)
    state["settings"] = {name: getattr(props, name) for name in ("video", "view", "model")} if props else {}
    # a reader must never see half a file
    path = Path(sys.argv[-1])
    path.with_suffix(".new").write_text(json.dumps(state))
    os.replace(path.with_suffix(".new"), path)
    return EVERY


def leave_copying_to_buttons() -> None:
    """Where there is no button, Ctrl-C would copy the selected objects."""
    for item in bpy.context.window_manager.keyconfigs.user.keymaps["3D View"].keymap_items:
        if item.idname == "view3d.copybuffer":
            item.active = False


def set_up() -> None:
    """Show the character: what a user would do with the mouse wheel."""
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    area.spaces.active.shading.color_type = "MATERIAL"
    for obj in bpy.data.objects:
        obj.select_set(True)
    region = next(region for region in area.regions if region.type == "WINDOW")
    with bpy.context.temp_override(window=window, area=area, region=region):
        bpy.ops.view3d.view_selected()
    leave_copying_to_buttons()


# in a timer it would be too late for the splash screen
bpy.context.preferences.view.show_splash = False
bpy.app.timers.register(set_up, first_interval=1.0)
bpy.app.timers.register(tick, first_interval=2.0, persistent=True)

"""Lets a 3D view look through the overlay's camera, and restores it, also after undo."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import bpy


def area_of(context: bpy.types.Context) -> tuple[bpy.types.Screen, int] | None:
    """The 3D view in which the button was clicked, or the largest there is."""
    for window in sorted(context.window_manager.windows, key=lambda each: each != context.window):
        views = [i for i, area in enumerate(window.screen.areas) if area.type == "VIEW_3D"]
        here = [i for i in views if window.screen.areas[i] == context.area]
        if views:
            return window.screen, max(here or views, key=lambda i: window.screen.areas[i].width * window.screen.areas[i].height)
    return None


@dataclass(frozen=True)
class ViewportState:
    """The settings of a 3D view before it looked through the overlay's camera."""

    screen: str
    area: int
    perspective: str
    zoom: float
    offset: tuple[float, ...]
    rotation: tuple[float, ...]
    location: tuple[float, ...]
    distance: float
    lock_camera: bool
    use_local_camera: bool

    @classmethod
    def of(cls, state: Any) -> ViewportState:
        values: dict[str, Any] = {each.name: getattr(state, each.name) for each in fields(cls)}
        arrays = {name: tuple(values[name]) for name in ("offset", "rotation", "location")}
        return cls(**{**values, **arrays})

    @property
    def space(self) -> Any:
        """The view, or None if the screen has none there now."""
        screen = bpy.data.screens.get(self.screen)
        if screen is None or not 0 <= self.area < len(screen.areas) or screen.areas[self.area].type != "VIEW_3D":
            return None
        return screen.areas[self.area].spaces.active

    def restore(self) -> None:
        space = self.space
        if space is None:
            return
        space.lock_camera, space.use_local_camera = self.lock_camera, self.use_local_camera
        region = space.region_3d
        region.view_camera_zoom, region.view_camera_offset = self.zoom, self.offset
        if region.view_perspective == "CAMERA":  # unless the user has looked elsewhere since
            region.view_perspective = self.perspective
            # drawing through a camera turns the view itself
            region.view_rotation, region.view_location, region.view_distance = self.rotation, self.location, self.distance


def look_through_camera(state: Any, context: bpy.types.Context) -> None:
    """Let a view look through the scene's camera, and store its settings in the overlay's state."""
    found = area_of(context)
    if found is None:
        return
    screen, state.area = found
    state.screen = screen.name
    space: Any = screen.areas[state.area].spaces.active
    region = space.region_3d
    state.perspective, state.zoom, state.offset = region.view_perspective, region.view_camera_zoom, region.view_camera_offset
    state.rotation, state.location, state.distance = region.view_rotation, region.view_location, region.view_distance
    state.lock_camera, state.use_local_camera = space.lock_camera, space.use_local_camera
    _to_camera(space)


def _to_camera(space: Any) -> None:
    # orbiting must leave the camera view, not move the camera
    space.lock_camera = space.use_local_camera = False
    region = space.region_3d
    region.view_perspective, region.view_camera_zoom, region.view_camera_offset = "CAMERA", 0.0, (0.0, 0.0)


# ---- undo restores scenes but not views; adjusting the settings of the last operator undoes it too

_before: list[ViewportState | None] = []


def _looking_now() -> ViewportState | None:
    state = bpy.context.scene.anyrig_overlay
    return ViewportState.of(state) if state.on else None


@bpy.app.handlers.persistent
def _before_undo(*_: Any) -> None:
    _before[:] = [_looking_now()]


@bpy.app.handlers.persistent
def _after_undo(*_: Any) -> None:
    before, now = _before.pop() if _before else None, _looking_now()
    if before is not None and now is None:
        before.restore()
    elif before is None and now is not None and now.space is not None:
        _to_camera(now.space)


HANDLERS = (
    (bpy.app.handlers.undo_pre, _before_undo),
    (bpy.app.handlers.redo_pre, _before_undo),
    (bpy.app.handlers.undo_post, _after_undo),
    (bpy.app.handlers.redo_post, _after_undo),
)


def reset() -> None:
    _before.clear()


def register() -> None:
    for handlers, handler in HANDLERS:
        handlers.append(handler)


def unregister() -> None:
    for handlers, handler in HANDLERS:
        handlers.remove(handler)
    reset()

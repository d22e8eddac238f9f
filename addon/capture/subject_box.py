"""The operator Draw Subject Box: shows the video's first frame over the viewport, where dragging the mouse draws the box."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import IntVectorProperty
from numpy.typing import NDArray

from ...backend.errors import UserError
from ...backend.video.clip import Clip
from ..settings.capture_params import box_of, clip_from_props
from ..settings.scene_properties import ANYRIG_Props
from ..tasks import background_runner
from ..ui.operator_base import AnyRigOperator

SMALLEST = 4  # pixels of the video; a smaller drag is a click
SHARE = 0.94  # of the free part of the viewport
LONGEST = 1600  # pixels of the image on the screen
HELP = "Drag a box around the subject. Esc: Cancel"

_painters: set[Painter] = set()  # those that draw now, to be removed when the add-on is disabled

Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Placement:
    """Where an image of (width, height) pixels is shown in a region whose y points up: its lower left corner, and its scale."""

    width: int
    height: int
    left: float
    bottom: float
    scale: float

    @classmethod
    def fitted(cls, width: int, height: int, free: Rectangle) -> Placement:
        """The image centred in the free part of the region."""
        x0, y0, x1, y1 = free
        scale = SHARE * min((x1 - x0) / width, (y1 - y0) / height)
        return cls(width, height, (x0 + x1 - scale * width) / 2, (y0 + y1 - scale * height) / 2, scale)

    def to_image(self, x: float, y: float) -> tuple[float, float]:
        """Region -> image, whose y points down; held within its edges."""
        # the region's y runs up from the image's lower edge, which is the image's y = height
        across, down = (x - self.left) / self.scale, self.height - (y - self.bottom) / self.scale
        return min(max(across, 0.0), self.width), min(max(down, 0.0), self.height)

    def to_region(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.scale, self.bottom + (self.height - y) * self.scale


def box_between(a: tuple[float, float], b: tuple[float, float]) -> tuple[int, int, int, int] | None:
    """The box of a drag, in whole pixels; None if it is too small to be meant."""
    (x0, x1), (y0, y1) = sorted((round(a[0]), round(b[0]))), sorted((round(a[1]), round(b[1])))
    return (x0, y0, x1, y1) if x1 - x0 >= SMALLEST and y1 - y0 >= SMALLEST else None


def free_part(window: Any, others: Sequence[Any]) -> Rectangle:
    """The part of the viewport's main region without sidebars and headers, in its own pixels."""
    x0, y0, x1, y1 = 0.0, 0.0, float(window.width), float(window.height)
    for region in others:
        over = (
            region.x < window.x + window.width and region.x + region.width > window.x and region.width > 1 and region.height > 1
        )
        if region.type == "TOOLS" and over:
            x0 = max(x0, region.x + region.width - window.x)
        elif region.type == "UI" and over:
            x1 = min(x1, region.x - window.x)
        elif region.type in ("HEADER", "TOOL_HEADER") and region.y > window.y:
            y1 = min(y1, region.y - window.y)
    # the sidebar covers nearly all of a small viewport: use the whole region
    return (x0, y0, x1, y1) if x1 - x0 > 50 and y1 - y0 > 50 else (0.0, 0.0, float(window.width), float(window.height))


def first_frame(clip: Clip) -> NDArray[np.uint8]:
    """(H, W, 3) RGB, as it is in the file. Raises UserError as `read_frames` does."""
    from ...backend.video.reader import read_frames

    frames = read_frames(replace(clip, mirror=False, box=None))
    try:
        return next(frames).image
    finally:
        frames.close()


def set_box(props: ANYRIG_Props, box: Sequence[int]) -> None:
    """Set the subject box. Raises UserError for an empty one or one outside the image; nothing is changed then."""
    Clip(props.video, box=box_of(box))
    width, height = props.video_size
    if width and (box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0):
        raise UserError(
            f"The subject box lies outside the image of {width} x {height} pixels: draw it around the subject.", fix="draw_box"
        )
    props.box, props.use_box = box, True
    if background_runner.status_fix() == "draw_box":
        background_runner.set_status("")


class ANYRIG_OT_draw_box(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.draw_box"
    bl_label = "Draw Subject Box"
    bl_description = "Draw a box around the subject on the video's first frame"
    bl_options = {"REGISTER", "UNDO"}

    box: IntVectorProperty(
        name="Box", description="Left, top, right and bottom in pixels from the top left", size=4, options={"SKIP_SAVE"}
    )

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if context.scene.anyrig.video else "Pick a video")

    def run(self, context: bpy.types.Context) -> str:
        set_box(context.scene.anyrig, tuple(self.box))
        return ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        area = viewport(context)
        try:
            if area is None:
                raise UserError("There is no 3D viewport to draw in: open one.")
            image = first_frame(replace(clip_from_props(context.scene.anyrig), box=None))
        except UserError as error:
            return self.refuse(error)
        self._start(context, area, image)
        return {"RUNNING_MODAL"}

    def _start(self, context: bpy.types.Context, area: bpy.types.Area, image: NDArray[np.uint8]) -> None:
        self._region = next(region for region in area.regions if region.type == "WINDOW")
        others = [region for region in area.regions if region.type != "WINDOW"]
        height, width = image.shape[:2]
        self._place = Placement.fitted(width, height, free_part(self._region, others))
        self._from: tuple[float, float] | None = None
        self._to = (0.0, 0.0)
        self._painter = Painter(self._region, self._place, image, lambda: self._dragged())
        context.window.cursor_modal_set("CROSSHAIR")
        context.workspace.status_text_set(iface_(HELP))
        context.window_manager.modal_handler_add(self)

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type in {"ESC", "RIGHTMOUSE"} and event.value == "PRESS":
            self._stop(context)
            return {"CANCELLED"}
        if event.type in {"LEFTMOUSE", "MOUSEMOVE"}:
            self._to = self._place.to_image(event.mouse_x - self._region.x, event.mouse_y - self._region.y)
            self._region.tag_redraw()
        if event.type == "LEFTMOUSE" and event.value == "PRESS":
            self._from = self._to
        elif event.type == "LEFTMOUSE" and event.value == "RELEASE":
            box, self._from = self._dragged(), None
            if box is not None:
                self._stop(context)
                self.box = box
                return self.execute(context)
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file, or quitting."""
        self._stop(context)

    def _dragged(self) -> tuple[int, int, int, int] | None:
        return None if self._from is None else box_between(self._from, self._to)

    def _stop(self, context: bpy.types.Context) -> None:
        self._painter.remove()
        context.window.cursor_modal_restore()
        context.workspace.status_text_set(None)
        self._region.tag_redraw()


def viewport(context: bpy.types.Context) -> bpy.types.Area | None:
    """The viewport in use, else the largest of the window."""
    if context.area is not None and context.area.type == "VIEW_3D":
        return context.area
    areas = [area for area in context.window.screen.areas if area.type == "VIEW_3D"] if context.window else []
    return max(areas, key=lambda area: area.width * area.height, default=None)


class Painter:
    """Draws the image and the box over one viewport until `remove` is called."""

    def __init__(self, region: bpy.types.Region, place: Placement, image: NDArray[np.uint8], dragged: Any) -> None:
        self._region, self._place, self._dragged = region.as_pointer(), place, dragged
        self._image, self._texture = image, None
        self._handle: Any = bpy.types.SpaceView3D.draw_handler_add(self._draw, (), "WINDOW", "POST_PIXEL")
        _painters.add(self)

    def remove(self) -> None:
        if self._handle is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handle, "WINDOW")
            self._handle = self._texture = None
            _painters.discard(self)

    def _draw(self) -> None:
        region = bpy.context.region
        if region is None or region.as_pointer() != self._region:  # the other viewports
            return
        import gpu

        place = self._place
        gpu.state.blend_set("ALPHA")
        _fill(_corners(0, 0, region.width, region.height), (0.0, 0.0, 0.0, 0.7))
        self._show()
        box = self._dragged()
        if box is not None:
            corners = _corners(*place.to_region(box[0], box[3]), *place.to_region(box[2], box[1]))
            _fill(corners, (1.0, 0.6, 0.1, 0.15))
            gpu.state.line_width_set(2.0)
            _fill(corners, (1.0, 0.6, 0.1, 1.0), "LINE_LOOP")
            gpu.state.line_width_set(1.0)
        gpu.state.blend_set("NONE")

    def _show(self) -> None:
        from gpu_extras.presets import draw_texture_2d

        if self._texture is None:
            self._texture = texture_of(self._image)
        place = self._place
        # the colours are linear: Blender before 5.0 converts all drawing to sRGB, later versions only on request
        options = {"is_scene_linear_with_rec709_srgb_target": True} if bpy.app.version >= (5, 0, 0) else {}
        size = place.width * place.scale, place.height * place.scale
        draw_texture_2d(self._texture, (place.left, place.bottom), *size, **options)


def texture_of(image: NDArray[np.uint8]) -> Any:
    """(H, W, 3) RGB -> a texture, reduced to the size of a screen."""
    import gpu

    pixels = screen_pixels(image)
    height, width = pixels.shape[:2]
    return gpu.types.GPUTexture((width, height), format="RGBA16F", data=gpu.types.Buffer("FLOAT", pixels.size, pixels.ravel()))


def screen_pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB -> (H', W', 4) float32 0..1, linear, the first row at the bottom, the longer side at most LONGEST."""
    import cv2

    height, width = image.shape[:2]
    share = min(1.0, LONGEST / max(height, width))
    size = max(1, round(width * share)), max(1, round(height * share))
    small = image if share == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    pixels = np.ones((size[1], size[0], 4), np.float32)
    steps = np.arange(256) / 255
    # IEC 61966-2-1
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4).astype(np.float32)
    pixels[..., :3] = linear[small[::-1]]
    return pixels


def _corners(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _fill(corners: list[tuple[float, float]], colour: tuple[float, float, float, float], kind: str = "TRI_FAN") -> None:
    import gpu
    from gpu_extras.batch import batch_for_shader

    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    batch = batch_for_shader(shader, kind, {"pos": corners})
    shader.bind()
    shader.uniform_float("color", colour)
    batch.draw(shader)


CLASSES = (ANYRIG_OT_draw_box,)
register, _unregister_classes = bpy.utils.register_classes_factory(CLASSES)


def reset() -> None:
    """Remove the images that are drawn over viewports."""
    for painter in list(_painters):
        painter.remove()


def unregister() -> None:
    reset()
    _unregister_classes()

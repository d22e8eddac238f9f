"""The operator Draw Subject Box: shows frames of the video over the viewport, where dragging the mouse draws the box."""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import FloatProperty, IntVectorProperty
from numpy.typing import NDArray

from ...backend.errors import UserError
from ...backend.video.clip import Clip
from ..settings.capture_params import box_of, clip_from_props
from ..settings.scene_properties import ANYRIG_Props
from ..tasks import background_runner
from ..ui.operator_base import AnyRigOperator
from .viewport_pictures import Painter, Picture, Placement, Rectangle, regions_of, screen_image, viewport

SMALLEST = 4  # pixels of the video; a smaller drag is a click
STOPS = 40  # about so many frames of the trim range can be looked at
BEFORE = 1e-3  # seconds by which a box's time is earlier than its frame, since Blender rounds it
HELP = "Drag a box around the subject. Wheel or arrow keys: Another Frame. Esc: Cancel"
STEPS = {"WHEELUPMOUSE": -1, "LEFT_ARROW": -1, "WHEELDOWNMOUSE": 1, "RIGHT_ARROW": 1}


def box_between(a: tuple[float, float], b: tuple[float, float]) -> tuple[int, int, int, int] | None:
    """The box of a drag, in whole pixels; None if it is too small to be meant."""
    (x0, x1), (y0, y1) = sorted((round(a[0]), round(b[0]))), sorted((round(a[1]), round(b[1])))
    return (x0, y0, x1, y1) if x1 - x0 >= SMALLEST and y1 - y0 >= SMALLEST else None


@dataclass(frozen=True, eq=False)
class Stop:
    """A frame to look at. time: seconds of the file. image: RGB as in the file, at most as large as a screen."""

    time: float
    image: NDArray[np.uint8]


class Stops:
    """Frames evenly spread over the trim range, read when they are asked for. size: (width, height) of the video.

    Raises UserError as `read_frames` does.
    """

    def __init__(self, clip: Clip) -> None:
        from ...backend.video.frame_source import FrameSource

        self._clip = replace(clip, mirror=False, box=None, box_time=None)
        source = FrameSource(self._clip)
        self.size = source.size
        self._frames = source.frames(every=max(1, source.expected // STOPS))
        self._seen = [self._read()]

    def at(self, index: int) -> tuple[int, Stop]:
        """The index, held within the range, and its frame."""
        while index >= len(self._seen):
            try:
                self._seen.append(self._read())
            except (StopIteration, UserError):  # the end of the range, or of what can be read of it
                break
        index = min(max(index, 0), len(self._seen) - 1)
        return index, self._seen[index]

    def close(self) -> None:
        self._frames.close()

    def _read(self) -> Stop:
        frame = next(self._frames)
        return Stop(frame.time * self._clip.speed + self._clip.start, screen_image(frame.image))


def box_time_of(seconds: float, trim_start: float) -> float:
    """The time to store for a box on the frame at these seconds of the file; 0 stands for the first frame of the trim range."""
    return max(seconds - BEFORE, trim_start, 0.0)


def set_box(props: ANYRIG_Props, box: Sequence[int], time: float = 0.0) -> None:
    """Set the subject box, on the frame at `time` (see `box_time_of`).

    Raises UserError for an empty one, or one outside the image or the trim range; nothing is changed then.
    """
    Clip(props.video, props.trim_start, props.trim_end or None, box=box_of(box), box_time=time or None)
    width, height = props.video_size
    if width and (box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0):
        raise UserError(
            f"The subject box lies outside the image of {width} x {height} pixels: draw it around the subject.", fix="draw_box"
        )
    props.box, props.use_box, props.box_time = box, True, time
    if background_runner.status_fix() == "draw_box":
        background_runner.set_status("")


class ANYRIG_OT_draw_box(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.draw_box"
    bl_label = "Draw Subject Box"
    bl_description = "Draw a box around the subject on a frame of the video"
    bl_options = {"REGISTER", "UNDO"}

    box: IntVectorProperty(
        name="Box", description="Left, top, right and bottom in pixels from the top left", size=4, options={"SKIP_SAVE"}
    )
    time: FloatProperty(
        name="Box Time",
        description="The frame that the box is drawn on, in seconds of the video; 0 for the first frame of the trim range",
        min=0.0,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if context.scene.anyrig.video else "Pick a video")

    def run(self, context: bpy.types.Context) -> str:
        set_box(context.scene.anyrig, tuple(self.box), self.time)
        return ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        area = viewport(context)
        try:
            if area is None:
                raise UserError("There is no 3D viewport to draw in: open one.")
            stops = Stops(clip_from_props(context.scene.anyrig, with_box=False))
        except UserError as error:
            return self.refuse(error)
        self._start(context, area, stops)
        return {"RUNNING_MODAL"}

    def _start(self, context: bpy.types.Context, area: bpy.types.Area, stops: Stops) -> None:
        self._region, free = regions_of(area)
        self._place = Placement.fitted(*stops.size, free)
        self._stops, (self._index, self._stop_shown) = stops, stops.at(0)
        self._from: tuple[float, float] | None = None
        self._to = (0.0, 0.0)
        self._painter = Painter(self._region, [self._picture()], lambda: self._boxes())
        context.window.cursor_modal_set("CROSSHAIR")
        self._say(context)
        context.window_manager.modal_handler_add(self)

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type in {"ESC", "RIGHTMOUSE"} and event.value == "PRESS":
            self._stop(context)
            return {"CANCELLED"}
        if event.type in STEPS and event.value == "PRESS":
            self._go(context, self._index + STEPS[event.type])
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
                first = self._index == 0
                self.time = 0.0 if first else box_time_of(self._stop_shown.time, context.scene.anyrig.trim_start)
                return self.execute(context)
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file, or quitting."""
        self._stop(context)

    def _go(self, context: bpy.types.Context, index: int) -> None:
        self._index, self._stop_shown = self._stops.at(index)
        self._painter.show([self._picture()])
        self._region.tag_redraw()
        self._say(context)

    def _say(self, context: bpy.types.Context) -> None:
        context.workspace.status_text_set(f"{iface_(HELP)}   {self._stop_shown.time:.2f} s")

    def _picture(self) -> Picture:
        return Picture(self._stop_shown.image, self._place)

    def _dragged(self) -> tuple[int, int, int, int] | None:
        return None if self._from is None else box_between(self._from, self._to)

    def _boxes(self) -> list[Rectangle]:
        """The box that is being dragged, in the region's pixels."""
        box, place = self._dragged(), self._place
        return [] if box is None else [(*place.to_region(box[0], box[3]), *place.to_region(box[2], box[1]))]

    def _stop(self, context: bpy.types.Context) -> None:
        self._painter.remove()
        self._stops.close()
        context.window.cursor_modal_restore()
        context.workspace.status_text_set(None)
        self._region.tag_redraw()


CLASSES = (ANYRIG_OT_draw_box,)
register, unregister = bpy.utils.register_classes_factory(CLASSES)

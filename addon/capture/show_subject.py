"""Show Subject: looks at a few frames before the capture runs, and shows which subject it would take; a click takes another one.

The look runs in the background as a capture does. Its pictures are drawn over the viewport by a second operator, which sets the subject
box, so that only a click makes an undo step.
"""

# Blender properties are annotations that are calls.
# pyright: reportInvalidTypeForm=false

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy.app.translations import pgettext_iface as iface_
from bpy.props import IntProperty
from numpy.typing import NDArray

from ...backend.capture_settings import Settings
from ...backend.errors import UserError, missing_library
from ...backend.video.clip import Clip
from ..settings.capture_params import CaptureParams, clip_from_props, device_from_context
from ..tasks import background_runner
from ..tasks.registration import register_with_reset
from ..tasks.task import Task
from ..ui.operator_base import AnyRigOperator
from . import subject_box
from .operators import load_capture
from .viewport_pictures import Painter, Picture, grid, regions_of, viewport

if TYPE_CHECKING:
    from ...backend.progress import Progress
    from ...backend.segmentation.preview import Moment, Preview, Shape

HELP = "Orange: the subject. Blue: Click to Take It Instead. Esc: Close"
CANCELLED = "Cancelled: nothing was changed."
LOST = "Nothing stands out in these frames: draw the subject box."
CHOSEN, OTHER = (255, 150, 25), (70, 160, 255)  # RGB of the outlines


@dataclass
class _State:
    """The latest look, and the clip that it was of, without its box."""

    preview: Preview | None = None
    clip: str = ""


_state = _State()


# ---- the look


def look(clip: Clip, settings: Settings) -> Generator[Progress, None, Preview]:
    """Find out what a capture would take, on any thread. Raises UserError."""
    from ...backend.progress import Progress, staged

    yield Progress("Looking for the subject")
    try:
        from ...backend.hardware.device_memory import releasing_device_memory
        from ...backend.hardware.devices import pick_device
        from ...backend.segmentation.preview import preview_subject
    except (ImportError, OSError) as error:  # OSError: a library that torch needs does not load (Windows)
        raise missing_library(error, "PyTorch") from error
    with releasing_device_memory():
        work = preview_subject(clip, pick_device(settings.device), settings.isnet, settings.cache)
        return (yield from staged("Looking for the subject", work, unit=""))


class ANYRIG_OT_show_subject(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.show_subject"
    bl_label = "Show Subject"
    bl_description = "Show on a few frames what the capture would take as the subject. Takes seconds, and changes nothing"

    in_background = False

    @classmethod
    def obstacle(cls, context: bpy.types.Context) -> str:
        return super().obstacle(context) or ("" if context.scene.anyrig.video else "Pick a video")

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        self.in_background = background_runner.has_window(context)
        return self.execute(context)

    def run(self, context: bpy.types.Context) -> str:
        clip = clip_from_props(context.scene.anyrig)
        params = load_capture().with_preferences(context, CaptureParams(clip, Settings(device=device_from_context(context))))
        task = Task(look(clip, params.settings))
        if self.in_background:
            background_runner.run_in_background(task, lambda task: _finish(clip, task))
            return ""
        message = _keep(clip, task.drain().result())
        background_runner.set_status(message)
        return message


def _finish(clip: Clip, task: Task) -> None:
    """Show the pictures of a look that ran in the background. Main thread."""
    outcome = background_runner.conclude(task, CANCELLED, lambda preview: _keep(clip, preview))
    if outcome.status == background_runner.DONE and not bpy.app.background:
        # a timer has no window of its own
        with bpy.context.temp_override(window=bpy.context.window_manager.windows[0]):
            bpy.ops.anyrig.pick_subject("INVOKE_DEFAULT")


def _keep(clip: Clip, preview: Preview) -> str:
    """Keep the look for its pictures and for the panel's line; -> a sentence about it."""
    _state.preview, _state.clip = preview, _without_box(clip)
    note = f" {preview.note}" if preview.note else ""
    if not preview.chosen:
        return LOST + note
    count = len(preview.others)
    others = f", {count} other {'object' if count == 1 else 'objects'} could be meant: click the right one" if count else ""
    return f"One subject was found{others}.{note}"


def _without_box(clip: Clip) -> str:
    return replace(clip, box=None, box_time=None).to_json()


def candidates_text(context: bpy.types.Context) -> str:
    """The panel's line if the latest look at this video found several objects, and the user has chosen none; else ''."""
    props, preview = context.scene.anyrig, _state.preview
    if preview is None or not preview.others or props.use_box or not props.video:
        return ""
    try:
        same = clip_from_props(props, with_box=False).to_json() == _state.clip
    except UserError:
        return ""
    return (
        iface_("{count} objects could be the subject: choose with Show Subject").format(count=len(preview.others) + 1)
        if same
        else ""
    )


# ---- choosing in the pictures


def pick(context: bpy.types.Context, moment: Moment, number: int) -> bool:
    """Make an object of a picture the subject; -> whether anything changed. The subject that is known already stays as it is.

    Raises UserError, also if the video or its range is another than that of the look.
    """
    preview, props = _state.preview, context.scene.anyrig
    if clip_from_props(props, with_box=False).to_json() != _state.clip:
        raise UserError("The video or its range has changed since: click Show Subject again.")
    if preview is None or (number == preview.chosen and (props.use_box or not preview.others)):
        return False
    shape = next(shape for shape in moment.shapes if shape.number == number)
    time = subject_box.box_time_of(moment.time, props.trim_start)
    subject_box.set_box(props, box_around(shape, preview.size), time)
    rest = [other for other in (preview.chosen, *preview.others) if other not in (number, 0)]
    _state.preview = replace(preview, chosen=number, others=tuple(rest))
    return True


def box_around(shape: Shape, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The object's box in whole pixels of the video, inside the image."""
    x0, y0, x1, y1 = shape.box
    return max(math.floor(x0), 0), max(math.floor(y0), 0), min(math.ceil(x1), size[0]), min(math.ceil(y1), size[1])


def shape_at(moment: Moment, x: float, y: float, size: tuple[int, int]) -> Shape | None:
    """The object at a pixel of the picture: the smallest whose matte is there, else the smallest whose box is. size: of the video."""
    height, width = moment.image.shape[:2]
    column, row = min(int(x), width - 1), min(int(y), height - 1)
    u, v = (x / width * size[0], y / height * size[1])
    hit = [shape for shape in moment.shapes if shape.matte[row, column] >= 128]
    near = [shape for shape in moment.shapes if shape.box[0] <= u < shape.box[2] and shape.box[1] <= v < shape.box[3]]

    def area(shape: Shape) -> float:
        return (shape.box[2] - shape.box[0]) * (shape.box[3] - shape.box[1])

    return min(hit or near, key=area, default=None)


def outlined(moment: Moment, chosen: int, others: Sequence[int] = ()) -> NDArray[np.uint8]:
    """The picture with the outlines of the subject and of the other objects, and its time."""
    import cv2

    image = moment.image.copy()
    for shape in sorted(moment.shapes, key=lambda shape: shape.number == chosen):
        if shape.number != chosen and shape.number not in others:
            continue
        lines, _ = cv2.findContours((shape.matte >= 128).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        colour = CHOSEN if shape.number == chosen else OTHER
        cv2.drawContours(image, lines, -1, colour, 3 if shape.number == chosen else 2, cv2.LINE_AA)
    where = (6, image.shape[0] - 8)
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(image, f"{moment.time:.2f} s", where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, width, cv2.LINE_AA)
    return image


class ANYRIG_OT_pick_subject(AnyRigOperator, bpy.types.Operator):
    bl_idname = "anyrig.pick_subject"
    bl_label = "Pick Subject"
    bl_description = "Choose the subject among the objects that Show Subject found, by a click or by numbers"
    bl_options = {"UNDO", "INTERNAL"}

    moment: IntProperty(name="Picture", description="Number of the picture, from 0", min=0, options={"SKIP_SAVE"})
    number: IntProperty(name="Object", description="Number of the object in it", min=0, options={"SKIP_SAVE"})

    @classmethod
    def obstacle(cls, _context: bpy.types.Context) -> str:
        return super().obstacle(_context) or ("" if _state.preview is not None else "Click Show Subject first")

    def run(self, context: bpy.types.Context) -> str:
        assert _state.preview is not None
        moments = _state.preview.moments
        known = {shape.number for shape in moments[self.moment].shapes} if self.moment < len(moments) else set()
        if self.number not in known:
            raise UserError(f"Picture {self.moment} shows no object {self.number}: click Show Subject, and one of its objects.")
        pick(context, moments[self.moment], self.number)
        return ""

    def invoke(self, context: bpy.types.Context, _event: bpy.types.Event) -> set[str]:
        area, preview = viewport(context), _state.preview
        if bpy.app.background or area is None or preview is None or not preview.moments:
            return {"CANCELLED"}
        self._region, self._free = regions_of(area)
        height, width = preview.moments[0].image.shape[:2]
        self._places, self._changed = grid(len(preview.moments), width, height, self._free), False
        self._painter = Painter(self._region, self._pictures())
        context.workspace.status_text_set(iface_(HELP))
        context.window_manager.modal_handler_add(self)
        self._region.tag_redraw()
        return {"RUNNING_MODAL"}

    def modal(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if event.type in {"ESC", "RIGHTMOUSE", "RET"} and event.value == "PRESS":
            return self._close(context)
        if event.type == "LEFTMOUSE" and event.value == "PRESS":
            x, y = event.mouse_x - self._region.x, event.mouse_y - self._region.y
            x0, y0, x1, y1 = self._free
            if not (x0 <= x < x1 and y0 <= y < y1):  # the sidebar, or another editor
                return self._close(context) | {"PASS_THROUGH"}
            found = next((i for i, place in enumerate(self._places) if place.holds(x, y)), None)
            if found is None:
                return self._close(context)
            self._click(context, found, *self._places[found].to_image(x, y))
        return {"RUNNING_MODAL"}

    def cancel(self, context: bpy.types.Context) -> None:
        """Blender ends the operator: another file, or quitting."""
        self._close(context)

    def _click(self, context: bpy.types.Context, index: int, x: float, y: float) -> None:
        if _state.preview is None:
            return
        moment = _state.preview.moments[index]
        shape = shape_at(moment, x, y, _state.preview.size)
        try:
            if shape is None or not pick(context, moment, shape.number):
                return
        except UserError as error:
            self.refuse(error)
            return
        self._changed = True
        self._painter.show(self._pictures())
        background_runner.set_status(f"The subject is the object at {moment.time:.2f} s.")
        background_runner.redraw()
        self._region.tag_redraw()

    def _pictures(self) -> list[Picture]:
        preview, places = _state.preview, self._places
        if preview is None:
            return []
        return [
            Picture(outlined(moment, preview.chosen, preview.others), place)
            for moment, place in zip(preview.moments, places, strict=True)
        ]

    def _close(self, context: bpy.types.Context) -> set[str]:
        self._painter.remove()
        if context.workspace is not None:
            context.workspace.status_text_set(None)
        self._region.tag_redraw()
        return {"FINISHED"} if self._changed else {"CANCELLED"}


def reset() -> None:
    """Forget the latest look: another file is loaded, or the add-on is disabled."""
    _state.preview, _state.clip = None, ""


CLASSES = (ANYRIG_OT_show_subject, ANYRIG_OT_pick_subject)
register, unregister = register_with_reset(CLASSES, reset)

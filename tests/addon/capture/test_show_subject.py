"""Show Subject: the look before a capture, its pictures, and the clicks in them. The network is not run: the videos have plain backdrops."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
from anyrig.addon.capture import panels, show_subject, subject_box, viewport_pictures
from anyrig.addon.settings.capture_params import clip_from_props
from anyrig.addon.tasks import background_runner
from anyrig.addon.ui.operator_base import AnyRigOperator
from anyrig.backend.progress import result_of
from anyrig.backend.segmentation.preview import Moment, Preview, Shape
from anyrig.backend.segmentation.subject import find_subject
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.drawn import draw, texts

pytestmark = pytest.mark.usefixtures("registered")
RED, BLUE, FPS, FRAMES = (200, 60, 40), (40, 60, 200), 12.0, 13


@pytest.fixture(autouse=True)
def no_look() -> None:
    show_subject.reset()
    background_runner.set_status("")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Before green, a red block at the left and a smaller blue one at the right, which both go right."""
    frames = np.empty((FRAMES, 72, 128, 3), np.uint8)
    frames[:] = (40, 160, 60)
    for index, frame in enumerate(frames):
        frame[14:60, 16 + index : 46 + index] = RED
        frame[24:60, 66 + 2 * index : 88 + 2 * index] = BLUE
    write_video(tmp_path / "two.mp4", frames, FPS)
    bpy.ops.anyrig.choose_video(filepath=str(tmp_path / "two.mp4"))
    return tmp_path / "two.mp4"


def props() -> Any:
    return bpy.context.scene.anyrig


def preview() -> Preview:
    assert show_subject._state.preview is not None
    return show_subject._state.preview


def other_at(index: int) -> Shape:
    [number] = preview().others
    return next(shape for shape in preview().moments[index].shapes if shape.number == number)


def subject_colour() -> str:
    """The colour of what a capture with the panel's settings would take."""
    subject = result_of(find_subject(clip_from_props(props()), isnet="off"))
    return "red" if subject.boxes[-1, 0] < 50 else "blue"


def test_the_look_says_that_there_are_two_and_a_pick_takes_the_other(video: Path) -> None:
    assert bpy.ops.anyrig.show_subject() == {"FINISHED"}
    text, is_error = background_runner.status()
    assert text == "One subject was found, 1 other object could be meant: click the right one." and not is_error
    line = "2 objects could be the subject: choose with Show Subject"
    assert line in " ".join(texts(draw(panels.ANYRIG_PT_video), "label")).replace("  ", " ")
    assert subject_colour() == "red" and not props().use_box
    moment, chosen = preview().moments[3], other_at(3)
    assert bpy.ops.anyrig.pick_subject(moment=3, number=chosen.number) == {"FINISHED"}
    assert props().use_box and 0 < props().box_time < moment.time < props().box_time + 2e-3
    x0, y0, x1, y1 = props().box
    assert x0 <= chosen.box[0] and y0 <= chosen.box[1] and x1 >= chosen.box[2] and y1 >= chosen.box[3] and x1 - x0 < 28
    assert subject_colour() == "blue" and preview().chosen == chosen.number
    assert not show_subject.candidates_text(bpy.context), "the choice is made"
    assert bpy.ops.anyrig.show_subject() == {"FINISHED"}
    shape = next(shape for shape in preview().moments[0].shapes if shape.number == preview().chosen)
    assert shape.box[0] > 60, "the look agrees"


def test_the_line_belongs_to_the_video_and_its_range(video: Path) -> None:
    bpy.ops.anyrig.show_subject()
    assert show_subject.candidates_text(bpy.context)
    props().trim_start = 0.2
    assert not show_subject.candidates_text(bpy.context)
    props().trim_start = 0.0
    assert show_subject.candidates_text(bpy.context)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    assert not show_subject.candidates_text(bpy.context) and show_subject._state.preview is None


def test_what_is_not_there_cannot_be_picked(video: Path) -> None:
    with pytest.raises(RuntimeError, match="Click Show Subject first"):
        bpy.ops.anyrig.pick_subject(moment=0, number=1)
    bpy.ops.anyrig.show_subject()
    for moment, number in ((0, 99), (99, 1)):
        with pytest.raises(RuntimeError, match=f"Picture {moment} shows no object {number}"):
            bpy.ops.anyrig.pick_subject(moment=moment, number=number)
    props().trim_start = 0.1
    with pytest.raises(RuntimeError, match="has changed since: click Show Subject again"):
        bpy.ops.anyrig.pick_subject(moment=0, number=preview().others[0])
    assert not props().use_box
    owner = show_subject.ANYRIG_OT_pick_subject
    assert owner.invoke(Press(owner), bpy.context, None) == {"CANCELLED"}, "no pictures without a window"


def test_the_subject_itself_is_kept(video: Path) -> None:
    bpy.ops.anyrig.show_subject()
    before = preview().chosen
    bpy.ops.anyrig.pick_subject(moment=2, number=before)
    assert preview().chosen == before and subject_colour() == "red"
    assert props().use_box, "of two objects, the click says which"
    box = tuple(props().box)
    bpy.ops.anyrig.pick_subject(moment=4, number=before)
    assert tuple(props().box) == box


def test_a_faulty_video_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    bpy.ops.anyrig.choose_video(filepath=str(tmp_path / "text.mp4"))
    with pytest.raises(RuntimeError, match="cannot be read as a video"):
        bpy.ops.anyrig.show_subject()
    assert background_runner.status_fix() == "convert"


def test_in_a_window_the_look_runs_beside_blender_and_can_be_cancelled(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_runner, "has_window", lambda _context: True)
    monkeypatch.setattr(background_runner, "watch_escape", lambda: None)
    owner = show_subject.ANYRIG_OT_show_subject
    owner.invoke(Press(owner), bpy.context, None)
    task = background_runner.current()
    assert task is not None
    task.join()
    background_runner.poll_current()
    assert background_runner.current() is None and len(preview().others) == 1
    show_subject.reset()
    owner.invoke(Press(owner), bpy.context, None)
    bpy.ops.anyrig.cancel()
    task = background_runner.current()
    assert task is not None
    task.join()
    background_runner.poll_current()
    assert background_runner.status() == ("Cancelled: nothing was changed.", False) and show_subject._state.preview is None


# ---- the pictures


class Pictures:
    """Stands in for the operator instance, which only Blender can make. The pictures lie in a region of 600 x 400 pixels."""

    run, execute, refuse = show_subject.ANYRIG_OT_pick_subject.run, AnyRigOperator.execute, AnyRigOperator.refuse
    _click = show_subject.ANYRIG_OT_pick_subject._click
    _pictures = show_subject.ANYRIG_OT_pick_subject._pictures
    _close = show_subject.ANYRIG_OT_pick_subject._close

    def __init__(self) -> None:
        self._region = SimpleNamespace(x=100, y=50, tag_redraw=lambda: None)
        self._free, self._changed, self.shown, self.removed = (0.0, 0.0, 600.0, 400.0), False, [], 0
        height, width = preview().moments[0].image.shape[:2]
        self._places = viewport_pictures.grid(len(preview().moments), width, height, self._free)
        self._painter = SimpleNamespace(show=self.shown.append, remove=self._remove)

    def _remove(self) -> None:
        self.removed += 1

    def report(self, _kind: set[str], text: str) -> None:
        raise AssertionError(text)

    def send(self, kind: str, x: float = 0, y: float = 0) -> set[str]:
        """An event at a point of the region."""
        event = SimpleNamespace(type=kind, value="PRESS", mouse_x=x + 100, mouse_y=y + 50)
        return show_subject.ANYRIG_OT_pick_subject.modal(self, bpy.context, event)  # type: ignore[arg-type]

    def click(self, index: int, x: float, y: float) -> set[str]:
        """A click where picture `index` has (x, y)."""
        return self.send("LEFTMOUSE", *self._places[index].to_region(x, y))


def middle(shape: Shape) -> tuple[float, float]:
    rows, columns = np.nonzero(shape.matte >= 128)
    return float(columns.mean()), float(rows.mean())


def test_a_click_on_the_other_object_sets_the_box_and_escape_ends_it(video: Path) -> None:
    bpy.ops.anyrig.show_subject()
    pictures = Pictures()
    x, y = middle(other_at(2))
    assert pictures.click(2, 2.0, 2.0) == {"RUNNING_MODAL"} and not props().use_box, "the backdrop is no object"
    assert pictures.click(2, x, y) == {"RUNNING_MODAL"}
    assert props().use_box and subject_colour() == "blue" and len(pictures.shown) == 1
    assert pictures.send("ESC") == {"FINISHED"} and pictures.removed == 1, "with an undo step"


@pytest.mark.parametrize(("kind", "x", "y", "expected"), [("ESC", 0, 0, set()), ("LEFTMOUSE", 640, 30, {"PASS_THROUGH"})])
def test_closing_without_a_choice_makes_no_undo_step(video: Path, kind: str, x: float, y: float, expected: set[str]) -> None:
    bpy.ops.anyrig.show_subject()
    pictures = Pictures()
    assert pictures.send(kind, x, y) == {"CANCELLED"} | expected and pictures.removed == 1 and not props().use_box


def test_a_click_between_the_pictures_closes_them(video: Path) -> None:
    bpy.ops.anyrig.show_subject()
    pictures = Pictures()
    place = pictures._places[0]
    assert pictures.send("LEFTMOUSE", place.left - 2, place.bottom + 5) == {"CANCELLED"}


def test_outlines_are_orange_around_the_subject_and_blue_around_others() -> None:
    image, mattes = np.full((90, 160, 3), 100, np.uint8), np.zeros((3, 90, 160), np.uint8)
    for matte, x in zip(mattes, (10, 60, 110), strict=True):
        matte[20:60, x : x + 30] = 255
    shapes = tuple(Shape(i + 1, (0, 0, 10, 10), matte) for i, matte in enumerate(mattes))
    drawn = show_subject.outlined(Moment(1.5, image, shapes), 2, (3,))
    assert (image == 100).all(), "the picture itself stays"
    assert tuple(drawn[40, 60]) == show_subject.CHOSEN and tuple(drawn[40, 110]) == show_subject.OTHER
    assert (drawn[20:60, 5:45] == 100).all(), "an object of no weight has no outline"


def test_of_objects_over_each_other_the_smaller_is_hit() -> None:
    image, large, small = np.zeros((90, 160, 3), np.uint8), np.zeros((90, 160), np.uint8), np.zeros((90, 160), np.uint8)
    large[10:80, 10:150], small[30:50, 40:60] = 255, 255
    shapes = (Shape(1, (20, 20, 300, 160), large), Shape(2, (80, 60, 120, 100), small))
    moment = Moment(0.0, image, shapes)
    for place, number in (((50, 40), 2), ((100, 40), 1), ((60.4, 40), 1)):
        shape = show_subject.shape_at(moment, *place, (320, 180))
        assert shape is not None and shape.number == number
    assert show_subject.shape_at(moment, 2, 2, (320, 180)) is None
    assert show_subject.box_around(Shape(3, (-3.2, 4.5, 321.0, 99.1), large), (320, 180)) == (0, 4, 320, 100)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 9])
def test_the_pictures_do_not_overlap_and_stay_in_the_free_part(count: int) -> None:
    places = viewport_pictures.grid(count, 160, 90, (40.0, 10.0, 640.0, 410.0))
    assert len(places) == count
    corners = [(place.to_region(0, 90), place.to_region(160, 0)) for place in places]
    for i, ((x0, y0), (x1, y1)) in enumerate(corners):
        assert 40 <= x0 < x1 <= 640 and 10 <= y0 < y1 <= 410
        assert places[i].holds(x0 + 1, y0 + 1) and not places[i].holds(x0 - 1, y0 + 1)
        for (u0, v0), (u1, v1) in corners[:i]:
            assert x0 >= u1 or u0 >= x1 or y0 >= v1 or v0 >= y1
    assert places[0].bottom == max(place.bottom for place in places), "the first at the top"


def test_nothing_is_left_when_the_addon_is_disabled(video: Path) -> None:
    bpy.ops.anyrig.show_subject()
    area = next(each for each in bpy.context.screen.areas if each.type == "VIEW_3D")
    region, free = viewport_pictures.regions_of(area)
    place = viewport_pictures.Placement.fitted(128, 72, free)
    viewport_pictures.Painter(region, [viewport_pictures.Picture(preview().moments[0].image, place)])
    addon.unregister()
    assert not viewport_pictures._painters and show_subject._state.preview is None
    assert not [each for each in bpy.app.handlers.load_pre if "show_subject" in each.__module__]
    addon.register()


# ---- the box on any frame


def test_frames_of_the_range_are_gone_through_both_ways(video: Path) -> None:
    stops = subject_box.Stops(clip_from_props(props()))
    assert stops.size == (128, 72) and stops.at(0)[1].time == 0.0
    index, stop = stops.at(4)
    assert index == 4 and stop.time == pytest.approx(4 / FPS) and stop.image[40, 17].argmax() == 1, "the block has moved"
    assert stops.at(99)[0] == FRAMES - 1 and stops.at(-5)[0] == 0
    assert stops.at(4)[1] is stop
    stops.close()


def test_a_box_outside_the_trim_range_is_refused_and_can_be_drawn_again(video: Path) -> None:
    assert bpy.ops.anyrig.draw_box(box=(20, 14, 50, 60), time=0.5) == {"FINISHED"}
    assert clip_from_props(props()).box_time == 0.5
    props().trim_end = 1.0
    with pytest.raises(RuntimeError, match="outside the trim range"):
        bpy.ops.anyrig.draw_box(box=(20, 14, 50, 60), time=2.0)
    assert props().box_time == 0.5
    props().trim_start = 0.8
    with pytest.raises(RuntimeError, match="drawn at 0.5 s, outside the trim range"):
        bpy.ops.anyrig.show_subject()
    assert background_runner.status_fix() == "draw_box"
    assert subject_box.Stops(clip_from_props(props(), with_box=False)).at(0)[1].time >= 0.8
    assert bpy.ops.anyrig.draw_box(box=(20, 14, 50, 60)) == {"FINISHED"} and clip_from_props(props()).box_time is None

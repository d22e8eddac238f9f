"""The panel's sections, the buttons below errors, the video, the subject box, Esc, presets, menus and the estimate."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
from anyrig.addon.capture import estimate, operators, panels, run_capture, subject_box, video_file, viewport_pictures
from anyrig.addon.capture.estimate import Rates, Work
from anyrig.addon.settings import preference_values, presets
from anyrig.addon.settings.capture_params import CaptureParams, params_from_context
from anyrig.addon.tasks import background_runner, task
from anyrig.addon.ui import fix_buttons, menus
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.drawn import draw, texts
from anyrig.tests.addon.fixtures import human, quadruped
from anyrig.tests.scripts import ROOT

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """30 frames at 15 fps: dark on the left, light on the right."""
    frame = np.full((48, 64, 3), 30, np.uint8)
    frame[:, 32:] = 220
    write_video(tmp_path / "walk.mp4", [frame] * 30, 15.0)
    return tmp_path / "walk.mp4"


def scene_props() -> Any:
    return bpy.context.scene.anyrig


# ---- sections


def test_sections_stand_in_the_order_of_reading() -> None:
    sections = [each for each in panels.CLASSES if getattr(each, "bl_parent_id", "") == "ANYRIG_PT_capture"]
    assert [each.bl_label for each in sections] == ["Rig", "Video", "Reference", "Output", "Model", "Capture"]
    orders = [each.bl_order for each in sections]
    assert orders == sorted(orders) and all(hasattr(bpy.types, each.bl_idname) for each in panels.CLASSES)


def test_rig_section_offers_the_only_armature_or_a_choice() -> None:
    obj = human()
    bpy.context.view_layer.objects.active = None
    obj.select_set(False)
    drawn = draw(panels.ANYRIG_PT_rig)
    assert ("operator", "anyrig.pick_armature") in drawn and ("text", "Use 'Human'") in drawn
    assert bpy.ops.anyrig.pick_armature(armature="Human") == {"FINISHED"} and scene_props().armature == obj
    scene_props().armature = None
    quadruped().select_set(False)
    bpy.context.view_layer.objects.active = None
    assert "operator_menu_enum" in dict(draw(panels.ANYRIG_PT_rig))


def test_rig_section_asks_for_the_collection() -> None:
    human()
    assert "collection" not in texts(draw(panels.ANYRIG_PT_rig), "prop")
    scene_props().bones = "COLLECTION"
    assert "collection" in texts(draw(panels.ANYRIG_PT_rig), "prop")


def test_refine_is_chosen_beside_the_model_and_reaches_the_capture() -> None:
    assert "refine" in texts(draw(panels.ANYRIG_PT_model), "prop") and "refine" in presets.NAMES
    scene_props()["video"] = "/v.mp4"
    for choice, lite, other in (("AUTO", "quick", "off"), ("OFF", "off", "off"), ("THOROUGH", "thorough", "thorough")):
        scene_props().refine = choice
        modes = []
        for model in ("lite", "release"):
            scene_props().model = model
            modes.append(params_from_context(bpy.context).settings.refine_mode)
        assert modes == [lite, other]


def test_model_section_says_which_torch_there_is() -> None:
    assert any(str(text).startswith("PyTorch 2.") for text in texts(draw(panels.ANYRIG_PT_model), "label"))


def test_nothing_can_be_changed_while_a_capture_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        background_runner._state, "task", SimpleNamespace(progress=task.Snapshot("Reading", 3, 9, 0.0, 6.0, "frame"))
    )
    layout = SimpleNamespace(enabled=True)
    panels.ANYRIG_PT_rig.draw(SimpleNamespace(layout=layout, content=lambda *_: None), bpy.context)
    assert layout.enabled is False
    drawn = draw(panels.ANYRIG_PT_run)
    assert ("progress", "Reading: frame 3 of 9, 0:12 left") in drawn and ("operator", "anyrig.cancel") in drawn
    monkeypatch.setattr(background_runner._state, "task", None)


# ---- errors and their buttons


@pytest.mark.parametrize(
    ("start", "fix", "after"),
    [
        ({"trim_start": 3.0, "trim_end": 2.0}, "whole_video", {"trim_start": 0.0, "trim_end": 0.0}),
        ({"matte": "/m.mp4"}, "no_matte", {"matte": ""}),
        ({"device": "cuda"}, "use_cpu", {"device": "cpu"}),
        ({"model": "FILE"}, "use_lite", {"model": "lite"}),
        ({"bones": "SELECTED"}, "deform_bones", {"bones": "DEFORM"}),
    ],
)
def test_fixes_set_right_what_is_wrong(start: dict[str, Any], fix: str, after: dict[str, Any]) -> None:
    for name, value in start.items():
        setattr(scene_props(), name, value)
    background_runner.set_status("It does not work.", is_error=True, fix=fix)
    drawn = draw(panels.ANYRIG_PT_run)
    assert ("operator", "anyrig.fix") in drawn and ("text", fix_buttons.FIXES[fix].label) in drawn
    assert bpy.ops.anyrig.fix(fix=fix) == {"FINISHED"}
    assert {name: getattr(scene_props(), name) for name in after} == after and background_runner.status() == ("", False)


def test_an_error_of_the_operator_brings_its_button() -> None:
    human()
    scene_props()["video"] = "/v.mp4"
    scene_props().trim_start, scene_props().trim_end = 3.0, 2.0
    with pytest.raises(RuntimeError, match="swap the two"):
        bpy.ops.anyrig.capture()
    assert background_runner.status_fix() == "whole_video" and ("operator", "anyrig.fix") in draw(panels.ANYRIG_PT_run)


def test_an_error_of_the_job_brings_its_button() -> None:
    def steps() -> Iterator[Any]:
        raise UserError("Device 'cuda' does not work: choose 'cpu'.", fix="use_cpu")
        yield

    ended = task.Task(steps()).drain()  # type: ignore[arg-type]
    operators.finish(None, ended)  # type: ignore[arg-type]
    assert background_runner.status_fix() == "use_cpu" and background_runner.status()[1]


def test_what_nobody_foresaw_offers_the_diagnostics(caplog: pytest.LogCaptureFixture) -> None:
    def steps() -> Iterator[Any]:
        raise ValueError("shapes")
        yield

    ended = task.Task(steps()).drain()  # type: ignore[arg-type]
    operators.finish(None, ended)  # type: ignore[arg-type]
    assert ("operator", "anyrig.copy_diagnostics") in draw(panels.ANYRIG_PT_run)


def test_every_fix_in_the_code_is_known() -> None:
    named = set()
    for path in [*(ROOT / "addon").rglob("*.py"), *(ROOT / "backend").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "UserError":
                named |= {
                    each.value.value for each in node.keywords if each.arg == "fix" and isinstance(each.value, ast.Constant)
                }
    assert {"whole_video", "use_cpu", "draw_box", "convert"} <= named
    assert named - {""} <= {*fix_buttons.FIXES, *fix_buttons.OPERATORS, fix_buttons.PICK}
    for name in fix_buttons.OPERATORS.values():
        group, _, operator = name.partition(".")
        assert operator in dir(getattr(bpy.ops, group))


def test_unknown_fix_is_told() -> None:
    with pytest.raises(RuntimeError, match="There is no fix 'x'"):
        bpy.ops.anyrig.fix(fix="x")


def test_gpu_that_torch_is_too_old_for_offers_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from anyrig.backend.hardware import devices

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "device_obstacle", lambda _: "This GPU is newer than PyTorch: set Device to CPU.")
    monkeypatch.setattr(devices, "look_up_devices", lambda: None)
    with pytest.raises(UserError, match="set Device to CPU") as caught:
        devices.pick_device("cuda")
    assert caught.value.fix == "use_cpu"


# ---- the video


def test_choosing_a_video_forgets_what_was_said_of_another(video: Path) -> None:
    props = scene_props()
    props.trim_start, props.trim_end, props.use_box, props.matte = 1.0, 2.0, True, "/m.mp4"
    background_runner.set_status("wrong", is_error=True)
    assert bpy.ops.anyrig.choose_video(filepath=str(video)) == {"FINISHED"}
    assert (
        props.video == str(video) and (props.video_frames, props.video_fps) == (30, 15.0) and tuple(props.video_size) == (64, 48)
    )
    assert (props.trim_start, props.trim_end, props.use_box, props.matte) == (
        0.0,
        0.0,
        False,
        "",
    ) and background_runner.status()[0] == ""


def test_dropped_files_go_to_the_same_operator() -> None:
    handler = video_file.ANYRIG_FH_video
    assert handler.bl_import_operator == "anyrig.choose_video" and ".mp4" in handler.bl_file_extensions.split(";")
    assert handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type="VIEW_3D")))  # type: ignore[arg-type]
    assert not handler.poll_drop(SimpleNamespace(area=SimpleNamespace(type="TEXT_EDITOR")))  # type: ignore[arg-type]
    assert not handler.poll_drop(SimpleNamespace(area=None))  # type: ignore[arg-type]
    assert bpy.types.FileHandler.bl_rna_get_subclass_py("ANYRIG_FH_video") is handler


def test_video_that_cannot_be_decoded_says_how_to_convert_it(tmp_path: Path) -> None:
    broken = tmp_path / "it's broken.mp4"
    broken.write_bytes(b"no video")
    bpy.ops.anyrig.choose_video(filepath=str(broken))
    props = scene_props()
    assert "cannot be read as a video" in props.video_text and props.video_fix == "convert"
    assert ("operator", "anyrig.copy_conversion") in draw(panels.ANYRIG_PT_video)
    assert bpy.ops.anyrig.copy_conversion() == {"FINISHED"}
    command = video_file.conversion(str(broken))
    assert command.startswith("ffmpeg -i ") and "libx264" in command and "broken H.264.mp4" in command


def test_a_video_that_cannot_be_used_is_shown_as_an_error(tmp_path: Path, video: Path) -> None:
    """Also where no button could mend it."""
    (tmp_path / "empty").mkdir()
    bpy.ops.anyrig.choose_video(filepath=str(tmp_path / "empty"))
    assert "has no images" in scene_props().video_text and not scene_props().video_fix
    assert "ERROR" in texts(draw(panels.ANYRIG_PT_video), "icon")
    bpy.ops.anyrig.choose_video(filepath=str(video))
    assert "ERROR" not in texts(draw(panels.ANYRIG_PT_video), "icon")


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (24.0, (24, 1.0)),
        (30000 / 1001, (30, 1.001)),
        (23.976, (24, 1.001)),
        (12.5, (13, 1.04)),
        (59.94, (60, 1.001)),
        (120, (120, 1)),
    ],
)
def test_frame_rates_as_blender_has_them(rate: float, expected: tuple[int, float]) -> None:
    assert video_file.fps_and_base(rate) == pytest.approx(expected)


def test_wrong_frame_rate_offers_that_of_the_footage(video: Path) -> None:
    scene = bpy.context.scene
    bpy.ops.anyrig.choose_video(filepath=str(video))
    assert ("operator", "anyrig.match_fps") in draw(panels.ANYRIG_PT_video)
    assert bpy.ops.anyrig.match_fps() == {"FINISHED"} and scene.render.fps == 15
    assert ("operator", "anyrig.match_fps") not in draw(panels.ANYRIG_PT_video)
    scene_props().speed = 2.0  # slow motion: the motion really went by twice as fast
    assert ("operator", "anyrig.match_fps") in draw(panels.ANYRIG_PT_video)
    bpy.ops.anyrig.match_fps()
    assert scene.render.fps == 30


# ---- the subject box


def test_image_and_region_are_the_same_place_both_ways() -> None:
    place = viewport_pictures.Placement.fitted(640, 360, (100.0, 0.0, 900.0, 500.0))
    assert place.to_region(0, 0)[1] > place.to_region(0, 360)[1], "the image's top is up"
    assert place.to_image(*place.to_region(12.0, 34.0)) == pytest.approx((12.0, 34.0))
    assert place.to_image(-1e4, -1e4) == (0.0, 360) and place.to_image(1e4, 1e4) == (640, 0.0)
    left, right = place.to_region(0, 0)[0], place.to_region(640, 0)[0]
    assert (left + right) / 2 == pytest.approx(500.0) and left > 100 and right < 900


def test_sidebar_and_headers_leave_the_rest() -> None:
    def region(kind: str, *numbers: int) -> Any:
        return SimpleNamespace(type=kind, **dict(zip(("x", "y", "width", "height"), numbers, strict=True)))

    window = region("WINDOW", 10, 20, 800, 600)
    others = [region("TOOLS", 10, 20, 40, 600), region("UI", 560, 20, 250, 600), region("HEADER", 10, 594, 800, 26)]
    assert viewport_pictures.free_part(window, others) == (40.0, 0.0, 550.0, 574.0)
    assert viewport_pictures.free_part(window, [region("UI", 809, 20, 1, 600)]) == (0.0, 0.0, 800.0, 600.0)


class Drag:
    """Stands in for the operator instance, which only Blender can make."""

    execute = subject_box.ANYRIG_OT_draw_box.execute
    run = subject_box.ANYRIG_OT_draw_box.run
    _dragged = subject_box.ANYRIG_OT_draw_box._dragged
    _go = subject_box.ANYRIG_OT_draw_box._go
    _picture = subject_box.ANYRIG_OT_draw_box._picture

    def _say(self, _context: Any) -> None:
        pass

    def __init__(self) -> None:
        self._place = viewport_pictures.Placement.fitted(64, 48, (0.0, 0.0, 640.0, 480.0))
        self._region = SimpleNamespace(x=100, y=50, tag_redraw=lambda: None)
        self._from, self._to, self.box, self.time, self.stopped = None, (0.0, 0.0), None, 0.0, 0
        self._stops = subject_box.Stops(Clip(bpy.context.scene.anyrig.video))
        self._index, self._stop_shown, self.shown = 0, self._stops.at(0)[1], []
        self._painter = SimpleNamespace(show=self.shown.append)

    def _stop(self, _context: Any) -> None:
        self.stopped += 1

    def report(self, _kind: set[str], text: str) -> None:
        raise AssertionError(text)

    def send(self, kind: str, value: str, x: float = 0, y: float = 0) -> set[str]:
        """An event where the image has (x, y)."""
        across, up = self._place.to_region(x, y)
        event = SimpleNamespace(type=kind, value=value, mouse_x=across + 100, mouse_y=up + 50)
        return subject_box.ANYRIG_OT_draw_box.modal(self, bpy.context, event)  # type: ignore[arg-type]


def test_a_drag_sets_the_box(video: Path) -> None:
    bpy.ops.anyrig.choose_video(filepath=str(video))
    drag = Drag()
    assert drag.send("MOUSEMOVE", "NOTHING", 50, 40) == {"RUNNING_MODAL"} and drag._dragged() is None
    drag.send("LEFTMOUSE", "PRESS", 50, 40)
    drag.send("LEFTMOUSE", "RELEASE", 51, 41)
    assert not drag.stopped and not scene_props().use_box, "a click is no box"
    drag.send("LEFTMOUSE", "PRESS", 50, 40)
    drag.send("MOUSEMOVE", "NOTHING", 20, 10)
    assert drag._dragged() == (20, 10, 50, 40)
    assert drag.send("LEFTMOUSE", "RELEASE", 10, 5) == {"FINISHED"} and drag.stopped == 1
    assert scene_props().use_box and tuple(scene_props().box) == (10, 5, 50, 40)


def test_the_wheel_and_the_arrows_go_to_other_frames(video: Path) -> None:
    bpy.ops.anyrig.choose_video(filepath=str(video))
    drag = Drag()
    for kind in ("WHEELDOWNMOUSE", "RIGHT_ARROW", "RIGHT_ARROW", "WHEELUPMOUSE", "LEFT_ARROW", "RIGHT_ARROW"):
        assert drag.send(kind, "PRESS") == {"RUNNING_MODAL"}
    assert drag._index == 2 and len(drag.shown) == 6
    drag.send("LEFTMOUSE", "PRESS", 50, 40)
    assert drag.send("LEFTMOUSE", "RELEASE", 10, 5) == {"FINISHED"}
    assert 2 / 15 - 2e-3 < scene_props().box_time < 2 / 15, "just before its frame, since Blender rounds"


def test_escape_keeps_the_earlier_box(video: Path) -> None:
    bpy.ops.anyrig.choose_video(filepath=str(video))
    drag = Drag()
    drag.send("LEFTMOUSE", "PRESS", 5, 4)
    assert drag.send("ESC", "PRESS") == {"CANCELLED"} and drag.stopped == 1 and not scene_props().use_box


def test_box_by_numbers(video: Path) -> None:
    bpy.ops.anyrig.choose_video(filepath=str(video))
    background_runner.set_status("No subject was found.", is_error=True, fix="draw_box")
    assert bpy.ops.anyrig.draw_box(box=(1, 2, 30, 40)) == {"FINISHED"}
    assert scene_props().use_box and tuple(scene_props().box) == (1, 2, 30, 40) and background_runner.status_fix() == ""
    for box, message in (((5, 5, 5, 9), "box is empty"), ((70, 5, 90, 9), "outside the image of 64 x 48")):
        with pytest.raises(RuntimeError, match=message):
            bpy.ops.anyrig.draw_box(box=box)
    assert tuple(scene_props().box) == (1, 2, 30, 40)


def test_first_frame_is_the_files_own(video: Path) -> None:
    stops = subject_box.Stops(Clip(str(video), start=0.5, mirror=True))
    image = stops.at(0)[1].image
    stops.close()
    assert image.shape == (48, 64, 3) and image[:, :20].mean() < 60 < 180 < image[:, 44:].mean(), "not swapped"
    pixels = viewport_pictures.screen_pixels(np.concatenate([image, image // 2]))
    assert pixels.shape == (96, 64, 4) and pixels[10, 60, 0] < pixels[-10, 60, 0], "first row at the bottom"
    assert max(viewport_pictures.screen_pixels(np.zeros((2000, 4000, 3), np.uint8)).shape) == viewport_pictures.LONGEST


def test_painter_leaves_no_handler() -> None:
    area = next(each for each in bpy.context.screen.areas if each.type == "VIEW_3D")
    region = next(each for each in area.regions if each.type == "WINDOW")
    place = viewport_pictures.Placement.fitted(64, 48, (0.0, 0.0, 640.0, 480.0))
    viewport_pictures.Painter(region, [viewport_pictures.Picture(np.zeros((48, 64, 3), np.uint8), place)])
    assert len(viewport_pictures._painters) == 1
    addon.unregister()
    assert not viewport_pictures._painters
    addon.register()


# ---- Esc


def test_escape_cancels_and_the_rest_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[bool] = []
    monkeypatch.setattr(background_runner._state, "task", SimpleNamespace(cancel=lambda: cancelled.append(True), done=False))

    def send(kind: str, value: str = "PRESS") -> set[str]:
        return background_runner.ANYRIG_OT_watch_escape.modal(None, bpy.context, SimpleNamespace(type=kind, value=value))  # type: ignore[arg-type]

    assert send("MOUSEMOVE", "NOTHING") == send("ESC", "RELEASE") == send("Z") == {"PASS_THROUGH"} and not cancelled
    assert send("ESC") == {"CANCELLED"} and cancelled == [True]
    monkeypatch.setattr(background_runner._state, "task", None)
    assert send("MOUSEMOVE", "NOTHING") == {"CANCELLED", "PASS_THROUGH"}, "it ends with the capture"


# ---- presets and menus


def test_preset_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpy.utils, "user_resource", lambda _kind, path="", create=False: str(_made(tmp_path / path)))
    monkeypatch.setattr(bpy.utils, "preset_find", lambda *_a, **_o: None)
    menu = presets.ANYRIG_PT_presets
    monkeypatch.setattr(menu, "bl_label", menu.bl_label)  # Blender writes the preset's name there; put back afterwards
    props = scene_props()
    props.speed, props.output, props.bones, props["video"] = 3.0, "STRIP", "SELECTED", "/mine.mp4"
    assert bpy.ops.anyrig.preset_add(name="My Way") == {"FINISHED"}
    (path,) = (tmp_path / "presets" / presets.FOLDER).glob("*.py")
    assert path.stem == "My_Way" and "mine.mp4" not in path.read_text()
    props.speed, props.output, props.bones = 1.0, "ACTION", "DEFORM"
    props["video"] = "/other.mp4"
    bpy.ops.script.execute_preset(filepath=str(path), menu_idname="ANYRIG_PT_presets")
    assert (props.speed, props.output, props.bones, props.video) == (3.0, "STRIP", "SELECTED", "/other.mp4")


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_presets_keep_only_what_exists() -> None:
    assert all(hasattr(scene_props(), name) for name in presets.NAMES)
    assert not {"video", "armature", "trim_start", "box", "matte", "collection"} & set(presets.NAMES)


def test_menus_hold_operators_that_exist() -> None:
    names = [name for name, _ in menus.ENTRIES if name]
    assert all(name.partition(".")[2] in dir(bpy.ops.anyrig) for name in names)
    for host in menus.HOSTS:
        assert menus.draw_entry in getattr(bpy.types, host)._dyn_ui_initialize()
    addon.unregister()
    for host in menus.HOSTS:
        assert menus.draw_entry not in getattr(bpy.types, host)._dyn_ui_initialize()
    addon.register()


def test_everything_has_a_tooltip() -> None:
    settings = [
        each for each in scene_props().bl_rna.properties if not each.is_hidden and each.identifier not in ("rna_type", "name")
    ]
    assert [each.identifier for each in settings if not (each.name and each.description)] == []
    for name in dir(bpy.ops.anyrig):
        operator = getattr(bpy.ops.anyrig, name).get_rna_type()
        assert operator.description and operator.name, name


# ---- the estimate


def test_estimate_is_near_what_was_measured() -> None:
    def seconds(frames: int, rigs: int, size: tuple[int, int]) -> float:
        found = Rates().estimate(Work(frames, size, rigs, 20 * rigs)).seconds
        assert found is not None
        return found - 3.0  # importing PyTorch, which was not measured along

    measured = {(50, 1, (320, 180)): 2.2, (200, 1, (320, 180)): 6.3, (50, 4, (320, 180)): 4.1, (100, 1, (1280, 720)): 7.6}
    assert all(abs(seconds(*work) / took - 1) < 0.4 for work, took in measured.items())


def test_estimate_learns_from_the_capture_that_ran() -> None:
    rates, work = Rates(), Work(100, (640, 360), 1, 20, "mine.safetensors", "cuda")
    assert rates.estimate(work).seconds is None and rates.estimate(work).memory is None
    took = {"load": 1.0, "subject": 4.0, "view": 0.5, "video2pose": 6.0, "pose2rot": 2.0}
    rates.learn(work, took)
    found = rates.estimate(work)
    assert found.own and found.seconds == pytest.approx(13.5)
    assert rates.estimate(Work(200, (640, 360), 1, 20, "mine.safetensors", "cuda")).seconds == pytest.approx(25.5)


def test_refining_has_its_share_of_the_estimate() -> None:
    rates, size = Rates(), (320, 180)
    plain, fitted = (rates.estimate(Work(100, size, 2, 40, refine=mode)).seconds for mode in ("off", "quick"))
    side = 2 * estimate.LITE_ON_CPU["view"] * estimate.SIDES
    assert plain is not None and fitted == pytest.approx(plain + side + 200 * estimate.REFINED["quick"])
    rates.learn(Work(100, size, 1, 20, refine="quick"), {"subject": 1.0, "refine": 30.0})
    rates.learn(Work(100, size, 1, 20), {"subject": 1.0})
    assert rates.estimate(Work(50, size, 1, 20, refine="quick")).seconds == pytest.approx(0.5 + 15.0)


def test_looking_for_the_subject_has_its_share_of_the_estimate() -> None:
    rates, size = Rates(), (1280, 720)
    work = Work(180, size, 1, 20, looks=True)
    found, without = rates.estimate(work).seconds, rates.estimate(replace(work, looks=False)).seconds
    assert found is not None and without is not None
    assert 0.5 * 30 < found - without < 2.7 * 30, "a look at every sixth frame"
    rates.learn(work, {"subject": 36.0})
    assert rates.estimate(replace(work, frames=90)).seconds == pytest.approx(18.0)
    assert not estimate.looks_for("matte.mp4", "") and not estimate.looks_for("", preference_values.ISNET_OFF)
    assert estimate.looks_for("", "") and estimate.looks_for("", "mine.safetensors")


def test_a_kept_subject_teaches_nothing_about_finding_one() -> None:
    took = {"load": 1.0, "subject": 4.0, "view": 0.5, "video2pose": 6.0, "pose2rot": 2.0}
    for model, before in (("mine.safetensors", 4.0), ("lite", 0.045 * 100 * 0.2304)):
        rates, work = Rates(), Work(100, (640, 360), 1, 20, model, "cpu")
        if model != "lite":
            rates.learn(work, took)
        rates.learn(work, {**took, "subject": 0.02})
        assert rates.estimate(work).seconds == pytest.approx(9.5 + before)


def test_estimate_is_shown_above_the_button(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "RATES", Rates())
    assert panels.estimate_text(bpy.context) == ""
    human()
    bpy.ops.anyrig.choose_video(filepath=str(video))
    assert panels.estimate_text(bpy.context).startswith("30 frames: about 0:16, 0.7 GB (measured on one processor core")
    scene_props().device = "cuda"
    assert "no estimate yet for this model and device" in panels.estimate_text(bpy.context)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0:01"), (59.6, "1:00"), (3700, "1:01:40")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert estimate.clock_text(seconds) == text


def test_a_request_knows_the_size_of_the_panels_video(video: Path) -> None:
    """So that a capture teaches the estimate also if another video is chosen while it runs."""
    bpy.ops.anyrig.choose_video(filepath=str(video))
    made = [
        run_capture.request_of(bpy.context.scene, CaptureParams(Clip(path), Settings()), []) for path in (str(video), "v.mp4")
    ]
    scene_props().video = ""
    assert [request.video_size for request in made] == [(64, 48), (0, 0)]


def test_a_capture_teaches_the_estimate(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = Rates()
    monkeypatch.setattr(estimate, "RATES", rates)
    bpy.ops.anyrig.choose_video(filepath=str(video))
    clip, rig = Clip(str(video)), SimpleNamespace(names=("a", "b"))
    take = SimpleNamespace(
        params=SimpleNamespace(clip=clip, settings=Settings(device="cuda")),
        subjects=[SimpleNamespace(rig=rig)],
        video_size=(64, 48),
    )
    motion = SimpleNamespace(provenance={"seconds": {"video2pose": 3.0}}, __len__=lambda _: 30)
    result = SimpleNamespace(motion=type("M", (), {"provenance": motion.provenance, "__len__": motion.__len__})())
    operators._learn(take, [result])  # type: ignore[arg-type]
    assert rates.estimate(Work(60, (64, 48), 1, 2, "lite", "cuda")).seconds == pytest.approx(6.0)

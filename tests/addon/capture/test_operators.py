"""The add-on as a whole: registering, the capture operator with and without a window, and what a failure leaves behind."""

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
import torch
from anyrig.addon.capture import operators, panels, run_capture
from anyrig.addon.preferences import panel
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.settings import capture_params, chosen_armatures, preference_values, view_sides
from anyrig.addon.tasks import background_runner, task
from anyrig.addon.ui import wrapped_label
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.motion import Motion
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.drawn import draw as drawn_by
from anyrig.tests.addon.fixtures import human, no_mesh, quadruped, random_motion, transformed
from anyrig.tests.scripts import ROOT

SMALL = Settings(model="tiny", device="cpu")
pytestmark = pytest.mark.usefixtures("small_views")


class Backend:
    """Stands in for the network: hands out a random motion per rig and remembers what it was called with."""

    def __init__(self, frames: int = 7, fail: Exception | None = None, view: int = 0, hold: bool = False) -> None:
        self.calls: list[tuple[Any, Clip, Settings]] = []
        self.motions: list[Motion] = []
        self.closed = 0
        self.gate = threading.Event()
        self._frames, self._fail, self._view, self._hold = frames, fail, view, hold

    def __call__(self, targets: Any, clip: Clip, settings: Settings) -> Generator[Any, None, list[Motion]]:
        self.calls.append((targets, clip, settings))
        try:
            for index in range(3):
                yield progress.Progress("Reading the motion", index, 3)
                assert not self._hold or self.gate.wait(20)
            if self._fail is not None:
                raise self._fail
            motions = [random_motion(target.rig, self._frames, seed, fps=24.0) for seed, target in enumerate(targets)]
            self.motions = [replace(motion, provenance={"view": self._view}) for motion in motions]
            return self.motions
        finally:
            self.closed += 1


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    def use(**options: Any) -> Backend:
        stand_in = Backend(**options)
        monkeypatch.setattr(backend_capture, "capture", stand_in)
        return stand_in

    return use


def fill_panel(video: str = "/clips/fox trot.v2.mp4", **values: Any) -> Any:
    """Fill in the panel without opening the video."""
    scene_props = bpy.context.scene.anyrig
    scene_props["video"] = video
    for key, value in values.items():
        setattr(scene_props, key, value)
    return scene_props


def params(**values: Any) -> capture_params.CaptureParams:
    return capture_params.CaptureParams(clip=Clip("/clips/walk.mp4"), settings=SMALL, **values)


def animation_state() -> list[Any]:
    """What a failed or cancelled run must leave untouched."""
    rows: list[Any] = [
        [(action.name, action.users, action.use_fake_user) for action in bpy.data.actions],
        bpy.data.objects.keys(),
    ]
    for obj in bpy.data.objects:
        data = obj.animation_data
        slot = getattr(data, "action_slot", None)
        pose = np.array([bone.matrix_basis for bone in obj.pose.bones]).tolist() if obj.pose else None
        rows.append((obj.name, data is None, data and data.action, slot and slot.handle, pose, obj.select_get()))
    return [*rows, bpy.context.scene.frame_current, bpy.data.scenes.keys(), bpy.data.meshes.keys()]


def wait_until_done() -> None:
    """Play the window's timer until the job has been handed over."""
    end = time.monotonic() + 20
    while background_runner.poll_current() is not None:
        assert time.monotonic() < end
        time.sleep(0.005)


# ---- registering


def registered_things() -> dict[str, Any]:
    handlers = {name: list(each) for name in dir(bpy.app.handlers) if isinstance(each := getattr(bpy.app.handlers, name), list)}
    return {
        "classes": sorted(name for name in dir(bpy.types) if "anyrig" in name.lower()),
        "operators": dir(bpy.ops.anyrig),
        "scene": hasattr(bpy.types.Scene, "anyrig"),
        "handlers": handlers,
        "timer": bpy.app.timers.is_registered(background_runner.poll_current),
        "previews": len(view_sides._previews),
    }


def test_unregister_leaves_nothing() -> None:
    before = registered_things()
    for _ in range(2):
        addon.register()
        during = registered_things()
        assert during != before and "ANYRIG_PT_capture" in during["classes"] and {"cancel", "capture"} <= set(during["operators"])
        addon.unregister()
        assert registered_things() == before and panels._torch_version.cache_info().currsize == 0


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code where the repository is the package `anyrig`."""
    shim = (
        "import importlib.util, sys\nfrom importlib.machinery import ModuleSpec\n"
        "spec = ModuleSpec('anyrig', None, is_package=True)\n"
        f"spec.submodule_search_locations = [{str(ROOT)!r}]\n"
        "sys.modules['anyrig'] = importlib.util.module_from_spec(spec)\nimport bpy\n"
    )
    return subprocess.run([sys.executable, "-c", shim + code], capture_output=True, text=True, timeout=60)


def test_registering_loads_neither_torch_nor_opencv() -> None:
    code = "import anyrig.addon as a\na.register()\nprint([m for m in ('torch', 'cv2', 'scipy') if m in sys.modules])\na.unregister()\n"
    done = run_python(code)
    assert done.returncode == 0 and "[]" in done.stdout, done.stderr


def test_quitting_stops_a_running_job() -> None:
    code = """
import time
from anyrig.addon.tasks import background_runner, task
from anyrig.backend.progress import Progress
def steps():
    try:
        while True:
            time.sleep(0.01)
            yield Progress("a", 1, 2)
    finally:
        print("closed", flush=True)
background_runner.register()
background_runner.run_in_background(task.Task(steps()), print)
bpy.app.handlers.load_pre.clear()  # bpy 4.2 and 4.5 cannot end with a handler or a class of Python's
for each in background_runner.CLASSES:
    bpy.utils.unregister_class(each)
bpy.app.timers.unregister(background_runner.poll_current)
time.sleep(0.1)
"""
    done = run_python(code)
    assert done.returncode == 0 and done.stdout.count("closed") == 1, (done.stdout, done.stderr)


# ---- what the panel says


def test_params_are_what_the_panel_says(registered: None) -> None:
    bpy.context.scene.frame_set(9)
    fill_panel()
    found = capture_params.params_from_context(bpy.context)
    assert found == capture_params.CaptureParams(Clip("/clips/fox trot.v2.mp4"), Settings())
    fill_panel(
        trim_start=1.5, trim_end=4.0, reference="FRAME", reference_frame=33, view="AZIMUTH", azimuth=0.5,
        model="FILE", model_file="/weights/mine.safetensors", device="cpu", start="FRAME", start_frame=101,
    )  # fmt: skip
    found = capture_params.params_from_context(bpy.context)
    assert found.clip == Clip("/clips/fox trot.v2.mp4", start=1.5, end=4.0)
    assert found.settings == Settings(model="/weights/mine.safetensors", device="cpu")
    assert (found.reference_frame, found.azimuth, found.start_frame) == (33, 0.5, 101)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video": ""}, "No video is chosen"),
        ({"model": "FILE"}, "No weights file is chosen"),
        ({"trim_start": 3.0, "trim_end": 2.0}, "swap the two"),
    ],
)
def test_what_the_panel_lacks_is_said(registered: None, values: dict[str, Any], message: str) -> None:
    fill_panel(**values)
    with pytest.raises(UserError, match=message):
        capture_params.params_from_context(bpy.context)


def test_video_is_described_when_it_is_chosen(registered: None, tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    write_video(path, [np.full((48, 64, 3), 90, np.uint8)] * 30, 15.0)
    bpy.context.scene.anyrig.video = str(path)
    assert bpy.context.scene.anyrig.video_text == "2.00 s, 30 frames at 15 fps, 64 x 48"
    bpy.context.scene.anyrig.video = str(tmp_path / "missing.mp4")
    assert "missing.mp4" in bpy.context.scene.anyrig.video_text


def test_armature_is_the_picked_the_active_or_the_meshs_own(registered: None) -> None:
    first, second = human(), quadruped()
    layer = bpy.context.view_layer
    layer.objects.active = second
    assert chosen_armatures.armature_from_context(bpy.context) == second
    layer.objects.active = next(obj for obj in bpy.data.objects if obj.type == "MESH" and obj.find_armature() == first)
    assert chosen_armatures.armature_from_context(bpy.context) == first
    bpy.context.scene.anyrig.armature = second
    assert chosen_armatures.armature_from_context(bpy.context) == second
    layer.objects.active = None
    bpy.context.scene.anyrig.armature = None
    assert chosen_armatures.armature_from_context(bpy.context) is None


def test_an_armature_that_was_picked_and_deleted_since_is_picked_no_more(registered: None) -> None:
    first, second = human(), quadruped()
    bpy.context.scene.anyrig.armature = first
    bpy.ops.object.select_all(action="DESELECT")
    first.select_set(True)
    bpy.ops.object.delete()
    assert bpy.context.scene.anyrig.armature is not None, "the property keeps it in the file"
    bpy.context.view_layer.objects.active = second
    assert chosen_armatures.armature_from_context(bpy.context) == second and chosen_armatures.armatures_from_context(
        bpy.context
    ) == [second]


def test_preferences_are_those_of_the_extensions_root(registered: None) -> None:
    assert preference_values.ROOT == "anyrig" == panel.ANYRIG_Preferences.bl_idname
    assert (
        preference_values.engine(bpy.context) == "BLENDER_WORKBENCH" and preference_values.default_device(bpy.context) == "auto"
    )


# ---- the operator, without a window


def test_operator_keys_what_the_backend_returns(registered: None, backend: Callable[..., Backend]) -> None:
    obj = transformed()
    stand_in = backend(view=5)
    scene = bpy.context.scene
    scene.render.fps, scene.frame_current = 24, 12
    scene.anyrig.armature = obj
    fill_panel()
    before = pose_of(obj, rig_from_armature(obj))
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    action = obj.animation_data.action
    assert action.name == "fox trot.v2" and tuple(action.frame_range) == (12.0, 18.0)
    (targets, clip, settings), motion = stand_in.calls[0], stand_in.motions[0]
    assert clip.path == "/clips/fox trot.v2.mp4" and settings == Settings() and len(targets) == 1
    references = targets[0].references
    assert [reference.azimuth for reference in references] == pytest.approx([n * math.pi / 8 for n in range(16)])
    assert all(np.array_equal(reference.pose, before) for reference in references)
    for index in range(len(motion)):
        scene.frame_set(12 + index)
        rig = targets[0].rig
        assert geodesic_angle(rig.rotations(pose_of(obj, rig)), motion.matrices[index]).max() < 1e-4
    text, is_error = background_runner.status()
    assert "fox trot.v2" in text and "frame 12" in text and not is_error
    preview = view_sides.capture_preview()
    shown = np.array(preview.image_pixels_float[:]).reshape(32, 32, 4)[::-1] * 255
    image = references[5].image.astype(float)
    image[..., :3] *= image[..., 3:] / 255  # as Blender draws previews
    assert np.abs(shown - image).max() < 1


def test_earlier_action_is_kept(registered: None, backend: Callable[..., Backend]) -> None:
    obj = human()
    obj.pose.bones[0].keyframe_insert("rotation_quaternion", frame=3)
    earlier = obj.animation_data.action
    backend()
    fill_panel()
    bpy.ops.anyrig.capture()
    bpy.ops.anyrig.capture()
    assert earlier.name in bpy.data.actions and earlier.use_fake_user
    assert obj.animation_data.action.name == "fox trot.v2.001" and "fox trot.v2" in bpy.data.actions


def test_reference_frame_azimuth_and_start_frame_reach_the_capture(backend: Callable[..., Backend]) -> None:
    obj = human()
    bone = obj.pose.bones["spine"]
    for frame, angle in ((1, 0.0), (40, 1.2)):
        bone.rotation_mode, bone.rotation_euler.x = "XYZ", angle
        bone.keyframe_insert("rotation_euler", frame=frame)
    bpy.context.scene.frame_set(1)
    stand_in = backend()
    take, _, actions = run_capture.run_capture(bpy.context, [obj], params(reference_frame=40, azimuth=0.7, start_frame=-5))
    (reference,) = stand_in.calls[0][0][0].references
    rig = take.subjects[0].rig
    spine = rig.names.index("spine")
    turn = geodesic_angle(rig.rotations(reference.pose)[spine], np.eye(3))
    assert turn == pytest.approx(1.2, abs=1e-5) and reference.azimuth == 0.7
    assert actions[0].frame_range[0] == -5.0 and bpy.context.scene.frame_current == 1


def test_several_armatures_in_one_pass(backend: Callable[..., Backend]) -> None:
    objects = [human(), quadruped()]
    stand_in = backend()
    bpy.context.scene.render.fps, bpy.context.scene.render.fps_base = 30, 1.25
    _, results, actions = run_capture.run_capture(bpy.context, objects, params())
    assert len(stand_in.calls) == 1 and [target.rig.name for target in stand_in.calls[0][0]] == ["Human", "Quadruped"]
    assert [obj.animation_data.action for obj in objects] == actions
    assert [result.motion.names for result in results] == [target.rig.names for target in stand_in.calls[0][0]]


@pytest.mark.parametrize("fail", [UserError("The subject was never seen: give a matte."), ValueError("shapes differ")])
@pytest.mark.parametrize("animated", [False, True])
def test_failed_run_changes_nothing(registered: None, backend: Callable[..., Backend], fail: Exception, animated: bool) -> None:
    obj = human()
    if animated:
        obj.pose.bones[0].keyframe_insert("location", frame=3)
    obj.pose.bones[1].location.z = 0.3
    stand_in = backend(fail=fail)
    fill_panel()
    before = animation_state()
    with pytest.raises(RuntimeError, match=str(fail).split(":")[0]):
        bpy.ops.anyrig.capture()
    assert animation_state() == before and stand_in.closed == 1
    assert str(fail) in background_runner.status()[0] and background_runner.status()[1]


def test_no_armature_is_keyed_when_one_cannot_be(backend: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [human(), quadruped(), transformed()]
    objects[0].pose.bones[0].keyframe_insert("location", frame=3)
    backend()
    write_motion, before = run_capture.write_motion, animation_state()

    def refuse_the_last(obj: bpy.types.Object, *arguments: Any, **options: Any) -> Any:
        if obj == objects[-1]:
            raise UserError("Bone 'hips' was deleted: undo that.")
        return write_motion(obj, *arguments, **options)

    monkeypatch.setattr(run_capture, "write_motion", refuse_the_last)
    with pytest.raises(UserError, match="hips"):
        run_capture.run_capture(bpy.context, objects, params())
    assert animation_state() == before


def test_armature_without_a_mesh_is_drawn_by_the_job(backend: Callable[..., Backend]) -> None:
    obj = no_mesh()
    stand_in = backend(view=3)
    take = run_capture.gather(bpy.context, [obj], params())
    assert take.subjects[0].references == ()
    (result,) = task.Task(run_capture.steps(take)).drain().result()
    references = stand_in.calls[0][0][0].references
    assert len(references) == 16 and result.view is references[3] and references[3].image[..., 3].any()


def test_missing_torch_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyrig.backend.capture.pipeline", None)
    obj = human()
    before = animation_state()
    with pytest.raises(UserError, match="PyTorch is missing .* install the AnyRig zip"):
        run_capture.run_capture(bpy.context, [obj], params())
    assert animation_state() == before


def test_missing_opencv_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(addon.capture, "run_capture")
    monkeypatch.setitem(sys.modules, "anyrig.addon.capture.run_capture", None)
    with pytest.raises(UserError, match="library is missing .* install the AnyRig zip"):
        operators.load_capture()


def test_no_armature_is_a_sentence() -> None:
    with pytest.raises(UserError, match="No armature is chosen"):
        run_capture.gather(bpy.context, [], params())


def test_poll_asks_for_an_armature_and_a_video(registered: None) -> None:
    assert operators.ANYRIG_OT_capture.obstacle(bpy.context) == "Pick an armature" and not bpy.ops.anyrig.capture.poll()
    human()
    assert operators.ANYRIG_OT_capture.obstacle(bpy.context) == "Pick a video" and not bpy.ops.anyrig.capture.poll()
    fill_panel()
    assert operators.ANYRIG_OT_capture.obstacle(bpy.context) == "" and bpy.ops.anyrig.capture.poll()
    assert not bpy.ops.anyrig.cancel.poll()


# ---- the operator in the background, its timer played by hand


@pytest.fixture
def window(registered: None, monkeypatch: pytest.MonkeyPatch) -> Press:
    monkeypatch.setattr(background_runner, "has_window", lambda _: True)
    return Press(operators.ANYRIG_OT_capture)


def test_button_returns_at_once_and_the_keys_are_one_undo_step(window: Press, backend: Callable[..., Backend]) -> None:
    human()
    fill_panel()
    backend()
    bpy.ops.ed.undo_push(message="before")
    assert window.invoke(bpy.context, None) == {"CANCELLED"} and window.reports == []
    assert background_runner.current() is not None and not bpy.ops.anyrig.capture.poll() and not bpy.data.actions
    wait_until_done()
    assert bpy.data.objects["Human"].animation_data.action.name == "fox trot.v2" and background_runner.current() is None
    bpy.ops.ed.undo()
    assert bpy.data.objects["Human"].animation_data is None and not bpy.data.actions
    bpy.ops.ed.redo()
    assert bpy.data.objects["Human"].animation_data.action.name == "fox trot.v2"


@pytest.mark.parametrize("when", ["midway", "at the end"])
def test_cancel_button_leaves_everything(window: Press, backend: Callable[..., Backend], when: str) -> None:
    human()
    fill_panel()
    stand_in = backend(hold=when == "midway")
    before = animation_state()
    window.invoke(bpy.context, None)
    running = background_runner.current()
    if when == "at the end":
        running.join()
    while running.progress.stage == "Starting":
        time.sleep(0.005)
    assert bpy.ops.anyrig.cancel() == {"FINISHED"}
    stand_in.gate.set()
    wait_until_done()
    assert animation_state() == before and background_runner.status() == ("Cancelled: nothing was changed.", False)
    assert stand_in.closed == 1 and background_runner.current() is None
    assert (running.result() is None) == (when == "midway")


@pytest.mark.parametrize("fail", [UserError("The video is empty: choose another."), KeyError("joint")])
def test_failure_beside_a_window_is_told_in_the_panel(window: Press, backend: Callable[..., Backend], fail: Exception) -> None:
    human()
    fill_panel()
    backend(fail=fail)
    before = animation_state()
    window.invoke(bpy.context, None)
    wait_until_done()
    assert animation_state() == before
    assert str(fail) in background_runner.status()[0] and background_runner.status()[1]


def test_what_cannot_start_is_reported(window: Press) -> None:
    human()
    fill_panel(trim_start=2.0, trim_end=1.0)
    assert window.invoke(bpy.context, None) == {"CANCELLED"} and "swap the two" in window.reports[0]
    assert background_runner.current() is None and background_runner.status() == (window.reports[0], True)


def test_armature_may_be_renamed_and_the_scene_changed_meanwhile(window: Press, backend: Callable[..., Backend]) -> None:
    obj = human()
    fill_panel()
    backend()
    bpy.context.scene.frame_set(30)
    window.invoke(bpy.context, None)
    obj.name = "Renamed"
    bpy.context.scene.frame_set(55)
    bpy.context.view_layer.objects.active = None
    wait_until_done()
    assert obj.animation_data.action.frame_range[0] == 30.0 and bpy.context.scene.frame_current == 55


def test_undo_meanwhile_does_not_lose_the_armature(window: Press, backend: Callable[..., Backend]) -> None:
    human()
    fill_panel()
    backend()
    bpy.ops.ed.undo_push(message="one")
    bpy.data.objects["Human"].location.x = 4
    bpy.ops.ed.undo_push(message="two")
    window.invoke(bpy.context, None)
    bpy.ops.ed.undo()
    assert bpy.data.objects["Human"].location.x == 0
    wait_until_done()
    assert bpy.data.objects["Human"].animation_data.action.name == "fox trot.v2"


def test_armature_deleted_meanwhile_is_told(window: Press, backend: Callable[..., Backend]) -> None:
    obj = human()
    fill_panel()
    backend()
    window.invoke(bpy.context, None)
    bpy.data.objects.remove(obj)
    wait_until_done()
    assert background_runner.status() == (
        "Armature 'Human' was deleted during the capture: undo that, then recover the take under Takes.",
        True,
    )
    assert not bpy.data.actions


def test_keys_wait_until_edit_mode_is_left(window: Press, backend: Callable[..., Backend]) -> None:
    obj = human()
    fill_panel()
    backend()
    window.invoke(bpy.context, None)
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    end = time.monotonic() + 20
    while not background_runner.status()[0]:
        assert time.monotonic() < end
        background_runner.poll_current()
        time.sleep(0.005)
    assert background_runner.status() == ("The take is ready: leave edit mode of armature 'Human' to key it.", False)
    assert background_runner.current() is not None and not bpy.data.actions
    bpy.ops.object.mode_set(mode="OBJECT")
    wait_until_done()
    assert obj.animation_data.action.name == "fox trot.v2" and not background_runner.status()[1]


def test_keys_wait_until_a_render_ends(window: Press, backend: Callable[..., Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    obj = human()
    fill_panel()
    backend()
    rendering = [True, True, False]
    monkeypatch.setattr(operators, "is_rendering", lambda: rendering.pop(0) if rendering else False)
    window.invoke(bpy.context, None)
    wait_until_done()
    assert not rendering and obj.animation_data.action.name == "fox trot.v2"


# ---- the panel, drawn on a stand-in


def draw() -> list[tuple[str, Any]]:
    return drawn_by(*panels.CLASSES)


def test_panel_shows_inputs_then_progress_then_the_view(window: Press, backend: Callable[..., Backend]) -> None:
    human()
    fill_panel()
    bpy.context.scene.anyrig.video_text = "2.00 s"
    backend()
    drawn = draw()
    names = [name for kind, name in drawn if kind == "prop"]
    inputs = ["armature", "bones", "video", "trim_start", "trim_end", "speed", "mirror", "fps", "use_box", "matte"]
    assert names == [*inputs, "reference", "view", "heading", "start", "output", "extend_range", "model", "refine", "device"]
    assert ("operator", "anyrig.capture") in drawn and ("label", "2.00 s") in drawn and ("label", "Active: Human") in drawn
    window.invoke(bpy.context, None)
    drawn = draw()
    assert ("operator", "anyrig.cancel") in drawn and ("operator", "anyrig.capture") not in drawn
    assert any(kind == "progress" for kind, _ in drawn)
    wait_until_done()
    assert any(kind == "template_icon" for kind, _ in draw()) and not any(kind == "progress" for kind, _ in draw())
    background_runner.set_status("Bone 'Tail': it is not there, which takes more than one line to say; undo that.", is_error=True)
    lines = [text for kind, text in draw() if kind == "label" and text.startswith(("Bone", "takes"))]
    assert lines and max(map(len, lines)) <= wrapped_label.WRAP


# ---- with a real network, of random weights


def walking_box(path: Path) -> str:
    """A small clip: a box that moves over an even backdrop."""
    frames = []
    for index in range(8):
        frame = np.full((96, 128, 3), 200, np.uint8)
        frame[30:80, 20 + 4 * index : 50 + 4 * index] = (40, 90, 160)
        frame[80:90, 22 + 4 * index : 30 + 4 * index] = (90, 40, 30)
        frames.append(frame)
    write_video(path, frames, 12.0)
    return str(path)


def test_video_to_keys(registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_capture, "capture", (recorder := Recorder(backend_capture.capture)))
    obj = human()
    scene = bpy.context.scene
    scene.render.fps = 12
    scene.frame_set(4)
    scene.anyrig.video = walking_box(tmp_path / "box.mp4")
    fill_panel(video=scene.anyrig.video, model="FILE", model_file="tiny", device="cpu")
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    action, (motion,) = obj.animation_data.action, recorder.motions
    assert action.name == "box" and tuple(action.frame_range) == (4.0, 11.0)
    rig = rig_from_armature(obj)
    for index in range(8):
        scene.frame_set(4 + index)
        assert geodesic_angle(rig.rotations(pose_of(obj, rig)), motion.matrices[index]).max() < 1e-4
    # random weights, but no frozen ones: it is the video that was keyed
    assert np.abs(motion.rotations[-1] - motion.rotations[0]).max() > 1e-6
    assert motion.provenance["view"] in range(16)
    assert recorder.stages == [
        "Loading the model",
        "Finding the subject",
        "Matching the view",
        "Reading the motion",
        "Solving rotations",
    ]


class Recorder:
    """Passes a capture through and keeps what it says and returns."""

    def __init__(self, run: Callable[..., Generator[Any, None, list[Motion]]]) -> None:
        self.stages: list[str] = []
        self.motions: list[Motion] = []
        self._run = run

    def __call__(self, *arguments: Any) -> Generator[Any, None, list[Motion]]:
        torch.set_num_threads(1)
        steps = self._run(*arguments)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                self.motions = end.value
                return self.motions
            self.stages += [progress.stage] if progress.stage not in self.stages else []
            yield progress

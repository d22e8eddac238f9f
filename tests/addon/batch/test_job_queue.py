"""The queue in the panel: adding, ordering, running in the background and without one, failing, cancelling, undoing, exporting."""

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
from anyrig.addon.batch import job_queue, jobs_file, queue_operators, queue_panel
from anyrig.addon.capture import run_capture
from anyrig.addon.command_line import commands
from anyrig.addon.settings import preference_values
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.addon.tasks import background_runner, task
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.capture.test_choices import select
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.fixtures import human, quadruped, random_motion
from anyrig.tests.addon.playback import curves_of


class Backend:
    """Stands in for the network: random motions; a video called broken fails."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Clip, Settings]] = []

    def __call__(self, targets: Any, clip: Clip, settings: Settings) -> Generator[Any, None, list[Any]]:
        self.calls.append((targets, clip, settings))
        yield progress.Progress("Reading the motion", 1, 2)
        if "broken" in clip.path:
            raise UserError(f"Video '{clip.path}' is broken: choose another.")
        motions = [random_motion(target.rig, 4, seed, fps=24.0) for seed, target in enumerate(targets)]
        return [replace(motion, provenance={"view": 0}) for motion in motions]

    @property
    def videos(self) -> list[str]:
        return [Path(clip.path).stem for _, clip, _ in self.calls]


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch, small_views: None, registered: None) -> Backend:
    monkeypatch.setattr(backend_capture, "capture", (stand_in := Backend()))
    return stand_in


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_runner, "has_window", lambda _: True)


def add(video: str, *objects: bpy.types.Object, folder: str | Path = "/clips", **values: Any) -> None:
    """Through the panel, as a user does, but for the video file, which is not opened."""
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)
    bpy.context.view_layer.objects.active = objects[0]
    props = bpy.context.scene.anyrig
    props.video = f"{folder}/{video}.mp4"
    for key, value in values.items():
        setattr(props, key, value)
    assert bpy.ops.anyrig.queue_add() == {"FINISHED"}


def jobs() -> Any:
    return bpy.context.scene.anyrig_queue.jobs


def states() -> list[str]:
    return [item.state for item in jobs()]


def press_run() -> set[str]:
    """The button; a Blender without windows has none that could be pressed."""
    return Press(queue_operators.ANYRIG_OT_queue_run).invoke(bpy.context, None)


def turn() -> None:
    """One job in the background to its end, and the timer that starts the next."""
    background_runner.current().join()
    assert background_runner.poll_current() is None
    if bpy.app.timers.is_registered(job_queue.step):
        bpy.app.timers.unregister(job_queue.step)
        job_queue.step()


def play() -> None:
    while background_runner.current() is not None:
        turn()


def test_a_capture_started_between_two_jobs_is_waited_for(backend: Backend, window: None) -> None:
    obj = human()
    add("walk", obj)
    add("run", obj)
    assert press_run() == {"FINISHED"}
    background_runner.current().join()
    background_runner.poll_current()
    bpy.app.timers.unregister(job_queue.step)
    other = task.Task(progress for progress in ())
    background_runner.run_in_background(other, lambda _: None)
    assert job_queue.step() == job_queue.PAUSE and states() == ["DONE", "WAITING"]
    other.join()
    background_runner.poll_current()
    job_queue.step()
    play()
    assert states() == ["DONE", "DONE"] and backend.videos == ["walk", "run"]


# ---- adding and ordering


def test_a_queued_job_finds_the_released_weights_where_the_preferences_put_them(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preference_values, "weights_folder", lambda _: "/weights")
    obj = human()
    add("walk", obj, model="release")
    add("run", obj, model="lite")
    assert bpy.ops.anyrig.queue_run() == {"FINISHED"}
    assert [settings.weights for _, _, settings in backend.calls] == ["/weights", ""]


def test_a_job_keeps_the_settings_as_they_were(backend: Backend) -> None:
    obj = human()
    bpy.context.scene.frame_set(20)
    add("walk", obj, heading="VIEW", trim_start=1.0, trim_end=2.0)
    bpy.context.scene.frame_set(1)
    bpy.context.scene.anyrig.heading, bpy.context.scene.anyrig.trim_end = "RIG", 9.0
    assert bpy.ops.anyrig.queue_run() == {"FINISHED"} and states() == ["DONE"]
    ((_, clip, settings),) = backend.calls
    assert (clip.path, clip.start, clip.end, settings.heading) == ("/clips/walk.mp4", 1.0, 2.0, "view")
    assert obj.animation_data.action.frame_range[0] == 20.0


def test_settings_survive_as_text() -> None:
    params = CaptureParams(Clip("v.mp4", 1, 2, box=(1, 2, 3, 4)), Settings("m", "cpu"), 3, 0.5, 7, "CYCLES")
    text = json.dumps(jobs_file.values_of(params, str))
    assert job_queue.params_from_json(text) == params
    for damaged in ("", "{}", "[]", '{"video": 3}', text.replace('"batch"', '"later"').replace("{", '{"later": 1, ')):
        with pytest.raises(UserError, match="cannot be read .* add it again"):
            job_queue.params_from_json(damaged)


def test_a_queue_saved_by_version_0_1_runs(backend: Backend) -> None:
    """It holds the fields of the settings' classes; this is what version 0.1 wrote."""
    clip = '{"path": "/clips/walk.mp4", "start": 1.0, "end": 2.5, "speed": 2.0, "fps": null, "box": [1.0, 2.0, 30.0, 40.0], '
    clip += '"matte": null, "mirror": true}'
    settings = '{"model": "tiny", "device": "cpu", "precision": "auto", "heading": "view", "batch": 0, "weights": ""}'
    others = '"reference_frame": 3, "azimuth": 0.5, "start_frame": 7, "engine": "BLENDER_WORKBENCH", "bones": "COLLECTION", '
    others += '"collection": "Legs", "output": "STRIP", "extend_range": true'
    text = f'{{"clip": {clip}, "settings": {settings}, {others}}}'
    expected_clip = Clip("/clips/walk.mp4", 1.0, 2.5, speed=2.0, box=(1.0, 2.0, 30.0, 40.0), mirror=True)
    expected = CaptureParams(
        expected_clip, Settings("tiny", "cpu", heading="view"), 3, 0.5, 7, bones="COLLECTION", collection="Legs", output="STRIP",
        extend_range=True,
    )  # fmt: skip
    assert job_queue.params_from_json(text) == expected
    obj = human()
    obj.data.collections.new("Legs").assign(obj.data.bones["thigh.L"])
    add("walk", obj)
    jobs()[0].params = text
    assert bpy.ops.anyrig.queue_run() == {"FINISHED"} and states() == ["DONE"]
    assert backend.calls[0][1:] == (expected_clip, expected.settings)


def test_selected_bones_are_those_at_the_time_of_adding(backend: Backend) -> None:
    obj = human()
    bpy.context.view_layer.objects.active = obj
    select(obj, "spine", "head")
    add("a", obj, bones="SELECTED")
    select(obj, "spine", "hand.L")
    add("b", obj)
    select(obj)
    with pytest.raises(RuntimeError, match="No bone of armature .* is selected"):
        bpy.ops.anyrig.queue_add()
    assert background_runner.status()[1] and background_runner.status_fix() == "deform_bones", "the panel has a button for it"
    assert bpy.ops.anyrig.queue_run() == {"FINISHED"} and states() == ["DONE", "DONE"]
    assert [set(targets[0].rig.names) for targets, _, _ in backend.calls] == [{"spine", "head"}, {"spine", "hand.L"}]


def test_a_bone_collection_that_is_not_there_is_told_when_the_job_is_added() -> None:
    obj = human()
    add("a", obj)
    bpy.context.scene.anyrig.bones = "COLLECTION"
    for name in ("", "Wings"):
        bpy.context.scene.anyrig.collection = name
        with pytest.raises(RuntimeError, match=f"'Human' has no bone collection '{name}'"):
            bpy.ops.anyrig.queue_add()
    assert len(jobs()) == 1 and background_runner.status_fix() == "deform_bones"


def test_a_selected_bone_that_was_renamed_is_named() -> None:
    obj = human()
    select(obj, "spine", "head")
    add("a", obj, bones="SELECTED")
    obj.data.bones["head"].name = "skull"
    bpy.ops.anyrig.queue_run()
    assert states() == ["FAILED"] and "'head'" in jobs()[0].message


def test_many_videos_are_many_jobs() -> None:
    obj = human()
    bpy.context.view_layer.objects.active = obj
    bpy.context.scene.anyrig.trim_start = 3.0
    bpy.context.scene.anyrig.trim_end = 4.0
    bpy.context.scene.anyrig.heading = "VIEW"
    names = [{"name": "a.mp4"}, {"name": "b.mov"}]
    assert bpy.ops.anyrig.queue_add_videos(directory="/clips/", files=names) == {"FINISHED"}
    found = [job_queue.params_from_json(item.params) for item in jobs()]
    assert [params.clip for params in found] == [Clip("/clips/a.mp4"), Clip("/clips/b.mov")]
    assert {params.settings.heading for params in found} == {"view"} and bpy.context.scene.anyrig.video == ""
    with pytest.raises(RuntimeError, match="No video is chosen"):
        bpy.ops.anyrig.queue_add_videos(directory="/clips/")


def test_the_list_is_ordered_and_cleared() -> None:
    obj = human()
    for name in "abc":
        add(name, obj)
    queue = bpy.context.scene.anyrig_queue
    assert queue.index == 2 and bpy.ops.anyrig.queue_move(direction="UP") == {"FINISHED"}
    assert [item.video for item in jobs()] == ["a.mp4", "c.mp4", "b.mp4"] and queue.index == 1
    bpy.ops.anyrig.queue_move(direction="DOWN")
    bpy.ops.anyrig.queue_move(direction="DOWN")
    assert [item.video for item in jobs()] == ["a.mp4", "b.mp4", "c.mp4"] and queue.index == 2
    bpy.ops.anyrig.queue_remove()
    assert [item.video for item in jobs()] == ["a.mp4", "b.mp4"] and queue.index == 1
    jobs()[0].state = "DONE"
    bpy.ops.anyrig.queue_clear(which="DONE")
    assert [item.video for item in jobs()] == ["b.mp4"]
    bpy.ops.anyrig.queue_clear(which="ALL")
    assert len(jobs()) == 0 and not bpy.ops.anyrig.queue_remove.poll() and not bpy.ops.anyrig.queue_run.poll()


def test_what_is_missing_is_asked_for() -> None:
    assert not bpy.ops.anyrig.queue_add.poll()
    human()
    assert not bpy.ops.anyrig.queue_add.poll() and bpy.ops.anyrig.queue_add_videos.poll()
    bpy.context.scene.anyrig.video = "/clips/a.mp4"
    assert bpy.ops.anyrig.queue_add.poll()


# ---- running without a window


def test_failing_stops_nothing_else_and_is_told(backend: Backend) -> None:
    first, second = human(), quadruped()
    add("walk", first, second)
    add("broken", second)
    add("run", first)
    assert bpy.ops.anyrig.queue_run() == {"FINISHED"}
    assert states() == ["DONE", "FAILED", "DONE"] and backend.videos == ["walk", "broken", "run"]
    assert jobs()[1].message == "Video '/clips/broken.mp4' is broken: choose another."
    assert background_runner.status() == ("Queue: 2 of 3 jobs done, 1 failed: see the list.", True)
    assert first.animation_data.action.name == "run" and second.animation_data.action.name.startswith("walk")
    assert not bpy.ops.anyrig.queue_run.poll()
    bpy.context.scene.anyrig_queue.index = 1
    assert bpy.ops.anyrig.queue_retry() == {"FINISHED"} and states() == ["DONE", "WAITING", "DONE"] and not jobs()[1].message
    bpy.ops.anyrig.queue_run()
    assert backend.videos[3:] == ["broken"]


def test_every_job_sees_the_rig_as_it_stood_at_the_start(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    render = run_capture.render_meshes
    monkeypatch.setattr(run_capture, "render_meshes", lambda obj, *a, **o: drawn.append(obj.name) or render(obj, *a, **o))
    obj = human()
    add("walk", obj)
    add("run", obj)
    bpy.ops.anyrig.queue_run()
    (before,), (after,) = (targets for targets, _, _ in backend.calls)
    assert np.array_equal(before.references[0].pose, after.references[0].pose) and drawn == ["Human"]
    rig = before.rig
    assert geodesic_angle(rig.rotations(before.references[0].pose), np.eye(3)).max() < 1e-4


def test_a_job_whose_armature_was_deleted_is_told(backend: Backend) -> None:
    first, second = human(), quadruped()
    add("walk", first)
    add("run", second)
    bpy.data.objects.remove(first)
    bpy.ops.anyrig.queue_run()
    assert states() == ["FAILED", "DONE"] and "was deleted" in jobs()[0].message and backend.videos == ["run"]


# ---- in the background


def test_jobs_run_one_after_another_each_an_undo_step(window: None, backend: Backend) -> None:
    first, second = human(), quadruped()
    add("walk", first)
    add("broken", first)
    add("run", second)
    bpy.ops.ed.undo_push(message="before")
    assert press_run() == {"FINISHED"} and job_queue.running_key() == jobs()[0].key
    assert not bpy.ops.anyrig.queue_run.poll() and not bpy.ops.anyrig.capture.poll()
    play()
    assert states() == ["DONE", "FAILED", "DONE"] and not job_queue.running_key()
    assert background_runner.status() == ("Queue: 2 of 3 jobs done, 1 failed: see the list.", True)
    assert [bpy.data.objects[name].animation_data.action.name for name in ("Human", "Quadruped")] == ["walk", "run"]
    bpy.ops.ed.undo()
    assert (
        bpy.data.objects["Quadruped"].animation_data is None
        and bpy.data.objects["Human"].animation_data
        and states()[0] == "DONE"
    )
    bpy.ops.ed.undo()
    assert bpy.data.objects["Human"].animation_data is None and states() == ["WAITING"] * 3
    bpy.ops.ed.redo()
    assert bpy.data.objects["Human"].animation_data.action.name == "walk" and states()[0] == "DONE"


@pytest.mark.parametrize("when", [0, 1])
def test_cancel_stops_the_queue(window: None, backend: Backend, when: int) -> None:
    obj = human()
    for name in "abc":
        add(name, obj)
    press_run()
    for _ in range(when):
        turn()
    assert bpy.ops.anyrig.cancel() == {"FINISHED"}
    play()
    assert states() == ["DONE"] * when + ["WAITING"] * (3 - when) and not job_queue.running_key()
    assert background_runner.status() == ("Cancelled: nothing was changed.", False)
    assert len(bpy.data.actions) == when and not bpy.app.timers.is_registered(job_queue.step)


def test_the_running_job_is_left_alone_and_a_removed_one_is_skipped(window: None, backend: Backend) -> None:
    obj = human()
    for name in "abc":
        add(name, obj)
    press_run()
    bpy.context.scene.anyrig_queue.index = 0
    assert not bpy.ops.anyrig.queue_remove.poll() and not bpy.ops.anyrig.queue_retry.poll()
    bpy.context.scene.anyrig_queue.index = 1
    bpy.ops.anyrig.queue_remove()
    play()
    assert backend.videos == ["a", "c"] and states() == ["DONE", "DONE"]
    assert background_runner.status() == ("Queue: 2 of 2 jobs done.", False)


def test_all_but_the_running_job_can_be_cleared(window: None, backend: Backend) -> None:
    obj = human()
    for name in "ab":
        add(name, obj)
    press_run()
    bpy.ops.anyrig.queue_clear(which="ALL")
    assert [item.video for item in jobs()] == ["a.mp4"]
    play()
    assert states() == ["DONE"] and backend.videos == ["a"]


@pytest.mark.parametrize("how", ["load", "disable"])
def test_loading_or_disabling_ends_the_queue(window: None, how: str) -> None:
    obj = human()
    for name in "ab":
        add(name, obj)
    press_run()
    background_runner.current().join()
    background_runner.poll_current()
    assert bpy.app.timers.is_registered(job_queue.step)
    if how == "load":
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    else:
        addon.unregister()
    assert (
        not bpy.app.timers.is_registered(job_queue.step) and not job_queue.running_key() and background_runner.current() is None
    )
    if how == "disable":
        assert not hasattr(bpy.types.Scene, "anyrig_queue")
        addon.register()


def test_a_job_that_cannot_start_is_told(window: None, monkeypatch: pytest.MonkeyPatch) -> None:
    obj = human()
    add("a", obj)
    bpy.ops.object.mode_set(mode="EDIT")
    press_run()
    assert states() == ["FAILED"] and "edit mode" in jobs()[0].message and background_runner.current() is None
    assert background_runner.status() == ("Queue: 0 of 1 job done, 1 failed: see the list.", True)


# ---- out of Blender


def test_the_queue_becomes_a_jobs_file(tmp_path: Path) -> None:
    first, second = human(), quadruped()
    add("walk", first, second, trim_start=0.5)
    bpy.context.scene.anyrig.trim_start = 0.0
    add("run", second, heading="VIEW")
    assert not bpy.ops.anyrig.queue_export.poll(), "there is no file that the jobs could open"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    (tmp_path / "farm").mkdir()
    assert bpy.ops.anyrig.queue_export(filepath=str(tmp_path / "farm" / "all")) == {"FINISHED"}
    written, other = jobs_file.load_jobs(tmp_path / "farm" / "all.json")
    assert written.file.resolve() == tmp_path / "scene.blend" and written.armatures == ("Human", "Quadruped")
    assert [path.name for spec in (written, other) for path in spec.outputs] == ["001-walk.blend", "002-run.blend"]
    for spec, item in zip((written, other), jobs(), strict=True):
        expected = job_queue.params_from_json(item.params)
        assert replace(spec.params(), clip=expected.clip) == expected
        assert Path(spec.params().clip.path).resolve() == Path(expected.clip.path)
    content = json.loads((tmp_path / "farm" / "all.json").read_text())
    assert content["jobs"][0]["file"] == "../scene.blend" and content["jobs"][0]["trim"] == [0.5, None]
    assert commands.main(["batch", str(tmp_path / "farm" / "all.json"), "--check"]) == 1, "the videos do not exist"
    with pytest.raises(RuntimeError, match="No file is named"):
        bpy.ops.anyrig.queue_export(filepath="")
    with pytest.raises(RuntimeError, match="choose another folder"):
        bpy.ops.anyrig.queue_export(filepath=str(tmp_path / "no" / "all.json"))


def test_a_jobs_file_names_the_bones_that_were_selected(backend: Backend, tmp_path: Path) -> None:
    """However the selection changes afterwards, the batch keys the bones that each job was queued with, of each of its armatures."""
    obj, other = human(), quadruped()
    write_video(tmp_path / "box.mp4", [np.full((96, 128, 3), shade, np.uint8) for shade in (80, 120, 160, 200)], 24.0)
    chosen = (("spine", "head"), ("spine", "hand.L"))
    for index, names in enumerate(chosen):
        select(obj, *names)
        select(other, "pelvis")
        add("box", obj, *[other][index:], folder=tmp_path, bones="SELECTED")
    select(obj)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "scene.blend"))
    select(obj, "shin.L")
    path = tmp_path / "scene.json"
    assert bpy.ops.anyrig.queue_export(filepath=str(path)) == {"FINISHED"}
    written = [each["bones"] for each in json.loads(path.read_text())["jobs"]]
    assert written == [{"Human": list(chosen[0]), "Quadruped": ["pelvis"]}, {"Human": list(chosen[1])}]
    assert commands.main(["batch", str(path)]) == 0
    found = [[set(target.rig.names) for target in targets] for targets, _, _ in backend.calls]
    assert found == [[set(chosen[0]), {"pelvis"}], [set(chosen[1])]]
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "002-box.blend"))
    action = bpy.data.objects["Human"].animation_data.action
    assert {curve.data_path.split('"')[1] for curve in curves_of(action)} == set(chosen[1])


def test_the_flamenco_job_type_is_saved(tmp_path: Path) -> None:
    assert bpy.ops.anyrig.save_flamenco(directory=str(tmp_path)) == {"FINISHED"}
    assert "compileJob" in (tmp_path / "anyrig_batch.js").read_text(encoding="utf-8")
    with pytest.raises(RuntimeError, match="No folder is chosen"):
        bpy.ops.anyrig.save_flamenco(directory="")
    with pytest.raises(RuntimeError, match="choose a folder that exists"):
        bpy.ops.anyrig.save_flamenco(directory=str(tmp_path / "no" / "folder"))


# ---- the panel, drawn on a stand-in


class Layout:
    """Takes down what is drawn."""

    def __init__(self, drawn: list[tuple[str, str]]) -> None:
        self.drawn = drawn

    def __getattr__(self, kind: str) -> Callable[..., "Layout"]:
        def draw(*arguments: Any, **options: Any) -> Layout:
            self.drawn.append((kind, options.get("text") or next((text for text in arguments if isinstance(text, str)), "")))
            return self

        return draw


def drawn_panel() -> list[tuple[str, str]]:
    drawn: list[tuple[str, str]] = []
    queue_panel.ANYRIG_PT_queue.draw(SimpleNamespace(layout=Layout(drawn)), bpy.context)
    for item in jobs():
        queue_panel.ANYRIG_UL_queue.draw_item(None, bpy.context, Layout(drawn), None, item, 0, None, "")
    queue_panel.ANYRIG_MT_queue.draw(SimpleNamespace(layout=Layout(drawn)), bpy.context)
    return drawn


def test_the_panel_shows_jobs_and_what_went_wrong(window: None) -> None:
    assert ("operator", "Run Queue (0)") in drawn_panel()
    add("broken", human())
    add("walk", bpy.data.objects["Human"])
    drawn = drawn_panel()
    assert ("operator", "Run Queue (2)") in drawn and ("label", "broken.mp4") in drawn and ("label", "Human") in drawn
    press_run()
    assert ("operator", "Stop Queue (2 waiting)") in drawn_panel()
    play()
    bpy.context.scene.anyrig_queue.index = 0
    shown = " ".join(text for kind, text in drawn_panel() if kind == "label")
    assert "broken: choose another." in shown

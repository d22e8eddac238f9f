"""The command line: arguments, exit codes, what is printed, and the files it leaves."""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyrig.addon as addon
import bpy
import numpy as np
import pytest
from anyrig.addon.batch import run_jobs_file
from anyrig.addon.command_line import capture_command, commands
from anyrig.addon.command_line.console import ProgressLine
from anyrig.addon.dev import outdoor_scene, render_action
from anyrig.addon.tasks.task import Snapshot
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.bvh import read_bvh
from anyrig.backend.motion.motion import Motion
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.fixtures import human, quadruped, random_motion

pytestmark = pytest.mark.usefixtures("small_views", "registered")


class Backend:
    """Stands in for the network; a call that must not happen fails the test."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.calls: list[tuple[Any, Clip, Settings]] = []
        self.motions: list[Motion] = []
        self._fail = fail

    def __call__(self, targets: Any, clip: Clip, settings: Settings) -> Generator[Any, None, list[Motion]]:
        self.calls.append((targets, clip, settings))
        yield progress.Progress("Finding the subject", 1, 2)
        yield progress.Progress("Finding the subject", 2, 2)
        yield progress.Progress("Reading the motion", 1, 1)
        if self._fail is not None:
            raise self._fail
        motions = [random_motion(target.rig, 6, seed, fps=24.0) for seed, target in enumerate(targets)]
        self.motions = [replace(motion, provenance={"view": 0}) for motion in motions]
        return self.motions


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Backend]:
    def use(**options: Any) -> Backend:
        stand_in = Backend(**options)
        monkeypatch.setattr(backend_capture, "capture", stand_in)
        return stand_in

    return use


def run(*arguments: str) -> int:
    """In no window, as `blender -b FILE --command` is, though the file has one; context.object and the like are absent there."""
    with bpy.context.temp_override(window=None):
        assert bpy.context.window is None and not hasattr(bpy.context, "object")
        return commands.main(list(arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["capture"],
        ["capture", "--video"],
        ["capture", "--video", "v.mp4", "--trim", "1"],
        ["capture", "--video", "v.mp4", "--start-frame", "soon"],
        ["capture", "--video", "v.mp4", "--colour", "red"],
        ["pack"],
    ],
)
def test_wrong_arguments_are_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["capture", "--help"], ["movie", "--help"]])
def test_help_is_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 0
    assert "usage:" in capsys.readouterr().out


def test_capture_keys_the_named_armatures_and_says_so(
    backend: Callable[..., Backend], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = human(), quadruped(), human()
    stand_in = backend()
    bpy.context.scene.render.fps = 24
    code = run("capture", "--video", "/clips/run.mp4", "--armature", "Quadruped", "--armature", third.name, "--start-frame", "7")
    assert code == 0
    (targets, clip, settings) = stand_in.calls[0]
    assert [target.rig.name for target in targets] == ["Quadruped", third.name]
    assert clip == Clip("/clips/run.mp4") and settings == Settings()
    assert first.animation_data is None
    assert tuple(second.animation_data.action.frame_range) == (7.0, 12.0)
    assert third.animation_data.action.name == "run.001"
    printed = capsys.readouterr()
    assert "Quadruped: 6 frames of 'run' keyed from frame 7 on" in printed.out
    assert printed.out.count("Finding the subject") == 1 and "Reading the motion" in printed.out
    assert "Nothing was saved" in printed.err


def test_a_scene_of_our_own_comes_and_goes_in_no_window() -> None:
    obj = human()
    users = bpy.context.scene
    with bpy.context.temp_override(window=None):
        with outdoor_scene.outdoor_scene_of([obj], "BLENDER_WORKBENCH", 1) as stage:
            assert bpy.context.window_manager.windows[0].scene == stage.scene
        with render_action.staged_scene(obj, 32) as stage:
            assert bpy.context.window_manager.windows[0].scene == stage.scene
    assert bpy.data.scenes[:] == [users] == [bpy.context.window_manager.windows[0].scene]


def test_options_reach_the_capture(backend: Callable[..., Backend]) -> None:
    obj = human()
    for frame, angle in ((1, 0.0), (9, 0.8)):
        obj.pose.bones["head"].rotation_mode = "XYZ"
        obj.pose.bones["head"].rotation_euler.x = angle
        obj.pose.bones["head"].keyframe_insert("rotation_euler", frame=frame)
    stand_in = backend()
    options = ["--reference", "9", "--trim", "0.5", "2", "--model", "/w/m.safetensors", "--device", "cpu", "--engine", "cycles"]
    assert run("capture", "--video", "v.mp4", *options) == 0
    targets, clip, settings = stand_in.calls[0]
    assert clip == Clip("v.mp4", start=0.5, end=2.0) and settings == Settings(model="/w/m.safetensors", device="cpu")
    rig, reference = targets[0].rig, targets[0].references[0]
    head = rig.rotations(reference.pose)[rig.names.index("head")]
    assert geodesic_angle(head, np.eye(3)) == pytest.approx(0.8, abs=1e-5)


def test_refine_reaches_the_capture_and_the_jobs(backend: Callable[..., Backend], tmp_path: Path) -> None:
    human()
    stand_in = backend()
    assert run("capture", "--video", "v.mp4", "--refine", "off") == 0
    assert stand_in.calls[0][2] == Settings(refine="off") and stand_in.calls[0][0][0].surface is None
    assert run("capture", "--video", "v.mp4", "--refine", "never") == 2
    (tmp_path / "jobs.json").write_text('{"jobs": [{"file": "a.blend", "video": "v.mp4", "outputs": ["o.blend"]}]}')
    options = commands._parser().parse_args(["batch", str(tmp_path / "jobs.json"), "--refine", "thorough"])
    (spec,) = run_jobs_file.specs_of(options)
    assert spec.params().settings.refine == "thorough"


def test_without_a_name_the_active_or_only_armature_is_taken(backend: Callable[..., Backend]) -> None:
    human()
    bpy.context.view_layer.objects.active = None
    assert capture_command._armatures(bpy.context, [])[0].name == "Human"
    quadruped()
    assert capture_command._armatures(bpy.context, [])[0].name == "Quadruped"
    bpy.context.view_layer.objects.active = None
    with pytest.raises(UserError, match="scene 'Scene' is chosen .'Human', 'Quadruped'.: name one with --armature NAME"):
        capture_command._armatures(bpy.context, [])
    assert [obj.name for obj in capture_command._armatures(bpy.context, ["Human", "Human"])] == ["Human"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--armature", "Humam"], "There is no armature 'Humam' in scene 'Scene': it has 'Human'"),
        (["--trim", "3", "1"], "swap the two"),
        (["--device", "tpu"], "Unknown device 'tpu'"),
    ],
)
def test_unfit_input_is_1_and_a_sentence(
    backend: Callable[..., Backend], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    human()
    stand_in = backend()
    assert run("capture", "--video", "v.mp4", *arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ") and message in printed and printed.count("\n") == 1
    assert stand_in.calls == []


def test_failure_is_1_and_saves_nothing(
    backend: Callable[..., Backend], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obj = human()
    backend(fail=UserError("Frame 3 is empty: trim the clip."))
    assert run("capture", "--video", "v.mp4", "--out", str(tmp_path / "out.blend")) == 1
    assert "Error: Frame 3 is empty: trim the clip." in capsys.readouterr().err
    assert obj.animation_data is None and list(tmp_path.iterdir()) == []


def test_missing_video_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    obj = human()
    assert run("capture", "--video", "/nowhere/v.mp4", "--model", "tiny", "--device", "cpu") == 1
    assert "/nowhere/v.mp4" in capsys.readouterr().err and obj.animation_data is None


def test_out_is_a_copy_with_the_keys(backend: Callable[..., Backend], tmp_path: Path) -> None:
    original, out = tmp_path / "rig.blend", tmp_path / "out.blend"
    human()
    bpy.ops.wm.save_as_mainfile(filepath=str(original))
    stamp = original.stat().st_mtime_ns
    backend()
    assert run("capture", "--video", "v.mp4", "--out", str(out)) == 0
    assert original.stat().st_mtime_ns == stamp and bpy.data.filepath == str(original)
    bpy.ops.wm.open_mainfile(filepath=str(out))
    assert bpy.data.objects["Human"].animation_data.action.name == "v" and bpy.data.scenes.keys() == ["Scene"]


@pytest.mark.parametrize("option", ["--out", "--bvh"])
def test_out_that_cannot_be_written_is_told_before_the_capture(
    option: str, backend: Callable[..., Backend], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    obj, stand_in = human(), backend()
    assert run("capture", "--video", "v.mp4", option, str(tmp_path / "no" / "folder" / "out.file")) == 1
    assert "out.file' cannot be written, as there is no folder" in capsys.readouterr().err
    assert run("capture", "--video", "v.mp4", option, str(tmp_path)) == 1
    assert "as a folder has that name" in capsys.readouterr().err
    assert stand_in.calls == [] and obj.animation_data is None


def test_bvh_holds_the_take(backend: Callable[..., Backend], tmp_path: Path) -> None:
    human()
    stand_in = backend()
    assert run("capture", "--video", "v.mp4", "--bvh", str(tmp_path / "take.bvh")) == 0
    rig, poses, seconds = read_bvh(tmp_path / "take.bvh")
    motion = stand_in.motions[0]
    assert len(poses) == 6 and seconds == pytest.approx(1 / 24)
    turn = geodesic_angle(poses[0, :, :3, :3].swapaxes(1, 2) @ poses[-1, :, :3, :3], np.eye(3))
    order = [rig.names.index(name) for name in motion.names]
    expected = geodesic_angle(motion.matrices[0], motion.matrices[-1])
    assert np.abs(turn[order] - expected).max() < 1e-4


def test_bvh_of_armatures_whose_names_no_file_can_have(backend: Callable[..., Backend], tmp_path: Path) -> None:
    human(), quadruped()
    backend()
    bpy.data.objects["Human"].name = "rig/human"
    names = ["--armature", "rig/human", "--armature", "Quadruped"]
    assert run("capture", "--video", "v.mp4", *names, "--bvh", str(tmp_path / "take.bvh")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["take-Quadruped.bvh", "take-rig_human.bvh"]


def test_bvh_of_several_armatures_are_files_of_their_own(backend: Callable[..., Backend], tmp_path: Path) -> None:
    human(), quadruped()
    backend()
    names = ["--armature", "Human", "--armature", "Quadruped"]
    assert run("capture", "--video", "v.mp4", *names, "--bvh", str(tmp_path / "take.bvh")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["take-Human.bvh", "take-Quadruped.bvh"]


def test_command_comes_and_goes_with_the_add_on() -> None:
    assert commands.ID == "anyrig" and len(commands._handles) == 1
    addon.unregister()
    assert commands._handles == []
    addon.register()


def test_a_log_gets_each_stage_and_each_tenth_of_a_download(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine()
    for done in (1, 2, 9):
        line.show(Snapshot("Reading the motion", done, 9, unit="frame"))
    for done in (0, 10, 150_000, 160_000, 1_000_000):
        line.show(Snapshot("Downloading t5-base", done, 1_000_000))
    line.end()
    stages = ["Reading the motion", *(f"Downloading t5-base {tenth} %" for tenth in (0, 10, 100))]
    assert capsys.readouterr().out.splitlines() == stages

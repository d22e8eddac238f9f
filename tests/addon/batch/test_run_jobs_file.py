"""`anyrig batch`: from a JSON file of jobs to files of keys, its summary, results, exit codes, and what a failure leaves to the rest."""

import json
import os
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.batch import run_jobs_file
from anyrig.addon.capture import run_capture
from anyrig.addon.command_line import commands
from anyrig.addon.import_export import import_rig
from anyrig.addon.rig import actions
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.bvh import read_bvh
from anyrig.backend.motion.motion import Motion
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.fixtures import human, quadruped, random_motion
from anyrig.tests.addon.playback import curves_of

FRAMES = 5
pytestmark = pytest.mark.usefixtures("small_views", "registered")
FPS = 12.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """rigs/two.blend (Human active, Quadruped), rigs/one.glb (Quadruped), clips/box.mp4."""
    (tmp_path / "rigs").mkdir()
    (tmp_path / "clips").mkdir()
    frames = np.full((FRAMES, 96, 128, 3), 200, np.uint8)
    for index, frame in enumerate(frames):
        frame[30:80, 20 + 4 * index : 50 + 4 * index] = (40, 90, 160)
    write_video(tmp_path / "clips" / "box.mp4", list(frames), FPS)
    quadruped()
    bpy.ops.export_scene.gltf(filepath=str(tmp_path / "rigs" / "one.glb"), export_format="GLB")
    bpy.context.view_layer.objects.active = human()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "rigs" / "two.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    return tmp_path


@pytest.fixture
def lively(monkeypatch: pytest.MonkeyPatch) -> None:
    """Motions that move: a random network's hardly do."""

    def capture_all(targets: Any, _clip: Any, _settings: Any) -> Generator[Any, None, list[Motion]]:
        yield progress.Progress("Reading the motion", 1, 1)
        motions = [random_motion(target.rig, FRAMES, seed, fps=FPS) for seed, target in enumerate(targets)]
        return [replace(motion, provenance={"view": 0}) for motion in motions]

    monkeypatch.setattr(backend_capture, "capture", capture_all)


def write_jobs(folder: Path, *jobs: Any, **defaults: Any) -> Path:
    path = folder / "jobs.json"
    path.write_text(json.dumps({"defaults": {"model": "tiny", "device": "cpu", **defaults}, "jobs": jobs}), encoding="utf-8")
    return path


def job(**values: Any) -> dict[str, Any]:
    return {"file": "rigs/two.blend", "video": "clips/box.mp4", "outputs": ["out/{name}.blend"], **values}


def run(*arguments: str | Path) -> int:
    return commands.main(["batch", *map(str, arguments)])


def results(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["jobs"]


# ---- what it does


def test_jobs_become_files_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = write_jobs(
        folder,
        job(start_frame=10),
        job(name="both", armatures="all", outputs=["out/both.blend", "out/both.bvh"]),
        job(file="rigs/one.glb", outputs=["out/{name}.glb"]),
    )
    assert run(jobs, "--json", folder / "results.json") == 0
    rows = results(folder / "results.json")
    assert [row["status"] for row in rows] == ["done"] * 3 and [row["frames"] for row in rows] == [FRAMES] * 3
    assert [row["outputs"] for row in rows] == [
        ["out/two-box.blend"],
        ["out/both.blend", "out/both-Human.bvh", "out/both-Quadruped.bvh"],
        ["out/one-box.glb"],
    ]
    assert [row["armatures"] for row in rows] == [["Human"], ["Human", "Quadruped"], ["Quadruped"]]
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == sorted(output.split("/")[1] for row in rows for output in row["outputs"])
    lines = capsys.readouterr().out.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("job  name"))) :]
    assert [line.split()[:4] for line in table[1:4]] == [
        ["1", "two-box", "done", "5"],
        ["2", "both", "done", "5"],
        ["3", "one-box", "done", "5"],
    ]
    assert table[4] == "3 jobs: 3 done, 0 failed, 0 done before"
    bpy.ops.wm.open_mainfile(filepath=str(folder / "out" / "two-box.blend"))
    keyed = bpy.data.objects["Human"].animation_data.action
    # the file's own 24 frames per second
    assert tuple(keyed.frame_range) == (10.0, 18.0) and bpy.data.objects["Quadruped"].animation_data is None
    bpy.ops.wm.open_mainfile(filepath=str(folder / "out" / "both.blend"))
    assert all(bpy.data.objects[name].animation_data.action for name in ("Human", "Quadruped"))


def test_bones_are_named_armature_by_armature(folder: Path, lively: None) -> None:
    assert run(write_jobs(folder, job(armatures="all", bones={"Human": ["spine", "head"]}))) == 0
    bpy.ops.wm.open_mainfile(filepath=str(folder / "out" / "two-box.blend"))
    keyed = {}
    for name in ("Human", "Quadruped"):
        obj = bpy.data.objects[name]
        curves = curves_of(obj.animation_data.action)
        keyed[name] = {bone.name for bone in obj.pose.bones for curve in curves if f'"{bone.name}"' in curve.data_path}
    assert keyed["Human"] == {"spine", "head"} and len(keyed["Quadruped"]) > 8, "none named: all that deform"


def test_rig_files_are_left_alone(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "rigs").iterdir()}
    assert run(write_jobs(folder, job(armatures=["Quadruped"]))) == 0
    assert {path: path.read_bytes() for path in (folder / "rigs").iterdir()} == before


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"video": "clips/none.mp4"}, "none.mp4"),
        ({"file": "rigs/none.glb"}, "'none.glb' does not exist|none.glb"),
        ({"armatures": ["Cow"]}, "job 1, 'armatures': 'two.blend' has no armature 'Cow', it has 'Human', 'Quadruped'"),
        ({"model": "none.safetensors"}, "none.safetensors"),
        ({"bones": {"Cow": ["body"]}}, "job 1, 'bones': armature 'Cow' is not one of the job's ('Human'): correct the name"),
        ({"bones": {"Human": ["spine", "wing"]}}, "'wing'"),
    ],
)
def test_a_failed_job_stops_nothing_else(
    folder: Path, broken: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = write_jobs(folder, job(name="first", **broken), job(name="second"))
    assert run(jobs, "--json", folder / "results.json") == 1
    first, second = results(folder / "results.json")
    assert first["status"] == "failed" and second["status"] == "done"
    assert (
        any(part.lower() in first["error"].lower() for part in message.split("|")) and first["error"] in capsys.readouterr().out
    )
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["second.blend"]


def test_a_fault_of_the_program_stops_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = run_capture.write

    def fail_once(*arguments: Any) -> Any:
        monkeypatch.setattr(run_capture, "write", write)
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(run_capture, "write", fail_once)
    assert run(write_jobs(folder, job(name="first"), job(name="second")), "--json", folder / "results.json") == 1
    first, second = results(folder / "results.json")
    assert "Unexpected ZeroDivisionError" in first["error"] and second["status"] == "done"


def test_chosen_jobs_alone_run(folder: Path) -> None:
    jobs = write_jobs(folder, *(job(name=name, video="clips/none.mp4") for name in "abcd"))
    assert run(jobs, "--job", "4", "--job", "1-2", "--json", folder / "results.json") == 1
    assert [row["job"] for row in results(folder / "results.json")] == [1, 2, 4]


@pytest.mark.parametrize("wanted", ["0", "3", "2-1", "x", "1-9", ""])
def test_jobs_that_are_not_there_are_refused(folder: Path, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_jobs(folder, job(name="a"), job(name="b")), "--job", wanted) == 1
    assert f"There is no job '{wanted}'. Use job numbers from 1 to 2, for example 2 or 1-2." in capsys.readouterr().err


def test_the_file_that_blender_was_started_with_serves_jobs_without_one(folder: Path) -> None:
    jobs = write_jobs(
        folder, {"video": "clips/box.mp4", "outputs": ["out.blend"]}, {"video": "clips/box.mp4", "outputs": ["b.bvh"]}
    )
    bpy.ops.wm.open_mainfile(filepath=str(folder / "rigs" / "two.blend"))
    assert run(jobs) == 0 and (folder / "out.blend").is_file() and (folder / "b.bvh").is_file()


def test_a_blend_with_several_armatures_and_none_active_asks(folder: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(folder / "rigs" / "two.blend"))
    bpy.context.view_layer.objects.active = None
    bpy.ops.wm.save_mainfile()
    assert run(write_jobs(folder, job()), "--json", folder / "results.json") == 1
    assert "has 'Human', 'Quadruped': name those to animate, or write \"all\"" in results(folder / "results.json")[0]["error"]


def test_options_reach_the_capture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    gather = run_capture.gather
    monkeypatch.setattr(
        run_capture,
        "gather",
        lambda context, objects, params, bones: seen.append(params) or gather(context, objects, params, bones),
    )
    jobs = write_jobs(folder, job(trim=[0.0, 0.2], reference=1, view=90, speed=2, heading="view", engine="cycles"), batch=3)
    assert run(jobs) == 0
    (params,) = seen
    assert params.clip.path == str(folder / "clips" / "box.mp4") and (params.clip.end, params.clip.speed) == (0.2, 2)
    assert (params.settings.model, params.settings.heading, params.settings.batch) == ("tiny", "view", 3)
    assert params.reference_frame == 1 and params.azimuth == pytest.approx(np.pi / 2) and params.engine == "CYCLES"


# ---- once more


def test_resume_runs_what_was_not_done(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = write_jobs(folder, job(name="a"), job(name="b", video="clips/later.mp4"))
    assert run(jobs) == 1
    stamp = (folder / "out" / "a.blend").stat().st_mtime_ns
    (folder / "clips" / "later.mp4").write_bytes((folder / "clips" / "box.mp4").read_bytes())
    assert run(jobs, "--resume", "--json", folder / "results.json") == 0
    assert [row["status"] for row in results(folder / "results.json")] == ["done before", "done"]
    assert (folder / "out" / "a.blend").stat().st_mtime_ns == stamp
    assert capsys.readouterr().out.endswith("2 jobs: 1 done, 0 failed, 1 done before\n")


@pytest.mark.parametrize("change", ["output", "option", "video", "nothing"])
def test_resume_does_again_what_changed(folder: Path, change: str) -> None:
    assert run(write_jobs(folder, job(name="a"))) == 0
    if change == "output":
        (folder / "out" / "a.blend").unlink()
    elif change == "video":
        os.utime(folder / "clips" / "box.mp4", (1, 1))
    jobs = write_jobs(folder, job(name="a", **({"start_frame": 5} if change == "option" else {})))
    assert run(jobs, "--resume", "--json", folder / "results.json") == 0
    assert results(folder / "results.json")[0]["status"] == ("done before" if change == "nothing" else "done")


def test_without_resume_all_is_done_again(folder: Path) -> None:
    jobs = write_jobs(folder, job(name="a"))
    assert run(jobs) == 0 and run(jobs, "--json", folder / "results.json") == 0
    assert results(folder / "results.json")[0]["status"] == "done"


def test_a_folder_that_takes_no_records_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "jobs.done").write_text("in the way")
    assert run(write_jobs(folder, job(name="a"))) == 0
    assert "cannot be written" in capsys.readouterr().out and (folder / "out" / "a.blend").is_file()


def test_check_runs_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_jobs(folder, job(name="a"), job(name="b", video="clips/none.mp4")), "--check") == 1
    out = capsys.readouterr().out
    assert f"job 2: '{folder / 'clips' / 'none.mp4'}' does not exist" in out and "2 jobs: 1 input missing" in out
    assert run(write_jobs(folder, job(name="a")), "--check") == 0 and not (folder / "out").exists()


def test_results_that_cannot_be_written_are_told_before_any_job_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = write_jobs(folder, job(video="clips/none.mp4"))
    assert run(jobs, "--json", folder / "no" / "results.json") == 1
    printed = capsys.readouterr()
    assert "results.json' cannot be written" in printed.err and "Job 1" not in printed.out


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_and_no_file(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == (0 if arguments else 1)
    printed = capsys.readouterr()
    assert "usage: blender -b FILE --command anyrig batch" in printed.out if arguments else "No jobs file" in printed.err


# ---- the files that come out


def bone_tops(obj: bpy.types.Object, names: list[str], frames: list[int]) -> np.ndarray:
    """(F, J, 3) heads in the world, away from the first."""
    rows = []
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        heads = [np.array(obj.matrix_world @ obj.pose.bones[name].head) for name in names]
        rows.append(np.array(heads) - heads[0])
    return np.array(rows)


@pytest.mark.parametrize("kind", [".glb", ".fbx"])
def test_other_programs_get_the_same_motion(folder: Path, lively: None, kind: str) -> None:
    """Captured onto the .blend, written, read back: the same bones at the same places on the same frames."""
    name = f"out/take{kind}"
    assert run(write_jobs(folder, job(outputs=["out/take.blend", name], armatures=["Human"], start_frame=1), scene_fps=FPS)) == 0
    bpy.ops.wm.open_mainfile(filepath=str(folder / "out" / "take.blend"))
    obj = bpy.data.objects["Human"]
    names, frames = [bone.name for bone in obj.data.bones], list(range(1, FRAMES + 1))
    expected = bone_tops(obj, names, frames)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.context.scene.render.fps = 12
    read = import_rig.import_rig(folder / name)
    assert [other.name for other in bpy.data.objects if other.type == "ARMATURE"] == [read.name]
    assert any(other.type == "MESH" and other.find_armature() == read for other in bpy.data.objects)
    (action,) = actions.actions_of(read)
    actions.assign_action(read, action)
    first = round(action.frame_range[0])
    found = bone_tops(read, names, [first + index for index in range(FRAMES)])
    size = np.abs(expected).max()
    assert np.abs(found - expected).max() < 1e-3 * size
    assert np.abs(expected - expected[:1]).max() > 0.1 * size, "nothing moves in this test"


def test_glb_holds_this_take_alone_under_its_name(folder: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(folder / "rigs" / "two.blend"))
    bpy.data.objects["Human"].pose.bones[0].keyframe_insert("location", frame=3)
    bpy.data.objects["Human"].animation_data.action.name = "Earlier"
    bpy.ops.wm.save_mainfile()
    assert run(write_jobs(folder, job(outputs=["take.glb"], armatures=["Human"]))) == 0
    data = (folder / "take.glb").read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert [animation["name"] for animation in content["animations"]] == ["box"]


def test_a_rig_without_a_scene_takes_the_videos_rate_and_range(folder: Path) -> None:
    assert run(write_jobs(folder, job(file="rigs/one.glb", outputs=["take.blend"], start_frame=3))) == 0
    bpy.ops.wm.open_mainfile(filepath=str(folder / "take.blend"))
    scene = bpy.context.scene
    assert scene.render.fps / scene.render.fps_base == FPS and (scene.frame_start, scene.frame_end) == (3, 3 + FRAMES - 1)


def test_bvh_is_what_the_blend_shows(folder: Path, lively: None) -> None:
    jobs = write_jobs(folder, job(outputs=["take.blend", "take.bvh"], start_frame=1), scene_fps=FPS)
    assert run(jobs) == 0
    written, poses, seconds = read_bvh(folder / "take.bvh")
    assert len(poses) == FRAMES and seconds == pytest.approx(1 / FPS)
    bpy.ops.wm.open_mainfile(filepath=str(folder / "take.blend"))
    obj = bpy.data.objects["Human"]
    rig = rig_from_armature(obj)
    shown = actions.pose_frames(obj, obj.animation_data.action, rig.names, list(range(1, FRAMES + 1)))
    order = [written.names.index(name) for name in rig.names]
    turned = geodesic_angle(poses[0, order, :3, :3].swapaxes(1, 2) @ poses[-1, order, :3, :3], np.eye(3))
    expected = geodesic_angle(rig.rotations(shown[0]), rig.rotations(shown[-1]))
    assert np.abs(turned - expected).max() < 1e-4 and expected.max() > 0.1


def test_a_hidden_armature_is_exported_and_stays_hidden(folder: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(folder / "rigs" / "two.blend"))
    bpy.data.objects["Human"].hide_set(True)
    bpy.ops.wm.save_mainfile()
    assert run(write_jobs(folder, job(outputs=["take.glb", "take.blend"], armatures=["Human"]))) == 0
    assert (folder / "take.glb").stat().st_size > 1000
    bpy.ops.wm.open_mainfile(filepath=str(folder / "take.blend"))
    assert [obj.name for obj in bpy.data.objects if obj.hide_get()] == ["Human"]


def test_a_hidden_collection_is_a_sentence_and_leaves_no_file(folder: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(folder / "rigs" / "two.blend"))
    collection = bpy.data.collections.new("Characters")
    bpy.context.scene.collection.children.link(collection)
    obj = bpy.data.objects["Human"]
    for other in list(obj.users_collection):
        other.objects.unlink(obj)
    collection.objects.link(obj)
    collection.hide_viewport = True
    bpy.ops.wm.save_mainfile()
    jobs = write_jobs(folder, job(outputs=["out/take.bvh", "out/take.fbx"], armatures=["Human"]))
    assert run(jobs, "--json", folder / "results.json") == 1
    assert "show the collection" in results(folder / "results.json")[0]["error"], results(folder / "results.json")
    assert not (folder / "out").exists() or not list((folder / "out").iterdir())


def test_an_output_that_cannot_be_written_leaves_what_was_there(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "take.bvh").write_text("older")
    (folder / "way").write_text("a file in the way")
    jobs = write_jobs(folder, job(outputs=["out/take.bvh", "way/take.blend"]))
    assert run(jobs, "--json", folder / "results.json") == 1
    assert "take.blend' cannot be written" in results(folder / "results.json")[0]["error"]
    assert [path.name for path in (folder / "out").iterdir()] == ["take.bvh"] and (
        folder / "out" / "take.bvh"
    ).read_text() == "older"


def test_table_is_aligned() -> None:
    rows = [
        run_jobs_file.JobOutcome(9, "fox", "done", 1.25, 48, ("Fox",), ("a.blend",)),
        run_jobs_file.JobOutcome(10, "a long one", "failed", error="No.\nNo"),
    ]
    assert run_jobs_file.table(rows).splitlines() == [
        "job  name        result  frames  seconds  files, or what went wrong",
        "  9  fox         done        48      1.2  a.blend",
        " 10  a long one  failed       -      0.0  No. No",
        "2 jobs: 1 done, 1 failed, 0 done before",
    ]


@pytest.mark.parametrize("name", ["jobs.json", "clips/box.mp4", "rigs/two.blend", "out/two-box.blend"])
def test_results_over_what_jobs_read_or_write_are_refused(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    jobs = write_jobs(folder, job())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "out").mkdir()
    assert run(jobs, "--json", folder / name) != 0
    assert "would overwrite" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

"""Takes: stored in the file, shown, compared, applied again, deleted, undone, and recovered from their copies."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.review import takes, takes_panel
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.addon.tasks import background_runner
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion import take_file
from anyrig.backend.motion.take_file import Take
from anyrig.backend.rig.rig import Reference
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.fixtures import human, quadruped, random_motion

pytestmark = pytest.mark.usefixtures("registered_apart")


def captured(obj: bpy.types.Object, video: str = "/clips/walk.mp4", seed: int = 1, start: int = 5) -> bpy.types.Text:
    """What comes after the network: keys, and the stored take."""
    rig = rig_from_armature(obj)
    pose = pose_of(obj, rig)
    subject = run_capture.ArmatureInput(obj.session_uid, rig, pose, (0.0,), ())
    params = CaptureParams(Clip(video, start=0.5, speed=2.0), Settings(model="tiny", device="cpu"))
    take = run_capture.CaptureRequest(params, (subject,), bpy.context.scene.session_uid, start)
    view = Reference(pose, np.zeros((4, 4, 4), np.uint8), 0.0, np.eye(3, 4))
    run_capture.write(take, [run_capture.CaptureResult(random_motion(rig, 7, seed, fps=24.0), view)])
    return take_store.stored()[0] if len(take_store.stored()) == 1 else newest(obj)


def newest(obj: bpy.types.Object) -> bpy.types.Text:
    key = obj.animation_data.action[take_store.DATA]
    return next(text for text in take_store.stored() if take_store.about(text)["key"] == key)


def keys(action: bpy.types.Action) -> np.ndarray:
    curves = action.layers[0].strips[0].channelbags[0].fcurves if hasattr(action, "slots") else action.fcurves
    return np.array([[point.co[:] for point in curve.keyframe_points] for curve in curves])


def playing(obj: bpy.types.Object) -> str:
    return obj.animation_data.action.name if obj.animation_data and obj.animation_data.action else ""


# ---- stored


def test_a_capture_stores_its_take_and_a_reload_keeps_it(tmp_path: Path) -> None:
    obj = human()
    raw = take_store.read(captured(obj))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "walk.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "walk.blend"))
    (text,) = take_store.stored()
    again, about = take_store.read(text), take_store.about(text)
    assert again.key == raw.key == about["key"] and again.data == raw.data
    assert (again.clip, again.settings) == (Clip("/clips/walk.mp4", start=0.5, speed=2.0), Settings(model="tiny", device="cpu"))
    assert (about["armature"], about["model"], about["frames"], about["start_frame"]) == ("Human", "tiny", 7, 5)
    assert again.motion.provenance == {"seed": 1}
    assert take_store.action_of(text).name == "walk" and take_store.armature_of(text) == bpy.data.objects["Human"]


def test_takes_survive_without_the_addon(tmp_path: Path) -> None:
    """A Blender without the add-on opens the file, saves it under another name, and the take is still there, readable as the text says."""
    raw = take_store.read(captured(human()))
    first, second = tmp_path / "walk.blend", tmp_path / "again.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(first))
    code = f"""
import bpy, io, os, numpy
bpy.ops.wm.open_mainfile(filepath={str(first)!r})
text = bpy.data.texts[0]
take = numpy.load(io.BytesIO(text["anyrig_take"]))
print("SHAPE", take["rotations"].shape, 'bpy.data.texts[%r]["anyrig_take"]' % text.name in text.as_string(), flush=True)
bpy.ops.wm.save_as_mainfile(filepath={str(second)!r})
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ})
    assert f"SHAPE {raw.motion.rotations.shape} True" in done.stdout, done.stderr
    bpy.ops.wm.open_mainfile(filepath=str(second))
    assert take_store.read(take_store.stored()[0]).key == raw.key


def test_the_take_is_part_of_the_undo_step_of_its_keys() -> None:
    human()
    bpy.ops.ed.undo_push(message="before")
    captured(bpy.data.objects["Human"])
    bpy.ops.ed.undo_push(message="Capture from Video")
    bpy.ops.ed.undo()
    assert not take_store.stored() and not bpy.data.actions
    bpy.ops.ed.redo()
    assert len(take_store.stored()) == 1 and playing(bpy.data.objects["Human"]) == "walk"


def test_a_damaged_take_is_a_sentence() -> None:
    text = captured(human())
    for bad in (b"", b"hello", text[take_store.DATA][:900], text[take_store.DATA][:-200]):
        text[take_store.DATA] = bad
        with pytest.raises(RuntimeError, match="Take 'walk' in this file is not a take written by AnyRig .* delete it"):
            bpy.ops.anyrig.take_apply()
    assert "delete it" in background_runner.status()[0] and background_runner.status()[1] and len(bpy.data.actions) == 1


# ---- apply again


def test_applied_again_the_keys_are_the_same() -> None:
    obj = human()
    captured(obj)
    first = obj.animation_data.action
    obj.pose.bones["spine"].keyframe_insert("location", frame=6)  # an edit, which stays with the earlier action
    bpy.context.scene.frame_set(5)
    bpy.ops.anyrig.take_apply()
    second = obj.animation_data.action
    assert second != first and second.name == "walk.001" and first.name in bpy.data.actions
    assert take_store.action_of(newest(obj)) == second and take_store.DATA not in first
    raw, rig = take_store.read(newest(obj)), rig_from_armature(obj)
    for index in range(7):
        bpy.context.scene.frame_set(5 + index)
        assert geodesic_angle(rig.rotations(pose_of(obj, rig)), raw.motion.matrices[index]).max() < 1e-4


def test_stored_in_single_precision_the_keys_differ_by_a_millionth() -> None:
    obj = human()
    captured(obj)
    before = keys(obj.animation_data.action)
    bpy.context.scene.frame_set(5)
    bpy.ops.anyrig.take_apply()
    assert np.abs(keys(obj.animation_data.action) - before).max() < 1e-6


def test_apply_again_is_one_undo_step_and_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyrig.backend.capture.pipeline", None)
    captured(human())
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.take_apply()
    bpy.ops.ed.undo_push(message="Apply Take Again")
    assert playing(bpy.data.objects["Human"]) == "walk.001"
    bpy.ops.ed.undo()
    assert playing(bpy.data.objects["Human"]) == "walk" and len(bpy.data.actions) == 1
    assert take_store.action_of(take_store.stored()[0]).name == "walk"


def test_applied_again_a_take_starts_and_goes_where_the_panel_says() -> None:
    obj, scene = human(), bpy.context.scene
    text = captured(obj)
    first, key = obj.animation_data.action, take_store.about(text)["key"]
    props = scene.anyrig
    props.start, props.start_frame, props.output, props.extend_range = "FRAME", 300, "STRIP", True
    bpy.ops.anyrig.take_apply()
    second = take_store.action_of(text)
    strips = {strip.action: strip.frame_start for track in obj.animation_data.nla_tracks for strip in track.strips}
    assert strips == {first: 5, second: 300} and obj.animation_data.action is None and scene.frame_end == 306
    assert take_store.read(text).start_frame == take_store.about(text)["start_frame"] == 300
    assert second[take_store.DATA] == key and take_store.copies()[0].name.endswith(f"{key}{take_store.SUFFIX}")
    obj.name = "Renamed"  # known by the strip that it plays
    assert take_store.armature_of(text) == obj
    props.start, props.output = "CURRENT", "ACTION"
    scene.frame_set(40)
    bpy.ops.anyrig.take_apply()
    assert take_store.action_of(text).frame_range[0] == take_store.about(text)["start_frame"] == 40
    assert "from frame 40 on" in background_runner.status()[0]


def test_apply_again_finds_a_renamed_armature_or_takes_the_picked_one() -> None:
    obj = human()
    text = captured(obj)
    obj.name = "Renamed"
    assert take_store.armature_of(text) == obj
    bpy.ops.anyrig.take_apply()
    twin = obj.copy()
    twin.data, twin.name = obj.data.copy(), "Twin"
    twin.animation_data_clear()
    bpy.context.scene.collection.objects.link(twin)
    bpy.context.scene.anyrig.armature = twin
    bpy.ops.anyrig.take_apply(picked=True)
    assert playing(twin) == "walk.002" and playing(obj) == "walk.001"


def test_a_take_for_other_bones_is_refused_and_changes_nothing() -> None:
    captured(human())
    obj = quadruped()
    bpy.context.scene.anyrig.armature = obj
    with pytest.raises(RuntimeError, match="Bone '.*' of take 'walk' is not in armature 'Quadruped': pick one that has it"):
        bpy.ops.anyrig.take_apply(picked=True)
    bpy.data.objects.remove(bpy.data.objects["Human"])
    with pytest.raises(RuntimeError, match="is not in armature 'Quadruped'"):
        bpy.ops.anyrig.take_apply()
    bpy.data.objects.remove(obj)
    with pytest.raises(RuntimeError, match="Armature 'Human' is not in this file: pick an armature with the same bones"):
        bpy.ops.anyrig.take_apply()
    assert len(bpy.data.actions) == 1


# ---- show and compare


def test_compare_switches_between_take_and_earlier_action_and_back() -> None:
    obj = human()
    obj.pose.bones["spine"].keyframe_insert("rotation_quaternion", frame=1)
    earlier = playing(obj)
    captured(obj)
    for expected in (earlier, "walk", earlier, "walk"):
        bpy.ops.anyrig.take_compare()
        assert playing(obj) == expected
    slot = getattr(obj.animation_data, "action_slot", None)
    assert slot is None or slot.identifier == "OBHuman"
    assert bpy.data.actions[earlier].use_fake_user  # else it would be lost when the file is saved


def test_compare_two_takes() -> None:
    obj = human()
    captured(obj, "/clips/walk.mp4", 1)
    walk = newest(obj)
    captured(obj, "/clips/run.mp4", 2)
    takes.select(bpy.context, walk)
    for expected in ("walk", "run", "walk"):
        bpy.ops.anyrig.take_compare()
        assert playing(obj) == expected
    bpy.ops.anyrig.take_show(take=next(t.name for t in take_store.stored() if take_store.label(t) == "run"))
    assert playing(obj) == "run" and take_store.label(takes.selected(bpy.context)) == "run"


def test_compare_with_no_earlier_action_returns_to_the_pose_before() -> None:
    obj = human()
    obj.pose.bones["spine"].rotation_quaternion = (0.8, 0.6, 0, 0)
    bpy.context.view_layer.update()
    rig = rig_from_armature(obj)
    before = pose_of(obj, rig)
    captured(obj)
    bpy.context.scene.frame_set(9)
    assert np.abs(pose_of(obj, rig) - before).max() > 0.05
    bpy.ops.anyrig.take_compare()
    assert playing(obj) == "" and np.abs(pose_of(obj, rig) - before).max() < 1e-5


def test_an_action_that_is_no_armatures_is_refused_and_nothing_changes() -> None:
    obj = human()
    captured(obj)
    lens = bpy.data.cameras.new("lens")
    lens.keyframe_insert("lens", frame=1)
    bpy.context.scene.anyrig_takes.other = lens.animation_data.action.name
    with pytest.raises(RuntimeError, match="Action '.*' was not made for an armature: choose another one"):
        bpy.ops.anyrig.take_compare()
    assert playing(obj) == "walk"
    bpy.context.scene.anyrig_takes.other = bpy.data.actions.new("empty").name
    assert bpy.ops.anyrig.take_compare() == {"FINISHED"} and playing(obj) == "empty"


def test_what_cannot_be_shown_or_compared_is_said() -> None:
    obj = human()
    obj.pose.bones["spine"].keyframe_insert("location", frame=1)
    earlier = obj.animation_data.action
    captured(obj)
    name = earlier.name
    bpy.data.actions.remove(earlier)
    with pytest.raises(
        RuntimeError, match=f"Action '{name}', played before take 'walk', was deleted or renamed: choose an action"
    ):
        bpy.ops.anyrig.take_compare()
    bpy.data.actions.remove(obj.animation_data.action)
    with pytest.raises(RuntimeError, match="The action of take 'walk' is not in this file: click Apply Again"):
        bpy.ops.anyrig.take_show()
    bpy.ops.anyrig.take_apply()
    assert playing(obj) == "walk"
    with pytest.raises(RuntimeError, match="No take is chosen"):
        bpy.ops.anyrig.take_show(take="Nonsense")


def test_tweak_mode_is_refused() -> None:
    obj = human()
    captured(obj)
    track = obj.animation_data.nla_tracks.new()
    track.strips.new("walk", 1, obj.animation_data.action)
    obj.animation_data.action = None
    track.select = track.strips[0].select = True
    obj.animation_data.use_tweak_mode = True
    with pytest.raises(RuntimeError, match="tweak mode: leave it"):
        bpy.ops.anyrig.take_compare()
        bpy.ops.anyrig.take_compare()
    obj.animation_data.use_tweak_mode = False


def test_poll_asks_for_a_take() -> None:
    human()
    for name in ("show", "compare", "apply", "delete"):
        assert not getattr(bpy.ops.anyrig, f"take_{name}").poll()
    captured(bpy.data.objects["Human"])
    assert bpy.ops.anyrig.take_show.poll() and bpy.ops.anyrig.take_delete.poll()


# ---- delete


def test_delete_removes_take_and_action_and_goes_back(tmp_path: Path) -> None:
    obj = human()
    obj.pose.bones["spine"].keyframe_insert("location", frame=1)
    earlier = playing(obj)
    captured(obj)
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.take_delete()
    bpy.ops.ed.undo_push(message="Delete Take")
    assert not take_store.stored() and playing(bpy.data.objects["Human"]) == earlier and bpy.data.actions.keys() == [earlier]
    bpy.ops.ed.undo()
    assert len(take_store.stored()) == 1 and playing(bpy.data.objects["Human"]) == "walk"


@pytest.mark.parametrize("use", ["strip", "other armature"])
def test_delete_keeps_an_action_that_is_used_elsewhere(use: str) -> None:
    obj = human()
    captured(obj)
    action = obj.animation_data.action
    if use == "strip":
        obj.animation_data.nla_tracks.new().strips.new("walk", 1, action)
    else:
        twin = obj.copy()
        bpy.context.scene.collection.objects.link(twin)
    bpy.ops.anyrig.take_delete()
    assert not take_store.stored() and playing(obj) == "walk" and "its action is kept" in background_runner.status()[0]


def test_delete_leaves_other_takes_alone() -> None:
    obj = human()
    captured(obj, "/clips/walk.mp4", 1)
    walk = newest(obj)
    captured(obj, "/clips/run.mp4", 2)
    bpy.ops.anyrig.take_delete(take=walk.name)
    assert [take_store.label(text) for text in take_store.stored()] == ["run"] and playing(obj) == "run"
    assert "walk" not in bpy.data.actions


# ---- copies


def test_the_copy_is_there_before_the_keys_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blender may end while it writes keys; then, and when writing fails, the take comes back from its copy."""
    seen: list[Path] = []

    def end(*_: Any, **__: Any) -> None:
        seen.extend(take_store.copies())
        raise UserError("Bone 'x' is gone: undo that.")

    obj = human()
    with monkeypatch.context() as patch:
        patch.setattr(run_capture, "write_motion", end)
        with pytest.raises(UserError, match="is gone"):
            captured(obj)
    assert len(seen) == 1 and not take_store.stored() and not bpy.data.actions
    assert bpy.ops.anyrig.take_recover() == {"FINISHED"}
    assert background_runner.status() == ("Recovered 1 take: choose one and click Apply Again.", False)
    assert [take_store.key_in(path) for path in seen] == [take_store.about(take_store.stored()[0])["key"]]
    bpy.ops.anyrig.take_apply()
    assert playing(obj) == "walk"
    assert bpy.ops.anyrig.take_recover() == {"CANCELLED"} and "nothing to recover" in background_runner.status()[0]


def test_an_armature_deleted_meanwhile_does_not_lose_the_take() -> None:
    obj = human()
    rig = rig_from_armature(obj)
    pose = pose_of(obj, rig)
    subject = run_capture.ArmatureInput(obj.session_uid, rig, pose, (0.0,), ())
    take = run_capture.CaptureRequest(CaptureParams(Clip("/v.mp4"), Settings()), (subject,), bpy.context.scene.session_uid, 1)
    view = Reference(pose, np.zeros((4, 4, 4), np.uint8), 0.0, np.eye(3, 4))
    bpy.data.objects.remove(obj)
    with pytest.raises(UserError, match="recover the take under Takes"):
        run_capture.write(take, [run_capture.CaptureResult(random_motion(rig, 4, 0), view)])
    assert len(take_store.copies()) == 1


def test_recover_one_file_and_undo_it() -> None:
    captured(human())
    (path,) = take_store.copies()
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.take_recover(file=str(path))
    bpy.ops.ed.undo_push(message="Recover Takes")
    assert take_store.read(take_store.stored()[0]).motion.provenance == {"seed": 1}
    bpy.ops.ed.undo()
    assert not take_store.stored() and take_store.missing_copies() == [path]


def test_a_damaged_copy_is_said_and_the_others_come_back() -> None:
    captured(human())
    (path,) = take_store.copies()
    bad = path.with_name(f"2000-01-01 bad 0123456789ab{take_store.SUFFIX}")
    bad.write_bytes(path.read_bytes()[:500])
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    with pytest.raises(RuntimeError, match="bad 0123456789ab.* is not a take"):
        bpy.ops.anyrig.take_recover()
    assert len(take_store.stored()) == 1
    with pytest.raises(RuntimeError, match="cannot be read .* check the path"):
        bpy.ops.anyrig.take_recover(file=str(path.with_name("absent.npz")))


def test_old_copies_are_pruned() -> None:
    target, now = take_store.folder(), 1e9
    for index in range(take_store.MOST_COPIES + 5):
        path = target / f"2026-01-01_00-00-{index:02d} walk 0123456789{index:02d}{take_store.SUFFIX}"
        path.write_bytes(b"x")
        os.utime(path, (now - index, now - index))
    take_store.prune(target, now)
    left = take_store.copies(target)
    assert len(left) == take_store.MOST_COPIES and take_store.key_in(left[0]) == "012345678924"
    os.utime(left[0], (now - 1e7, now - 1e7))
    take_store.prune(target, now)
    assert len(take_store.copies(target)) == take_store.MOST_COPIES - 1


def test_a_locked_folder_does_not_lose_the_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocker = tmp_path / "anyrig-takes"
    blocker.write_text("a file where the folder should be")
    obj = human()
    captured(obj)
    assert playing(obj) == "walk" and len(take_store.stored()) == 1
    with pytest.raises(RuntimeError, match="folder of the copies cannot be read"):
        bpy.ops.anyrig.take_recover()


def test_the_folder_is_the_extensions_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def user_path(package: str, *, path: str, create: bool) -> str:
        asked.append(package)
        return str(tmp_path / path)

    monkeypatch.setattr(bpy.utils, "extension_path_user", user_path)
    assert take_store.folder() == tmp_path / "takes" and asked == ["anyrig"]


# ---- the list


def test_the_list_shows_takes_alone_newest_first() -> None:
    obj = human()
    captured(obj, "/clips/walk.mp4", 1)
    walk = newest(obj)
    take_store.set_about(walk, date="2020-01-01 00:00:00")
    captured(obj, "C:\\clips\\run.mp4", 2)
    bpy.data.texts.new("Notes")
    names = [text.name for text in bpy.data.texts]
    shown, order = takes_panel.arrange(bpy.data.texts, "", 8)
    assert [name for name, flag in zip(names, shown, strict=True) if flag] == [n for n in names if n != "Notes"]
    assert sorted(order) == [0, 1, 2] and order[names.index(walk.name)] == 1 and order[names.index("Notes")] == 2
    shown, _ = takes_panel.arrange(bpy.data.texts, "WALK", 8)
    assert [name for name, flag in zip(names, shown, strict=True) if flag] == [walk.name]
    assert takes_panel.video_name({"video": "C:\\clips\\run.mp4"}) == "run.mp4"


def test_the_choice_in_the_list_outlives_new_texts() -> None:
    obj = human()
    captured(obj, "/clips/walk.mp4", 1)
    walk = newest(obj)
    captured(obj, "/clips/run.mp4", 2)
    props = bpy.context.scene.anyrig_takes
    props.index = bpy.data.texts.find(walk.name)
    bpy.data.texts.new(".A first one")
    assert takes.selected(bpy.context) == walk and props.index == bpy.data.texts.find(walk.name)
    props.index = bpy.data.texts.find(".A first one")
    assert takes.selected(bpy.context) == take_store.stored()[0]


def test_the_panel_draws_in_every_state() -> None:
    class Layout:
        """Stands in for Blender's layout, which only a window has: it notes what is asked of it."""

        def __init__(self) -> None:
            self.asked: list[str] = []

        def __getattr__(self, name: str) -> Any:
            def ask(*arguments: Any, **_: Any) -> "Layout":
                self.asked.append(f"{name} {arguments[0] if arguments else ''}")
                return self

            return ask

    layout = Layout()
    takes_panel.ANYRIG_PT_takes.draw(SimpleNamespace(layout=layout), bpy.context)
    assert layout.asked == ["operator anyrig.take_recover"]
    text = captured(human())
    takes_panel.ANYRIG_PT_takes.draw(SimpleNamespace(layout=layout), bpy.context)
    takes_panel.ANYRIG_UL_takes.draw_item(SimpleNamespace(), bpy.context, layout, None, text, 0, None, "")
    assert {"operator anyrig.take_apply", "operator anyrig.take_delete"} <= set(layout.asked)


def test_the_same_take_is_the_same_bytes_and_a_newer_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = take_store.read(captured(human()))
    again = Take.from_data(raw.data, "x")
    assert again.data == raw.data and again.key == raw.key
    monkeypatch.setattr(take_file, "FORMAT", 3)
    newer = replace(raw, name="newer").data
    monkeypatch.undo()
    with pytest.raises(UserError, match="Take 'z' is not a take written by AnyRig .format 3 is of a newer version"):
        Take.from_data(newer, "Take 'z'")

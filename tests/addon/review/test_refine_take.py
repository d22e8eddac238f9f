"""Refine Take on a filmed walk: what it writes, what it leaves alone, what it refuses. Pins."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture, take_store
from anyrig.addon.command_line import commands
from anyrig.addon.review import pose_pins, refine_operators, refine_take, takes, takes_panel
from anyrig.addon.tasks import background_runner
from anyrig.addon.tasks.task import Task
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion
from anyrig.backend.progress import Progress
from anyrig.backend.rig.skeleton import global_to_local
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon import filmed_walk
from anyrig.tests.addon.drawn import draw, texts
from mathutils import Matrix

pytestmark = pytest.mark.usefixtures("registered_apart")
Walk = tuple[bpy.types.Object, bpy.types.Text]


@pytest.fixture
def walk(tmp_path: Path) -> Walk:
    """A take that stands still on the film of a walk: 12 frames at half the scene's rate, keyed from frame 1 to 23."""
    obj, text, _ = filmed_walk.filmed(tmp_path)
    motion = take_store.read(text).motion
    still = np.repeat(motion.matrices[:1], len(motion), axis=0)
    take_store.replace_motion(text, replace(motion, rotations=matrix_to_quaternion(still)))
    return obj, text


@pytest.fixture
def quick_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the fit, which returns the take as it is; all else runs as for a user."""

    def fitted(request: refine_take.RefineRequest, *_: Any) -> Generator[Progress, None, Motion]:
        yield Progress("Refining", 0, 1)
        motion = request.take.motion
        return replace(motion, raw=motion, provenance={**motion.provenance, "refine": {"overlap": [0.5, 0.75]}})

    monkeypatch.setattr(refine_take, "_fitted", fitted)


def added(text: bpy.types.Text) -> bpy.types.Text:
    (other,) = [each for each in take_store.stored() if each != text]
    return other


def changed(before: Motion, after: Motion) -> np.ndarray:
    """(T, J) degrees between the local rotations, of joints that hang on one that changed as well."""
    return np.degrees(geodesic_angle(before.matrices, after.matrices))


def state() -> list[Any]:
    """What must be as before after a refusal or Cancel."""
    playing = [(obj.name, obj.animation_data and obj.animation_data.action) for obj in bpy.data.objects]
    texts = [(text.name, bytes(text[take_store.DATA]), str(take_store.about(text))) for text in take_store.stored()]
    return [texts, bpy.data.actions.keys(), playing, bpy.context.scene.frame_current]


def select(obj: bpy.types.Object, *names: str) -> None:
    for bone in obj.pose.bones:
        (bone if hasattr(bone, "select") else bone.bone).select = bone.name in names


# ---- what is written


def test_the_result_is_a_new_take_and_action_beside_the_old_ones(walk: Walk) -> None:
    obj, text = walk
    data, old = bytes(text[take_store.DATA]), obj.animation_data.action
    bpy.context.scene.frame_set(40)
    assert bpy.ops.anyrig.take_refine() == {"FINISHED"}
    other = added(text)
    about, take = take_store.about(other), take_store.read(other)
    before, after = about["overlap"]
    assert after > before > 0.3 and take.motion.raw is not None and take.settings.refine == "quick"
    assert bytes(text[take_store.DATA]) == data and take_store.action_of(text) == old
    assert obj.animation_data.action == take_store.action_of(other) != old
    assert obj.animation_data.action.frame_range[0] == 1, "its keys begin where those of the take do"
    assert takes.selected(bpy.context) == other and "of the silhouette" in background_runner.status()[0]
    assert takes_panel.covered(about) == f"{100 * before:.0f} > {100 * after:.0f} %"
    assert any(
        str(line).startswith(f"Overlap {100 * after:.0f} %, ") for line in texts(draw(takes_panel.ANYRIG_PT_takes), "label")
    )
    assert takes_panel.covered(take_store.about(text)) == ""


def test_the_command_refines_a_range_and_a_bone_alone(walk: Walk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = walk
    rig, before = take_store.read(text).rig, take_store.read(text).motion
    leg = next(name for name in rig.names if "shin" in name.lower() or "calf" in name.lower())
    out = tmp_path / "out.blend"
    options = ["--take", "walk", "--frames", "9", "17", "--bone", leg, "--out", str(out)]
    assert commands.main(["refine", *options]) == 0
    printed = capsys.readouterr().out
    assert "Finding the subject" in printed and "of the silhouette" in printed and out.is_file()
    after = take_store.read(added(text)).motion
    moved = changed(before, after)
    assert moved[4:9].max() > 0.1 and moved[[*range(4), *range(9, 12)]].max() < 0.01
    local = [global_to_local(rig.parents, motion.matrices) for motion in (before, after)]
    others = [joint for joint, name in enumerate(rig.names) if name != leg]
    assert np.degrees(geodesic_angle(*local))[:, others].max() < 0.01


@pytest.mark.usefixtures("quick_fit")
def test_in_the_background_it_can_be_cancelled_fail_and_succeed(walk: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = walk
    before, choice = state(), refine_take.RefineChoice()
    request = refine_take.gather(bpy.context, text, choice)
    cancelled = Task(refine_take.steps(request))
    cancelled.step()
    cancelled.stop()
    assert refine_operators.finish(request, cancelled).status == background_runner.CANCELLED and state() == before
    with monkeypatch.context() as patch:
        patch.setattr(run_capture, "write_motion", refuse)
        failed = Task(refine_take.steps(request)).drain()
        assert refine_operators.finish(request, failed).message == "It cannot be written." and state() == before
    outcome = refine_operators.finish(request, Task(refine_take.steps(request)).drain())
    assert outcome.status == background_runner.DONE and "covers 75 % of the silhouette, 50 % before" in outcome.message
    assert take_store.about(added(text))["overlap"] == [0.5, 0.75]


def refuse(*_: Any, **__: Any) -> None:
    raise UserError("It cannot be written.")


@pytest.mark.usefixtures("quick_fit")
def test_it_is_one_undo_step(walk: Walk) -> None:
    obj, text = walk
    bpy.ops.ed.undo_push(message="before")
    name, before, key = text.name, bpy.data.actions.keys(), bpy.context.scene.anyrig_takes.key
    rig, played = obj.name, obj.animation_data.action.name
    pose = np.array([bone.matrix_basis for bone in obj.pose.bones])
    bpy.ops.anyrig.take_refine()
    bpy.ops.ed.undo_push(message="Refine Take")
    bpy.ops.ed.undo()
    assert [each.name for each in take_store.stored()] == [name] and bpy.data.actions.keys() == before
    obj = bpy.data.objects[rig]
    assert obj.animation_data.action.name == played and bpy.context.scene.anyrig_takes.key == key
    assert np.allclose([bone.matrix_basis for bone in obj.pose.bones], pose, atol=1e-5)


# ---- what is refused


def refused(match: str) -> None:
    before = state()
    with pytest.raises(RuntimeError, match=match):
        bpy.ops.anyrig.take_refine()
    assert state() == before and background_runner.status()[1]


def test_what_is_not_there_is_a_sentence(walk: Walk) -> None:
    obj, text = walk
    props = bpy.context.scene.anyrig_refine
    props.part, props.first, props.last = "RANGE", 40, 50
    refused(r"Frames 40 to 50 hold nothing of take 'walk': choose a range within frames 1 to 23")
    props.part = "PINS"
    refused("Take 'walk' has no pins: pin a pose first")
    props.part, props.bones = "WHOLE", True
    select(obj)
    refused("No bone of take 'walk' is selected")
    props.bones = False
    motion = take_store.read(text).motion
    take_store.replace_motion(text, replace(motion, provenance={}))
    refused("does not record from which side it was filmed")


def test_a_missing_or_changed_video_is_a_sentence(walk: Walk, tmp_path: Path) -> None:
    path = tmp_path / "walk.mp4"
    images = np.full((11, 144, 192, 3), filmed_walk.GREEN, np.uint8)
    for index, image in enumerate(images):
        image[100:130, 20 + index : 40 + index] = (200, 30, 40)
    write_video(path, list(images), 12.0)
    refused("has changed since take 'walk' was captured .11 frames for 12.")
    write_video(path, [*images, images[-1]], 12.0)
    refused("is not where it was when take 'walk' was captured")
    path.unlink()
    refused("does not exist: choose the file again")


def test_poll_asks_for_a_take() -> None:
    for name in ("take_refine", "pin_pose", "unpin_pose"):
        assert not getattr(bpy.ops.anyrig, name).poll()
    assert not refine_operators.ANYRIG_PT_refine.poll(bpy.context)


# ---- pins


def test_a_pin_keeps_the_pose_in_the_take_and_unpinning_takes_it_back(walk: Walk) -> None:
    obj, text = walk
    key, rig, before = take_store.about(text)["key"], take_store.read(text).rig, take_store.read(text).motion
    bone = obj.pose.bones[rig.names[2]]
    bpy.context.scene.frame_set(9)
    bone.matrix_basis = bone.matrix_basis @ Matrix.Rotation(0.5, 4, "X")
    bpy.context.view_layer.update()
    select(obj, bone.name)
    posed = pose_pins.pose_of(obj, rig)
    assert bpy.ops.anyrig.pin_pose() == {"FINISHED"}
    motion, about = take_store.read(text).motion, take_store.about(text)
    assert motion.pins.tolist() == [[4, 2]] and about["key"] == key and take_store.action_of(text) is not None
    local = [global_to_local(rig.parents, each) for each in (motion.matrices[4], rig.rotations(posed), before.matrices[4])]
    assert np.degrees(geodesic_angle(local[0], local[1]))[2] < 0.01, "the pinned bone is as the animator posed it"
    assert np.degrees(geodesic_angle(local[0], local[2]))[[0, 1, *range(3, len(rig.names))]].max() < 0.01, "all others are not"
    assert changed(before, motion)[[*range(4), *range(5, 12)]].max() < 0.01
    assert ("label", f"Frame 9: {bone.name}") in draw(refine_operators.ANYRIG_PT_refine)
    assert bpy.ops.anyrig.unpin_pose(frame=4) == {"FINISHED"}
    motion = take_store.read(text).motion
    assert not len(motion.pins) and changed(before, motion).max() < 0.01 and not pose_pins.rows(text)


def test_refine_holds_a_pin_and_takes_its_neighbours_along(walk: Walk) -> None:
    obj, text = walk
    bone = obj.pose.bones[take_store.read(text).rig.names[2]]
    before = take_store.read(text).motion
    bpy.context.scene.frame_set(9)
    bone.matrix_basis = bone.matrix_basis @ Matrix.Rotation(0.5, 4, "X")
    bpy.context.view_layer.update()
    select(obj, bone.name)
    bpy.ops.anyrig.pin_pose()
    pinned = take_store.read(text)
    bpy.context.scene.anyrig_refine.part = "PINS"
    assert bpy.ops.anyrig.take_refine() == {"FINISHED"}
    take = take_store.read(added(text))
    assert take.motion.pins.tolist() == [[4, 2]] and pose_pins.rows(added(text)) == [(4, f"Frame 9: {bone.name}")]
    parents = take.rig.parents
    local = [global_to_local(parents, each.matrices)[:, 2] for each in (pinned.motion, take.motion, before)]
    assert np.degrees(geodesic_angle(local[0][4], local[1][4])) < 0.1
    assert np.degrees(geodesic_angle(local[2][5], local[1][5])) > 5, "the next frame goes along"


def test_pins_that_cannot_be_are_sentences(walk: Walk) -> None:
    obj, text = walk
    select(obj)
    bpy.context.scene.frame_set(9)
    before = state()
    with pytest.raises(RuntimeError, match="No bone of take 'walk' is selected"):
        bpy.ops.anyrig.pin_pose()
    select(obj, take_store.read(text).rig.names[2])
    with pytest.raises(RuntimeError, match="There is no such pin in take 'walk'"):
        bpy.ops.anyrig.unpin_pose()
    assert state() == before
    bpy.context.scene.frame_set(90)
    with pytest.raises(RuntimeError, match="Frame 90 is outside take 'walk': go to one of its frames, 1 to 23"):
        bpy.ops.anyrig.pin_pose()

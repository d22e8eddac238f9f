"""What the panel and the command line let choose, and that all of it reaches the capture and its keys."""

import math
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import run_capture
from anyrig.addon.command_line import commands
from anyrig.addon.keying.nla import push_down
from anyrig.addon.rig.armature import pose_of, rig_from_armature
from anyrig.addon.rig.keyed_bones import chosen_bones
from anyrig.addon.settings import capture_params, scene_properties, view_sides
from anyrig.backend import progress
from anyrig.backend.capture import pipeline as backend_capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import geodesic_angle
from anyrig.backend.motion.motion import Motion
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.fixtures import human, quadruped, random_motion

pytestmark = pytest.mark.usefixtures("small_views", "registered")


class Backend:
    """Stands in for the network and remembers what it was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Clip, Settings]] = []
        self.motions: list[Motion] = []

    def __call__(self, targets: Any, clip: Clip, settings: Settings) -> Generator[Any, None, list[Motion]]:
        self.calls.append((targets, clip, settings))
        yield progress.Progress("Reading the motion", 1, 1)
        motions = [random_motion(target.rig, 6, seed, fps=24.0) for seed, target in enumerate(targets)]
        self.motions = [replace(motion, provenance={"view": 0}) for motion in motions]
        return self.motions


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    stand_in = Backend()
    monkeypatch.setattr(backend_capture, "capture", stand_in)
    return stand_in


def panel(**values: Any) -> Any:
    scene_props = bpy.context.scene.anyrig
    scene_props["video"] = "/clips/walk.mp4"
    for key, value in values.items():
        setattr(scene_props, key, value)
    bpy.context.scene.render.fps = 24
    return scene_props


def select(obj: bpy.types.Object, *names: str) -> None:
    for bone in obj.pose.bones:
        target = bone if hasattr(bone, "select") else bone.bone
        target.select = bone.name in names


def keyed(action: bpy.types.Action) -> set[str]:
    """The bones that the action has channels of."""
    bag = action.layers[0].strips[0].channelbags[0] if hasattr(action, "layers") else action
    return {curve.data_path.split('"')[1] for curve in bag.fcurves}


# ---- the panel's values


def test_everything_of_the_video_reaches_the_clip() -> None:
    panel(speed=2.0, mirror=True, fps=12.5, use_box=True, box=(3, 4, 50, 60), matte="/clips/matte.mp4", trim_start=0.5)
    clip = capture_params.params_from_context(bpy.context).clip
    box, matte = (3.0, 4.0, 50.0, 60.0), "/clips/matte.mp4"
    assert clip == Clip("/clips/walk.mp4", start=0.5, speed=2.0, fps=12.5, box=box, matte=matte, mirror=True)
    panel(use_box=False, matte="", fps=0.0)
    clip = capture_params.params_from_context(bpy.context).clip
    assert (clip.box, clip.matte, clip.fps) == (None, None, None)


def test_everything_of_rig_and_output_reaches_the_params() -> None:
    panel(bones="COLLECTION", collection="Legs", output="STRIP", extend_range=True, view="SIDE", side="2")
    found = capture_params.params_from_context(bpy.context)
    assert (found.bones, found.collection, found.output, found.extend_range) == ("COLLECTION", "Legs", "STRIP", True)
    assert found.azimuth == pytest.approx(math.pi / 2)
    panel(side="6")
    assert capture_params.params_from_context(bpy.context).azimuth == pytest.approx(-math.pi / 2)


@pytest.mark.parametrize("changes", [{"bones": "SOME"}, {"output": "FILE"}])
def test_unknown_choices_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="choose one of"):
        capture_params.CaptureParams(Clip("v.mp4"), Settings(), **changes)


def test_frames_within_the_trim_range(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [np.full((32, 32, 3), 90, np.uint8)] * 30, 15.0)
    scene_props = bpy.context.scene.anyrig
    assert scene_properties.frames_to_read(scene_props) == 0
    scene_props.video = str(tmp_path / "v.mp4")
    assert scene_properties.frames_to_read(scene_props) == 30
    scene_props.trim_start, scene_props.trim_end = 0.4, 1.2
    assert scene_properties.frames_to_read(scene_props) == 12
    scene_props.trim_end = 9.0
    assert scene_properties.frames_to_read(scene_props) == 24


def test_rate_of_a_sequence_of_images(tmp_path: Path) -> None:
    import cv2

    for index in range(4):
        cv2.imwrite(str(tmp_path / f"a{index}.png"), np.zeros((32, 32, 3), np.uint8))
    scene_props = bpy.context.scene.anyrig
    scene_props.video = str(tmp_path / "a0.png")
    assert scene_props.video_is_sequence and scene_props.video_text == "0.17 s, 4 frames at 24 fps, 32 x 32"
    scene_props.fps = 8.0
    assert scene_props.video_text == "0.50 s, 4 frames at 8 fps, 32 x 32"


# ---- bones


def test_selected_bones_alone_are_keyed(backend: Backend) -> None:
    obj = human()
    names = ["thigh.L", "shin.L", "thigh.R"]
    assert set(names) <= set(obj.data.bones.keys())
    select(obj, *names)
    panel(bones="SELECTED")
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    assert set(backend.calls[0][0][0].rig.names) == set(names) == keyed(obj.animation_data.action)


def test_bones_of_a_collection_and_its_children_are_keyed(backend: Backend) -> None:
    obj = human()
    legs = obj.data.collections.new("Legs")
    left = obj.data.collections.new("Left", parent=legs)
    legs.assign(obj.data.bones["thigh.R"])
    left.assign(obj.data.bones["thigh.L"])
    panel(bones="COLLECTION", collection="Legs")
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    assert keyed(obj.animation_data.action) == {"thigh.L", "thigh.R"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (("SELECTED", ""), "No bone of armature 'Human' is selected"),
        (("COLLECTION", "Wings"), "'Human' has no bone collection 'Wings': choose one of its own \\('Empty'\\)"),
        (("COLLECTION", "Empty"), "Bone collection 'Empty' of armature 'Human' is empty"),
    ],
)
def test_choices_without_bones_are_sentences_with_a_fix(choice: tuple[str, str], message: str) -> None:
    obj = human()
    obj.data.collections.new("Empty")
    select(obj)
    with pytest.raises(UserError, match=message) as caught:
        chosen_bones(obj, *choice)
    assert caught.value.fix == "deform_bones"


def test_deform_is_all(backend: Backend) -> None:
    assert chosen_bones(human()) is None


# ---- output


def test_strip_on_top_and_the_earlier_action_below(backend: Backend) -> None:
    obj = human()
    obj.pose.bones["head"].rotation_mode = "XYZ"
    for frame, angle in ((1, 0.0), (40, 1.0)):
        obj.pose.bones["head"].rotation_euler.x = angle
        obj.pose.bones["head"].keyframe_insert("rotation_euler", frame=frame)
    earlier = obj.animation_data.action
    scene = bpy.context.scene
    scene.frame_set(10)
    panel(output="STRIP")
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    data = obj.animation_data
    assert data.action is None and [track.name for track in data.nla_tracks] == [earlier.name, "walk"]
    below, strip = (track.strips[0] for track in data.nla_tracks)
    assert below.action == earlier and (strip.frame_start, strip.frame_end) == (10.0, 15.0)
    rig, motion = backend.calls[0][0][0].rig, backend.motions[0]
    for index in (0, 3, 5):
        scene.frame_set(10 + index)
        assert geodesic_angle(rig.rotations(pose_of(obj, rig)), motion.matrices[index]).max() < 1e-4
    scene.frame_set(40)  # outside the take the earlier action plays
    assert obj.pose.bones["head"].rotation_euler.x == pytest.approx(1.0, abs=1e-5)


def test_strip_of_an_action_that_begins_between_two_frames_plays_as_before() -> None:
    obj = human()
    head = obj.pose.bones["head"]
    head.rotation_mode = "XYZ"
    for frame, angle in ((1.75, 0.0), (40.25, 1.0)):
        head.rotation_euler.x = angle
        head.keyframe_insert("rotation_euler", frame=frame)
    scene = bpy.context.scene

    def played() -> list[float]:
        angles = []
        for frame in (2, 20, 40):
            scene.frame_set(frame)
            angles.append(head.rotation_euler.x)
        return angles

    before = played()
    push_down(obj, None, None)
    (strip,) = obj.animation_data.nla_tracks[0].strips
    assert (strip.frame_start, strip.frame_end, strip.scale) == pytest.approx((1.75, 40.25, 1.0), abs=1e-5)
    assert played() == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize("path", ["C:\\clips\\walk.mp4", "/clips/walk.mp4", "walk.mp4"])
def test_actions_are_called_after_the_file_alone(path: str) -> None:
    assert run_capture.request_of(bpy.context.scene, capture_params.CaptureParams(Clip(path), Settings()), []).name == "walk"


def test_strip_alone_goes_above_existing_tracks(backend: Backend) -> None:
    obj = human()
    obj.animation_data_create().nla_tracks.new().name = "Mine"
    panel(output="STRIP")
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    assert [track.name for track in obj.animation_data.nla_tracks] == ["Mine", "walk"]


def test_failing_strips_leave_everything(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [human(), quadruped()]
    objects[0].pose.bones[0].keyframe_insert("location", frame=3)
    earlier = objects[0].animation_data.action
    push_down = run_capture.push_down

    def refuse_the_last(obj: bpy.types.Object, *arguments: Any) -> None:
        if obj == objects[-1]:
            raise UserError("no")
        push_down(obj, *arguments)

    monkeypatch.setattr(run_capture, "push_down", refuse_the_last)
    bpy.context.scene.frame_end = 3
    wanted = capture_params.CaptureParams(Clip("/clips/v.mp4"), Settings(), output="STRIP", extend_range=True)
    with pytest.raises(UserError, match="no"):
        run_capture.run_capture(bpy.context, objects, wanted)
    data = objects[0].animation_data
    assert data.action == earlier and not data.nla_tracks and objects[1].animation_data is None
    assert list(bpy.data.actions) == [earlier] and bpy.context.scene.frame_end == 3


@pytest.mark.parametrize(("extend", "expected"), [(True, (3, 25)), (False, (10, 12))])
def test_scene_range_grows_only_where_it_is_wanted(backend: Backend, extend: bool, expected: tuple[int, int]) -> None:
    human()
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 10, 12
    panel(extend_range=extend, start="FRAME", start_frame=20)
    bpy.ops.anyrig.capture()
    panel(start_frame=3)
    bpy.ops.anyrig.capture()
    assert (scene.frame_start, scene.frame_end) == expected


# ---- sides


def test_sides_are_drawn_and_chosen() -> None:
    human()
    assert not view_sides.are_shown() and len(view_sides.items(None, None)) == 8
    scene_props = panel(side="3")
    assert bpy.ops.anyrig.show_sides() == {"FINISHED"}
    assert scene_props.view == "SIDE" and scene_props.side == "3"
    assert view_sides.are_shown()
    collection = view_sides._previews[view_sides.SIDES]  # icons have no numbers without a window
    images = [np.array(collection[str(number)].icon_pixels_float[:]).reshape(128, 128, 4) for number in range(8)]
    assert all(0.02 < (image[..., 3] > 0.5).mean() < 0.9 for image in images)
    assert np.abs(images[0] - images[2]).mean() > 0.01, "the front is not the side"


def test_sides_have_blenders_names() -> None:
    assert (
        view_sides.azimuth_of("0") == 0
        and view_sides.NAMES[2] == "Right"
        and view_sides.azimuth_of("2") == pytest.approx(math.pi / 2)
    )
    assert view_sides.NAMES[4] == "Back" and view_sides.azimuth_of("4") == pytest.approx(math.pi)


def test_sides_of_a_rig_in_edit_mode_are_a_sentence() -> None:
    obj = human()
    bpy.context.view_layer.objects.active = obj
    bpy.ops.object.mode_set(mode="EDIT")
    with pytest.raises(RuntimeError, match="is in edit mode"):
        bpy.ops.anyrig.show_sides()
    assert bpy.ops.anyrig.fix(fix="object_mode") == {"FINISHED"} and obj.mode == "OBJECT"


# ---- the same on the command line


def test_options_are_what_the_panel_offers(backend: Backend) -> None:
    obj = human()
    options = ["--speed", "2", "--fps", "12.5", "--mirror", "--box", "1", "2", "30", "40", "--matte", "m.mp4", "--azimuth", "90"]
    options += ["--bones", "collection:Legs", "--nla", "--extend-range", "--start-frame", "300"]
    obj.data.collections.new("Legs").assign(obj.data.bones["thigh.L"])
    bpy.context.scene.render.fps = 24
    assert commands.main(["capture", "--video", "v.mp4", *options]) == 0
    (targets, clip, _) = backend.calls[0]
    assert clip == Clip("v.mp4", speed=2.0, fps=12.5, mirror=True, box=(1.0, 2.0, 30.0, 40.0), matte="m.mp4")
    assert targets[0].rig.names == ("thigh.L",) and [each.azimuth for each in targets[0].references] == [
        pytest.approx(math.pi / 2)
    ]
    assert [track.name for track in obj.animation_data.nla_tracks] == ["v"] and bpy.context.scene.frame_end == 305


@pytest.mark.parametrize("bones", ["some", "collection", "collection:", "selected:x"])
def test_unknown_bones_are_a_sentence(bones: str, capsys: pytest.CaptureFixture[str]) -> None:
    human()
    assert commands.main(["capture", "--video", "v.mp4", "--bones", bones]) == 1
    assert f"Unknown choice of bones '{bones}'" in capsys.readouterr().err


def test_rig_of_the_chosen_bones_is_the_one_of_the_take() -> None:
    obj = human()
    select(obj, "thigh.L")
    assert rig_from_armature(obj, chosen_bones(obj, "SELECTED")).names == ("thigh.L",)

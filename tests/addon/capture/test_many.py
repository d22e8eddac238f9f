"""Capture onto all selected armatures in one run: which they are, that the video is read once, and one undo step for all."""

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.capture import operators
from anyrig.addon.settings import chosen_armatures
from anyrig.addon.tasks import background_runner
from anyrig.backend.encoders.efficientnet import Encoder
from anyrig.backend.video.reader import write_video
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.fixtures import human, no_mesh, quadruped, snake

FRAMES = 5
pytestmark = pytest.mark.usefixtures("small_views", "registered")


@pytest.fixture
def panel(tmp_path: Path) -> Any:
    """The panel, filled in with a box that moves over an even backdrop, and a random network."""
    frames = np.full((FRAMES, 96, 128, 3), 200, np.uint8)
    for index, frame in enumerate(frames):
        frame[30:80, 20 + 4 * index : 50 + 4 * index] = (40, 90, 160)
    write_video(tmp_path / "box.mp4", list(frames), 12.0)
    panel = bpy.context.scene.anyrig
    panel.video, panel.model, panel.model_file, panel.device = str(tmp_path / "box.mp4"), "FILE", "tiny", "cpu"
    panel["model_file"] = "tiny"
    bpy.context.scene.render.fps = 12
    return panel


def select(*objects: bpy.types.Object, active: bpy.types.Object | None) -> None:
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)
    bpy.context.view_layer.objects.active = active


def skin_of(armature: bpy.types.Object) -> bpy.types.Object:
    return next(obj for obj in bpy.data.objects if obj.type == "MESH" and obj.find_armature() == armature)


def chosen() -> list[str]:
    return [obj.name for obj in chosen_armatures.armatures_from_context(bpy.context)]


def test_the_selected_armatures_are_meant_the_active_first() -> None:
    first, second, third = human(), quadruped(), snake()
    select(first, third, active=third)
    assert chosen() == ["Snake", "Human"]
    select(first, second, active=third)
    assert chosen() == ["Human", "Quadruped"], "the active one is not selected"
    select(active=second)
    assert chosen() == ["Quadruped"], "nothing is selected"
    select(active=None)
    assert chosen() == []


def test_a_selected_mesh_stands_for_its_armature() -> None:
    first, second = human(), quadruped()
    select(skin_of(first), first, skin_of(second), active=skin_of(second))
    assert chosen() == ["Quadruped", "Human"]


def test_a_picked_armature_is_meant_alone() -> None:
    first, second = human(), quadruped()
    select(first, second, active=first)
    bpy.context.scene.anyrig.armature = second
    assert chosen() == ["Quadruped"]


def test_a_selected_camera_changes_nothing() -> None:
    obj = human()
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    bpy.context.collection.objects.link(camera)
    select(camera, active=obj)
    assert chosen() == ["Human"]


def test_all_are_keyed_and_the_network_reads_the_video_once(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, crops: seen.append(len(crops)) or encode(self, crops))
    rigs = [human(), quadruped(), no_mesh()]
    select(rigs[0], active=rigs[0])
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    alone, seen[:] = list(seen), []
    select(*rigs, active=rigs[1])
    assert bpy.ops.anyrig.capture() == {"FINISHED"}
    views = 16
    assert sum(alone) == FRAMES + FRAMES + views and sum(seen) == FRAMES + FRAMES + views * len(rigs)
    assert [obj.animation_data.action.name for obj in rigs] == ["box.002", "box.001", "box.003"]
    assert all(tuple(obj.animation_data.action.frame_range) == (1.0, 5.0) for obj in rigs)
    assert background_runner.status() == (
        f"'box': 5 frames of video keyed onto Quadruped, Human, {rigs[2].name} from frame 1 on.",
        False,
    )


def test_all_are_one_undo_step(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_runner, "has_window", lambda _: True)
    names = [obj.name for obj in (human(), quadruped())]
    select(*(bpy.data.objects[name] for name in names), active=bpy.data.objects[names[0]])
    bpy.ops.ed.undo_push(message="before")
    # a Blender without windows has no button that could be pressed
    assert Press(operators.ANYRIG_OT_capture).invoke(bpy.context, None) == {"CANCELLED"}
    background_runner.current().join()
    assert background_runner.poll_current() is None
    assert all(bpy.data.objects[name].animation_data for name in names)
    bpy.ops.ed.undo()
    assert not any(bpy.data.objects[name].animation_data for name in names) and not bpy.data.actions


def test_none_is_keyed_when_one_cannot_be(panel: Any) -> None:
    rigs = [human(), quadruped()]
    bpy.context.view_layer.objects.active = rigs[1]
    bpy.ops.object.mode_set(mode="EDIT")
    select(*rigs, active=rigs[1])
    with pytest.raises(RuntimeError, match="'Quadruped' is in edit mode"):
        bpy.ops.anyrig.capture()
    assert not bpy.data.actions and rigs[0].animation_data is None

"""The overlay: the rig lies on its footage, the footage runs in step, and the second click leaves no trace."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import cv2
import numpy as np
import pytest
from anyrig.addon.capture import take_store
from anyrig.addon.review import footage_camera, overlay
from anyrig.addon.tasks import background_runner
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.motion.take_file import Take
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.filmed_walk import FRAMES, HEIGHT, WIDTH, filmed, overlap, shoot
from mathutils import Matrix

SIDE, PITCH = math.radians(50), 0.15
KNOWN = {"elevation": PITCH, "distance": 5.3}  # of the true camera, which a user may know


pytestmark = pytest.mark.usefixtures("registered_apart")


def overlaps(masks: list[np.ndarray], folder: Path, step: int = 1) -> list[float]:
    found = []
    for index in range(0, FRAMES, step):
        bpy.context.scene.frame_set(1 + 2 * index)
        found.append(overlap(shoot(folder)[..., 3] > 127, masks[index]))
    return found


def everything() -> dict[str, Any]:
    """The whole state that the overlay may touch."""
    scene, names = (
        bpy.context.scene,
        ("objects", "cameras", "images", "actions", "movieclips", "scenes", "meshes", "texts", "materials"),
    )
    space: Any = next(area.spaces.active for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")
    region = space.region_3d
    return {
        "data": {name: [(item.name, item.users, item.use_fake_user) for item in getattr(bpy.data, name)] for name in names},
        "camera": scene.camera and scene.camera.name,
        "render": [getattr(scene.render, name) for name in overlay.RENDER],
        "frame": scene.frame_current,
        "hidden": {obj.name: (obj.hide_get(), obj.hide_viewport, obj.hide_render) for obj in bpy.data.objects},
        "actions": {obj.name: obj.animation_data and obj.animation_data.action for obj in bpy.data.objects},
        "view": [
            region.view_perspective,
            region.view_camera_zoom,
            *region.view_camera_offset,
            *region.view_location,
            *region.view_rotation,
        ],
        "space": [space.lock_camera, space.use_local_camera, region.view_distance],
        "state": scene.anyrig_overlay.on,
    }


def furnish() -> None:
    """A camera, a floor that hides footage, a box that is hidden already, and settings that differ from the defaults."""
    scene = bpy.context.scene
    for name in ("floor", "box"):
        bpy.ops.mesh.primitive_plane_add(size=9.0)
        bpy.context.object.name = name
    bpy.data.objects["box"].hide_set(True)
    camera = bpy.data.objects.new("mine", bpy.data.cameras.new("mine"))
    scene.collection.objects.link(camera)
    scene.camera, scene.render.resolution_x, scene.render.resolution_percentage, scene.render.pixel_aspect_y = (
        camera,
        777,
        55,
        1.5,
    )


def store_again(text: bpy.types.Text, raw: Take) -> None:
    del text[take_store.DATA]  # Blender cuts bytes that overwrite bytes at their first zero
    text[take_store.DATA] = raw.data


def test_the_rig_lies_on_its_footage(tmp_path: Path) -> None:
    _, _, masks = filmed(tmp_path, SIDE, PITCH)
    assert bpy.ops.anyrig.overlay(**KNOWN) == {"FINISHED"}
    known = overlaps(masks, tmp_path)
    assert np.mean(known) > 0.85 and min(known) > 0.78, known
    bpy.ops.anyrig.overlay()
    bpy.ops.anyrig.overlay()
    assert np.mean(overlaps(masks, tmp_path, 3)) > 0.7  # nobody knows the camera's height and distance


def test_a_refined_take_lies_where_the_fit_has_it_and_asks_for_no_angle(tmp_path: Path) -> None:
    obj, text, masks = filmed(tmp_path, SIDE, PITCH)
    take, path = take_store.read(text), []
    for index in range(FRAMES):  # as filmed_walk has moved the camera
        near, aside = 7.2 - 2.4 * index / FRAMES, 0.35 - 0.7 * index / FRAMES
        camera = Camera((aside, 0.3 * aside, 0.8), near, SIDE, PITCH, 0.5, WIDTH, HEIGHT)
        bpy.context.scene.frame_set(1 + 2 * index)
        points = np.array([obj.matrix_world @ end for bone in obj.pose.bones for end in (bone.head, bone.tail)])
        seen, flat = project(camera.projection, points), (points @ camera.rotation.T)[:, :2] * (1, -1)
        middle = flat - flat.mean(0)  # the scale and the place that explain best, without perspective, what the camera sees
        scale = (middle * seen).sum() / (middle**2).sum()
        root = [bone.name for bone in obj.pose.bones].index(take.rig.names[0])
        path.append([*(seen.mean(0) + scale * middle[2 * root]), scale])
    about = {**take.motion.provenance, "refine": {"azimuth": SIDE, "pitch": PITCH}}
    take_store.replace_motion(text, replace(take.motion, path=np.array(path), provenance=about))
    bpy.ops.anyrig.overlay(elevation=-0.5)
    found = overlaps(masks, tmp_path, 2)
    assert np.mean(found) > 0.78, found  # the film has perspective, the fit has none
    bpy.ops.anyrig.overlay()
    bpy.ops.anyrig.overlay(elevation=-0.5, as_refined=False)
    assert np.mean(overlaps(masks, tmp_path, 3)) < np.mean(found) - 0.1


def test_an_armature_turned_and_scaled_since_is_still_seen_from_the_side_it_was_filmed_from(tmp_path: Path) -> None:
    obj, _, masks = filmed(tmp_path, SIDE, PITCH)
    obj.matrix_world = (
        Matrix.Translation((3, -2, 1)) @ Matrix.Rotation(2.0, 4, "Z") @ Matrix.Rotation(0.7, 4, "X") @ Matrix.Scale(2.5, 4)
    )
    bpy.context.view_layer.update()
    bpy.ops.anyrig.overlay(**KNOWN)
    assert np.mean(overlaps(masks, tmp_path, 3)) > 0.85


def test_the_view_is_turned_back_as_well(tmp_path: Path) -> None:
    filmed(tmp_path, SIDE, PITCH)
    before = everything()
    bpy.ops.anyrig.overlay(**KNOWN)
    space: Any = next(area.spaces.active for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")
    # what drawing through a camera does in a window
    space.region_3d.view_rotation = bpy.context.scene.camera.matrix_world.to_quaternion()
    bpy.ops.anyrig.overlay()
    assert everything()["view"] == pytest.approx(before["view"]) and everything()["space"] == pytest.approx(before["space"])


def test_the_second_click_leaves_no_trace(tmp_path: Path) -> None:
    filmed(tmp_path)
    furnish()
    before = everything()
    bpy.ops.anyrig.overlay()
    during = everything()
    scene = bpy.context.scene
    assert scene.camera.name == overlay.NAME and (scene.render.resolution_x, scene.render.resolution_y) == (WIDTH, HEIGHT)
    assert during["view"][0] == "CAMERA" and during["hidden"]["floor"][0] and not during["hidden"]["Walker"][0]
    bpy.ops.anyrig.overlay()
    assert everything() == before


def test_others_stay_visible_if_wanted_and_what_was_deleted_meanwhile_is_left_out(tmp_path: Path) -> None:
    filmed(tmp_path)
    furnish()
    bpy.ops.anyrig.overlay(hide_others=False)
    assert not bpy.data.objects["floor"].hide_get()
    bpy.ops.anyrig.overlay()
    bpy.ops.anyrig.overlay()
    bpy.data.objects.remove(bpy.data.objects["floor"])
    bpy.data.objects.remove(bpy.data.objects["mine"])
    bpy.data.objects.remove(bpy.context.scene.camera)
    bpy.ops.anyrig.overlay()
    assert bpy.context.scene.camera is None and bpy.context.scene.render.resolution_x == 777
    assert not bpy.context.scene.anyrig_overlay.on


def test_it_can_be_removed_after_saving_and_loading(tmp_path: Path) -> None:
    filmed(tmp_path)
    furnish()
    bpy.data.cameras["mine"].use_fake_user = True
    before = everything()
    bpy.ops.anyrig.overlay()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "overlay.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "overlay.blend"))
    assert bpy.context.scene.anyrig_overlay.on
    bpy.ops.anyrig.overlay()
    after = everything()
    for part in ("data", "camera", "render", "hidden", "state"):
        assert after[part] == before[part], part


def test_it_is_one_undo_step(tmp_path: Path) -> None:
    filmed(tmp_path)
    before = everything()["data"]
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.overlay()
    bpy.ops.ed.undo_push(message="Overlay")
    bpy.ops.ed.undo()
    assert everything()["data"] == before and not bpy.context.scene.anyrig_overlay.on


def test_undo_and_redo_turn_the_view_too(tmp_path: Path) -> None:
    filmed(tmp_path)
    before = everything()
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.anyrig.overlay()
    bpy.ops.ed.undo_push(message="Overlay")
    space: Any = next(area.spaces.active for area in bpy.context.window_manager.windows[0].screen.areas if area.type == "VIEW_3D")
    space.region_3d.view_rotation = bpy.context.scene.camera.matrix_world.to_quaternion()  # as drawing does in a window
    bpy.ops.ed.undo()
    assert everything()["view"] == pytest.approx(before["view"]) and everything()["space"] == pytest.approx(before["space"])
    bpy.ops.ed.redo()
    assert bpy.context.scene.anyrig_overlay.on and everything()["view"][0] == "CAMERA"
    bpy.ops.anyrig.overlay()
    bpy.ops.ed.undo_push(message="Overlay")
    assert everything()["view"] == pytest.approx(before["view"])
    bpy.ops.ed.undo()
    assert bpy.context.scene.anyrig_overlay.on and everything()["view"][0] == "CAMERA"


def test_a_pose_without_an_action_is_put_back(tmp_path: Path) -> None:
    obj, text, _ = filmed(tmp_path)
    obj.animation_data.action = None
    for bone in obj.pose.bones:
        bone.rotation_mode = "QUATERNION"
        bone.rotation_quaternion, bone.location = (0.8, 0.6, 0, 0), (0.1, 0, 0)
    bpy.ops.anyrig.overlay()
    bpy.context.scene.frame_set(7)
    assert obj.animation_data.action == take_store.action_of(text)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "overlay.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "overlay.blend"))
    bpy.ops.anyrig.overlay()
    obj = bpy.data.objects["Walker"]
    assert obj.animation_data.action is None and overlay.POSE not in bpy.context.scene.anyrig_overlay
    assert all(np.allclose(bone.rotation_quaternion, (0.8, 0.6, 0, 0)) for bone in obj.pose.bones)
    assert all(np.allclose(bone.location, (0.1, 0, 0)) for bone in obj.pose.bones)


def test_an_armature_that_cannot_be_switched_back_is_said_and_nothing_changes(tmp_path: Path) -> None:
    obj, _, _ = filmed(tmp_path)
    bpy.ops.anyrig.take_compare()
    earlier = obj.animation_data.action
    strip = obj.animation_data.nla_tracks.new().strips.new("strip", 1, earlier)
    bpy.ops.anyrig.overlay()
    strip.select, obj.animation_data.nla_tracks[0].select = True, True
    obj.animation_data.nla_tracks.active = obj.animation_data.nla_tracks[0]
    obj.animation_data.use_tweak_mode = True
    during = everything()
    with pytest.raises(RuntimeError, match="is in the NLA's tweak mode: leave it"):
        bpy.ops.anyrig.overlay()
    assert everything() == during and bpy.context.scene.anyrig_overlay.on
    obj.animation_data.use_tweak_mode = False
    assert bpy.ops.anyrig.overlay() == {"FINISHED"} and obj.animation_data.action == earlier


def test_an_armature_that_plays_something_else_is_switched_and_switched_back(tmp_path: Path) -> None:
    obj, text, masks = filmed(tmp_path, SIDE, PITCH)
    bpy.ops.anyrig.take_compare()
    earlier = obj.animation_data.action
    assert earlier != take_store.action_of(text)
    before = everything()
    bpy.ops.anyrig.overlay(**KNOWN)
    assert obj.animation_data.action == take_store.action_of(text)
    assert np.mean(overlaps(masks, tmp_path, 4)) > 0.85
    bpy.context.scene.frame_set(before["frame"])
    bpy.ops.anyrig.overlay()
    assert everything() == before


# ---- the footage


def shown(frame: int) -> int:
    """The number of the film's frame that Blender shows at a scene frame, from the image's user (BKE_image_user_frame_get)."""
    bpy.context.scene.frame_set(frame)
    camera = bpy.context.scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    user = camera.data.background_images[0].image_user
    return min(max(frame - user.frame_start + 1, 1), user.frame_duration) + user.frame_offset


def test_the_footage_runs_in_step_whatever_the_rates(tmp_path: Path) -> None:
    """12 frames per second in a scene of 24: each frame of the film is shown twice, and held at the ends."""
    filmed(tmp_path)
    bpy.ops.anyrig.overlay()
    back = bpy.context.scene.camera.data.background_images[0]
    assert back.image.source == "MOVIE" and tuple(back.image.size) == (WIDTH, HEIGHT) and back.image_user.use_auto_refresh
    assert [shown(1 + 2 * index) for index in range(FRAMES)] == list(range(1, FRAMES + 1))
    assert shown(-5) == 1 and shown(99) == FRAMES


def test_trimmed_and_slowed_footage_begins_where_the_take_does(tmp_path: Path) -> None:
    _, text, _ = filmed(tmp_path)
    raw = take_store.read(text)
    clip = Clip(raw.clip.path, start=3.0 / 12 - 0.01, speed=2.0)
    assert footage_camera.video_size(clip) == ((WIDTH, HEIGHT), 3)
    numbers = overlay.video_frame_numbers(raw, raw.motion.times[:4] + 0.02, 3, [])
    assert numbers.tolist() == [4, 5, 6, 7]


def test_a_sequence_of_images_is_shown_by_its_own_numbers(tmp_path: Path) -> None:
    _, text, _ = filmed(tmp_path)
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(folder / f"walk_{100 + index:04d}.png"), np.full((HEIGHT, WIDTH, 3), 9 * index, np.uint8))
    raw = replace(take_store.read(text), clip=Clip(str(folder), fps=12.0))
    store_again(text, raw)
    bpy.ops.anyrig.overlay()
    assert bpy.context.scene.camera.data.background_images[0].image.source == "SEQUENCE"
    assert [shown(1 + 2 * index) for index in range(FRAMES)] == list(range(100, 100 + FRAMES))


def test_a_video_that_was_moved_is_found_beside_the_file_or_in_the_panel(tmp_path: Path) -> None:
    _, text, _ = filmed(tmp_path)
    raw = take_store.read(text)
    (tmp_path / "other").mkdir()
    moved = (tmp_path / "walk.mp4").rename(tmp_path / "other" / "walk.mp4")
    assert footage_camera.relocate_video(raw).clip.path == raw.clip.path
    assert footage_camera.relocate_video(raw, str(moved)).clip.path == str(moved)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other" / "walk.blend"))
    windows = replace(raw, clip=replace(raw.clip, path="C:\\clips\\walk.mp4"))
    assert footage_camera.relocate_video(raw).clip.path == footage_camera.relocate_video(windows).clip.path == str(moved)
    assert bpy.ops.anyrig.overlay() == {"FINISHED"}


# ---- what cannot be overlaid


def test_what_is_missing_is_said_and_nothing_changes(tmp_path: Path) -> None:
    _, text, _ = filmed(tmp_path)
    raw = take_store.read(text)
    before = everything()
    video = Path(raw.clip.path)
    video.rename(tmp_path / "away.mp4")
    with pytest.raises(RuntimeError, match="walk.mp4"):
        bpy.ops.anyrig.overlay()
    assert everything() == before and background_runner.status()[1]
    (tmp_path / "away.mp4").rename(video)
    store_again(text, replace(raw, motion=replace(raw.motion, provenance={})))
    with pytest.raises(RuntimeError, match="does not record from which side it was filmed: capture it again"):
        bpy.ops.anyrig.overlay()
    assert everything() == before


def test_poll_asks_for_a_take() -> None:
    assert not bpy.ops.anyrig.overlay.poll() and not bpy.ops.anyrig.movie.poll() and not bpy.ops.anyrig.skeleton.poll()

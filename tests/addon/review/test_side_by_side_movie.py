"""The side-by-side movie, by operator and by command, and the skeleton lines."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyrig.addon as addon
import bpy
import cv2
import numpy as np
import pytest
from anyrig.addon.capture import take_store
from anyrig.addon.command_line import commands
from anyrig.addon.review import footage_camera, review_panel, side_by_side_movie, skeleton_lines
from anyrig.addon.tasks import background_runner, modal_runner
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import probe, read_frames
from anyrig.tests.addon.chance import Press
from anyrig.tests.addon.filmed_walk import FRAMES, HEIGHT, WIDTH, filmed, overlap
from anyrig.tests.addon.review.test_overlay import everything, furnish, store_again

pytestmark = pytest.mark.usefixtures("registered_apart")


def panels_of(path: Path, count: int) -> list[list[np.ndarray]]:
    """The movie's frames, each cut into its images."""
    return [np.split(frame.image, count, axis=1) for frame in read_frames(Clip(str(path)))]


def rig_mask(image: np.ndarray) -> np.ndarray:
    mask = np.abs(image.astype(int) - np.array(side_by_side_movie.PAPER)).max(-1) > 40
    mask[:20, :80] = False  # the label
    return mask


# ---- the movie


def test_the_operator_writes_input_and_rig_side_by_side_and_touches_nothing(tmp_path: Path) -> None:
    _, _, masks = filmed(tmp_path)
    furnish()
    bpy.context.scene.frame_set(4)
    before = everything()
    assert bpy.ops.anyrig.movie(filepath=str(tmp_path / "out.mp4"), over=True) == {"FINISHED"}
    assert everything() == before
    info = probe(Clip(str(tmp_path / "out.mp4")))
    assert (info.width, info.height, info.frames) == (3 * WIDTH, HEIGHT, FRAMES) and info.fps == pytest.approx(12.0)
    film = [frame.image for frame in read_frames(Clip(str(tmp_path / "walk.mp4")))]
    for index, (seen, rig, both) in enumerate(panels_of(tmp_path / "out.mp4", 3)):
        assert np.abs(seen[30:].astype(int) - film[index][30:]).mean() < 6
        assert overlap(rig_mask(rig), masks[index]) > 0.6, index  # where the subject is, though nobody knows the camera
        background = ~masks[index] & ~rig_mask(rig)
        assert np.abs(both[background].astype(int) - film[index][background]).mean() < 6
    assert "12 frames written" in background_runner.status()[0] and not background_runner.status()[1]


def test_the_outline_runs_along_the_edge_of_what_is_drawn() -> None:
    film, alpha = np.full((240, 320, 3), 120, np.uint8), np.zeros((240, 320), np.uint8)
    cv2.circle(alpha, (150, 110), 60, 255, -1)
    cv2.circle(alpha, (150, 110), 20, 0, -1)  # between the legs
    seen = side_by_side_movie.draw_outline(film, alpha).astype(int)
    rows, columns = np.indices(alpha.shape)
    radius = np.hypot(columns - 150, rows - 110)
    away = np.minimum(np.abs(radius - 60), np.abs(radius - 20))
    sector = np.floor(np.arctan2(rows - 110, columns - 150) / np.pi * 8).astype(int)
    orange = np.abs(seen - side_by_side_movie.OUTLINE).max(-1) < 40
    assert away[orange].max() < 2.5
    for ring in (radius < 40, radius > 40):
        assert set(sector[orange & ring]) >= set(range(-8, 8)), "all around"
    assert (seen[away > 5] == 120).all() and (film == 120).all()


def test_the_movie_has_the_outline_on_the_film_if_asked(tmp_path: Path) -> None:
    _, _, masks = filmed(tmp_path)
    assert run(["movie", "--out", str(tmp_path / "out.mp4"), "--outline"]) == 0
    film = [frame.image for frame in read_frames(Clip(str(tmp_path / "walk.mp4")))]
    for (seen, _), bare, mask in zip(panels_of(tmp_path / "out.mp4", 2), film, masks, strict=True):
        line = np.abs(seen.astype(int) - bare).max(-1) > 60
        line[:20, :80] = False
        near = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
        assert line.sum() > 200 and (line & near).sum() > 0.95 * line.sum()


def test_a_refined_take_is_seen_where_the_fit_has_it(tmp_path: Path) -> None:
    obj, text, _ = filmed(tmp_path)
    obj.scale = (2.0, 2.0, 2.0)
    bpy.context.view_layer.update()
    motion = take_store.read(text).motion
    path = np.stack([np.linspace(40, 150, FRAMES), np.linspace(60, 90, FRAMES), np.linspace(20, 30, FRAMES)], axis=-1)
    refine = {"azimuth": motion.provenance["azimuth"] + 0.3, "pitch": 0.2}
    take_store.replace_motion(text, replace(motion, path=path, provenance={**motion.provenance, "refine": refine}))
    take = take_store.read(text)
    view = footage_camera.camera_of_fit(obj, take, (WIDTH, HEIGHT), 24.0)
    camera = Camera((0.0, 0.0, 0.0), 1.0, refine["azimuth"], refine["pitch"])
    assert np.allclose(view.rotation, camera.rotation @ take.rig.world, atol=1e-6)
    for index, (position, shift) in enumerate(zip(*view.at(take.motion.times), strict=True)):
        bpy.context.scene.frame_set(1 + 2 * index)
        root = np.array(obj.matrix_world @ obj.pose.bones[take.rig.names[0]].head)
        right = root + 2.0 * view.rotation[0]  # a unit of the rig, which is two of the world
        pixels = project(view.projection(position, shift), np.stack([root, right]))
        assert np.allclose(pixels[0], path[index, :2], atol=1e-3)
        assert np.linalg.norm(pixels[1] - pixels[0]) == pytest.approx(path[index, 2], rel=0.02)


def test_a_scene_rate_changed_since_the_keys_were_written_films_them_all_the_same(tmp_path: Path) -> None:
    _, _, masks = filmed(tmp_path)
    bpy.context.scene.render.fps = 60
    bpy.ops.anyrig.movie(filepath=str(tmp_path / "out.mp4"))
    rigs = [rig_mask(images[1]) for images in panels_of(tmp_path / "out.mp4", 2)]
    assert np.mean([overlap(rig, mask) for rig, mask in zip(rigs, masks, strict=True)]) > 0.6


def test_an_armature_that_plays_something_else_is_filmed_in_its_take(tmp_path: Path) -> None:
    _, _, masks = filmed(tmp_path)
    bpy.ops.anyrig.take_compare()
    before = everything()
    bpy.ops.anyrig.movie(filepath=str(tmp_path / "out"))
    assert everything() == before
    rigs = [rig_mask(images[1]) for images in panels_of(tmp_path / "out.mp4", 2)]
    assert np.mean([overlap(rig, mask) for rig, mask in zip(rigs, masks, strict=True)]) > 0.6


def test_images_are_made_smaller_and_even() -> None:
    assert side_by_side_movie.image_size(SimpleNamespace(width=1920, height=1080), 481) == (856, 480)
    assert side_by_side_movie.image_size(SimpleNamespace(width=193, height=145), 480) == (192, 144)


def test_a_rig_without_a_mesh_is_drawn_as_capsules(tmp_path: Path) -> None:
    obj, _, masks = filmed(tmp_path)
    for mesh in [child for child in obj.children if child.type == "MESH"]:
        bpy.data.objects.remove(mesh)
    bpy.ops.anyrig.movie(filepath=str(tmp_path / "out.mp4"))
    rigs = [rig_mask(images[1]) for images in panels_of(tmp_path / "out.mp4", 2)]
    # capsules are thinner than the character, so its box is filled by less
    assert np.mean([(rig & mask).sum() / rig.sum() for rig, mask in zip(rigs, masks, strict=True)]) > 0.5


def test_a_mesh_whose_vertices_change_in_number_is_followed(tmp_path: Path) -> None:
    obj, _, _ = filmed(tmp_path)
    mesh = next(child for child in obj.children if child.type == "MESH")
    build = mesh.modifiers.new("build", "BUILD")
    build.frame_start, build.frame_duration = -20, 44
    before = everything()
    bpy.ops.anyrig.movie(filepath=str(tmp_path / "out.mp4"))
    rigs = [rig_mask(images[1]).sum() for images in panels_of(tmp_path / "out.mp4", 2)]
    assert len(rigs) == FRAMES and min(rigs) > 0 and everything() == before


def test_what_is_missing_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    filmed(tmp_path)
    before = everything()
    with pytest.raises(RuntimeError, match="absent"):
        bpy.ops.anyrig.movie(filepath=str(tmp_path / "absent" / "out.mp4"))
    assert everything() == before
    (tmp_path / "walk.mp4").unlink()
    with pytest.raises(RuntimeError, match="walk.mp4.* does not exist"):
        bpy.ops.anyrig.movie(filepath=str(tmp_path / "out.mp4"))
    assert everything() == before


def run(arguments: list[str]) -> int:
    """In no window, as `blender -b FILE --command` is."""
    with bpy.context.temp_override(window=None):
        return commands.main(arguments)


def test_the_command_writes_the_movie_of_a_named_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filmed(tmp_path)
    out = tmp_path / "out.mp4"
    assert run(["movie", "--take", "walk", "--out", str(out), "--height", "72"]) == 0
    assert f"walk: 12 frames written to {out}" in capsys.readouterr().out
    info = probe(Clip(str(out)))
    assert (info.width, info.height, info.frames) == (WIDTH, 72, FRAMES)
    assert run(["movie", "--take", "run", "--out", str(out)]) == 1
    assert "There is no take 'run' in this file: it has 'walk'." in capsys.readouterr().err
    assert run(["movie"]) == 2
    bpy.data.texts.remove(take_store.stored()[0])
    assert run(["movie", "--out", str(out)]) == 1
    assert "There is no take in this file: capture one." in capsys.readouterr().err


def leave_by(how: str) -> None:
    if how == "load":
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    else:
        addon.unregister()
        addon.register()


def click(tmp_path: Path) -> None:
    """The file browser's button, in a window."""
    press = Press(review_panel.ANYRIG_OT_movie)
    press.in_background, press.filepath, press.height = True, str(tmp_path / "out.mp4"), 72
    press.over = press.outline = False
    assert press.execute(bpy.context) == {"FINISHED"}


def test_beside_a_window_it_is_written_in_turns(tmp_path: Path) -> None:
    filmed(tmp_path)
    before, steps = everything(), []
    click(tmp_path)
    assert not bpy.ops.anyrig.movie.poll() and not bpy.ops.anyrig.capture.poll()
    while (work := modal_runner.step_once()) is not None:
        steps.append(work.progress.done)
        assert not (tmp_path / "out.mp4").exists()
    assert steps == [0, *range(1, FRAMES + 1)] and everything() == before
    assert probe(Clip(str(tmp_path / "out.mp4"))).frames == FRAMES and background_runner.current() is None
    assert background_runner.status() == (f"{FRAMES} frames written to '{tmp_path / 'out.mp4'}'.", False)


@pytest.mark.parametrize("leave", ["cancel", "undo", "load", "disable"])
def test_ended_early_it_leaves_no_file_and_the_scene_as_it_was(tmp_path: Path, leave: str) -> None:
    filmed(tmp_path)
    bpy.ops.anyrig.take_compare()
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.ed.undo_push(message="again")
    (tmp_path / "out.mp4").write_bytes(b"an older movie")
    before = everything()
    click(tmp_path)
    for _ in range(5):
        assert modal_runner.step_once() is not None
    assert everything() != before and len(list(tmp_path.glob(".*.part.mp4"))) == 1
    if leave == "cancel":
        assert bpy.ops.anyrig.cancel() == {"FINISHED"}
        assert modal_runner.step_once() is None and background_runner.status() == ("Cancelled: no movie was written.", False)
    elif leave == "undo":
        bpy.ops.ed.undo()
    else:
        leave_by(leave)
    assert background_runner.current() is None and modal_runner.running() is None and modal_runner.step_once() is None
    assert not list(tmp_path.glob(".*.part.mp4")) and (tmp_path / "out.mp4").read_bytes() == b"an older movie"
    if leave != "load":
        after = everything()
        assert {key: after[key] for key in ("data", "camera", "render", "frame", "hidden")} == {
            key: before[key] for key in ("data", "camera", "render", "frame", "hidden")
        }


def test_esc_is_all_that_gets_through_and_panel_and_timer_follow(tmp_path: Path) -> None:
    filmed(tmp_path)
    click(tmp_path)
    cancelled: list[bool] = []
    stand_in = SimpleNamespace(cancel=lambda _: cancelled.append(True))

    def send(kind: str, value: str = "PRESS") -> set[str]:
        event = SimpleNamespace(type=kind, value=value)
        return modal_runner.ANYRIG_OT_run_modal.modal(stand_in, bpy.context, event)  # type: ignore[arg-type]

    for kind in ("TIMER", "LEFTMOUSE", "Z", "TIMER"):
        assert send(kind) == {"RUNNING_MODAL"}
    assert background_runner.current().progress.done == 1 and not cancelled
    assert send("ESC") == {"RUNNING_MODAL"}
    assert send("TIMER") == {"CANCELLED"} and cancelled and background_runner.current() is None


def test_a_movie_never_overwrites_its_own_video(tmp_path: Path) -> None:
    filmed(tmp_path)
    video = tmp_path / "walk.mp4"
    content = video.read_bytes()
    with pytest.raises(RuntimeError, match="would overwrite its own video .*: choose another name"):
        bpy.ops.anyrig.movie(filepath=str(video))
    assert video.read_bytes() == content and sorted(path.name for path in tmp_path.glob("*.mp4")) == ["walk.mp4"]


def test_the_movie_goes_beside_the_video_unless_told_otherwise(tmp_path: Path) -> None:
    filmed(tmp_path)
    assert bpy.ops.anyrig.movie() == {"FINISHED"}
    assert (tmp_path / "walk_side_by_side.mp4").is_file()


# ---- skeleton lines


def test_lines_join_the_joints_as_they_are_posed(tmp_path: Path) -> None:
    obj, text, _ = filmed(tmp_path)
    obj.location.x = 2.0
    bpy.context.scene.frame_set(7)
    points, colours = skeleton_lines.lines(bpy.context)
    rig = take_store.read(text).rig
    leaves = len(rig.names) - len(set(rig.parents.tolist()) - {-1})
    assert len(points) == len(colours) == 2 * (len(rig.names) - 1 + leaves)
    child = 1
    bones = obj.pose.bones
    assert np.allclose(points[0], obj.matrix_world @ bones[rig.names[rig.parents[child]]].head, atol=1e-6)
    assert np.allclose(points[1], obj.matrix_world @ bones[rig.names[child]].head, atol=1e-6)
    bpy.context.scene.frame_set(13)
    assert np.abs(skeleton_lines.lines(bpy.context)[0] - points).max() > 0.02


def test_colours_follow_the_confidence_of_the_frame_and_joint(tmp_path: Path) -> None:
    _, text, _ = filmed(tmp_path)
    raw = take_store.read(text)
    confidence = np.ones((FRAMES, len(raw.rig.names)))
    confidence[4], confidence[8, 1] = 0.0, 0.5
    store_again(text, replace(raw, motion=replace(raw.motion, confidence=confidence)))
    skeleton_lines.reset()  # forget what was read
    lost, sure, pale = np.array(skeleton_lines.RAMP)[[0, 2, 1]]
    for frame, expected in ((1, sure), (9, lost), (99, sure), (-9, sure)):
        bpy.context.scene.frame_set(frame)
        assert np.allclose(skeleton_lines.lines(bpy.context)[1][:, :3], expected), frame
    bpy.context.scene.frame_set(17)
    assert np.allclose(skeleton_lines.lines(bpy.context)[1][1], [*pale, 1.0])
    bpy.context.scene.frame_set(8)
    half = skeleton_lines.confidence_at(take_store.read(text), 3.5 / 12)
    assert np.allclose(half, 0.5) and np.allclose(skeleton_lines.colours(half)[:, :3], pale)


def test_without_take_armature_or_bones_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert len(skeleton_lines.lines(bpy.context)[0]) == 0
    obj, text, _ = filmed(tmp_path)
    obj.data.bones[-1].name = "renamed"
    assert len(skeleton_lines.lines(bpy.context)[0]) > 0
    data = text[take_store.DATA]
    text[take_store.DATA] = b"damaged"
    skeleton_lines.reset()
    assert len(skeleton_lines.lines(bpy.context)[0]) == 0
    del text[take_store.DATA]
    text[take_store.DATA] = data
    bpy.data.objects.remove(obj)
    assert len(skeleton_lines.lines(bpy.context)[0]) == 0


def test_a_single_joint_and_a_chain() -> None:
    assert skeleton_lines.pairs_of(np.array([-1])) == [(0, 0)]
    assert skeleton_lines.pairs_of(np.array([-1, 0, 1, 0])) == [(0, 1), (1, 2), (0, 3), (2, 2), (3, 3)]


@pytest.mark.parametrize("leave", ["click", "load", "disable"])
def test_the_handler_goes_with_click_load_and_disable(tmp_path: Path, leave: str) -> None:
    filmed(tmp_path)
    assert bpy.ops.anyrig.skeleton() == {"FINISHED"} and skeleton_lines.is_on()
    handle = skeleton_lines._drawing.handle
    if leave == "click":
        bpy.ops.anyrig.skeleton()
    else:
        leave_by(leave)
    assert not skeleton_lines.is_on() and skeleton_lines._drawing.raw is None
    with pytest.raises(ValueError, match="already removed"):
        bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")


def test_the_panel_says_what_is_on(tmp_path: Path) -> None:
    filmed(tmp_path)
    bpy.ops.anyrig.skeleton()
    asked: list[dict[str, Any]] = []

    class Layout:
        """Stands in for Blender's layout, which only a window has."""

        def column(self, **_: Any) -> "Layout":
            return self

        def operator(self, name: str, **options: Any) -> None:
            asked.append({"name": name, **options})

    bpy.ops.anyrig.overlay()
    assert review_panel.ANYRIG_PT_check.poll(bpy.context)
    review_panel.ANYRIG_PT_check.draw(SimpleNamespace(layout=Layout()), bpy.context)
    assert asked[0]["text"] == "Remove Overlay" and asked[1]["depress"] and asked[2]["name"] == "anyrig.movie"

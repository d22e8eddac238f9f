"""The demo: its characters, its images, and the three demonstrations on a random network."""

import io
import json
from pathlib import Path

import bpy
import numpy as np
import pytest
from anyrig.addon.dev import demo, demo_character, render_action
from anyrig.addon.dev.demo_character import STALKER, STRIDE, WALKER, make_character
from anyrig.addon.rendering.scratch_scene import current_window
from anyrig.addon.rig import actions
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.backend.encoders.crops import composite_rgba
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import probe, read_frames

FEW = 6  # frames of walk: enough to move, quick to capture


def walk_of(obj: bpy.types.Object) -> bpy.types.Action:
    return obj.animation_data.action


def poses(obj: bpy.types.Object, frames: list[float]) -> np.ndarray:
    return actions.pose_frames(obj, walk_of(obj), rig_from_armature(obj).names, frames)


def test_the_walk_moves_every_leg_and_repeats():
    walker = make_character(WALKER, 2 * STRIDE)
    heads = poses(walker, list(range(STRIDE + 1)))[..., :3, 3]
    np.testing.assert_allclose(heads[0], heads[-1], atol=1e-5)
    names = rig_from_armature(walker).names
    for foot in ("foot.L", "foot.R", "hand.L", "hand.R"):
        assert np.ptp(heads[:, names.index(foot), 1]) > 0.3 * WALKER.leg


def test_left_and_right_legs_alternate():
    walker = make_character(WALKER, 2 * STRIDE)
    heads = poses(walker, [0, STRIDE / 2])[..., :3, 3]
    names = rig_from_armature(walker).names
    left, right = (names.index(f"foot.{side}") for side in "LR")
    np.testing.assert_allclose(heads[0, left, 1:], heads[1, right, 1:], atol=0.02)


def test_the_second_character_is_another():
    assert {WALKER.bone(limb.role) for limb in demo_character.limbs_of(WALKER)}.isdisjoint(
        STALKER.bone(limb.role) for limb in demo_character.limbs_of(STALKER)
    )
    assert STALKER.leg / STALKER.body > 1.5 * WALKER.leg / WALKER.body


def test_every_point_of_the_skin_hangs_on_a_bone_and_faces_outwards():
    walker = make_character(WALKER)
    mesh = walker.children[0].data
    assert all(sum(group.weight for group in vertex.groups) == 1.0 for vertex in mesh.vertices)
    spine = next(limb for limb in demo_character.limbs_of(WALKER) if limb.role == "hips")
    points, faces = demo_character.capsule(spine.head, spine.tail, spine.radius)
    middle = (np.array(spine.head) + spine.tail) / 2
    for face in faces:
        corners = points[face]
        assert np.dot(np.cross(corners[1] - corners[0], corners[2] - corners[0]), corners.mean(0) - middle) > 0


def test_images_show_the_pose_of_their_frame_through_the_stated_camera():
    walker = make_character(WALKER, STRIDE)
    frames = [0.0, 6.0, 12.5]
    camera = render_action.frame_motion(walker, frames, 1.1, 0.15, 160)
    images = render_action.render_action(walker, rig_from_armature(walker), frames, camera)
    rig = rig_from_armature(walker)
    for image, pose in zip(images, poses(walker, frames), strict=True):
        assert image.shape == (160, 160, 4)
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert not border[:, 3].any()
        heads = pose[[rig.names.index(name) for name in ("shin.L", "foot.L", "hand.R", "head")], :3, 3]
        columns, rows = project(camera.projection, heads).astype(int).T
        assert (image[rows, columns, 3] == 255).all()
    assert (images[0][..., 3] != images[1][..., 3]).sum() > 100


def test_the_characters_colours_are_in_the_image():
    walker = make_character(WALKER)
    camera = render_action.frame_motion(walker, [0.0], 1.1, 0.15, 160)
    image = render_action.render_action(walker, rig_from_armature(walker), [0.0], camera)[0]
    red, _, blue = image[image[..., 3] == 255][:, :3].mean(0)
    assert red > 1.4 * blue


def test_the_window_to_render_in_belongs_to_its_window_manager():
    # not so for bpy.context.window in 4.2, see current_window
    window = current_window()
    assert window == bpy.context.window and window.id_data == bpy.context.window_manager


def test_rendering_leaves_the_file_as_it_was():
    walker = make_character(WALKER, FEW)
    material = walker.children[0].data.materials[0]
    material.diffuse_color = (0.0, 0.5, 0.0, 1.0)
    scene, counts = bpy.context.scene, (len(bpy.data.scenes), len(bpy.data.cameras), len(bpy.data.objects))
    render_action.render_action(walker, rig_from_armature(walker), [0.0], Camera((0, 0, 0.5), 5.0, width=32, height=32))
    assert bpy.context.window.scene == scene
    assert (len(bpy.data.scenes), len(bpy.data.cameras), len(bpy.data.objects)) == counts
    assert tuple(material.diffuse_color) == (0.0, 0.5, 0.0, 1.0)


def test_a_rig_without_a_mesh_is_drawn_as_capsules_at_its_place_and_scale():
    walker = make_character(WALKER, STRIDE)
    bpy.data.objects.remove(walker.children[0])
    walker.scale = (3, 3, 3)
    walker.location = (5, 0, 1)
    bpy.context.view_layer.update()
    camera = render_action.frame_motion(walker, [0.0, 6.0], 1.1, 0.15, 160)
    first, second = render_action.render_action(walker, rig_from_armature(walker), [0.0, 6.0], camera)
    assert 0.03 < (first[..., 3] > 128).mean() < 0.5
    assert (first[..., 3] != second[..., 3]).sum() > 100


def test_the_backdrop_is_the_colour_that_the_character_has_not():
    green = np.zeros((8, 8, 4), np.uint8)
    green[:] = (40, 170, 70, 255)
    assert render_action.plain_backdrop([green]) != (40, 170, 70)
    clear = np.zeros((8, 8, 4), np.uint8)
    assert (composite_rgba(clear, (1, 2, 3)) == (1, 2, 3)).all()
    assert (composite_rgba(green, (1, 2, 3)) == (40, 170, 70)).all()


def test_filming_gives_a_frame_and_a_true_pose_for_every_scene_frame(tmp_path: Path):
    walker = make_character(WALKER, FEW)
    shot = demo.render_clip(walker, walk_of(walker), 0.5, 0.1, tmp_path / "walk.mp4")
    info = probe(shot.clip)
    assert (info.frames, info.fps) == (FEW + 1, 24)
    assert shot.truth.shape == (FEW + 1, 19, 4, 4)
    np.testing.assert_allclose(shot.truth, poses(walker, list(range(FEW + 1))))


def test_an_action_of_one_frame_is_refused(tmp_path: Path):
    walker = make_character(WALKER, 1)
    with pytest.raises(UserError, match="'Walker walk' has a single frame"):
        demo.render_clip(walker, walk_of(walker), 0.0, 0.0, tmp_path / "walk.mp4")


def test_a_rig_without_actions_is_refused():
    with pytest.raises(UserError, match="'Walker' has no action to render"):
        demo.longest_action(make_character(WALKER))


def two_actions() -> bpy.types.Object:
    """A walker with a short 'Sit' beside its walk."""
    walker = make_character(WALKER, FEW)
    walk = walk_of(walker)
    walk.use_fake_user = True
    walk.name = "Armature|File_Walk"
    demo_character.key_walk(walker, WALKER, 2).name = "Sit"
    walk_of(walker).use_fake_user = True
    return walker


def test_the_longest_action_is_filmed_and_the_other_gives_the_reference():
    walker = two_actions()
    walk = demo.longest_action(walker)
    assert walk.name == "Armature|File_Walk"
    assert demo.default_reference(walker, walk) == "Sit:0"
    demo.pose_reference(walker, "Sit:2")
    assert (walk_of(walker).name, bpy.context.scene.frame_current) == ("Sit", 2)


def test_the_rest_pose_is_the_reference_where_there_is_no_other_action():
    walker = make_character(WALKER, FEW)
    bpy.context.scene.frame_set(3)
    assert demo.default_reference(walker, walk_of(walker)) == "rest"
    demo.pose_reference(walker, "rest")
    assert walker.animation_data.action is None
    rests = [bone.bone.matrix_local for bone in walker.pose.bones]
    np.testing.assert_allclose([np.array(b.matrix) for b in walker.pose.bones], [np.array(r) for r in rests], atol=1e-6)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Sit", "give rest, or ACTION:FRAME"),
        ("Sit:x", "give rest"),
        ("Sit:7", "no frame 7: it runs from 0 to 2"),
        ("Fly:0", "'Fly'"),
    ],
)
def test_a_reference_that_is_not_there_is_refused(reference: str, message: str):
    walker = two_actions()
    with pytest.raises(UserError, match=message):
        demo.pose_reference(walker, reference)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--video", "v.mp4"],
        ["--roundtrip"],
        ["--rig", "r.glb"],
        ["--rig", "r.glb", "--video", "v.mp4", "--roundtrip"],
        ["--action", "Walk"],
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: list[str]):
    with pytest.raises(SystemExit) as end:
        demo.parse(arguments)
    assert end.value.code == 2


def demonstrate(arguments: list[str], out: Path) -> list[str]:
    """The lines that the demo prints."""
    out.mkdir(exist_ok=True)
    stream = io.StringIO()
    demo.run(demo.parse([*arguments, "--model", "tiny", "--device", "cpu", "--out", str(out)]), demo.Console(stream))
    return stream.getvalue().splitlines()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIZE", 96)
    monkeypatch.setattr(demo_character, "WALK_FRAMES", FEW)


@pytest.mark.usefixtures("small")
def test_the_example_captures_one_video_onto_two_rigs(tmp_path: Path):
    lines = demonstrate([], tmp_path)
    made = {"input.mp4", "take.blend", "Walker.bvh", "Stalker.bvh", "sheet.png", "side_by_side.mp4"}
    assert made == {path.name for path in tmp_path.iterdir()}
    assert any(line.split()[:2] == ["MPJPE", "(cm)"] and len(line.split()) == 4 for line in lines)
    assert any("video2pose" in line and "total" in line for line in lines)
    frame = next(read_frames(Clip(str(tmp_path / "side_by_side.mp4"))))
    assert frame.image.shape == (96, 3 * 96, 3)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "take.blend"))
    assert {obj.animation_data.action.name.split(".")[0] for obj in bpy.data.objects if obj.type == "ARMATURE"} == {"input"}


@pytest.mark.usefixtures("small")
def test_a_round_trip_ends_with_one_json_object(tmp_path: Path):
    two_actions()
    rig = tmp_path / "rig.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(rig))
    arguments = ["--rig", str(rig), "--roundtrip", "--action", "walk", "--json"]
    record = json.loads(demonstrate(arguments, tmp_path / "a")[-1])
    numbers = ("seconds", "angle_deg", "copy_angle_deg", "mpjpe_cm", "copy_mpjpe_cm", "heading_deg", "liveness")
    assert all(isinstance(record[key], float) for key in numbers)
    assert (record["rig"], record["action"], record["reference"]) == ("rig", "File_Walk", "Sit:0")
    assert (record["frames"], record["joints"]) == (FEW + 1, 19)
    again = json.loads(demonstrate(arguments, tmp_path / "b")[-1])
    assert (again["azimuth_deg"], again["angle_deg"]) == (record["azimuth_deg"], record["angle_deg"])
    other = json.loads(demonstrate([*arguments, "--seed", "1", "--reference", "rest"], tmp_path / "c")[-1])
    assert other["azimuth_deg"] != record["azimuth_deg"] and other["reference"] == "rest"


@pytest.mark.usefixtures("small")
def test_the_users_own_rig_and_video(tmp_path: Path):
    walker = make_character(WALKER, FEW)
    demo.render_clip(walker, walk_of(walker), 0.5, 0.1, tmp_path / "mine.mp4")
    rig = tmp_path / "rig.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(rig))
    demonstrate(["--rig", str(rig), "--video", str(tmp_path / "mine.mp4")], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"take.blend", "Walker.bvh", "sheet.png", "side_by_side.mp4"}

"""Videos of rigs for measuring: what they show, the JSON beside them, and that nothing of the making is left."""

import json
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
import pytest
import torch
from anyrig.addon.dev import commands, outdoor_scene, render_clips
from anyrig.addon.dev.pack import make_pack
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, project
from anyrig.backend.rendering.point_splatting import cloud_of
from anyrig.backend.train.packs.rendered_clips import RenderedClip, load_mattes, rendered_clips_in, seeded_rng, stem_of
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import read_frames
from anyrig.tests.addon.fixtures import BoneSpec, make_rig

SMALL = ["--size", "64", "--samples", "1"]
RED = (0.8, 0.0, 0.02, 1.0)


def swinging(name: str = "Post") -> bpy.types.Object:
    """A red post whose upper half leans over on the frames 1 to 3 of 'lean', and stands on those of 'stand'."""
    obj = make_rig(name, [BoneSpec("low", None, (0, 0, 0), (0, 0, 1)), BoneSpec("high", "low", (0, 0, 1), (0, 0, 2))])
    red = bpy.data.materials.new("red")
    if red.node_tree is None:
        red.use_nodes = True
    red.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = RED
    bpy.data.objects[f"{name} skin"].data.materials.append(red)
    for action, angle in (("stand", 0.0), ("lean", 1.2)):
        obj.animation_data_create().action = bpy.data.actions.new(action)
        obj.animation_data.action.use_fake_user = True
        obj.pose.bones["high"].rotation_mode = "XYZ"
        for frame in (1, 3):
            obj.pose.bones["high"].rotation_euler.x = angle * (frame - 1) / 2
            obj.pose.bones["high"].keyframe_insert("rotation_euler", frame=frame)
    return obj


def names() -> dict[str, list[str]]:
    kinds = ("scenes", "objects", "meshes", "materials", "images", "worlds", "lights", "cameras", "actions")
    return {kind: getattr(bpy.data, kind).keys() for kind in kinds}


def saved(folder: Path) -> Path:
    swinging()
    path = folder / "post.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    return path


def images(path: Path) -> np.ndarray:
    return np.stack([frame.image for frame in read_frames(Clip(str(path)))]).astype(float)


def is_red(images: np.ndarray) -> np.ndarray:
    return images[..., 0] > 1.8 * images[..., 1:].max(-1) + 8


def test_a_file_is_filmed_where_the_json_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = saved(tmp_path), tmp_path / "out"
    assert commands.main(["render", str(path), "-o", str(out), "--clip", "lean", *SMALL]) == 0
    assert "lean: 3 frames" in capsys.readouterr().out
    [(video, filmed)] = rendered_clips_in(out)
    assert video.name == "post__lean.mp4"
    assert (filmed.pack, filmed.clip, filmed.frames, filmed.width, filmed.fps) == ("post", "lean", 3, 64, 24.0)
    rng = seeded_rng(0, "post", "lean")
    assert filmed.azimuth == rng.uniform(-np.pi, np.pi) and filmed.pitch == rng.uniform(0, 0.25)
    pack = make_pack(bpy.data.objects["Post"], "post")
    poses = pack.clips["lean"]
    points = cloud_of(pack.surface, pack.rig.rest).skin(torch.as_tensor(poses))[0].numpy().astype(float)
    pixels = project(filmed.matrix, points)
    assert pixels.min() > 0 and pixels.max() < 64
    for seen, truth in zip(is_red(images(video)), pixels, strict=True):
        rows, columns = np.nonzero(seen)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(box - np.concatenate([truth.min(0), truth.max(0)])).max() < 3


def test_a_few_frames_with_their_true_mattes(tmp_path: Path) -> None:
    path, out = saved(tmp_path), tmp_path / "out"
    options = ["--clip", "lean", "--frames", "2", *SMALL]
    assert render_clips.render_command([str(path), "-o", str(out), *options], lambda _: None) == 0
    told: list[str] = []
    assert render_clips.render_command([str(path), "-o", str(out), *options, "--covers"], told.append) == 0
    assert "is there already" not in told[0], "it is rendered again where it lacks the covers"
    assert render_clips.render_command([str(path), "-o", str(out), *options, "--covers"], told.append) == 0
    assert "is there already" in told[-1]
    [(video, filmed)] = rendered_clips_in(out)
    covers, seen = load_mattes(video), is_red(images(video))
    assert filmed.frames == len(covers) == len(seen) == 2
    assert (covers[0] != covers[1]).any(), "the first and the last frame of the clip"
    assert ((covers >= 128) & seen).sum() > 0.85 * ((covers >= 128) | seen).sum()


def test_there_are_a_sky_a_ground_and_a_shadow(tmp_path: Path) -> None:
    obj = swinging()
    action = render_clips.actions_by_clip_name(obj)["stand"]
    weather = outdoor_scene.Weather(0.6, 1.5, 4, 1)
    with (
        render_clips.rendered_armature(obj, action) as actor,
        outdoor_scene.outdoor_scene_of(actor.objects, "CYCLES", 1) as stage,
    ):
        camera, floor = render_clips.frame_motion(actor, stage.scene, 0.0, 0.2, 64)
        with outdoor_scene.surroundings(stage.scene, camera, floor, weather):
            # the sun stands on the right, at +x, so the shadow falls to the left of the foot
            image = next(outdoor_scene.render_frame(stage, 1, actor.pose)).astype(float)
    assert floor == pytest.approx(0, abs=1e-5)
    top, ground = image[:3].mean((0, 1)), image[-3:].mean((0, 1))
    assert top[2] > top[0] and top.min() > 60
    u, v = project(camera.projection, np.array([[-0.5, 0, 0], [0.5, 0, 0]])).T.round().astype(int)
    left, right = (image[row - 1 : row + 2, column - 1 : column + 2].mean() for row, column in zip(v, u))
    assert left < 0.7 * right and ground.mean() > 100


def test_the_scene_is_left_as_it_was() -> None:
    obj = swinging()
    obj.pose.bones["low"].location.x = 0.25
    bpy.context.scene.frame_set(7)
    before, action, pose = names(), obj.animation_data.action, np.array(obj.pose.bones["high"].matrix_basis)
    scene = bpy.context.scene
    look = render_clips.Look(32, 1, covers=True)
    folder = Path(bpy.app.tempdir)
    with render_clips.rendered_armature(obj, render_clips.actions_by_clip_name(obj)["stand"]) as actor:
        render_clips.render_clip(actor, "Post", "stand", 24.0, look, folder / "stand.mp4")
    pack = make_pack(obj, "Post")
    with render_clips.rendered_cloud(pack, "lean") as actor:
        render_clips.render_clip(actor, "Post", "lean", 24.0, look, folder / "lean.mp4")
    assert names() == before
    assert bpy.context.window.scene == scene and scene.frame_current == 7
    assert obj.animation_data.action == action and obj.pose.bones["low"].location.x == 0.25
    assert np.allclose(np.array(obj.pose.bones["high"].matrix_basis), pose)


def test_a_pack_looks_like_its_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    make_pack(bpy.data.objects["Post"], "post").save(tmp_path / "post.npz")
    for source, out in ((path, "file"), (tmp_path / "post.npz", "pack")):
        assert (
            render_clips.render_command([str(source), "-o", str(tmp_path / out), "--clip", "lean", *SMALL], lambda _: None) == 0
        )
    (_, one), (_, other) = rendered_clips_in(tmp_path / "file")[0], rendered_clips_in(tmp_path / "pack")[0]
    assert np.allclose(one.matrix, other.matrix, atol=0.05 * np.abs(one.matrix).max())
    seen, drawn = (is_red(images(tmp_path / out / "post__lean.mp4")) for out in ("file", "pack"))
    assert (seen & drawn).sum() > 0.75 * (seen | drawn).sum()


def test_what_is_there_is_left_alone_and_the_limit_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = saved(tmp_path), tmp_path / "out"
    made: list[str] = []

    def film(
        actor: render_clips.RenderedRig, pack: str, clip: str, fps: float, look: render_clips.Look, path: Path
    ) -> RenderedClip:
        made.append(clip)
        path.touch()
        filmed = RenderedClip.by(Camera((0, 0, 0), 1.0), pack, clip, fps, actor.count, {"seconds_per_frame": 0.0})
        filmed.save(path.with_suffix(".json"))
        return filmed

    monkeypatch.setattr(render_clips, "render_clip", film)
    told: list[str] = []
    arguments = [str(path), "-o", str(out)]
    assert render_clips.render_command([*arguments, "--limit", "1"], told.append) == 0
    assert render_clips.render_command([*arguments, "--limit", "1"], told.append) == 0
    assert made == ["lean"] and told[-1].endswith("lean: is there already")
    (out / "post__lean.json").unlink()
    assert render_clips.render_command(arguments, told.append) == 0
    assert made == ["lean", "lean", "stand"] and len(rendered_clips_in(out)) == 2
    with pytest.raises(SystemExit):
        render_clips.render_command([*arguments, "--limit", "-1"], told.append)


def test_splits_choose_clips(tmp_path: Path) -> None:
    splits = tmp_path / "splits.json"
    lists = {"seen": [{"file": "post", "clip": "lean"}], "unseen": [], "never_train_clips": [], "never_train_files": []}
    splits.write_text(json.dumps(lists))
    wanted = render_clips.Wanted((), render_clips.clips_of_split("seen", splits, None))
    assert wanted("post", "lean") and not wanted("post", "stand") and wanted.any_of("post") and not wanted.any_of("pole")
    assert render_clips.Wanted(("stand",))("pole", "stand") and not render_clips.Wanted(("stand",))("pole", "lean")
    pack = make_pack(swinging(), "post")
    poses = pack.clips["stand"]
    replace(pack, clips={f"move {i}": poses for i in range(4)} | {"lean": poses}).save(tmp_path / "post.npz")
    assert len(render_clips.clips_of_split("validation", splits, tmp_path)) == 1
    with pytest.raises(UserError, match="--packs DIR"):
        render_clips.clips_of_split("validation", splits, None)
    with pytest.raises(UserError, match="--splits FILE"):
        render_clips.clips_of_split("seen", None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "63"], "even number"),
        (["--samples", "0"], "at least 1"),
        (["--frames", "1"], "at least 2"),
        ([], "does not exist"),
    ],
)
def test_unfit_input_is_a_sentence(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["render", str(tmp_path / "none.glb"), "-o", str(tmp_path), *arguments]) == 1
    printed = capsys.readouterr()
    assert message in printed.err + printed.out


def test_wrong_arguments_are_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["render"]) == 2 and commands.main(["render", "--help"]) == 0
    printed = capsys.readouterr()
    assert "required" in printed.err and "--samples" in printed.out


def test_a_rig_without_a_mesh_is_named() -> None:
    obj = make_rig("Bare", [BoneSpec("only", None, (0, 0, 0), (0, 0, 1))], mesh=False)
    obj.animation_data_create().action = bpy.data.actions.new("sit")
    with (
        pytest.raises(UserError, match="'Bare' moves no visible mesh"),
        render_clips.rendered_armature(obj, obj.animation_data.action),
    ):
        pass


def test_descriptions_are_read_back(tmp_path: Path) -> None:
    assert stem_of("fox", "Walk") == "fox__Walk" and stem_of("fox", "a/b") != stem_of("fox", "a|b")
    (tmp_path / "x.json").write_text('{"pack": "fox"}')
    with pytest.raises(UserError, match="does not describe"):
        RenderedClip.load(tmp_path / "x.json")
    with pytest.raises(UserError, match="cannot be read"):
        RenderedClip.load(tmp_path / "y.json")
    with pytest.raises(UserError, match="no rendered clips"):
        rendered_clips_in(tmp_path)


def test_discs_stand_on_their_normals() -> None:
    normals = np.array([[0, 0, 1.0], [0.6, 0, 0.8], [1.0, 0, 0]])
    points = np.arange(9.0).reshape(3, 3)
    corners = render_clips.discs(points, normals, np.array([1.0, 2.0, 0.5])).reshape(3, render_clips.CORNERS, 3)
    arms = corners - points[:, None]
    assert np.allclose((arms * normals[:, None]).sum(-1), 0) and np.allclose(np.linalg.norm(arms, axis=-1).T, [1.0, 2.0, 0.5])
    winding = np.cross(arms[:, 0], arms[:, 1])
    assert ((winding * normals).sum(-1) > 0).all()

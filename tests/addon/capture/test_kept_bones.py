"""Bones that the user leaves in place: the operator, what Check Rig shows, what the capture takes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from anyrig.addon.batch import jobs_file, run_jobs_file
from anyrig.addon.capture import kept_bones, rig_check, run_capture
from anyrig.addon.command_line import capture_command, commands
from anyrig.addon.rig.armature import rig_from_armature
from anyrig.addon.rig.armature_tree import in_armature_tree
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Reference
from anyrig.backend.video.clip import Clip
from anyrig.tests.addon.fixtures import BoneSpec, chain, make_rig, mirrored, random_motion

FEET = {"foot.L", "foot.R"}


def game_biped() -> bpy.types.Object:
    """Body and feet under a root at the ground that moves no skin; the feet touch the shins' ends."""
    legs = mirrored(
        chain(["thigh.L", "shin.L"], "body", [(0.2, 0, 1.0), (0.22, 0, 0.55), (0.2, 0.02, 0.1)])
        + [BoneSpec("foot.L", "ground", (0.2, 0.02, 0.1), (0.2, -0.25, 0.04))]
    )
    trunk = [BoneSpec("ground", None, (0, 0, 0), (0, 0.3, 0), weighted=False)]
    trunk += chain(["body", "chest", "head"], "ground", [(0, 0, 1.0), (0, 0, 1.3), (0, 0, 1.6), (0, 0, 1.9)])
    return make_rig("Game", trunk + legs)


def parents_of(rig: Any) -> dict[str, str | None]:
    return {name: rig.names[parent] if parent >= 0 else None for name, parent in zip(rig.names, rig.parents)}


def test_a_bone_is_left_in_place_and_hung_again(registered: None) -> None:
    obj = game_biped()
    rig = rig_from_armature(obj)
    assert parents_of(rig)["foot.L"] == "shin.L" and "ground" not in rig.names and rig.names[0] == "body"
    assert {name for name, hung in zip(rig.names, rig.hung) if hung} == FEET
    assert bpy.ops.anyrig.keep_bone(armature="Game", bone="foot.L") == {"FINISHED"}
    assert kept_bones.kept_bones(bpy.context.scene, obj) == ("foot.L",)
    kept = rig_from_armature(obj, None, kept_bones.kept_bones(bpy.context.scene, obj))
    assert parents_of(kept)["foot.L"] != "shin.L" and parents_of(kept)["foot.R"] == "shin.R"
    assert bpy.ops.anyrig.keep_bone(armature="Game", bone="foot.L", keep=False) == {"FINISHED"}
    assert kept_bones.kept_bones(bpy.context.scene, obj) == ()


@pytest.mark.parametrize(
    ("arguments", "words"), [(("None", "foot.L"), "no armature 'None'"), (("Game", "toe"), "Bone 'toe' is not in")]
)
def test_what_is_not_there_is_a_sentence(registered: None, arguments: tuple[str, str], words: str) -> None:
    game_biped()
    with pytest.raises(RuntimeError, match=words):
        bpy.ops.anyrig.keep_bone(armature=arguments[0], bone=arguments[1])


def test_check_rig_says_what_hangs_where(registered: None) -> None:
    obj = game_biped()
    assert bpy.ops.anyrig.check_rig() == {"FINISHED"}
    checked = rig_check._found[obj.session_uid]
    assert {bone for bone, _ in checked.hung} == FEET and checked.kept == ()
    assert all(f"'{bone}' hangs on 'shin.{bone[-1]}'" in line for bone, line in checked.hung)
    assert any("'ground' steps aside" in line for line in checked.others)
    bpy.ops.anyrig.keep_bone(armature="Game", bone="foot.L")
    checked = rig_check._found[obj.session_uid]
    assert {bone for bone, _ in checked.hung} == {"foot.R"} and checked.kept == ("foot.L",)


def request(small_views: None, model: str) -> run_capture.CaptureRequest:
    params = CaptureParams(Clip("walk.mp4"), Settings(model=model, device="cpu"), azimuth=0.0)
    return run_capture.gather(bpy.context, [bpy.context.object], params)


def test_a_network_of_natural_skeletons_sees_the_rig_that_gets_keys(registered: None, small_views: None) -> None:
    game_biped()
    [subject] = request(small_views, "tiny").subjects
    assert subject.shown is subject.rig and len(subject.remarks) == 3


def test_an_older_network_sees_the_armatures_own_tree_and_the_take_is_for_the_natural_one(
    registered: None, small_views: None
) -> None:
    obj = game_biped()
    [subject] = request(small_views, "lite").subjects
    assert subject.shown is not None and subject.shown.names[0] == "ground" and subject.rig.names[0] == "body"
    assert parents_of(subject.shown)["foot.L"] == "ground" and in_armature_tree(obj, subject.rig).names == subject.shown.names
    assert np.allclose(subject.pose[0], subject.shown_pose[subject.shown.names.index("body")])
    motion: Motion = random_motion(subject.shown, 5, seed=3)
    taken = run_capture._for_keys(motion, subject)
    assert taken.names == subject.rig.names and len(taken.provenance["skeleton"]) == 3
    body, foot = (subject.shown.names.index(name) for name in ("body", "foot.L"))
    assert np.allclose(taken.positions[:, taken.names.index("foot.L")], motion.positions[:, foot] - motion.positions[:, body])
    view = Reference(subject.pose, np.zeros((4, 4, 4), np.uint8), 0.0, np.eye(3, 4))
    [action] = run_capture.write(request(small_views, "lite"), [run_capture.CaptureResult(taken, view)])
    keyed = {curve.group.name for curve in _curves(action)}
    assert "ground" not in keyed and FEET <= keyed


def _curves(action: bpy.types.Action) -> list[bpy.types.FCurve]:
    if not hasattr(action, "layers"):
        return list(action.fcurves)
    return [curve for layer in action.layers for strip in layer.strips for bag in strip.channelbags for curve in bag.fcurves]


def test_bones_that_a_capture_names_stay_in_place(registered: None, small_views: None) -> None:
    obj = game_biped()
    params = CaptureParams(Clip("walk.mp4"), Settings("tiny", "cpu"), azimuth=0.0, keep_bones=("foot.L",))
    [subject] = run_capture.gather(bpy.context, [obj], params).subjects
    assert parents_of(subject.rig)["foot.L"] != "shin.L" and parents_of(subject.rig)["foot.R"] == "shin.R"
    assert kept_bones.kept_bones(bpy.context.scene, obj) == (), "the scene's choice is as it was"
    with pytest.raises(UserError, match="Bone 'toe', which is to stay in place, is not in 'Game'"):
        run_capture.gather(bpy.context, [obj], replace(params, keep_bones=("toe",)))


def test_the_command_line_leaves_bones_in_place(registered: None) -> None:
    options = commands._parser().parse_args(
        ["capture", "--video", "v.mp4", "--keep-bone", "foot.L", "--keep-bone", "foot.R", "--box", "1", "2", "30", "40"]
        + ["--box-time", "1.5"]
    )
    params = capture_command.params_from_options(bpy.context, options)
    assert params.keep_bones == ("foot.L", "foot.R")
    assert (params.clip.box, params.clip.box_time) == ((1, 2, 30, 40), 1.5)


def test_a_batch_adds_bones_to_those_of_its_jobs(registered: None, tmp_path: Path) -> None:
    job = {"file": "a.blend", "video": "v.mp4", "outputs": ["o.blend"], "keep_bones": ["foot.L"]}
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({"jobs": [job]}), encoding="utf-8")
    [spec] = jobs_file.load_jobs(path)
    assert run_jobs_file._with_kept(spec, ["foot.R", "foot.L"]).params().keep_bones == ("foot.L", "foot.R")
    assert commands.main(["batch", str(path), "--check", "--keep-bone", "foot.R"]) == 1, "the files do not exist"

"""JOBS.json: every key, and every way to get one wrong, told by job and key."""

import dataclasses
import json
import os
from dataclasses import replace
from math import radians
from pathlib import Path
from typing import Any

import pytest
from anyrig.addon.batch import jobs_file
from anyrig.addon.settings.capture_params import CaptureParams
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.video.clip import Clip

GOOD = {"file": "a.blend", "video": "v.mp4", "outputs": ["o.blend"]}


def load(folder: Path, content: Any, opened: str = "") -> list[jobs_file.Spec]:
    path = folder / "jobs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return jobs_file.load_jobs(path, opened)


def spec(folder: Path, **values: Any) -> jobs_file.Spec:
    return load(folder, {"jobs": [{**GOOD, **values}]})[0]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = spec(tmp_path, file="rigs/fox.glb", video="../v.mp4", outputs=["out/{name}.bvh", "/abs/{name}.fbx"], matte="m.mp4")
    assert found.file == tmp_path / "rigs" / "fox.glb" and found.video == tmp_path / "../v.mp4"
    assert found.name == "fox-v" and found.outputs == (tmp_path / "out" / "fox-v.bvh", Path("/abs/fox-v.fbx"))
    assert found.params().clip.matte == str(tmp_path / "m.mp4")


@pytest.mark.parametrize(("given", "expected"), [("lite", "lite"), ("m.safetensors", "{folder}/m.safetensors")])
def test_a_models_name_is_no_path(tmp_path: Path, given: str, expected: str) -> None:
    assert spec(tmp_path, model=given).params().settings.model == expected.format(folder=tmp_path)


def test_every_key_reaches_the_capture(tmp_path: Path) -> None:
    values = {"trim": [1, 2.5], "speed": 2, "fps": 25, "box": [1, 2, 30, 40], "matte": "m.mp4", "model": "tiny", "device": "cpu"}
    values |= {
        "precision": "float32",
        "heading": "view",
        "batch": 4,
        "reference": 7,
        "view": -90,
        "start_frame": 3,
        "engine": "cycles",
        "bones": "collection:Face",
        "nla": True,
        "extend_range": True,
        "mirror": True,
        "box_time": 1.5,
        "isnet": "off",
        "cache": "kept",
        "keep_bones": ["Foot.L"],
        "refine": "thorough",
    }
    params = spec(tmp_path, **values).params()
    clip = Clip(str(tmp_path / "v.mp4"), 1, 2.5, 2, 25, (1, 2, 30, 40), str(tmp_path / "m.mp4"), True, 1.5)
    settings = Settings("tiny", "cpu", "float32", "view", 4, isnet="off", cache=str(tmp_path / "kept"), refine="thorough")
    expected = CaptureParams(clip, settings, 7, radians(-90), 3, "CYCLES", "COLLECTION", "Face", "STRIP", True, ("Foot.L",))
    for field in dataclasses.fields(expected):
        assert getattr(params, field.name) == getattr(expected, field.name), field.name


def test_settings_become_keys_and_back(tmp_path: Path) -> None:
    clip = Clip(str(tmp_path / "v.mp4"), 1.5, None, speed=2.0, box=(1, 2, 30, 40), matte=str(tmp_path / "m.mp4"))
    own = Settings(isnet=str(tmp_path / "isnet-1.safetensors"))
    for params in (
        CaptureParams(replace(clip, box_time=2.5), own, keep_bones=("Foot.L", "Foot.R")),
        CaptureParams(clip, Settings("tiny", "cpu", heading="view"), 7, radians(-90), 3, "CYCLES", "COLLECTION", "Face", "STRIP"),
        CaptureParams(Clip(str(tmp_path / "v.mp4")), Settings(model=str(tmp_path / "w.safetensors")), bones="SELECTED"),
    ):
        values = jobs_file.values_of(params, lambda path: Path(path).name)
        assert spec(tmp_path, **values).params() == params, values


def test_what_a_job_leaves_out_is_as_in_the_preferences(tmp_path: Path) -> None:
    params = spec(tmp_path).params("cpu", "CYCLES")
    assert params == CaptureParams(Clip(str(tmp_path / "v.mp4")), Settings(device="cpu"), engine="CYCLES")
    assert spec(tmp_path, device="auto", engine="workbench").params("cpu", "CYCLES").settings.device == "auto"


def test_every_field_of_the_capture_is_a_key() -> None:
    """A new option of the capture is a new key by itself; one that is renamed here must be named in the list."""
    fields = {field.name for owner in (Clip, Settings, CaptureParams) for field in dataclasses.fields(owner)}
    assert fields - set(jobs_file.keys()) == jobs_file.RENAMED - {"engine", "bones"}


def test_defaults_stand_in(tmp_path: Path) -> None:
    content = {
        "defaults": {"video": "v.mp4", "outputs": ["out/{name}.blend"], "model": "tiny"},
        "jobs": [{"file": "a.glb"}, {"file": "b.glb", "model": "lite", "name": "other"}],
    }
    first, second = load(tmp_path, content)
    assert (
        (first.number, second.number) == (1, 2)
        and first.outputs[0].name == "a-v.blend"
        and second.outputs[0].name == "other.blend"
    )
    assert first.params().settings.model == "tiny" and second.params().settings.model == "lite"


def test_armatures_are_names_or_all(tmp_path: Path) -> None:
    assert spec(tmp_path).armatures == () and spec(tmp_path, armatures="all").armatures is None
    assert spec(tmp_path, armatures=["A", "B"]).armatures == ("A", "B")


def test_the_opened_file_stands_in(tmp_path: Path) -> None:
    job = {"video": "v.mp4", "outputs": ["o.blend"]}
    assert load(tmp_path, {"jobs": [job]}, "/scene.blend")[0].file == Path("/scene.blend")
    with pytest.raises(UserError, match="job 1, 'file': it is missing, and Blender was started without a file"):
        load(tmp_path, {"jobs": [job]})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"file": "a.obj"}, "'file': \"a.obj\" must be the path of a rig file (.blend, .glb, .gltf, .fbx, .bvh)"),
        ({"video": 3}, "'video': 3 must be a text"),
        ({"video": ""}, "'video': \"\" must be a text"),
        ({"armatures": "Fox"}, '\'armatures\': "Fox" must be a list of names, or "all"'),
        ({"armatures": []}, "'armatures': [] must be a list of names"),
        ({"trim": [2, 1]}, "'trim': [2, 1] must be two numbers of seconds, [start, end], the smaller one first"),
        ({"trim": 1}, "'trim': 1 must be two numbers"),
        ({"reference": 1.5}, "'reference': 1.5 must be a frame, a whole number"),
        ({"start_frame": "one"}, "'start_frame': \"one\" must be a whole number or null"),
        ({"view": "left"}, '\'view\': "left" must be a number of degrees, or "auto"'),
        ({"scene_fps": 0}, "'scene_fps': 0 must be a number of frames per second"),
        ({"scene_fps": True}, "'scene_fps': true must be a number of frames per second"),
        ({"engine": "eevee"}, "'engine': \"eevee\" must be one of workbench, cycles"),
        ({"bones": "DEFORM"}, '\'bones\': "DEFORM" must be "deform", "selected", "collection:NAME" or {"ARMATURE": a list'),
        ({"bones": {}}, "'bones': {} must be"),
        ({"bones": {"Fox": []}}, "'bones': {\"Fox\": []} must be"),
        ({"bones": {"Fox": "Leg"}}, '\'bones\': {"Fox": "Leg"} must be'),
        ({"bones": "collection:"}, '\'bones\': "collection:" must be "deform"'),
        ({"nla": 1}, "'nla': 1 must be true or false"),
        ({"nla": True, "outputs": ["a.glb"]}, "'nla': a .glb cannot hold NLA strips"),
        ({"outputs": []}, "'outputs': [] must be a list of paths that end in .blend, .bvh, .fbx, .glb"),
        ({"outputs": "o.blend"}, "'outputs': \"o.blend\" must be a list"),
        ({"outputs": ["o.usd"]}, "'outputs': [\"o.usd\"] must be a list of paths that end in"),
        ({"speed": "fast"}, "'speed': \"fast\" must be a number"),
        ({"speed": 0}, "'speed': The speed factor is 0: it must be above zero."),
        ({"box": [1, 2, 3]}, "'box': [1, 2, 3] must be a list of 4, each a number or null"),
        ({"box": [5, 5, 1, 1]}, "'box': The subject box is empty"),
        ({"device": "tpu"}, "'device': Unknown device 'tpu': choose one of auto, cuda, mps, cpu."),
        ({"batch": -1}, "'batch': The batch is -1 frames"),
        ({"batch": 1.5}, "'batch': 1.5 must be a whole number"),
        ({"matte": False}, "'matte': false must be a text or null"),
        ({"viedo": "v.mp4"}, "'viedo': there is no such key: use one of name, file, armatures, video"),
        ({"name": 5}, "'name': 5 must be a text"),
        ({"outputs": ["a.blend"]}, "'outputs': 'a.blend' is the job's own rig file: choose another name"),
        ({"outputs": ["o.bvh", "o.bvh"]}, "'outputs': 'o.bvh' is listed twice"),
        ({"outputs": ["o.bvh", "there/../o.bvh"]}, "'outputs': 'o.bvh' is listed twice"),
    ],
)
def test_a_wrong_value_is_told_by_job_and_key(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, {"jobs": [{**GOOD, "outputs": ["first.blend"]}, {**GOOD, **values}]})
    assert f"job 2, {message}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["file", "video", "outputs"])
def test_what_is_missing_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=f"job 1, '{key}': it is missing"):
        load(tmp_path, {"jobs": [{name: value for name, value in GOOD.items() if name != key}]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", 'it must hold {"jobs": [{...}, ...]} with at least one job'),
        ('{"jobs": []}', "with at least one job"),
        ('{"jobs": [1]}', "job 1: it must hold keys and values"),
        ('{"jobs": [{"video": "a", "video": "b"}]}', "duplicate key 'video'"),
        ('{"jobs": [{"speed": NaN}]}', "NaN is not allowed in JSON"),
        ({"jobs": [GOOD], "job": 1}, "'job': there is no such key: use jobs and defaults"),
        ({"jobs": [GOOD], "defaults": []}, "'defaults': it must hold keys and values"),
        ({"jobs": [GOOD], "defaults": {"outputs": 1}}, "defaults, 'outputs': 1 must be a list of paths"),
        ({"jobs": [GOOD, GOOD]}, "job 2, 'outputs': 'o.blend' is written by job 1 too: choose another name"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, content)
    assert message in str(caught.value) and "jobs.json" in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, {"jobs": [{**GOOD, "speed": "x", "fps": -1}, {"file": "a.glb"}]})
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("needs correcting in 4 places:") and [line.split(":")[0].strip() for line in lines[1:]] == [
        "job 1, 'speed'",
        "job 1, 'fps'",
        "job 2, 'video'",
        "job 2, 'outputs'",
    ]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Jobs file '.*none.json' does not exist"):
        jobs_file.load_jobs(tmp_path / "none.json")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + json.dumps({"jobs": [GOOD]}))[0].number == 1


def test_fingerprint_follows_keys_and_inputs_but_not_the_place(tmp_path: Path) -> None:
    first, moved = tmp_path / "first", tmp_path / "moved"
    for folder in (first, moved):
        folder.mkdir()
        (folder / "v.mp4").write_bytes(b"12")
    stamp = (first / "v.mp4").stat().st_mtime
    os.utime(moved / "v.mp4", (stamp, stamp))
    before = spec(first).fingerprint
    assert spec(moved).fingerprint == before and spec(first, start_frame=2).fingerprint != before
    (first / "v.mp4").write_bytes(b"123")
    assert spec(first).fingerprint != before


@pytest.mark.parametrize(
    ("wanted", "numbers"), [([], [1, 2, 3, 4, 5]), (["2"], [2]), (["4-5", "1"], [1, 4, 5]), (["3, 1-2"], [1, 2, 3])]
)
def test_jobs_are_chosen_like_frames(tmp_path: Path, wanted: list[str], numbers: list[int]) -> None:
    specs = load(tmp_path, {"jobs": [{**GOOD, "outputs": [f"{number}.bvh"]} for number in range(5)]})
    assert [found.number for found in jobs_file.choose(specs, wanted)] == numbers


def test_a_box_outside_the_trim_range_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job 1, 'box_time': .*at 3 s, outside the trim range"):
        spec(tmp_path, trim=[0.5, 2], box=[1, 2, 30, 40], box_time=3)
    assert spec(tmp_path, trim=[0.5, 4], box=[1, 2, 30, 40], box_time=3).params().clip.box_time == 3

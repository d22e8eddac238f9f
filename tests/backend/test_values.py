"""The values that cross between Blender and torch: round trips without loss, and a sentence for everything that is wrong."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import quaternion_to_matrix
from anyrig.backend.motion.motion import Motion
from anyrig.backend.rig.rig import Reference, Rig
from anyrig.backend.video.clip import Clip


def rig_values(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    rest = np.tile(np.eye(4), (4, 1, 1))
    rest[:, :3, :3] = quaternion_to_matrix(random.normal(size=(4, 4)))
    rest[:, :3, 3] = random.normal(size=(4, 3))
    values = {
        "name": "Füchslein", "names": ("root", "a b", "尾", "d.L"), "parents": np.array([-1, 0, 1, 0]), "rest": rest,
        "tails": random.normal(size=(4, 3)), "translates": np.array([0, 0, 0, 1], bool), "static": np.array([0, 1, 0, 0], bool),
        "world": quaternion_to_matrix(random.normal(size=4)),
    }  # fmt: skip
    return values | changes


def motion_values(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(1)
    values = {
        "names": ("root", "尾"), "times": np.array([0.0, 1 / 3, 0.5]), "rotations": random.normal(size=(3, 2, 4)),
        "positions": random.normal(size=(3, 2, 3)), "boxes": random.normal(size=(3, 4)),
        "confidence": random.uniform(size=(3, 2)), "provenance": {"video": "fox.mp4", "seed": 3, "stages": [1.5, None]},
    }  # fmt: skip
    return values | changes


def reference_values(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(2)
    values = {
        "pose": random.normal(size=(4, 4, 4)), "image": random.integers(0, 256, (7, 9, 4), np.uint8), "azimuth": 0.1,
        "projection": random.normal(size=(3, 4)),
    }  # fmt: skip
    return values | changes


def assert_equal(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    for item in fields(left):
        a, b = getattr(left, item.name), getattr(right, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and np.array_equal(a, b), item.name
        else:
            assert a == b and type(a) is type(b), item.name


def with_value(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    array = np.array(array)
    array[index] = value
    return array


# round trips


def test_rig_json(tmp_path: Path):
    rig = Rig(**rig_values())
    assert_equal(Rig.from_json(rig.to_json()), rig)
    (tmp_path / "rig.json").write_text(rig.to_json(), encoding="utf-8")
    assert_equal(Rig.load(tmp_path / "rig.json"), rig)


def test_rig_json_without_world_stands_upright():
    values = json.loads(Rig(**rig_values()).to_json())
    del values["world"]
    assert np.array_equal(Rig.from_json(json.dumps(values)).world, np.eye(3))


def test_reference_json_keeps_every_pixel_and_the_colour_of_clear_ones():
    image = reference_values()["image"]
    image[0, 0] = [200, 100, 50, 0]
    reference = Reference(**reference_values(image=image))
    assert_equal(Reference.from_json(reference.to_json()), reference)


def test_motion_json_and_npz(tmp_path: Path):
    motion = Motion(**motion_values())
    assert_equal(Motion.from_json(motion.to_json()), motion)
    for name in ("take.npz", "take", "take.v1"):
        motion.save(tmp_path / name)
        assert_equal(Motion.load(tmp_path / name), motion)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["take", "take.npz", "take.v1"]


def test_a_refined_take_keeps_the_raw_one(tmp_path: Path):
    raw = Motion(**motion_values())
    count, joints = raw.positions.shape[:2]
    refined = replace(
        raw, positions=raw.positions + 1, raw=raw, path=np.ones((count, 3)), pins=np.array([[count - 1, joints - 1]])
    )
    refined.save(tmp_path / "take.npz")
    for again in (Motion.from_json(refined.to_json()), Motion.load(tmp_path / "take.npz")):
        assert again.raw is not None
        assert_equal(replace(again, raw=None), replace(refined, raw=None))
        assert_equal(again.raw, raw)


@pytest.mark.parametrize("pins", [[[9, 0]], [[0, 9]], [[-1, 0]], [[0]]])
def test_pins_lie_on_the_take(pins: list[list[int]]):
    with pytest.raises(UserError, match="pins"):
        Motion(**motion_values(pins=np.array(pins)))


@pytest.mark.parametrize(
    "clip",
    [Clip("a.mp4"), Clip("ü", 1.0, 2.5, 2.0, 29.97, (0, 1.5, 10, 20), "mattes/", True), Clip("a", end=0.1, box=(-5, -5, 0, 0))],
)
def test_clip_json(clip: Clip):
    assert Clip.from_json(clip.to_json()) == clip


def test_settings_json():
    settings = Settings("release", "cuda", "float32", "view", 4)
    assert Settings.from_json(settings.to_json()) == settings
    assert Settings.from_json(Settings().to_json()) == Settings()


# frozen


def test_values_do_not_change_and_do_not_share_memory():
    rest, image, rotations = rig_values()["rest"], reference_values()["image"], motion_values()["rotations"]
    rig, reference = Rig(**rig_values(rest=rest)), Reference(**reference_values(image=image))
    motion = Motion(**motion_values(rotations=rotations))
    before = rig.rest[0, 0, 0], reference.image[0, 0, 0], motion.rotations[0, 0, 0]
    rest[0, 0, 0], image[0, 0, 0], rotations[0, 0, 0] = 7.0, image[0, 0, 0] ^ 1, 7.0
    assert (rig.rest[0, 0, 0], reference.image[0, 0, 0], motion.rotations[0, 0, 0]) == before
    for array in (rig.rest, rig.heads, rig.parents, reference.pose, motion.times):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    for value in (rig, reference, motion, Clip("a"), Settings()):
        with pytest.raises(FrozenInstanceError):
            setattr(value, fields(value)[0].name, "other")


def test_rest_gives_no_turn():
    rig = Rig(**rig_values())
    assert np.allclose(rig.rotations(rig.rest), np.eye(3))
    assert np.allclose(rig.rest_rotations, rig.rest[:, :3, :3])
    about = quaternion_to_matrix([0.5, 0.1, -0.3, 0.8])
    posed = np.array(rig.rest)
    posed[:, :3, :3] = about @ posed[:, :3, :3]
    assert np.allclose(rig.rotations(np.stack([posed, posed])), about)  # turns are in armature axes, for any batch


# errors

BAD_RIGS = [
    ({"names": (), "parents": np.zeros(0), "rest": np.zeros((0, 4, 4)), "tails": np.zeros((0, 3)), "translates": np.zeros(0),
      "static": np.zeros(0)}, "has no joints: pick an armature"),
    ({"names": ("root", "a", "b", "a")}, "Bone 'a' occurs twice"),
    ({"parents": np.array([-1, 0, 3, 0])}, "Bone '尾': its parent must come before it"),
    ({"parents": np.array([-1, 0, -1, 0])}, "Bone '尾': .* only the first bone has none"),
    ({"parents": np.array([0, 0, 1, 0])}, "Bone 'root'"),
    ({"parents": np.array([-1, 1, 1, 0])}, "Bone 'a b'"),
    ({"parents": np.array([-1, 0, -2, 0])}, "Bone '尾'"),
    ({"parents": np.array([-1, 0, 1])}, r"parents has shape \(3,\), expected \(4,\)"),
    ({"rest": np.zeros((4, 3, 3))}, r"rest has shape \(4, 3, 3\)"),
    ({"tails": np.zeros((3, 3))}, "tails has shape"),
    ({"world": np.eye(4)}, "world has shape"),
    ({"static": np.zeros((4, 1))}, "static has shape"),
    ({"rest": with_value(rig_values()["rest"], (3, 0, 0), np.nan)}, "Bone 'd.L': its rest matrix is not finite; reset"),
    ({"tails": with_value(rig_values()["tails"], (1, 0), np.inf)}, "Bone 'a b': its rest matrix is not finite"),
    ({"world": np.full((3, 3), np.nan)}, "its object's rotation is not finite"),
]  # fmt: skip


@pytest.mark.parametrize("changes,message", BAD_RIGS)
def test_bad_rigs(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Rig(**rig_values(**changes))


RIG_JSON = Rig(**rig_values()).to_json()
MOTION_JSON = Motion(**motion_values()).to_json()
REFERENCE_JSON = Reference(**reference_values()).to_json()


def without(text: str, key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != key})


NOT_RIGS = ["", "{", "[]", "3", "null", '"rig"', "{}", without(RIG_JSON, "tails")]
NOT_RIGS += [RIG_JSON.replace("-1,", f"{parent},") for parent in ('"x"', "1e999", "1" + 30 * "0")]


@pytest.mark.parametrize("text", NOT_RIGS)
def test_text_that_is_not_a_rig(text: str):
    with pytest.raises(UserError, match="not a rig written by AnyRig"):
        Rig.from_json(text)


def test_rig_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere.json' cannot be read .* check the path"):
        Rig.load(tmp_path / "nowhere.json")
    (tmp_path / "rig.json").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(UserError, match="rig.json' is not text"):
        Rig.load(tmp_path / "rig.json")


BAD_REFERENCES = [
    ({"image": np.zeros((5, 5, 3), np.uint8)}, r"\(5, 5, 3\): it must be RGBA"),
    ({"image": np.zeros((5, 5), np.uint8)}, "must be RGBA"),
    ({"pose": np.zeros((4, 3, 3))}, "reference pose is not a finite 4x4 matrix"),
    ({"pose": np.zeros((4, 4))}, "reference pose is not a finite 4x4 matrix"),
    ({"pose": np.full((4, 4, 4), np.nan)}, "reference pose is not a finite 4x4 matrix for every joint: reset"),
    ({"projection": np.zeros((4, 4))}, "projection has shape"),
]


@pytest.mark.parametrize("changes,message", BAD_REFERENCES)
def test_bad_references(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Reference(**reference_values(**changes))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", without(REFERENCE_JSON, "image"), json.dumps(json.loads(REFERENCE_JSON) | {"image": "!"}),
     json.dumps(json.loads(REFERENCE_JSON) | {"image": "AAAA"}), json.dumps(json.loads(REFERENCE_JSON) | {"image": ""}),
     json.dumps(json.loads(REFERENCE_JSON) | {"azimuth": None})],
)  # fmt: skip
def test_text_that_is_not_a_reference(text: str):
    with pytest.raises(UserError, match="not a reference written by AnyRig"):
        Reference.from_json(text)


BAD_MOTIONS = [
    ({key: np.zeros((0, *motion_values()[key].shape[1:])) for key in ("times", "rotations", "positions", "boxes", "confidence")},
     "has no frames"),
    ({"rotations": np.zeros((3, 2, 3))}, r"rotations have shape \(3, 2, 3\), expected \(3, 2, 4\)"),
    ({"positions": np.zeros((2, 2, 3))}, "positions have shape"),
    ({"boxes": np.zeros((3, 2))}, "boxes have shape"),
    ({"confidence": np.zeros(3)}, "confidence have shape"),
    ({"names": ("root",)}, "rotations have shape"),
    ({"rotations": with_value(motion_values()["rotations"], (1, 0, 2), np.nan)}, "Frame 1: the take's rotations are not finite"),
    ({"positions": with_value(motion_values()["positions"], (2, 0, 2), np.inf)}, "Frame 2: the take's positions"),
    ({"times": np.array([0, np.nan, 1])}, "Frame 1: the take's times"),
    ({"times": np.array([0, 0.5, 0.5])}, "times do not increase"),
]  # fmt: skip


@pytest.mark.parametrize("changes,message", BAD_MOTIONS)
def test_bad_motions(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Motion(**motion_values(**changes))


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", without(MOTION_JSON, "boxes"), MOTION_JSON.replace("{", '{"more": 1, ', 1)]
)
def test_text_that_is_not_a_take(text: str):
    with pytest.raises(UserError, match="not a take written by AnyRig"):
        Motion.from_json(text)


def test_files_that_are_not_takes(tmp_path: Path):
    Motion(**motion_values()).save(tmp_path / "good.npz")
    good = (tmp_path / "good.npz").read_bytes()
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(tmp_path / "other.npz", times=np.zeros(3))
    with np.load(tmp_path / "good.npz") as data:
        np.savez(tmp_path / "broken.npz", **{**data, "provenance": np.array("{")})
        np.savez(tmp_path / "single.npz", **{**data, "names": np.array("root")})
    entry = good.find(b"PK\x01\x02")  # what the zip's directory says of the first array
    for name, content in {
        "empty": b"",
        "text": b"hello",
        "later": good[: entry + 6] + b"\x63" + good[entry + 7 :],
        "locked": good[: entry + 8] + b"\x01" + good[entry + 9 :],
        "packed": good[: entry + 10] + b"\x63" + good[entry + 11 :],
        "cut": good[: len(good) // 2],
        "torn": good[:80] + b"?" * 40 + good[120:],
    }.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    for name in ("array", "other", "broken", "single", "empty", "text", "later", "locked", "packed", "cut", "torn"):
        with pytest.raises(UserError, match=f"{name}.npz' is not a take written by AnyRig"):
            Motion.load(tmp_path / f"{name}.npz")
    with pytest.raises(UserError, match="nowhere.npz' cannot be read"):
        Motion.load(tmp_path / "nowhere.npz")
    with pytest.raises(UserError, match="cannot be written"):
        Motion(**motion_values()).save(tmp_path / "none" / "take.npz")


def test_pickles_are_refused(tmp_path: Path):
    """A take may come from a stranger: loading it must never run code."""
    with np.load(_saved(tmp_path)) as data:
        np.savez(tmp_path / "evil.npz", **{**data, "names": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(UserError, match="not a take"):
        Motion.load(tmp_path / "evil.npz")


def _saved(folder: Path) -> Path:
    Motion(**motion_values()).save(folder / "take.npz")
    return folder / "take.npz"


NAN = float("nan")
BAD_CLIPS = [
    ({"speed": 0}, "speed factor is 0: it must be above zero"), ({"speed": NAN}, "speed"), ({"speed": float("inf")}, "speed"),
    ({"fps": 0}, "frame rate is 0"), ({"fps": -1}, "frame rate is -1"), ({"fps": NAN}, "frame rate"),
    ({"start": 2, "end": 1}, "ends at 1 s, before it starts at 2 s"), ({"start": 2, "end": 2}, "ends at 2 s"),
    ({"end": NAN}, "trim range"), ({"start": -1}, "starts at -1 s"), ({"start": NAN}, "starts at nan s"),
    ({"box": (5, 0, 5, 9)}, "box is empty"), ({"box": (0, 9, 5, 0)}, "box is empty"), ({"box": (1, 2)}, "box is empty"),
    ({"box": (0, 0, NAN, 1)}, "box is empty"),
]  # fmt: skip


@pytest.mark.parametrize("changes,message", BAD_CLIPS)
def test_bad_clips(changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        replace(Clip("a.mp4"), **changes)


@pytest.mark.parametrize("changes", [{"device": "tpu"}, {"precision": "half"}, {"heading": "north"}, {"batch": -1}])
def test_bad_settings(changes: dict[str, Any]):
    with pytest.raises(UserError, match=next(iter(changes))):
        Settings(**changes)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"colour": 1}', '"a"'])
def test_text_that_is_neither_clip_nor_settings(text: str):
    with pytest.raises(UserError, match="not a clip written by AnyRig"):
        Clip.from_json(text)
    with pytest.raises(UserError, match="not settings written by AnyRig"):
        Settings.from_json(text)

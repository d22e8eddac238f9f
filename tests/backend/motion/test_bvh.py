"""BVH: a written file reads back as it was; any well-formed file is read; every bad one is refused with its line number."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import (
    axis_angle_to_matrix,
    geodesic_angle,
    matrix_to_quaternion,
    quaternion_to_matrix,
)
from anyrig.backend.motion.bvh import read_bvh, write_bvh
from anyrig.backend.motion.motion import Motion, fk_heads
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import global_to_local, leaf_joints, local_to_global, network_axes, skeleton_of
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ("root", "Left Arm", "50%20{x}", "Knochen.Ä", "tab\tname", "leaf", "prop")


def make_rig(seed: int = 0, scale: float = 1.0, names: tuple[str, ...] = NAMES) -> Rig:
    """Seven joints in breadth-first order, oblique rest frames, a slanted object; the last one translates."""
    random = np.random.default_rng(seed)
    count = len(names)
    rest = np.tile(np.eye(4), (count, 1, 1))
    rest[:, :3, :3] = quaternion_to_matrix(random.normal(size=(count, 4)))
    rest[:, :3, 3] = scale * random.normal(size=(count, 3))
    return Rig(
        "rig", names, np.array([-1, 0, 0, 1, 2, 3, 0])[:count], rest, rest[:, :3, 3] + scale * random.normal(size=(count, 3)),
        np.arange(count) == 6, np.zeros(count, bool), quaternion_to_matrix(random.normal(size=4)),
    )  # fmt: skip


def make_motion(rig: Rig, local: np.ndarray, scale: float = 1.0, times: np.ndarray | None = None) -> Motion:
    """L in the network's axes -> a take; predicted positions are noise, which only joints that translate may follow."""
    axes = network_axes(rig)
    rotations = axes.T @ local_to_global(rig.parents, local) @ axes
    frames, joints = local.shape[:2]
    positions = scale * np.random.default_rng(9).normal(size=(frames, joints, 3))
    positions[:, 0] = 0
    times = np.arange(frames) / 25 if times is None else times
    return Motion(rig.names, times, matrix_to_quaternion(rotations), positions, np.zeros((frames, 4)), np.ones((frames, joints)))


def random_local(frames: int, joints: int, seed: int = 1) -> np.ndarray:
    return quaternion_to_matrix(np.random.default_rng(seed).normal(size=(frames, joints, 4)))


def read_back(path: Path, rig: Rig) -> tuple[Rig, np.ndarray, np.ndarray, np.ndarray]:
    """-> (rig, L, heads (T, J, 3) in the file's axes, index of the rig's joints in the file)."""
    back, pose, _ = read_bvh(path)
    index = [back.names.index(name) for name in rig.names]
    return back, global_to_local(back.parents, back.rotations(pose))[:, index], pose[..., :3, 3][:, index], np.array(index)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_a_written_file_reads_back(tmp_path: Path, scale: float):
    rig = make_rig(scale=scale)
    local = random_local(20, 7)
    motion = make_motion(rig, local, scale)
    root = scale * np.random.default_rng(3).normal(size=(20, 3))
    write_bvh(tmp_path / "take.bvh", rig, motion, root)
    back, turned, heads, index = read_back(tmp_path / "take.bvh", rig)
    axes = network_axes(rig)
    assert geodesic_angle(turned, local).max() < 1e-6
    assert np.abs(heads - (fk_heads(rig, motion) + (root @ axes.T)[:, None])).max() < 1e-6 * scale
    assert np.abs(back.heads[index] - rig.heads @ axes.T).max() < 1e-6 * scale
    leaves = leaf_joints(rig.parents)
    assert np.abs(back.tails[index][leaves] - rig.tails[leaves] @ axes.T).max() < 1e-6 * scale
    assert back.names == ("root", "Left Arm", "Knochen.Ä", "leaf", "50%20{x}", "tab\tname", "prop")  # depth first
    assert back.translates[index].tolist() == rig.translates.tolist()
    assert [back.names[back.parents[j]] for j in index[1:]] == [rig.names[p] for p in rig.parents[1:]]
    assert np.allclose(network_axes(back), np.eye(3))  # y is up in the file as it is for the network


def test_without_a_path_the_root_stays_where_it_rests(tmp_path: Path):
    rig = make_rig()
    write_bvh(tmp_path / "take.bvh", rig, make_motion(rig, random_local(3, 7)))
    assert np.allclose(read_back(tmp_path / "take.bvh", rig)[2][:, 0], rig.heads[0] @ network_axes(rig).T)


@settings(max_examples=60, deadline=None)
@given(st.integers(-2, 2), st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, -1e-7]), st.floats(-3, 3), st.floats(-3, 3))
def test_gimbal_lock_loses_nothing(tmp_path_factory: pytest.TempPathFactory, quarter: int, nudge: float, z: float, y: float):
    rig = make_rig()
    local = np.tile(np.eye(3), (4, 7, 1, 1))
    about = np.eye(3)
    middle = axis_angle_to_matrix(about[0], quarter * np.pi / 2 + nudge)
    local[1:, 3] = axis_angle_to_matrix(about[2], z) @ middle @ axis_angle_to_matrix(about[1], y)
    path = tmp_path_factory.mktemp("gimbal") / "take.bvh"
    write_bvh(path, rig, make_motion(rig, local))
    assert geodesic_angle(read_back(path, rig)[1], local).max() < 1e-6


def test_angles_are_continuous_through_every_turn(tmp_path: Path):
    rig = make_rig()
    time = np.linspace(0, 1, 200)
    local = np.tile(np.eye(3), (200, 7, 1, 1))
    local[:, 1] = axis_angle_to_matrix(np.array([0.0, 0, 1]), 4 * np.pi * time)
    local[:, 2] = axis_angle_to_matrix(np.array([1.0, 0, 0]), 4 * np.pi * time)  # twice through gimbal lock
    local[:, 3] = axis_angle_to_matrix(np.array([0.0, 1, 0]), -4 * np.pi * time)
    write_bvh(tmp_path / "take.bvh", rig, make_motion(rig, local))
    rows = [line.split() for line in (tmp_path / "take.bvh").read_text().splitlines()[-200:]]
    angles = np.array(rows, float)[:, 3:]  # without the root's path
    angles = angles[:, np.ptp(angles, axis=0) > 700]
    assert angles.shape[1] == 3  # two full turns each, in one channel each, and no jump
    assert np.abs(np.diff(angles, axis=0)).max() < 4


def test_gimbal_lock_keeps_the_angle_of_the_frame_before(tmp_path: Path):
    rig, about = make_rig(), np.eye(3)
    local = np.tile(np.eye(3), (5, 7, 1, 1))
    tilt = axis_angle_to_matrix(about[0], np.deg2rad([70.0, 80, 90, 90, 100]))
    local[:, 0] = axis_angle_to_matrix(about[2], np.deg2rad(60.0)) @ tilt
    write_bvh(tmp_path / "take.bvh", rig, make_motion(rig, local))
    rows = [line.split() for line in (tmp_path / "take.bvh").read_text().splitlines()[-5:]]
    assert np.allclose(np.array(rows, float)[:, 3:6], [[60, x, 0] for x in (70, 80, 90, 90, 100)], atol=1e-5)


def test_frame_time_and_single_frame(tmp_path: Path):
    rig = make_rig()
    write_bvh(tmp_path / "a.bvh", rig, make_motion(rig, random_local(5, 7), times=2 + np.arange(5) / 23.976))
    assert read_bvh(tmp_path / "a.bvh")[2] == pytest.approx(1 / 23.976, abs=1e-8)
    write_bvh(tmp_path / "b.bvh", rig, make_motion(rig, random_local(1, 7)))
    assert read_bvh(tmp_path / "b.bvh")[1].shape[0] == 1


def test_millisecond_timestamps_keep_every_frame_untouched(tmp_path: Path):
    rig = make_rig()
    local = random_local(30, 7)
    write_bvh(tmp_path / "a.bvh", rig, make_motion(rig, local, times=np.round(np.arange(30) / 29.97, 3)))
    assert geodesic_angle(read_back(tmp_path / "a.bvh", rig)[1], local).max() < 1e-6


def test_a_varying_rate_is_resampled_to_the_median_rate(tmp_path: Path):
    rig = make_rig()
    times = np.delete(np.arange(21) / 20, [3, 4, 11])  # dropped frames
    local = np.tile(np.eye(3), (len(times), 7, 1, 1))
    local[:, 0] = axis_angle_to_matrix(np.array([0.0, 1, 0]), 5 * times)
    root = times[:, None] * np.array([1.0, 2, 3])
    motion = make_motion(rig, local, times=times)
    signs = np.where(np.arange(len(times)) % 3, 1, -1)  # both signs of a quaternion are the same turn
    write_bvh(tmp_path / "a.bvh", rig, replace(motion, rotations=motion.rotations * signs[:, None, None]), root)
    back, turned, heads, _ = read_back(tmp_path / "a.bvh", rig)
    steady = np.arange(21) / 20
    assert read_bvh(tmp_path / "a.bvh")[2] == pytest.approx(1 / 20)
    assert geodesic_angle(turned[:, 0], axis_angle_to_matrix(np.array([0.0, 1, 0]), 5 * steady)).max() < 1e-6
    assert np.abs(heads[:, 0] - steady[:, None] * (network_axes(rig) @ np.array([1.0, 2, 3]))).max() < 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=3, max_size=7, unique=True))
def test_every_name_survives(tmp_path_factory: pytest.TempPathFactory, names: list[str]):
    rig = make_rig(names=tuple(names))
    path = tmp_path_factory.mktemp("names") / "take.bvh"
    write_bvh(path, rig, make_motion(rig, random_local(2, len(names))))
    text = path.read_text(encoding="utf-8")
    heads = [line for line in text.split("\n") if line.strip().startswith(("ROOT", "JOINT"))]
    assert all(len(head.split()) == 2 for head in heads)  # one word each, for readers that split at blanks
    assert sorted(read_bvh(path)[0].names) == sorted(names)


def test_a_deep_chain(tmp_path: Path):
    count = 3000
    rest = np.tile(np.eye(4), (count, 1, 1))
    rest[:, 2, 3] = np.arange(count)
    none = np.zeros(count, bool)
    rig = Rig("snake", tuple(f"s{i}" for i in range(count)), np.arange(count) - 1, rest, rest[:, :3, 3] + [0, 0, 1], none, none)
    write_bvh(tmp_path / "a.bvh", rig, make_motion(rig, np.tile(np.eye(3), (1, count, 1, 1))))
    back = read_bvh(tmp_path / "a.bvh")[0]
    assert back.names == rig.names
    assert np.allclose(back.heads, rig.heads @ network_axes(rig).T)
    assert np.allclose(skeleton_of(back).rest, skeleton_of(rig).rest)


FOREIGN = """\
HIERARCHY
ROOT Hips {
  OFFSET 0 10 0
  CHANNELS 6 Yrotation Xposition Zrotation Yposition Xrotation Zposition
  JOINT Left Leg
  {
    CHANNELS 2 zrotation XPOSITION
    OFFSET 1 -2 0
    End Site
    {
      OFFSET 0 -3 0
    }
  }
  JOINT Spine
  {
    OFFSET 0 4 0
    CHANNELS 3 Xrotation Yrotation Xrotation
    JOINT Tail
    {
      OFFSET 0 1 0
    }
    JOINT Tail
    {
      OFFSET 0 1 2
    }
  }
}
MOTION
Frames:\t2
Frame  Time: .04

0 0 0 10 0 0   0 1   0 0 0
90 5 0 11 0 7   90 3   30 90 60
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_any_channel_order_and_positions_on_any_joint(tmp_path: Path):
    rig, pose, frame_time = read_bvh(write(tmp_path / "walker.bvh", FOREIGN))
    assert rig.name == "walker" and frame_time == 0.04
    assert rig.names == ("Hips", "Left Leg", "Spine", "Tail", "Tail.001")
    assert rig.parents.tolist() == [-1, 0, 0, 2, 2]
    assert rig.translates.tolist() == [False, True, False, False, False]
    assert rig.heads.tolist() == [[0, 10, 0], [1, 8, 0], [0, 14, 0], [0, 15, 0], [0, 15, 2]]
    assert rig.tails.tolist() == [[0.5, 11, 0], [1, 5, 0], [0, 15, 1], [0, 15, 0], [0, 15, 2]]
    assert np.allclose(rig.world @ [0, 1, 0], [0, 0, 1])  # the file's y is up
    assert np.allclose(pose[0], rig.rest)
    # the hips turn by 90 degrees about y, which takes x to -z and z to x
    assert np.allclose(pose[1, 0, :3, :3] @ [1, 0, 0], [0, 0, -1])
    assert np.allclose(pose[1, :3, :3, 3], [[5, 11, 7], [5, 9, 4], [5, 15, 7]])
    # the leg turns about z (x to y) within the turned hips
    assert np.allclose(pose[1, 1, :3, :3] @ [1, 0, 0], [0, 1, 0])
    x, y = np.eye(3)[:2]
    local = [axis_angle_to_matrix(axis, np.deg2rad(angle)) for axis, angle in ((x, 30), (y, 90), (x, 60))]
    assert np.allclose(pose[1, 2, :3, :3], pose[1, 0, :3, :3] @ local[0] @ local[1] @ local[2])


@pytest.mark.parametrize("name", ["Left Arm%20", "x%41", "100%", "%zz", "a%2", "%25%41"])
def test_names_that_we_would_not_write_stay_as_they_are(tmp_path: Path, name: str):
    assert read_bvh(write(tmp_path / "a.bvh", FOREIGN.replace("Spine", name)))[0].names[2] == name


def test_bytes_of_other_systems(tmp_path: Path):
    plain = read_bvh(write(tmp_path / "plain.bvh", FOREIGN))
    for name, content in (
        ("windows", b"\xef\xbb\xbf" + FOREIGN.replace("\n", "\r\n").encode()),
        ("mac", FOREIGN.replace("\n", "\r").encode()),
        ("latin", FOREIGN.replace("Spine", "R\u00fccken").encode("latin-1")),
    ):
        (tmp_path / f"{name}.bvh").write_bytes(content)
        rig, pose, _ = read_bvh(tmp_path / f"{name}.bvh")
        assert np.array_equal(pose, plain[1])
        assert rig.names[2] == ("R\u00fccken" if name == "latin" else "Spine")


def test_of_several_roots_the_largest_leads(tmp_path: Path):
    prop = "ROOT Sword\n{\nOFFSET 3 0 0\nCHANNELS 3 Xposition Yposition Zposition\nEnd Site\n{\nOFFSET 0 1 0\n}\n}\n"
    text = FOREIGN.replace("ROOT Hips", prop + "ROOT Hips").replace("0 0 0 10", "3 0 0  0 0 0 10").replace("90 5", "8 9 7 90 5")
    rig, pose, _ = read_bvh(write(tmp_path / "two.bvh", text))
    assert rig.names[0] == "Hips" and rig.names[-1] == "Sword"
    assert rig.parents.tolist() == [-1, 0, 0, 2, 2, 0]
    assert rig.translates.tolist() == [False, True, False, False, False, True]
    assert rig.heads[5].tolist() == [3, 0, 0] and rig.tails[5].tolist() == [3, 1, 0]
    assert pose[1, 5, :3, 3].tolist() == [8, 9, 7] and np.allclose(pose[1, 5, :3, :3], np.eye(3))
    assert np.allclose(pose[1, 0, :3, 3], [5, 11, 7])


def test_a_rest_pose_without_frames(tmp_path: Path):
    text = FOREIGN.split("Frames:")[0] + "Frames: 0\nFrame Time: 0.04\n"
    rig, pose, _ = read_bvh(write(tmp_path / "rest.bvh", text))
    assert pose.shape == (0, 5, 4, 4) and not rig.translates.any()


BAD = [
    ("HIERARCHY\n", "HIERARCHI\n", 1, "HIERARCHY"),
    ("OFFSET 1 -2 0", "OFFSET 1 -2", 8, "OFFSET has 2 numbers"),
    ("OFFSET 1 -2 0", "OFFSET 1 two 0", 8, "'two' is not a number"),
    ("OFFSET 1 -2 0", "OFFSET 1 nan 0", 8, "not a finite number"),
    ("    OFFSET 1 -2 0\n", "", 12, "joint 'Left Leg' has no OFFSET"),
    ("CHANNELS 2", "CHANNELS 3", 7, "announces '3' channels but names 2"),
    ("CHANNELS 2", "CHANNELS", 7, "channel 'xposition' is unknown|announces"),
    ("CHANNELS 2 zrotation", "CHANNELS 2 Wrotation", 7, "channel 'wrotation' is unknown"),
    ("OFFSET 0 4 0", "CHANNELS 1 Xrotation", 17, "has CHANNELS twice"),
    ("  JOINT Spine", "  ROOT Spine", 14, "inside another joint"),
    ("  JOINT Spine", "  JOINT", 14, "the JOINT has no name"),
    ("  JOINT Spine", "  JOIN Spine", 14, "'JOIN' is not a BVH keyword"),
    ("  JOINT Spine\n  {", "  JOINT Spine", 15, "expected before 'OFFSET 0 4 0'"),
    ("  JOINT Spine\n", "", 14, "without a joint"),
    ("ROOT Hips {", "JOINT Hips {", 2, "outside of a ROOT"),
    ("ROOT Hips {\n", "}\n", 2, "outside of a ROOT"),
    ("      OFFSET 0 -3 0", "      JOINT x", 11, "inside an End Site"),
    ("  }\n}\nMOTION", "  }\nMOTION", 27, "do not match"),
    ("Frames:\t2", "Frames 2", 29, "'Frames:' and a number"),
    ("Frames:\t2", "Frames: 2.5", 29, "whole number"),
    ("Frames:\t2", "Frames: 3", 33, "announces 3 frames and has 2"),
    ("Frames:\t2", "Frames: 1", 33, "announces 1 frames and has 2"),
    ("Frame  Time: .04", "Frame Rate: 25", 30, "'Frame Time:' and a number"),
    ("Frame  Time: .04", "Frame Time: 0", 30, "above zero"),
    ("30 90 60", "30 90", 33, "has 10 values and the joints have 11 channels"),
    ("30 90 60", "30 90 1.#IND", 33, "'1.#IND' is not a number"),
    ("30 90 60", "30 90 inf", 33, "'inf' is not a finite number"),
]


@pytest.mark.parametrize("good,bad,line,message", BAD)
def test_bad_files_are_refused_with_their_line(tmp_path: Path, good: str, bad: str, line: int, message: str):
    assert good in FOREIGN
    path = write(tmp_path / "bad.bvh", FOREIGN.replace(good, bad, 1))
    with pytest.raises(UserError, match=rf"bad.bvh', line {line}: .*({message})"):
        read_bvh(path)


@pytest.mark.parametrize("lines", range(33))
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, lines: int):
    path = write(tmp_path / "cut.bvh", "".join(FOREIGN.splitlines(keepends=True)[:lines]))
    with pytest.raises(UserError, match=r"cut.bvh', line \d+: "):
        read_bvh(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, len(FOREIGN)))
def test_no_bytes_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int):
    path = tmp_path_factory.mktemp("noise") / "noise.bvh"
    path.write_bytes(FOREIGN[:place].encode() + noise + FOREIGN[place:].encode())
    try:
        read_bvh(path)
    except UserError as error:
        assert "line " in str(error)


def test_other_errors(tmp_path: Path):
    rig, other = make_rig(), make_rig(names=NAMES[:3])
    motion = make_motion(rig, random_local(2, 7))
    with pytest.raises(UserError, match="nowhere.bvh' cannot be read"):
        read_bvh(tmp_path / "nowhere.bvh")
    with pytest.raises(UserError, match="cannot be written"):
        write_bvh(tmp_path / "none" / "take.bvh", rig, motion)
    with pytest.raises(UserError, match="other bones"):
        write_bvh(tmp_path / "take.bvh", other, motion)
    with pytest.raises(UserError, match="root's path"):
        write_bvh(tmp_path / "take.bvh", rig, motion, np.zeros((3, 3)))

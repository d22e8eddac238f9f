"""Metrics on hand-made takes whose errors are known in closed form."""

import json

import numpy as np
import pytest
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion, fk_heads
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import local_to_global
from anyrig.backend.train.evaluation.metrics import jerk_ratio, measure_motion, summarise

FRAMES = 5
X, Z = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


def rig_of(translates=(), static=(), count=4, world=None) -> Rig:
    """A straight chain upwards, bones two units long with oblique rest frames; z up unless `world` says otherwise."""
    rest = np.tile(np.eye(4), (count, 1, 1))
    rest[:, 2, 3] = 2.0 * np.arange(count)
    rest[:, :3, :3] = axis_angle_to_matrix(np.array([1.0, 2.0, 3.0]), np.linspace(0.3, 2.0, count))
    marks = np.arange(count)
    return Rig(
        "chain", tuple(f"b{i}" for i in range(count)), marks - 1, rest, rest[:, :3, 3] + 2 * Z,
        np.isin(marks, translates), np.isin(marks, static), np.eye(3) if world is None else world,
    )  # fmt: skip


def pose_of(rig: Rig, local: np.ndarray, heads: np.ndarray | None = None) -> np.ndarray:
    """L (T, J, 3, 3) in armature axes -> joint matrices; heads by kinematics unless given."""
    rotations = local_to_global(rig.parents, local)
    pose = np.tile(np.eye(4), (*rotations.shape[:2], 1, 1))
    pose[..., :3, :3] = rotations @ rig.rest_rotations
    for joint in range(1, len(rig.names)):
        offset = rig.heads[joint] - rig.heads[rig.parents[joint]]
        pose[:, joint, :3, 3] = pose[:, joint - 1, :3, 3] + rotations[:, joint - 1] @ offset
    if heads is not None:
        pose[..., :3, 3] = heads
    return pose


def take(rig: Rig, local: np.ndarray, positions: np.ndarray | None = None) -> Motion:
    pose = pose_of(rig, local)
    frames, joints = local.shape[:2]
    return Motion(
        rig.names, np.arange(frames) / 10, matrix_to_quaternion(local_to_global(rig.parents, local)),
        pose[..., :3, 3] - pose[:, :1, :3, 3] if positions is None else positions,
        np.zeros((frames, 4)), np.ones((frames, joints)),
    )  # fmt: skip


def turned(joint: int, degrees: float | np.ndarray, axis=X, frames=FRAMES, joints=4) -> np.ndarray:
    """L that is the identity but for one joint."""
    local = np.tile(np.eye(3), (frames, joints, 1, 1))
    local[:, joint] = axis_angle_to_matrix(axis, np.broadcast_to(np.deg2rad(degrees), frames))
    return local


def still(rig: Rig) -> np.ndarray:
    return pose_of(rig, turned(0, 0.0, frames=1, joints=len(rig.names)))[0]


def test_perfect_take():
    rig, ramp = rig_of(), 10.0 * np.arange(FRAMES)
    truth = turned(1, ramp)
    row = measure_motion(rig, take(rig, truth), pose_of(rig, truth), still(rig))
    zero = ("angle_deg", "root_angle_deg", "mpjpe_cm", "fk_mpjpe_cm", "mpjve_cm", "angular_velocity_deg", "heading_deg")
    assert all(row[key] == pytest.approx(0, abs=1e-6) for key in zero)
    assert row["liveness"] == pytest.approx(1)
    assert row["copy_angle_deg"] == pytest.approx(20 / 4)
    # joints 2 and 3 hang 2 and 4 units from joint 1; the scale is 6 units = 50 cm; chord = 2 r sin(angle / 2)
    chords = 2 * np.sin(np.deg2rad(ramp) / 2).mean() * (2 + 4) / 4
    assert row["copy_mpjpe_cm"] == pytest.approx(chords * 50 / 6)
    assert (row["frames"], row["joints"]) == (FRAMES, 4)
    json.dumps(row, allow_nan=False)


def test_only_the_turned_joint_counts_not_its_children():
    rig = rig_of()
    row = measure_motion(rig, take(rig, turned(1, 12.0)), pose_of(rig, turned(1, 0.0)), still(rig))
    assert row["angle_deg"] == pytest.approx(12 / 4)
    assert row["copy_angle_deg"] == pytest.approx(0, abs=1e-6)
    assert row["root_angle_deg"] == pytest.approx(0, abs=1e-6)
    assert row["fk_mpjpe_cm"] == pytest.approx(2 * np.sin(np.deg2rad(6)) * 6 / 4 * 50 / 6)
    assert row["liveness"] == 1.0  # neither moves


@pytest.mark.parametrize("axis,heading", [(Z, 25.0), (X, 0.0)])
def test_heading_is_the_yaw_of_the_root_alone(axis, heading):
    rig = rig_of()
    row = measure_motion(rig, take(rig, turned(0, -25.0, axis)), pose_of(rig, turned(0, 0.0)), still(rig))
    assert row["root_angle_deg"] == pytest.approx(25)
    assert row["heading_deg"] == pytest.approx(heading, abs=1e-6)


def test_heading_follows_the_world_not_the_armature():
    # armature space is y up: world = the turn that takes y to z
    rig = rig_of(world=np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]))
    row = measure_motion(rig, take(rig, turned(0, 25.0, np.array([0, 1.0, 0]))), pose_of(rig, turned(0, 0.0)), still(rig))
    assert row["heading_deg"] == pytest.approx(25)


def test_heading_is_in_world_axes_when_the_root_is_turned():
    rig = rig_of()
    truth = turned(0, 80.0, X)
    predicted = truth.copy()
    predicted[:, 0] = axis_angle_to_matrix(Z, np.deg2rad(30.0)) @ truth[:, 0]
    row = measure_motion(rig, take(rig, predicted), pose_of(rig, truth), still(rig))
    assert row["heading_deg"] == pytest.approx(30)


def test_angular_velocity_is_local_and_ignores_a_constant_error():
    rig, ramp = rig_of(), 10.0 * np.arange(FRAMES)
    row = measure_motion(rig, take(rig, turned(2, 1.5 * ramp + 7)), pose_of(rig, turned(2, ramp)), still(rig))
    assert row["angular_velocity_deg"] == pytest.approx(5 / 4)
    row = measure_motion(rig, take(rig, turned(2, ramp + 7)), pose_of(rig, turned(2, ramp)), still(rig))
    assert row["angular_velocity_deg"] == pytest.approx(0, abs=1e-6)


def test_angular_velocity_is_measured_in_the_joints_own_axes():
    """A wrong but constant turn before the true one leaves L_t^T L_t+1 as it is; after it, it does not."""
    rig, truth, wrong = rig_of(), turned(0, 10.0 * np.arange(FRAMES)), axis_angle_to_matrix(Z, np.deg2rad(90.0))
    before, after = truth.copy(), truth.copy()
    before[:, 0], after[:, 0] = wrong @ truth[:, 0], truth[:, 0] @ wrong
    rows = [measure_motion(rig, take(rig, local), pose_of(rig, truth), still(rig)) for local in (before, after)]
    assert rows[0]["angular_velocity_deg"] == pytest.approx(0, abs=1e-6)
    assert rows[1]["angular_velocity_deg"] > 3


def test_predicted_positions_and_what_the_rig_does_are_told_apart():
    rig = rig_of()
    truth = turned(0, 0.0)
    positions = take(rig, truth).positions.copy()
    positions[:, 3, 0] += 3.0
    row = measure_motion(rig, take(rig, truth, positions), pose_of(rig, truth), still(rig))
    assert row["mpjpe_cm"] == pytest.approx(3 / 4 * 50 / 6)
    assert row["fk_mpjpe_cm"] == pytest.approx(0, abs=1e-6)


def test_a_translating_joint_takes_its_position_and_carries_its_children():
    rig = rig_of(translates=[2])
    truth = turned(0, 0.0)
    positions = take(rig, truth).positions.copy()
    positions[:, 2:, 0] += np.arange(FRAMES)[:, None] * np.array([1.0, 50.0])  # the child's own prediction is not used
    motion = take(rig, truth, positions)
    assert fk_heads(rig, motion)[:, 2, 0] == pytest.approx(np.arange(FRAMES))
    assert fk_heads(rig, motion)[:, 3, 0] == pytest.approx(np.arange(FRAMES))
    row = measure_motion(rig, motion, pose_of(rig, truth), still(rig))
    assert row["mpjve_cm"] == pytest.approx(2 / 4 * 50 / 6)
    assert row["travel_cm"] == pytest.approx(2 / 4 * 50 / 6)


def test_static_and_translating_joints_stay_out_of_the_angles():
    rig = rig_of(translates=[3], static=[2])
    predicted = turned(2, 40.0) @ turned(3, 60.0) @ turned(0, 10.0)
    row = measure_motion(rig, take(rig, predicted), pose_of(rig, turned(0, 0.0)), still(rig))
    assert row["angle_deg"] == pytest.approx(10 / 2)


def test_liveness_is_predicted_over_true_travel():
    rig = rig_of()
    small, large = turned(1, [0, 10, 0, 10, 0]), turned(1, [0, 20, 0, 20, 0])
    row = measure_motion(rig, take(rig, small), pose_of(rig, large), still(rig))
    assert row["liveness"] == pytest.approx(np.sin(np.deg2rad(5)) / np.sin(np.deg2rad(10)))
    assert row["true_travel_cm"] == pytest.approx(2 * np.sin(np.deg2rad(10)) * 6 / 4 * 50 / 6)


def test_units_and_place_of_the_rig_do_not_matter():
    rig, truth = rig_of(), pose_of(rig_of(), turned(1, 10.0 * np.arange(FRAMES)))
    motion = take(rig, turned(1, 9.0 * np.arange(FRAMES)))
    rest, far = np.array(rig.rest), truth.copy()
    rest[:, :3, 3] *= 100
    far[..., :3, 3] = 100 * far[..., :3, 3] + np.arange(FRAMES)[:, None, None] * 7  # and the root travels
    big = Rig("big", rig.names, rig.parents, rest, rig.tails * 100, rig.translates, rig.static)
    large = Motion(rig.names, motion.times, motion.rotations, motion.positions * 100, motion.boxes, motion.confidence)
    assert measure_motion(big, large, far, rest) == pytest.approx(measure_motion(rig, motion, truth, still(rig)))


def test_one_frame_has_no_movement():
    rig = rig_of()
    row = measure_motion(rig, take(rig, turned(1, 5.0, frames=1)), pose_of(rig, turned(1, 0.0, frames=1)), still(rig))
    assert row["mpjve_cm"] == row["angular_velocity_deg"] == 0 and row["liveness"] == 1


def test_summaries_are_ratios_of_means():
    rows = [
        {"frames": 10, "joints": 4, "angle_deg": 1.0, "copy_angle_deg": 2.0, "mpjpe_cm": 1.0, "copy_mpjpe_cm": 1.0,
         "fk_mpjpe_cm": 2.0, "travel_cm": 1.0, "true_travel_cm": 2.0, "liveness": 0.5, "species": "Fox", "seen": True},
        {"frames": 30, "joints": 8, "angle_deg": 5.0, "copy_angle_deg": 6.0, "mpjpe_cm": 2.0, "copy_mpjpe_cm": 5.0,
         "fk_mpjpe_cm": 1.0, "travel_cm": 8.0, "true_travel_cm": 4.0, "liveness": 2.0, "species": "Bear", "seen": False},
    ]  # fmt: skip
    summary = summarise(rows)
    assert summary["angle_ratio"] == pytest.approx(6 / 8)
    assert summary["mpjpe_ratio"] == summary["fk_mpjpe_ratio"] == pytest.approx(3 / 6)
    assert summary["liveness"] == pytest.approx(9 / 6)
    assert summary["angle_deg"] == 3 and summary["frames"] == 40 and summary["clips"] == 2 and summary["joints"] == 6
    assert "species" not in summary and "seen" not in summary


def test_jerk_ratio():
    time = np.arange(8.0)
    cubic = np.stack([time**3, time, 0 * time], axis=-1)[:, None]
    assert jerk_ratio(3 * cubic, cubic) == pytest.approx(3)
    assert jerk_ratio(cubic**0 * time[:, None, None] ** 2, 0 * cubic) == 1.0  # steady acceleration has no jerk
    assert np.isfinite(jerk_ratio(cubic, 0 * cubic))
    assert jerk_ratio(cubic[:3], cubic[:3]) == 1.0


def test_errors():
    rig, other = rig_of(), rig_of(count=3)
    motion, truth = take(rig, turned(0, 0.0)), pose_of(rig, turned(0, 0.0))
    with pytest.raises(UserError, match="other bones"):
        measure_motion(other, motion, truth, still(rig))
    with pytest.raises(UserError, match="true motion"):
        measure_motion(rig, motion, truth[:3], still(rig))
    with pytest.raises(UserError, match="reference pose"):
        measure_motion(rig, motion, truth, truth)
    with pytest.raises(UserError, match="nothing to summarise"):
        summarise([])

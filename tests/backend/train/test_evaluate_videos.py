"""Measuring end to end, on videos of a point-splat rig in front of a textured wall."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from anyrig.backend.capture.pipeline import capture
from anyrig.backend.capture_settings import Settings
from anyrig.backend.errors import UserError
from anyrig.backend.geometry.camera import Camera, fit_distance, view_yaw
from anyrig.backend.progress import result_of
from anyrig.backend.rendering import point_splatting
from anyrig.backend.rendering.point_splatting import cloud_of, reference_views
from anyrig.backend.rig.rig import Target
from anyrig.backend.rig.skeleton import pose_to_network
from anyrig.backend.train.evaluation import evaluate_videos as evaluating
from anyrig.backend.train.evaluation.evaluate_packs import references, static_joints
from anyrig.backend.train.evaluation.evaluate_videos import (
    IK_FIGURES,
    box_overlap,
    capture_predictions,
    evaluate_videos,
    motion_from,
    reference_motion,
    with_v1_ik,
)
from anyrig.backend.train.evaluation.metrics import measure_motion, summarise
from anyrig.backend.train.packs.rendered_clips import RenderedClip, save_mattes, stem_of
from anyrig.backend.train.packs.rig_packs import Pack
from anyrig.backend.video.clip import Clip
from anyrig.backend.video.reader import write_video
from anyrig.backend.weights.model_file import Model, load_model

SIZE = 160
SETTINGS = Settings(refine="off", isnet="off")  # ISNet takes seconds an image


def render_video(pack: Pack, clip: str, folder: Path, azimuth: float = 0.6) -> Path:
    """A video and its description, as `build.py dev render` writes them, drawn from a point cloud before a wall of stones."""
    poses = pack.clips[clip]
    camera = Camera((0, 0.1, 0.7), fit_distance(2.6, 0.6), azimuth, 0.1, 0.6, SIZE, SIZE)
    cloud = cloud_of(pack.surface, pack.rig.rest)
    points, normals = cloud.skin(torch.as_tensor(poses))
    projection = torch.tensor(camera.projection, dtype=torch.float32)
    light = torch.tensor([0.3, -0.4, 0.8])
    drawn = point_splatting.render(
        points, normals, cloud.colours, projection, light, SIZE, SIZE, spacing=cloud.spacing, samples=2
    ).numpy()
    stones = np.kron(np.random.default_rng(0).uniform(0.55, 0.95, (20, 20, 1)), np.ones((8, 8, 3)))
    images = drawn[..., :3] * drawn[..., 3:] + stones * (1 - drawn[..., 3:])
    path = folder / f"{stem_of(pack.name, clip)}.mp4"
    write_video(path, (images * 255).round().astype(np.uint8), pack.fps)
    RenderedClip.by(camera, pack.name, clip, pack.fps, len(poses), {}).save(path.with_suffix(".json"))
    save_mattes(path, (drawn[..., 3] * 255).round().astype(np.uint8))
    return path


@pytest.fixture(scope="module")
def pack(make_pack: Callable[..., Pack]) -> Pack:
    """It walks across the image: what never leaves its place cannot be told from the wall."""
    made = make_pack("lizard", 2, 12)
    for poses in made.clips.values():
        poses[..., 0, 3] += np.linspace(-1.2, 1.2, 12)[:, None]
    return made


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return load_model("tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos")
    render_video(pack, "move 1", path)
    return path


@pytest.fixture(scope="module")
def rows(pack: Pack, model: Model, folder: Path) -> list[dict[str, object]]:
    return list(evaluate_videos(folder, [pack], [pack], "unseen", model, SETTINGS))


def test_rows(rows: list[dict[str, object]], pack: Pack) -> None:
    assert [(row["species"], row["split"], row["clip"], row["reference"]) for row in rows] == [
        ("lizard", "unseen", "move 1", "rest"),
        ("lizard", "unseen", "move 1", "action"),
    ]
    for row in rows:
        # the only head that moves belongs to a joint that keeps its local rotation, and does not count
        assert row["motion_correlation"] is None and row["kind"] == "locomotion"
        numbers = [value for value in row.values() if not isinstance(value, str) and value is not None]
        assert np.isfinite(np.array(numbers, dtype=float)).all()
        assert {f"{name}_{key}" for name in ("v1", "anchored") for key in IK_FIGURES} <= set(row)
        assert row["frames"] == 12 and row["error"] == ""
        assert row["liveness"] != row["v1_liveness"] != row["anchored_liveness"]
    assert {"v1_angle_deg", "heading_share", "jerk_ratio", "matte_iou", "overlap", "overlap_matte", "centred_mpjpe_ratio"} <= set(
        summarise(rows)
    )


def test_the_subject_is_compared_with_the_truth(rows: list[dict[str, object]]) -> None:
    assert rows[0]["lost_share"] == 0
    assert rows[0]["box_iou"] > 0.8 and rows[0]["matte_iou"] >= rows[0]["matte_iou_least"] > 0.75
    assert rows[0]["box_iou"] == rows[1]["box_iou"]


def test_figures_are_those_of_a_capture(rows: list[dict[str, object]], pack: Pack, folder: Path) -> None:
    """The same as the generator that the add-on runs gives, one reference at a time."""
    rig = replace(pack.rig, static=static_joints(pack))
    clip = Clip(str(next(folder.glob("*.mp4"))))
    for row, (_, pose) in zip(rows, references(pack, "move 1"), strict=True):
        views = reference_views(pack.rig, pack.surface, pose, evaluating.side_azimuths())
        [motion] = result_of(capture([Target(pack.rig, tuple(views))], clip, Settings(model="tiny", device="cpu", isnet="off")))
        figures = measure_motion(rig, motion, pack.clips["move 1"].astype(np.float64), pose)
        expected = {key: value for key, value in figures.items() if value is not None}
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_true_positions_leave_v1_only_the_twist(pack: Pack, model: Model, folder: Path) -> None:
    """A take with the true positions: V1 puts every joint where it is."""
    pose = references(pack, "move 1")[0][1]
    views = reference_views(pack.rig, pack.surface, pose, [0.6])
    stage1, [take] = capture_predictions(model, [Target(pack.rig, tuple(views))], Clip(str(next(folder.glob("*.mp4")))), SETTINGS)
    truth = pack.clips["move 1"].astype(np.float64)
    true = replace(take, position=pose_to_network(pack.rig, truth)[1] @ view_yaw(take.azimuth).T)
    row = measure_motion(pack.rig, motion_from(with_v1_ik(true), stage1.subject), truth, pose)
    assert row["fk_mpjpe_cm"] < 0.3 * row["copy_mpjpe_cm"]


def test_a_failed_capture_counts_as_copying(pack: Pack, model: Model, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("No subject was found.")

    monkeypatch.setattr(evaluating, "capture_predictions", fail)
    found = list(evaluate_videos(folder, [pack], [pack], "seen", model, SETTINGS))
    assert [row["error"] for row in found] == ["No subject was found."] * 2
    for row in found:
        assert row["angle_deg"] == pytest.approx(row["copy_angle_deg"]) and row["mpjpe_cm"] == pytest.approx(row["copy_mpjpe_cm"])
        assert row["v1_angle_deg"] == row["angle_deg"] and row["liveness"] == 0 and row["matte_iou"] == 0


def test_held_keeps_the_pose(pack: Pack) -> None:
    pose = pack.clips["move 0"][3].astype(np.float64)
    rendered = RenderedClip.by(Camera((0, 0, 0), 1.0), pack.name, "move 0", 24.0, 12, {})
    row = measure_motion(pack.rig, reference_motion(pack.rig, pose, rendered), np.tile(pose, (12, 1, 1, 1)), pose)
    assert row["angle_deg"] < 1e-3 and row["mpjpe_cm"] < 1e-3


def test_videos_of_other_splits_and_lengths(pack: Pack, model: Model, folder: Path) -> None:
    other = replace(pack, clips={"move 0": pack.clips["move 0"]})
    with pytest.raises(UserError, match="shows a clip of the seen split"):
        next(evaluate_videos(folder, [other], [pack], "seen", model, SETTINGS))
    shorter = replace(pack, clips={name: poses[:5] for name, poses in pack.clips.items()})
    with pytest.raises(UserError, match="has 12 frames, but its clip has 5"):
        next(evaluate_videos(folder, [shorter], [shorter], "seen", model, SETTINGS))


def test_overlaps_of_boxes() -> None:
    assert box_overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)
    assert box_overlap(np.array([0, 0, 1, 1.0]), np.array([2, 2, 3, 3.0])) == 0

"""The side of a video found by laying rough takes on it: a quadruped in its rest pose, which looks alike from all sides."""

import numpy as np
import pytest
import torch
from anyrig.backend.capture.memory_plan import compute_plan_of
from anyrig.backend.capture.side_fitting import APART, CANDIDATES, choose_side, few_frames, likely_views
from anyrig.backend.capture.view_matching import CLEAR_FRAMES, clear_frames
from anyrig.backend.capture_settings import Settings
from anyrig.backend.geometry.camera import SIDES, side_azimuths
from anyrig.backend.progress import result_of
from anyrig.backend.refine.footage import Footage
from anyrig.backend.rendering import point_splatting
from anyrig.backend.rig.rig import Target
from anyrig.backend.train.creatures.creatures import creature
from anyrig.backend.train.evaluation.evaluate_packs import splat_crops, splat_footage
from anyrig.backend.weights.model_file import Model, load_model

Scene = tuple[Target, Footage, int]
SIDE = SIDES // 4 + 1  # seen from a little before its left


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("tiny", torch.device("cpu"))


@pytest.fixture(scope="module")
def scene() -> Scene:
    pack = creature(13, "quadruped")
    views = point_splatting.reference_views(pack.rig, pack.surface, pack.rig.rest, side_azimuths(), size=64)
    cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest)
    poses = np.tile(pack.rig.rest, (4, 1, 1, 1)).astype(np.float32)
    window = splat_crops(cloud, poses, side_azimuths()[SIDE], 0.1)
    return Target(pack.rig, tuple(views), None, pack.surface), splat_footage(cloud, poses, window, 24.0), len(poses)


def chosen(model: Model, scene: Scene, likeness: np.ndarray) -> int:
    """The view chosen by these likenesses, with images that say nothing."""
    target, footage, frames = scene
    views, tokens = torch.zeros(SIDES, 196, 432), torch.zeros(frames, 196, 432)
    plan = compute_plan_of(torch.device("cpu"), model.config, Settings())
    return result_of(choose_side(model, plan, target, views, likeness, few_frames(tokens, footage, np.arange(frames))))


def test_the_silhouette_decides_between_sides_that_look_alike(model: Model, scene: Scene) -> None:
    likeness = np.full(SIDES, 0.4)
    likeness[[SIDE, SIDES - SIDE, (SIDE + 4) % SIDES]] = 0.5, 0.52, 0.51  # its mirror image looks a little more like it
    assert chosen(model, scene, likeness) == SIDE


def test_looks_decide_where_they_are_clear(model: Model, scene: Scene) -> None:
    likeness = np.full(SIDES, -1.0)
    likeness[SIDES - SIDE] = 1.0
    assert chosen(model, scene, likeness) == SIDES - SIDE


def test_a_single_view_is_taken_without_a_fit(model: Model, scene: Scene) -> None:
    target = Target(scene[0].rig, scene[0].references[:1])
    plan = compute_plan_of(torch.device("cpu"), model.config, Settings())
    film = few_frames(torch.zeros(4, 196, 432), scene[1], np.arange(4))
    work = choose_side(model, plan, target, torch.zeros(1, 196, 432), np.array([0.1]), film)
    with pytest.raises(StopIteration, match="0"):
        next(work)


def test_likely_views_are_apart(scene: Scene) -> None:
    target = scene[0]
    likeness = np.cos(np.array(side_azimuths()) - side_azimuths()[3])
    views = likely_views(target, likeness)
    assert views[0] == 3 and len(views) == CANDIDATES
    azimuths = np.array([target.references[view].azimuth for view in views])
    away = np.abs(np.angle(np.exp(1j * (azimuths[:, None] - azimuths))))
    assert (away[~np.eye(len(views), dtype=bool)] >= APART).all()


def test_clear_frames_are_the_most_certain_of_each_stretch() -> None:
    confidence = np.full(100, 0.5)
    confidence[[3, 57, 58]] = 0.9, 0.8, 0.9
    frames = clear_frames(confidence)
    assert len(frames) == CLEAR_FRAMES and 3 in frames and 58 in frames and 57 not in frames
    assert clear_frames(np.ones(4)).tolist() == [0, 1, 2, 3]

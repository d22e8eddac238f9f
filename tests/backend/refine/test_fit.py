"""The fit of a rig to mattes: a body that gradients pass through, evidence from mattes, and what the fit finds and leaves alone."""

import cv2
import numpy as np
import pytest
import torch
from anyrig.backend.geometry.rotations import axis_angle_to_matrix, matrix_to_quaternion
from anyrig.backend.motion.motion import Motion, fk_heads
from anyrig.backend.refine.body import body_of
from anyrig.backend.refine.evidence import evidence_of
from anyrig.backend.refine.fit import Fit, FitSettings
from anyrig.backend.refine.overlap import posed_points
from anyrig.backend.rendering.capsules import capsules
from anyrig.backend.rig.rig import Rig
from anyrig.backend.rig.skeleton import global_to_local, local_to_global, network_axes

FRAMES, SIZE, SCALE = 12, (240, 320), 60.0
SWING = np.array([0.0, 0, 0, 0.7, 0, -0.6, 0])  # radians that the legs swing by about the axis that points at the camera


def star() -> Rig:
    """A trunk with four limbs of one bone in the plane that the camera sees, and a head."""
    heads = np.array([[0, 0, 0], [0, 0, 0.8], [0, 0, 1.6], [0.3, 0, 0], [-0.3, 0, 0], [0.3, 0, 0.9], [-0.3, 0, 0.9]], float)
    ends = np.array(
        [[0, 0, 0.8], [0, 0, 1.6], [0, 0, 2.1], [0.6, 0, -1.2], [-0.6, 0, -1.2], [1.4, 0, 0.9], [-1.4, 0, 0.9]], float
    )
    rest = np.tile(np.eye(4), (7, 1, 1))
    rest[:, :3, 3] = heads
    nothing = np.zeros(7, bool)
    names = ("hips", "chest", "head", "leg.L", "leg.R", "arm.L", "arm.R")
    return Rig("star", names, np.array([-1, 0, 1, 0, 0, 1, 1]), rest, ends, nothing, nothing)


def swung(share: float, frames: int = FRAMES, swings: float = 1.0) -> np.ndarray:
    """(T, J, 3, 3) local rotations in armature axes: limbs that swing about y, towards the camera, by a share of SWING."""
    angles = share * np.sin(np.linspace(0, 2 * np.pi * swings, frames))[:, None] * SWING
    return axis_angle_to_matrix(np.broadcast_to([0.0, 1, 0], (frames, 7, 3)), angles)


def motion_of(rig: Rig, local: np.ndarray) -> Motion:
    rotations = matrix_to_quaternion(local_to_global(rig.parents, local))
    count = len(local)
    still = (np.arange(count) / 24, rotations, np.zeros((count, 7, 3)), np.zeros((count, 4)), np.ones((count, 7)))
    return Motion(rig.names, *still)


def mattes_of(points: np.ndarray) -> list[np.ndarray]:
    """Silhouettes of points (T, P, 3), x right and y up, standing in the middle of the image."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    mattes = []
    for frame in points:
        image = np.zeros(SIZE, np.uint8)
        places = np.rint(frame[:, :2] * (SCALE, -SCALE) + (160, 130)).astype(int)
        image[places[:, 1], places[:, 0]] = 255
        mattes.append(cv2.morphologyEx(image, cv2.MORPH_CLOSE, disc))
    return mattes


def fitted(take: np.ndarray, truth: np.ndarray, flow: bool = False) -> tuple[Fit, np.ndarray]:
    """The fit of a take to mattes of the truth, both local rotations in armature axes; and the angles (T, J) it bent joints by."""
    rig = star()
    surface, axes = capsules(rig, 4000), network_axes(rig)
    mattes = mattes_of(posed_points(rig, surface, motion_of(rig, truth)))
    evidence = evidence_of(mattes, np.ones(FRAMES), [np.dstack([matte] * 3) for matte in mattes] if flow else None)
    rotations = axes @ motion_of(rig, take).matrices @ axes.T  # the camera stands in front: its axes are the network's
    local = torch.tensor(global_to_local(rig.parents, rotations), dtype=torch.float32)
    fit = Fit(body_of(rig, surface, 800), evidence, local, torch.zeros(FRAMES, 7, 3), torch.ones(7), FitSettings())
    steps = list(fit.run())
    assert steps[-1] == (sum(FitSettings().steps),) * 2
    return fit, fit.bend().detach().norm(dim=-1).numpy()


def test_the_body_moves_as_the_rig_does() -> None:
    rig = star()
    surface, axes, motion = capsules(rig, 500), network_axes(rig), motion_of(rig, swung(1.0))
    body = body_of(rig, surface, 10**6)
    rotations = axes @ motion.matrices @ axes.T
    local = torch.tensor(global_to_local(rig.parents, rotations), dtype=torch.float32)
    found, heads = body.pose(local, torch.zeros(FRAMES, 7, 3))
    assert np.allclose(found.numpy(), rotations, atol=1e-5) and np.allclose(heads.numpy(), fk_heads(rig, motion), atol=1e-5)
    assert np.allclose(body.skin(found, heads).numpy(), posed_points(rig, surface, motion), atol=1e-4)


@pytest.mark.parametrize("flow", [False, True])
def test_still_limbs_swing_as_the_mattes_do(flow: bool) -> None:
    """The mean error of the limbs' directions, from a take that keeps still, falls to less than a half."""
    truth = swung(1.0)
    fit, _ = fitted(swung(0.0), truth, flow)
    with torch.no_grad():
        rotations = fit.pose()[0].numpy()
    rig = star()
    true = network_axes(rig) @ motion_of(rig, truth).matrices @ network_axes(rig).T
    bones = (rig.tails - rig.heads) @ network_axes(rig).T
    limbs = [3, 5]

    def error(found: np.ndarray) -> float:
        directions = (found[:, limbs] @ bones[limbs, :, None])[..., 0], (true[:, limbs] @ bones[limbs, :, None])[..., 0]
        cosine = (directions[0] * directions[1]).sum(-1) / np.prod([np.linalg.norm(d, axis=-1) for d in directions], axis=0)
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean())

    before = error(np.tile(np.eye(3), (FRAMES, 7, 1, 1)))
    assert before > 20 and error(rotations) < 0.5 * before


def test_a_perfect_take_is_left_alone() -> None:
    _, bent = fitted(swung(1.0), swung(1.0))
    assert np.degrees(bent).mean() < 0.5


def test_lost_frames_do_not_count() -> None:
    rig = star()
    mattes = mattes_of(posed_points(rig, capsules(rig, 2000), motion_of(rig, swung(0.0))))
    evidence = evidence_of([*mattes[:-1], np.zeros(SIZE, np.uint8)], np.ones(FRAMES))
    assert evidence.seen.tolist() == [1.0] * (FRAMES - 1) + [0.0] and not evidence.distance[-1].any()
    inside = evidence.outside(torch.tensor([[[160.0, 100.0], [20.0, 20.0]]]).expand(FRAMES, 2, 2))
    assert (inside[:-1, 0] == 0).all() and (inside[:-1, 1] > 50).all()

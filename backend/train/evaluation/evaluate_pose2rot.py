"""The second stage alone: rotations from true positions, and from disturbed ones, next to what geometry gives from the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from ...capture.inference import RigPrediction, motion_of
from ...capture.pipeline import run_pose2rot
from ...capture_settings import Settings
from ...geometry.camera import Camera, fit_distance, view_yaw
from ...geometry.rotations import Array, matrix_to_rot6d
from ...geometry.torch_kinematics import anchored_ik
from ...motion.motion import Motion
from ...progress import result_of
from ...rig.rig import Reference
from ...rig.skeleton import global_to_local, pose_to_network, scale_of, skeleton_of
from ...weights.model_file import Model
from ..packs.rig_packs import Pack
from .evaluate_packs import references, static_joints
from .metrics import CENTIMETRES, measure_motion


def second_stage(
    packs: Sequence[Pack], everything: Sequence[Pack], model: Model, noise_cm: float, seed: int = 0
) -> Iterator[dict[str, object]]:
    """One row for every clip and kind of reference: metrics.measure of the second stage on positions that are noise_cm
    (standard deviation per axis, cm of a 1 m cube) off, and ik_angle_deg of inverse kinematics anchored by the reference pose
    on the same positions. Packs as in evaluate.evaluate."""
    whole = {pack.name: pack for pack in everything}
    for pack in packs:
        rig = replace(pack.rig, static=static_joints(whole[pack.name]))
        for clip, poses in pack.clips.items():
            rng = np.random.default_rng([seed, zlib.crc32(f"{pack.name}/{clip}".encode())])
            azimuth = rng.uniform(-np.pi, np.pi)
            for kind, pose in references(whole[pack.name], clip):
                take = _take(pack, poses.astype(np.float64), _unseen(pose, azimuth), noise_cm, rng, model.config.tips)
                solved = result_of(run_pose2rot(model, [take]))[0]
                row = measure_motion(rig, _motion(solved, pack.fps), poses.astype(np.float64), pose)
                beside = measure_motion(
                    rig, _motion(geometric(take, model.config.tips), pack.fps), poses.astype(np.float64), pose
                )
                yield {
                    "species": pack.name,
                    "clip": clip,
                    "reference": kind,
                    "noise_cm": noise_cm,
                    **row,
                    "ik_angle_deg": beside["angle_deg"],
                }


def _unseen(pose: Array, azimuth: float) -> Reference:
    """A reference whose image nobody looks at: one opaque pixel, so that it has a square."""
    centre = pose[0, :3, 3]
    camera = Camera((centre[0], centre[1], centre[2]), fit_distance(1.0, 0.6), azimuth, 0.1, 0.6, 8, 8)
    image = np.zeros((8, 8, 4), np.uint8)
    image[4, 4] = 255
    return Reference(pose, image, azimuth, camera.projection)


def _take(pack: Pack, poses: Array, reference: Reference, noise_cm: float, rng: np.random.Generator, tips: bool) -> RigPrediction:
    """True positions as the reference's camera sees them, disturbed."""
    _, positions = pose_to_network(pack.rig, poses, tips)
    _, standing = pose_to_network(pack.rig, reference.pose, tips=False)
    unit = scale_of(skeleton_of(pack.rig, tips=False).rest, standing) / CENTIMETRES
    noisy = positions + rng.normal(0, 1, positions.shape) * noise_cm * unit
    # network -> camera: p -> Y p, for row vectors p Y^T
    seen = (noisy - noisy[:, :1]) @ view_yaw(reference.azimuth).T
    return RigPrediction(pack.rig, reference, seen, None, reference.azimuth)


def geometric(take: RigPrediction, tips: bool) -> RigPrediction:
    """The take with rotations by inverse kinematics alone, anchored by its reference."""
    skeleton = skeleton_of(take.rig, tips)
    yaw = view_yaw(take.azimuth)
    rotations, positions = pose_to_network(take.rig, take.reference.pose, tips)
    parents = torch.from_numpy(np.where(skeleton.parents < 0, np.arange(len(skeleton)), skeleton.parents))[None]
    mask = torch.ones_like(parents, dtype=torch.bool)
    arrays = (take.position[None], (positions @ yaw.T)[None], (yaw @ rotations)[None])
    solved = anchored_ik(parents, mask, *(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))[0].numpy()
    return replace(take, rot6d=matrix_to_rot6d(global_to_local(skeleton.parents, solved)))


def _motion(take: RigPrediction, fps: float) -> Motion:
    count = len(take.position)  # the side is known here: nothing is to be corrected
    return motion_of(
        take, np.arange(count) / fps, np.tile([0.0, 0.0, 8.0, 8.0], (count, 1)), np.ones(count), Settings(heading="view"), {}
    )

"""Measures stage 2 alone: rotations from true or noisy positions, compared with inverse kinematics from the same positions."""

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
from ...motion.motion import Motion, with_joints_of
from ...progress import result_of
from ...rig.rig import Reference, Rig
from ...rig.skeleton import global_to_local, pose_to_network, scale_of, skeleton_of
from ...weights.model_file import Model
from ..packs.rig_packs import Pack
from .evaluate_packs import references, static_joints
from .metrics import CENTIMETRES, measure_motion


def evaluate_pose2rot(
    packs: Sequence[Pack], everything: Sequence[Pack], model: Model, noise_cm: float, seed: int = 0
) -> Iterator[dict[str, object]]:
    """Run stage 2 on the true positions of every clip, for both kinds of reference (evaluate_packs.evaluate). Yields rows.

    noise_cm: standard deviation per axis of noise on the positions, centimetres of a skeleton in a 1 m cube.
    A row has species, clip, reference, noise_cm, the figures of metrics.measure_motion, and ik_angle_deg: the angle of inverse
    kinematics that starts from the reference pose.
    """
    whole = {pack.name: pack for pack in everything}
    for pack in packs:
        rig = replace(pack.rig, static=static_joints(whole[pack.name]))
        shown = whole[pack.name] if model.config.natural else whole[pack.name].in_armature_tree()
        for clip, poses in pack.clips.items():
            rng = np.random.default_rng([seed, zlib.crc32(f"{pack.name}/{clip}".encode())])
            azimuth = rng.uniform(-np.pi, np.pi)
            truth, shown_truth = poses.astype(np.float64), shown.clips[clip].astype(np.float64)
            kinds = zip(references(whole[pack.name], clip), references(shown, clip), strict=True)
            for (kind, pose), (_, shown_pose) in kinds:
                blank = _blank_reference(shown_pose, azimuth)
                positions = _true_positions(shown, shown_truth, blank, noise_cm, rng, model.config.tips)
                [prediction] = result_of(run_pose2rot(model, [positions]))
                row = measure_motion(rig, _plain_motion(prediction, rig, pack.fps), truth, pose)
                by_ik = with_anchored_ik(positions, model.config.tips)
                ik_row = measure_motion(rig, _plain_motion(by_ik, rig, pack.fps), truth, pose)
                yield {
                    "species": pack.name,
                    "clip": clip,
                    "reference": kind,
                    "noise_cm": noise_cm,
                    **row,
                    "ik_angle_deg": ik_row["angle_deg"],
                }


def _blank_reference(pose: Array, azimuth: float) -> Reference:
    """A reference without an image, which stage 2 does not read: one opaque pixel, as an empty image would have no crop."""
    centre = pose[0, :3, 3]
    camera = Camera((centre[0], centre[1], centre[2]), fit_distance(1.0, 0.6), azimuth, 0.1, 0.6, 8, 8)
    image = np.zeros((8, 8, 4), np.uint8)
    image[4, 4] = 255
    return Reference(pose, image, azimuth, camera.projection)


def _true_positions(
    pack: Pack, poses: Array, reference: Reference, noise_cm: float, rng: np.random.Generator, tips: bool
) -> RigPrediction:
    """The true positions in the frame of the reference's camera, with noise, as a prediction without rotations."""
    _, positions = pose_to_network(pack.rig, poses, tips)
    _, reference_heads = pose_to_network(pack.rig, reference.pose, tips=False)
    unit = scale_of(skeleton_of(pack.rig, tips=False).rest, reference_heads) / CENTIMETRES
    noisy = positions + rng.normal(0, 1, positions.shape) * noise_cm * unit
    # network -> camera: p -> Y p, for row vectors p Y^T
    in_camera = (noisy - noisy[:, :1]) @ view_yaw(reference.azimuth).T
    return RigPrediction(pack.rig, reference, in_camera, None, reference.azimuth)


def with_anchored_ik(prediction: RigPrediction, tips: bool) -> RigPrediction:
    """The prediction with rotations by inverse kinematics that starts from its reference pose."""
    skeleton = skeleton_of(prediction.rig, tips)
    yaw = view_yaw(prediction.azimuth)
    rotations, positions = pose_to_network(prediction.rig, prediction.reference.pose, tips)
    parents = torch.from_numpy(np.where(skeleton.parents < 0, np.arange(len(skeleton)), skeleton.parents))[None]
    mask = torch.ones_like(parents, dtype=torch.bool)
    arrays = (prediction.position[None], (positions @ yaw.T)[None], (yaw @ rotations)[None])
    solved = anchored_ik(parents, mask, *(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))[0].numpy()
    return replace(prediction, rot6d=matrix_to_rot6d(global_to_local(skeleton.parents, solved)))


def _plain_motion(prediction: RigPrediction, rig: Rig, fps: float) -> Motion:
    """The prediction as a motion of the rig. Its heading is not corrected, as the true azimuth is known here."""
    count = len(prediction.position)
    motion = motion_of(
        prediction,
        np.arange(count) / fps,
        np.tile([0.0, 0.0, 8.0, 8.0], (count, 1)),
        np.ones(count),
        Settings(heading="view"),
        {},
    )
    return with_joints_of(motion, rig)

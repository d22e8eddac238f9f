"""Measuring end to end: rendered videos go through the whole capture, and the truth is their packs' own motion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...baseline.ik import analytic_ik
from ...capture.inference import RigPrediction, motion_of
from ...capture.pipeline import Clock, Stage1Result, predictions_of
from ...capture_settings import Settings
from ...errors import UserError
from ...geometry.camera import project, side_azimuths, view_yaw
from ...geometry.rotations import Array, matrix_to_quaternion, matrix_to_rot6d
from ...motion.motion import Motion
from ...progress import result_of
from ...rendering import point_splatting
from ...rig.rig import Rig, Target
from ...rig.skeleton import global_to_local, skeleton_of
from ...segmentation.subject import Subject
from ...video.clip import Clip
from ...weights.model_file import Model
from ..packs.rendered_clips import RenderedClip, rendered_clips_in
from ..packs.rig_packs import Pack
from .evaluate_packs import references, static_joints
from .evaluate_pose2rot import geometric
from .metrics import measure_motion

MATTES = 12  # frames of a clip whose matte is compared with the truth
BESIDE = (
    "angle_deg",
    "root_angle_deg",
    "angular_velocity_deg",
    "heading_deg",
    "heading_share",
    "fk_mpjpe_cm",
    "liveness",
    "jerk_ratio",
)


def evaluate_footage(
    folder: str | Path, packs: Sequence[Pack], everything: Sequence[Pack], split: str, model: Model
) -> Iterator[dict[str, object]]:
    """Two rows for every video of `folder` (filmed.films_in) that shows a clip of `packs`: with the rest pose as reference, and
    with another action's.

    everything: the same packs with all their clips, which references and static joints are taken from. Rows hold species,
    split, clip, reference, what metrics.measure returns, its figures in BESIDE for two kinds of inverse kinematics from the
    same predicted positions (v1_..: the V1 baseline's, anchored_..: anchored by the reference pair), view_deg (how far the side
    that the capture settled on is from the camera's), box_iou and matte_iou (the subject found, against the truth), lost_share
    (frames without subject) and error. A capture that fails counts as one that keeps the reference pose; error says why.

    Raises UserError if no video shows any of the clips, or one has another length than its clip.
    """
    parts, whole = {pack.name: pack for pack in packs}, {pack.name: pack for pack in everything}
    films = [film for film in rendered_clips_in(folder) if film[1].pack in parts and film[1].clip in parts[film[1].pack].clips]
    if not films:
        raise UserError(f"None of the videos in '{folder}' shows a clip of the {split} split: render that split.")
    stage = None
    for path, filmed in films:
        if stage is None or stage.pack.name != filmed.pack:
            stage = _Stage(whole[filmed.pack])
        for row in stage.rows(path, filmed, model):
            yield {"species": filmed.pack, "split": split, "clip": filmed.clip, **row}


class _Stage:
    """One pack, ready to be compared with its videos; keeps what its clips share."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self._rig = replace(pack.rig, static=static_joints(pack))
        self._cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest)
        self._targets: dict[bytes, Target] = {}

    def rows(self, path: Path, filmed: RenderedClip, model: Model) -> Iterator[dict[str, object]]:
        """One for each kind of reference."""
        poses = self.pack.clips[filmed.clip]
        if len(poses) != filmed.frames:
            raise UserError(
                f"'{path}' has {filmed.frames} frames, its clip {len(poses)}: render all of them, from the file of the pack."
            )
        kinds = references(self.pack, filmed.clip)
        try:
            stage1, takes = capture_takes(model, [self._target(pose) for _, pose in kinds], Clip(str(path)))
        except UserError as error:
            for kind, pose in kinds:
                yield {"reference": kind, **self._failed(pose, poses, filmed), "error": str(error)}
            return
        found = {**self._found(stage1.subject, filmed, poses), "error": ""}
        for (kind, pose), take in zip(kinds, takes, strict=True):
            yield {"reference": kind, **self._compare(take, stage1.subject, filmed, poses, pose), **found}

    def _target(self, pose: Array) -> Target:
        key = pose.tobytes()  # most clips of a pack share their references
        if key not in self._targets:
            views = point_splatting.reference_views(self.pack.rig, self.pack.surface, pose, side_azimuths())
            self._targets[key] = Target(self.pack.rig, tuple(views))
        return self._targets[key]

    def _compare(
        self, take: RigPrediction, subject: Subject, filmed: RenderedClip, poses: NDArray[np.float32], pose: Array
    ) -> dict[str, object]:
        truth = poses[_frames_of(subject.times, filmed)].astype(np.float64)
        motion = motion_from(take, subject)
        row: dict[str, object] = {"view_deg": _apart(motion, filmed), **measure_motion(self._rig, motion, truth, pose)}
        for name, solved in (("v1", v1_take(take)), ("anchored", geometric(take, len(take.rig.names) < take.position.shape[1]))):
            beside = measure_motion(self._rig, motion_from(solved, subject), truth, pose)
            row |= {f"{name}_{key}": beside[key] for key in BESIDE}
        return row

    def _failed(self, pose: Array, poses: NDArray[np.float32], filmed: RenderedClip) -> dict[str, object]:
        motion = held(self.pack.rig, pose, filmed)
        row = measure_motion(self._rig, motion, poses.astype(np.float64), pose)
        beside = {f"{name}_{key}": row[key] for name in ("v1", "anchored") for key in BESIDE}
        return {"view_deg": 90.0, **row, **beside, "box_iou": 0.0, "matte_iou": 0.0, "lost_share": 1.0}

    @torch.no_grad()
    def _found(self, subject: Subject, filmed: RenderedClip, poses: NDArray[np.float32]) -> dict[str, float]:
        """How well the subject was found."""
        frames = _frames_of(subject.times, filmed)
        points, normals = self._cloud.skin(torch.as_tensor(poses))
        pixels = project(filmed.matrix, points.double().numpy())
        boxes = np.concatenate([pixels.min(1), pixels.max(1)], axis=-1)[frames]
        chosen = np.unique(np.linspace(0, len(frames) - 1, MATTES).round().astype(int))
        shots, projection = frames[chosen], torch.tensor(filmed.matrix, dtype=torch.float32)
        spacing, light = self._cloud.spacing, torch.ones(3)
        drawn = point_splatting.render(
            points[shots], normals[shots], self._cloud.colours, projection, light, filmed.height, filmed.width, spacing=spacing
        )
        masks = drawn[..., 3].numpy() > 0.5
        mattes = [overlap(subject.matte(index) >= 128, mask) for index, mask in zip(chosen, masks, strict=True)]
        lost = float((subject.confidence == 0).mean())
        return {
            "box_iou": float(box_overlap(subject.boxes, boxes).mean()),
            "matte_iou": float(np.mean(mattes)),
            "lost_share": lost,
        }


def capture_takes(model: Model, targets: Sequence[Target], clip: Clip) -> tuple[Stage1Result, list[RigPrediction]]:
    """What capture.capture does with a model that is loaded already, up to the takes: the subject is needed as well."""
    stage1, takes, _ = result_of(predictions_of(model, targets, clip, Settings(), Clock()))
    return stage1, takes


def motion_from(take: RigPrediction, subject: Subject) -> Motion:
    """The take as the add-on would key it."""
    return motion_of(take, subject.times, subject.boxes, subject.confidence, Settings(), {})


def v1_take(take: RigPrediction) -> RigPrediction:
    """The take with rotations by the V1 baseline's inverse kinematics from the predicted joints, without tips."""
    skeleton = skeleton_of(take.rig, tips=False)
    yaw = view_yaw(take.azimuth)
    # camera -> network: p -> Y^T p, for row vectors p Y; back: G -> Y G
    rotations = yaw @ analytic_ik(skeleton, take.position[:, : len(skeleton)] @ yaw)
    return replace(take, rot6d=matrix_to_rot6d(global_to_local(skeleton.parents, rotations)))


def held(rig: Rig, pose: Array, filmed: RenderedClip) -> Motion:
    """A take that keeps the reference pose (J, 4, 4) on every frame of the video."""
    count = filmed.frames
    places = pose[:, :3, 3] - pose[0, :3, 3]
    times, boxes = np.arange(count) / filmed.fps, np.tile([0.0, 0.0, filmed.width, filmed.height], (count, 1))
    rotations = np.tile(matrix_to_quaternion(rig.rotations(pose)), (count, 1, 1))
    return Motion(rig.names, times, rotations, np.tile(places, (count, 1, 1)), boxes, np.zeros((count, len(rig.names))))


def _frames_of(times: Array, filmed: RenderedClip) -> NDArray[np.int64]:
    """The clip's frame at each of the video's times."""
    return np.clip(np.rint(times * filmed.fps).astype(np.int64), 0, filmed.frames - 1)


def _apart(motion: Motion, filmed: RenderedClip) -> float:
    """Degrees between the azimuth the camera had and the one the capture settled on."""
    apart = float(motion.provenance["azimuth"]) - filmed.azimuth
    return float(np.degrees(abs(np.angle(np.exp(1j * apart)))))


def overlap(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 if both are empty."""
    union = int((left | right).sum())
    return float((left & right).sum()) / union if union else 1.0


def box_overlap(left: Array, right: Array) -> Array:
    """Intersection over union of boxes (..., 4), x0 y0 x1 y1."""
    low, high = np.maximum(left[..., :2], right[..., :2]), np.minimum(left[..., 2:], right[..., 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = sum(np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (left, right)) - common
    return common / np.maximum(area, 1e-9)

"""Measures a model end to end: rendered videos go through the whole capture, and are compared with the motion of their packs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...baseline.ik import analytic_ik
from ...capture.inference import RigPrediction, motion_of
from ...capture.pipeline import Clock, Stage1Result, predictions_of
from ...capture_settings import Settings
from ...errors import UserError
from ...geometry.camera import side_azimuths, view_yaw
from ...geometry.rotations import Array, matrix_to_quaternion, matrix_to_rot6d
from ...motion.motion import Motion, with_joints_of
from ...progress import result_of
from ...refine.footage import footage_of
from ...refine.overlap import mask_overlap
from ...refine.refine import FitTarget, refine
from ...rendering import point_splatting
from ...rig.rig import Rig, Target
from ...rig.skeleton import global_to_local, skeleton_of
from ...segmentation.matte import mask_box
from ...segmentation.subject import Subject
from ...video.clip import Clip
from ...weights.model_file import Model
from ..packs.rendered_clips import RenderedClip, load_mattes, rendered_clips_in
from ..packs.rig_packs import Pack
from .evaluate_packs import references, static_joints, view_error
from .evaluate_pose2rot import with_anchored_ik
from .metrics import measure_motion
from .movement import kind_of_motion
from .overlaps import camera_overlap, matte_overlap

IK_FIGURES = (  # those that are measured for inverse kinematics too
    "angle_deg",
    "root_angle_deg",
    "angular_velocity_deg",
    "heading_deg",
    "heading_share",
    "fk_mpjpe_cm",
    "liveness",
    "jerk_ratio",
)


def evaluate_videos(
    folder: str | Path,
    packs: Sequence[Pack],
    everything: Sequence[Pack],
    split: str,
    model: Model,
    settings: Settings | None = None,
) -> Iterator[dict[str, object]]:
    """Capture every video of the folder that shows a clip of the packs, with two references: the rest pose, and the first frame of
    another action. Yields rows.

    everything: the same packs with all their clips, from which references and static joints are taken. settings: of the captures (default:
    as they are, but not refined).
    A row has species, split, clip, kind (of motion), reference, the figures of metrics.measure_motion, overlap, overlap_matte, and
    - those of IK_FIGURES for two kinds of inverse kinematics from the same predicted positions: the V1 baseline's (v1_...) and the one
      that starts from the reference pair (anchored_...),
    - view_deg: the angle between the true azimuth and the capture's,
    - box_iou, matte_iou and matte_iou_least: overlap of the found subject with the true one, a mean over the frames and the least of
      them, and lost_share: share of frames without a subject,
    - error: why the capture failed, or ''. A failed capture counts as one that keeps the reference pose.

    Raises UserError if no video shows a clip of the packs, or a video has another length than its clip.
    """
    parts, whole = {pack.name: pack for pack in packs}, {pack.name: pack for pack in everything}
    videos = [
        (path, clip) for path, clip in rendered_clips_in(folder) if clip.pack in parts and clip.clip in parts[clip.pack].clips
    ]
    if not videos:
        raise UserError(f"None of the videos in '{folder}' shows a clip of the {split} split: render that split.")
    settings, measure = settings or Settings(refine="off"), None
    for path, rendered in videos:
        if measure is None or measure.pack.name != rendered.pack:
            measure = _PackMeasure(whole[rendered.pack], settings)
        for row in measure.rows(path, rendered, model):
            yield {"species": rendered.pack, "split": split, "clip": rendered.clip, "kind": kind_of_motion(rendered.clip), **row}


class _PackMeasure:
    """Compares captures of a pack's videos with its motion. Keeps the references, which most clips share."""

    def __init__(self, pack: Pack, settings: Settings) -> None:
        self.pack, self.settings = pack, settings
        self._rig = replace(pack.rig, static=static_joints(pack))
        self._cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest)
        self._targets: dict[bytes, Target] = {}

    def rows(self, path: Path, rendered: RenderedClip, model: Model) -> Iterator[dict[str, object]]:
        """A row for each kind of reference."""
        poses = self.pack.clips[rendered.clip]
        if len(poses) != rendered.frames:
            raise UserError(
                f"Video '{path}' has {rendered.frames} frames, but its clip has {len(poses)}: render all frames from the pack's file."
            )
        kinds = references(self.pack, rendered.clip)
        shown = self.pack if model.config.natural else self.pack.in_armature_tree()
        targets = [self._target(shown, pose) for _, pose in references(shown, rendered.clip)]
        try:
            stage1, predictions = capture_predictions(model, targets, Clip(str(path)), self.settings)
            motions = self._motions(Clip(str(path)), stage1.subject, predictions)
        except UserError as error:
            for kind, pose in kinds:
                yield {"reference": kind, **self._measure_failure(pose, poses, rendered), "error": str(error)}
            return
        found = {**self._measure_subject(stage1.subject, rendered, path), "error": ""}
        for (kind, pose), prediction, motion in zip(kinds, predictions, motions, strict=True):
            yield {"reference": kind, **self._compare(prediction, motion, stage1.subject, rendered, poses, pose), **found}

    def _motions(self, clip: Clip, subject: Subject, predictions: Sequence[RigPrediction]) -> list[Motion]:
        """The takes in the natural skeleton, refined if they are to be."""
        raw = [with_joints_of(motion_from(prediction, subject), self._rig) for prediction in predictions]
        targets = [FitTarget(self.pack.rig, self.pack.surface, motion) for motion in raw]
        return result_of(refine(targets, footage_of(clip, subject), self.settings.refine_mode))

    def _target(self, shown: Pack, pose: Array) -> Target:
        key = pose.tobytes()
        if key not in self._targets:
            views = point_splatting.reference_views(shown.rig, shown.surface, pose, side_azimuths())
            self._targets[key] = Target(shown.rig, tuple(views), self._rig if shown is not self.pack else None, self.pack.surface)
        return self._targets[key]

    def _compare(
        self,
        prediction: RigPrediction,
        motion: Motion,
        subject: Subject,
        rendered: RenderedClip,
        poses: NDArray[np.float32],
        pose: Array,
    ) -> dict[str, object]:
        truth = poses[_frames_of(subject, rendered)].astype(np.float64)
        row: dict[str, object] = {
            "view_deg": view_error(motion, rendered.azimuth),
            **measure_motion(self._rig, motion, truth, pose),
            "overlap": camera_overlap(self._rig, self._cloud, motion, truth, rendered.matrix, rendered.width, rendered.height),
            "overlap_matte": matte_overlap(self._rig, self.pack.surface, motion, subject.matte),
        }
        tips = prediction.position.shape[1] > len(prediction.rig.names)
        for name, solved in (("v1", with_v1_ik(prediction)), ("anchored", with_anchored_ik(prediction, tips))):
            figures = measure_motion(self._rig, with_joints_of(motion_from(solved, subject), self._rig), truth, pose)
            row |= {f"{name}_{key}": figures[key] for key in IK_FIGURES}
        return row

    def _measure_failure(self, pose: Array, poses: NDArray[np.float32], rendered: RenderedClip) -> dict[str, object]:
        motion = reference_motion(self.pack.rig, pose, rendered)
        row = measure_motion(self._rig, motion, poses.astype(np.float64), pose)
        same = {f"{name}_{key}": row[key] for name in ("v1", "anchored") for key in IK_FIGURES}
        return {
            "view_deg": 90.0,
            **row,
            "overlap": 0.0,
            "overlap_matte": 0.0,
            **same,
            "box_iou": 0.0,
            "matte_iou": 0.0,
            "matte_iou_least": 0.0,
            "lost_share": 1.0,
        }

    def _measure_subject(self, subject: Subject, rendered: RenderedClip, path: Path) -> dict[str, float]:
        """Compare boxes and mattes of the found subject with the true covers, on all frames."""
        covers = load_mattes(path)[_frames_of(subject, rendered)] >= 128
        boxes = np.array([mask_box(cover) or (0, 0, 0, 0) for cover in covers])
        mattes = [mask_overlap(subject.matte(index) >= 128, cover) for index, cover in enumerate(covers)]
        lost = float((subject.confidence == 0).mean())
        return {
            "box_iou": float(box_overlap(subject.boxes, boxes).mean()),
            "matte_iou": float(np.mean(mattes)),
            "matte_iou_least": float(np.min(mattes)),
            "lost_share": lost,
        }


def capture_predictions(
    model: Model, targets: Sequence[Target], clip: Clip, settings: Settings
) -> tuple[Stage1Result, list[RigPrediction]]:
    """Run a capture with a loaded model, and return the subject and the predictions with rotations."""
    stage1, predictions, _ = result_of(predictions_of(model, targets, clip, settings, Clock()))
    return stage1, predictions


def motion_from(prediction: RigPrediction, subject: Subject) -> Motion:
    """The motion that a capture returns for the prediction."""
    return motion_of(prediction, subject.times, subject.boxes, subject.confidence, Settings(), {})


def with_v1_ik(prediction: RigPrediction) -> RigPrediction:
    """The prediction with rotations by the V1 baseline's inverse kinematics from its positions, without tips."""
    skeleton = skeleton_of(prediction.rig, tips=False)
    yaw = view_yaw(prediction.azimuth)
    # camera -> network: p -> Y^T p, for row vectors p Y; back: G -> Y G
    rotations = yaw @ analytic_ik(skeleton, prediction.position[:, : len(skeleton)] @ yaw)
    return replace(prediction, rot6d=matrix_to_rot6d(global_to_local(skeleton.parents, rotations)))


def reference_motion(rig: Rig, pose: Array, rendered: RenderedClip) -> Motion:
    """A motion that keeps the reference pose (J, 4, 4) on every frame of the video."""
    count = rendered.frames
    positions = pose[:, :3, 3] - pose[0, :3, 3]
    times, boxes = np.arange(count) / rendered.fps, np.tile([0.0, 0.0, rendered.width, rendered.height], (count, 1))
    rotations = np.tile(matrix_to_quaternion(rig.rotations(pose)), (count, 1, 1))
    return Motion(rig.names, times, rotations, np.tile(positions, (count, 1, 1)), boxes, np.zeros((count, len(rig.names))))


def _frames_of(subject: Subject, rendered: RenderedClip) -> NDArray[np.int64]:
    """The clip's frame at each of the subject's times, which count from the start of its shot."""
    times = subject.times + (0.0 if subject.clip is None else subject.clip.start)
    return np.clip(np.rint(times * rendered.fps).astype(np.int64), 0, rendered.frames - 1)


def box_overlap(left: Array, right: Array) -> Array:
    """Intersection over union of boxes (..., 4), x0 y0 x1 y1."""
    low, high = np.maximum(left[..., :2], right[..., :2]), np.minimum(left[..., 2:], right[..., 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = sum(np.prod(box[..., 2:] - box[..., :2], axis=-1) for box in (left, right)) - common
    return common / np.maximum(area, 1e-9)

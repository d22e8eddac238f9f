"""Trains and measures on the public release's data set. Makes samples with the layout of samples.py from its files.

All values of a view are in that view's frame: y up, the yaw inside the root's rotation (docs/network.md, Conventions). The data
know no camera, so they serve models without geometric aids; what only the aids read is not a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ...arrays import Array
from ...capture.inference import predict_positions, predict_rotations
from ...errors import UserError
from ...geometry.rotations import geodesic_angle, rot6d_to_matrix
from ...model.config import Config
from ...model.encode_rig import ReferencePairs, SkeletonFeatures, collate
from ...model.network import Video2Pose2Rot
from ...rig.skeleton import ancestor_mask, forward_kinematics
from ..evaluation.metrics import CENTIMETRES
from ..samples.samples import Sample
from .dataset_folder import DatasetView, Release

PAIRS = 3  # reference pairs of a sample, as many as training may use
AT_ROOT = 1e-6  # of the scale: a joint this near to the root is there from every side


class ReleaseWindows(IterableDataset[Sample]):
    """Makes samples by number, as samples.Windows does: consecutive frames of a training view, and reference pairs.

    Raises UserError if the config does not fit the data.
    """

    def __init__(
        self, release: Release, config: Config, frames: int, seed: int, numbers: Iterable[int] | None = None, pairs: int = PAIRS
    ) -> None:
        check_config(release, config)
        self.release, self.frames, self.seed, self.numbers, self.pairs = release, frames, seed, numbers, pairs
        self.views = release.group("train")

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker is not None:
            torch.set_num_threads(1)
        for number in islice(count() if self.numbers is None else self.numbers, first, None, step):
            yield self.sample(np.random.default_rng([self.seed, number]))

    def sample(self, rng: np.random.Generator) -> Sample:
        """Draw one sample."""
        view = self.views[rng.integers(len(self.views))]
        last = self.release.frames(view) - 1
        start = rng.integers(max(1, last + 2 - self.frames))
        frames = np.minimum(start + np.arange(self.frames), last)  # the last frame of a short clip is repeated
        return sample_of(self.release, view, frames, self._references(view, rng))

    def _references(self, view: DatasetView, rng: np.random.Generator) -> list[tuple[DatasetView, int]]:
        """Draw frames of another view of the species, all from one yaw; of the view itself if there is no other.

        See docs/network.md, Training and the data set's layout.
        """
        kin = [other for other in self.views if other.species == view.species]
        others = [other for other in kin if other != view] or [view]
        shown = others[rng.integers(len(others))]
        beside = [other for other in kin if other.yaw == shown.yaw]
        chosen = [shown, *(beside[i] for i in rng.integers(len(beside), size=self.pairs - 1))]
        return [(other, int(rng.integers(self.release.frames(other)))) for other in chosen]


def check_config(release: Release, config: Config) -> None:
    """Raises UserError if the network needs inputs that the data set does not have."""
    if config.aids or config.tips:
        raise UserError(f"'{release.folder}' has no cameras and no bone tails: choose a config without geometric aids and tips.")
    view = release.views[0]
    widths = release.tokens(view, [0], release.frames(view)).shape[2], release.species[view.species].embedding.shape[1]
    if widths != (config.image_width, config.name_width):
        raise UserError(
            f"'{release.folder}' has image tokens and joint names of widths {widths}, the config {config.image_width} and "
            f"{config.name_width}: choose the released configuration."
        )


def sample_of(
    release: Release, view: DatasetView, frames: NDArray[np.integer], references: Sequence[tuple[DatasetView, int]]
) -> Sample:
    """Make a sample of the `frames` of a view, with frames of other views as reference pairs. Only the first pair has its image."""
    position, rot6d = release.pose(view)
    poses = [(release.pose(other), frame) for other, frame in references]
    paired = [np.stack([pose[part][frame] for pose, frame in poses]) for part in (0, 1)]
    nowhere = np.full((position.shape[1], 2), np.nan)
    pairs = ReferencePairs(release.species[view.species].scale, paired[0], paired[1], nowhere, float("nan"))
    shown = release.tokens(references[0][0], [references[0][1]], len(poses[0][0][0]))
    tokens = np.concatenate([shown, release.tokens(view, frames, len(position))]).astype(np.float16)
    rotations = rot6d_to_matrix(rot6d[frames])
    uv = torch.full((*rotations.shape[:2], 2), torch.nan)
    body = skeleton_features_of(release, view, references[0][0])
    return Sample(body, pairs, torch.from_numpy(tokens), _to_tensor(position[frames]), _to_tensor(rotations), uv)


def skeleton_features_of(release: Release, view: DatasetView, reference: DatasetView) -> SkeletonFeatures:
    """The species' graph and names with the view's own skeleton.

    The data's static joints are static within one view. If the reference has another yaw, the root has turned, and so has every
    joint away from it: these are then not static.
    """
    species, skeleton = release.species[view.species], release.skeleton(view)
    # the network divides offsets by the pair's scale
    skeleton = replace(skeleton, offsets=skeleton.offsets * species.scale)
    position, rotation = species.static_position.copy(), species.static_rotation.copy()
    if view.yaw != reference.yaw:
        position &= np.abs(skeleton.rest).max(-1) <= AT_ROOT * species.scale
        rotation[0] = False
    return SkeletonFeatures(
        skeleton, 6 * species.hop + species.edge, ancestor_mask(skeleton.parents), species.embedding, position, rotation
    )


def _to_tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


# Measuring


def evaluate_release(network: Video2Pose2Rot, release: Release, group: str, device: torch.device | str = "cpu") -> Iterator[dict]:
    """Measure every view of a group over its whole clip. Yields one row per view.

    The reference is the first frame of another sequence from the same yaw. The rows have the keys of metrics.measure_motion, for
    metrics.summarise. The unit of length is the data set's own scale, as in the published tables.
    """
    check_config(release, network.config)
    for view in release.group(group):
        reference = _same_side(release.views, view)
        sample = sample_of(release, view, np.arange(release.frames(view)), [(reference, 0)])
        tokens = sample.tokens.to(device, torch.float32)
        anchor = collate([sample.body], [sample.pairs], tokens[:1])
        position = torch.cat(list(predict_positions(network, anchor, [tokens[1:]], len(tokens) - 1)), dim=1)
        rot6d = torch.cat(list(predict_rotations(network, anchor, position)), dim=1)
        row = score(sample, position[0].double().cpu().numpy(), rot6d_to_matrix(rot6d[0].double().cpu().numpy()))
        yield {
            "species": view.species,
            "split": group,
            "clip": view.sequence,
            "yaw": view.yaw,
            "reference": str(reference),
            **row,
        }


def _same_side(views: Sequence[DatasetView], view: DatasetView) -> DatasetView:
    """The next sequence of the species from the same yaw, else another view of the species, else the view itself."""
    same = [other for other in views if other.species == view.species]
    return next((v for v in same if v.yaw == view.yaw and v.sequence > view.sequence), None) or next(
        (v for v in same if v.yaw == view.yaw and v != view), next((v for v in same if v != view), view)
    )


def score(sample: Sample, position: Array, rotations: Array) -> dict[str, float]:
    """Compare predicted positions (T, J, 3) and local rotations (T, J, 3, 3) with a sample's truth, as metrics.measure_motion does."""
    skeleton, rotates, seen = sample.body.skeleton, ~sample.body.static_rotation, ~sample.body.static_position
    true, true_turns = sample.position.double().numpy(), sample.rotations.double().numpy()
    copy, copy_turns = sample.pairs.position[:1], rot6d_to_matrix(sample.pairs.rot6d[:1])
    _, chained = forward_kinematics(skeleton.parents, skeleton.offsets / sample.pairs.scale, rotations)
    angle, spin = (
        geodesic_angle(rotations, true_turns),
        geodesic_angle(_rotations_between(rotations), _rotations_between(true_turns)),
    )
    return {
        "frames": len(true),
        "joints": len(skeleton),
        "angle_deg": _mean_degrees(angle[:, rotates]),
        "copy_angle_deg": _mean_degrees(geodesic_angle(copy_turns, true_turns)[:, rotates]),
        "root_angle_deg": _mean_degrees(angle[:, 0]),
        "angular_velocity_deg": _mean_degrees(spin[:, rotates]),
        "mpjpe_cm": _mean_length((position - true)[:, seen]),
        "copy_mpjpe_cm": _mean_length((copy - true)[:, seen]),
        "fk_mpjpe_cm": _mean_length((chained - true)[:, seen]),
        "mpjve_cm": _mean_length(np.diff(position - true, axis=0)[:, seen]),
        "travel_cm": _mean_length(np.diff(chained, axis=0)),
        "true_travel_cm": _mean_length(np.diff(true, axis=0)),
    }


def _rotations_between(local: Array) -> Array:
    """Rotations (T, J, 3, 3) -> (T - 1, J, 3, 3), from each frame to the next."""
    return np.swapaxes(local[:-1], -1, -2) @ local[1:]


def _mean_degrees(angles: Array) -> float:
    return float(np.degrees(angles.mean())) if angles.size else 0.0


def _mean_length(vectors: Array) -> float:
    return CENTIMETRES * float(np.linalg.norm(vectors, axis=-1).mean()) if vectors.size else 0.0

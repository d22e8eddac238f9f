"""Training samples made on the fly: a window of a clip, rendered from a random side, and its reference pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ...encoders.crops import SIZE, crop_box, crop_side, to_crop
from ...geometry.camera import Camera, fit_distance, project, view_yaw
from ...geometry.rotations import Array, axis_angle_to_matrix, matrix_to_rot6d, rot6d_to_matrix
from ...model.config import Config
from ...model.encode_rig import ReferencePairs, SkeletonFeatures, encode_reference_pairs, encode_skeleton
from ...rendering import point_splatting
from ...rig.skeleton import global_to_local, network_axes, pose_to_network
from ..creatures.creatures import creature
from ..packs.rig_packs import Pack
from .image_degradation import degrade
from .motion_augment import perturb_motion
from .rig_augment import augment_rig

REST_SHARE = 1 / 3  # of the references: the rest pose, all that many users have
FIRST_SHARE = 1 / 3  # the first frame of a clip: a pose that characters are left in
NOISY_SHARE = 0.2  # of the reference pairs: not quite what the image shows, as users' are
PAIRS = 3  # reference pairs of a sample; most steps use the first alone
SIDE_ERROR = np.radians(12)  # standard deviation, between the video's and the reference's azimuth, as matching leaves it


@dataclass(frozen=True, eq=False)
class Sample:
    """One window of T frames of one rig, in the reference camera's frame, divided by the pair's scale.

    The video's camera stands a little to the side of it. That is left to the camera: the root does not turn for it, as a
    capture cannot tell the two apart (inference.motion_of).

    tokens (T + 1, S, C) half precision, the reference image's first. position (T, K, 3), turns (T, K, 3, 3) local rotations,
    uv (T, K, 2).
    """

    body: SkeletonFeatures
    pairs: ReferencePairs
    tokens: Tensor
    position: Tensor
    rotations: Tensor
    uv: Tensor


@dataclass(eq=False)
class SampleSource:
    """A pack made ready: its cloud and what the network is told about the rig."""

    pack: Pack
    body: SkeletonFeatures
    cloud: point_splatting.Cloud
    clips: list[NDArray[np.float32]] = field(default_factory=list)


def sample_source_of(pack: Pack, config: Config, device: torch.device | str = "cpu") -> SampleSource:
    return SampleSource(
        pack,
        encode_skeleton(pack.rig, config),
        point_splatting.cloud_of(pack.surface, pack.rig.rest, device),
        list(pack.clips.values()),
    )


@dataclass(frozen=True)
class Recipe:
    """What samples are made of. frames: of a window. side_error: standard deviation in radians of the azimuth between video and
    reference. varied: share of windows whose rig is changed first (augment.py). creatures: share of windows of procedural
    creatures, of which there are `kinds`. stirred: share of windows with motions that no clip has (stirring.py)."""

    frames: int = 6
    side_error: float = SIDE_ERROR
    varied: float = 0.0
    creatures: float = 0.0
    kinds: int = 100_000
    stirred: float = 0.0


class Windows(IterableDataset[Sample]):
    """Samples by number: each is made from the seed and its own number alone, so that a run can make any of them again.

    `encode` turns (B, 224, 224, 3) uint8 crops into tokens. `numbers`: which samples, in which order; 0, 1, 2, ... if not given.
    """

    def __init__(
        self, packs: Sequence[Pack], config: Config, encode: Callable[[Tensor], Tensor], recipe: Recipe, seed: int, device: str = "cpu",
        numbers: Iterable[int] | None = None,
    ) -> None:  # fmt: skip
        self.packs, self.config, self.encode, self.recipe = packs, config, encode, recipe
        self.seed, self.device, self.numbers = seed, device, numbers

    def __iter__(self) -> Iterator[Sample]:
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker is not None:
            torch.set_num_threads(1)
        actors = [sample_source_of(pack, self.config, self.device) for pack in self.packs]
        # the loader takes one sample from each worker in turn: together they keep the order of the numbers
        for number in islice(count() if self.numbers is None else self.numbers, first, None, step):
            rng = np.random.default_rng([self.seed, number])
            yield self.sample(self._actor(actors, rng), rng)

    def _actor(self, actors: Sequence[SampleSource], rng: np.random.Generator) -> SampleSource:
        """One of the packs, changed or not, or a creature that nobody has seen."""
        if rng.random() < self.recipe.creatures or not actors:
            actor = sample_source_of(creature(int(rng.integers(self.recipe.kinds))), self.config, self.device)
        else:
            actor = actors[int(rng.integers(len(actors)))]
        if rng.random() >= self.recipe.varied:
            return actor
        pack = augment_rig(actor.pack, rng)
        cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest, self.device, actor.cloud.spacing)
        return SampleSource(pack, encode_skeleton(pack.rig, self.config), cloud, list(pack.clips.values()))

    def sample(self, actor: SampleSource, rng: np.random.Generator) -> Sample:
        poses = _window(actor.clips[rng.integers(len(actor.clips))], self.recipe.frames, rng)
        if self.recipe.stirred and rng.random() < self.recipe.stirred:
            poses = perturb_motion(poses, actor.pack.rig, rng)
        references = np.stack([_reference_pose(actor, rng) for _ in range(PAIRS)])
        azimuth = rng.uniform(-np.pi, np.pi)
        look = _look(actor.cloud, rng)
        shot = _render_window(look, poses, azimuth, rng)
        still = _render_window(look, references[:1], azimuth + rng.normal(0, self.recipe.side_error), rng)
        pairs = encode_reference_pairs(
            actor.pack.rig, references, [still.azimuth] * PAIRS, still.projection, still.squares[0], self.config
        )
        if rng.random() < NOISY_SHARE:
            pairs = _disturbed(pairs, rng)
        rotations, position = pose_to_network(actor.pack.rig, poses.astype(np.float64), self.config.tips)
        local = global_to_local(actor.body.skeleton.parents, rotations)
        yaw = view_yaw(still.azimuth)
        local[:, 0] = yaw @ local[:, 0]
        # the packs' rigs live in world axes, so positions in the network's axes go back to the world by the same A^T
        points = position @ network_axes(actor.pack.rig) + poses[:, :1, :3, 3]
        uv = to_crop(shot.squares[:, None], project(shot.projection, points))
        tokens = self.encode(torch.cat([still.crops, shot.crops]))
        return Sample(
            actor.body,
            pairs,
            tokens.to("cpu", torch.float16),
            _tensor(position @ yaw.T / pairs.scale),
            _tensor(local),
            _tensor(uv),
        )


def _tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _window(clip: NDArray[np.float32], frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """`frames` consecutive frames at a random pace, forwards; a short clip is held at its end."""
    stride = rng.integers(1, 3)
    start = rng.integers(max(1, len(clip) - stride * (frames - 1)))
    return clip[np.minimum(start + stride * np.arange(frames), len(clip) - 1)]


def _reference_pose(actor: SampleSource, rng: np.random.Generator) -> Array:
    """The rest pose, the first frame of a clip, or any frame of any clip; always as the rig faces in its clips."""
    choice = rng.random()
    if choice < REST_SHARE:
        return np.array(actor.pack.rig.rest)
    clip = actor.clips[rng.integers(len(actor.clips))]
    return clip[0 if choice < REST_SHARE + FIRST_SHARE else rng.integers(len(clip))].astype(np.float64)


def _disturbed(pairs: ReferencePairs, rng: np.random.Generator) -> ReferencePairs:
    """A pair that is a few millimetres of a 1 m cube and about a degree off, joint by joint."""
    axes = rng.normal(size=(*pairs.rot6d.shape[:2], 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    noise = axis_angle_to_matrix(axes, rng.normal(0, np.radians(1.5), axes.shape[:2]))
    rotations = rot6d_to_matrix(pairs.rot6d) @ noise
    position = pairs.position + rng.normal(0, 0.005, pairs.position.shape)
    return replace(pairs, position=position - position[:, :1], rot6d=matrix_to_rot6d(rotations))


def _look(cloud: point_splatting.Cloud, rng: np.random.Generator) -> point_splatting.Cloud:
    """Other colours: a random gain and tint, at times one random colour, stripes or spots."""
    colours = cloud.colours
    if rng.random() < 0.15:
        colours = _patterned(cloud, rng)
    if rng.random() < 0.15:
        colours = colours * 0.15 + torch.tensor(rng.uniform(0.1, 0.8, 3), dtype=colours.dtype, device=colours.device)
    elif rng.random() < 0.6:
        mix = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        colours = (colours @ torch.tensor(mix, dtype=colours.dtype, device=colours.device)) * rng.uniform(0.6, 1.3)
    return replace(cloud, colours=colours.clamp(0.02, 0.98))


def _patterned(cloud: point_splatting.Cloud, rng: np.random.Generator) -> Tensor:
    """Stripes or spots of another colour, fixed to the skin: where a few waves through the resting body are above a level."""
    points = cloud.points - cloud.points.mean(0)
    size = points.abs().max().item()
    waves = torch.tensor(
        rng.normal(0, rng.uniform(2, 12) / size, (int(rng.integers(1, 4)), 3)), dtype=points.dtype, device=points.device
    )
    phase = torch.tensor(rng.uniform(0, 2 * np.pi, len(waves)), dtype=points.dtype, device=points.device)
    inked = (points @ waves.T + phase).sin().mean(-1) > rng.uniform(-0.2, 0.5)
    ink = torch.tensor(rng.uniform(0.05, 0.95, 3), dtype=points.dtype, device=points.device)
    return torch.where(inked[:, None], ink, cloud.colours)


@dataclass(frozen=True, eq=False)
class RenderedWindow:
    """Crops (T, 224, 224, 3) uint8 from one camera, its projection (3, 4) and the squares (T, 4) that were cut out."""

    crops: Tensor
    projection: Array
    squares: Array
    azimuth: float


def _render_window(
    cloud: point_splatting.Cloud, poses: NDArray[np.floating], azimuth: float, rng: np.random.Generator
) -> RenderedWindow:
    """Render joint matrices (T, J, 4, 4) from `azimuth`, each frame straight into its crop."""
    points, normals = cloud.skin(torch.as_tensor(poses, dtype=torch.float32, device=cloud.points.device))
    low, high = points.amin((0, 1)).cpu().numpy().astype(float), points.amax((0, 1)).cpu().numpy().astype(float)
    fov = rng.uniform(0.3, 0.9)
    distance = fit_distance(float(np.linalg.norm(high - low)) / 2, fov)
    camera = Camera(tuple((low + high) / 2), distance, azimuth, rng.uniform(-0.05, 0.35), fov, 640, 640)
    pixels = project(camera.projection, points.cpu().numpy().astype(float))
    squares = _squares(np.concatenate([pixels.min(1), pixels.max(1)], axis=-1), rng)
    inside = inside_crops(camera.projection, squares).to(points.device)
    light = camera.rotation.T @ rng.normal([-0.3, 0.7, 0.6], 0.5)
    shading = point_splatting.Shading(rng.uniform(0.25, 0.55), rng.uniform(0.3, 0.8), rng.uniform(0, 0.1))
    rgba = point_splatting.render(
        points, normals, cloud.colours, inside,
        torch.tensor(light / np.linalg.norm(light), dtype=torch.float32, device=points.device), SIZE, SIZE, spacing=cloud.spacing,
        shading=shading,
    )  # fmt: skip
    return RenderedWindow(degrade(rgba, rng), camera.projection, squares, azimuth)


def _squares(boxes: Array, rng: np.random.Generator) -> Array:
    """One side for the whole window, as capture uses for a clip; boxes are a little off, as mattes are."""
    side = crop_side(boxes) * rng.uniform(0.97, 1.12)
    shift = rng.normal(0, 0.015, 2) + rng.normal(0, 0.004, (len(boxes), 2))
    return crop_box(boxes + np.tile(shift, 2) * side, side)


def inside_crops(projection: Array, squares: Array) -> Tensor:
    """(T, 3, 4) projections straight into the pixels of the crops of squares (T, 4): (u w, v w, w) with u' = (u - x0) zoom."""
    zoom = SIZE / (squares[:, 2] - squares[:, 0])
    crop = np.zeros((len(squares), 3, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = zoom
    crop[:, :2, 2] = -squares[:, :2] * zoom[:, None]
    crop[:, 2, 2] = 1
    return torch.tensor(crop @ projection, dtype=torch.float32)


def degrade_crops(rgba: Tensor) -> Tensor:
    """(T, H, W, 4) straight alpha on white -> (T, H, W, 3) uint8."""
    return ((rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).clamp(0, 1) * 255).round().to(torch.uint8)

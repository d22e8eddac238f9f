"""Makes training samples: a window of a clip, drawn from a random side, with reference pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from ...encoders.crops import SIZE, composite, crop_box, crop_side, to_crop
from ...geometry.camera import frame_points, project, view_yaw
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

REST_SHARE = 1 / 3  # of the references: the rest pose, often the only pose that a user has
FIRST_SHARE = 1 / 3  # of the references: the first frame of a clip, a pose that characters are saved in
NOISY_SHARE = 0.2  # of the reference pairs: a little off from the image, as a user's may be
PAIRS = 3  # reference pairs of a sample; most steps use only the first
SIDE_ERROR = np.radians(12)  # standard deviation between the azimuths of video and reference, as view matching leaves it


@dataclass(frozen=True, eq=False)
class Sample:
    """A window of T frames of a rig, in the frame of the reference's camera, divided by the rig's scale.

    The camera of the video is a little to the side of the reference's. The true root rotation does not contain that difference: a
    capture cannot tell a rotated root from a camera to the side (inference.motion_of).

    body: the rig. pairs: PAIRS reference pairs. tokens: (T + 1, S, C) half precision, the reference image's first.
    position: (T, K, 3) relative to the root. rotations: (T, K, 3, 3) local. uv: (T, K, 2) in the crops.
    apart: the frames are not consecutive and have nothing to do with one another. crops: (T + 1, 224, 224, 3) uint8, what the tokens were
    encoded from, for a network with trained eyes.
    """

    body: SkeletonFeatures
    pairs: ReferencePairs
    tokens: Tensor
    position: Tensor
    rotations: Tensor
    uv: Tensor
    apart: bool = False
    crops: Tensor | None = None


@dataclass(eq=False)
class SampleSource:
    """A pack with its cloud and the network's encoding of its rig."""

    pack: Pack
    body: SkeletonFeatures
    cloud: point_splatting.Cloud
    clips: list[NDArray[np.float32]] = field(default_factory=list)


def sample_source_of(pack: Pack, config: Config, device: torch.device | str = "cpu") -> SampleSource:
    """Encode the rig of a pack, and make its cloud on the device."""
    return SampleSource(
        pack,
        encode_skeleton(pack.rig, config),
        point_splatting.cloud_of(pack.surface, pack.rig.rest, device),
        list(pack.clips.values()),
    )


@dataclass(frozen=True)
class Recipe:
    """What samples are made of.

    frames: of a window. side_error: standard deviation in radians between the azimuths of video and reference.
    varied: share of windows whose rig is changed (rig_augment). creatures: share of windows of procedural creatures, of which there are
    `kinds`. stirred: share of windows whose motion is perturbed (motion_augment).
    """

    frames: int = 6
    side_error: float = SIDE_ERROR
    varied: float = 0.0
    creatures: float = 0.0
    kinds: int = 100_000
    stirred: float = 0.0


class Windows(IterableDataset[Sample]):
    """Samples by number. A sample depends only on the seed and its number, so a resumed run can make any of them again.

    encode: crops (B, 224, 224, 3) uint8 -> tokens (B, S, C). numbers: of the samples, in order; 0, 1, 2, ... if not given.
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
        sources = [sample_source_of(pack, self.config, self.device) for pack in self.packs]
        # the loader takes a sample from one worker after the other, which keeps the order of the numbers
        for number in islice(count() if self.numbers is None else self.numbers, first, None, step):
            rng = np.random.default_rng([self.seed, number])
            yield self.sample(self._choose_source(sources, rng), rng)

    def _choose_source(self, sources: Sequence[SampleSource], rng: np.random.Generator) -> SampleSource:
        """A pack or a new creature, at times with its rig changed."""
        if rng.random() < self.recipe.creatures or not sources:
            source = sample_source_of(creature(int(rng.integers(self.recipe.kinds))), self.config, self.device)
        else:
            source = sources[int(rng.integers(len(sources)))]
        if rng.random() >= self.recipe.varied:
            return source
        pack = augment_rig(source.pack, rng)
        cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest, self.device, source.cloud.spacing)
        return SampleSource(pack, encode_skeleton(pack.rig, self.config), cloud, list(pack.clips.values()))

    def sample(self, source: SampleSource, rng: np.random.Generator) -> Sample:
        """Draw a window of one of the clips and its reference pairs."""
        rig = source.pack.rig
        poses = cut_window(source.clips[rng.integers(len(source.clips))], self.recipe.frames, rng)
        if self.recipe.stirred and rng.random() < self.recipe.stirred:
            poses = perturb_motion(poses, rig, rng)
        references = np.stack([_choose_reference(source, rng) for _ in range(PAIRS)])
        azimuth = rng.uniform(-np.pi, np.pi)
        cloud = recolour(source.cloud, rng)
        window = _render_window(cloud, poses, azimuth, rng)
        still = _render_window(cloud, references[:1], azimuth + rng.normal(0, self.recipe.side_error), rng)
        pairs = encode_reference_pairs(rig, references, [still.azimuth] * PAIRS, still.projection, still.squares[0], self.config)
        if rng.random() < NOISY_SHARE:
            pairs = perturb_pairs(pairs, rng)
        rotations, position = pose_to_network(rig, poses.astype(np.float64), self.config.tips)
        local = global_to_local(source.body.skeleton.parents, rotations)
        # into the frame of the reference's camera, as encode_reference_pairs does
        yaw = view_yaw(still.azimuth)
        local[:, 0] = yaw @ local[:, 0]
        # the rigs of packs are in world axes, so A^T leads from the network's axes back to the world
        points = position @ network_axes(rig) + poses[:, :1, :3, 3]
        uv = to_crop(window.squares[:, None], project(window.projection, points))
        crops = torch.cat([still.crops, window.crops])
        tokens = self.encode(crops)
        return Sample(
            source.body,
            pairs,
            tokens.to("cpu", torch.float16),
            _to_tensor(position @ yaw.T / pairs.scale),
            _to_tensor(local),
            _to_tensor(uv),
            crops=crops.cpu() if self.config.eyes else None,
        )


def _to_tensor(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def cut_window(clip: NDArray[np.float32], frames: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """`frames` frames of a clip at single or double speed. If the clip ends before, its last frame is repeated."""
    stride = rng.integers(1, 3)
    start = rng.integers(max(1, len(clip) - stride * (frames - 1)))
    return clip[np.minimum(start + stride * np.arange(frames), len(clip) - 1)]


def _choose_reference(source: SampleSource, rng: np.random.Generator) -> Array:
    """The rest pose, the first frame of a clip, or any frame of a clip, (J, 4, 4)."""
    choice = rng.random()
    if choice < REST_SHARE:
        return np.array(source.pack.rig.rest)
    clip = source.clips[rng.integers(len(source.clips))]
    return clip[0 if choice < REST_SHARE + FIRST_SHARE else rng.integers(len(clip))].astype(np.float64)


def perturb_pairs(pairs: ReferencePairs, rng: np.random.Generator) -> ReferencePairs:
    """Move each joint by a few millimetres of a 1 m cube, and rotate it by about a degree."""
    axes = rng.normal(size=(*pairs.rot6d.shape[:2], 3))
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    noise = axis_angle_to_matrix(axes, rng.normal(0, np.radians(1.5), axes.shape[:2]))
    rotations = rot6d_to_matrix(pairs.rot6d) @ noise
    position = pairs.position + rng.normal(0, 0.005, pairs.position.shape)
    return replace(pairs, position=position - position[:, :1], rot6d=matrix_to_rot6d(rotations))


def recolour(cloud: point_splatting.Cloud, rng: np.random.Generator) -> point_splatting.Cloud:
    """Change the colours: by a random gain and tint, at times to a single colour, stripes or spots."""
    colours = cloud.colours
    if rng.random() < 0.15:
        colours = _add_pattern(cloud, rng)
    if rng.random() < 0.15:
        colours = colours * 0.15 + torch.tensor(rng.uniform(0.1, 0.8, 3), dtype=colours.dtype, device=colours.device)
    elif rng.random() < 0.6:
        mix = np.eye(3) + rng.normal(0, 0.15, (3, 3))
        colours = (colours @ torch.tensor(mix, dtype=colours.dtype, device=colours.device)) * rng.uniform(0.6, 1.3)
    return replace(cloud, colours=colours.clamp(0.02, 0.98))


def _add_pattern(cloud: point_splatting.Cloud, rng: np.random.Generator) -> Tensor:
    """The colours with stripes or spots, where the sum of a few waves through the body at rest is above a level."""
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
    """T crops (T, 224, 224, 3) uint8 from one camera. projection: (3, 4). squares: (T, 4), those of the crops, in pixels."""

    crops: Tensor
    projection: Array
    squares: Array
    azimuth: float


def _render_window(
    cloud: point_splatting.Cloud, poses: NDArray[np.floating], azimuth: float, rng: np.random.Generator
) -> RenderedWindow:
    """Draw joint matrices (T, J, 4, 4) from an azimuth (radians), each frame directly as its crop."""
    points, normals = cloud.skin(torch.as_tensor(poses, dtype=torch.float32, device=cloud.points.device))
    low, high = points.amin((0, 1)).cpu().numpy().astype(float), points.amax((0, 1)).cpu().numpy().astype(float)
    fov = rng.uniform(0.3, 0.9)
    camera = frame_points(np.stack([low, high]), azimuth, rng.uniform(-0.05, 0.35), 640, fov=fov)
    pixels = project(camera.projection, points.cpu().numpy().astype(float))
    squares = _crop_squares(np.concatenate([pixels.min(1), pixels.max(1)], axis=-1), rng)
    inside = inside_crops(camera.projection, squares).to(points.device)
    light = camera.rotation.T @ rng.normal([-0.3, 0.7, 0.6], 0.5)
    shading = point_splatting.Shading(rng.uniform(0.25, 0.55), rng.uniform(0.3, 0.8), rng.uniform(0, 0.1))
    rgba = point_splatting.render(
        points, normals, cloud.colours, inside,
        torch.tensor(light / np.linalg.norm(light), dtype=torch.float32, device=points.device), SIZE, SIZE, spacing=cloud.spacing,
        shading=shading,
    )  # fmt: skip
    return RenderedWindow(degrade(rgba, rng), camera.projection, squares, azimuth)


def _crop_squares(boxes: Array, rng: np.random.Generator) -> Array:
    """Squares (T, 4) of one size around the boxes (T, 4), as a capture crops a clip; a little off, as boxes of mattes are."""
    side = crop_side(boxes) * rng.uniform(0.97, 1.12)
    shift = rng.normal(0, 0.015, 2) + rng.normal(0, 0.004, (len(boxes), 2))
    return crop_box(boxes + np.tile(shift, 2) * side, side)


def inside_crops(projection: Array, squares: Array) -> Tensor:
    """Projections (T, 3, 4) to the pixels of the crops of squares (T, 4), from a projection (3, 4) to the image's pixels."""
    # u' = (u - x0) zoom, on (u w, v w, w)
    zoom = SIZE / (squares[:, 2] - squares[:, 0])
    crop = np.zeros((len(squares), 3, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = zoom
    crop[:, :2, 2] = -squares[:, :2] * zoom[:, None]
    crop[:, 2, 2] = 1
    return torch.tensor(crop @ projection, dtype=torch.float32)


def on_white(rgba: Tensor) -> Tensor:
    """Put images (T, H, W, 4) with straight alpha on white -> (T, H, W, 3) uint8."""
    return (composite(rgba[..., :3], rgba[..., 3:], 1.0).clamp(0, 1) * 255).round().to(torch.uint8)

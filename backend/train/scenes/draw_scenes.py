"""Draws scenes by number into a folder: any of them can be drawn again, and a run of it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...encoders.crops import SIZE, crop_box, crop_side, to_crop
from ...geometry.camera import Camera, frame_points, project
from ...geometry.rotations import Array
from ...model.config import Config
from ...model.encode_rig import encode_skeleton, pixels_per_unit
from ...rendering import point_splatting
from ...rig.skeleton import global_to_local, network_axes, pose_to_network
from ..creatures.creatures import creature
from ..packs.rig_packs import Pack
from ..samples.image_degradation import degrade
from ..samples.motion_augment import perturb_motion
from ..samples.rig_augment import augment_rig
from ..samples.samples import SIDE_ERROR, SampleSource, cut_window, inside_crops, recolour, sample_source_of
from .scene import PICTURES, REFERENCES, Scene, pack_picture, store_tokens

IMAGE = 640  # pixels of the image that the crops are taken from
REST_SHARE = 0.6  # of the first references: the rest pose, the others are the first frame of a clip
ONE_CLIP = 0.5  # share of scenes of single pictures that come from one clip


@dataclass(frozen=True)
class SceneRecipe:
    """What scenes are made of.

    timed: share of scenes with consecutive pictures. varied, creatures, stirred: as in samples.Recipe. kinds: number of creatures.
    side_error: standard deviation in radians between the azimuths of two pictures. other_look: share of scenes whose references have
    other colours than the other pictures: a rig seldom looks like the animal in the video.
    """

    timed: float = 0.3
    varied: float = 0.5
    creatures: float = 0.05
    stirred: float = 0.25
    kinds: int = 100_000
    side_error: float = SIDE_ERROR
    other_look: float = 0.4


@dataclass(eq=False)
class SceneMaker:
    """Draws scenes of packs. A scene depends only on the seed and its number.

    encode: crops (B, 224, 224, 3) uint8 -> tokens (B, S, C).
    """

    packs: Sequence[Pack]
    config: Config
    encode: Callable[[Tensor], Tensor]
    recipe: SceneRecipe = SceneRecipe()
    seed: int = 0
    _sources: dict[int, SampleSource] = field(default_factory=dict)

    def draw(self, number: int) -> Scene:
        """Draw the scene of that number."""
        rng = np.random.default_rng([self.seed, number])
        source = self._source(rng)
        apart = rng.random() >= self.recipe.timed
        poses = np.concatenate([_references(source, rng), self._poses(source, apart, rng)]).astype(np.float32)
        azimuths = rng.uniform(-np.pi, np.pi) + rng.normal(0, self.recipe.side_error / np.sqrt(2), len(poses))
        cloud = recolour(source.cloud, rng)
        other = recolour(source.cloud, rng) if rng.random() < self.recipe.other_look else cloud
        if apart:
            shots = [_film(other if i < REFERENCES else cloud, poses[i : i + 1], azimuths[i], rng) for i in range(len(poses))]
        else:
            still = [_film(other, poses[i : i + 1], azimuths[i], rng) for i in range(REFERENCES)]
            shots = [*still, _film(cloud, poses[REFERENCES:], azimuths[REFERENCES], rng)]
            azimuths[REFERENCES:] = azimuths[REFERENCES]
        crops = torch.cat([shot.crops for shot in shots])
        tokens, size = store_tokens(self.encode(crops))
        rig = source.pack.rig
        rotations, position = pose_to_network(rig, poses.astype(np.float64), self.config.tips)
        local = global_to_local(source.body.skeleton.parents, rotations)
        # the rigs of packs are in world axes, so A^T leads from the network's axes back to the world
        places = np.split(position @ network_axes(rig) + poses[:, :1, :3, 3], np.cumsum([len(s.crops) for s in shots])[:-1])
        uv = [to_crop(s.squares[:, None], project(s.camera.projection, place)) for s, place in zip(shots, places, strict=True)]
        unit = [_half_crop(shot, place[:, 0]) for shot, place in zip(shots, places, strict=True)]
        return Scene(
            source.body, tokens, size, apart,
            *(np.asarray(v, np.float32) for v in (local, position, np.concatenate(uv), azimuths, np.concatenate(unit))),
            [pack_picture(crop) for crop in crops.numpy()],
        )  # fmt: skip

    def _source(self, rng: np.random.Generator) -> SampleSource:
        """A pack or a creature, at times with its rig changed."""
        if rng.random() < self.recipe.creatures or not self.packs:
            source = sample_source_of(creature(int(rng.integers(self.recipe.kinds))), self.config)
        else:
            index = int(rng.integers(len(self.packs)))
            if index not in self._sources:
                self._sources[index] = sample_source_of(self.packs[index], self.config)
            source = self._sources[index]
        if rng.random() >= self.recipe.varied:
            return source
        pack = augment_rig(source.pack, rng)
        cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest, spacing=source.cloud.spacing)
        return SampleSource(pack, encode_skeleton(pack.rig, self.config), cloud, list(pack.clips.values()))

    def _poses(self, source: SampleSource, apart: bool, rng: np.random.Generator) -> Array:
        """(PICTURES - REFERENCES, J, 4, 4): consecutive frames of a clip, frames spread over a clip, or frames of any clips."""
        count = PICTURES - REFERENCES
        clip = source.clips[int(rng.integers(len(source.clips)))]
        if apart and rng.random() >= ONE_CLIP:
            clips = [source.clips[int(rng.integers(len(source.clips)))] for _ in range(count)]
            return np.stack([clip[int(rng.integers(len(clip)))] for clip in clips])
        if apart:
            places = (np.arange(count) + rng.random(count)) / count
            poses = clip[(places * len(clip)).astype(int)]
        else:
            poses = cut_window(clip, count, rng)
        return perturb_motion(poses, source.pack.rig, rng) if rng.random() < self.recipe.stirred else poses


def draw_scenes(maker: SceneMaker, folder: Path, numbers: Iterable[int]) -> Iterator[int]:
    """Draw the scenes that the folder lacks, and yield their numbers one by one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        path = scene_path(folder, number)
        if not path.exists():
            maker.draw(number).save(path)
            yield number


def scene_path(folder: Path, number: int) -> Path:
    """The file of a scene."""
    return folder / f"{number:06d}.npz"


def _references(source: SampleSource, rng: np.random.Generator) -> Array:
    """(REFERENCES, J, 4, 4): the rest pose or the first frame of a clip, and any frame, more often a first one."""
    first, other = (source.clips[int(rng.integers(len(source.clips)))] for _ in range(REFERENCES))
    rest = rng.random() < REST_SHARE
    frame = 0 if rng.random() < 0.5 else int(rng.integers(len(other)))
    return np.stack([source.pack.rig.rest if rest else first[0], other[frame]])


@dataclass(frozen=True, eq=False)
class _Shot:
    """T crops (T, 224, 224, 3) uint8 from one camera, and their squares (T, 4) in its pixels."""

    crops: Tensor
    camera: Camera
    squares: Array


def _film(cloud: point_splatting.Cloud, poses: Array, azimuth: float, rng: np.random.Generator) -> _Shot:
    """Draw joint matrices (T, J, 4, 4) from an azimuth (radians), each frame as its crop."""
    points, normals = cloud.skin(torch.from_numpy(poses))
    low, high = points.amin((0, 1)).numpy().astype(float), points.amax((0, 1)).numpy().astype(float)
    camera = frame_points(np.stack([low, high]), azimuth, rng.uniform(-0.05, 0.35), IMAGE, fov=rng.uniform(0.3, 0.9))
    pixels = project(camera.projection, points.numpy().astype(float))
    boxes = np.concatenate([pixels.min(1), pixels.max(1)], axis=-1)
    # the square of a capture is as large as its subject becomes in the frames around
    side = crop_side(boxes) * rng.uniform(0.97, 1.1) * (1 + abs(rng.normal(0, 0.12)) * (len(poses) == 1))
    shift = rng.normal(0, 0.015, 2) + rng.normal(0, 0.004, (len(boxes), 2))
    squares = crop_box(boxes + np.tile(shift, 2) * side, side)
    light = camera.rotation.T @ rng.normal([-0.3, 0.7, 0.6], 0.5)
    rgba = point_splatting.render(
        points, normals, cloud.colours, inside_crops(camera.projection, squares),
        torch.tensor(light / np.linalg.norm(light), dtype=torch.float32), SIZE, SIZE, spacing=cloud.spacing,
        shading=point_splatting.Shading(rng.uniform(0.25, 0.55), rng.uniform(0.3, 0.8), rng.uniform(0, 0.1)),
    )  # fmt: skip
    return _Shot(degrade(rgba, rng), camera, squares)


def _half_crop(shot: _Shot, roots: Array) -> Array:
    """(T,) lengths of half the crop's side at the root joints (T, 3), world."""
    scale = np.array([pixels_per_unit(shot.camera.projection, root) for root in roots])
    return (shot.squares[:, 2] - shot.squares[:, 0]) / 2 / scale

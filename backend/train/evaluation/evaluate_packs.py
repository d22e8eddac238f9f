"""Measures a model on rig packs, with images drawn from point clouds that go through the code of a capture."""

from __future__ import annotations

import zlib
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...arrays import Image
from ...capture.inference import (
    motion_of,
    network_inputs_of,
    predict_positions,
    predict_rotations,
    reference_crop,
    split_predictions,
)
from ...capture.memory_plan import compute_plan_of
from ...capture.side_fitting import choose_side, few_frames
from ...capture.view_matching import clear_frames, likeness_of
from ...capture_settings import Settings
from ...encoders.crops import SIZE, clip_squares
from ...geometry.camera import frame_points, project, side_azimuths
from ...geometry.rotations import Array
from ...motion.motion import Motion, with_joints_of
from ...progress import result_of
from ...refine.footage import Footage
from ...refine.refine import FitTarget, refine
from ...rendering import point_splatting
from ...rig.rig import Reference, Rig, Target
from ...rig.skeleton import global_to_local, pose_to_network
from ...weights.model_file import Model
from ..packs.rig_packs import Pack
from ..samples.samples import RenderedWindow, inside_crops, on_white
from .metrics import measure_motion
from .movement import kind_of_motion
from .overlaps import camera_overlap, compared_frames, draw_masks, matte_overlap

VIDEO_SIZE = 640  # pixels of the square image that clips are drawn in
STILL_DEGREES = 0.1  # a joint that never rotates further than this from its first pose is static


Views = dict[bytes, tuple[list[Reference], Tensor]]  # by pose: most clips of a pack share their references


def evaluate(
    packs: Sequence[Pack],
    everything: Sequence[Pack],
    split: str,
    model: Model,
    seed: int = 0,
    mode: str = "off",
) -> Iterator[dict[str, object]]:
    """Measure every clip of the packs with two references: the rest pose, and the first frame of another action. Yields rows.

    everything: the same packs with all their clips, from which references and static joints are taken.
    split: the name of the split, for the rows. seed: of the camera's azimuth, together with the clip's name. mode: of refining, with the
    true mattes.
    A row has species, split, clip, kind (of motion), reference, view_deg (the angle between the true azimuth and the capture's), the
    figures of metrics.measure_motion, overlap and overlap_matte (with the true mattes).
    """
    whole = {pack.name: pack for pack in everything}
    for pack in packs:
        rig = replace(pack.rig, static=static_joints(whole[pack.name]))
        shown = whole[pack.name] if model.config.natural else whole[pack.name].in_armature_tree()
        cloud = point_splatting.cloud_of(pack.surface, pack.rig.rest)
        known: Views = {}
        for clip, poses in pack.clips.items():
            rng = np.random.default_rng([seed, zlib.crc32(f"{pack.name}/{clip}".encode())])
            window = splat_crops(cloud, poses, rng.uniform(-np.pi, np.pi), rng.uniform(0.0, 0.25))
            about = {"species": pack.name, "split": split, "clip": clip, "kind": kind_of_motion(clip)}
            kinds = zip(references(whole[pack.name], clip), references(shown, clip), strict=True)
            for kind, figures in _measure_clip(pack, rig, shown, cloud, poses, window, list(kinds), known, model, mode):
                yield {**about, "reference": kind, **figures}


def _measure_clip(
    pack: Pack,
    rig: Rig,
    shown: Pack,
    cloud: point_splatting.Cloud,
    poses: NDArray[np.float32],
    window: RenderedWindow,
    kinds: Sequence[tuple[tuple[str, Array], tuple[str, Array]]],
    known: Views,
    model: Model,
    mode: str,
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the kind of reference and the figures for each. kinds: the references of the pack and of what the network sees."""
    frames = torch.cat([model.encoder.encode(part) for part in window.crops.split(16)])
    truth, footage = poses.astype(np.float64), None
    masks = draw_masks(cloud, truth[compared_frames(len(truth))], window.projection, VIDEO_SIZE, VIDEO_SIZE)
    mattes = dict(zip(compared_frames(len(truth)), masks.astype(np.uint8) * 255, strict=True))
    for (kind, pose), (_, shown_pose) in kinds:
        if pose.tobytes() not in known:
            views = point_splatting.reference_views(shown.rig, shown.surface, shown_pose, side_azimuths(), size=SIZE)
            known[pose.tobytes()] = views, model.encoder.encode(np.stack([reference_crop(view) for view in views]))
        if mode != "off":
            footage = footage or splat_footage(cloud, truth, window, pack.fps)
        views, images = known[pose.tobytes()]
        target = Target(shown.rig, tuple(views), rig if shown is not pack else None, pack.surface)
        motion = with_joints_of(predict_motion(model, target, images, frames, window.squares, pack.fps, footage), rig)
        if footage is not None:
            [motion] = result_of(refine([FitTarget(pack.rig, pack.surface, motion)], footage, mode))
        yield (
            kind,
            {
                "view_deg": view_error(motion, window.azimuth),
                **measure_motion(rig, motion, truth, pose),
                "overlap": camera_overlap(rig, cloud, motion, truth, window.projection, VIDEO_SIZE, VIDEO_SIZE),
                "overlap_matte": matte_overlap(rig, pack.surface, motion, mattes.__getitem__),
            },
        )


def static_joints(pack: Pack) -> NDArray[np.bool_]:
    """(J,) bool: the joints that keep one local rotation in all clips of the pack, and are not counted in angles."""
    rotations = np.concatenate(
        [pose_to_network(pack.rig, poses.astype(np.float64), tips=False)[0] for poses in pack.clips.values()]
    )
    local = global_to_local(pack.rig.parents, rotations)
    # |R - R0|_F = 2 sqrt(2) sin(angle / 2)
    distance = np.linalg.norm(local - local[:1], axis=(-2, -1)).max(0)
    return distance < 2 * np.sqrt(2) * np.sin(np.radians(STILL_DEGREES) / 2)


def references(pack: Pack, clip: str) -> list[tuple[str, Array]]:
    """Reference poses (J, 4, 4) for a clip by kind: the rest pose, and the first frame of the next action by name, if there is one."""
    names = sorted(pack.clips)
    following = names[(names.index(clip) + 1) % len(names)]
    poses = [("rest", np.array(pack.rig.rest))]
    return poses if following == clip else [*poses, ("action", pack.clips[following][0].astype(np.float64))]


@torch.no_grad()
def splat_crops(cloud: point_splatting.Cloud, poses: NDArray[np.float32], azimuth: float, pitch: float) -> RenderedWindow:
    """Draw joint matrices (T, J, 4, 4) from one side, cropped as a capture crops a video. azimuth, pitch: radians."""
    points, normals = cloud.skin(torch.as_tensor(poses))
    low, high = points.amin((0, 1)).numpy().astype(float), points.amax((0, 1)).numpy().astype(float)
    camera = frame_points(np.stack([low, high]), azimuth, pitch, VIDEO_SIZE, fov=0.6)
    pixels = project(camera.projection, points.numpy().astype(float))
    squares = clip_squares(np.concatenate([pixels.min(1), pixels.max(1)], axis=-1))
    light = camera.rotation.T @ np.array([-0.45, 0.65, 0.6])
    crops = []
    for part in np.array_split(np.arange(len(poses)), -(-len(poses) // 16)):
        rgba = point_splatting.render(
            points[part], normals[part], cloud.colours, inside_crops(camera.projection, squares[part]), torch.tensor(light, dtype=torch.float32),
            SIZE, SIZE, spacing=cloud.spacing,
        )  # fmt: skip
        crops.append(on_white(rgba))
    return RenderedWindow(torch.cat(crops), camera.projection, squares, azimuth)


@torch.no_grad()
def splat_footage(cloud: point_splatting.Cloud, poses: Array, window: RenderedWindow, fps: float) -> Footage:
    """What a fit reads of the clip that `splat_crops` draws: images and true mattes, half as large."""
    half = torch.tensor(np.diag([0.5, 0.5, 1.0]) @ window.projection, dtype=torch.float32)
    side, light = VIDEO_SIZE // 2, torch.tensor([-0.45, 0.65, 0.6])
    images, mattes = [], []
    for part in torch.as_tensor(poses, dtype=torch.float32).split(16):
        points, normals = cloud.skin(part)
        rgba = point_splatting.render(points, normals, cloud.colours, half, light, side, side, spacing=cloud.spacing)
        mattes += list((rgba[..., 3] > 0.5).numpy().astype(np.uint8) * 255)
        # on white, as the crops are
        images += list(((rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]) * 255).round().to(torch.uint8).numpy())
    points = cloud.skin(torch.as_tensor(poses, dtype=torch.float32))[0].numpy().astype(float)
    pixels = project(half.numpy().astype(float), points)
    boxes = np.concatenate([pixels.min(1), pixels.max(1)], axis=-1)
    times, seen = np.arange(len(poses)) / fps, np.ones(len(poses))

    def chosen(only: Container[int]) -> Generator[Image, None, None]:
        yield from (image for frame, image in enumerate(images) if frame in only)

    return Footage(times, seen, boxes, mattes.__getitem__, chosen, 2.0)


def predict_motion(
    model: Model, target: Target, images: Tensor, frames: Tensor, squares: Array, fps: float, footage: Footage | None = None
) -> Motion:
    """Capture without a video file: match a view, run both stages, correct the heading.

    images: tokens (V, S, C) of the target's references. frames: tokens (T, S, C). squares: (T, 4) of the crops, in pixels.
    footage: what rough takes are laid on to find the side; None to go by looks alone.
    """
    rig, views = target.rig, target.references
    clear = clear_frames(np.ones(len(frames)))
    likeness = likeness_of(images, frames[clear], model.config.image_width)
    view = int(np.argmax(likeness))
    if footage is not None:
        plan = compute_plan_of(model.encoder.device, model.config, Settings())
        view = result_of(choose_side(model, plan, target, images, likeness, few_frames(frames[clear], footage, clear)))
    inputs, scales = network_inputs_of(model, [rig], [views[view]], images[view : view + 1])
    position = torch.cat(list(predict_positions(model.network, inputs, [frames], len(frames))), dim=1)
    rot6d: Tensor = torch.cat(list(predict_rotations(model.network, inputs, position)), dim=1)
    [prediction] = split_predictions([rig], [views[view]], scales, position, rot6d, model.config.tips)
    count = len(frames)
    return motion_of(prediction, np.arange(count) / fps, squares, np.ones(count), Settings(), {"view": view})


def view_error(motion: Motion, azimuth: float) -> float:
    """Degrees between the true azimuth of the camera (radians) and the one that the capture found."""
    difference = motion.camera[0] - azimuth
    return float(np.degrees(abs(np.angle(np.exp(1j * difference)))))

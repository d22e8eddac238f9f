"""`build.py dev render`: renders videos of a rig's actions outdoors, each with a JSON of its camera, to measure captures."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import bpy
import numpy as np

from ...backend.arrays import Array
from ...backend.errors import UserError
from ...backend.geometry.camera import Camera, frame_points
from ...backend.train.packs.rendered_clips import RenderedClip, has_mattes, save_mattes, seeded_rng, side_of, stem_of
from ...backend.train.packs.rig_packs import Pack, load_packs
from ..import_export.import_rig import import_rig
from ..rendering.engines import ENGINES
from ..rendering.posed_points import go_to, points_of
from ..rig.actions import action_frames, action_label, actions_of, assign_action, reset_pose, undisturbed
from ..rig.meshes import visible_meshes
from . import outdoor_scene

if TYPE_CHECKING:
    from ...backend.rendering.point_splatting import Cloud

_log = logging.getLogger(__name__)
FOV = 0.6  # radians, as in the point-splat images of `evaluate`
MARGIN = 1.08
FRAMINGS = 32  # frames that the camera must hold
CORNERS = 6  # of a point's disc
DISC = 0.95  # radius over point spacing: the discs of a flat patch just close it
SPLITS = ("seen", "unseen", "validation")
Make = Callable[["Look", Path], RenderedClip]


@dataclass(frozen=True)
class Look:
    """Settings of the videos.

    size: pixels of the square image. samples: of Cycles, per pixel. frames: at most so many, evenly over the clip; 0 for all.
    covers: also write the subject's true mattes. Raises UserError for a value that cannot be used.
    """

    size: int = 480
    samples: int = 4
    engine: str = "cycles"
    seed: int = 0
    frames: int = 0
    covers: bool = False

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 2:
            raise UserError(f"The size is {self.size} pixels: give an even number from 16 on.")
        if self.samples < 1:
            raise UserError(f"The samples are {self.samples}: give at least 1.")
        if self.frames < 0 or self.frames == 1:
            raise UserError(f"The frames are {self.frames}: give at least 2, or 0 for all.")


class RenderedRig(Protocol):
    """A clip to render: poses its objects in a scene, one frame after another."""

    @property
    def objects(self) -> Sequence[bpy.types.Object]: ...

    @property
    def count(self) -> int: ...

    def pose(self, scene: bpy.types.Scene, frame: int) -> None: ...

    def points(self, scene: bpy.types.Scene, frame: int) -> Array:
        """(P, 3) world positions of the surface on a frame."""
        ...


class RenderedArmature:
    """An armature with its visible meshes, on the whole frames of one action."""

    def __init__(self, obj: bpy.types.Object, action: bpy.types.Action) -> None:
        self._obj, self._frames = obj, action_frames(action)
        self._meshes = visible_meshes(obj)
        self.objects = (obj, *self._meshes)
        self.count = len(self._frames)

    def pose(self, scene: bpy.types.Scene, frame: int) -> None:
        go_to(scene, self._frames[frame])

    def points(self, scene: bpy.types.Scene, frame: int) -> Array:
        return points_of(self._obj, self._meshes, go_to(scene, self._frames[frame]))


@contextmanager
def rendered_armature(obj: bpy.types.Object, action: bpy.types.Action) -> Iterator[RenderedArmature]:
    """Have the armature play the action alone inside the block, and restore it. Raises UserError if it has no visible mesh."""
    if not visible_meshes(obj):
        raise UserError(f"Armature '{obj.name}' moves no visible mesh: show one in the Outliner first.")
    with undisturbed(obj):
        assign_action(obj, action)
        reset_pose(obj)
        yield RenderedArmature(obj, action)


class RenderedCloud:
    """A pack's surface as a mesh of small discs in their own colours, moved by one of its clips."""

    def __init__(self, obj: bpy.types.Object, cloud: Cloud, clip: Array) -> None:
        self._obj, self._cloud, self._clip = obj, cloud, clip
        self.objects = (obj,)
        self.count = len(clip)

    def pose(self, scene: bpy.types.Scene, frame: int) -> None:
        points, normals = self._skin(frame)
        corners = discs(points, normals, self._cloud.spacing.numpy() * DISC)
        self._obj.data.vertices.foreach_set("co", corners.astype(np.float32).ravel())
        self._obj.data.update()
        # the scene's frame sets the noise of the image
        go_to(scene, frame)

    def points(self, scene: bpy.types.Scene, frame: int) -> Array:
        return self._skin(frame)[0]

    def _skin(self, frame: int) -> tuple[Array, Array]:
        from ...backend.rendering.still_images import skin_cloud

        return skin_cloud(self._cloud, self._clip[frame])


@contextmanager
def rendered_cloud(pack: Pack, clip: str) -> Iterator[RenderedCloud]:
    """Make an object of the pack's surface, and remove it after the block."""
    from ...backend.rendering import point_splatting

    data = bpy.data.meshes.new(pack.name)
    obj = bpy.data.objects.new(pack.name, data)
    paint = bpy.data.materials.new(pack.name)
    try:
        count = len(pack.surface)
        data.from_pydata(np.zeros((count * CORNERS, 3)), [], np.arange(count * CORNERS).reshape(count, CORNERS).tolist())
        colours = np.concatenate([pack.surface.colours, np.ones((count, 1), np.float32)], axis=1)
        layer = data.color_attributes.new("Colour", "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color_srgb", np.repeat(colours, CORNERS, axis=0).astype(np.float32).ravel())
        data.materials.append(paint)
        _paint(paint)
        yield RenderedCloud(obj, point_splatting.cloud_of(pack.surface, pack.rig.rest), pack.clips[clip])
    finally:
        bpy.data.batch_remove([obj, data, paint])


def _paint(material: bpy.types.Material) -> None:
    """Show the points' colours. Backs are transparent to all rays but the camera's, because a ray that leaves a disc may meet the
    back of its neighbour."""
    tree = outdoor_scene.node_tree(material)
    nodes, links = tree.nodes, tree.links
    kinds = ("VertexColor", "NewGeometry", "LightPath", "Math", "BsdfTransparent", "MixShader")
    source, geometry, path, less, clear, mix = (nodes.new(f"ShaderNode{kind}") for kind in kinds)
    shader, output = nodes["Principled BSDF"], nodes["Material Output"]
    source.layer_name = "Colour"
    shader.inputs["Roughness"].default_value = 0.8
    links.new(source.outputs["Color"], shader.inputs["Base Color"])
    # transparent where a ray meets a back, unless it is the camera's: a sheet has two sides
    less.operation, less.use_clamp = "SUBTRACT", True
    links.new(geometry.outputs["Backfacing"], less.inputs[0])
    links.new(path.outputs["Is Camera Ray"], less.inputs[1])
    for value, place in zip((less.outputs[0], shader.outputs[0], clear.outputs[0]), mix.inputs, strict=True):
        links.new(value, place)
    links.new(mix.outputs[0], output.inputs["Surface"])


def discs(points: Array, normals: Array, radius: Array) -> Array:
    """Points and unit normals (P, 3), radii (P,) -> the corners (P * CORNERS, 3) of a regular polygon around each normal."""
    # the world axis that is farthest from the normal gives a first direction across it
    least = np.eye(3)[np.abs(normals).argmin(1)]
    across = np.cross(normals, least)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    other = np.cross(normals, across)
    turn = 2 * np.pi * np.arange(CORNERS)[:, None] / CORNERS
    ring = np.cos(turn) * across[:, None] + np.sin(turn) * other[:, None]
    return (points[:, None] + radius[:, None, None] * ring).reshape(-1, 3)


def render_clip(rendered: RenderedRig, pack: str, clip: str, fps: float, look: Look, path: Path) -> RenderedClip:
    """Render one clip into an mp4 with a JSON beside it. The user's scene is left as it was. Raises UserError."""
    from ...backend.video.reader import write_video

    rng = seeded_rng(look.seed, pack, clip)
    azimuth, pitch = side_of(rng)
    weather = outdoor_scene.weather_of(rng, azimuth)
    began = time.perf_counter()
    count = min(rendered.count, look.frames or rendered.count)
    chosen = np.linspace(0, rendered.count - 1, count).round().astype(int)
    draft = path.with_name(f"{path.stem}.part.mp4")

    def pose(scene: bpy.types.Scene, frame: int) -> None:
        rendered.pose(scene, int(chosen[frame]))

    with outdoor_scene.outdoor_scene_of(rendered.objects, ENGINES[look.engine], look.samples) as stage:
        camera, floor = frame_motion(rendered, stage.scene, azimuth, pitch, look.size)
        with outdoor_scene.surroundings(stage.scene, camera, floor, weather):
            write_video(draft, outdoor_scene.render_frame(stage, count, pose), fps)
        if look.covers:
            with outdoor_scene.nothing_around(stage.scene, camera):
                save_mattes(path, outdoor_scene.render_frame(stage, count, pose))
    seconds = (time.perf_counter() - began) / count
    about = {"engine": look.engine, "samples": look.samples, "seed": look.seed, "blender": bpy.app.version_string}
    filmed = RenderedClip.by(camera, pack, clip, fps, count, {**about, "seconds_per_frame": round(seconds, 3)})
    # the JSON is saved first: a JSON without a video is ignored, and a video without one would be rendered again
    filmed.save(path.with_suffix(".json"))
    os.replace(draft, path)
    return filmed


def frame_motion(rendered: RenderedRig, scene: bpy.types.Scene, azimuth: float, pitch: float, size: int) -> tuple[Camera, float]:
    """A camera that holds the whole motion, and the height of the motion's lowest point, for the ground."""
    chosen = np.unique(np.linspace(0, rendered.count - 1, FRAMINGS).round().astype(int))
    points = np.concatenate([rendered.points(scene, int(frame)) for frame in chosen])
    return frame_points(points, azimuth, pitch, size, MARGIN, FOV), float(points[:, 2].min())


def render_source(source: Path, out: Path, look: Look, wanted: Wanted) -> Iterator[tuple[str, str | UserError]]:
    """Render the wanted clips of a pack (.npz) or a rig file; yields (clip, result or error), in the order of the clips.

    A rig file replaces the open file. A clip that is rendered already is not rendered again, unless mattes are asked for and missing.
    Raises UserError for an unfit source.
    """
    if not wanted.any_of(source.stem):
        return
    clips = _clips_of_pack(source) if source.suffix.lower() == ".npz" else _clips_of_file(source)
    for clip, (count, make) in clips.items():
        path = out / f"{stem_of(source.stem, clip)}.mp4"
        if not wanted(source.stem, clip):
            continue
        if path.is_file() and path.with_suffix(".json").is_file() and (has_mattes(path) or not look.covers):
            yield clip, "is there already"
        elif count < 2:
            yield clip, "has a single frame and is left out"
        else:
            yield clip, _attempt(make, look, path)


def _attempt(make: Make, look: Look, path: Path) -> str | UserError:
    try:
        filmed = make(look, path)
    except UserError as error:
        return error
    return f"{filmed.frames} frames, {filmed.look['seconds_per_frame']} s each"


def _clips_of_pack(source: Path) -> dict[str, tuple[int, Make]]:
    """Clip name -> its number of frames, and the function that renders it."""
    pack = Pack.load(source)
    return {clip: (len(poses), partial(_render_cloud, pack, source.stem, clip)) for clip, poses in pack.clips.items()}


def _render_cloud(pack: Pack, name: str, clip: str, look: Look, path: Path) -> RenderedClip:
    with rendered_cloud(pack, clip) as rendered:
        return render_clip(rendered, name, clip, pack.fps, look, path)


def _clips_of_file(source: Path) -> dict[str, tuple[int, Make]]:
    """The same for the actions of a file's rig."""
    # unlike read_factory_settings this leaves preferences, and so the running add-on, alone
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    obj = import_rig(source)
    return {
        clip: (len(action_frames(action)), partial(_render_file, obj, action, source.stem, clip))
        for clip, action in actions_by_clip_name(obj).items()
    }


def _render_file(obj: bpy.types.Object, action: bpy.types.Action, name: str, clip: str, look: Look, path: Path) -> RenderedClip:
    render = bpy.context.scene.render
    with rendered_armature(obj, action) as rendered:
        return render_clip(rendered, name, clip, render.fps / render.fps_base, look, path)


def actions_by_clip_name(obj: bpy.types.Object) -> dict[str, bpy.types.Action]:
    """Clip name, as in a pack -> the armature's action."""
    found: dict[str, bpy.types.Action] = {}
    for action in actions_of(obj):
        label = action_label(action)
        found[action.name if label in found else label] = action
    return found


@dataclass(frozen=True)
class Wanted:
    """Which clips to render. clips: their names, () for all. among: the (pack, clip) of a split, or None."""

    clips: tuple[str, ...] = ()
    among: frozenset[tuple[str, str]] | None = None

    def __call__(self, pack: str, clip: str) -> bool:
        return (not self.clips or clip in self.clips) and (self.among is None or (pack, clip) in self.among)

    def any_of(self, pack: str) -> bool:
        """True if clips of this pack, or of the file of that name, may be wanted."""
        return self.among is None or any(name == pack for name, _ in self.among)


def clips_of_split(split: str, splits: Path | None, packs: Path | None) -> frozenset[tuple[str, str]]:
    """(pack, clip) of a split. Raises UserError if the lists or the packs are missing."""
    drawn = split == "validation"
    if splits is None or (drawn and packs is None):
        raise UserError("A split needs --splits FILE, and validation also --packs DIR: it is drawn from the clips of all packs.")
    from ...backend.train.packs.splits import read_lists, split_packs

    if packs is None or not drawn:
        return frozenset((entry["file"], entry["clip"]) for entry in read_lists(splits)[split])
    return frozenset((pack.name, clip) for pack in split_packs(load_packs(packs), splits)[split] for clip in pack.clips)


def render_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`build.py dev render PACK|FILE... -o DIR`. One line per clip goes to `say`; 1 if any failed, the others are still rendered."""
    options = _parser().parse_args(args)
    look = Look(options.size, options.samples, options.engine, options.seed, options.frames, options.covers)
    among = clips_of_split(options.split, options.splits, options.packs) if options.split else None
    wanted = Wanted(tuple(options.clip), among)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for source, clip, what in islice(_every(options.sources, options.out, look, wanted), options.limit):
        failed += isinstance(what, UserError)
        say(f"{source}{f' {clip}' if clip else ''}: {what}")
    return 1 if failed else 0


def _every(sources: Sequence[Path], out: Path, look: Look, wanted: Wanted) -> Iterator[tuple[str, str, str | UserError]]:
    for source in sources:
        try:
            for clip, what in render_source(source, out, look, wanted):
                yield source.stem, clip, what
        except UserError as error:
            yield source.stem, "", error


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build.py dev render", description="Render videos of rigs with ground, sky and shadows, for measuring."
    )
    parser.add_argument("sources", nargs="+", type=Path, metavar="PACK|FILE", help=".npz packs, or .glb .gltf .fbx .bvh .blend")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the videos and their JSON")
    parser.add_argument("--clip", action="append", default=[], metavar="NAME", help="repeat for several; default: all")
    parser.add_argument("--split", choices=SPLITS, help="only the clips of one split")
    parser.add_argument("--splits", type=Path, metavar="FILE", help="JSON that lists the splits")
    parser.add_argument("--packs", type=Path, metavar="DIR", help="all packs, which validation clips are drawn from")
    parser.add_argument("--size", type=int, default=Look.size, help=f"pixels of the square image (default: {Look.size})")
    parser.add_argument("--samples", type=int, default=Look.samples, help=f"of Cycles, per pixel (default: {Look.samples})")
    parser.add_argument("--engine", choices=tuple(ENGINES), default=Look.engine, help=f"default: {Look.engine}")
    parser.add_argument("--frames", type=_count, default=0, metavar="N", help="of a clip at most, evenly over it; default: all")
    parser.add_argument("--covers", action="store_true", help="also write the subject's true mattes, to train the cut-out")
    parser.add_argument("--limit", type=_count, metavar="N", help="at most so many clips, including those that are there already")
    parser.add_argument("--seed", type=int, default=0, help="seed of the camera's side, the sun and the ground")
    return parser

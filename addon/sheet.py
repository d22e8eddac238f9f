"""`anyrig sheet`: every rig at rest and in motion, its pack's point splats above what Blender shows, from the same camera."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import bpy
import numpy as np
from bpy.types import Material, Object, Scene
from numpy.typing import NDArray

from ..backend.camera import Camera, fit_distance
from ..backend.errors import UserError
from ..backend.packs import Pack
from ..backend.rotation import Array
from .action_render import place, render_still, show_base_colours, stage, visible_meshes
from .colour import Spots, colour_at, display_to_linear
from .importing import action_frames, assign_action, import_rig, reset_pose, undisturbed
from .posed import corners, go_to
from .render import FOV, MARGIN, labelled
from .surface import rest_position

if TYPE_CHECKING:
    from ..backend.splat import Cloud

_log = logging.getLogger(__name__)
Picture = NDArray[np.uint8]
REST = "rest"
CLIPS = 2
MOMENTS = (0.15, 0.5, 0.85)  # of a clip
AZIMUTH, PITCH = 0.6, 0.15  # radians; the rest pose is seen from the front
PAPER, INK = (255, 255, 255), (25, 25, 30)
CAPTION = 18  # pixels


@dataclass(frozen=True, eq=False)
class View:
    """One pose from one camera: pictures (H, W, 4) uint8 RGBA. clip: a clip's name, or REST."""

    clip: str
    frame: int
    splat: Picture
    blender: Picture

    @property
    def overlap(self) -> float:
        """Intersection over union of the two silhouettes."""
        left, right = self.splat[..., 3] > 127, self.blender[..., 3] > 127
        return float((left & right).sum()) / max(int((left | right).sum()), 1)

    @property
    def colour(self) -> float:
        """Mean distance of the two colours, 0..1, where both show something."""
        both = (self.splat[..., 3] > 127) & (self.blender[..., 3] > 127)
        apart = np.abs(self.splat[both][:, :3].astype(float) - self.blender[both][:, :3]) / 255
        return float(apart.mean()) if both.any() else 1.0


def chosen_clips(pack: Pack, count: int = CLIPS) -> list[str]:
    """The clips to show: the one that moves most, and then evenly down the ranking to the middle. Still ones come last."""
    moved = {name: float(np.ptp(poses[:, :, :3, 3], axis=0).mean()) for name, poses in pack.clips.items() if len(poses) > 1}
    ranked = sorted(moved, key=lambda name: -moved[name])
    places = np.unique(np.linspace(0, len(ranked) // 2, count).round().astype(int)) if ranked else []
    return [ranked[i] for i in places if i < len(ranked)]


def frames_of(pack: Pack, clips: Sequence[str]) -> list[tuple[str, int]]:
    """(clip, frame) of every view, the rest pose first."""
    frames = [(clip, round(share * (len(pack.clips[clip]) - 1))) for clip in clips for share in MOMENTS]
    return [(REST, 0), *frames]


def views_of(path: Path, pack: Pack, size: int, clips: Sequence[str] = ()) -> list[View]:
    """The file's rig and its pack in the same poses from the same cameras, square pictures of `size` pixels.

    The open file is replaced. clips: their names, () to choose some. Raises UserError if file and pack do not fit each other.
    """
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    obj = import_rig(path)
    named = [clip for clip in clips if clip in pack.clips] or chosen_clips(pack)
    return list(_views(obj, pack, frames_of(pack, named), size))


def _views(obj: Object, pack: Pack, frames: Sequence[tuple[str, int]], size: int) -> Iterator[View]:
    from ..backend.drawing import skinned
    from ..backend.splat import cloud_of

    cloud = cloud_of(pack.surface, pack.rig.rest)
    with undisturbed(obj), everything(obj, size) as (scene, meshes), tempfile.TemporaryDirectory(dir=bpy.app.tempdir) as folder:
        for clip, frame in frames:
            pose = pack.rig.rest if clip == REST else pack.clips[clip][frame]
            with _posed(obj, scene, pack.name, clip, frame):
                points = skinned(cloud, pose)[0]
                camera = camera_on(
                    np.concatenate([points, corners(meshes, scene.view_layers[0].depsgraph)]),
                    0.0 if clip == REST else AZIMUTH,
                    size,
                )
                place(scene.camera, camera)
                yield View(clip, frame, draw(cloud, pose, camera), render_still(scene, Path(folder) / "view.png"))


@contextmanager
def everything(obj: Object, size: int) -> Iterator[tuple[Scene, list[Object]]]:
    """A scene with every mesh of the open file, whether or not the armature moves it, and those meshes."""
    shown = bpy.context.scene.objects
    meshes = [item for item in shown if item.type == "MESH" and not item.hide_render and not item.hide_viewport]
    known, colours = visible_meshes(obj), {}
    others = [mesh for mesh in meshes if mesh not in known]
    try:
        with stage(obj, size) as scene:
            colours = dict((*show_base_colours(others), *show_painted(meshes)))
            for mesh in others:
                scene.collection.objects.link(mesh)
            scene.display.shading.studio_light = "paint.sl"  # the light of the reference pictures (view.py)
            yield scene, meshes
    finally:
        for material, colour in colours.items():
            material.diffuse_color = colour


def show_painted(meshes: Sequence[Object]) -> Iterator[tuple[Material, tuple[float, ...]]]:
    """Workbench shows no vertex colours: a material that has them, and no texture, gets their mean for the viewport.

    Yields every material changed with the viewport colour it had.
    """
    for mesh in meshes:
        for index, slot in enumerate(mesh.material_slots):
            nodes = slot.material.node_tree.nodes if slot.material and slot.material.node_tree else ()
            kinds = {node.type for node in nodes}
            faces = [face for face in mesh.data.polygons if face.material_index == index]
            if "VERTEX_COLOR" not in kinds or "TEX_IMAGE" in kinds or not faces:
                continue
            yield slot.material, tuple(slot.material.diffuse_color)
            corners = np.array([face.loop_indices[:3] for face in faces])
            vertices = np.array([face.vertices[:3] for face in faces])
            found = colour_at(slot.material, Spots(mesh.data, corners, vertices, np.full(corners.shape, 1 / 3)))[0]
            slot.material.diffuse_color = (*display_to_linear(found.mean(0)), 1.0)


@contextmanager
def _posed(obj: Object, scene: Scene, name: str, clip: str, frame: int) -> Iterator[None]:
    """The armature at rest, or on a frame of a clip, counted as in its pack."""
    if clip != REST:
        action = labelled(obj).get(clip)
        frames = action_frames(action) if action is not None else []
        if action is None or frame >= len(frames):
            raise UserError(f"Clip '{clip}' of pack '{name}' is not in its file: make the pack again.")
        assign_action(obj, action)
        reset_pose(obj)
        go_to(scene, frames[frame])
    with rest_position(obj) if clip == REST else nullcontext():
        scene.view_layers[0].update()
        yield


def camera_on(points: Array, azimuth: float, size: int) -> Camera:
    """The camera of the end-to-end videos, on points (P, 3)."""
    low, high = points.min(0), points.max(0)
    x, y, z = (float(value) for value in (low + high) / 2)
    radius = max(float(np.linalg.norm(points - (x, y, z), axis=1).max()), 1e-6)
    return Camera((x, y, z), fit_distance(radius, FOV, MARGIN), azimuth, PITCH, FOV, size, size)


def draw(cloud: Cloud, pose: Array, camera: Camera) -> Picture:
    """The cloud in a pose (J, 4, 4), drawn as training draws it -> (H, W, 4) uint8 RGBA."""
    from ..backend.drawing import picture

    return picture(cloud, pose, camera.rotation, camera.projection, (camera.width, camera.height))


def row(name: str, views: Sequence[View]) -> Picture:
    """The splats above Blender's pictures, with a line of words above each pair."""
    import cv2

    columns = []
    for i, view in enumerate(views):
        size = view.splat.shape[0]
        caption = np.full((CAPTION, size, 3), PAPER, np.uint8)
        words = f"{name.split('__')[-1] if i == 0 else view.clip.split('|')[-1]} {view.frame if i else REST} {view.overlap:.2f}"
        cv2.putText(caption, words, (3, CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
        columns.append(np.concatenate([caption, on_white(view.splat), on_white(view.blender)]))
    return np.concatenate(columns, axis=1)


def on_white(picture: Picture) -> Picture:
    """RGBA with straight alpha -> RGB."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    return np.rint(picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def write_sheet(path: Path, rows: Sequence[Picture]) -> None:
    import cv2

    width = max(picture.shape[1] for picture in rows)
    wide = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in rows]
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(np.concatenate(wide), cv2.COLOR_RGB2BGR))[1].tobytes())


def sheet_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`anyrig sheet FILES... --packs PACKS -o DIR`: sheet-00.png and so on, some files each, and sheet.json with the figures.

    With --features FILE also the distance that the image encoder sees between the two kinds of picture. One line per file
    goes to `say`; 1 if any failed, the others are still shown.
    """
    options = _parser().parse_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    likeness = _likeness() if options.features else None
    failed, shown, rows, crops = 0, {}, [], []
    for path in options.files:
        try:
            views = views_of(path, Pack.load(options.packs / f"{path.stem}.npz"), options.size, options.clip)
        except UserError as error:
            failed += 1
            say(str(error))
            continue
        shown[path.stem] = [figures(view) for view in views]
        rows.append(row(path.stem, views))
        if likeness:
            crops += [likeness.pair_of(view.splat, view.blender, path.stem, f"{path.stem} {view.clip}") for view in views]
        say(f"{path.stem}: {_summary(views)}")
    for first in range(0, len(rows), options.rows):
        write_sheet(options.out / f"sheet-{first // options.rows:02d}.png", rows[first : first + options.rows])
    _write_json(options.out / "sheet.json", shown)
    if likeness:
        _write_json(options.features, likeness.measure(crops))
    return 1 if failed else 0


def figures(view: View) -> dict[str, str | int | float]:
    return {"clip": view.clip, "frame": view.frame, "overlap": round(view.overlap, 3), "colour": round(view.colour, 3)}


def _summary(views: Sequence[View]) -> str:
    worst = min(views, key=lambda view: view.overlap)
    colour = float(np.mean([view.colour for view in views]))
    return f"overlap from {worst.overlap:.2f} ({worst.clip} {worst.frame}) on, colours {colour:.2f} apart"


def _write_json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _likeness() -> ModuleType:
    try:
        from ..backend.train import likeness
    except ModuleNotFoundError as error:
        raise UserError("The installed add-on compares no features: run this from the repository, without --features.") from error
    return likeness


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anyrig sheet", description="Show rigs as Blender does below what training sees of them."
    )
    parser.add_argument("files", nargs="+", type=Path, help=".glb .gltf .fbx .bvh .blend")
    parser.add_argument("--packs", required=True, type=Path, metavar="PACKS", help="folder with the files' packs")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the sheets")
    parser.add_argument(
        "--clip", action="append", default=[], metavar="NAME", help="repeat for several; default: two of each file"
    )
    parser.add_argument("--size", type=int, default=224, help="pixels of each square picture (default: 224)")
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="files on a sheet (default: 4)")
    parser.add_argument("--features", type=Path, metavar="FILE", help="write a JSON with the feature distances")
    return parser

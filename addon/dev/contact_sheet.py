"""`build.py dev sheet`: one image a rig file, as training draws the rig and as Blender renders it, from the same camera."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import bpy

from ...backend.arrays import Array, Image
from ...backend.encoders.crops import composite_rgba
from ...backend.errors import UserError
from ...backend.geometry.camera import frame_points
from ...backend.train.packs.rig_packs import Pack
from ..import_export.import_rig import import_rig
from ..rendering.engines import WORKBENCH
from ..rendering.posed_points import go_to
from ..rendering.scratch_scene import scratch_scene
from ..review.side_by_side_movie import PAPER, Reel
from ..rig.actions import action_frames, assign_action, reset_pose, undisturbed
from ..rig.meshes import rest_position, visible_meshes
from .demo_images import write_sheet
from .pack import make_pack
from .render_clips import actions_by_clip_name

_log = logging.getLogger(__name__)
SIZE, AZIMUTH, PITCH = 240, 0.6, 0.1  # pixels of one image; radians
CLIPS, MOMENTS = 2, (1 / 3, 2 / 3)  # of the rig's clips, and of the frames of each


def moments_of(obj: bpy.types.Object, pack: Pack) -> Iterator[tuple[str, Array, bpy.types.Action | None, float]]:
    """Label, pose (J, 4, 4) of the pack, action and frame of the rest pose and of two moments of the first two clips."""
    yield "rest", pack.rig.rest, None, bpy.context.scene.frame_current
    for clip, action in list(actions_by_clip_name(obj).items())[:CLIPS]:
        frames = action_frames(action)
        for index in sorted({int(len(frames) * part) for part in MOMENTS}):
            yield f"{clip} {frames[index]:g}", pack.clips[clip][index], action, frames[index]


def draw_rows(obj: bpy.types.Object, pack: Pack) -> tuple[dict[str, list[Image]], list[str]]:
    """For both ways of drawing the moments' images (SIZE, SIZE, 3) RGB, and the moments' labels. The rig is put back."""
    from ...backend.rendering.point_splatting import cloud_of
    from ...backend.rendering.still_images import skin_cloud, still_image

    cloud, meshes, labels = cloud_of(pack.surface, pack.rig.rest), visible_meshes(obj), list[str]()
    rows: dict[str, list[Image]] = {"training": [], "Blender": []}
    with undisturbed(obj), rest_position(obj), scratch_scene(obj, *meshes) as played, scratch_scene() as stage:
        reel = Reel(stage, WORKBENCH, SIZE, SIZE)
        for label, pose, action, frame in moments_of(obj, pack):
            if action is not None:
                obj.data.pose_position = "POSE"
                assign_action(obj, action)
                reset_pose(obj)
            camera = frame_points(skin_cloud(cloud, pose)[0], AZIMUTH, PITCH, SIZE)
            reel.pose(meshes, go_to(played.scene, frame))
            drawn = still_image(cloud, pose, camera.rotation, camera.projection, (SIZE, SIZE), samples=2)
            for row, image in zip(rows.values(), (drawn, reel.shoot(camera)), strict=True):
                row.append(composite_rgba(image, PAPER))
            labels.append(label)
    return rows, labels


def sheet_command(args: list[str], say: Callable[[str], None] = _log.info) -> int:
    """`build.py dev sheet FILE... -o DIR`. One line per file goes to `say`; 1 if any failed, the others are still drawn."""
    parser = argparse.ArgumentParser(prog="build.py dev sheet", description="Draw rigs as training sees them, beside Blender.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".glb .gltf .fbx .bvh .blend")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the images")
    options = parser.parse_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in options.files:
        # unlike read_factory_settings this leaves preferences, and so the running add-on, alone
        bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
        try:
            obj = import_rig(path)
            rows, labels = draw_rows(obj, make_pack(obj, path.stem))
        except UserError as error:
            failed += 1
            say(str(error))
            continue
        write_sheet(options.out / f"{path.stem}.png", rows, labels)
        say(f"{path}: {', '.join(labels)}")
    return 1 if failed else 0

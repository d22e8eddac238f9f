"""`build.py demo`: a whole capture, of an example made in code or of the user's own files.

Runs in a Blender of its own (the bpy wheel), whose file it fills. Left out of the zip.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import bpy
import numpy as np

from ...backend.arrays import Array
from ...backend.capture_settings import Settings
from ...backend.encoders.crops import composite_rgba
from ...backend.errors import UserError
from ...backend.geometry.camera import Camera
from ...backend.motion.motion import Motion
from ...backend.rig.rig import Rig
from ...backend.video.clip import Clip
from ..capture.run_capture import CaptureRequest, CaptureResult, run_capture
from ..import_export import import_rig
from ..rig import actions
from ..rig.armature import rig_from_armature
from ..rig.meshes import visible_meshes
from ..rig.surface_points import armature_surface
from ..settings.capture_params import CaptureParams
from ..tasks.task import Snapshot
from . import demo_character, demo_images, render_action

SURFACE_POINTS = 3000  # of the rig, for silhouettes
SIZE = 320  # pixels of the square video and of every image
STEEPEST_VIEW = 0.25  # radians: a round trip is rendered from the level or a little above
PANEL = (226, 226, 230)
MOMENTS = 8  # columns of the sheet


@dataclass(frozen=True, eq=False)
class DemoClip:
    """A rendered action: the video, its camera, and the true poses (T, J, 4, 4) on its frames, armature space."""

    clip: Clip
    camera: Camera
    frames: Array
    truth: Array


class Console:
    """Writes to the terminal while Blender's own messages are suppressed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stage = ""

    def say(self, text: str = "") -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def progress(self, snapshot: Snapshot) -> None:
        if snapshot.stage != self._stage:
            self._stage = snapshot.stage
            self.say(f"  {snapshot.stage} ...")


@contextmanager
def quiet() -> Iterator[Console]:
    """Suppress Blender's messages inside the block, and yield the terminal.

    Blender prints a line per saved image, and C code flushes its buffer after Python: the JSON would not be the last line.
    """
    sys.stdout.flush()
    terminal, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    before = sys.stdout
    with os.fdopen(terminal, "w", encoding="utf-8") as stream, os.fdopen(nowhere, "w", encoding="utf-8") as sink:
        sys.stdout = sink
        try:
            yield Console(stream)
        finally:
            # descriptor 1 stays on the null device: C writes its buffer when the process ends
            sys.stdout = before


def main(arguments: Sequence[str]) -> int:
    """Run the demo. Exit code: 0 done, 1 an error, which is written to stderr, 2 wrong arguments."""
    options = parse(arguments)
    with quiet() as console:
        try:
            options.out.mkdir(parents=True, exist_ok=True)
            run(options, console)
        except UserError as error:
            sys.stderr.write(f"Error: {error}\n")
            return 1
        except OSError as error:
            sys.stderr.write(
                f"Error: '{error.filename}' cannot be written ({error.strerror}): choose another folder with --out.\n"
            )
            return 1
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build.py demo",
        description="Capture a video onto a rig and show both side by side. Without --rig: an example made in code.",
    )
    parser.add_argument("--rig", type=Path, metavar="FILE", help=f"one of {', '.join(sorted(import_rig.READERS))}")
    parser.add_argument("--video", metavar="FILE", help="capture this video onto the rig")
    parser.add_argument("--roundtrip", action="store_true", help="render the rig's own action, capture it back, and measure")
    parser.add_argument("--armature", metavar="NAME", help="default: the armature with most bones")
    parser.add_argument("--action", metavar="NAME", help="for --roundtrip; default: the longest")
    parser.add_argument("--reference", metavar="rest|ACTION:FRAME", help="pose that shows the network the rig")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--seed", type=int, default=0, help="seed of the side from which --roundtrip renders")
    parser.add_argument("--model", default="lite", help="lite, tiny (random), or a weights file")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    options = parser.parse_args(arguments)
    if options.rig is None and (options.video or options.roundtrip):
        parser.error("--video and --roundtrip need --rig FILE")
    if options.rig is not None and bool(options.video) == options.roundtrip:
        parser.error("--rig needs either --video FILE or --roundtrip")
    if options.action and not options.roundtrip:
        parser.error("--action goes with --roundtrip")
    return options


def run(options: argparse.Namespace, console: Console) -> None:
    # only into an empty scene a .blend file is opened as a whole, with its own frame rate
    bpy.ops.wm.read_factory_settings(use_empty=True)
    demonstrate = example if options.rig is None else roundtrip if options.roundtrip else own_video
    record = demonstrate(options, console)
    console.say(f"Saved in {options.out.resolve()}: {', '.join(sorted(path.name for path in options.out.iterdir()))}")
    if options.json:
        console.say(json.dumps(record))


# ---- the three demonstrations


@dataclass(frozen=True, eq=False)
class Example:
    """A character made in code, whose walk was rendered and captured onto it and onto a second character.

    The second one, the stalker, has other proportions and bone names.
    """

    walker: bpy.types.Object
    stalker: bpy.types.Object
    shot: DemoClip
    take: CaptureRequest
    results: list[CaptureResult]
    seconds: dict[str, float]


def capture_example(options: argparse.Namespace, console: Console, size: int) -> Example:
    """Make both characters, render the walk of the first, and capture it. size: pixels of the square video."""
    walker = demo_character.make_character(demo_character.WALKER, demo_character.WALK_FRAMES)
    stalker = demo_character.make_character(demo_character.STALKER)
    stalker.location.x = 1.5
    bpy.context.view_layer.update()
    console.say("Rendering the walk of a character made in code ...")
    shot = render_clip(walker, walker.animation_data.action, np.deg2rad(60), 0.12, options.out / "input.mp4", size)
    for obj in (walker, stalker):
        pose_reference(obj, None)
    return Example(walker, stalker, shot, *capture([walker, stalker], shot.clip, options, console, shot.frames[0]))


def example(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Capture the walk of a character made in code onto it and onto another one, and measure the first."""
    made = capture_example(options, console, SIZE)
    measured = measure_take(made.walker, made.take, made.results[0], made.shot)
    views = [made.shot.camera, camera_for(made.stalker, made.take, made.results[1])]
    save(options.out, [made.walker, made.stalker], made.take, made.results, made.shot.clip, views, console)
    console.say("\n(a) back onto the same rig, beside keeping the reference pose:")
    print_results(console, measured, made.seconds)
    console.say("(b) onto a rig of other proportions and bone names: see sheet.png and side_by_side.mp4")
    return {"rig": made.walker.name, "seconds": made.seconds["total"], "stages": made.seconds, **measured}


def roundtrip(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Render the rig's own action from a seeded random side, capture it back, and measure."""
    obj = load(options)
    action = actions.find_action(obj, options.action) if options.action else longest_action(obj)
    reference = options.reference or default_reference(obj, action)
    label = actions.action_label(action)
    console.say(f"Rendering action '{label}' of {obj.name} ...")
    chance = np.random.default_rng([options.seed, zlib.crc32(f"{options.rig.name}:{label}".encode())])
    azimuth, pitch = chance.uniform(-np.pi, np.pi), chance.uniform(0, STEEPEST_VIEW)
    shot = render_clip(obj, action, azimuth, pitch, options.out / "input.mp4")
    pose_reference(obj, reference)
    take, results, seconds = capture([obj], shot.clip, options, console, shot.frames[0])
    measured = measure_take(obj, take, results[0], shot)
    save(options.out, [obj], take, results, shot.clip, [shot.camera], console)
    console.say(f"\n{options.rig.name}, action '{label}', reference {reference}, beside keeping the reference pose:")
    print_results(console, measured, seconds)
    about = {"rig": options.rig.stem, "action": label, "reference": reference, "azimuth_deg": float(np.rad2deg(azimuth))}
    about |= {"model": options.model, "seed": options.seed, "seconds": seconds["total"], "stages": seconds}
    return {**about, **measured}


def own_video(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Capture the user's video onto the user's rig."""
    obj = load(options)
    if options.reference:
        pose_reference(obj, options.reference)
    clip = Clip(options.video)
    take, results, seconds = capture([obj], clip, options, console, bpy.context.scene.frame_current)
    save(options.out, [obj], take, results, clip, [camera_for(obj, take, results[0])], console)
    frames, joints = len(results[0].motion), len(take.subjects[0].rig.names)
    console.say(f"\n{options.rig.name}: {frames} frames keyed on {joints} joints")
    print_seconds(console, seconds)
    return {"rig": options.rig.stem, "frames": frames, "joints": joints, "seconds": seconds["total"], "stages": seconds}


# ---- the steps they share


def load(options: argparse.Namespace) -> bpy.types.Object:
    obj = import_rig.import_rig(options.rig, options.armature)
    (obj.animation_data or obj.animation_data_create()).use_nla = False  # strips would be mixed into the new keys
    return obj


def longest_action(obj: bpy.types.Object) -> bpy.types.Action:
    found = actions.actions_of(obj)
    if not found:
        raise UserError(f"Armature '{obj.name}' has no action to render: choose a rig with one, or give --video.")
    return max(found, key=lambda action: len(actions.action_frames(action)))


def default_reference(obj: bpy.types.Object, action: bpy.types.Action) -> str:
    """The first frame of another action, or the rest pose if there is none."""
    others = [other for other in actions.actions_of(obj) if other != action]
    return f"{others[0].name}:{int(actions.action_frames(others[0])[0])}" if others else "rest"


def pose_reference(obj: bpy.types.Object, reference: str | None) -> None:
    """Put the armature into the reference pose: rest (None), or a frame of one of its actions."""
    data = obj.animation_data or obj.animation_data_create()
    if reference in (None, "rest"):
        data.action = None
        actions.reset_pose(obj)
    else:
        action, frame = reference_frame(obj, reference)
        actions.assign_action(obj, action)
        actions.reset_pose(obj)
        bpy.context.scene.frame_set(frame)
    bpy.context.view_layer.update()


def reference_frame(obj: bpy.types.Object, reference: str) -> tuple[bpy.types.Action, int]:
    """'ACTION:FRAME' -> the action and the frame. Raises UserError."""
    name, colon, number = reference.rpartition(":")
    if not colon or not number.lstrip("-").isdigit():
        raise UserError(f"'{reference}' is no reference pose: give rest, or ACTION:FRAME such as Walk:0.")
    action = actions.find_action(obj, name)
    frames = actions.action_frames(action)
    if not frames[0] <= int(number) <= frames[-1]:
        raise UserError(f"Action '{name}' has no frame {number}: it runs from {frames[0]:g} to {frames[-1]:g}.")
    return action, int(number)


def render_clip(
    obj: bpy.types.Object, action: bpy.types.Action, azimuth: float, pitch: float, path: Path, size: int | None = None
) -> DemoClip:
    """Render the action from one side over a plain backdrop, one video frame for each scene frame.

    size: pixels of the square image, SIZE if not given.
    """
    from ...backend.video.reader import write_video

    frames = actions.action_frames(action)
    if len(frames) < 2:
        raise UserError(f"Action '{action.name}' has a single frame: choose one that moves with --action.")
    rig = rig_from_armature(obj)
    truth = actions.pose_frames(obj, action, rig.names, frames)
    actions.assign_action(obj, action)
    actions.reset_pose(obj)
    camera = render_action.frame_motion(obj, list(frames), azimuth, pitch, size or SIZE)
    images = render_action.render_action(obj, rig, list(frames), camera)
    backdrop = render_action.plain_backdrop(images)
    write_video(path, (composite_rgba(image, backdrop) for image in images), scene_fps())
    return DemoClip(Clip(str(path)), camera, frames, truth)


def scene_fps() -> float:
    render = bpy.context.scene.render
    return render.fps / render.fps_base


def capture(
    objects: Sequence[bpy.types.Object], clip: Clip, options: argparse.Namespace, console: Console, start: float
) -> tuple[CaptureRequest, list[CaptureResult], dict[str, float]]:
    """Capture as the add-on's button does. Returns the request, a result per armature, and the seconds of every stage."""
    console.say(f"Capturing {Path(clip.path).name} ...")
    began = time.perf_counter()
    params = CaptureParams(clip, Settings(model=options.model, device=options.device), start_frame=int(start))
    take, results, _ = run_capture(bpy.context, objects, params, console.progress)
    total = time.perf_counter() - began
    stages = dict(results[0].motion.provenance["seconds"])
    stages["views and keys"] = total - sum(stages.values())
    return take, results, {**stages, "total": total}


def measure_take(obj: bpy.types.Object, take: CaptureRequest, result: CaptureResult, shot: DemoClip) -> dict[str, float | None]:
    """Figures of a capture beside the true poses, at the times of the take, and how much of the subject it covers."""
    from ...backend.train.evaluation import metrics

    subject = take.subjects[0]
    truth = shot.truth[video_indices(result.motion, scene_fps(), len(shot.frames))]
    figures = metrics.measure_motion(subject.rig, result.motion, truth, subject.pose)
    return {**figures, **_overlaps(obj, subject.rig, result.motion, truth, shot)}


def _overlaps(obj: bpy.types.Object, rig: Rig, motion: Motion, truth: Array, shot: DemoClip) -> dict[str, float]:
    from ...backend.progress import result_of
    from ...backend.rendering import point_splatting
    from ...backend.segmentation.subject import find_subject
    from ...backend.train.evaluation.overlaps import camera_overlap, matte_overlap

    world = np.array(obj.matrix_world, np.float64)
    if visible_meshes(obj):
        surface = armature_surface(obj, rig.names, SURFACE_POINTS)
    else:
        surface = point_splatting.capsules(rig)
    cloud, camera = point_splatting.cloud_of(surface, rig.rest), shot.camera
    found = result_of(find_subject(shot.clip))
    return {
        "overlap": camera_overlap(rig, cloud, motion, truth, camera.projection @ world, camera.width, camera.height),
        "overlap_matte": matte_overlap(rig, surface, motion, found.matte),
    }


def video_indices(motion: Motion, fps: float, count: int) -> np.ndarray:
    """The index of each of the take's times among `count` frames that were written at `fps`."""
    return np.clip(np.rint(motion.times * fps).astype(int), 0, count - 1)


def camera_for(obj: bpy.types.Object, take: CaptureRequest, result: CaptureResult) -> Camera:
    """A camera on the side of the chosen reference view, which is the video's own side."""
    frames = take.start_frame + result.motion.times * scene_fps()
    return render_action.frame_motion(obj, list(frames), result.view.azimuth, 0.1, SIZE)


def save(
    out: Path,
    objects: Sequence[bpy.types.Object],
    take: CaptureRequest,
    results: Sequence[CaptureResult],
    clip: Clip,
    cameras: Sequence[Camera],
    console: Console,
) -> None:
    """Write take.blend, a BVH file per rig, sheet.png and side_by_side.mp4."""
    from ...backend.motion.bvh import write_bvh

    console.say("Rendering the result ...")
    times = results[0].motion.times
    scene = bpy.context.scene
    frames = take.start_frame + times * scene_fps()
    scene.frame_start, scene.frame_end = take.start_frame, int(round(frames[-1]))
    scene.frame_set(take.start_frame)
    bpy.ops.wm.save_as_mainfile(filepath=str((out / "take.blend").resolve()), copy=True, compress=True)
    rows = {"input": demo_images.input_frames(clip, SIZE)}
    for obj, subject, result, camera in zip(objects, take.subjects, results, cameras, strict=True):
        write_bvh(out / f"{bpy.path.clean_name(obj.name)}.bvh", subject.rig, result.motion)
        images = render_action.render_action(obj, subject.rig, list(frames), camera)
        rows[obj.name] = [composite_rgba(image, PANEL) for image in images]
    moments = np.unique(np.linspace(0, len(times) - 1, MOMENTS).round().astype(int))
    cells = {label: [images[index] for index in moments] for label, images in rows.items()}
    demo_images.write_sheet(out / "sheet.png", cells, [f"{times[index]:.2f} s" for index in moments])
    demo_images.write_side_by_side(out / "side_by_side.mp4", rows, 1 / float(np.diff(times).mean()))


# ---- the report


def print_results(console: Console, measured: dict[str, Any], seconds: dict[str, float]) -> None:
    console.say(f"  {int(measured['frames'])} frames, {int(measured['joints'])} joints")
    console.say(f"  {'':24}{'captured':>10}{'copying':>10}")
    errors = (
        ("angle", "angle_deg", "degrees"), ("bone direction", "bone_direction_deg", "degrees"), ("MPJPE", "mpjpe_cm", "cm"),
        ("centred MPJPE", "centred_mpjpe_cm", "cm"),
    )  # fmt: skip
    for name, key, unit in errors:
        console.say(f"  {f'{name} ({unit})':24}{measured[key]:10.2f}{measured[f'copy_{key}']:10.2f}")
    if measured["motion_correlation"] is not None:  # a motion that hardly moves has none
        console.say(f"  {'motion correlation':24}{measured['motion_correlation']:10.2f}{0:10.2f}")
    console.say(f"  {'travel ratio':24}{measured['travel_ratio']:10.2f}{0:10.2f}")
    console.say(f"  {'liveness':24}{measured['liveness']:10.2f}{0:10.2f}")
    console.say(f"  {'overlap':24}{measured['overlap']:10.2f}")
    console.say(f"  {'overlap with the matte':24}{measured['overlap_matte']:10.2f}")
    console.say(f"  {'heading off (degrees)':24}{measured['heading_deg']:10.2f}")
    print_seconds(console, seconds)


def print_seconds(console: Console, seconds: dict[str, float]) -> None:
    console.say("  seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Writes a movie of the video beside the rig, which is seen from the same side, at the same size and place."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import bpy
import cv2
import numpy as np

from ...backend.arrays import Array, Image
from ...backend.encoders.crops import composite_rgba
from ...backend.errors import UserError
from ...backend.geometry.fit_camera import CameraFit
from ...backend.motion.take_file import Take
from ...backend.progress import Progress
from ...backend.video.reader import Frame, probe, read_frames, video_steps
from ..capture import take_store
from ..rendering import engines
from ..rendering.posed_points import go_to
from ..rendering.rig_views import Studio
from ..rendering.scratch_scene import ScratchScene, scratch_scene
from ..rig.armature import pose_of
from ..rig.meshes import visible_meshes
from . import footage_camera, takes

INK, PAPER = (25, 25, 30), (226, 226, 230)
OUTLINE = (255, 150, 25)
GHOST = 0.65  # opacity of the rig over its video


@dataclass(frozen=True)
class MovieParams:
    """path: the mp4 to write. height: pixels, at most the video's own. over: add a third image, the rig over its video.

    outline: draw the rig's outline onto the video.
    """

    path: Path
    height: int = 480
    over: bool = False
    engine: str = engines.WORKBENCH
    outline: bool = False


def movie_steps(context: bpy.types.Context, text: bpy.types.Text, params: MovieParams) -> Generator[Progress, None, int]:
    """Write the movie of a stored take, one frame per step; returns the number of frames. Runs on Blender's own thread.

    Between two steps the armature plays the take, and the scratch scenes exist. At the end everything is restored, also if the
    generator is closed early, and only a complete file is left. Raises UserError: video or armature gone, action deleted, movie not
    writable.
    """
    take = footage_camera.relocate_video(take_store.read(text), context.scene.anyrig.video)
    obj = takes.target_of(context, text, take.rig.names)
    info = probe(take.clip)
    fps = take_store.about(text)["fps"]  # the scene's may have changed since the keys were written
    yield Progress("Fitting the camera")
    _check_place(params.path, Path(take.clip.path))
    with takes.showing(obj, text):
        view = footage_camera.camera_of_fit(obj, take, (info.width, info.height), fps)
        with closing(_images(obj, take, view, fps, params)) as rig, closing(read_frames(take.clip)) as video:
            rows = _beside(video, rig, take, params)
            with closing(video_steps(params.path, rows, 1 / float(np.diff(take.motion.times).mean()))) as written:
                for done in written:
                    yield Progress("Writing the movie", done, len(take.motion))
    return len(take.motion)


def _check_place(path: Path, video: Path) -> None:
    """Raises UserError if the movie would overwrite its video, or has no folder."""
    if path.resolve() == video.resolve():
        raise UserError(f"The movie would overwrite its own video '{path}': choose another name.")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder '{path.parent}' for the movie: choose a folder that exists.")


def _beside(video: Iterator[Frame], rig: Iterator[Image], take: Take, params: MovieParams) -> Iterator[Image]:
    for frame, drawn in zip(video, rig):
        height, width = drawn.shape[:2]
        seen = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
        shown = draw_outline(seen, drawn[..., 3]) if params.outline else seen
        images = [draw_caption(shown, "input"), draw_caption(composite_rgba(drawn, PAPER), take.armature)]
        if params.over:
            images.append(composite_rgba(drawn, seen, GHOST))
        yield np.concatenate(images, axis=1)


def draw_outline(image: Image, alpha: Image) -> Image:
    """A copy of the RGB image with the outline of what `alpha` (H, W) shows, dark on either side, so that it can be seen on any film."""
    copy = image.copy()
    lines, _ = cv2.findContours((alpha >= 128).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(image.shape[0] / 240))
    cv2.drawContours(copy, lines, -1, INK, width + 2, cv2.LINE_AA)
    cv2.drawContours(copy, lines, -1, OUTLINE, width, cv2.LINE_AA)
    return copy


def draw_caption(image: Image, text: str) -> Image:
    """A copy of the RGB image with a caption in its top left corner."""
    copy = image.copy()
    scale = image.shape[0] / 480
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(copy, (0, 0), (width + 12, height + base + 10), PAPER, -1)
    cv2.putText(copy, text, (6, height + 6), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
    return copy


def image_size(view: CameraFit, height: int) -> tuple[int, int]:
    """Width and height of the images: the video's, reduced to `height`. Both are even, as codecs need."""
    factor = min(1.0, height / view.height)
    return max(2, round(view.width * factor / 2) * 2), max(2, round(view.height * factor / 2) * 2)


def _images(obj: bpy.types.Object, take: Take, view: CameraFit, fps: float, params: MovieParams) -> Generator[Image, None, None]:
    """Images (H, W, 4) uint8 RGBA of the rig on every frame of its take; of capsules if it has no visible mesh."""
    size, meshes = image_size(view, params.height), visible_meshes(obj)
    if not meshes:
        yield from _capsules(obj, take, view, fps, size)
        return
    with scratch_scene(obj, *meshes) as played, scratch_scene() as stage:
        reel = Reel(stage, params.engine, *size)
        for time in take.motion.times:
            reel.pose(meshes, go_to(played.scene, take.start_frame + time * fps))
            reel.look(view, time)
            yield reel.snap()


class Reel(Studio):
    """A studio whose copies of the meshes are updated from frame to frame."""

    def __init__(self, stage: ScratchScene, engine: str, width: int, height: int) -> None:
        super().__init__(stage, engine, width, height)
        self._copies: dict[str, bpy.types.Object] = {}

    def pose(self, meshes: list[bpy.types.Object], graph: bpy.types.Depsgraph) -> None:
        """Copy the meshes as they are posed now, or update their copies."""
        for mesh in meshes:
            copy = self._copies.get(mesh.name_full)
            if copy is None:
                self._copies[mesh.name_full] = self.add(mesh, graph)
            else:
                self.stage.replace(copy, mesh, graph)

    def look(self, view: CameraFit, time: float) -> None:
        """Place the camera as it is in the view at a time of the take, in seconds."""
        (position,), (shift,) = view.at(np.array([time]))
        fov = 2 * float(np.arctan(max(view.width, view.height) / 2 / view.focal))
        self.place(view.rotation, position, float(view.distance.max()), fov, screen_offset_of(view, shift))


def screen_offset_of(view: CameraFit, pixels: Array) -> tuple[float, float]:
    """Blender's camera shift for an image shift in pixels: its unit is the longer side, the image moves against it, and y is up."""
    longer = max(view.width, view.height)
    return float(-pixels[0] / longer), float(pixels[1] / longer)


def _capsules(obj: bpy.types.Object, take: Take, view: CameraFit, fps: float, size: tuple[int, int]) -> Iterator[Image]:
    """The same images of a rig without a visible mesh, drawn without Blender."""
    try:
        from ...backend.rendering import still_images
    except (ImportError, OSError) as error:
        raise UserError(
            f"Armature '{take.armature}' has no visible mesh, and drawing its bones needs PyTorch ({error}): show or add a mesh."
        ) from error
    cloud = still_images.capsule_cloud(take.rig)
    # from the video's pixels to the image's: the two scales differ only by the rounding to even sides
    smaller = np.diag([size[0] / view.width, size[1] / view.height, 1.0])
    with scratch_scene(obj) as stage:
        for time in take.motion.times:
            (position,), (shift,) = view.at(np.array([time]))
            posed = obj.evaluated_get(go_to(stage.scene, take.start_frame + time * fps))
            projection = smaller @ view.projection(position, shift)
            pose, world = pose_of(posed, take.rig), np.array(posed.matrix_world)
            yield still_images.still_image(cloud, pose, view.rotation, projection, size, world, samples=2)

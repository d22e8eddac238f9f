"""A movie of the input beside the rig, seen from the same side, as large and in the same place; the user's scene is only read."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bpy
import cv2
import numpy as np
from numpy.typing import NDArray

from ...backend.encoders.crops import composite_rgba
from ...backend.errors import UserError
from ...backend.geometry.fit_camera import CameraFit
from ...backend.geometry.rotations import Array
from ...backend.motion.take_file import Take
from ...backend.progress import Progress
from ...backend.video.reader import Frame, probe, read_frames, video_steps
from ..capture import take_store
from ..rendering import engines
from ..rendering.posed_points import go_to
from ..rendering.rig_views import Studio
from ..rendering.scratch_scene import ScratchScene, scratch_scene
from ..rig.armature import pose_of, visible_meshes
from . import footage_camera, takes

Image = NDArray[np.uint8]
INK, PAPER = (25, 25, 30), (226, 226, 230)
GHOST = 0.65  # how opaque the rig is over its footage


@dataclass(frozen=True)
class MovieParams:
    """path: the mp4 to write. height: pixels, at most the footage's own. over: a third image, the rig over its footage."""

    path: Path
    height: int = 480
    over: bool = False
    engine: str = engines.WORKBENCH


def movie_steps(context: bpy.types.Context, text: bpy.types.Text, params: MovieParams) -> Generator[Progress, None, int]:
    """Write the movie of a stored take as its armature plays it, a frame at a time -> how many frames. Blender's own thread.

    Between two steps the scene holds what is drawn, and the armature plays the take; at the end, also if it is closed early, all is as
    it was, and there is a file only if it is whole. Raises UserError: video or armature gone, action deleted, movie not writable.
    """
    raw = footage_camera.relocate_video(take_store.read(text), context.scene.anyrig.video)
    obj = takes.target_of(context, text, raw.rig.names)
    info = probe(raw.clip)
    fps = take_store.about(text)["fps"]  # the scene's may have changed since the keys were written
    yield Progress("Fitting the camera")
    with takes.showing(obj, text), _whole(params.path, Path(raw.clip.path)) as part:
        view = footage_camera.match_camera(obj, raw, (info.width, info.height), fps)
        with closing(_images(obj, raw, view, fps, params)) as rig, closing(read_frames(raw.clip)) as video:
            rows = _beside(video, rig, raw, params)
            with closing(video_steps(part, rows, 1 / float(np.diff(raw.motion.times).mean()))) as written:
                for done in written:
                    yield Progress("Writing the movie", done, len(raw.motion))
    return len(raw.motion)


@contextmanager
def _whole(path: Path, video: Path) -> Iterator[Path]:
    """A file beside it to write to, which takes the path's place when the block has ended well, and is removed if it has not."""
    if path.resolve() == video.resolve():
        raise UserError(f"The movie would be written over its own video '{path}': choose another name.")
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    if not path.parent.is_dir():
        raise UserError(f"There is no folder '{path.parent}' for the movie: choose a folder that exists.")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise UserError(f"The movie '{path}' cannot be written ({error.strerror}): choose another name.") from error
    finally:
        part.unlink(missing_ok=True)


def _beside(video: Iterator[Frame], rig: Iterator[Image], raw: Take, params: MovieParams) -> Iterator[Image]:
    for frame, drawn in zip(video, rig):
        height, width = drawn.shape[:2]
        seen = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
        images = [draw_caption(seen, "input"), draw_caption(composite_rgba(drawn, PAPER), raw.armature)]
        if params.over:
            images.append(composite_rgba(drawn, seen, GHOST))
        yield np.concatenate(images, axis=1)


def draw_caption(image: Image, text: str) -> Image:
    """A copy with a word in its top left corner."""
    copy = image.copy()
    scale = image.shape[0] / 480
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(copy, (0, 0), (width + 12, height + base + 10), PAPER, -1)
    cv2.putText(copy, text, (6, height + 6), cv2.FONT_HERSHEY_SIMPLEX, scale, INK, 1, cv2.LINE_AA)
    return copy


def image_size(view: CameraFit, height: int) -> tuple[int, int]:
    """Width and height of the images: the footage's, made smaller to `height`; even, as codecs need."""
    factor = min(1.0, height / view.height)
    return max(2, round(view.width * factor / 2) * 2), max(2, round(view.height * factor / 2) * 2)


def _images(obj: bpy.types.Object, raw: Take, view: CameraFit, fps: float, params: MovieParams) -> Generator[Image, None, None]:
    """The rig on every frame of its take, (H, W, 4) uint8 RGBA; capsules if it has no mesh."""
    size, meshes = image_size(view, params.height), visible_meshes(obj)
    if not meshes:
        yield from _capsules(obj, raw, view, fps, size)
        return
    with scratch_scene(obj, *meshes) as played, scratch_scene() as stage:
        reel = Reel(stage, params.engine, *size)
        for time in raw.motion.times:
            reel.pose(meshes, go_to(played.scene, raw.start_frame + time * fps))
            reel.look(view, time)
            yield reel.snap()


class Reel(Studio):
    """A studio whose copies of the meshes follow from frame to frame."""

    def __init__(self, stage: ScratchScene, engine: str, width: int, height: int) -> None:
        super().__init__(stage, engine, width, height)
        self._copies: dict[str, bpy.types.Object] = {}

    def pose(self, meshes: list[bpy.types.Object], graph: bpy.types.Depsgraph) -> None:
        for mesh in meshes:
            copy = self._copies.get(mesh.name_full)
            if copy is None:
                self._copies[mesh.name_full] = self.add(mesh, graph)
            else:
                self.stage.replace(copy, mesh, graph)

    def look(self, view: CameraFit, time: float) -> None:
        """Place the camera as the view has it at a time of the take."""
        (position,), (shift,) = view.at(np.array([time]))
        fov = 2 * float(np.arctan(max(view.width, view.height) / 2 / view.focal))
        self.place(view.rotation, position, float(view.distance.max()), fov, screen_offset_of(view, shift))


def screen_offset_of(view: CameraFit, pixels: Array) -> tuple[float, float]:
    """Blender's camera shift is in longer sides of the image; shifting the camera right moves what it sees left, y points up."""
    longer = max(view.width, view.height)
    return float(-pixels[0] / longer), float(pixels[1] / longer)


def _capsules(obj: bpy.types.Object, raw: Take, view: CameraFit, fps: float, size: tuple[int, int]) -> Iterator[Image]:
    """The same images of a rig without a mesh, drawn without Blender."""
    try:
        from ...backend.rendering import still_images
    except (ImportError, OSError) as error:
        raise UserError(
            f"Armature '{raw.armature}' has no mesh, and drawing its bones needs PyTorch ({error}): give it a mesh."
        ) from error
    cloud = still_images.capsule_cloud(raw.rig)
    # the footage's pixels to the image's: both axes are scaled alike but for rounding to even sides
    smaller = np.diag([size[0] / view.width, size[1] / view.height, 1.0])
    with scratch_scene(obj) as stage:
        for time in raw.motion.times:
            (position,), (shift,) = view.at(np.array([time]))
            posed = obj.evaluated_get(go_to(stage.scene, raw.start_frame + time * fps))
            projection = smaller @ view.projection(position, shift)
            pose, world = pose_of(posed, raw.rig), np.array(posed.matrix_world)
            yield still_images.still_image(cloud, pose, view.rotation, projection, size, world, samples=2)

"""`build.py dev pictures`: the README's moving picture, made of a capture of the demo's example."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bpy
import cv2
import numpy as np

from ...backend.arrays import Image
from ...backend.encoders.crops import composite_rgba
from ...backend.errors import UserError
from ..review.side_by_side_movie import PAPER, draw_caption
from . import demo, demo_images, render_action

NAME = "demo.webp"
SIZE = 480  # pixels of a square image; an eighth of it is cut off above and below
QUALITY = 70  # of WebP, 1 to 100
TINT, OPACITY = (120, 235, 215), 0.7  # of the rig over its video, which shows the same character
DARKEST = 0.35  # share of the tint that shaded parts keep


def tinted(image: Image) -> Image:
    """The RGBA image in shades of one colour."""
    brightness = image[..., :3].max(-1, keepdims=True) / np.float32(255)
    shade = np.clip(DARKEST + (1 - DARKEST) * brightness, 0, 1)
    return np.concatenate([np.rint(shade * TINT).astype(np.uint8), image[..., 3:]], axis=-1)


def frames_of(video: Sequence[Image], rig: Sequence[Image]) -> Iterator[Image]:
    """The video beside the rig over it, then the video beside the rig alone. video: RGB, rig: RGBA, squares of SIZE."""
    rows = slice(SIZE // 8, SIZE - SIZE // 8)
    for over in (True, False):
        for seen, drawn in zip(video, rig, strict=True):
            right = composite_rgba(tinted(drawn), seen, OPACITY) if over else composite_rgba(drawn, PAPER)
            label = "capture over its video" if over else "capture"
            yield np.concatenate([draw_caption(seen[rows], "video"), draw_caption(right[rows], label)], axis=1)


def encode_webp(frames: Sequence[Image], fps: float) -> bytes:
    """A WebP of RGB images (H, W, 3) that repeats for ever."""
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames]
    animation.durations = [round(1000 / fps)] * len(frames)
    animation.loop_count = 0
    # OpenCV encodes an animation to a file alone, and some names it cannot open on Windows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        if not cv2.imwriteanimation(str(path), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY]):
            raise UserError("OpenCV wrote no WebP: install the version that pyproject.toml names.")
        return path.read_bytes()


def pictures_command(args: list[str], _say: Callable[[str], None]) -> int:
    """`build.py dev pictures [-o DIR]`: capture the demo's example and write demo.webp."""
    parser = argparse.ArgumentParser(prog="build.py dev pictures", description="Make the README's moving picture.")
    folder = Path(__file__).parents[2] / "docs" / "pictures"
    parser.add_argument("-o", "--out", type=Path, default=folder, metavar="DIR", help="folder for demo.webp")
    parser.add_argument("--model", default="lite", help="lite, tiny (random), or a weights file")
    parser.add_argument("--device", default="auto", choices=("auto", "cuda", "mps", "cpu"))
    options = parser.parse_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    target = options.out / NAME
    bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
    with demo.quiet() as console, tempfile.TemporaryDirectory() as scratch:
        options.out = Path(scratch)
        made = demo.capture_example(options, console, SIZE)
        times = made.results[0].motion.times
        # the last frame of the walk is the first again
        frames = list(made.take.start_frame + times * demo.scene_fps())[:-1]
        rig = render_action.render_action(made.walker, made.take.subjects[0].rig, frames, made.shot.camera)
        video = demo_images.input_frames(made.shot.clip, SIZE)[:-1]
        data = encode_webp(list(frames_of(video, rig)), 1 / float(np.diff(times).mean()))
        target.write_bytes(data)
        console.say(f"{target}: {2 * len(frames)} frames, {len(data) / 1e6:.2f} MB")
    return 0

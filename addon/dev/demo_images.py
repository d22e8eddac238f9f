"""Arranges the demo's images: the input beside the rig, as a sheet of moments and as a video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from ...backend.arrays import Image
from ...backend.video.clip import Clip
from ...backend.video.reader import read_frames, write_video
from ..review.side_by_side_movie import INK, PAPER, draw_caption


def input_frames(clip: Clip, size: int) -> list[Image]:
    """Read the clip's frames as squares (size, size, 3) RGB with the whole image inside."""
    return [letterbox(frame.image, size) for frame in read_frames(clip)]


def letterbox(image: Image, size: int) -> Image:
    height, width = image.shape[:2]
    scale = size / max(height, width)
    inside = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, inside, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    square = np.full((size, size, 3), PAPER, np.uint8)
    top, left = (size - inside[1]) // 2, (size - inside[0]) // 2
    square[top : top + inside[1], left : left + inside[0]] = small
    return square


def write_sheet(path: Path, rows: Mapping[str, Sequence[Image]], stamps: Sequence[str]) -> None:
    """Write a PNG with one row per label and one column per stamp, which is written below; square images of one size."""
    lines = [np.concatenate([draw_caption(cells[0], label), *cells[1:]], axis=1) for label, cells in rows.items()]
    size = lines[0].shape[0]
    feet = [np.full((size // 10, size, 3), PAPER, np.uint8) for _ in stamps]
    for foot, stamp in zip(feet, stamps, strict=True):
        (width, _), _ = cv2.getTextSize(stamp, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        shrink = min(1.0, 0.95 * size / width)
        where = (int(size - width * shrink) // 2, size // 14)
        cv2.putText(foot, stamp, where, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * shrink, INK, 1, cv2.LINE_AA)
    sheet = np.concatenate([*lines, np.concatenate(feet, axis=1)])
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def write_side_by_side(path: Path, rows: Mapping[str, Sequence[Image]], fps: float) -> None:
    """Write a video with all rows beside each other."""
    labels = list(rows)
    frames = zip(*rows.values(), strict=True)
    write_video(path, (np.concatenate([draw_caption(p, t) for p, t in zip(f, labels, strict=True)], axis=1) for f in frames), fps)

"""Writes a subject as a folder that can be looked at, edited and given back as the matte.

The folder holds a PNG for each frame of the range, 0000.png being the first, subject.json and sheet.png.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from ..arrays import Array, Image
from ..errors import UserError
from ..video.clip import Clip
from ..video.reader import read_frames
from ..whole_file import write_whole
from .subject import Subject
from .subject_range import ABOUT
from .track import encode_matte

SHEET = "sheet.png"
MOMENTS = 24  # frames of the sheet
COLUMNS = 6
WIDTH = 320  # pixels of each
LINE = (255, 70, 0)
LOST = (150, 150, 150)


def write_subject(folder: Path, clip: Clip, subject: Subject) -> Generator[tuple[int, int], None, None]:
    """Write the folder; yields (done, total) in frames. Raises UserError if it already holds other files."""
    _make_empty(folder)
    clip = subject.clip or clip
    total = len(subject.times)
    shown = set(np.unique(np.linspace(0, total - 1, MOMENTS).round().astype(int)).tolist())
    cells: list[Image] = []
    with closing(read_frames(clip)) as frames:
        for frame in frames:
            matte = subject.matte(frame.index)
            write_whole(folder / f"{frame.index:04d}.png", encode_matte(matte))
            if frame.index in shown:
                lost = subject.confidence[frame.index] == 0
                cells.append(outlined(frame.image, matte, LOST if lost else LINE, f"{frame.time:.2f} s"))
            yield frame.index + 1, total
    sheet = cv2.cvtColor(tiled(cells), cv2.COLOR_RGB2BGR)
    write_whole(folder / SHEET, cv2.imencode(".png", sheet)[1].tobytes())
    write_whole(folder / ABOUT, json.dumps(_about(clip, subject), indent=1))


def outlined(image: Image, matte: Image, colour: tuple[int, int, int], text: str = "") -> Image:
    """A small picture (h, WIDTH, 3) of a frame with the outline of its matte."""
    height = max(1, round(image.shape[0] * WIDTH / image.shape[1]))
    small = cv2.resize(image, (WIDTH, height), interpolation=cv2.INTER_AREA)
    mask = (cv2.resize(matte, (WIDTH, height), interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
    lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    picture = cv2.drawContours(np.ascontiguousarray(small), lines, -1, colour, 1, cv2.LINE_AA)
    return cv2.putText(picture, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def tiled(cells: Sequence[Image], columns: int = COLUMNS) -> Image:
    """Pictures of one size side by side, in rows."""
    empty = np.full_like(cells[0], 40)
    rows = [[*cells[i : i + columns]] for i in range(0, len(cells), columns)]
    rows[-1] += [empty] * (min(columns, len(cells)) - len(rows[-1]))
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _make_empty(folder: Path) -> None:
    """Make the folder, or clear one that was written here before."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = [*folder.glob("[0-9]*.png"), folder / SHEET, folder / ABOUT]
    strange = next((file for file in folder.iterdir() if file not in ours), None)
    if strange is not None:
        raise UserError(f"The folder '{folder}' holds other files, such as '{strange.name}': choose an empty or a new folder.")
    for file in ours:
        file.unlink(missing_ok=True)


def _about(clip: Clip, subject: Subject) -> dict[str, object]:
    """What subject.json says: times in seconds of the file, boxes in pixels."""
    times = subject.times * clip.speed + clip.start
    return {
        "video": clip.path, "clip": asdict(replace(clip, matte=None)), "source": subject.source, "note": subject.note,
        "frames": len(times), "range": [float(times[0]), float(times[-1])], "times": _rounded(times),
        "boxes": _rounded(subject.boxes, 1), "confidence": _rounded(subject.confidence, 3),
        "others": [asdict(each) for each in subject.others],
    }  # fmt: skip


def _rounded(values: Array, digits: int = 6) -> list[object]:
    return np.round(values, digits).tolist()

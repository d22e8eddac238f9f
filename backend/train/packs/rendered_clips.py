"""What is known of a rendered video: which clip it shows and the camera that saw it. Lies beside the video as JSON. numpy only."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import NOT_NPZ, UserError
from ...geometry.camera import Camera
from ...geometry.rotations import Array

STEEPEST = 0.25  # radians that a camera looks down at most


@dataclass(frozen=True)
class RenderedClip:
    """A video of one clip of a pack, one video frame for each frame of the clip unless it was rendered with fewer (`--frames`).

    fps: frames a second. azimuth, pitch: radians, as in camera.Camera. projection: (3, 4) world axes -> pixels of the video, the
    axes of a pack's rest matrices, poses and surface. frames: how many. width, height: pixels. look: how it was rendered.
    """

    pack: str
    clip: str
    fps: float
    azimuth: float
    pitch: float
    projection: tuple[tuple[float, ...], ...]
    width: int
    height: int
    frames: int
    look: dict[str, float | str]

    @classmethod
    def by(cls, camera: Camera, pack: str, clip: str, fps: float, frames: int, look: dict[str, float | str]) -> RenderedClip:
        """The clip as this camera sees it."""
        rows = tuple(tuple(float(value) for value in row) for row in camera.projection)
        return cls(pack, clip, fps, camera.azimuth, camera.pitch, rows, camera.width, camera.height, frames, look)

    @property
    def matrix(self) -> Array:
        """The projection as an array (3, 4)."""
        return np.array(self.projection)

    def save(self, path: str | Path) -> None:
        Path(path).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> RenderedClip:
        """Raises UserError if the file is missing or describes no video."""
        try:
            filmed = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
            if filmed.matrix.shape != (3, 4):
                raise ValueError(f"a projection of shape {filmed.matrix.shape}")
        except OSError as error:
            raise UserError(f"'{path}' cannot be read ({error.strerror}): render the clip again.") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"'{path}' does not describe a rendered clip ({error}): render it again.") from error
        return filmed


def seeded_rng(seed: int, pack: str, clip: str) -> np.random.Generator:
    """Random numbers that depend on the seed and the names alone. The first two uniform draws are the camera's side and pitch."""
    return np.random.default_rng([seed, zlib.crc32(f"{pack}/{clip}".encode())])


def side_of(rng: np.random.Generator) -> tuple[float, float]:
    """Azimuth and pitch in radians, the first draws from `chance`."""
    return float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.0, STEEPEST))


def stem_of(pack: str, clip: str) -> str:
    """The name of the clip's video without its ending. Names that cannot be part of a file's name are told apart by a number."""
    name = f"{pack}__{clip}"
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


def save_mattes(video: str | Path, covers: Iterable[NDArray[np.uint8]]) -> None:
    """The subject's true mattes, (H, W) uint8 for each of the video's frames, beside it."""
    np.savez_compressed(_mattes_path(video), covers=np.stack(list(covers)))


def has_mattes(video: str | Path) -> bool:
    return _mattes_path(video).is_file()


def load_mattes(video: str | Path) -> NDArray[np.uint8]:
    """(T, H, W) uint8. Raises UserError if the video was rendered without, or they are damaged."""
    path = _mattes_path(video)
    if not path.is_file():
        raise UserError(f"There are no covers beside '{video}': render it again with --covers.")
    try:
        with np.load(path) as file:
            return file["covers"]
    except (*NOT_NPZ, OSError) as error:
        raise UserError(f"Covers '{path}' cannot be read ({error}): delete them and render again with --covers.") from error


def _mattes_path(video: str | Path) -> Path:
    return Path(video).with_suffix(".covers.npz")


def rendered_clips_in(folder: str | Path) -> list[tuple[Path, RenderedClip]]:
    """Every rendered video of a folder with what is known of it, by name; videos still being written are left out.

    Raises UserError if there is none.
    """
    paths = [path for path in sorted(Path(folder).glob("*.mp4")) if path.with_suffix(".json").is_file()]
    if not paths:
        raise UserError(f"There are no rendered clips in '{folder}': make some with `--command anyrig render`.")
    return [(path, RenderedClip.load(path.with_suffix(".json"))) for path in paths]

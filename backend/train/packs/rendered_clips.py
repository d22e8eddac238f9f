"""Describes rendered videos: the clip that a video shows and its camera, in a JSON file beside it, and true mattes. numpy only."""

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
from ...whole_file import whole_file, write_whole

STEEPEST = 0.25  # radians: the largest pitch of a camera


@dataclass(frozen=True)
class RenderedClip:
    """A video of a clip of a pack, frame by frame unless it was rendered with fewer frames (`--frames`).

    fps: frames per second. azimuth, pitch: of the camera, radians (camera.Camera). projection: (3, 4) from world axes, which are those of
    the pack's rest matrices, poses and surface, to pixels. frames: number of frames. width, height: pixels. look: render settings.
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
        """Describe a clip rendered with this camera."""
        rows = tuple(tuple(float(value) for value in row) for row in camera.projection)
        return cls(pack, clip, fps, camera.azimuth, camera.pitch, rows, camera.width, camera.height, frames, look)

    @property
    def matrix(self) -> Array:
        """The projection as an array (3, 4)."""
        return np.array(self.projection)

    def save(self, path: str | Path) -> None:
        """Write the JSON file."""
        write_whole(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> RenderedClip:
        """Read a JSON file. Raises UserError if it is missing or does not describe a rendered clip."""
        try:
            rendered = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
            if rendered.matrix.shape != (3, 4):
                raise ValueError(f"a projection of shape {rendered.matrix.shape}")
        except OSError as error:
            raise UserError(f"'{path}' cannot be read ({error.strerror}): render the clip again.") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"'{path}' does not describe a rendered clip ({error}): render it again.") from error
        return rendered


def seeded_rng(seed: int, pack: str, clip: str) -> np.random.Generator:
    """A random generator that depends only on the seed and the names. Its first two draws are the camera's (`side_of`)."""
    return np.random.default_rng([seed, zlib.crc32(f"{pack}/{clip}".encode())])


def side_of(rng: np.random.Generator) -> tuple[float, float]:
    """Draw the camera's azimuth and pitch, radians."""
    return float(rng.uniform(-np.pi, np.pi)), float(rng.uniform(0.0, STEEPEST))


def stem_of(pack: str, clip: str) -> str:
    """The file name of the clip's video, without its ending. Names with characters that files cannot have get a checksum."""
    name = f"{pack}__{clip}"
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode()):08x}"


def save_mattes(video: str | Path, mattes: Iterable[NDArray[np.uint8]]) -> None:
    """Write the subject's true mattes beside the video: (height, width) uint8 for each frame."""
    with whole_file(_mattes_path(video)) as part, part.open("wb") as file:
        np.savez_compressed(file, covers=np.stack(list(mattes)))


def has_mattes(video: str | Path) -> bool:
    """Whether there are true mattes beside the video."""
    return _mattes_path(video).is_file()


def load_mattes(video: str | Path) -> NDArray[np.uint8]:
    """Read the true mattes beside a video, (T, height, width) uint8. Raises UserError if there are none, or if they are damaged."""
    path = _mattes_path(video)
    if not path.is_file():
        raise UserError(f"There are no mattes beside '{video}': render it again with --covers.")
    try:
        with np.load(path) as file:
            return file["covers"]
    except (*NOT_NPZ, OSError) as error:
        raise UserError(f"Mattes '{path}' cannot be read ({error}): delete them and render again with --covers.") from error


def _mattes_path(video: str | Path) -> Path:
    return Path(video).with_suffix(".covers.npz")


def rendered_clips_in(folder: str | Path) -> list[tuple[Path, RenderedClip]]:
    """All rendered videos of a folder and their descriptions, by name. Unfinished videos have no description and are left out.

    Raises UserError if there is none.
    """
    paths = [path for path in sorted(Path(folder).glob("*.mp4")) if path.with_suffix(".json").is_file()]
    if not paths:
        raise UserError(f"There are no rendered clips in '{folder}': make some with `build.py dev render`.")
    return [(path, RenderedClip.load(path.with_suffix(".json"))) for path in paths]

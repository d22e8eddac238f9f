"""Reads and writes rig packs: npz files with a character's skeleton, clips and surface, in world axes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NOT_NPZ, UserError
from ...rig.point_cloud import Surface
from ...rig.rig import Rig

SURFACE_KEYS = ("points", "normals", "colours", "joints", "weights")


@dataclass(frozen=True, eq=False)
class Pack:
    """A character. rig.world is the identity: rest matrices, poses and points are in world axes (z up).

    clips: joint matrices (F, J, 4, 4) float32 by name, at `fps` frames per second, in the space of rig.rest.
    """

    name: str
    rig: Rig
    surface: Surface
    clips: dict[str, NDArray[np.float32]]
    fps: float

    def save(self, path: str | Path) -> None:
        """Write an npz file, for `load`."""
        head = {"name": self.name, "fps": self.fps, "rig": self.rig.to_json(), "clips": list(self.clips)}
        arrays: dict[str, Any] = {f"surface.{key}": _narrow_integers(getattr(self.surface, key)) for key in SURFACE_KEYS}
        # the last row of an affine matrix is (0, 0, 0, 1)
        arrays |= {f"clip.{i}": pose[:, :, :3].astype(np.float32) for i, pose in enumerate(self.clips.values())}
        np.savez_compressed(path, head=json.dumps(head), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Pack:
        """Read a pack. Raises UserError if the file is missing or not a pack."""
        try:
            with np.load(path) as data:
                head = json.loads(str(data["head"]))
                surface = Surface(**{key: data[f"surface.{key}"] for key in SURFACE_KEYS})
                clips = {name: _add_last_row(data[f"clip.{i}"]) for i, name in enumerate(head["clips"])}
        except OSError as error:
            raise UserError(f"Pack '{path}' cannot be read ({error}): check the path.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a rig pack ({error}): make it again with `build.py dev pack`.") from error
        return cls(head["name"], Rig.from_json(head["rig"]), surface, clips, head["fps"])


def load_packs(folder: str | Path) -> list[Pack]:
    """Read all packs of a folder, by name. Raises UserError if there is none."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise UserError(f"There are no rig packs in '{folder}': make some with `build.py dev pack FILES -o {folder}`.")
    return [Pack.load(path) for path in paths]


def _narrow_integers(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.int16) if values.dtype == np.int32 else values


def _add_last_row(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, J, 3, 4) -> (F, J, 4, 4)."""
    last = np.broadcast_to(np.array([0, 0, 0, 1], np.float32), (*rows.shape[:2], 1, 4))
    return np.concatenate([rows, last], axis=2)

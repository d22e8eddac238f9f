"""Rig packs: one npz per character with everything training needs (skeleton, clips, surface), in world axes."""

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
    """A character. `rig.world` is the identity: rest matrices, poses and points are in world axes, z against gravity.

    clips: name -> (F, J, 4, 4) float32 joint matrices at `fps` frames a second, in the same space as `rig.rest`.
    """

    name: str
    rig: Rig
    surface: Surface
    clips: dict[str, NDArray[np.float32]]
    fps: float

    def save(self, path: str | Path) -> None:
        """Write an npz that `load` reads back."""
        head = {"name": self.name, "fps": self.fps, "rig": self.rig.to_json(), "clips": list(self.clips)}
        arrays: dict[str, Any] = {f"surface.{key}": _small(getattr(self.surface, key)) for key in SURFACE_KEYS}
        # the last row of an affine matrix is (0, 0, 0, 1)
        arrays |= {f"clip.{i}": pose[:, :, :3].astype(np.float32) for i, pose in enumerate(self.clips.values())}
        np.savez_compressed(path, head=json.dumps(head), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Pack:
        """Raises UserError if the file is missing or not a pack."""
        try:
            with np.load(path) as data:
                head = json.loads(str(data["head"]))
                surface = Surface(**{key: data[f"surface.{key}"] for key in SURFACE_KEYS})
                clips = {name: _affine(data[f"clip.{i}"]) for i, name in enumerate(head["clips"])}
        except OSError as error:
            raise UserError(f"Pack '{path}' cannot be read ({error}): check the path.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a rig pack ({error}): make it again with `anyrig pack`.") from error
        return cls(head["name"], Rig.from_json(head["rig"]), surface, clips, head["fps"])


def load_packs(folder: str | Path) -> list[Pack]:
    """Every pack in a folder, by name. Raises UserError if there is none."""
    paths = sorted(Path(folder).glob("*.npz"))
    if not paths:
        raise UserError(f"There are no rig packs in '{folder}': make some with `anyrig pack FILES -o {folder}`.")
    return [Pack.load(path) for path in paths]


def _small(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.astype(np.int16) if values.dtype == np.int32 else values


def _affine(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    last = np.broadcast_to(np.array([0, 0, 0, 1], np.float32), (*rows.shape[:2], 1, 4))
    return np.concatenate([rows, last], axis=2)

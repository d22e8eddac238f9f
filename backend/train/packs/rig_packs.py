"""Reads and writes rig packs: npz files with a character's skeleton, clips and surface, in world axes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import NOT_NPZ, UserError
from ...rig.point_cloud import Surface
from ...rig.rig import Rig
from ...whole_file import whole_file

FORMAT = 2  # 1, of version 0.1, holds skeletons as the armatures have them
SURFACE_KEYS = ("points", "normals", "colours", "joints", "weights")


@dataclass(frozen=True, eq=False)
class Pack:
    """A character. rig.world is the identity: rest matrices, poses and points are in world axes (z up).

    clips: joint matrices (F, J, 4, 4) float32 by name, at `fps` frames per second, in the space of rig.rest.
    armature: the same character in the tree that its armature has, with the joints of `rig` and others; None if it is not known.
    others: for each clip the matrices (F, N, 4, 4) of those others, in the armature's order.
    """

    name: str
    rig: Rig
    surface: Surface
    clips: dict[str, NDArray[np.float32]]
    fps: float
    armature: Rig | None = None
    others: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def in_armature_tree(self) -> Pack:
        """The pack for a network that was trained on the trees that armatures have (Config.natural is False)."""
        if self.armature is None:
            return self
        place = {name: joint for joint, name in enumerate((*self.rig.names, *self._other_names()))}
        order = [place[name] for name in self.armature.names]
        clips = {name: np.concatenate([poses, self.others[name]], axis=1)[:, order] for name, poses in self.clips.items()}
        joints = np.array([self.armature.names.index(name) for name in self.rig.names])
        surface = replace(self.surface, joints=joints[self.surface.joints])
        return Pack(self.name, self.armature, surface, clips, self.fps)

    def _other_names(self) -> list[str]:
        return [] if self.armature is None else [name for name in self.armature.names if name not in self.rig.names]

    def save(self, path: str | Path) -> None:
        """Write an npz file, for `load`."""
        whole = self.armature is not None and all(name in self.others for name in self.clips)
        armature = self.armature.to_json() if self.armature is not None and whole else ""
        head = {"format": FORMAT, "name": self.name, "fps": self.fps, "rig": self.rig.to_json(), "clips": list(self.clips)}
        head["armature"] = armature
        arrays: dict[str, Any] = {f"surface.{key}": _narrow_integers(getattr(self.surface, key)) for key in SURFACE_KEYS}
        # the last row of an affine matrix is (0, 0, 0, 1)
        arrays |= {f"clip.{i}": pose[:, :, :3].astype(np.float32) for i, pose in enumerate(self.clips.values())}
        if armature:
            arrays |= {f"others.{i}": self.others[name][:, :, :3].astype(np.float32) for i, name in enumerate(self.clips)}
        with whole_file(path) as part, part.open("wb") as file:
            np.savez_compressed(file, head=json.dumps(head), **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Pack:
        """Read a pack. Raises UserError if the file is missing or not a pack."""
        try:
            with np.load(path) as data:
                head = json.loads(str(data["head"]))
                if head.get("format", 1) != FORMAT:
                    raise UserError(
                        f"Pack '{path}' has format {head.get('format', 1)}, and this version reads {FORMAT}: make it again with "
                        "`build.py dev pack`."
                    )
                surface = Surface(**{key: data[f"surface.{key}"] for key in SURFACE_KEYS})
                clips = {name: _add_last_row(data[f"clip.{i}"]) for i, name in enumerate(head["clips"])}
                others = {name: _add_last_row(data[f"others.{i}"]) for i, name in enumerate(head["clips"]) if head["armature"]}
        except OSError as error:
            raise UserError(f"Pack '{path}' cannot be read ({error}): check the path.") from error
        except NOT_NPZ as error:
            raise UserError(f"'{path}' is not a rig pack ({error}): make it again with `build.py dev pack`.") from error
        armature = Rig.from_json(head["armature"]) if head["armature"] else None
        return cls(head["name"], Rig.from_json(head["rig"]), surface, clips, head["fps"], armature, others)


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

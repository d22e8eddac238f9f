"""Reads the folder of the public release's data set: its views, their splits, and its species.

See docs/network.md, Training and the data set's layout. A view is a sequence `Species#Clip` from one yaw. F frames, J joints, S
image tokens, C their width, E the names' width.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays import Array
from ...errors import UserError
from ...geometry.rotations import rot6d_to_matrix
from ...motion.bvh import read_bvh
from ...rig.skeleton import MAX_HOP, PARENT, UNRELATED, Skeleton, forward_kinematics, skeleton_of
from .safe_pickle import load_object_npy, load_pickle

POSES, FEATURES, BVHS = "bvh_pose", "npz_train_image_only", "bvh"
INFO, SCALES = "species_info_dict.npy", "cache/__mesh2pose1002_species_scale_cache.pkl"
APART = 0.02  # of the scale: largest mean distance between the positions and forward kinematics
CHECKED = 8  # frames of a sequence that are compared


@dataclass(frozen=True, order=True)
class DatasetView:
    """A sequence `Species#Clip` from a yaw in degrees."""

    sequence: str
    yaw: int

    @property
    def species(self) -> str:
        """The species' name, the part of the sequence before "#"."""
        return self.sequence.partition("#")[0]

    def __str__(self) -> str:
        return f"{self.sequence}/y{self.yaw}"


@dataclass(frozen=True, eq=False)
class Species:
    """The joints of a species.

    hop, edge: (J, J) as skeleton.graph_relations. embedding: (J, E). static_position, static_rotation: (J,) bool. scale: units of
    the files' positions per normalised unit.
    """

    names: tuple[str, ...]
    hop: NDArray[np.int64]
    edge: NDArray[np.int64]
    embedding: NDArray[np.float32]
    static_position: NDArray[np.bool_]
    static_rotation: NDArray[np.bool_]
    scale: float


class Release:
    """The data set in `folder`. splits: file {group: {sequence: angle or [angles]}}; other sequences form the group "train".

    Raises UserError if a file is missing or does not follow the layout.
    """

    def __init__(self, folder: str | Path, splits: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.views = self._index()
        info, scales = load_object_npy(self.folder / INFO), load_pickle(self.folder / SCALES)
        names = {view.species for view in self.views}
        self.species = {name: self._species(name, info, scales) for name in sorted(names)}
        self.groups = self._groups(Path(splits)) if splits else {"train": self.views}
        self._skeletons: dict[str, Skeleton] = {}

    def group(self, name: str) -> list[DatasetView]:
        """The views of "train" or of a group of the splits, sorted. Raises UserError if there are none."""
        if not self.groups.get(name):
            raise UserError(f"'{self.folder}' has no views in group '{name}': choose one of {', '.join(sorted(self.groups))}.")
        return self.groups[name]

    def pose(self, view: DatasetView) -> tuple[Array, Array]:
        """Read a view -> positions (F, J, 3) relative to the root, divided by the species' scale, and local rot6d (F, J, 6)."""
        species = self.species[view.species]
        path = self._path(POSES, view, "npz")
        position, rot6d = (_read_array(path, key).astype(np.float64) for key in ("position", "rot6d"))
        count = len(species.names)
        if position.shape[1:] != (count, 3) or rot6d.shape != (len(position), count, 6) or not len(position):
            raise UserError(
                f"'{path}' has position {position.shape} and rot6d {rot6d.shape}, '{INFO}' lists {count} joints for species "
                f"'{view.species}': make the file again."
            )
        if not (np.isfinite(position).all() and np.isfinite(rot6d).all()):
            raise UserError(f"'{path}' holds numbers that are not finite: make the file again.")
        return (position - position[:, :1]) / species.scale, rot6d

    def frames(self, view: DatasetView) -> int:
        """The number of frames of a view."""
        return len(self.pose(view)[0])

    def tokens(self, view: DatasetView, frames: Iterable[int], count: int) -> NDArray[np.generic]:
        """Read the image features (len, S, C) of `frames` of a view with `count` frames."""
        return _read_rows(self._path(FEATURES, view, "npz"), "image_embed", list(frames), count)

    def skeleton(self, view: DatasetView) -> Skeleton:
        """The skeleton of the view's BVH, in units of the species' scale, with joints in the order of the other files."""
        if view.sequence not in self._skeletons:
            self._skeletons[view.sequence] = self._read_skeleton(view)
        return self._skeletons[view.sequence]

    def _read_skeleton(self, view: DatasetView) -> Skeleton:
        path = self._path(BVHS, view, "bvh")
        rig, _, _ = read_bvh(path)
        read, names = skeleton_of(rig, tips=False), self.species[view.species].names
        place = {name: joint for joint, name in enumerate(read.names)}
        missing = next((name for name in names if name not in place), None)
        if missing is not None or len(place) != len(names):
            what = f"no joint '{missing}'" if missing is not None else f"{len(place)} joints instead of {len(names)}"
            raise UserError(f"BVH file '{path}' has {what}, which '{INFO}' lists for species '{view.species}': export it again.")
        order = np.array([place[name] for name in names])
        back = np.append(np.argsort(order), -1)  # the root's parent -1 stays -1
        parents = back[read.parents[order]].astype(np.int32)
        self._check_parents(view, path, parents)
        # the BVH and the positions have different units: the bones' lengths give the ratio
        position, rot6d = (values[:: max(1, len(values) // CHECKED)] for values in self.pose(view))
        offsets = read.offsets[order]
        length = np.linalg.norm(offsets, axis=-1)
        long = length > 0.01 * length.max()
        seen = np.linalg.norm(position - position[:, parents], axis=-1)
        offsets = offsets * float(np.median(seen[:, long] / length[long])) if long.any() else offsets
        _, chained = forward_kinematics(parents, offsets, rot6d_to_matrix(rot6d))
        if not np.linalg.norm(chained - position, axis=-1).mean() < APART:
            raise UserError(
                f"BVH file '{path}' and '{self._path(POSES, view, 'npz')}' do not belong together: forward kinematics of the "
                "rotations does not give the positions; make both again."
            )
        return Skeleton(names, parents, offsets, np.zeros(len(names), np.bool_), read.translates[order], read.static[order])

    def _check_parents(self, view: DatasetView, path: Path, parents: NDArray[np.integer]) -> None:
        """Raises UserError if the tree is not that of the edges, or a joint comes before its parent, as the rest of the code needs."""
        species = self.species[view.species]
        for joint, parent in enumerate(parents):
            told = np.flatnonzero(species.edge[joint] == PARENT)
            if parent >= joint or (parent < 0) != (joint == 0) or told.tolist() != ([parent] if parent >= 0 else []):
                raise UserError(
                    f"Joint '{species.names[joint]}' has another parent in '{path}' than in '{INFO}', or comes before its parent: "
                    f"make the entry of species '{view.species}' again."
                )

    def _path(self, kind: str, view: DatasetView, ending: str) -> Path:
        return self.folder / kind / view.sequence / f"y{view.yaw}.{ending}"

    def _index(self) -> list[DatasetView]:
        views = []
        for path in sorted((self.folder / POSES).glob("*/y*.npz")):
            if "#" in path.parent.name and path.stem[1:].isdecimal():
                views.append(DatasetView(path.parent.name, int(path.stem[1:])))
        if not views:
            raise UserError(f"There are no views '{POSES}/Species#Clip/y0.npz' in '{self.folder}': check the data set's folder.")
        for view in views:
            for kind, ending, remedy in ((FEATURES, "npz", "extract the image features"), (BVHS, "bvh", "export the BVH")):
                if not self._path(kind, view, ending).is_file():
                    raise UserError(f"'{self._path(kind, view, ending)}' is missing: {remedy} of this view, or remove its poses.")
        return sorted(views)

    def _species(self, name: str, info: Any, scales: Any) -> Species:
        try:
            entry, scale = info[name], float(np.ravel(scales[name]["global_scale"])[0])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(
                f"Species '{name}' has no full entry in '{INFO}' and '{SCALES}' ({error!r}): make both again."
            ) from error
        if not 0 < scale < np.inf:
            raise UserError(f"The scale of species '{name}' in '{SCALES}' is {scale:g}: make the file again.")
        try:
            return _species_of(entry, scale)
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise UserError(f"The entry of species '{name}' in '{INFO}' is not complete ({error}): make it again.") from error

    def _groups(self, path: Path) -> dict[str, list[DatasetView]]:
        try:
            lists = json.loads(path.read_text(encoding="utf-8"))
            wanted = {
                group: [
                    DatasetView(sequence, _yaw_degrees(angle))
                    for sequence, angles in entries.items()
                    for angle in _as_list(angles)
                ]
                for group, entries in lists.items()
            }
        except OSError as error:
            raise UserError(f"Splits file '{path}' cannot be read ({error.strerror}): check the path.") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"Splits file '{path}' is not {{group: {{sequence: angle or [angles]}}}} ({error}): correct it."
            ) from error
        here = set(self.views)
        for group, views in wanted.items():
            absent = next((view for view in views if view not in here), None)
            if absent is not None:
                raise UserError(
                    f"Splits file '{path}' lists {absent} in group '{group}', but '{self.folder}' does not have it: add it, or remove it from the list."
                )
        listed = {view.sequence for views in wanted.values() for view in views}
        return {"train": [view for view in self.views if view.sequence not in listed]} | {
            g: sorted(set(v)) for g, v in wanted.items()
        }


def _species_of(entry: dict[str, Any], scale: float) -> Species:
    """Read a species' entry, whose arrays may be padded. Raises KeyError, TypeError or ValueError for a bad entry."""
    names = tuple(str(name) for name in entry["joints_name"])
    count = len(names)
    hop, edge = (np.asarray(entry[key], np.int64)[:count, :count] for key in ("joints_distance", "joint_relation"))
    embedding = np.asarray(entry["t5_embedding"], np.float32)[:count]
    if hop.shape != (count, count) or edge.shape != (count, count) or embedding.ndim != 2 or len(embedding) != count or not count:
        raise ValueError(f"{count} joints with arrays of shapes {hop.shape}, {edge.shape} and {embedding.shape}")
    if len(set(names)) != count:
        raise ValueError("a joint's name occurs twice")
    # ids outside the tables mean "none" in the data set's padding
    hop, edge = np.clip(hop, 0, MAX_HOP), np.where((edge >= 0) & (edge <= MAX_HOP), edge, UNRELATED)
    position, rotation = (_joint_flags(entry.get(key, ()), names) for key in ("static_joints", "static_rot_joints"))
    return Species(names, hop, edge, embedding, position, rotation, scale)


def _joint_flags(value: Any, names: tuple[str, ...]) -> NDArray[np.bool_]:
    """Joints given as a mask, as indices or as names -> (J,) bool."""
    value, flags = np.asarray(value), np.zeros(len(names), np.bool_)
    if not value.size:
        return flags
    if value.dtype.kind in "OUS":
        return np.isin(names, value.astype(str))
    if value.dtype == np.bool_ or (value.shape == flags.shape and len(names) > 2 and np.isin(value, (0, 1)).all()):
        return value.astype(np.bool_)[: len(names)]
    flags[value.astype(np.int64)] = True
    return flags


def _as_list(angles: Any) -> list[Any]:
    return list(angles) if isinstance(angles, list) else [angles]


def _yaw_degrees(angle: Any) -> int:
    return int(str(angle).removeprefix("y"))


def _read_array(path: Path, key: str) -> NDArray[np.generic]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[key]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' cannot be read as an array file with '{key}' ({error}): make it again.") from error


def _read_rows(path: Path, key: str, rows: list[int], count: int) -> NDArray[np.generic]:
    """Read `rows` of an array of `count` rows. Reads only these if the array is stored uncompressed: a clip's features may have
    hundreds of megabytes."""
    try:
        array = _map_array(path, key)
    except (OSError, KeyError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise UserError(f"'{path}' cannot be read as an array file with '{key}' ({error}): make it again.") from error
    array = _read_array(path, key) if array is None else array
    if array.ndim != 3 or len(array) != count:
        raise UserError(
            f"'{path}' has {key} {array.shape}, the poses of the view have {count} frames: extract the features again."
        )
    return np.array(array[rows])


def _map_array(path: Path, key: str) -> NDArray[np.generic] | None:
    """Map the array in the zip archive to memory; None if it is compressed or not in row order."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
        entry = archive.getinfo(f"{key}.npy")
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, kind = read(member)
        if entry.compress_type != zipfile.ZIP_STORED or fortran or kind.hasobject:
            return None
        header = member.tell()
    with path.open("rb") as file:
        # a local file header has 30 bytes, with the lengths of name and extra field at 26; then follow these two
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return np.memmap(path, kind, "r", entry.header_offset + 30 + name + extra + header, shape)

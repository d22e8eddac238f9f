"""Lists the files of the released weights, with their sources, and finds them on this machine. Imports neither torch nor bpy.

A folder holds the files and a record (weights.json) with the source and the SHA-256 of each.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import UserError, missing_library
from ..progress import size_text
from ..whole_file import write_whole

HUB = "https://huggingface.co"
RECORD = "weights.json"
LOCK = "weights.lock"
NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP}  # from a network drive that cannot lock files
CONVERTED = "release.safetensors"  # made from the network's checkpoint
CONVERTED_SIZE = 160_000_000
NETWORK = "network"


@dataclass(frozen=True)
class Item:
    """One file. name: for the user. size: bytes, roughly; a server gives the exact number. local: its name in our folder."""

    name: str
    repo: str
    file: str
    size: int
    licence: str
    local: str
    about: str

    @property
    def arriving(self) -> str:
        """Its name in our folder until it is checked."""
        return f"new-{self.local}"

    def url(self, base: str) -> str:
        """Its address at the hub or mirror `base`."""
        return f"{base}/{self.repo}/resolve/main/{self.file}"


TABLE = (
    Item(
        NETWORK, "kehong/MoCapAnythingV2-weights", "video2pos2rot_epoch60.pt", 464_000_000, "not stated; the code is MIT",
        "video2pos2rot_epoch60.pt", "the network",
    ),
    Item("dinov2-large", "facebook/dinov2-large", "model.safetensors", 1_217_000_000, "Apache-2.0", "dinov2-large.safetensors", "reads images"),
    Item("t5-base", "google-t5/t5-base", "model.safetensors", 892_000_000, "Apache-2.0", "t5-base.safetensors", "reads joint names"),
    Item("t5-base tokenizer", "google-t5/t5-base", "tokenizer.json", 1_390_000, "Apache-2.0", "t5-base-tokenizer.json", "cuts names into pieces"),
)  # fmt: skip


def base_url(mirror: str) -> str:
    """The address of the mirror, or of the hub if `mirror` is empty. Raises UserError if it is not an address."""
    base = mirror.strip().rstrip("/") or HUB
    if not base.startswith(("https://", "http://")) or " " in base:
        raise UserError(f"Mirror '{mirror}' is not an address: it must begin with https:// (or be empty, for {HUB}).")
    return base


def default_folder() -> Path:
    """The usual folder of the weights: $ANYRIG_WEIGHTS, or a folder in the user's data."""
    chosen = os.environ.get("ANYRIG_WEIGHTS")
    if chosen:
        return Path(chosen)
    homes = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Application Support")}
    variable, usual = homes.get(sys.platform, ("XDG_DATA_HOME", ".local/share"))
    return Path(os.environ.get(variable) or Path.home() / usual) / "anyrig" / "weights"


class Folder:
    """A folder of weights on this machine: the files, and a record of them."""

    def __init__(self, path: str | Path = "") -> None:
        self.path = Path(path) if str(path) else default_folder()

    def record(self) -> dict[str, dict[str, Any]]:
        """name -> sha256, size, source, date and, for a file outside this folder, path. Empty if the record cannot be read."""
        try:
            found = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}

    def write(self, record: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace the record. Raises UserError if the folder cannot be written to."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        write_whole(self.path / RECORD, json.dumps(record, indent=1))

    def note(self, item: Item, sha256: str, size: int, source: str, path: Path | None = None) -> None:
        """Add a file to the record. path: its place, if that is outside this folder."""
        entry: dict[str, Any] = {"sha256": sha256, "size": size, "source": source, "date": date.today().isoformat()}
        self.write(self.record() | {item.name: entry | ({"path": str(path)} if path else {})})

    def file(self, item: Item) -> Path:
        """The path of the file, whether it exists or not."""
        elsewhere = self.record().get(item.name, {}).get("path")
        return Path(elsewhere) if elsewhere and Path(elsewhere).is_file() else self.path / item.local

    def adopted(self) -> set[Path]:
        """The user's own files that are in use, in this folder or elsewhere."""
        return {Path(entry["path"]) for entry in self.record().values() if "path" in entry}

    @property
    def network(self) -> Path:
        """The path of the converted network."""
        return self.path / CONVERTED

    def has(self, item: Item) -> bool:
        """True if the file exists. For the network, the converted one suffices."""
        return (item.name == NETWORK and self.network.is_file()) or self.file(item).is_file()

    def missing(self) -> list[Item]:
        """The files that do not exist."""
        return [item for item in TABLE if not self.has(item)]

    def require(self) -> None:
        """Raises UserError with the names of the missing files, if there are any."""
        missing = self.missing()
        if missing:
            names = ", ".join(item.name for item in missing)
            raise UserError(
                f"The released weights are not complete in '{self.path}' (missing: {names}): download them under Model, or with "
                "`python -m backend weights --download release`."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the folder until the block ends. Makes the folder if need be.

        A process that dies lets go of the lock. A drive that cannot lock files is used without a lock. Raises UserError if
        another process holds the lock, or the folder cannot be written to.
        """
        try:
            from filelock import FileLock, Timeout  # here, because the add-on starts without the libraries, too
        except ImportError as error:
            raise missing_library(error) from error
        file = self.path / LOCK
        lock = FileLock(file, timeout=0, thread_local=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"Another Blender is downloading into '{self.path}': let it finish, or choose another folder for the weights."
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise _unwritable(self.path, error) from error
        try:
            yield
        finally:
            if sys.platform != "win32":  # there filelock deletes the file itself
                file.unlink(missing_ok=True)  # before the release: another process may lock it at once
            lock.release()

    def remove(self) -> int:
        """Delete downloads, begun downloads, the converted network and the record, but no file of the user's own. -> bytes freed.

        Raises UserError if a file cannot be deleted, or another Blender is downloading.
        """
        if not self.path.is_dir():
            return 0
        names = [CONVERTED, RECORD, *(item.local for item in TABLE), *(item.arriving for item in TABLE)]
        files = [self.path / f"{name}{ending}" for name in names for ending in ("", ".part", ".json", ".partial")]
        freed = 0
        with self.locked():
            own = self.adopted()
            for file in (file for file in files if file.is_file() and file.absolute() not in own):
                size = file.stat().st_size
                try:
                    file.unlink()
                except OSError as error:
                    raise UserError(
                        f"'{file}' cannot be deleted ({error.strerror}): close the programs that use it, and remove again."
                    ) from error
                freed += size
        return freed


def _unwritable(folder: Path, error: OSError) -> UserError:
    return UserError(f"Folder '{folder}' cannot be written to ({error.strerror or error}): choose another one for the weights.")


def find_flaw(path: Path) -> str:
    """The first problem with a file's format, which its suffix tells; '' if there is none. Does not read the tensors."""
    try:
        if path.suffix.lower() == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
            return "" if isinstance(found, dict) and "model" in found else "no tokenizer is in it"
        if path.suffix.lower() == ".safetensors":
            return _find_safetensors_flaw(path)
        return "" if zipfile.is_zipfile(path) else f"no PyTorch checkpoint is in it, or its end is missing{_web_page_note(path)}"
    except (ValueError, LookupError, TypeError):
        return f"its content is not what its name says{_web_page_note(path)}"


BUNDLED = Path(__file__).parents[1] / "data" / "lite.safetensors"


def takes_natural_skeleton(model: str) -> bool:
    """Whether a model wants the natural skeleton; False: the armature's own tree. A file that cannot be read is told of when it is loaded.

    The released network has seen neither: its training characters are ordinary rigs, whose trees are natural.
    """
    if model in ("release", "tiny"):
        return True
    path = BUNDLED if model == "lite" else Path(model)
    try:
        config = json.loads(safetensors_header(path)["__metadata__"]["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return True
    return bool(config.get("natural", False))


def safetensors_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, with its length in bytes under ''. Raises ValueError if there is none."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 2 <= size <= min(100_000_000, path.stat().st_size - 8):
            raise ValueError("no header")
        found = json.loads(file.read(size))
    if not isinstance(found, dict):
        raise ValueError("no header")
    return found | {"": size + 8}


def _find_safetensors_flaw(path: Path) -> str:
    found = safetensors_header(path)
    start = found.pop("")
    ends = [entry["data_offsets"][1] for key, entry in found.items() if key != "__metadata__"]
    expected, size = start + max(ends, default=0), path.stat().st_size
    return "" if size == expected else f"it should have {size_text(expected)} and has {size_text(size)}"


def _web_page_note(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    return "; it is a web page" if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) else ""


def named(name: str) -> list[Item]:
    """The items with this name; "release" stands for all. Raises UserError if there is none."""
    found = [item for item in TABLE if name in ("release", item.name)]
    if not found:
        raise UserError(f"There are no weights '{name}': choose release, or one of {names_text(TABLE)}.")
    return found


def names_text(items: Iterable[Item]) -> str:
    """The items' names, separated by commas."""
    return ", ".join(item.name for item in items)

"""Getting the released weights: downloads or files that the user has, checked, recorded, the checkpoint converted once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from ..progress import Progress, in_steps, size_text
from .folder_lock import alone
from .http_download import SPARE, digest, discard, download
from .registry import (
    CONVERTED_SIZE,
    NETWORK,
    TABLE,
    Folder,
    Item,
    base_url,
    flaw,
    header,
    names_text,
)

SUFFIXES = {".pt", ".pth", ".safetensors", ".json"}


def fetch_files(folder: Folder, mirror: str = "", items: Sequence[Item] | None = None) -> Generator[Progress, None, list[Item]]:
    """Download what is missing of `items` (None: all of the release) and convert the network. -> what was downloaded.

    Closing the generator keeps what has arrived. Raises UserError: see `download`; a file that is garbage or is another one than
    was recorded before; a checkpoint that does not fit; another Blender that is at it.
    """
    base = base_url(mirror)
    wanted = [item for item in folder.missing() if items is None or item in items]
    if wanted:
        _check_space(folder, wanted)
    if wanted or _convertible(folder):
        with alone(folder.path):
            for item in wanted:
                yield from _fetch_one(folder, item, base)
            yield from _convert(folder)
    return wanted


def use_local_files(folder: Folder, source: Path) -> Generator[Progress, None, list[Item]]:
    """Use files that the user has: one file, or a folder that is searched with all folders in it. -> what was found.

    The files stay where they are; the network is converted into our folder. Raises UserError if none of them is ours, or one is
    another file than was recorded before.
    """
    found: dict[str, tuple[Item, Path]] = {}
    for paths in _candidates(source):
        yield Progress("Looking for the weights", len(found), len(TABLE), unit="")
        for path in paths:
            item = _recognise(path, chosen=source.is_file())
            if item is not None and (
                item.name not in found or (_published_size(path) and not _published_size(found[item.name][1]))
            ):
                found[item.name] = (item, path)
    if not found:
        raise UserError(f"None of the released weights is in '{source}': choose the folder that holds {names_text(TABLE)}.")
    with alone(folder.path):
        for item, path in found.values():
            sha256 = yield from _digest(path, item)
            _compare(folder, item, sha256, "", str(path))
            folder.note(item, sha256, path.stat().st_size, str(path), path.absolute())
        yield from _convert(folder)
    return [item for item, _ in found.values()]


def _check_space(folder: Folder, wanted: Sequence[Item]) -> None:
    begun = sum(_size(folder.path / f"{item.arriving}{ending}") for item in wanted for ending in ("", ".part"))
    needed = sum(item.size for item in wanted) - begun + SPARE + (CONVERTED_SIZE if wanted[0].name == NETWORK else 0)
    home = next((parent for parent in (folder.path, *folder.path.absolute().parents) if parent.is_dir()), None)
    if home is None:  # a drive that is not there
        raise UserError(f"Folder '{folder.path}' cannot be made: choose another one for the weights.")
    free = shutil.disk_usage(home).free
    if needed > free:
        raise UserError(
            f"The weights ({names_text(wanted)}) need {size_text(needed)} in '{folder.path}', where {size_text(free)} are free: "
            "make room or choose another folder."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_one(folder: Folder, item: Item, base: str) -> Generator[Progress, None, None]:
    """Closed while it checks, it keeps the file, which the next call then checks."""
    url, arrived = item.url(base), folder.path / item.arriving
    published = yield from in_steps(f"Downloading {item.name}", download(url, arrived, item.name), item.size)
    try:
        problem = flaw(arrived)
        if problem:
            raise UserError(f"What came from {base} for {item.name} is damaged ({problem}): try again, or use another mirror.")
        sha256 = yield from _digest(arrived, item)
        _compare(folder, item, sha256, published, base)
    except UserError:
        discard(arrived)
        raise
    size = arrived.stat().st_size
    arrived.replace(folder.path / item.local)
    discard(arrived)
    folder.note(item, sha256, size, url)


def _digest(path: Path, item: Item) -> Generator[Progress, None, str]:
    return in_steps(f"Checking {item.name}", digest(path))


def _compare(folder: Folder, item: Item, sha256: str, published: str, source: str) -> None:
    """Raises UserError if the file is not the one that the hub published, or that was recorded the first time."""
    if published and sha256 != published:
        raise UserError(
            f"{item.name} from {source} is not the published file (SHA-256 {sha256[:12]}, published {published[:12]}): try again, or use "
            "another mirror."
        )
    known = folder.record().get(item.name, {})
    if known.get("sha256", sha256) != sha256:
        raise UserError(
            f"{item.name} from {source} is another file than on {known.get('date')} (SHA-256 {sha256[:12]}, then "
            f"{known['sha256'][:12]}): remove the weights first if the publisher has changed it."
        )


def _convert(folder: Folder) -> Generator[Progress, None, None]:
    """The checkpoint becomes safetensors once; a downloaded one is deleted then, its SHA-256 stays on record."""
    if not _convertible(folder):
        return
    item = TABLE[0]
    checkpoint = folder.file(item)
    yield Progress("Converting the network", 0, 1, unit="")
    from .released_checkpoint import convert  # torch

    convert(checkpoint, folder.network, {"source": folder.record().get(item.name, {})})
    if checkpoint == folder.path / item.local and checkpoint.absolute() not in folder.adopted():
        checkpoint.unlink()
    yield Progress("Converting the network", 1, 1, unit="")


def _convertible(folder: Folder) -> bool:
    return not folder.network.is_file() and folder.file(TABLE[0]).is_file()


def _candidates(source: Path) -> Iterator[list[Path]]:
    """Files that may be ours, folder by folder."""
    if not source.exists():
        raise UserError(f"'{source}' does not exist: choose a folder or file that holds the released weights.")
    if source.is_file():
        yield [source]
        return
    for folder, inner, names in os.walk(source):
        inner.sort()
        paths = [Path(folder, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES]
        yield [path for path in paths if (path.suffix.lower() != ".json" or "tokenizer" in path.name) and path.is_file()]


# the widths of dinov2-large and t5-base
WIDTHS = {"embeddings.cls_token": 1024, "shared.weight": 768}


def _published_size(path: Path) -> bool:
    """Whether an encoder's file is of the size that the release uses: a cache may hold several."""
    if path.suffix.lower() != ".safetensors":
        return True
    shapes = {key: entry["shape"] for key, entry in header(path).items() if key in WIDTHS}
    return all(shapes[key][-1] == WIDTHS[key] for key in shapes)


def _recognise(path: Path, chosen: bool) -> Item | None:
    """Which item a file is, by what is in it; a checkpoint also by its name, unless it is the very file that the user chose."""
    network, images, names, tokenizer = TABLE
    suffix = path.suffix.lower()
    try:
        if suffix not in SUFFIXES or flaw(path):
            return None
        if suffix == ".json":
            return tokenizer if '"Unigram"' in path.read_text(encoding="utf-8") else None
        if suffix != ".safetensors":
            return network if chosen or path.name == network.file else None
        keys = header(path).keys()
    except OSError:  # not ours to read
        return None
    if any("register" in key for key in keys):  # another DINOv2
        return None
    if any(key.endswith("embeddings.patch_embeddings.projection.weight") for key in keys):
        return images
    return names if "encoder.block.0.layer.1.DenseReluDense.wi.weight" in keys else None

"""Fetches the released weights, or uses files that the user has. Checks and records them, and converts the checkpoint once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from ..errors import UserError
from ..progress import Progress, size_text, staged
from .http_download import SPARE, digest, discard, download
from .registry import (
    CONVERTED_SIZE,
    NETWORK,
    TABLE,
    Folder,
    Item,
    base_url,
    find_flaw,
    names_text,
    safetensors_header,
)

SUFFIXES = {".pt", ".pth", ".safetensors", ".json"}


def fetch_files(folder: Folder, mirror: str = "", items: Sequence[Item] | None = None) -> Generator[Progress, None, list[Item]]:
    """Download the missing files of `items` (None: of the whole release) and convert the network. -> the downloaded items.

    Closing the generator keeps what has arrived. Raises UserError as `download` does, and for a damaged file, a file other than
    the recorded one, a checkpoint that does not fit, or another Blender that downloads into this folder.
    """
    base = base_url(mirror)
    wanted = [item for item in folder.missing() if items is None or item in items]
    if wanted:
        _check_space(folder, wanted)
    if wanted or _needs_converting(folder):
        with folder.locked():
            for item in wanted:
                yield from _fetch_one(folder, item, base)
            yield from _convert_network(folder)
    return wanted


def use_local_files(folder: Folder, source: Path) -> Generator[Progress, None, list[Item]]:
    """Use the user's own files: one file, or those in a folder and all folders inside. -> the items found.

    The files stay in their place; the converted network goes into `folder`. Raises UserError if no released file is found, or one
    is not the recorded one.
    """
    found: dict[str, tuple[Item, Path]] = {}
    for paths in _candidate_files(source):
        yield Progress("Looking for the weights", len(found), len(TABLE), unit="")
        for path in paths:
            item = _recognise_item(path, chosen=source.is_file())
            if item is not None and (
                item.name not in found or (_has_published_size(path) and not _has_published_size(found[item.name][1]))
            ):
                found[item.name] = (item, path)
    if not found:
        raise UserError(f"None of the released weights is in '{source}': choose the folder that holds {names_text(TABLE)}.")
    with folder.locked():
        for item, path in found.values():
            sha256 = yield from _compute_sha256(path, item)
            _compare_sha256(folder, item, sha256, "", str(path))
            folder.note(item, sha256, path.stat().st_size, str(path), path.absolute())
        yield from _convert_network(folder)
    return [item for item, _ in found.values()]


def _check_space(folder: Folder, wanted: Sequence[Item]) -> None:
    begun = sum(_size_of(folder.path / f"{item.arriving}{ending}") for item in wanted for ending in ("", ".part"))
    needed = sum(item.size for item in wanted) - begun + SPARE + (CONVERTED_SIZE if wanted[0].name == NETWORK else 0)
    home = next((parent for parent in (folder.path, *folder.path.absolute().parents) if parent.is_dir()), None)
    if home is None:  # the drive does not exist
        raise UserError(f"Folder '{folder.path}' cannot be made: choose another one for the weights.")
    free = shutil.disk_usage(home).free
    if needed > free:
        raise UserError(
            f"The weights ({names_text(wanted)}) need {size_text(needed)} in '{folder.path}', where {size_text(free)} are free: "
            "make room or choose another folder."
        )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_one(folder: Folder, item: Item, base: str) -> Generator[Progress, None, None]:
    """Download, check and record one file. Closed while it checks, it keeps the file, and the next call checks it."""
    url, arrived = item.url(base), folder.path / item.arriving
    published = yield from staged(f"Downloading {item.name}", download(url, arrived, item.name), "", item.size)
    try:
        problem = find_flaw(arrived)
        if problem:
            raise UserError(
                f"The file that {base} sent for {item.name} is damaged ({problem}): try again, or use another mirror."
            )
        sha256 = yield from _compute_sha256(arrived, item)
        _compare_sha256(folder, item, sha256, published, base)
    except UserError:
        discard(arrived)
        raise
    size = arrived.stat().st_size
    arrived.replace(folder.path / item.local)
    discard(arrived)
    folder.note(item, sha256, size, url)


def _compute_sha256(path: Path, item: Item) -> Generator[Progress, None, str]:
    return staged(f"Checking {item.name}", digest(path), "")


def _compare_sha256(folder: Folder, item: Item, sha256: str, published: str, source: str) -> None:
    """Raises UserError if the SHA-256 is not the one that the hub published, or the one recorded before."""
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


def _convert_network(folder: Folder) -> Generator[Progress, None, None]:
    """Convert the checkpoint to safetensors once. A downloaded checkpoint is then deleted; its SHA-256 stays recorded."""
    if not _needs_converting(folder):
        return
    item = TABLE[0]
    checkpoint = folder.file(item)
    yield Progress("Converting the network", 0, 1, unit="")
    from .released_checkpoint import convert_checkpoint  # torch

    convert_checkpoint(checkpoint, folder.network, {"source": folder.record().get(item.name, {})})
    if checkpoint == folder.path / item.local and checkpoint.absolute() not in folder.adopted():
        checkpoint.unlink()
    yield Progress("Converting the network", 1, 1, unit="")


def _needs_converting(folder: Folder) -> bool:
    return not folder.network.is_file() and folder.file(TABLE[0]).is_file()


def _candidate_files(source: Path) -> Iterator[list[Path]]:
    """Yield the files that may belong to the release, folder by folder."""
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


def _has_published_size(path: Path) -> bool:
    """True if an encoder's file has the size that the release uses: a cache may hold several sizes."""
    if path.suffix.lower() != ".safetensors":
        return True
    shapes = {key: entry["shape"] for key, entry in safetensors_header(path).items() if key in WIDTHS}
    return all(shapes[key][-1] == WIDTHS[key] for key in shapes)


def _recognise_item(path: Path, chosen: bool) -> Item | None:
    """The item that a file is, by its content; None if it is none. A checkpoint also needs its name, unless the user chose this file."""
    network, images, names, tokenizer = TABLE
    suffix = path.suffix.lower()
    try:
        if suffix not in SUFFIXES or find_flaw(path):
            return None
        if suffix == ".json":
            return tokenizer if '"Unigram"' in path.read_text(encoding="utf-8") else None
        if suffix != ".safetensors":
            return network if chosen or path.name == network.file else None
        keys = safetensors_header(path).keys()
    except OSError:  # the file may not be read
        return None
    if any("register" in key for key in keys):  # a DINOv2 with registers
        return None
    if any(key.endswith("embeddings.patch_embeddings.projection.weight") for key in keys):
        return images
    return names if "encoder.block.0.layer.1.DenseReluDense.wi.weight" in keys else None

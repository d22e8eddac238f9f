"""Keeps the subjects of clips in a folder, so that the next capture of the same video and range need not find them again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ..errors import NOT_NPZ, UserError
from ..video.clip import Clip
from ..video.reader import image_files
from ..weights.registry import default_folder
from ..whole_file import whole_file
from .isnet_files import isnet_files
from .matte_finder import uses_isnet
from .sightings import Candidate
from .subject import Subject, find_subject

FORMAT = 2  # changes with what `find_subject` would find
LIMIT = 500_000_000  # bytes of a folder
SUFFIX = ".subject.npz"


def subject_folder() -> Path:
    """The usual folder: $ANYRIG_CACHE, or one beside the weights in the user's data."""
    chosen = os.environ.get("ANYRIG_CACHE")
    return Path(chosen) if chosen else default_folder().with_name("subjects")


def find_kept_subject(
    clip: Clip, device: torch.device, isnet: str = "", folder: str = ""
) -> Generator[tuple[int, int], None, Subject]:
    """As `find_subject`, but looks in the folder first, and keeps there what it finds. folder: "" for none.

    A folder that cannot be read or written to is left alone.
    """
    if not folder:
        return (yield from find_subject(clip, device, isnet))
    file = Path(folder) / f"{_key(clip, device, isnet)}{SUFFIX}"
    kept = _load(file)
    if kept is not None:
        yield len(kept.times), len(kept.times)
        return kept
    subject = yield from find_subject(clip, device, isnet)
    with suppress(OSError, UserError):
        _save(file, subject)
        make_room(Path(folder))
    return subject


def make_room(folder: Path, limit: int = LIMIT) -> int:
    """Delete what was not used for longest until the folder holds at most `limit` bytes. -> the bytes that are left."""
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True)
    left = 0
    for file in files:
        size = file.stat().st_size
        if left + size > limit:
            file.unlink()
        else:
            left += size
    return left


def _key(clip: Clip, device: torch.device, isnet: str) -> str:
    """Names the clip with the state of its files: another video, range, box, matte or network has another key."""
    files = _files_of(clip)
    if uses_isnet(isnet):
        with suppress(UserError):  # told where it is needed: another method may do
            files += isnet_files(isnet)
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    how = json.dumps([FORMAT, asdict(clip), states, isnet, device.type == "cpu"])
    return hashlib.sha256(how.encode()).hexdigest()[:32]


def _files_of(clip: Clip) -> list[Path]:
    files = [path for path in (clip.path, clip.matte) if path]
    return [file for path in files for file in image_files(replace(clip, path=path)) or [Path(path)]]


def _save(file: Path, subject: Subject) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert subject.clip is not None
    about = {
        "source": subject.source, "size": subject.size, "clip": asdict(subject.clip), "note": subject.note,
        "others": [asdict(each) for each in subject.others], "lost": subject.lost,
    }  # fmt: skip
    with whole_file(file) as part, part.open("wb") as stream:
        np.savez(
            stream, times=subject.times, boxes=subject.boxes, confidence=subject.confidence, about=np.array(json.dumps(about)),
            lengths=np.array([len(each) for each in subject.mattes]), mattes=np.frombuffer(b"".join(subject.mattes), np.uint8),
        )  # fmt: skip


def _load(file: Path) -> Subject | None:
    try:
        with np.load(file) as data:
            about, ends = json.loads(str(data["about"])), np.cumsum(data["lengths"])
            blob = data["mattes"].tobytes()
            mattes = [blob[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            subject = Subject(
                data["times"], data["boxes"], data["confidence"], about["source"], mattes, tuple(about["size"]),
                Clip.from_json(json.dumps(about["clip"])), about["note"],
                tuple(Candidate(tuple(each["box"]), each["time"]) for each in about["others"]), tuple(about["lost"]),
            )  # fmt: skip
        os.utime(file)
        return subject
    except (*NOT_NPZ, OSError, KeyError, TypeError):
        return None

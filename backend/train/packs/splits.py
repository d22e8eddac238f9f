"""Splits the clips of packs into those for training, validation and testing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import UserError
from .rig_packs import Pack

SPLITS = Path(__file__).with_name("splits.json")  # of the open zoo's packs
VALIDATION = 20  # clips, where the file lists none
TESTS = ("seen", "unseen", "new_motions")  # new_motions: whole kinds of motion that are never trained on
HELD = ("validation", "new_validation")  # decisions are taken on these
NEEDED = ("seen", "unseen", "never_train_clips", "never_train_files")
OPTIONAL = ("validation", "new_validation", "new_motions")


def split_packs(packs: Sequence[Pack], splits: Path | None, seed: int = 0) -> dict[str, list[Pack]]:
    """The packs by split: train, validation, new_validation, seen, unseen, new_motions. A pack has only the clips of its split; packs
    without clips are left out.

    splits: a JSON file with the lists seen, unseen, never_train_clips (each of {file, clip}), never_train_files and perhaps validation,
    new_validation and new_motions. Without it, all clips are for training and validation. Validation clips that are not listed are
    drawn from the training clips of packs that have at least four.
    Raises UserError if the file is missing, or names a clip that its pack lacks.
    """
    lists = read_lists(splits) if splits else dict.fromkeys((*NEEDED, *OPTIONAL), [])
    listed = {name: {(entry["file"], entry["clip"]) for entry in lists[name]} for name in (*TESTS, *HELD, "never_train_clips")}
    have = {(pack.name, clip) for pack in packs for clip in pack.clips}
    for name in TESTS:
        missing = {key for key in listed[name] - have if key[0] in {pack.name for pack in packs}}
        if missing:
            raise UserError(
                f"Clip '{min(missing)[1]}' of the {name} split is not in pack '{min(missing)[0]}': make the packs again."
            )
    banned = set().union(*(listed[name] for name in (*TESTS, "never_train_clips"))) | {
        (f, clip) for f, clip in have if f in lists["never_train_files"]
    }
    train = sorted(have - banned)
    held = {name: listed[name] & set(train) for name in HELD}
    held["validation"] = held["validation"] or _draw_validation(sorted(set(train) - held["new_validation"]), seed)
    parts = {"train": set(train) - held["validation"] - held["new_validation"], **held} | {name: listed[name] for name in TESTS}
    return {name: _with_clips(packs, keys) for name, keys in parts.items()}


def _draw_validation(train: Sequence[tuple[str, str]], seed: int) -> set[tuple[str, str]]:
    counts = {file: sum(other == file for other, _ in train) for file, _ in train}
    spare = [key for key in train if counts[key[0]] >= 4]
    count = min(VALIDATION, len(spare) // 4)
    chosen = np.random.default_rng(seed).choice(len(spare), count, replace=False) if count else []
    return {spare[i] for i in chosen}


def _with_clips(packs: Sequence[Pack], keys: set[tuple[str, str]]) -> list[Pack]:
    """The packs with only the clips whose (pack, clip) is in `keys`."""
    kept = [replace(pack, clips={k: v for k, v in pack.clips.items() if (pack.name, k) in keys}) for pack in packs]
    return [pack for pack in kept if pack.clips]


def read_lists(path: Path) -> dict[str, list]:
    """Read the lists of a splits file (see `split_packs`). Raises UserError if it cannot be read or lacks one."""
    try:
        lists = json.loads(path.read_text(encoding="utf-8"))
        return {name: lists[name] for name in NEEDED} | {name: lists.get(name, []) for name in OPTIONAL}
    except OSError as error:
        raise UserError(f"Splits file '{path}' cannot be read ({error.strerror}): check the path.") from error
    except (KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"Splits file '{path}' is not what `train` expects ({error}): it needs seen, unseen and never_train lists."
        ) from error

"""Checks that files can be written, before the long work that makes them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import UserError

File = str | Path | None


def check_outputs(*paths: File, inputs: Iterable[File] = ()) -> None:
    """Raises UserError if one of the files cannot be written, or is one of the `inputs` or another of the files, by whatever name.

    None and '' stand for no file. Changes no file.
    """
    taken: list[str | Path] = []
    sources = [*filter(None, inputs)]
    for path in filter(None, paths):
        _check_place(path)
        for source in sources:
            if is_same_file(path, source):
                raise UserError(f"File '{path}' would overwrite '{source}', which is read: choose another name.")
        for other in taken:
            if _clash(path, other):
                raise UserError(f"File '{path}' would overwrite '{other}', which is written too: choose another name.")
        taken.append(path)


def check_suffix(path: File, *suffixes: str) -> None:
    """Raises UserError if the file's name does not end in one of the suffixes; "" among them is a name without any.

    A device, such as /dev/null, may have any name.
    """
    if not path or Path(path).suffix.lower() in suffixes or _is_device(Path(path)):
        return
    *others, last = filter(None, suffixes)
    named = f"{', '.join(others)} or {last}" if others else last
    raise UserError(f"File '{path}' cannot be written as such a file: give it a name that ends in {named}.")


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Whether both names lead to one file: through links, by relative paths, or in upper and lower case where that is one."""
    if _real(path) == _real(other):
        return True
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):  # one of them does not exist
        return False


def _clash(path: str | Path, other: str | Path) -> bool:
    """Whether two files to write are one on some system, which may not tell upper from lower case."""
    return is_same_file(path, other) or _real(path).casefold() == _real(other).casefold()


def _real(path: str | Path) -> str:
    return os.path.realpath(path)


def _is_device(path: Path) -> bool:
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:
        return False


def _check_place(path: str | Path) -> None:
    file = Path(_real(path))
    try:
        if file.is_dir():
            raise UserError(f"File '{path}' cannot be written, as a folder has that name: choose another name.")
        if not file.parent.is_dir():
            raise UserError(
                f"File '{path}' cannot be written, as there is no folder '{file.parent}': make it, or choose another."
            )
        if _is_device(file):
            return
        if file.exists():
            with file.open("ab"):
                pass
        # files are written beside their place and moved there
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"File '{path}' cannot be written ({reason}): choose another folder or name.") from error


def unique_paths(path: Path, names: Sequence[str], written: Sequence[str]) -> list[Path]:
    """A path beside `path` for each of several things: PATH-NAME with the names as they are `written` in file names.

    Raises UserError if two of the `names` give one file name, on systems that do not tell upper from lower case too.
    """
    seen: dict[str, str] = {}
    for name, text in zip(names, written, strict=True):
        if (first := seen.setdefault(text.casefold(), name)) is not name:
            raise UserError(
                f"'{first}' and '{name}' would be written to one file, '{path.stem}-{text}{path.suffix}': rename one of the two."
            )
    return [path.with_stem(f"{path.stem}-{text}") for text in written]

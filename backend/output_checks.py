"""Checks that files can be written, before the long work that makes them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from .errors import UserError


def check_outputs(*paths: str | Path | None) -> None:
    """Raises UserError if one of the files cannot be written. None and '' stand for no file. Changes no file."""
    for path in filter(None, paths):
        file = Path(path).absolute()
        if file.is_dir():
            raise UserError(f"File '{path}' cannot be written, as a folder has that name: choose another name.")
        if not file.parent.is_dir():
            raise UserError(
                f"File '{path}' cannot be written, as there is no folder '{file.parent}': make it, or choose another."
            )
        try:
            with file.open("ab") if file.exists() else tempfile.TemporaryFile(dir=file.parent):
                pass
        except OSError as error:
            raise UserError(f"File '{path}' cannot be written ({error.strerror}): choose another folder or name.") from error

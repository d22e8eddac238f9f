"""`UserError`, the one exception whose message the user reads."""

import re
import zipfile
import zlib

# what numpy raises over an npz file that is damaged, or none at all; RuntimeError where a bit says "encrypted" or "of a later kind"
NOT_NPZ = (KeyError, TypeError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class UserError(Exception):
    """Something the user can fix. The message is one sentence that names the bone, frame or file and the fix.

    fix: the name of a button that a panel shows below the message (addon/ui/fix_buttons.py), or ''.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(printable(message))
        self.fix = fix


def printable(text: str) -> str:
    """The text with a replacement character for each byte that is no UTF-8, which Python keeps as half a surrogate pair.

    File names may hold such bytes; neither terminals nor the names of Blender's data-blocks take them.
    """
    return re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def missing_library(error: ImportError | OSError | None, library: str = "A library") -> UserError:
    """The error for a library that cannot be imported. error: what the import raised; None if the library was not found."""
    state = "is missing" if error is None or isinstance(error, ModuleNotFoundError) else "does not load"
    reason = "" if error is None else f" ({first_line(error)})"
    return UserError(f"{library} {state}{reason}: install the AnyRig zip made for this system.")


def first_line(error: object) -> str:
    """The first line of a message, without its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")

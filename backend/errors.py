"""The one exception that is meant for the user's eyes."""

import zipfile
import zlib

# what numpy raises over an npz file that is damaged, or none at all; RuntimeError where a bit says "encrypted" or "of a later kind"
NOT_NPZ = (KeyError, TypeError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


class UserError(Exception):
    """Something the user can mend. The message is one sentence that names the bone, frame or file and the fix.

    fix: a name under which a panel may offer the fix as a button (addon/fixes.py), or ''.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix

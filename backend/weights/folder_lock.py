"""One Blender at a time in a folder, by a lock of the system's: it goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from ..errors import UserError

NAME = "weights.lock"
BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
TRIES = 10  # to get a file that its holder before us does not delete
BEYOND = 1 << 30  # the byte that Windows locks: nobody else may read a locked one, and the holder's name stands before it


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if need be, until the block ends; where the drive knows no locks, without one.

    Raises UserError if another process holds it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _held(folder)
    except OSError as error:
        raise UserError(
            f"Folder '{folder}' cannot be written to ({error.strerror or error}): choose another one for the weights."
        ) from error
    try:
        with contextlib.suppress(OSError):  # a full disk: who holds it is only told to others
            os.write(file.fileno(), f"process {os.getpid()}, since {datetime.now():%H:%M}\n".encode())
        yield
    finally:
        _let_go(file)


def _held(folder: Path, tries: int = TRIES) -> IO[str]:
    """The lock's file, ours alone. Whoever had it before may have deleted it after we opened it: then another one counts.

    Network drives that number a file anew each time it is asked for never say that it is the same: there the last try counts.
    """
    file = (folder / NAME).open("a+", encoding="utf-8")
    try:
        _lock(file)
    except OSError as error:
        if error.errno in BUSY:
            raise UserError(
                f"Another Blender{_holder(file)} is downloading into '{folder}': let it finish, or choose another folder "
                "for the weights."
            ) from error
    if tries == 1 or _is_at(file, folder / NAME):
        return file
    file.close()
    return _held(folder, tries - 1)


def _lock(file: IO[str]) -> None:
    """Raises OSError, with one of BUSY if somebody else has it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file.fileno(), BEYOND, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: IO[str]) -> str:
    """Who has the lock, as ' (process 123, since 14:02)'; closes the file."""
    with file:
        file.seek(0)
        holders = file.read().split("\n")[:-1]  # the last one; those before it ended without a word
    return f" ({holders[-1]})" if holders else ""


def _let_go(file: IO[str]) -> None:
    """Close and delete it. Windows deletes no open file, and elsewhere it must be gone before another process can lock it."""
    if sys.platform != "win32":
        Path(file.name).unlink(missing_ok=True)
    file.close()
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # somebody else has it open by now, and deletes it
            Path(file.name).unlink(missing_ok=True)

"""Tells when a device's memory ran out, and gives back what is no longer used."""

from __future__ import annotations

import re
from traceback import clear_frames
from types import TracebackType

import cv2
import torch

from ..errors import UserError

# Metal, the computer's own memory, OpenCV and CUDA's libraries report it by other classes than torch.OutOfMemoryError
RAN_OUT = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|insufficient memory|_ALLOC_FAILED", re.IGNORECASE
)


def ran_out(error: BaseException) -> bool:
    """Whether the error says that the memory of the device or of the computer ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, cv2.error)) and RAN_OUT.search(str(error)) is not None


class releasing_device_memory:  # lower case, as contextlib writes context managers
    """Releases the device's memory when the work inside is done, is closed or fails. Raises UserError if memory ran out.

    The function that holds the tensors must be called inside, and have ended when this does: as long as a function runs, its
    variables keep their memory.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        release_device_memory(error)
        if error is not None and ran_out(error):
            raise UserError(
                "The device ran out of memory: trim the clip, capture fewer rigs at once, or set the device to CPU.",
                fix="use_cpu",
            ) from error


def release_device_memory(error: BaseException | None = None) -> None:
    """Return the memory that torch keeps for later to the device. error: the exception that ended the work, if one did.

    An exception keeps the functions that it passed through, and with them their tensors, until it is dropped itself. Their variables
    are cleared here, so that the next attempt finds the memory free.
    """
    if error is not None:
        clear_frames(error.__traceback__)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()

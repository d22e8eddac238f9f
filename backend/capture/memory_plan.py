"""How much to compute at once, where and how exactly; and what to do when memory runs out."""

from __future__ import annotations

import re
from traceback import clear_frames
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import torch
from numpy.typing import NDArray

from ..capture_settings import Settings
from ..errors import UserError
from ..model.config import Config

CPU_BATCH = 4  # frames whose activations stay within the processor's cache
LARGEST = 64  # frames per encoder call
CORE = 64  # output frames per window, at least
SHARE = 0.6  # of the free memory that is counted on
MARGIN_SHARE = 4  # a window is at least this many times its margins, or the margins would be most of the work
# bytes per image that the widest part of an image encoder holds, float32: four activations of 112 x 112 x 96 and four of a ViT's MLP
ENCODER_BYTES = {"efficientnet-lite0": 4 * 4 * 112 * 112 * 96}
VIT_BYTES = 4 * 4 * 257 * 4


class ComputePlan(NamedTuple):
    """device; half: the type of autocast's products, None for float32 throughout; batch: frames per encoder call; core: output frames
    per window. note: what the user should know of how this came about."""

    device: torch.device
    half: torch.dtype | None
    batch: int
    core: int
    note: str = ""


def autocast(device: torch.device, half: torch.dtype | None) -> torch.autocast:
    """Products in half precision; norms and softmax stay in float32 by autocast's own rules. None: everything as it is."""
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def compute_plan_of(device: torch.device, config: Config, settings: Settings, free: int | None = None) -> ComputePlan:
    """A plan for `device`; `free` bytes of its memory, asked of the device where not given."""
    core = max(CORE, MARGIN_SHARE * max(config.margins))
    if device.type != "cuda":
        return ComputePlan(device, None, settings.batch or CPU_BATCH, core)
    free = torch.cuda.mem_get_info(device)[0] if free is None else free
    batch = int(min(max(SHARE * free // image_bytes(config), 1), LARGEST))
    # float16 keeps three bits more than bfloat16 of activations that norms hold near one
    return ComputePlan(device, None if settings.precision == "float32" else torch.float16, settings.batch or batch, core)


def to_device(images: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Images as a tensor on the device; on a CUDA card from pinned memory, without waiting for the copy.

    Nowhere else: Metal may read what is copied so after it has been given up (pytorch issue 189690).
    """
    tensor = torch.from_numpy(images)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def image_bytes(config: Config) -> int:
    """What the encoder needs for one image."""
    return ENCODER_BYTES.get(config.encoder, VIT_BYTES * config.image_width)


def halve(plan: ComputePlan) -> ComputePlan | None:
    """What to try after memory ran out: half the batch and the window, then the processor, then nothing."""
    if plan.device.type == "cpu":
        return None
    if not plan.note:
        note = f"The {plan.device.type} device ran out of memory: it went on with half as many frames at once."
        return plan._replace(batch=max(plan.batch // 2, 1), core=max(plan.core // 2, 1), note=note)
    note = f"The {plan.device.type} device ran out of memory twice: the capture went on with the CPU, which takes longer."
    return ComputePlan(torch.device("cpu"), None, CPU_BATCH, plan.core, note)


def fallback_for(plan: ComputePlan, error: BaseException) -> ComputePlan | None:
    """What to try after an error; None where nothing would be better."""
    if ran_out(error):
        return halve(plan)
    if plan.device.type == "mps" and isinstance(error, NotImplementedError):  # an operator that this torch has not for Metal
        why = str(error).split(". ")[0]
        note = f"This Mac's graphics processor cannot do all of it ({why}): the capture went on with the CPU, which takes longer."
        return ComputePlan(torch.device("cpu"), None, CPU_BATCH, plan.core, note)
    return None


# Metal, main memory, OpenCV and CUDA's own libraries run out in other classes' names
RAN_OUT = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|insufficient memory|_ALLOC_FAILED", re.IGNORECASE
)


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of the computer."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, cv2.error)) and RAN_OUT.search(str(error)) is not None


class releasing_device_memory:  # named as the context managers of contextlib are
    """Gives a graphics card's memory back when the work is done, closed or has failed, and says in a sentence if it was too little.

    The work is to be called within, so that no frame that outlives it holds a tensor.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if trace is not None:
            clear_frames(trace)  # they hold the tensors of what failed
        release_device_memory()
        if error is not None and ran_out(error):
            raise UserError(
                "The device ran out of memory: trim the clip, capture fewer rigs at once, or set the device to CPU.",
                fix="use_cpu",
            ) from error


def release_device_memory() -> None:
    """Let go of the device memory that torch keeps for later."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()

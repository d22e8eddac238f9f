"""Batch size, device and precision of a capture, and the fallbacks when memory runs out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from ..capture_settings import Settings
from ..hardware.device_memory import ran_out
from ..model.config import Config

CPU_BATCH = 4  # frames whose activations stay within the processor's cache
LARGEST = 64  # most frames per encoder call
CORE = 64  # fewest output frames of a window
SHARE = 0.6  # share of the free memory that a batch may use
MARGIN_SHARE = 4  # a window is at least this many times its margins, or most of the work would be on margins
# Peak bytes per image of an encoder in float32: four activations of 112 x 112 x 96 for the first, four of the MLP for a ViT
ENCODER_BYTES = {"efficientnet-lite0": 4 * 4 * 112 * 112 * 96}
VIT_BYTES = 4 * 4 * 257 * 4


class ComputePlan(NamedTuple):
    """How a capture computes.

    half: the type of products under autocast; None for float32 throughout. batch: frames per encoder call. core: output frames per
    window. note: a sentence for the user, if this plan is a fallback.
    """

    device: torch.device
    half: torch.dtype | None
    batch: int
    core: int
    note: str = ""


def autocast(device: torch.device, half: torch.dtype | None) -> torch.autocast:
    """Compute products in half precision, unless `half` is None. By autocast's rules, norms and softmax stay in float32."""
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def compute_plan_of(device: torch.device, config: Config, settings: Settings, free: int | None = None) -> ComputePlan:
    """Plan a capture on `device`. free: bytes of its memory that can be used, looked up if not given."""
    core = max(CORE, MARGIN_SHARE * max(config.margins))
    if device.type != "cuda":
        return ComputePlan(device, None, settings.batch or CPU_BATCH, core)
    free = torch.cuda.mem_get_info(device)[0] if free is None else free
    batch = int(min(max(SHARE * free // image_bytes(config), 1), LARGEST))
    # float16 keeps three bits more than bfloat16 of activations that norms hold near one
    return ComputePlan(device, None if settings.precision == "float32" else torch.float16, settings.batch or batch, core)


def to_device(images: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy images to the device as a tensor. On a CUDA card, the copy goes on in the background, from pinned memory.

    Not on Metal, which may read the images after their memory has been released (pytorch issue 189690).
    """
    tensor = torch.from_numpy(images)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def image_bytes(config: Config) -> int:
    """Bytes of device memory that the encoder needs for an image."""
    return ENCODER_BYTES.get(config.encoder, VIT_BYTES * config.image_width)


def halve(plan: ComputePlan) -> ComputePlan | None:
    """The plan to try when memory runs out: half the batch and window first, then the CPU; None after that."""
    if plan.device.type == "cpu":
        return None
    if not plan.note:
        note = f"The {plan.device.type} device ran out of memory: it went on with half as many frames at once."
        return plan._replace(batch=max(plan.batch // 2, 1), core=max(plan.core // 2, 1), note=note)
    note = f"The {plan.device.type} device ran out of memory twice: the capture went on with the CPU, which takes longer."
    return ComputePlan(torch.device("cpu"), None, CPU_BATCH, plan.core, note)


def fallback_for(plan: ComputePlan, error: BaseException) -> ComputePlan | None:
    """The plan to try after an error; None if no other plan would help."""
    if ran_out(error):
        return halve(plan)
    if plan.device.type == "mps" and isinstance(error, NotImplementedError):  # this torch lacks an operator on Metal
        why = str(error).split(". ")[0]
        note = f"This Mac's graphics processor cannot do all of it ({why}): the capture went on with the CPU, which takes longer."
        return ComputePlan(torch.device("cpu"), None, CPU_BATCH, plan.core, note)
    return None

"""Finds the devices that PyTorch can run on, and describes them in sentences for the user.

Only functions that need torch import it, so that this module also loads where torch is missing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import UserError, first_line, missing_library

if TYPE_CHECKING:
    from types import ModuleType

    import torch

Fit = Literal["built in", "compiled", "newer", "older", "left out"]
# Embedded chips (Jetson, Drive): code for them does not run on cards of their generation, nor the other way round
EMBEDDED = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1)}


@dataclass(frozen=True)
class Gpu:
    """A graphics card as torch reports it. arch: "sm_89", or "gfx1100" for AMD. memory: bytes."""

    name: str
    arch: str
    memory: int


@dataclass(frozen=True)
class Torch:
    """An installed torch and its devices.

    toolkit: "CUDA 13.0", "ROCm 6.4", "Metal", or "" for the processor alone. archs: those it was built for
    (torch.cuda.get_arch_list). metal: whether Metal works. warning: torch's reason for finding no graphics card.
    """

    version: str
    toolkit: str = ""
    archs: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    metal: bool = False
    warning: str = ""


class Finding(NamedTuple):
    """A sentence for the user. good: whether there is nothing to do about it."""

    text: str
    good: bool


class _Code(NamedTuple):
    """An entry of an arch list. ptx: code that the driver compiles. only: "a" for this chip, "f" for its family, "" for no limit."""

    capability: tuple[int, int]
    ptx: bool
    only: str


def _parse_arch(arch: str) -> _Code | None:
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    return None if found is None else _Code((int(found[2]), int(found[3])), found[1] == "compute", found[4])


def _runs_on(code: _Code, card: tuple[int, int]) -> bool:
    """Whether the code runs on a card of that compute capability.

    NVIDIA's rules (CUDA Programming Guide, "Compute Capability and Streaming Multiprocessor Versions"): machine code runs on cards of
    its generation with the same or a later minor number, PTX on all cards with the same or a later number. "f" limits PTX to the
    generation, "a" limits both to that chip.
    """
    if code.only == "a" or (not code.ptx and {card, code.capability} & EMBEDDED):
        return code.capability == card
    return code.capability <= card and ((code.ptx and not code.only) or code.capability[0] == card[0])


def match_gpu(arch: str, archs: Sequence[str]) -> Fit:
    """Whether a torch built for `archs` runs on a card of `arch`: "built in", "compiled" by the driver at first use, or why not."""
    card = _parse_arch(arch)
    if card is None:  # AMD: names without an order; features follow a colon ("gfx90a:xnack-")
        return "built in" if arch in [each.split(":")[0] for each in archs] else "left out"
    codes = [code for code in map(_parse_arch, archs) if code is not None]
    fitting = [code for code in codes if _runs_on(code, card.capability)]
    if fitting:
        return "compiled" if all(code.ptx for code in fitting) else "built in"
    if codes and card.capability > max(code.capability for code in codes):
        return "newer"
    return "older" if codes and card.capability < min(code.capability for code in codes) else "left out"


def describe_gpu(gpu: Gpu, torch: Torch) -> Finding:
    """Compare a card with the archs that torch was built for. It fits if that list is empty."""
    name = f"{gpu.name}, {gpu.arch}"
    how = match_gpu(gpu.arch, torch.archs) if torch.archs else "built in"
    if how == "built in":
        return Finding(
            f"This GPU ({name}, {gpu.memory / 2**30:.1f} GB) works with PyTorch {torch.version} ({torch.toolkit}).", True
        )
    if how == "compiled":
        text = f"PyTorch {torch.version} has no code for this GPU ({name}), but the driver can compile it: the first capture starts late."
        return Finding(text, True)
    codes = sorted(code for code in map(_parse_arch, torch.archs) if code is not None)
    listed = ", ".join(torch.archs)
    if how == "newer":
        why = f"is newer than what PyTorch {torch.version} was built for (up to {_sm_name(codes[-1])})"
    elif how == "older":
        why = f"is older than what PyTorch {torch.version} was built for (from {_sm_name(codes[0])} on)"
    else:
        why = f"is not among those that PyTorch {torch.version} was built for ({listed})"
    return Finding(
        f"This GPU ({name}) {why}: install an AnyRig zip with a PyTorch made for {gpu.arch}, or set Device to CPU.", False
    )


def _sm_name(code: _Code) -> str:
    return f"sm_{code.capability[0]}{code.capability[1]}"


def findings(torch: Torch, other: str = "") -> list[Finding]:
    """Describe the devices of torch, the card that captures use first.

    other: the graphics card's name from another source, for a torch that finds none.
    """
    if torch.gpus:
        return [describe_gpu(gpu, torch) for gpu in torch.gpus]
    if torch.metal:
        return [Finding(f"PyTorch {torch.version} works with this Mac's graphics processor (Metal).", True)]
    if torch.toolkit == "Metal":
        return [Finding(f"PyTorch {torch.version} cannot use Metal here: captures run on the processor; update macOS.", False)]
    if torch.toolkit:
        why = f" ({torch.warning})" if torch.warning else ""
        text = f"PyTorch {torch.version} is made for {torch.toolkit} but sees no graphics card{why}: update the card's driver, or set "
        return [Finding(f"{text}Device to CPU.", False)]
    text = f"PyTorch {torch.version} is made for the processor alone, where captures run"
    if "nvidia" in other.lower():
        return [Finding(f"{text}: to use {other}, install the AnyRig zip whose name ends in cuda.", False)]
    return [Finding(f"{text}.", True)]


def load_torch() -> ModuleType:
    """Import torch. Raises UserError if it is missing or one of its libraries does not load."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise missing_library(error, "PyTorch") from error
    return torch


def look_up_devices() -> Torch:
    """Read torch's version and devices. Raises UserError if torch does not load."""
    torch = load_torch()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gpus, refusal = _list_gpus(torch)
    hip, metal = torch.version.hip, torch.backends.mps
    kinds = (hip and f"ROCm {hip}", torch.version.cuda and f"CUDA {torch.version.cuda}", metal.is_built() and "Metal")
    toolkit = next((kind for kind in kinds if kind), "")
    # torch warns about a driver that is too old
    warning = "" if gpus else refusal or (first_line(said[-1].message) if said else "")
    return Torch(torch.__version__, toolkit, tuple(torch.cuda.get_arch_list()), gpus, metal.is_available(), warning)


def _list_gpus(torch: ModuleType) -> tuple[tuple[Gpu, ...], str]:
    """The graphics cards, and torch's error message if it cannot list them."""
    try:
        usable = torch.cuda.is_available()
        return tuple(_read_gpu(torch, index) for index in range(torch.cuda.device_count())) if usable else (), ""
    except RuntimeError as error:
        return (), first_line(error)


def _read_gpu(torch: ModuleType, index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    # ROCm appends features: gfx90a:sramecc+:xnack-
    amd = str(getattr(properties, "gcnArchName", "")).split(":")[0] if torch.version.hip else ""
    return Gpu(properties.name, amd or f"sm_{properties.major}{properties.minor}", properties.total_memory)


def device_obstacle(torch: Torch) -> str:
    """Why captures cannot use the first graphics card; '' if they can. They use no other."""
    if not torch.gpus:
        return findings(torch)[0].text
    found = describe_gpu(torch.gpus[0], torch)
    return "" if found.good else found.text


def try_device(device: str) -> str:
    """Multiply two small matrices on the device -> '' if that works, otherwise torch's error message."""
    import torch

    try:
        square = torch.eye(8, device=device)
        return "" if float((square @ square).sum()) == 8 else "wrong result"
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        return first_line(error)


def free_memory(device: str) -> int | None:
    """Free bytes of a graphics card; None if torch cannot tell."""
    import torch

    try:
        return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    except RuntimeError:
        return None


def pick_device(name: str) -> torch.device:
    """The device of that name; for "auto" the first of cuda, mps and cpu that works. Raises UserError if the named one does not work."""
    torch = load_torch()
    works = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if works["cuda"] and name in ("auto", "cuda"):
        reason = device_obstacle(look_up_devices())
        if reason and name == "cuda":
            raise UserError(reason, fix="use_cpu")
        works["cuda"] = not reason
    if name == "auto":
        return torch.device(next(device for device, usable in works.items() if usable))
    if not works.get(name, False):
        raise UserError(
            f"Device '{name}' does not work with the torch found here ({torch.__version__}): choose 'auto' or 'cpu'.",
            fix="use_cpu",
        )
    return torch.device(name)

"""What PyTorch can run on here, in words: which graphics cards it sees, and whether it was built for them.

torch is imported by `look` alone, so that the words can also be about a torch that is not there.
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
# chips inside other machines (Jetson, Drive): their code and that of the cards of the same generation do not run on each other
ALONE = {(5, 3), (6, 2), (7, 2), (8, 7), (10, 1)}


@dataclass(frozen=True)
class Gpu:
    """A graphics card as torch sees it. arch: "sm_89", or AMD's "gfx1100"; memory: bytes."""

    name: str
    arch: str
    memory: int


@dataclass(frozen=True)
class Torch:
    """A torch and what it sees. toolkit: "CUDA 13.0", "ROCm 6.4", "Metal" or "" for the processor alone; archs: what it was built
    for, as torch.cuda.get_arch_list() has it; warning: torch's own reason for seeing no card."""

    version: str
    toolkit: str = ""
    archs: tuple[str, ...] = ()
    gpus: tuple[Gpu, ...] = ()
    metal: bool = False
    warning: str = ""


class Finding(NamedTuple):
    """One sentence for the user; whether all is well."""

    text: str
    good: bool


class _Code(NamedTuple):
    """One entry of an arch list. ptx: code that the driver compiles; only: "a" this chip alone, "f" its family, "" no limit."""

    capability: tuple[int, int]
    ptx: bool
    only: str


def _code(arch: str) -> _Code | None:
    found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
    return None if found is None else _Code((int(found[2]), int(found[3])), found[1] == "compute", found[4])


def _runs(code: _Code, card: tuple[int, int]) -> bool:
    """NVIDIA's rules (CUDA Programming Guide, "Compute Capability and Streaming Multiprocessor Versions"): machine code runs on its
    generation from its own minor number on, PTX on everything from its own number on; "f" holds PTX to the generation too, "a" both
    to the very chip."""
    if code.only == "a" or (not code.ptx and {card, code.capability} & ALONE):
        return code.capability == card
    return code.capability <= card and ((code.ptx and not code.only) or code.capability[0] == card[0])


def match_gpu(arch: str, archs: Sequence[str]) -> Fit:
    """Whether a torch built for `archs` runs on a card of `arch`: "built in", "compiled" by the driver at first use, or why not.

    AMD's names have no order: they are in the list or not; what follows a colon there are features ("gfx90a:xnack-").
    """
    card = _code(arch)
    if card is None:
        return "built in" if arch in [each.split(":")[0] for each in archs] else "left out"
    codes = [code for code in map(_code, archs) if code is not None]
    fitting = [code for code in codes if _runs(code, card.capability)]
    if fitting:
        return "compiled" if all(code.ptx for code in fitting) else "built in"
    if codes and card.capability > max(code.capability for code in codes):
        return "newer"
    return "older" if codes and card.capability < min(code.capability for code in codes) else "left out"


def describe_gpu(gpu: Gpu, torch: Torch) -> Finding:
    """A card compared with what torch was built for. An empty list says nothing against it."""
    name = f"{gpu.name}, {gpu.arch}"
    how = match_gpu(gpu.arch, torch.archs) if torch.archs else "built in"
    if how == "built in":
        return Finding(
            f"This GPU ({name}, {gpu.memory / 2**30:.1f} GB) works with PyTorch {torch.version} ({torch.toolkit}).", True
        )
    if how == "compiled":
        text = f"PyTorch {torch.version} has no code for this GPU ({name}), but the driver can compile it: the first capture starts late."
        return Finding(text, True)
    codes = sorted(code for code in map(_code, torch.archs) if code is not None)
    listed = ", ".join(torch.archs)
    if how == "newer":
        why = f"is newer than what PyTorch {torch.version} was built for (up to {_named(codes[-1])})"
    elif how == "older":
        why = f"is older than what PyTorch {torch.version} was built for (from {_named(codes[0])} on)"
    else:
        why = f"is not among those that PyTorch {torch.version} was built for ({listed})"
    return Finding(
        f"This GPU ({name}) {why}: install an AnyRig zip with a PyTorch made for {gpu.arch}, or set Device to CPU.", False
    )


def _named(code: _Code) -> str:
    return f"sm_{code.capability[0]}{code.capability[1]}"


def findings(torch: Torch, other: str = "") -> list[Finding]:
    """What a user should know of the device, the first card first, as captures use that one. other: the graphics card as somebody
    else names it, for a torch that cannot see any."""
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
    """torch. Raises UserError if it is missing or one of its libraries does not load."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise missing_library(error, "PyTorch") from error
    return torch


def look_up_devices() -> Torch:
    """Ask torch. Raises UserError if it does not load."""
    torch = load_torch()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gpus, refusal = _gpus(torch)
    hip, metal = torch.version.hip, torch.backends.mps
    kinds = (hip and f"ROCm {hip}", torch.version.cuda and f"CUDA {torch.version.cuda}", metal.is_built() and "Metal")
    toolkit = next((kind for kind in kinds if kind), "")
    # a torch for another driver says so in a warning
    warning = "" if gpus else refusal or (first_line(said[-1].message) if said else "")
    return Torch(torch.__version__, toolkit, tuple(torch.cuda.get_arch_list()), gpus, metal.is_available(), warning)


def _gpus(torch: ModuleType) -> tuple[tuple[Gpu, ...], str]:
    """The cards, or none and the reason."""
    try:
        usable = torch.cuda.is_available()
        return tuple(_gpu(torch, index) for index in range(torch.cuda.device_count())) if usable else (), ""
    except RuntimeError as error:
        return (), first_line(error)


def _gpu(torch: ModuleType, index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    # ROCm appends features: gfx90a:sramecc+:xnack-
    amd = str(getattr(properties, "gcnArchName", "")).split(":")[0] if torch.version.hip else ""
    return Gpu(properties.name, amd or f"sm_{properties.major}{properties.minor}", properties.total_memory)


def device_obstacle(torch: Torch) -> str:
    """Why the first graphics card, which captures use, cannot be used; '' if it can."""
    if not torch.gpus:
        return findings(torch)[0].text
    found = describe_gpu(torch.gpus[0], torch)
    return "" if found.good else found.text


def try_device(device: str) -> str:
    """Multiply two small matrices there; '' if that works, else torch's own words."""
    import torch

    try:
        square = torch.eye(8, device=device)
        return "" if float((square @ square).sum()) == 8 else "wrong result"
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        return first_line(error)


def free_memory(device: str) -> int | None:
    """Bytes free on a graphics card; None where torch does not tell."""
    import torch

    try:
        return torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    except RuntimeError:
        return None


def pick_device(name: str) -> torch.device:
    """Name -> device. "auto" takes cuda, mps, cpu, in that order, the first that torch was built for. Raises UserError if the one
    asked for does not work here."""
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

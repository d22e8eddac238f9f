"""Building a network whose numbers come from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

N = TypeVar("N", bound=nn.Module)


def build_without_init(make: Callable[[], N]) -> N:
    """A network of shapes alone, on the meta device."""
    with torch.device("meta"), _Uninitialised():
        return make()


class _Uninitialised(TorchFunctionMode):
    """Building modules without filling them. On the meta device filling has no effect, but its first call loads the compiler of
    torch, which takes longer than everything else."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))

"""Builds networks without initial values, for weights that come from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

N = TypeVar("N", bound=nn.Module)


def build_without_init(make: Callable[[], N]) -> N:
    """Call `make` and return its network on the meta device: shapes without numbers."""
    with torch.device("meta"), _Uninitialised():
        return make()


class _Uninitialised(TorchFunctionMode):
    """Skips parameter initialisation. On the meta device it has no effect, but its first call imports torch's compiler, which takes
    seconds."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return (*args, *(kwargs or {}).values())[0]
        return func(*args, **(kwargs or {}))

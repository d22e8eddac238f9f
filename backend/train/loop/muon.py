"""The Muon optimiser with its products batched over matrices of equal shape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# of the quintic iteration's rounds: the first three of the Polar Express (Amsel et al. 2025), which come as near as five of Muon's own
COEFFICIENTS = ((8.28721, -23.59589, 17.30039), (4.10706, -2.94785, 0.54484), (3.94869, -2.90890, 0.55182))
SAFETY = 1.01  # the iteration diverges from singular values above 1
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and learning rates matched to AdamW's, as in torch.optim, with far fewer kernels.

    All parameters are matrices. Those of one shape are orthogonalised together, in `dtype`: half precision only where the hardware
    calculates with it, as a processor without such instructions takes ten times as long.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Make a step on the parameters that have a gradient."""
        if closure is not None:
            raise NotImplementedError("This optimiser calls no closures.")
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                update = orthogonalised(torch.stack(self._directions(parameters, group["momentum"])), self.dtype)
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update.to(parameters[0].dtype).unbind()), alpha=-rate)

    def _directions(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's momentum: the gradients blended with their running means."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        means = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(means, grads, 1 - momentum)
        return list(torch._foreach_lerp(grads, means, momentum))


def orthogonalised(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices (N, a, b) -> nearly U V^T of their singular value decompositions U S V^T, by a Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(dtype)
    if tall:
        x = x.mT
    x = x / (SAFETY * x.flatten(1).norm(dim=1).clamp(min=EPS))[:, None, None]
    for a, b, c in COEFFICIENTS:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

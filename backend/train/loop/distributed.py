"""Trains one model in several processes, as torchrun starts them, or in this process alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the process group if torchrun started this process, and leave it at the end."""
    if "RANK" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def average(network: nn.Module, number: float) -> float:
    """Replace all gradients by their means over the processes, in one exchange, and return the mean of `number`.

    A gradient that a process lacks counts as zero.
    """
    if count() == 1:
        return number
    parameters = list(network.parameters())
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([*(g.flatten() for g in grads), grads[0].new_tensor([number])])
    dist.all_reduce(flat)
    flat /= count()
    for parameter, grad in zip(parameters, flat[:-1].split([g.numel() for g in grads]), strict=True):
        parameter.grad = grad.view_as(parameter)
    return flat[-1].item()


def all_gather(value: object) -> list[Any]:
    """Collect a value from every process, in the order of their ranks."""
    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values

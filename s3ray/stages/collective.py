"""Collectives with gradients, for losses that every rank computes in full on the global batch.

Every rank evaluates the same global loss, so the gradient with respect to a rank's own rows is the matching
slice of it. DistributedDataParallel then *averages* over W ranks where the global gradient is a *sum* of the
ranks' parts; the backward passes below multiply by W to make up for it. Without a process group (or with one
worker) all of them are the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function


def workers() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if workers() > 1 else 0


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> Tensor:
        shards = [torch.empty_like(x_BD) for _ in range(workers())]
        dist.all_gather(shards, x_BD.contiguous())
        return torch.cat(shards)

    @staticmethod
    def backward(ctx: Any, grad_BD: Tensor) -> Tensor:
        return grad_BD.chunk(workers())[rank()] * workers()


class _SumOverWorkers(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * workers()


_gather_rows: Callable[..., Tensor] = _GatherRows.apply
_sum_over_workers: Callable[..., Tensor] = _SumOverWorkers.apply


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """What DistributedDataParallel does to gradients, for parameters that are not all trained at once."""
    if workers() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= workers()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def gather_rows(x_BD: Tensor) -> Tensor:
    """The ranks' equally many rows one after another: (B/W, D) on each → (B, D) on all."""
    if workers() == 1:
        return x_BD
    return _gather_rows(x_BD)


def sum_over_workers(x: Tensor) -> Tensor:
    """The elementwise sum of the ranks' tensors, on all of them."""
    if workers() == 1:
        return x
    return _sum_over_workers(x)

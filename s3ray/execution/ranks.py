"""Only rank 0 touches the store; what it reads it broadcasts, so that ranks cannot disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from s3ray.stages.collective import rank, workers

_T = TypeVar("_T")


def from_rank_zero(read: Callable[[], _T]) -> _T:
    """`read()` on rank 0, its result (or its exception) on every rank."""
    if workers() == 1:
        return read()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [(read(), None)]
        except Exception as error:  # raised again on every rank, below
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    result: _T = value
    return result

"""Samples that lack a modality take no part in what is computed of it (ours).

A direction m→m̄ compares those samples of a batch that it can compare, and is left out where there are none. Where no
sample lacks anything, losses are told so by None, and compute what they always did.

Shape suffixes: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Per modality which samples (B,) have it; None: all have all. On the CPU, so that asking waits for no device.
Present = Sequence[Tensor] | None


def mean_of(terms: Sequence[Tensor], counted: Sequence[Tensor | bool], z: Sequence[Tensor]) -> Tensor:
    """The mean of those terms that are counted, 0 of none.

    Args:
        counted: per term whether it compares any sample.
        z: of all modalities. Each gets a gradient, if only 0: DistributedDataParallel counts on it.
    """
    total = torch.stack([(0.0 * z_BD).sum() for z_BD in z]).sum()
    if not terms:
        return total
    counted_K = torch.stack([torch.as_tensor(one, device=total.device) for one in counted]).to(total.dtype)
    return total + (torch.stack(list(terms)) * counted_K).sum() / counted_K.sum().clamp_min(1.0)

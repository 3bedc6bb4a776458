"""Samples that lack a modality take no part in what is computed of it (ours).

A direction m→m̄ compares those samples of a batch that it can compare, and adds 0 where there are none. The mean is
over all M, M (M - 1) or M² directions, whatever a batch has of them: so the weight and the gradient of one do not
depend on who lacks what in the others. Where no sample lacks anything, losses are told so by None, and compute what
they always did.

Shape suffixes: B samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Per modality which samples (B,) have it; None: all have all. On the CPU, so that asking waits for no device.
Present = Sequence[Tensor] | None


def mean_over(directions: int, terms: Sequence[Tensor], z: Sequence[Tensor]) -> Tensor:
    """The mean over all directions, those that are left out among them: they count as 0.

    Args:
        terms: of the directions that compare any sample.
        z: of all modalities. Each gets a gradient, if only 0: DistributedDataParallel counts on it.
    """
    nothing = torch.stack([(0.0 * z_BD).sum() for z_BD in z]).sum()
    return sum(terms, start=nothing) / directions

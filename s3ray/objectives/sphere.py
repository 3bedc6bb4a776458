"""Directions of representations, with gradients that stay finite where there is no direction.

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHORTEST = 1e-12  # what F.normalize divides by at least


def normalize(x_BD: Tensor) -> Tensor:
    """Each row divided by its length; a row without length stays 0 and gets gradient 0.

    Where a row is 0, x / |x| has no limit: it depends on where x comes from, and so does its slope 1 / |x|, which
    grows without bound. 0 is the mean over all directions, of the value as of the slope. F.normalize gives the value
    0 too, but a slope of 1e12, beside which clipping leaves nothing of any other gradient.
    """
    # Masked on its way out, so that all other rows' gradients are summed in the order in which they always were.
    return F.normalize(x_BD, dim=1).masked_fill(is_short(x_BD)[:, None], 0.0)


def is_short(x_BD: Tensor) -> Tensor:
    """Whether each row (B,) has no length, and so no direction."""
    short_B: Tensor = torch.linalg.vector_norm(x_BD.detach(), dim=1) < SHORTEST
    return short_B

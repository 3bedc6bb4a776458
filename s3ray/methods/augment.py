"""FactorCL's augmentation of sequences (Liang et al. 2023), for ragged batches.

Shape suffixes: B samples, T valid tokens of the batch, F input features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from s3ray.model import Draws, Layout, Ragged

PERMUTE, NOISE, DROP, NONE = range(4)
NOISE_DEVIATION = 0.1
KEPT_OF_DROPPED = 5  # one step in five is zeroed; rounded down, as the authors do


def augment(x: Ragged, draws: Draws) -> Ragged:
    """Each sample's steps permuted, with noise of deviation 0.1, with a fifth of them zeroed, or as they are.

    Which of the four is drawn per sample, uniformly. All draws are per token of the global batch, so that W
    workers draw what one worker draws.
    """
    first_T = Layout(x.lengths_B).position_T == 0
    # float64: a tie between two of a sample's steps would favour their old order.
    u_T2 = draws.uniform(2)
    noise_TF = draws.normal(x.values_TF.shape[1], x.values_TF.dtype)
    kind_B = (4 * u_T2[first_T, 0]).long()
    return transformed(x, kind_B, u_T2[:, 1], noise_TF)


def transformed(x: Ragged, kind_B: Tensor, order_T: Tensor, noise_TF: Tensor) -> Ragged:
    """Sample i transformed as `kind_B[i]` says; its steps are shuffled, or zeroed, in the order of `order_T`.

    Args:
        order_T: distinct numbers in [0, 1).
        noise_TF: standard normal numbers.
    """
    layout = Layout(x.lengths_B)
    kind_T = kind_B[layout.sample_T][:, None]
    shuffled_T = (layout.sample_T + order_T).argsort()  # within samples, which keep their places
    place_T = torch.empty_like(shuffled_T)
    place_T[shuffled_T] = layout.position_T
    dropped_T = place_T < x.lengths_B[layout.sample_T] // KEPT_OF_DROPPED

    values_TF = torch.where(kind_T == PERMUTE, x.values_TF[shuffled_T], x.values_TF)
    values_TF = torch.where(kind_T == NOISE, values_TF + NOISE_DEVIATION * noise_TF, values_TF)
    values_TF = values_TF.masked_fill((kind_T == DROP) & dropped_T[:, None], 0.0)
    return Ragged(values_TF, x.lengths_B)

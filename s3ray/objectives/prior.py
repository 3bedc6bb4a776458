"""Losses of the prior methods in Table 2 that S3 itself does not use.

Shape suffixes: B samples, D and E widths. `scores_BB[i, j]` is a critic's f(x_i, y_j); pairs of the joint
distribution stand on the diagonal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.objectives.sphere import is_short, normalize


def nce_bound(scores_BB: Tensor) -> Tensor:
    """FactorCL's lower bound on I(X; Y) (Liang et al. 2023): mean f(pos) - (mean logsumexp f(all) - log B)."""
    # For every x over all y, as the paper defines it; the authors' code takes for every y all x.
    return scores_BB.diagonal().mean() - (scores_BB.logsumexp(dim=1).mean() - math.log(len(scores_BB)))


def club_bound(scores_BB: Tensor) -> Tensor:
    """FactorCL's upper bound on I(X; Y), for a critic that maximises `nce_bound`: mean f(pos) - mean f(all)."""
    return scores_BB.diagonal().mean() - scores_BB.mean()


def mean_cosine(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Mean over samples of cos(a_i, b_i): minus DisentangledSSL's alignment."""
    return _cosines(a_BD, b_BD).mean()


def mean_positive_cosine(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Mean over samples of max(0, cos(a_i, b_i)): FOCAL's orthogonality (Liu et al. 2023).

    0 for rows at a right angle or wider apart, which get no gradient: the mean cosine instead would reward opposite
    rows, which are as dependent as equal ones.
    """
    return F.relu(_cosines(a_BD, b_BD)).mean()


def _cosines(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """(B,); a row without length is like nothing."""
    cosine_B = F.cosine_similarity(a_BD, b_BD, dim=1)
    return cosine_B.masked_fill(is_short(a_BD) | is_short(b_BD), 0.0)


def cross_correlation(a_BD: Tensor, b_BE: Tensor) -> Tensor:
    """‖AᵀB‖_F of rows on the sphere: the orthogonality of DisentangledSSL and JointOpt (Wang et al. 2025).

    A sum over the batch, as in the authors' code: of independent rows it is √B at any width (8, 16 and 23 at batch
    size 64, 256 and 512), and what two representations share grows with B.
    """
    norm: Tensor = torch.linalg.matrix_norm(normalize(a_BD).T @ normalize(b_BE))
    return norm

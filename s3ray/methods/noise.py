"""Samples from von Mises-Fisher distributions, with gradients with respect to their mean directions.

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.model import Source
from s3ray.objectives.sphere import normalize


def sample_vmf(mean_BD: Tensor, concentration: float, source: Source) -> Tensor:
    """One draw z_i ~ vMF(mean_i / |mean_i|, κ) per row.

    Draws around the pole (1, 0, …, 0) do not depend on the means. The Householder reflection that exchanges
    pole and mean carries them there, and gradients to the mean.
    """
    mean_BD = normalize(mean_BD)
    x_BD = _around_pole(len(mean_BD), mean_BD.shape[1], concentration, source).to(mean_BD.dtype)
    normal_BD = -mean_BD
    normal_BD[:, 0] += 1.0
    # A mean on the pole has no such reflection and needs none: the clamp keeps 0 / 0 from it.
    squared_B1 = normal_BD.square().sum(1, keepdim=True).clamp(min=torch.finfo(mean_BD.dtype).tiny)
    return x_BD - 2.0 * (x_BD * normal_BD).sum(1, keepdim=True) / squared_B1 * normal_BD


def _around_pole(samples: int, width: int, concentration: float, source: Source) -> Tensor:
    """Draws (B, D) of vMF((1, 0, …, 0), κ) in float64: Wood's rejection sampler (1994), all rows at once.

    His proposal needs Beta((D-1)/2, (D-1)/2), which is the law of (1 + u_1) / 2 for u uniform on the sphere. The
    rest of u is then the uniform tangent, which is independent of u_1.
    """
    m = width - 1
    b = m / (2.0 * concentration + math.sqrt(4.0 * concentration**2 + m**2))
    x0 = (1.0 - b) / (1.0 + b)
    c = concentration * x0 + m * math.log(1.0 - x0**2)
    out_BD = torch.empty(samples, width, dtype=torch.float64, device=source.device)
    open_B = torch.ones(samples, dtype=torch.bool, device=source.device)
    while bool(open_B.any()):
        # Every round draws for all rows, so that what a row gets does not hang on how many are still open.
        g_BD = source.normal(samples, width, torch.float64)
        v_B = source.uniform(samples, 1)[:, 0]
        u_B = F.normalize(g_BD, dim=1)[:, 0]
        w_B = (1.0 - b + (1.0 + b) * u_B) / (1.0 + b + (1.0 - b) * u_B)
        accepted_B = concentration * w_B + m * torch.log(1.0 - x0 * w_B) - c >= torch.log(v_B)
        tangent = F.normalize(g_BD[:, 1:], dim=1) * (1.0 - w_B.square()).clamp(min=0.0).sqrt()[:, None]
        drawn_BD = torch.cat([w_B[:, None], tangent], dim=1)
        out_BD = torch.where((open_B & accepted_B)[:, None], drawn_BD, out_BD)
        open_B &= ~accepted_B
    return out_BD

"""Task sufficiency and information minimality (Eqs. 29–32).

Shape suffixes: B samples, C classes, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.objectives.contrastive import cosine_logits
from s3ray.objectives.sphere import normalize


def sup_con(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor, temperature: float) -> Tensor:
    """Eq. 29: -E_i E_s log softmax_j(⟨a_i, b_j⟩ / τ) at j = s.

    s runs over all samples of the batch with the anchor's label, *including the anchor's own index*; the
    expectation stands outside the logarithm.
    """
    logits_BB = cosine_logits(a_BD, b_BD, temperature)
    positive_BB = (labels_B[:, None] == labels_B).to(logits_BB.dtype)
    mean_positive_B = (logits_BB * positive_BB).sum(1) / positive_BB.sum(1)
    return (torch.logsumexp(logits_BB, dim=1) - mean_positive_B).mean()


def compactness(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor) -> Tensor:
    """Eq. 31: -E ⟨z_i, μ̂_{y_i}⟩, μ̂_y the normalised mean of the batch's class-y representations in b."""
    classes, class_B = labels_B.unique(return_inverse=True)
    member_CB = F.one_hot(class_B, len(classes)).T.to(b_BD.dtype)
    # Normalising makes the division of the class sum by its count superfluous.
    center_CD = normalize(member_CB @ normalize(b_BD))
    return -(normalize(a_BD) * center_CD[class_B]).sum(1).mean()


def sufficiency_loss(z: Sequence[Tensor], labels_B: Tensor, temperature: float) -> Tensor:
    """Eq. 30: L_suff, the mean of SupCon over the ordered pairs of modalities, each with itself too; z (B, D) each."""
    return torch.stack([sup_con(a, b, labels_B, temperature) for a, b in itertools.product(z, repeat=2)]).mean()


def minimality_loss(z: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """Eq. 32: L_min, the mean of compactness over the ordered pairs of modalities, each with itself too."""
    return torch.stack([compactness(a, b, labels_B) for a, b in itertools.product(z, repeat=2)]).mean()

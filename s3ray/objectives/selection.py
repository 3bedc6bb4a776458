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


def sup_con(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor, temperature: float, *, own_positive: bool = True) -> Tensor:
    """Eq. 29: -E_i E_s log softmax_j(⟨a_i, b_j⟩ / τ) at j = s.

    s runs over all samples of the batch with the anchor's label, *including the anchor's own index*; the
    expectation stands outside the logarithm.

    Args:
        own_positive: s may be i. If not, an anchor that is alone with its label in the batch has no part in E_i, and
            where all are alone the loss is 0.
    """
    logits_BB = cosine_logits(a_BD, b_BD, temperature)
    positive_BB = (labels_B[:, None] == labels_B).to(logits_BB.dtype)
    if own_positive:
        mean_positive_B = (logits_BB * positive_BB).sum(1) / positive_BB.sum(1)
        return (torch.logsumexp(logits_BB, dim=1) - mean_positive_B).mean()
    others_BB = positive_BB - torch.eye(len(labels_B), dtype=positive_BB.dtype, device=positive_BB.device)
    count_B = others_BB.sum(1)
    lacking_B = torch.logsumexp(logits_BB, dim=1) - (logits_BB * others_BB).sum(1) / count_B.clamp_min(1)
    anchor_B = (count_B > 0).to(lacking_B.dtype)
    return (lacking_B * anchor_B).sum() / anchor_B.sum().clamp_min(1)


def compactness(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor) -> Tensor:
    """Eq. 31: -E ⟨z_i, μ̂_{y_i}⟩, μ̂_y the normalised mean of the batch's class-y representations in b."""
    classes, class_B = labels_B.unique(return_inverse=True)
    member_CB = F.one_hot(class_B, len(classes)).T.to(b_BD.dtype)
    # Normalising makes the division of the class sum by its count superfluous.
    center_CD = normalize(member_CB @ normalize(b_BD))
    return -(normalize(a_BD) * center_CD[class_B]).sum(1).mean()


def sufficiency_loss(z: Sequence[Tensor], labels_B: Tensor, temperature: float, *, own_positive: bool = True) -> Tensor:
    """Eq. 30: L_suff, of M modalities the mean of SupCon over the M² directions m→m̄, m = m̄ too; z (B, D) each."""
    pairs = itertools.product(z, repeat=2)
    return torch.stack([sup_con(a, b, labels_B, temperature, own_positive=own_positive) for a, b in pairs]).mean()


def minimality_loss(z: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """Eq. 32: L_min, of M modalities the mean of compactness over the M² directions m→m̄, m = m̄ too."""
    return torch.stack([compactness(a, b, labels_B) for a, b in itertools.product(z, repeat=2)]).mean()

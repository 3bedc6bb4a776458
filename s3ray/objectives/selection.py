"""Task sufficiency and information minimality (Eqs. 29–32).

Shape suffixes: B samples, C classes, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.objectives.contrastive import cosine_logits
from s3ray.objectives.sphere import normalize

Positives = Literal["all", "others"]


def sup_con(
    a_BD: Tensor, b_BD: Tensor, labels_B: Tensor, temperature: float, *, without_itself: bool = False
) -> Tensor:
    """Eq. 29: -E_i E_s log softmax_j(⟨a_i, b_j⟩ / τ) at j = s.

    s runs over all samples of the batch with the anchor's label, *including the anchor's own index*; the
    expectation stands outside the logarithm.

    Args:
        without_itself: neither s nor j is i (Khosla et al. 2020), where a and b are the same representations. An
            anchor that is alone with its label in the batch has no part in E_i then; if all are, the loss is 0.
    """
    logits_BB = cosine_logits(a_BD, b_BD, temperature)
    positive_BB = (labels_B[:, None] == labels_B).to(logits_BB.dtype)
    if not without_itself:
        mean_positive_B = (logits_BB * positive_BB).sum(1) / positive_BB.sum(1)
        return (torch.logsumexp(logits_BB, dim=1) - mean_positive_B).mean()
    itself_BB = torch.eye(len(labels_B), dtype=torch.bool, device=labels_B.device)
    others_BB = positive_BB.masked_fill(itself_BB, 0.0)
    count_B = others_BB.sum(1)
    # Filled with a finite number: a batch of one would have no j at all, and -∞ - -∞ a gradient of NaN.
    every_B = torch.logsumexp(logits_BB.masked_fill(itself_BB, torch.finfo(logits_BB.dtype).min), dim=1)
    lacking_B = every_B - (logits_BB * others_BB).sum(1) / count_B.clamp_min(1)
    anchor_B = count_B > 0
    return torch.where(anchor_B, lacking_B, 0.0).sum() / anchor_B.sum().clamp_min(1)


def compactness(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor) -> Tensor:
    """Eq. 31: -E ⟨z_i, μ̂_{y_i}⟩, μ̂_y the normalised mean of the batch's class-y representations in b."""
    classes, class_B = labels_B.unique(return_inverse=True)
    member_CB = F.one_hot(class_B, len(classes)).T.to(b_BD.dtype)
    # Normalising makes the division of the class sum by its count superfluous.
    center_CD = normalize(member_CB @ normalize(b_BD))
    return -(normalize(a_BD) * center_CD[class_B]).sum(1).mean()


def sufficiency_loss(
    z: Sequence[Tensor], labels_B: Tensor, temperature: float, *, positives: Positives = "all"
) -> Tensor:
    """Eq. 30: L_suff, of M modalities the mean of SupCon over the M² directions m→m̄, m = m̄ too; z (B, D) each.

    Args:
        positives: `all`, as Eq. 29 has them; `others`: within a modality a sample is none of its own, while the same
            sample in another modality stays one.
    """
    pairs = itertools.product(enumerate(z), repeat=2)
    terms = [
        sup_con(a_BD, b_BD, labels_B, temperature, without_itself=positives == "others" and m == other)
        for (m, a_BD), (other, b_BD) in pairs
    ]
    return torch.stack(terms).mean()


def minimality_loss(z: Sequence[Tensor], labels_B: Tensor) -> Tensor:
    """Eq. 32: L_min, of M modalities the mean of compactness over the M² directions m→m̄, m = m̄ too."""
    return torch.stack([compactness(a, b, labels_B) for a, b in itertools.product(z, repeat=2)]).mean()

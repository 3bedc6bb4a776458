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
from s3ray.objectives.present import Present, mean_over
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
    return _of_anchors(logits_BB, positive_BB, itself_BB)


def _of_anchors(logits_AC: Tensor, positive_AC: Tensor, itself_AC: Tensor | None) -> Tensor:
    """SupCon over the anchors A that have a positive among C; 0 of none."""
    every_AC = logits_AC
    if itself_AC is not None:
        positive_AC = positive_AC.masked_fill(itself_AC, 0.0)
        # Filled with a finite number: a batch of one would have no j at all, and -∞ - -∞ a gradient of NaN.
        every_AC = logits_AC.masked_fill(itself_AC, torch.finfo(logits_AC.dtype).min)
    count_A = positive_AC.sum(1)
    lacking_A = torch.logsumexp(every_AC, dim=1) - (logits_AC * positive_AC).sum(1) / count_A.clamp_min(1)
    anchor_A = count_A > 0
    return torch.where(anchor_A, lacking_A, 0.0).sum() / anchor_A.sum().clamp_min(1)


def compactness(a_BD: Tensor, b_BD: Tensor, labels_B: Tensor) -> Tensor:
    """Eq. 31: -E ⟨z_i, μ̂_{y_i}⟩, μ̂_y the normalised mean of the batch's class-y representations in b."""
    classes, class_B = labels_B.unique(return_inverse=True)
    member_CB = F.one_hot(class_B, len(classes)).T.to(b_BD.dtype)
    # Normalising makes the division of the class sum by its count superfluous.
    center_CD = normalize(member_CB @ normalize(b_BD))
    return -(normalize(a_BD) * center_CD[class_B]).sum(1).mean()


def sufficiency_loss(
    z: Sequence[Tensor],
    labels_B: Tensor,
    temperature: float,
    *,
    positives: Positives = "all",
    present: Present = None,
) -> Tensor:
    """Eq. 30: L_suff, of M modalities the mean of SupCon over the M² directions m→m̄, m = m̄ too; z (B, D) each.

    Args:
        positives: `all`, as Eq. 29 has them; `others`: within a modality a sample is none of its own, while the same
            sample in another modality stays one.
        present: where samples lack modalities: anchors are those that have m, all others those that have m̄. An anchor
            without positive there has no part; a direction without anchor adds 0 to the mean over all M².
    """
    directions = list(itertools.product(enumerate(z), repeat=2))
    alone = [positives == "others" and m == other for (m, _), (other, _) in directions]
    if present is None:
        pairs = zip(directions, alone, strict=True)
        return torch.stack(
            [sup_con(a, b, labels_B, temperature, without_itself=without) for ((_, a), (_, b)), without in pairs]
        ).mean()
    terms = list[Tensor]()
    for ((m, a_BD), (other, b_BD)), without in zip(directions, alone, strict=True):
        has_a_B, has_b_B = present[m], present[other]
        if not (has_a_B.any() and has_b_B.any()):
            continue
        logits_AC = cosine_logits(a_BD[has_a_B], b_BD[has_b_B], temperature)
        positive_AC = _same_class(labels_B, has_a_B, has_b_B).to(logits_AC.dtype)
        itself_AC = torch.eye(len(logits_AC), dtype=torch.bool, device=logits_AC.device) if without else None
        terms.append(_of_anchors(logits_AC, positive_AC, itself_AC))
    return mean_over(len(directions), terms, z)


def minimality_loss(z: Sequence[Tensor], labels_B: Tensor, present: Present = None) -> Tensor:
    """Eq. 32: L_min, of M modalities the mean of compactness over the M² directions m→m̄, m = m̄ too.

    Args:
        present: where samples lack modalities: those that have m are held against the class means of those that have
            m̄. One whose class has no mean there has no part; a direction without any adds 0 to the mean over all M².
    """
    if present is None:
        return torch.stack([compactness(a, b, labels_B) for a, b in itertools.product(z, repeat=2)]).mean()
    terms = list[Tensor]()
    for (a_BD, has_a_B), (b_BD, has_b_B) in itertools.product(zip(z, present, strict=True), repeat=2):
        if not (has_a_B.any() and has_b_B.any()):
            continue
        member_AC = _same_class(labels_B, has_a_B, has_b_B)
        center_AD = normalize(member_AC.to(b_BD.dtype) @ normalize(b_BD[has_b_B]))
        count = member_AC.any(1).sum()
        # Without a mean there is 0 in its place.
        terms.append(-(normalize(a_BD[has_a_B]) * center_AD).sum() / count.clamp_min(1))
    return mean_over(len(z) ** 2, terms, z)


def _same_class(labels_B: Tensor, has_a_B: Tensor, has_b_B: Tensor) -> Tensor:
    """Whether those that have one modality are of the class of those that have another, (A, C)."""
    same_AC: Tensor = labels_B[has_a_B][:, None] == labels_B[has_b_B]
    return same_AC

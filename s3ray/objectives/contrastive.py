"""InfoNCE and what Specialization makes of it (Eqs. 24–26).

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from s3ray.objectives.present import Present, mean_over
from s3ray.objectives.sphere import normalize


def cosine_logits(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """⟨a_i, b_j⟩ / τ with cosine similarities: (B, B)."""
    return normalize(a_BD) @ normalize(b_BD).T / temperature


def info_nce(a_BD: Tensor, b_BD: Tensor, temperature: float) -> Tensor:
    """Eq. 24: -E_i log softmax_j(⟨a_i, b_j⟩ / τ) at j = i; the negatives are the whole batch."""
    logits_BB = cosine_logits(a_BD, b_BD, temperature)
    return (torch.logsumexp(logits_BB, dim=1) - logits_BB.diagonal()).mean()


def representation_loss(
    z: Sequence[Tensor], z_views: Sequence[Tensor], temperature: float, present: Present = None
) -> Tensor:
    """Eq. 25: L_rep = ½ (L[1→1] + L[2→2]), of M modalities the mean over the M directions m→m.

    As printed both views are the same z: the positive term is then constant and the loss spreads the
    representations apart. With a second stochastic pass as view it is the usual instance discrimination.

    Args:
        z, z_views: (B, D) per modality.
        present: where samples lack modalities: a direction runs over those that have its own, and adds 0 to the mean
            over all M where there are none. One sample alone has nothing to be told from: its InfoNCE is 0 as well.
    """
    pairs = list(zip(z, z_views, strict=True))
    if present is None:
        return torch.stack([info_nce(z_BD, view_BD, temperature) for z_BD, view_BD in pairs]).mean()
    return _mean_of_present(pairs, list(zip(present, present, strict=True)), temperature)


def coherence_loss(z: Sequence[Tensor], temperature: float, present: Present = None) -> Tensor:
    """Eq. 26: L_dsc = ½ (L[1→2] + L[2→1]), of M modalities the mean over the M (M - 1) directions m→m̄, m ≠ m̄.

    Args:
        z: (B, D) per modality, of which there are two or more: one alone has no other to be coherent with.
        present: where samples lack modalities: a direction runs over those that have both of its own, and adds 0 to the
            mean over all M (M - 1) where there are none.
    """
    pairs = list(itertools.permutations(z, 2))
    if present is None:
        return torch.stack([info_nce(a_BD, b_BD, temperature) for a_BD, b_BD in pairs]).mean()
    return _mean_of_present(pairs, list(itertools.permutations(present, 2)), temperature)


def _mean_of_present(
    pairs: Sequence[tuple[Tensor, Tensor]], present: Sequence[tuple[Tensor, Tensor]], temperature: float
) -> Tensor:
    terms = []
    for (a_BD, b_BD), (has_a_B, has_b_B) in zip(pairs, present, strict=True):
        has_B = has_a_B & has_b_B
        if has_B.any():
            terms.append(info_nce(a_BD[has_B], b_BD[has_B], temperature))
    return mean_over(len(pairs), terms, [z_BD for pair in pairs for z_BD in pair])

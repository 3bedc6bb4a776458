"""FOCAL (Liu et al. 2023) without its temporal term, for which single samples have no neighbours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from s3ray.baselines.base import Baseline, gather, two_views
from s3ray.config import Branch
from s3ray.model import Ragged
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.prior import mean_cosine
from s3ray.stages.training import Batch, Forward, weighted_sum


class Focal(Baseline):
    """The halves of an encoder's z are its shared and its private part, as in the authors' code."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums over views, modalities and pairs, as in the authors' code."""
        views = [[_halves(z_BD) for z_BD in view] for view in gather(forward(two_views(batch), batch.draws))]
        temperature = self.config.temperature
        shared, private, orthogonal = [], [], []
        for (shared1, private1), (shared2, private2) in views:
            shared.append(coherence_loss(shared1, shared2, temperature))
            orthogonal += [
                mean_cosine(shared1, private1),
                mean_cosine(shared2, private2),
                mean_cosine(private1, private2),
            ]
        for (_, private_m), (_, private_view_m) in zip(*views, strict=True):
            private.append(coherence_loss(private_m, private_view_m, temperature))
        terms = {
            "shared": torch.stack(shared).sum(),
            "private": torch.stack(private).sum(),
            "orthogonality": torch.stack(orthogonal).sum(),
        }
        total = weighted_sum(
            (1.0, terms["shared"]),
            (self.config.private_weight, terms["private"]),
            (self.config.orthogonality, terms["orthogonality"]),
        )
        return total, terms

    def parts(self, batch: Mapping[str, Ragged], branch: Branch) -> list[Tensor]:
        return [half for z_BD in super().parts(batch, branch) for half in _halves(z_BD)]


def _halves(z_BD: Tensor) -> tuple[Tensor, Tensor]:
    shared, private = z_BD.chunk(2, dim=1)
    return shared, private

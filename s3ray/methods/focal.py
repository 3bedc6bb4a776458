"""FOCAL (Liu et al. 2023) without its temporal term, for which single samples have no neighbours.

As in the authors' code, orthogonality is max(0, cos) and weighs 3. Otherwise than there, InfoNCE takes as negatives
the other N - 1 samples of the other side, as everywhere in this package (there 2N - 2, of both sides), and one of the
two views is the data as they are (there both are augmented). (ours)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from s3ray.configuration import check_not_negative, check_positive
from s3ray.methods.method import Method
from s3ray.methods.prior import PriorModel, gather, two_views
from s3ray.model import Ragged
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.prior import mean_positive_cosine
from s3ray.stages.training import Batch, Forward, weighted_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class FocalSettings:
    """What FOCAL's loss reads.

    Attributes:
        temperature: τ.
        private_weight: weight a of the private parts' loss.
        orthogonality: weight λ, the authors'.
    """

    temperature: float = 0.07
    private_weight: float = 1.0
    orthogonality: float = 3.0

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.07)
        check_not_negative(self, "private_weight", "orthogonality")


class Focal(PriorModel):
    """The halves of an encoder's z are its shared and its private part, as in the authors' code."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sums over views, modalities and pairs of them, as in the authors' code and for any number of modalities."""
        views = [[_halves(z_BD) for z_BD in view] for view in gather(forward(two_views(batch), batch.draws))]
        temperature = self.settings.temperature
        shared, private, orthogonal = [], [], []
        for view in views:
            pairs = list(itertools.combinations(range(len(view)), 2))
            shared += [coherence_loss([view[a][0], view[b][0]], temperature) for a, b in pairs]
            orthogonal += [mean_positive_cosine(shared_m, private_m) for shared_m, private_m in view]
            orthogonal += [mean_positive_cosine(view[a][1], view[b][1]) for a, b in pairs]
        for (_, private_m), (_, private_view_m) in zip(*views, strict=True):
            private.append(coherence_loss([private_m, private_view_m], temperature))
        terms = {
            "shared": torch.stack(shared).sum(),
            "private": torch.stack(private).sum(),
            "orthogonality": torch.stack(orthogonal).sum(),
        }
        total = weighted_sum(
            (1.0, terms["shared"]),
            (self.settings.private_weight, terms["private"]),
            (self.settings.orthogonality, terms["orthogonality"]),
        )
        return total, terms

    def parts(self, batch: Mapping[str, Ragged], output: str) -> list[Tensor]:
        return [half for z_BD in super().parts(batch, output) for half in _halves(z_BD)]


def _halves(z_BD: Tensor) -> tuple[Tensor, Tensor]:
    shared, private = z_BD.chunk(2, dim=1)
    return shared, private


METHOD = Method(
    name="focal",
    version=2,  # orthogonality clamped at a right angle
    outputs={"none": "FOCAL"},
    model=Focal,
    settings=FocalSettings,
    scales={"smoke": {"temperature": 0.2, "orthogonality": 0.1}},
    search={"temperature": 5, "private_weight": 10, "orthogonality": 30},
    modalities=(2, math.inf),
    passes=2.0,
)

"""Selection by minimality alone (Eq. 32)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from s3ray.objectives.present import Present
from s3ray.objectives.selection import minimality_loss
from s3ray.stages.training import weighted_sum
from s3ray.stages.variants.variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Min:
    lambda_min: float


def _loss(config: Min, z: Sequence[Tensor], labels_B: Tensor, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
    minimality = minimality_loss(z, labels_B, present)
    return weighted_sum((config.lambda_min, minimality), outputs=z), {"min": minimality}


VARIANT = Variant("min", 1, "after Selection (min)", "#d9822b", 3, Min, _loss)

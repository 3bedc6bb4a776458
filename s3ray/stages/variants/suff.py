"""Selection by sufficiency alone (Eq. 30)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from s3ray.configuration import added
from s3ray.objectives.present import Present
from s3ray.objectives.selection import Positives, sufficiency_loss
from s3ray.stages.training import weighted_sum
from s3ray.stages.variants.variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Suff:
    temperature: float
    lambda_suff: float
    positives: Positives = added("all", neutral="all")


def _loss(config: Suff, z: Sequence[Tensor], labels_B: Tensor, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
    suff = sufficiency_loss(z, labels_B, config.temperature, positives=config.positives, present=present)
    return weighted_sum((config.lambda_suff, suff), outputs=z), {"suff": suff}


VARIANT = Variant("suff", 1, "after Selection (suff)", "#7b4fa3", 2, Suff, _loss)

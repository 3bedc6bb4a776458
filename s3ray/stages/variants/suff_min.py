"""Selection as the paper has it: sufficiency and minimality (Eq. 33)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from s3ray.configuration import added
from s3ray.objectives.present import Present
from s3ray.objectives.selection import Positives, minimality_loss, sufficiency_loss
from s3ray.stages.training import weighted_sum
from s3ray.stages.variants.variant import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class SuffMin:
    temperature: float
    lambda_suff: float
    lambda_min: float
    positives: Positives = added("all", neutral="all")


def _loss(config: SuffMin, z: Sequence[Tensor], labels_B: Tensor, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
    terms = {
        "suff": sufficiency_loss(z, labels_B, config.temperature, positives=config.positives, present=present),
        "min": minimality_loss(z, labels_B, present),
    }
    return weighted_sum((config.lambda_suff, terms["suff"]), (config.lambda_min, terms["min"]), outputs=z), terms


VARIANT = Variant("suff+min", 1, "after Selection", "#1f5fa8", 1, SuffMin, _loss)

"""CLIP (Radford et al. 2021): symmetric InfoNCE between the modalities, the mean over their pairs (ours)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from s3ray.configuration import check_positive
from s3ray.methods.method import Method
from s3ray.methods.prior import PriorModel, gather
from s3ray.objectives.contrastive import coherence_loss
from s3ray.stages.training import Batch, Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """What CLIP's loss reads.

    Attributes:
        temperature: τ, fixed (ours).
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.07)


class Clip(PriorModel):
    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        (z,) = gather(forward([batch.shard], batch.draws))
        return coherence_loss(z, self.settings.temperature, batch.present), {}


METHOD = Method(
    name="clip",
    version=1,
    outputs={"none": "CLIP"},
    model=Clip,
    settings=ClipSettings,
    scales={"smoke": {"temperature": 0.2}},
    search={"temperature": 5},
    modalities=(2, math.inf),
    takes_missing=True,
)

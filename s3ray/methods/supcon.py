"""Supervised contrastive learning (Khosla et al. 2020) as in Eqs. 29 and 30, but training everything."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from s3ray.configuration import check_positive
from s3ray.methods.method import Method
from s3ray.methods.prior import PriorModel, gather
from s3ray.objectives.selection import sufficiency_loss
from s3ray.stages.training import Batch, Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class SupConSettings:
    """What SupCon's loss reads.

    Attributes:
        temperature: τ.
    """

    temperature: float = 0.07

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.07)


class SupCon(PriorModel):
    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        (z,) = gather(forward([batch.shard], batch.draws))
        return sufficiency_loss(z, batch.labels_B, self.settings.temperature, present=batch.present), {}


METHOD = Method(
    name="supcon",
    version=1,
    outputs={"none": "SupCon, end to end"},
    model=SupCon,
    settings=SupConSettings,
    scales={"smoke": {"temperature": 0.2}},
    search={"temperature": 5},
    uses_labels=True,
    takes_missing=True,
)

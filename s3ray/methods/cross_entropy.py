"""A linear classifier on all modalities' z, trained with the encoders; z alone is probed (ours).

What a sample lacks is 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.methods.method import Method
from s3ray.methods.prior import PriorModel, gather
from s3ray.model import ModelConfig
from s3ray.stages.training import Batch, Forward


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEntropySettings:
    """There is nothing to set."""


class CrossEntropy(PriorModel):
    def __init__(self, model: ModelConfig, settings: Any, features: Mapping[str, int], classes: int) -> None:
        super().__init__(model, settings, features, classes)
        self.classifier = nn.Linear(len(features) * model.width, classes)

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        (z,) = gather(forward([batch.shard], batch.draws))
        return F.cross_entropy(self.classifier(torch.cat(z, dim=1)), batch.labels_B), {}


METHOD = Method(
    name="cross_entropy",
    version=1,
    outputs={"none": "Cross-entropy, end to end"},
    model=CrossEntropy,
    settings=CrossEntropySettings,
    uses_labels=True,
    takes_missing=True,
)

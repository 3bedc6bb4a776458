"""Methods with one loss on the encoders' outputs: CLIP, and two that use labels from end to end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.baselines.base import Baseline, gather
from s3ray.config import BaselineConfig, ModelConfig
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.selection import sufficiency_loss
from s3ray.stages.training import Batch, Forward


class Clip(Baseline):
    """CLIP (Radford et al. 2021): symmetric InfoNCE between the modalities, the temperature fixed (ours)."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        ((z1_BD, z2_BD),) = gather(forward([batch.shard], batch.draws))
        return coherence_loss(z1_BD, z2_BD, self.config.temperature), {}


class SupCon(Baseline):
    """Supervised contrastive learning (Khosla et al. 2020) as in Eqs. 29 and 30, but training everything."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        ((z1_BD, z2_BD),) = gather(forward([batch.shard], batch.draws))
        return sufficiency_loss(z1_BD, z2_BD, batch.labels_B, self.config.temperature), {}


class CrossEntropy(Baseline):
    """A linear classifier on both modalities' z, trained with the encoders; z alone is probed (ours)."""

    def __init__(self, model: ModelConfig, config: BaselineConfig, features: Mapping[str, int], classes: int) -> None:
        super().__init__(model, config, features, classes)
        self.classifier = nn.Linear(len(features) * model.width, classes)

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        (z,) = gather(forward([batch.shard], batch.draws))
        return F.cross_entropy(self.classifier(torch.cat(z, dim=1)), batch.labels_B), {}

"""What the prior methods have in common: dense encoders, objectives on the global batch, a representation.

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.baselines.augment import augment
from s3ray.config import BaselineConfig, Branch, ModelConfig, OptimizerConfig
from s3ray.data.dataset import Split
from s3ray.model import Draws, Encoded, Ragged, S3Model
from s3ray.stages.collective import gather_rows
from s3ray.stages.training import Batch, Forward, Metrics, Monitor, Objective, train

Views = Sequence[Mapping[str, Ragged]]


class Baseline(nn.Module):
    """A prior method on one dense encoder per modality; a subclass says what trains it and what is probed."""

    branches: tuple[Branch, ...] = ("none",)

    def __init__(self, model: ModelConfig, config: BaselineConfig, features: Mapping[str, int], classes: int) -> None:
        super().__init__()
        # One expert of the full FFN width with routing weight softmax(·) = 1 is a dense FFN.
        assert model.granularity == model.expansion == 1
        self.config = config
        self.encoders = S3Model(model, features)

    def forward(self, views: Views, draws: Mapping[str, Draws] | None = None) -> list[dict[str, Encoded]]:
        """Encode every view of a batch; `draws` feed dropout alone, since a single expert's noise has no effect."""
        return [self.encoders(view, draws)[0] for view in views]

    def objectives(self) -> list[Objective]:
        """What trains which parameters; by default `loss` trains all of them."""
        return [Objective(dict(self.named_parameters()), self.loss)]

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The global batch's loss and the terms to record."""
        raise NotImplementedError

    def parts(self, batch: Mapping[str, Ragged], branch: Branch) -> list[Tensor]:
        """What is probed, modality by modality."""
        return [encoded.z_BD for encoded in self([batch])[0].values()]

    def used(self, branch: Branch) -> list[nn.Module]:
        """The modules that `parts` runs: their parameters are the active ones."""
        return [self.encoders]

    def represent(self, batch: Mapping[str, Ragged], branch: Branch, on_sphere: bool = True) -> Tensor:
        """The parts side by side (B, ·), the modalities equally wide; `on_sphere`: each part l2-normalised."""
        assert branch in self.branches
        parts = self.parts(batch, branch)
        return torch.cat([F.normalize(part, dim=1) if on_sphere else part for part in parts], dim=1)


def train_baseline(
    model: Baseline,
    data: Split,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    seed: int,
    monitor: Monitor | None = None,
) -> Metrics:
    """Train `model` in place with its method.

    Returns:
        Per step: the loss and its terms.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """
    # A classifier's outputs count up from 0; a dataset's classes need not.
    data = dataclasses.replace(data, labels=np.unique(data.labels, return_inverse=True)[1])
    return train(model, model.objectives(), data, optimizer, batch_size=batch_size, seed=seed, monitor=monitor)


def two_views(batch: Batch) -> list[Mapping[str, Ragged]]:
    """The shard as it is, and augmented (FactorCL's pair; ours for the others), each modality by its own draws."""
    return [batch.shard, {name: augment(x, batch.draws[name]) for name, x in batch.shard.items()}]


def gather(encodings: Sequence[Mapping[str, Encoded]]) -> list[list[Tensor]]:
    """z (B, D) of the global batch, per encoding and modality."""
    counts = [len(encoding) for encoding in encodings]
    z = [encoded.z_BD for encoding in encodings for encoded in encoding.values()]
    gathered = iter(gather_rows(torch.cat(z, dim=1)).chunk(len(z), dim=1))  # one collective for all
    return [list(itertools.islice(gathered, count)) for count in counts]

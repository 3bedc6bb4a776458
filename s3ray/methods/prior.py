"""What the prior methods' models have in common: dense encoders, objectives on the global batch, a representation.

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3ray.methods.augment import augment
from s3ray.model import Draws, Encoded, Encoding, ModelConfig, Pruning, Ragged, S3Model, TrainedModel
from s3ray.stages.collective import gather_rows
from s3ray.stages.training import Batch, Forward, Objective

Views = Sequence[Mapping[str, Ragged]]


class PriorModel(TrainedModel):
    """A prior method on one dense encoder per modality; a subclass says what trains it and what is probed."""

    def __init__(self, model: ModelConfig, settings: Any, features: Mapping[str, int], classes: int) -> None:
        super().__init__()
        # One expert of the full FFN width with routing weight softmax(·) = 1 is a dense FFN.
        assert model.granularity == model.expansion == 1
        self.settings = settings
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

    def parts(self, batch: Mapping[str, Ragged], output: str) -> list[Tensor]:
        """What is probed, modality by modality."""
        return [encoded.z_BD for encoded in self([batch])[0].values()]

    def used(self, output: str) -> list[nn.Module]:
        """The modules that `parts` runs: their parameters are the active ones."""
        return [self.encoders]

    def encoders_alone(self, output: str) -> S3Model | None:
        return self.encoders if type(self).parts is PriorModel.parts else None

    def encode(
        self, batch: Mapping[str, Ragged], output: str, pruning: Pruning | None = None, sample: int = 0
    ) -> Encoding:
        """The method's representation; dense encoders route nothing."""
        assert pruning is None, "prior methods are not pruned"
        return Encoding(self.parts(batch, output), 0, 0)


def two_views(batch: Batch) -> list[Mapping[str, Ragged]]:
    """The shard as it is, and augmented (FactorCL's pair; ours for the others), each modality by its own draws."""
    return [batch.shard, {name: augment(x, batch.draws[name]) for name, x in batch.shard.items()}]


def gather(encodings: Sequence[Mapping[str, Encoded]]) -> list[list[Tensor]]:
    """z (B, D) of the global batch, per encoding and modality."""
    counts = [len(encoding) for encoding in encodings]
    z = [encoded.z_BD for encoding in encodings for encoded in encoding.values()]
    gathered = iter(gather_rows(torch.cat(z, dim=1)).chunk(len(z), dim=1))  # one collective for all
    return [list(itertools.islice(gathered, count)) for count in counts]

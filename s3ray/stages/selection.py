"""Selection (5.2): only the routers are trained, with labels as weak supervision.

What trains them is the variant's, one of `s3ray.stages.variants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3ray.configuration import added
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import S3Model, TrainedModel
from s3ray.stages.collective import gather_rows
from s3ray.stages.cost import training_seconds
from s3ray.stages.stage import Context, Inputs, Outcome, Stage, StageRun
from s3ray.stages.training import (
    Batch,
    Forward,
    Objective,
    OptimizerConfig,
    entropy_metrics,
    expert_shares,
    reduce_statistics,
    train,
)
from s3ray.stages.variants import VARIANTS

_SHARE = 0.65  # of a full training step: no weight gradients but the routers'


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig:
    """All that Selection reads beside the data and the specialised model."""

    variant: str
    version: int  # of the variant
    loss: Any  # the variant's own configuration
    optimizer: OptimizerConfig
    batch_size: int
    seed: int
    noise: bool = added(False, neutral=False)  # the routers' noise, and dropout, stay on


def select(config: SelectionConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    """Train the routers of a specialised model with L_select (Eq. 33) or another variant's loss.

    Returns:
        The routers' weights; per step the loss and its terms, each modality's local and global router entropy, and
        the share of the residual stream's variance that the experts add, which are monitored, not optimised.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """
    assert isinstance(parent, S3Model)
    variant = VARIANTS[config.variant]
    assert variant.version == config.version

    def loss(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        views = forward(batch.shard, batch.draws if config.noise else None)
        z = [gather_rows(encoded.z_BD) for encoded in views[0].values()]
        total, terms = variant.loss(config.loss, z, batch.labels_B, batch.present)
        with torch.no_grad():
            monitored = entropy_metrics(reduce_statistics(views)) | expert_shares(views)
        return total, terms | monitored

    routers = parent.router_parameters()
    metrics = train(
        parent,
        [Objective(routers, loss)],
        data.train,
        config.optimizer,
        batch_size=config.batch_size,
        seed=config.seed,
        monitor=context.monitor,
    )
    return Outcome(metrics, {name: parameter.detach() for name, parameter in routers.items()})


def _restore(
    config: SelectionConfig, inputs: Inputs, parent: TrainedModel | None, weights: Mapping[str, Tensor]
) -> TrainedModel:
    assert isinstance(parent, S3Model)
    with torch.no_grad():
        for name, parameter in parent.router_parameters().items():
            parameter.copy_(weights[name])
    return parent


def _estimate(run: StageRun, facts: DataFacts) -> float:
    config: SelectionConfig = run.config
    return _SHARE * training_seconds(run.root.config.model, facts, config.batch_size, config.optimizer.epochs)


def _types(plain: Mapping[str, Any]) -> Mapping[str, type[Any]]:
    loss = VARIANTS[plain["variant"]].config
    assert loss is not None
    return {"loss": loss}


SELECTION = Stage("selection", 1, SelectionConfig, select, _estimate, _restore, _types)

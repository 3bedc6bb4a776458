"""Specialization (5.1): both encoders, end to end, from random initialisation, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from s3ray.config import SpecializationConfig
from s3ray.data.dataset import Split
from s3ray.model import S3Model
from s3ray.objectives.contrastive import coherence_loss, representation_loss
from s3ray.objectives.routing import (
    RoutingStatistics,
    global_entropy_loss,
    importance_loss,
    load_loss,
    local_entropy_loss,
)
from s3ray.stages.collective import gather_rows
from s3ray.stages.training import (
    Batch,
    Forward,
    Metrics,
    Monitor,
    Objective,
    entropy_metrics,
    reduce_statistics,
    train,
    weighted_sum,
)


def specialize(
    model: S3Model,
    data: Split,
    config: SpecializationConfig,
    *,
    batch_size: int,
    seed: int,
    monitor: Monitor | None = None,
) -> Metrics:
    """Train every parameter of `model` in place with L_special (Eq. 27).

    Returns:
        Per step: the loss and its terms, and each modality's local and global router entropy.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """

    def loss(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        views = forward(batch.shard, batch.draws, passes=2 if config.views == "dropout" else 1)
        first, second = ([gather_rows(e.z_BD) for e in view.values()] for view in (views[0], views[-1]))
        statistics = reduce_statistics(views)
        terms = {
            "rep": representation_loss(first[0], second[0], first[1], second[1], config.temperature),
            "dsc": coherence_loss(first[0], first[1], config.temperature),
            # Appendix F defines them per router: summed over modalities, averaged over layers (ours).
            "imp": _total(importance_loss, statistics),
            "load": _total(load_loss, statistics),
            "local": _total(local_entropy_loss, statistics),
            "global": _total(global_entropy_loss, statistics),
        }
        auxiliary = weighted_sum(
            (config.lambda_imp, terms["imp"]),
            (config.lambda_load, terms["load"]),
            (config.lambda_local, terms["local"]),
            (config.lambda_global, terms["global"]),
        )
        total = weighted_sum(
            (config.lambda_rep, terms["rep"]),
            (config.lambda_dsc, terms["dsc"]),
            (config.lambda_aux, auxiliary),
            outputs=first,
        )
        return total, terms | entropy_metrics(statistics)

    objective = Objective(dict(model.named_parameters()), loss)
    return train(model, [objective], data, config.optimizer, batch_size=batch_size, seed=seed, monitor=monitor)


def _total(term: Callable[[RoutingStatistics], Tensor], statistics: Mapping[str, RoutingStatistics]) -> Tensor:
    return torch.stack([term(s) for s in statistics.values()]).sum()

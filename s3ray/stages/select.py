"""Selection (5.2): only the routers are trained, with labels as weak supervision."""

from __future__ import annotations

import torch
from torch import Tensor

from s3ray.config import SelectionConfig
from s3ray.data.dataset import Split
from s3ray.model import S3Model
from s3ray.objectives.selection import minimality_loss, sufficiency_loss
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


def select(
    model: S3Model,
    data: Split,
    config: SelectionConfig,
    *,
    batch_size: int,
    seed: int,
    monitor: Monitor | None = None,
) -> Metrics:
    """Train the routers of a specialised `model` in place with L_select (Eq. 33), without routing noise.

    Returns:
        Per step: the loss and its two terms, and each modality's local and global router entropy, which are
        monitored, not optimised.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """

    def loss(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        views = forward(batch.shard)
        z1_BD, z2_BD = (gather_rows(encoded.z_BD) for encoded in views[0].values())
        terms = {
            "suff": sufficiency_loss(z1_BD, z2_BD, batch.labels_B, config.temperature),
            "min": minimality_loss(z1_BD, z2_BD, batch.labels_B),
        }
        with torch.no_grad():
            monitored = entropy_metrics(reduce_statistics(views))
        weighted = (config.lambda_suff, terms["suff"]), (config.lambda_min, terms["min"])
        return weighted_sum(*weighted, outputs=[z1_BD, z2_BD]), terms | monitored

    objective = Objective(model.router_parameters(), loss)
    return train(model, [objective], data, config.optimizer, batch_size=batch_size, seed=seed, monitor=monitor)

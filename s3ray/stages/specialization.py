"""Specialization (5.1): all encoders, end to end, from random initialisation, without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from s3ray.configuration import check_not_negative, check_positive
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import ModelConfig, TrainedModel, build_model
from s3ray.objectives.contrastive import coherence_loss, representation_loss
from s3ray.objectives.routing import (
    RoutingStatistics,
    global_entropy_loss,
    importance_loss,
    load_loss,
    local_entropy_loss,
)
from s3ray.stages.collective import gather_rows
from s3ray.stages.cost import training_seconds
from s3ray.stages.stage import Context, Inputs, Outcome, Stage, StageRun
from s3ray.stages.training import (
    Batch,
    Forward,
    Loss,
    Objective,
    OptimizerConfig,
    entropy_metrics,
    expert_shares,
    reduce_statistics,
    train,
    weighted_sum,
)

Views = Literal["same", "dropout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecializationSettings:
    """Weights of Eqs. 27 and 93.

    Attributes:
        optimizer: (ours) what trains all parameters.
        temperature: τ of both InfoNCE losses.
        lambda_rep: weight of L_rep (Eq. 25).
        lambda_dsc: weight of L_dsc (Eq. 26).
        lambda_aux: weight of the auxiliary loss (Eq. 93), which the next four are terms of.
        lambda_imp: weight of importance (Eq. 95).
        lambda_load: weight of load (Eq. 101).
        lambda_local: weight of local entropy (Eq. 103).
        lambda_global: weight of global entropy (Eq. 105).
        views: of L_rep: "same" as printed in Eq. 25; "dropout": two stochastic passes (ours).
    """

    optimizer: OptimizerConfig = OptimizerConfig(epochs=100, learning_rate=1e-4)
    temperature: float = 0.1
    lambda_rep: float = 1.0
    lambda_dsc: float = 1.0
    lambda_aux: float = 0.02
    lambda_imp: float = 1.0
    lambda_load: float = 1.0
    lambda_local: float = 1.0
    lambda_global: float = 1.0
    views: Views = "same"

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.1)
        check_not_negative(self, *(f.name for f in dataclasses.fields(self) if f.name.startswith("lambda_")))


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecializationConfig:
    """All that Specialization reads beside the data."""

    model: ModelConfig
    training: SpecializationSettings
    batch_size: int
    seed: int


def specialize(config: SpecializationConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    """Train every parameter of a new model with L_special (Eq. 27).

    Returns:
        The weights; per step the loss and its terms, each modality's local and global router entropy, and per layer the
        share of the residual stream's variance that the experts add: at the first step that of the initialisation.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """
    assert parent is None
    model = build_model(config.model, data.features, config.seed).to(context.device)
    metrics = train(
        model,
        [Objective(dict(model.named_parameters()), specialization_loss(config.training))],
        data.train,
        config.training.optimizer,
        batch_size=config.batch_size,
        seed=config.seed,
        monitor=context.monitor,
    )
    return Outcome(metrics, model.state_dict())


def specialization_loss(settings: SpecializationSettings) -> Loss:
    """L_special of a global batch, and its terms; of one modality without L_dsc."""

    def loss(forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        views = forward(batch.shard, batch.draws, passes=2 if settings.views == "dropout" else 1)
        first, second = ([gather_rows(e.z_BD) for e in view.values()] for view in (views[0], views[-1]))
        statistics = reduce_statistics(views)
        terms = {"rep": representation_loss(first, second, settings.temperature, batch.present)}
        if len(first) > 1:  # one modality has no other to be coherent with: there is no L_dsc, neither trained nor told
            terms["dsc"] = coherence_loss(first, settings.temperature, batch.present)
        terms |= {
            # Appendix F defines them per router: summed over modalities, averaged over layers (ours).
            "imp": _total(importance_loss, statistics),
            "load": _total(load_loss, statistics),
            "local": _total(local_entropy_loss, statistics),
            "global": _total(global_entropy_loss, statistics),
        }
        auxiliary = weighted_sum(
            (settings.lambda_imp, terms["imp"]),
            (settings.lambda_load, terms["load"]),
            (settings.lambda_local, terms["local"]),
            (settings.lambda_global, terms["global"]),
        )
        total = weighted_sum(
            (settings.lambda_rep, terms["rep"]),
            *([(settings.lambda_dsc, terms["dsc"])] if "dsc" in terms else []),
            (settings.lambda_aux, auxiliary),
            outputs=first,
        )
        return total, terms | entropy_metrics(statistics) | expert_shares(views)

    return loss


def _total(term: Callable[[RoutingStatistics], Tensor], statistics: Mapping[str, RoutingStatistics]) -> Tensor:
    return torch.stack([term(s) for s in statistics.values()]).sum()


def _restore(
    config: SpecializationConfig, inputs: Inputs, parent: TrainedModel | None, weights: Mapping[str, Tensor]
) -> TrainedModel:
    model = build_model(config.model, inputs.features, config.seed)
    model.load_state_dict(dict(weights))
    return model


def _estimate(run: StageRun, facts: DataFacts) -> float:
    config: SpecializationConfig = run.config
    views = 2 if config.training.views == "dropout" else 1
    return views * training_seconds(config.model, facts, config.batch_size, config.training.optimizer.epochs)


SPECIALIZATION = Stage("specialization", 2, SpecializationConfig, specialize, _estimate, _restore)

"""What a prior method declares, and the stage that trains it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.methods.prior import PriorModel
from s3ray.model import ModelConfig, TrainedModel
from s3ray.stages.cost import training_seconds
from s3ray.stages.stage import Context, Inputs, Outcome, Stage, StageRun
from s3ray.stages.training import OptimizerConfig, train

# Of the optimizer, what a method's table may set for itself, and the factor by which a search varies it either way, as
# it does Specialization's.
TRAINING: Mapping[str, float] = MappingProxyType({"epochs": 2, "learning_rate": 10})


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodConfig:
    """All that a prior method reads beside the data."""

    model: ModelConfig  # dense encoders
    optimizer: OptimizerConfig  # Specialization's, but for what the method's table sets
    loss: Any  # the method's own settings
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Method:
    """A way to train encoders that is not S3's.

    Attributes:
        name: as sweeps and rows have it, and of its stage and its table `[method.NAME]` in a `--config` file.
        version: of its stage; raised when what it computes changes meaning.
        outputs: what is probed of it: the branch's name, and its title in Table 2.
        model: builds it from (encoders, settings, features, classes), and says what trains it.
        settings: type of its own settings, a frozen dataclass with defaults for the paper's scale.
        scales: per scale the settings in which it differs from those.
        uses_labels: labels train its encoders.
        search: of its own settings those that a search varies, and by which factor either way (`space`).
        modalities: the fewest and the most of them that its authors define it for; sweeps leave out cells of others.
        takes_missing: its loss is defined where samples lack modalities; else sweeps leave out cells of such data.
        passes: over the training split, in units of Specialization's: views, and objectives that take turns.
    """

    name: str
    version: int
    outputs: Mapping[str, str]
    model: type[PriorModel]
    settings: type[Any]
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    search: Mapping[str, float] = field(default_factory=dict)
    uses_labels: bool = False
    modalities: tuple[float, float] = (1, math.inf)
    takes_missing: bool = False
    passes: float = 1.0

    @property
    def space(self) -> dict[str, float]:
        """What a search varies: the fields of its table `[method.NAME]`, its own and its optimizer's."""
        return {**TRAINING, **self.search}

    @cached_property
    def stage(self) -> Stage[MethodConfig]:
        """Trains the method's encoders."""
        return Stage(
            self.name,
            self.version,
            MethodConfig,
            partial(_run, self.model),
            partial(_estimate, self.passes),
            partial(_restore, self.model),
            partial(_types, self.settings),
        )


def build(model: type[PriorModel], config: MethodConfig, inputs: Inputs) -> PriorModel:
    """A method's model initialised from the configured seed alone; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return model(config.model, config.loss, inputs.features, inputs.classes)


def _run(
    model: type[PriorModel], config: MethodConfig, data: Dataset, parent: TrainedModel | None, context: Context
) -> Outcome:
    """Train every parameter; per step the loss and its terms.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """
    built = build(model, config, Inputs.of(data)).to(context.device)
    # A classifier's outputs count up from 0; a dataset's classes need not.
    split = dataclasses.replace(data.train, labels=np.unique(data.train.labels, return_inverse=True)[1])
    metrics = train(
        built,
        built.objectives(),
        split,
        config.optimizer,
        batch_size=config.batch_size,
        seed=config.seed,
        monitor=context.monitor,
    )
    return Outcome(metrics, built.state_dict())


def _restore(
    model: type[PriorModel],
    config: MethodConfig,
    inputs: Inputs,
    parent: TrainedModel | None,
    weights: Mapping[str, Tensor],
) -> TrainedModel:
    built = build(model, config, inputs)
    built.load_state_dict(dict(weights))
    return built


def _types(settings: type[Any], plain: Mapping[str, Any]) -> Mapping[str, type[Any]]:
    return {"loss": settings}


def _estimate(passes: float, run: StageRun, facts: DataFacts) -> float:
    config: MethodConfig = run.config
    return passes * training_seconds(config.model, facts, config.batch_size, config.optimizer.epochs)

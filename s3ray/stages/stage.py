"""A stage, and a run of it: what makes a result *that* result.

What is hashed is what is passed: the configuration that a run's identity is made of is the object that the stage's
`run` receives, and beside it `run` receives only the data, the parent's model and a context that changes no result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from s3ray.configuration import document, restored
from s3ray.data.dataset import Dataset, Missing
from s3ray.data.facts import DataFacts
from s3ray.data.padding import longest, padded
from s3ray.model.config import ModelConfig
from s3ray.model.trained import TrainedModel
from s3ray.stages.encode import Begun
from s3ray.stages.training import Monitor

C = TypeVar("C")


@dataclass(frozen=True)
class Context:
    """Where a stage runs, and who watches. Nothing here changes a result beyond rounding."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    monitor: Monitor | None = None  # of a stage that trains
    begun: Begun | None = None  # of a stage that measures: of its parent's model


@dataclass(frozen=True)
class Outcome:
    """What a stage run leaves behind.

    Attributes:
        rows: what it measured; of a stage that trains, a row per step. On other ranks than 0 they may be missing.
        weights: of a stage that trains, what `restore` needs; on every rank.
    """

    rows: list[dict[str, Any]]
    weights: Mapping[str, Tensor] | None = None


def _none_open(plain: Mapping[str, Any]) -> Mapping[str, type[Any]]:
    return {}


@dataclass(frozen=True)
class Stage(Generic[C]):
    """A computation whose results are kept under an identity.

    Attributes:
        name: of the stage, and of its folder in the store.
        version: raised when what it computes changes meaning: results of an older version no longer count.
        config: type of the configuration. A test holds that `run` and `restore` read all of it.
        run: (config, data, parent, context) → outcome, on every rank. Of the data it gets what is `visible`. The
            parent's model is the stage's own, to
            train or to encode with; None for a stage that starts from nothing.
        estimate: (run, facts) → seconds of one worker.
        restore: (config, inputs, parent, weights) → the trained model, on the CPU; None for a stage that measures.
        types: of a configuration's document, the types of those of its fields that `config` leaves open.
        reads_truth: the stage reads a simulation's factors, which then are part of its identity.
        reads_scores: likewise the sentiment scores.
    """

    name: str
    version: int
    config: type[C]
    run: Callable[[C, Dataset, TrainedModel | None, Context], Outcome]
    estimate: Callable[[StageRun, DataFacts], float]
    restore: Callable[[C, Inputs, TrainedModel | None, Mapping[str, Tensor]], TrainedModel] | None = None
    types: Callable[[Mapping[str, Any]], Mapping[str, type[Any]]] = _none_open
    reads_truth: bool = False
    reads_scores: bool = False

    @property
    def trains(self) -> bool:
        return self.restore is not None

    def visible(self, data: Dataset) -> Dataset:
        """What the stage is given of a dataset: no more than is in its identity."""
        return data.seen(truth=self.reads_truth, scores=self.reads_scores)

    def restored(self, plain: Mapping[str, Any]) -> C:
        """The configuration of a document."""
        return restored(self.config, plain, self.types(plain))

    def planned(self, config: C, facts: DataFacts, parent: StageRun | None = None) -> StageRun:
        """A run of this stage on a dataset."""
        data = facts.scores if self.reads_scores else facts.truth if self.reads_truth else facts.fingerprint
        assert data is not None, f"{self.name}: {facts.fingerprint} lacks the factors or scores that it reads"
        return StageRun(self, config, parent, data)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model needs of the data that it was built for."""

    features: Mapping[str, int]  # input width per modality
    classes: int
    standardized: bool = False  # features were, as the published data's facts say: new samples are, too
    subsampled: Mapping[str, int] = field(default_factory=dict)  # steps per modality whose longer sequences were cut
    padded: Mapping[str, int] = field(default_factory=dict)  # steps per modality, where the encoders route padding
    missing: Missing = "declared"  # the rule by which samples lack modalities: new ones follow it, too

    @classmethod
    def of(cls, data: Dataset | DataFacts) -> Inputs:
        facts = data.facts if isinstance(data, Dataset) else {}
        subsampled = dict(facts.get("subsampled", {}))
        rule = facts.get("missing", "declared")
        return cls(dict(data.features), data.classes, "standardized" in facts, subsampled, missing=rule)


@dataclass(frozen=True)
class StageRun:
    """A stage with everything that its result depends on.

    Attributes:
        parent: the run whose model this one starts from.
        data: fingerprint of what the stage reads of the dataset.
    """

    stage: Stage[Any]
    config: Any
    parent: StageRun | None
    data: str

    @property
    def ancestors(self) -> list[StageRun]:
        """Its parent, that one's parent, and so on."""
        return [self.parent, *self.parent.ancestors] if self.parent else []

    @property
    def root(self) -> StageRun:
        """The run that all started with: of a trained model, the one that built it."""
        return self if self.parent is None else self.parent.root

    @property
    def routes_padding(self) -> bool:
        """Whether the encoders that it trains or reads do; what reads none has no model."""
        model: ModelConfig | None = getattr(self.root.config, "model", None)
        return model is not None and model.padding == "routed"

    def visible(self, data: Dataset) -> Dataset:
        """What it is given of a dataset: no more than its stage sees, padded where the encoders route padding."""
        seen = self.stage.visible(data)
        return padded(seen) if self.routes_padding else seen

    def inputs(self, data: Dataset) -> Inputs:
        """What of a dataset its model needs."""
        return replace(Inputs.of(data), padded=longest(data) if self.routes_padding else {})

    def estimate(self, facts: DataFacts) -> float:
        """Seconds of one worker."""
        return self.stage.estimate(self, facts.padded if self.routes_padding else facts)

    @cached_property
    def document(self) -> dict[str, Any]:
        """All that is hashed, as it stands in the commit marker."""
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "config": document(self.config),
            "parent": self.parent.identity if self.parent else None,
            "data": self.data,
        }

    @property
    def claim(self) -> str:
        """What its work is claimed by: the identity of the model that it trains or measures; without one, its own."""
        return (self if self.stage.trains else self.parent or self).identity

    @cached_property
    def identity(self) -> str:
        return identity_of(self.document)


def identity_of(document: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of a run's document."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

"""The untrained encoder, probed: what a random initialisation of this architecture already gives."""

from __future__ import annotations

from dataclasses import dataclass

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import ModelConfig, TrainedModel, build_model
from s3ray.stages.encode import SAMPLES_AT_ONCE
from s3ray.stages.probe import ClassifierConfig, probed, probing_seconds
from s3ray.stages.stage import Context, Outcome, Stage, StageRun


@dataclass(frozen=True, slots=True, kw_only=True)
class UntrainedConfig:
    """All that it reads beside the data: the same model and seed as Specialization's."""

    model: ModelConfig
    seed: int
    on_sphere: bool
    classifier: ClassifierConfig


def _run(config: UntrainedConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    model = build_model(config.model, data.features, config.seed).to(context.device)
    return probed(model, data, config.classifier, output="none", on_sphere=config.on_sphere)


def _estimate(run: StageRun, facts: DataFacts) -> float:
    return probing_seconds(run, facts, SAMPLES_AT_ONCE, 1.0)


UNTRAINED = Stage("untrained", 1, UntrainedConfig, _run, _estimate)

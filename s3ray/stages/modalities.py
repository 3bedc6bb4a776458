"""Modalities: which of them carries what; probes of each one's representation alone, and with each left out.

A modality that does as well alone as all together carries all that is asked; one that can be left out without loss
carries nothing that the others lack. Beside them stands the share of each modality's (token, expert) pairs that
Sparsification keeps: ranked among the pairs of a layer and modality, or of a modality, it is p for each; ranked among
those of the model, a modality may lose more than its part, all at worst.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import Pruning, TrainedModel
from s3ray.stages.cost import encoding_seconds, probe_seconds
from s3ray.stages.encode import at_once_and_ratio, encode_measured
from s3ray.stages.probe import ClassifierConfig, probe
from s3ray.stages.stage import Context, Outcome, Stage, StageRun


@dataclass(frozen=True, slots=True, kw_only=True)
class ModalitiesConfig:
    """All that is read beside the data and the trained model."""

    output: str  # what is probed of the model
    on_sphere: bool
    classifier: ClassifierConfig
    pruning: Pruning | None


@dataclass(frozen=True, slots=True)
class ModalityPoint:
    """What a modality carries on a split at a preservation ratio; accuracies are shares of samples."""

    preservation_ratio: float
    split: str
    modality: str
    alone: float  # accuracy of a probe of its representation
    without: float  # of all others'; NaN where there is no other
    samples: int
    pairs_kept: float  # share of its (token, expert) pairs that is computed, over layers; NaN without routing


def _accuracies(
    representations: Mapping[str, Mapping[str, NDArray[Any]]],
    names: tuple[str, ...],
    data: Dataset,
    classifier: ClassifierConfig,
) -> dict[str, float]:
    """Per split but train, of a probe of these modalities side by side; NaN of none."""
    if not names:
        return dict.fromkeys(representations, math.nan)
    joined = {split: np.concatenate([z[name] for name in names], axis=1) for split, z in representations.items()}
    labels = {name: split.labels for name, split in data.splits.items()}
    scored = probe(joined, labels, classifier, data.indicators(names))
    return {split: float(correct.mean()) for split, correct in scored.correct.items()}


def _run(config: ModalitiesConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    encoded = encode_measured(config, parent, data, context.begun, tokens=True)
    if not encoded:
        return Outcome([])
    names = tuple(data.features)
    representations = {
        split: dict(zip(names, np.split(e.z, len(names), axis=1), strict=True)) for split, e in encoded.items()
    }
    alone = {name: (name,) for name in names}
    without = {name: tuple(other for other in names if other != name) for name in names}
    # Of two modalities, one alone is the other left out.
    asked = dict.fromkeys([*alone.values(), *without.values()])
    accuracies = {subset: _accuracies(representations, subset, data, config.classifier) for subset in asked}
    points = [
        ModalityPoint(
            preservation_ratio=at_once_and_ratio(config.pruning)[1],
            split=split,
            modality=name,
            alone=accuracies[alone[name]][split],
            without=accuracies[without[name]][split],
            samples=len(data.splits[split]),
            pairs_kept=_kept(encoded[split].tokens, name),
        )
        for split in data.splits
        if split != "train"
        for name in names
    ]
    return Outcome([asdict(point) for point in points])


def _kept(tokens: Mapping[str, NDArray[Any]], name: str) -> float:
    """Every token has as many pairs, so the mean of its shares (T, L, 2) is the share of all."""
    return float(tokens[name][..., 1].mean(dtype=np.float64)) if tokens else math.nan


def _estimate(run: StageRun, facts: DataFacts) -> float:
    at_once, ratio = at_once_and_ratio(run.config.pruning)
    model, count = run.root.config.model, len(facts.features)
    widths = [model.width] * count + [model.width * (count - 1)] * (count if count > 2 else 0)
    return encoding_seconds(model, facts, at_once, ratio) + sum(probe_seconds(facts, width) for width in widths)


MODALITIES = Stage("modalities", 1, ModalitiesConfig, _run, _estimate)

"""Sentiment: a ridge probe of the sentiment scores on frozen representations, as every paper on these sets prints.

The scores are not in the fingerprint of the data, which is that of what training and probing see. So no other stage is
given them, and what this one commits stands under an identity that they are part of (`Dataset.scores_fingerprint`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import Pruning, TrainedModel
from s3ray.stages.encode import at_once_and_ratio, encode_measured
from s3ray.stages.metrics import RegressionMetrics
from s3ray.stages.probe import NOTHING, probing_seconds, scaled
from s3ray.stages.stage import Context, Outcome, Stage, StageRun


@dataclass(frozen=True, slots=True, kw_only=True)
class SentimentConfig:
    """All that is read beside the data, their scores and the trained model."""

    output: str  # what is probed of the model
    on_sphere: bool
    pruning: Pruning | None


@dataclass(frozen=True, slots=True)
class SentimentPoint:
    """How well the sentiments of a split can be read at a preservation ratio."""

    preservation_ratio: float
    split: str
    mae: float
    pearson_r: float
    samples: int


def ridge(
    features: Mapping[str, NDArray[Any]],
    targets_N: NDArray[Any],
    indicators: Mapping[str, NDArray[np.bool_]] = NOTHING,
    *,
    alpha_per_target: bool = False,
) -> dict[str, NDArray[np.float64]]:
    """What a ridge regression, fitted on `train`, predicts per other split.

    Features are standardised by train's statistics. The penalty is chosen by leave-one-out error on train.

    Args:
        features, indicators: as of `s3ray.stages.probe.scaled`.
        targets_N: of train, (n,) or (n, targets).
        alpha_per_target: every target has a penalty of its own.
    """
    # Imported here for the same reason as in `probe`: most processes of a worker group never come here.
    from sklearn.linear_model import RidgeCV

    regression = RidgeCV(np.logspace(-2, 6, 9), alpha_per_target=alpha_per_target)
    # In double precision: with a small penalty and collinear features, single precision decides the fit.
    double = {split: x.astype(np.float64) for split, x in features.items()}
    ready = scaled(double, indicators, standardize=True)
    regression.fit(ready["train"], targets_N.astype(np.float64))
    return {split: regression.predict(x) for split, x in ready.items() if split != "train"}


def _run(config: SentimentConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    encoded = encode_measured(config, parent, data, context.begun)
    if not encoded:
        return Outcome([])
    scores: dict[str, NDArray[np.float32]] = {}
    for name, split in data.splits.items():
        assert split.scores is not None, f"{data.name}: {name} has no sentiment scores"
        scores[name] = split.scores
    _, ratio = at_once_and_ratio(config.pruning)
    points = []
    features = {name: e.z for name, e in encoded.items()}
    for name, predicted_N in ridge(features, scores["train"], data.indicators()).items():
        measured = RegressionMetrics.of(scores[name], predicted_N)
        points.append(SentimentPoint(ratio, name, measured.mae, measured.pearson_r, len(predicted_N)))
    return Outcome([asdict(point) for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    at_once, ratio = at_once_and_ratio(run.config.pruning)
    return probing_seconds(run, facts, at_once, ratio)


SENTIMENT = Stage("sentiment", 1, SentimentConfig, _run, _estimate, reads_scores=True)

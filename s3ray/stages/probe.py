"""The linear probe: logistic regression on frozen representations, unpruned.

The representation of a modality that a sample lacks is 0. So that this is not read as one that says nothing, a column
per modality that any sample of the dataset lacks tells which do (ours). These indicators are 0 or 1 and are not
standardised: brought to deviation 1, that of a single one of n training samples would be √n there, and its class would
be said of every other that lacks the modality.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.configuration import check_positive, check_whole
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import Pruning, TrainedModel
from s3ray.model.parameters import ParameterCount
from s3ray.stages.collective import rank
from s3ray.stages.cost import encoding_seconds, probe_seconds
from s3ray.stages.encode import SAMPLES_AT_ONCE, Begun, encode_splits
from s3ray.stages.metrics import ClassMetrics
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

NOTHING: Mapping[str, NDArray[np.bool_]] = MappingProxyType({})  # the indicators of complete data


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings:
    """scikit-learn's logistic regression on the representations of all modalities.

    Attributes:
        inverse_regularization: C of scikit-learn.
        max_iterations: of its solver, L-BFGS.
        on_sphere: (ours) probe the l2-normalised z that the losses see.
        standardize: (ours) representations, by the training split's statistics.
    """

    inverse_regularization: float = 1.0
    max_iterations: int = 1000
    on_sphere: bool = True
    standardize: bool = True

    def __post_init__(self) -> None:
        check_whole(self, "max_iterations")
        check_positive(self, inverse_regularization=1.0)

    @property
    def classifier(self) -> ClassifierConfig:
        return ClassifierConfig(
            inverse_regularization=self.inverse_regularization,
            max_iterations=self.max_iterations,
            standardize=self.standardize,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """What `probe` reads."""

    inverse_regularization: float
    max_iterations: int
    standardize: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """All that a probe reads beside the data and the trained model."""

    output: str  # what is probed of the model
    on_sphere: bool
    classifier: ClassifierConfig


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One measured point of a pruning curve: a preservation ratio on a split."""

    preservation_ratio: float
    split: str
    accuracy: float
    samples: int
    spread: float  # `spread_of` the representations
    correct: bytes  # a bit per sample, in order and the first of a byte its highest: whether the probe gets it right
    balanced_accuracy: float  # this and the next three: `ClassMetrics`
    macro_f1: float
    weighted_f1: float
    auroc: float
    pairs_kept: int  # (token, expert) pairs computed, over layers and modalities
    pairs_routed: int  # top-k pairs before pruning
    encode_seconds: float
    probe_seconds: float
    probe_converged: bool
    active_parameters: float  # expected per token, experts of all layers
    active_parameters_paper: float  # as Table 5 counts: experts of one layer


def spread_of(z_NC: NDArray[Any]) -> float:
    """How far representations lie from their mean, over their length: √(Σ‖z - z̄‖² / Σ‖z‖²).

    0 where all are equal, 1 where they cancel out. One sample says nothing: NaN.
    """
    if len(z_NC) < 2:
        return math.nan
    z = z_NC.astype(np.float64)
    # NumPy's order of summing hangs on where an array lies in memory: the same run would give other last digits.
    apart, length = (math.fsum(np.square(part).ravel()) for part in (z - z.mean(axis=0), z))
    return math.sqrt(apart / length) if length else 0.0


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """What a probe says of every split but train."""

    correct: dict[str, NDArray[np.bool_]]  # which samples it gets right
    predicted: dict[str, NDArray[np.int64]]  # (n,): their classes
    probabilities: dict[str, NDArray[Any]]  # (n, classes): of each of train's classes
    classes: NDArray[np.int64]  # that train has
    converged: bool  # False: the optimiser stopped at max_iterations

    def metrics(self, split: str, labels: NDArray[np.int64]) -> ClassMetrics:
        return ClassMetrics.of(labels, self.predicted[split], self.probabilities[split], self.classes)


def scaled(
    features: Mapping[str, NDArray[Any]], indicators: Mapping[str, NDArray[np.bool_]] = NOTHING, *, standardize: bool
) -> dict[str, NDArray[Any]]:
    """Features by train's statistics, and beside them the indicators as they are.

    Args:
        features: (n, width) per split, `train` among them.
        indicators: (n, K) per split, 1 where a sample lacks the modality; none of complete data.
    """
    # Imported here: most processes of a worker group never probe, and this import takes a second.
    from sklearn.preprocessing import StandardScaler

    if standardize:
        scaler = StandardScaler().fit(features["train"])
        features = {split: scaler.transform(x) for split, x in features.items()}
    return {
        split: np.concatenate([x, indicators[split].astype(x.dtype)], axis=1) if indicators else x
        for split, x in features.items()
    }


def probe(
    features: Mapping[str, NDArray[Any]],
    labels: Mapping[str, NDArray[np.int64]],
    config: ClassifierConfig,
    indicators: Mapping[str, NDArray[np.bool_]] = NOTHING,
) -> ProbeScore:
    """Fit on `train`; score every other split.

    Args:
        features, indicators: as of `scaled`.
        labels: (n,) per split.
    """
    # Imported here for the same reason as in `scaled`.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(C=config.inverse_regularization, max_iter=config.max_iterations)
    features = scaled(features, indicators, standardize=config.standardize)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(features["train"], labels["train"])
    scored = [split for split in features if split != "train"]
    predicted = {split: classifier.predict(features[split]) for split in scored}
    return ProbeScore(
        correct={split: predicted[split] == labels[split] for split in scored},
        predicted=predicted,
        probabilities={split: classifier.predict_proba(features[split]) for split in scored},
        classes=classifier.classes_,
        converged=bool((classifier.n_iter_ < config.max_iterations).all()),
    )


def probed(
    model: TrainedModel,
    data: Dataset,
    classifier: ClassifierConfig,
    *,
    output: str,
    on_sphere: bool,
    pruning: Pruning | None = None,
    begun: Begun | None = None,
) -> Outcome:
    """Probe a model's representations, pruned or not; no training of the model.

    The probe is fitted on the training split pruned at the same ratio. Every rank encodes; rank 0 probes, the others
    have no rows.

    Returns:
        A row per split but train, as `CurvePoint` describes them.
    """
    encoded = encode_splits(model, data, output=output, on_sphere=on_sphere, pruning=pruning, begun=begun)
    if rank() != 0:
        return Outcome([])
    started = time.perf_counter()
    labels = {name: split.labels for name, split in data.splits.items()}
    score = probe({name: e.z for name, e in encoded.items()}, labels, classifier, data.indicators())
    seconds = time.perf_counter() - started
    count = ParameterCount.of(*model.used(output))
    points = []
    for name, correct in score.correct.items():
        own = encoded[name]
        share = own.pairs_kept / own.pairs_routed if own.pairs_routed else 1.0
        points.append(
            CurvePoint(
                preservation_ratio=pruning.ratio if pruning else 1.0,
                split=name,
                accuracy=float(correct.mean()),
                samples=len(correct),
                spread=spread_of(own.z),
                correct=np.packbits(correct).tobytes(),
                **asdict(score.metrics(name, labels[name])),
                pairs_kept=own.pairs_kept,
                pairs_routed=own.pairs_routed,
                encode_seconds=own.seconds,
                probe_seconds=seconds,
                probe_converged=score.converged,
                active_parameters=count.active(share, "all_layers"),
                active_parameters_paper=count.active(share, "paper"),
            )
        )
    return Outcome([asdict(point) for point in points])


def _run(config: ProbeConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    assert parent is not None
    return probed(
        parent, data, config.classifier, output=config.output, on_sphere=config.on_sphere, begun=context.begun
    )


def _estimate(run: StageRun, facts: DataFacts) -> float:
    return probing_seconds(run, facts, SAMPLES_AT_ONCE, 1.0)


def probing_seconds(run: StageRun, facts: DataFacts, samples_at_once: int, ratio: float) -> float:
    """Encode every split with the model of the run's root and fit a probe."""
    model = run.root.config.model
    encoding = encoding_seconds(model, facts, samples_at_once, ratio)
    return encoding + probe_seconds(facts, model.width * len(facts.features))


PROBE = Stage("probe", 2, ProbeConfig, _run, _estimate)

"""Reference accuracies that need no representation learning: what any representation is to be held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import TrainedModel
from s3ray.stages.collective import rank
from s3ray.stages.cost import pooling_seconds, probe_seconds
from s3ray.stages.probe import NOTHING, ClassifierConfig, ProbeScore, probe
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

MAJORITY, RAW, MISSING = "majority class", "raw features", "what is missing"
# The probe's regularisation on raw features is chosen on validation, these times the configured one; of equals the
# first. Raw features differ in number and redundancy from representations, for which that one was chosen.
_FACTORS = (1.0, 0.1, 10.0)
# Features and indicators per split, as of `s3ray.stages.probe.scaled`.
_Inputs = tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """A reference's accuracy on a split."""

    reference: str
    split: str
    accuracy: float
    samples: int
    correct: bytes  # as of a curve's points
    balanced_accuracy: float  # this and the next three: `ClassMetrics`
    macro_f1: float
    weighted_f1: float
    auroc: float
    probe_converged: bool


def reference_points(data: Dataset, config: ClassifierConfig) -> list[ReferencePoint]:
    """Always answering the most frequent training class, and probes: on raw features, and on what is missing.

    The raw features of a sample are the means of its steps: of all modalities side by side (`raw features`), and of
    each alone (`raw NAME`). Where there are sequences, also means and deviations over steps side by side. What a sample
    lacks is 0, and told by indicators (ours). Where samples lack modalities, these alone are a reference, too (`what is
    missing`): who lacks what can tell the class, and whatever is above the majority there is no merit of a model.
    """
    labels = {name: split.labels for name, split in data.splits.items()}
    points = _points(MAJORITY, _majority(data), labels)
    for reference, (features, told) in _inputs(data).items():
        standardize = config.standardize and reference != MISSING
        tried = [_regularised(config, factor, standardize) for factor in _FACTORS]
        scores = [probe(features, labels, one, told) for one in tried]
        score = max(scores, key=lambda score: score.correct["valid"].mean())
        points += _points(reference, score, labels)
    return points


def _majority(data: Dataset) -> ProbeScore:
    """Always the most frequent training class, and certain of it."""
    classes, counts = np.unique(data.train.labels, return_counts=True)
    certain = np.eye(len(classes))[counts.argmax()]
    scored = {name: len(split) for name, split in data.splits.items() if name != "train"}
    return ProbeScore(
        correct={name: data.is_majority(name) for name in scored},
        predicted={name: np.full(samples, classes[counts.argmax()]) for name, samples in scored.items()},
        probabilities={name: np.tile(certain, (samples, 1)) for name, samples in scored.items()},
        classes=classes,
        converged=True,
    )


def _regularised(config: ClassifierConfig, factor: float, standardize: bool) -> ClassifierConfig:
    return ClassifierConfig(
        inverse_regularization=factor * config.inverse_regularization,
        max_iterations=config.max_iterations,
        standardize=standardize,
    )


def _inputs(data: Dataset) -> dict[str, _Inputs]:
    """Per reference what its probe reads."""
    means = {name: {m: s.means() for m, s in split.modalities.items()} for name, split in data.splits.items()}
    told = data.indicators()
    inputs: dict[str, _Inputs] = {RAW: (_joined(means), told)}
    if len(data.features) > 1:
        inputs |= {
            f"raw {m}": ({name: own[m] for name, own in means.items()}, data.indicators([m])) for m in data.features
        }
    if any(sequences.lengths.max() > 1 for sequences in data.train.modalities.values()):
        deviations = {
            name: {m: s.deviations() for m, s in split.modalities.items()} for name, split in data.splits.items()
        }
        both = {name: means[name] | {f"{m} deviation": d for m, d in own.items()} for name, own in deviations.items()}
        inputs["raw means and deviations"] = (_joined(both), told)
    if told:
        inputs[MISSING] = ({name: lacking.astype(np.float64) for name, lacking in told.items()}, NOTHING)
    return inputs


def _joined(of: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.concatenate(list(own.values()), axis=1) for name, own in of.items()}


def _points(reference: str, score: ProbeScore, labels: Mapping[str, NDArray[np.int64]]) -> list[ReferencePoint]:
    return [
        ReferencePoint(
            reference=reference,
            split=split,
            accuracy=float(correct.mean()),
            samples=len(correct),
            correct=np.packbits(correct).tobytes(),
            **asdict(score.metrics(split, labels[split])),
            probe_converged=score.converged,
        )
        for split, correct in score.correct.items()
    ]


def _run(config: ClassifierConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    points = reference_points(data, config) if rank() == 0 else []
    return Outcome([asdict(point) for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    """Pool the raw features and fit probes: on all of them, on each modality's, and on means and deviations.

    That on what is missing has few columns, and takes no time beside them.
    """
    features = sum(facts.features.values())
    sequences = any(most > 1 for most in facts.most_steps.values())
    return len(_FACTORS) * (2 + 2 * sequences) * probe_seconds(facts, features) + pooling_seconds(facts, sequences)


REFERENCE = Stage("reference", 3, ClassifierConfig, _run, _estimate)

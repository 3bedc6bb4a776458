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
from s3ray.stages.probe import ClassifierConfig, probe
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

MAJORITY, RAW = "majority class", "raw features"
# The probe's regularisation on raw features is chosen on validation, these times the configured one; of equals the
# first. Raw features differ in number and redundancy from representations, for which that one was chosen.
_FACTORS = (1.0, 0.1, 10.0)


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """A reference's accuracy on a split."""

    reference: str
    split: str
    accuracy: float
    samples: int
    correct: bytes  # as of a curve's points
    probe_converged: bool


def reference_points(data: Dataset, config: ClassifierConfig) -> list[ReferencePoint]:
    """Always answering the most frequent training class, and the probe on raw features.

    The raw features of a sample are the means of its steps: of all modalities side by side (`raw features`), and of
    each alone (`raw NAME`). Where there are sequences, also means and deviations over steps side by side.
    """
    points = [_point(MAJORITY, split, data.is_majority(split), True) for split in data.splits if split != "train"]
    labels = {name: split.labels for name, split in data.splits.items()}
    for reference, features in _raw_features(data).items():
        scores = [probe(features, labels, _regularised(config, factor)) for factor in _FACTORS]
        score = max(scores, key=lambda score: score.correct["valid"].mean())
        points += [_point(reference, split, correct, score.converged) for split, correct in score.correct.items()]
    return points


def _regularised(config: ClassifierConfig, factor: float) -> ClassifierConfig:
    return ClassifierConfig(
        inverse_regularization=factor * config.inverse_regularization,
        max_iterations=config.max_iterations,
        standardize=config.standardize,
    )


def _raw_features(data: Dataset) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Per reference and split (n, width)."""
    means = {name: {m: s.means() for m, s in split.modalities.items()} for name, split in data.splits.items()}

    def joined(of: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
        return {name: np.concatenate(list(own.values()), axis=1) for name, own in of.items()}

    features = {RAW: joined(means)}
    if len(data.features) > 1:
        features |= {f"raw {m}": {name: own[m] for name, own in means.items()} for m in data.features}
    if any(sequences.lengths.max() > 1 for sequences in data.train.modalities.values()):
        deviations = {
            name: {m: s.deviations() for m, s in split.modalities.items()} for name, split in data.splits.items()
        }
        both = {name: means[name] | {f"{m} deviation": d for m, d in own.items()} for name, own in deviations.items()}
        features["raw means and deviations"] = joined(both)
    return features


def _point(reference: str, split: str, correct: NDArray[np.bool_], converged: bool) -> ReferencePoint:
    packed = np.packbits(correct).tobytes()
    return ReferencePoint(reference, split, float(correct.mean()), len(correct), packed, converged)


def _run(config: ClassifierConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    points = reference_points(data, config) if rank() == 0 else []
    return Outcome([asdict(point) for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    """Pool the raw features and fit probes: on all of them, on each modality's, and on means and deviations."""
    features = sum(facts.features.values())
    sequences = any(most > 1 for most in facts.most_steps.values())
    return len(_FACTORS) * (2 + 2 * sequences) * probe_seconds(facts, features) + pooling_seconds(facts, sequences)


REFERENCE = Stage("reference", 3, ClassifierConfig, _run, _estimate)

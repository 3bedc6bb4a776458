"""Reference accuracies that need no representation learning: the floor of every curve."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.model import TrainedModel
from s3ray.stages.collective import rank
from s3ray.stages.cost import probe_seconds
from s3ray.stages.probe import ClassifierConfig, probe
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

_Reference = Literal["majority class", "raw features"]


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """A reference's accuracy on a split."""

    reference: _Reference
    split: str
    accuracy: float
    samples: int
    correct: bytes  # as of a curve's points
    probe_converged: bool


def reference_points(data: Dataset, config: ClassifierConfig) -> list[ReferencePoint]:
    """Always answering the most frequent training class, and the probe on raw features.

    The raw features of a sample are the means of its steps, all modalities side by side.
    """
    pooled = {
        name: np.concatenate([sequences.means() for sequences in split.modalities.values()], axis=1)
        for name, split in data.splits.items()
    }
    score = probe(pooled, {name: split.labels for name, split in data.splits.items()}, config)
    points = []
    for split, correct in score.correct.items():
        points += [
            _point("majority class", split, data.is_majority(split), True),
            _point("raw features", split, correct, score.converged),
        ]
    return points


def _point(reference: _Reference, split: str, correct: NDArray[np.bool_], converged: bool) -> ReferencePoint:
    packed = np.packbits(correct).tobytes()
    return ReferencePoint(reference, split, float(correct.mean()), len(correct), packed, converged)


def _run(config: ClassifierConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    points = reference_points(data, config) if rank() == 0 else []
    return Outcome([asdict(point) for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    """Mean-pool the raw features and fit a probe."""
    features = sum(facts.features.values())
    return probe_seconds(facts, features) + sum(facts.tokens.values()) * features / len(facts.features) * 2e-9


REFERENCE = Stage("reference", 2, ClassifierConfig, _run, _estimate)

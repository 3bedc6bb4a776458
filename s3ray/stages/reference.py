"""Reference accuracies that need no representation learning: the floor of every curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from s3ray.config import ProbeConfig
from s3ray.data.dataset import Dataset
from s3ray.stages.probe import probe


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """A reference's accuracy on a split."""

    reference: Literal["majority class", "raw features"]
    split: str
    accuracy: float
    samples: int
    probe_converged: bool


def reference_points(data: Dataset, config: ProbeConfig) -> list[ReferencePoint]:
    """Always answering the most frequent training class, and the probe on raw features.

    The raw features of a sample are the means of its steps, both modalities side by side.
    """
    pooled = {
        name: np.concatenate([sequences.means() for sequences in split.modalities.values()], axis=1)
        for name, split in data.splits.items()
    }
    score = probe(pooled, {name: split.labels for name, split in data.splits.items()}, config)
    points = []
    for split, accuracy in score.accuracy.items():
        samples = len(data.splits[split])
        points += [
            ReferencePoint("majority class", split, data.majority_rate(split), samples, True),
            ReferencePoint("raw features", split, accuracy, samples, score.converged),
        ]
    return points

"""What planning needs to know of a dataset, without its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from s3ray.data.dataset import DataKind, Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What planning needs to know of a dataset."""

    fingerprint: str  # of what training and probing see
    kind: DataKind
    features: Mapping[str, int]
    classes: int
    samples: Mapping[str, int]  # per split
    tokens: Mapping[str, int]  # per split, all modalities
    squares: Mapping[str, int]  # per split, all modalities: pairs of tokens that attention looks at, padding included
    label_rule: str | None = None  # how classes follow from stored labels, where that is a choice
    label_names: tuple[str, ...] = ()  # of the classes 0, 1, …, where that is known
    subsampled: Mapping[str, int] = field(default_factory=dict)  # steps per modality whose longer sequences were cut
    best_accuracy: float | None = None  # the best achievable, where a simulation knows it
    truth: str | None = None  # fingerprint of the data with a simulation's factors, where they are known
    warnings: tuple[str, ...] = ()  # what is odd about the data

    @property
    def content(self) -> str:
        """The name under which the data are published: `Dataset.content()`."""
        return self.truth or self.fingerprint

    @classmethod
    def of(cls, data: Dataset) -> DataFacts:
        splits = data.splits
        return cls(
            fingerprint=data.fingerprint(),
            kind=data.kind,
            features=data.features,
            classes=data.classes,
            samples={name: len(split) for name, split in splits.items()},
            tokens={
                name: int(np.sum([s.offsets[-1] for s in split.modalities.values()])) for name, split in splits.items()
            },
            squares={
                # A batch is padded to its longest sequence, which in all but small batches is about the longest of all.
                name: sum(len(split) * int(s.lengths.max()) ** 2 for s in split.modalities.values())
                for name, split in splits.items()
            },
            label_rule=data.facts.get("label_rule"),
            label_names=data.label_names,
            subsampled=data.facts.get("subsampled", {}),
            best_accuracy=data.facts.get("best_accuracy"),
            truth=data.truth_fingerprint(),
            warnings=data.warnings,
        )

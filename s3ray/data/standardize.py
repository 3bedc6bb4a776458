"""Features brought to mean 0 and deviation 1, by the training split's statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.names import listed

LARGEST = 5.0  # deviations: what lies beyond is cut off there, since one value would outweigh a whole sample


@dataclass(frozen=True, slots=True)
class Standardizer:
    """(x - mean) / deviation per feature of a modality, cut off at ±5; a feature that train holds constant becomes 0.

    The two vectors are kept in float32: with them every machine computes the same bits.
    """

    mean_F: NDArray[np.float32]
    deviation_F: NDArray[np.float32]  # infinite where a feature is constant

    @classmethod
    def of(cls, train: Sequences) -> Self:
        """Over all steps of the training split's sequences."""
        mean_F = train.values.mean(axis=0, dtype=np.float64)
        deviation_F = train.values.std(axis=0, dtype=np.float64)
        # By the values themselves: of a large constant, rounding leaves a deviation above 0.
        deviation_F[train.values.min(axis=0) == train.values.max(axis=0)] = np.inf
        return cls(mean_F.astype(np.float32), deviation_F.astype(np.float32))

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> Self:
        """What `plain` describes."""
        deviation_F = np.array([np.inf if d is None else d for d in plain["deviation"]], dtype=np.float32)
        return cls(np.array(plain["mean"], dtype=np.float32), deviation_F)

    @property
    def plain(self) -> dict[str, list[float | None]]:
        """As JSON holds it; no deviation stands for a constant feature."""
        deviation = [float(d) if np.isfinite(d) else None for d in self.deviation_F]
        return {"mean": [float(m) for m in self.mean_F], "deviation": deviation}

    @property
    def constant(self) -> NDArray[np.intp]:
        """Which features are."""
        return np.flatnonzero(~np.isfinite(self.deviation_F))

    def __call__(self, sequences: Sequences) -> Sequences:
        scaled = (sequences.values - self.mean_F) / self.deviation_F
        values = np.clip(scaled, -LARGEST, LARGEST, dtype=np.float32)
        return dataclasses.replace(sequences, values=values, standardized=True)


def standardized(data: Dataset) -> Dataset:
    """A dataset whose features all have mean 0 and deviation 1 on its training split; those that have stay as they are.

    How they were brought there is in its facts; warnings about units, which have no effect any more, give way to one
    that names what is constant.
    """
    train_data = data.train.modalities.items()
    scalers = {name: Standardizer.of(sequences) for name, sequences in train_data if not sequences.standardized}
    if not scalers:
        return data
    how = {name: scaler.plain for name, scaler in scalers.items()}
    warnings = {name: _constant(name, scaler) for name, scaler in scalers.items()}
    facts = {
        **data.facts,
        "standardized": {**data.facts.get("standardized", {}), **how},
        "scale_warnings": {**data.facts.get("scale_warnings", {}), **warnings},
    }
    train, valid, test = (standardized_split(split, scalers) for split in data.splits.values())
    return dataclasses.replace(data, train=train, valid=valid, test=test, facts=facts)


def standardized_split(split: Split, scalers: Mapping[str, Standardizer]) -> Split:
    """A split whose modalities have gone through their standardizers, those that had not before."""
    modalities = {
        name: scalers[name](sequences) if name in scalers and not sequences.standardized else sequences
        for name, sequences in split.modalities.items()
    }
    return dataclasses.replace(split, modalities=modalities)


def _constant(name: str, scaler: Standardizer) -> list[str]:
    if not len(scaler.constant):
        return []
    which = listed([str(feature) for feature in scaler.constant])
    counts = f"{len(scaler.constant)} of {len(scaler.mean_F)} features"
    return [f"{name}: {counts} never change in train and are set to 0: {which}"]

"""Sequences padded with zeros to one length, for encoders that route padding (`ModelConfig.padding`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from s3ray.data.dataset import Dataset, Sequences, Split

PADDING = -1  # in place of the factor that a token expresses


def longest(data: Dataset) -> dict[str, int]:
    """Per modality the steps of the longest sequence of any split."""
    return {
        name: max(int(split.modalities[name].lengths.max(initial=0)) for split in data.splits.values())
        for name in data.features
    }


def padded(data: Dataset) -> Dataset:
    """A dataset each of whose modalities has one length, the longest; so what a batch holds is no matter of chance."""
    steps = longest(data)
    train, valid, test = (padded_split(split, steps) for split in data.splits.values())
    return dataclasses.replace(data, train=train, valid=valid, test=test)


def padded_split(split: Split, steps: Mapping[str, int]) -> Split:
    """A split whose sequences have as many steps as `steps` says, which none exceeds; what is missing stays so."""
    modalities = {
        name: dataclasses.replace(
            Sequences.from_padded(sequences.padded(steps[name]), np.where(sequences.missing, 0, steps[name])),
            standardized=sequences.standardized,
        )
        for name, sequences in split.modalities.items()
    }
    expressed = {
        name: np.concatenate(
            [
                np.pad(own, (0, steps[name] - len(own)), constant_values=PADDING) if len(own) else own
                for own in np.split(factors, split.modalities[name].offsets[1:-1])
            ]
        )
        for name, factors in split.expressed.items()
    }
    return dataclasses.replace(split, modalities=modalities, expressed=expressed)

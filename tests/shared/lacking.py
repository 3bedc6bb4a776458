"""Datasets whose samples lack modalities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from s3ray.data.dataset import Dataset, Split


def lacking_split(split: Split, missing: Mapping[str, Sequence[int]]) -> Split:
    """A split of which these samples lack these modalities."""
    modalities = {
        name: sequences.where(~np.isin(np.arange(len(split)), missing.get(name, ())))
        for name, sequences in split.modalities.items()
    }
    return dataclasses.replace(split, modalities=modalities)


def lacking(data: Dataset, **missing: Mapping[str, Sequence[int]]) -> Dataset:
    """A dataset of which samples lack modalities: per split, by modality."""
    return dataclasses.replace(
        data, **{name: lacking_split(data.splits[name], samples) for name, samples in missing.items()}
    )

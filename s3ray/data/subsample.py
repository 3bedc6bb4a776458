"""Long sequences brought to fewer steps: what a step of training holds in memory grows with their length."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.padding import longest


def subsampled(data: Dataset, most: int) -> Dataset:
    """A dataset of which no sequence has more than `most` steps; one of which none had stays as it is.

    Which modalities were brought to how many steps is in its facts.
    """
    splits = data.splits.values()
    long = {name: most for name, steps in longest(data).items() if steps > most}
    if not long:
        return data
    facts = {**data.facts, "subsampled": {**data.facts.get("subsampled", {}), **long}}
    train, valid, test = (subsampled_split(split, long) for split in splits)
    return dataclasses.replace(data, train=train, valid=valid, test=test, facts=facts)


def subsampled_split(split: Split, most: Mapping[str, int]) -> Split:
    """A split whose longer sequences have as many steps as `most` says of their modality."""
    assert not most or not split.expressed, "a simulation's factors belong to single steps"
    modalities = {
        name: _subsampled(sequences, most[name]) if name in most else sequences
        for name, sequences in split.modalities.items()
    }
    return dataclasses.replace(split, modalities=modalities)


def _subsampled(sequences: Sequences, most: int) -> Sequences:
    """Of every sequence longer than `most`, the step in the middle of each of `most` equal parts."""
    lengths = sequences.lengths
    kept = np.minimum(lengths, most)
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    part = np.arange(offsets[-1]) - np.repeat(offsets[:-1], kept)
    rows = (2 * part + 1) * np.repeat(lengths, kept) // (2 * np.repeat(kept, kept))  # of a short one: every step
    values = sequences.values[np.repeat(sequences.offsets[:-1], kept) + rows]
    return dataclasses.replace(sequences, values=values, offsets=offsets)

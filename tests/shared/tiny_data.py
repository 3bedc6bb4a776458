"""A dataset of a few dozen samples."""

from __future__ import annotations

import numpy as np

from s3ray.data.dataset import Dataset, Sequences, Split


def _tiny_split(size: int, rng: np.random.Generator) -> Split:
    """Classes 0, 1, 2 in turn; every token carries its class in the first features. Lengths 1 to 6."""
    labels = np.arange(size) % 3
    modalities = {}
    for name, features in (("left", 5), ("right", 3)):
        values = rng.normal(size=(size, 6, features))
        values[:, :, :3] += 4.0 * np.eye(3)[labels][:, None, :]
        modalities[name] = Sequences.from_padded(values, rng.integers(1, 7, size))
    return Split(modalities, labels.astype(np.int64))


def tiny_dataset() -> Dataset:
    """26 / 10 / 9 ragged samples of modalities left (5 features) and right (3 features) in three classes."""
    rng = np.random.default_rng(0)
    splits = {name: _tiny_split(size, rng) for name, size in (("train", 26), ("valid", 10), ("test", 9))}
    return Dataset("tiny", "simulated", **splits)

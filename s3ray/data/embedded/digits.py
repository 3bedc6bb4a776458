"""`digits`: scikit-learn's real 8×8 images, seen as two sequences that are corrupted on their own.

Modality `rows` reads an image row by row, `columns` column by column. Each view loses its own band of
neighbouring image columns and gets its own noise, so that neither alone suffices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.embedded.declaration import Embedded


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsConfig:
    blanked_columns: int = 2  # of 8, neighbouring, at a random place per image and view
    noise: float = 0.1  # standard deviation; pixels lie in [0, 1]
    seed: int = 0  # of corruption and split
    train: int = 597  # samples; fewer if held_out leaves no more
    held_out: int = 600  # samples in each of valid and test


def digits(config: DigitsConfig = DigitsConfig()) -> Dataset:
    """Up to 1,797 images in ten classes; the splits are stratified."""
    # Imported here: every process of a worker group imports this module, only few use scikit-learn.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = bunch.images.astype(np.float32) / 16.0
    labels = bunch.target.astype(np.int64)
    rng = np.random.default_rng(config.seed)
    rows = _corrupted(images, config, rng)
    columns = _corrupted(images, config, rng).transpose(0, 2, 1)

    rest, test = train_test_split(
        np.arange(len(labels)), test_size=config.held_out, random_state=config.seed, stratify=labels
    )
    train, valid = train_test_split(
        rest,
        train_size=min(config.train, len(rest) - config.held_out),
        test_size=config.held_out,
        random_state=config.seed,
        stratify=labels[rest],
    )

    def split(indices: NDArray[np.int64]) -> Split:
        views = {"rows": rows[indices], "columns": columns[indices]}
        return Split({name: Sequences.from_padded(view) for name, view in views.items()}, labels[indices])

    return Dataset("digits", "embedded", split(train), split(valid), split(test))


def _corrupted(images: NDArray[np.float32], config: DigitsConfig, rng: np.random.Generator) -> NDArray[np.float32]:
    side = images.shape[2]
    first = rng.integers(0, side - config.blanked_columns + 1, size=(len(images), 1))
    column = np.arange(side)
    blank = (column >= first) & (column < first + config.blanked_columns)
    kept = np.where(blank[:, None, :], np.float32(0), images)
    return kept + rng.normal(0.0, config.noise, images.shape).astype(np.float32)


DATASET = Embedded(
    name="digits",
    load=digits,
    scales={scale: {"model": {"positions": "sinusoidal"}} for scale in ("paper", "smoke")},
)

"""`digits`: two corrupted views of scikit-learn's images."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from s3ray.data.dataset import Dataset, Split
from s3ray.data.embedded.digits import DigitsConfig, digits


def _images(split: Split, view: str) -> np.ndarray:
    """(n, 8, 8), rows first in both views."""
    images = split.modalities[view].values.reshape(-1, 8, 8)
    return images if view == "rows" else images.transpose(0, 2, 1)


@pytest.fixture(scope="module")
def clean() -> Dataset:
    return digits(DigitsConfig(blanked_columns=0, noise=0.0, train=1797))


@pytest.fixture(scope="module")
def blanked() -> Dataset:
    return digits(DigitsConfig(blanked_columns=3, noise=0.0, train=1797))


def test_shapes(clean: Dataset) -> None:
    # 1797 - 2 · 600 are left to train with.
    assert {name: len(split) for name, split in clean.splits.items()} == {"train": 597, "valid": 600, "test": 600}
    assert clean.features == {"rows": 8, "columns": 8}
    assert clean.classes == 10
    for split in clean.splits.values():
        for sequences in split.modalities.values():
            assert set(sequences.lengths) == {8}


def test_splits_are_disjoint_and_complete(clean: Dataset) -> None:
    def keys(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
        return [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]

    bunch = load_digits()
    found = [key for split in clean.splits.values() for key in keys(_images(split, "rows"), split.labels)]
    assert sorted(found) == sorted(keys((bunch.images / 16).astype(np.float32), bunch.target))


def test_the_training_split_can_be_smaller() -> None:
    data = digits(DigitsConfig(train=400, held_out=300))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 400, "valid": 300, "test": 300}


def test_splits_are_stratified(clean: Dataset) -> None:
    shares = np.bincount(load_digits().target) / 1797
    for split in clean.splits.values():
        # Counts are whole numbers, rounded once when test and once when valid is cut off.
        assert np.abs(np.bincount(split.labels) - shares * len(split)).max() <= 2


def test_columns_read_the_image_column_by_column(clean: Dataset) -> None:
    for split in clean.splits.values():
        rows, columns = (split.modalities[view].values.reshape(-1, 8, 8) for view in ("rows", "columns"))
        assert np.array_equal(rows, columns.transpose(0, 2, 1))


@pytest.mark.parametrize("view", ["rows", "columns"])
def test_three_neighbouring_columns_are_blanked(clean: Dataset, blanked: Dataset, view: str) -> None:
    for name, split in blanked.splits.items():
        corrupted, original = _images(split, view), _images(clean.splits[name], view)
        fits = np.zeros((6, len(split)), dtype=bool)  # per first column 0 … 5
        for first in range(6):
            expected = original.copy()
            expected[:, :, first : first + 3] = 0.0
            fits[first] = (corrupted == expected).all(axis=(1, 2))
        assert fits.any(axis=0).all()
        assert fits.any(axis=1).all()  # every place occurs


def test_views_lose_different_columns(blanked: Dataset) -> None:
    rows, columns = _images(blanked.train, "rows"), _images(blanked.train, "columns")
    # Places are drawn independently: equal for one in six images, blank margins let a few more look so.
    assert np.mean((rows == columns).all(axis=(1, 2))) < 1 / 3


def test_noise_has_its_deviation_and_is_drawn_per_view(blanked: Dataset) -> None:
    noisy = digits(DigitsConfig(blanked_columns=3, noise=0.15, train=1797))
    views = ("rows", "columns")
    noise = {view: _images(noisy.train, view) - _images(blanked.train, view) for view in views}
    for values in noise.values():
        # n = 1197 · 64 = 76,608: the deviation's own is 0.15 / √(2n) = 0.0004.
        assert values.std() == pytest.approx(0.15, abs=0.002)
    assert abs(np.corrcoef(noise["rows"].ravel(), noise["columns"].ravel())[0, 1]) < 0.02


def test_deterministic_in_its_seed() -> None:
    assert digits().fingerprint() == digits().fingerprint()
    assert digits().fingerprint() != digits(DigitsConfig(seed=1)).fingerprint()

"""Features brought to mean 0 and deviation 1 by the training split's statistics."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from s3ray.data import Dataset, from_arrays
from s3ray.data.standardize import Standardizer, standardized, standardized_split


def _data(scale: float = 1.0) -> Dataset:
    """Feature 0 of `left` is 1, 3, 1, 3 times `scale` on train, feature 1 always 7; `right` is sequences of 2 steps."""

    def split(first: list[float]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        left = np.array([[scale * x, 7.0] for x in first])
        right = np.array([[[x], [-x]] for x in first])
        return {"left": left, "right": right}, np.arange(len(first)) % 2

    return from_arrays("own", train=split([1, 3, 1, 3]), valid=split([2, 2]), test=split([1000, 3]))


def test_by_hand() -> None:
    data = standardized(_data())
    left = {name: split.modalities["left"].values.tolist() for name, split in data.splits.items()}
    # Mean 2, deviation 1; what never changes is 0, and what lies far beyond train is cut off at five deviations.
    assert left == {
        "train": [[-1, 0], [1, 0], [-1, 0], [1, 0]],
        "valid": [[0, 0], [0, 0]],
        "test": [[5, 0], [1, 0]],
    }
    # Over steps: 1, -1, 3, -3, 1, -1, 3, -3 have mean 0 and deviation √5.
    right = data.train.modalities["right"].values[:, 0]
    np.testing.assert_allclose(right * np.sqrt(5), [1, -1, 3, -3, 1, -1, 3, -3], rtol=1e-6)
    assert all(s.standardized for split in data.splits.values() for s in split.modalities.values())


def test_units_do_not_matter_and_nobody_is_warned_of_them() -> None:
    assert any("bring each feature to mean 0" in warning for warning in _data(1e6).warnings)
    own, other = standardized(_data(1e6)), standardized(_data())
    for name, array in own.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name])
    assert own.fingerprint() != other.fingerprint()  # new samples in one unit are none in the other
    assert "left: 1 of 2 features never change in train and are set to 0: 1" in own.warnings
    assert not any("bring each feature" in warning for warning in own.warnings)


def test_twice_is_once_and_the_data_given_stay_as_they_are() -> None:
    data = _data()
    before = data.fingerprint()
    once = standardized(data)
    assert standardized(once) is once
    assert data.fingerprint() == before != once.fingerprint()
    split = standardized_split(once.train, {"left": Standardizer.of(once.train.modalities["left"])})
    assert split.modalities["left"].values is once.train.modalities["left"].values


def test_saved_and_opened_it_is_still_standardised(tmp_path: Path) -> None:
    data = standardized(_data())
    data.save(tmp_path / "saved")
    opened = Dataset.open(tmp_path / "saved")
    assert standardized(opened) is opened
    assert opened.fingerprint() == data.fingerprint()
    assert opened.warnings == data.warnings


def test_modalities_that_are_already_keep_how_they_were() -> None:
    data, whole = _data(), standardized(_data())
    mixed = {"left": whole.train.modalities["left"], "right": data.train.modalities["right"]}
    half = dataclasses.replace(
        data,
        train=dataclasses.replace(data.train, modalities=mixed),
        facts={**data.facts, "standardized": {"left": whole.facts["standardized"]["left"]}},
    )
    assert standardized(half).facts["standardized"] == whole.facts["standardized"]


def test_what_is_stored_with_the_data_standardises_new_samples_alike() -> None:
    data = _data()
    plain = json.loads(json.dumps(standardized(data).facts["standardized"]))
    again = standardized_split(data.test, {name: Standardizer.restored(own) for name, own in plain.items()})
    for name, sequences in standardized(data).test.modalities.items():
        np.testing.assert_array_equal(again.modalities[name].values, sequences.values)


def test_a_single_training_sample_of_each_class_is_enough() -> None:
    one = ({"left": np.array([[1.0], [2.0]])}, np.array([0, 1]))
    data = standardized(from_arrays("own", train=one, valid=one, test=one))
    assert data.train.modalities["left"].values.tolist() == [[-1.0], [1.0]]


@pytest.mark.parametrize("large", [1e8, 1e12])
def test_a_constant_is_told_by_its_values_not_by_rounding(large: float) -> None:
    values = {"left": np.array([[large, 0.0], [large, 1.0], [large, 2.0]])}
    data = from_arrays("own", **dict.fromkeys(("train", "valid", "test"), (values, np.array([0, 1, 1]))))
    assert standardized(data).train.modalities["left"].values[:, 0].tolist() == [0, 0, 0]

"""Sequences brought to fewer steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from s3ray.data import Dataset, Split, from_arrays
from s3ray.data.facts import DataFacts
from s3ray.data.standardize import standardized
from s3ray.data.subsample import subsampled, subsampled_split
from s3ray.sweep import Study


def _data(lengths: tuple[int, ...] = (6, 3, 1)) -> Dataset:
    """`left` counts the steps of sequences of these lengths, as often as there are samples; `right` is vectors."""

    def split() -> tuple[dict[str, object], np.ndarray]:
        left = [np.arange(float(length))[:, None] for length in lengths]
        return {"left": left, "right": np.arange(float(len(lengths)))[:, None]}, np.arange(len(lengths)) % 2

    return from_arrays("own", train=split(), valid=split(), test=split())


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1, [[3], [1], [0]]),
        (2, [[1, 4], [0, 2], [0]]),
        (4, [[0, 2, 3, 5], [0, 1, 2], [0]]),
        (5, [[0, 1, 3, 4, 5], [0, 1, 2], [0]]),
    ],
)
def test_the_middle_of_equal_parts_by_hand(most: int, kept: list[list[int]]) -> None:
    data = subsampled(_data(), most)
    for split in data.splits.values():
        left = split.modalities["left"]
        assert [one[:, 0].tolist() for one in np.split(left.values, left.offsets[1:-1])] == kept
        assert split.modalities["right"].values.tolist() == [[0], [1], [2]]
    assert data.facts["subsampled"] == {"left": most}


@pytest.mark.parametrize("most", [6, 7])
def test_what_is_short_enough_is_the_same_data(most: int) -> None:
    data = _data()
    assert subsampled(data, most) is data


def test_it_is_part_of_the_identity_and_known_to_plans() -> None:
    data = _data()
    cut = subsampled(data, 2)
    assert cut.fingerprint() != data.fingerprint()
    alike = from_arrays(
        "own", **{name: ({m: _arrays(s, m) for m in cut.features}, s.labels) for name, s in cut.splits.items()}
    )
    # The same arrays, but a model of theirs would be given all steps of new samples.
    assert {n: a.tolist() for n, a in alike.arrays().items()} == {n: a.tolist() for n, a in cut.arrays().items()}
    assert alike.fingerprint() != cut.fingerprint()
    assert DataFacts.of(cut).subsampled == {"left": 2}
    assert DataFacts.of(data).subsampled == {}


def _arrays(split: Split, name: str) -> list[NDArray[np.float32]]:
    sequences = split.modalities[name]
    return np.split(sequences.values, sequences.offsets[1:-1])


def test_saved_and_opened_it_is_still_subsampled(tmp_path: Path) -> None:
    data = subsampled(_data(), 2)
    data.save(tmp_path / "saved")
    opened = Dataset.open(tmp_path / "saved")
    assert opened.fingerprint() == data.fingerprint()
    assert subsampled(opened, 2) is opened


def test_a_study_subsamples_before_it_standardises_and_only_if_asked() -> None:
    data = _data()
    assert Study.of({"own": data}, None, {}).entries["own"].facts.subsampled == {}
    study = Study.of({"own": data}, None, {"max_steps": 2})
    assert study.entries["own"].facts.subsampled == {"left": 2}
    assert study.data["own"].fingerprint() == standardized(subsampled(data, 2)).fingerprint()
    other = Study.of({"own": data}, None, {"dataset": {"own": {"max_steps": 5}}})
    assert other.entries["own"].facts.subsampled == {"left": 5}


def test_new_samples_go_through_the_same() -> None:
    data, cut = _data(), subsampled(_data(), 2)
    again = subsampled_split(data.test, cut.facts["subsampled"])
    np.testing.assert_array_equal(again.modalities["left"].values, cut.test.modalities["left"].values)
    assert subsampled_split(data.test, {}).modalities["left"] is data.test.modalities["left"]

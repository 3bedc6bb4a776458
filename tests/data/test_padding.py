"""Sequences of one length, zeros behind their ends."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from s3ray.data import DataFacts, Dataset
from s3ray.data.dataset import Sequences, Split
from s3ray.data.padding import PADDING, longest, padded, padded_split


def _split(*lengths: int, expressed: bool = True) -> Split:
    rows = np.arange(1, 1 + sum(lengths), dtype=np.float32)[:, None]
    sequences = dataclasses.replace(Sequences.from_rows(rows, np.array(lengths)), standardized=True)
    known = {"only": np.arange(sum(lengths))} if expressed else {}
    return Split({"only": sequences}, np.zeros(len(lengths), np.int64), expressed=known)


@pytest.mark.parametrize("longer", ["train", "valid", "test"])
def test_one_length_is_the_longest_of_any_split(longer: str) -> None:
    splits = dict.fromkeys(("train", "valid", "test"), _split(1, 2)) | {longer: _split(1, 3)}
    data = padded(Dataset("d", "user", **splits))
    assert longest(data) == {"only": 3}
    assert [split.modalities["only"].lengths.tolist() for split in data.splits.values()] == [[3, 3]] * 3


def test_zeros_stand_behind_and_express_nothing() -> None:
    filled = padded_split(_split(1, 3), {"only": 4})
    assert filled.modalities["only"].values[:, 0].tolist() == [1, 0, 0, 0, 2, 3, 4, 0]
    assert filled.modalities["only"].standardized
    assert filled.expressed["only"].tolist() == [0, PADDING, PADDING, PADDING, 1, 2, 3, PADDING]


@pytest.mark.parametrize("lengths", [(2,), (2, 2)])
def test_without_padding_nothing_changes(lengths: tuple[int, ...]) -> None:
    split = _split(*lengths, expressed=False)
    filled = padded_split(split, {"only": 2})
    assert np.array_equal(filled.modalities["only"].values, split.modalities["only"].values)
    assert filled.expressed == {}


def test_estimates_count_padding(tiny_dataset: Dataset) -> None:
    whole = DataFacts.of(padded(tiny_dataset))
    seen = DataFacts.of(tiny_dataset).padded
    assert (seen.tokens, seen.mean_steps, seen.most_steps) == (whole.tokens, whole.mean_steps, whole.most_steps)

"""Frames and torch datasets become datasets as files do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s3ray.data.dataset import Dataset
from s3ray.data.npz import read_npz, save_npz
from s3ray.errors import UserError
from small_files import ACC, GYRO, PLACES, SPLIT, N, holds, numbers, table


def test_a_frame(here: Path) -> None:
    data = Dataset.from_frame("mine", table(split=SPLIT))
    holds(data, acc=ACC, gyro=GYRO)
    assert (data.name, data.label_names) == ("mine", ("run", "sit"))
    save_npz(data, here / "mine.npz")
    assert read_npz("mine", here / "mine.npz").fingerprint() == data.fingerprint()
    chosen = Dataset.from_frame(
        "mine", table(split=SPLIT), modalities={"g": ["gyro_0", "gyro_2"], "a": "acc_*"}, label="kind"
    )
    holds(chosen, g=GYRO[:, [0, 2]], a=ACC)
    with pytest.raises(UserError, match=r"^label knd: nothing is called 'knd'"):
        Dataset.from_frame("mine", table(), label="knd")
    frame = table(subject="a", trial=np.arange(N) % 3)
    for wanted, sentence in {
        "seed": ({"seed": -1}, "seed -1: must be a whole number from 0 to 4294967295"),
        "group": ({"group": "subject"}, "group subject: one group (a) is left to cut test from"),
        "sample": ({"sample": "subject", "time": "trial"}, "name all columns that tell samples apart, such as sample "),
        "time": ({"time": "trial"}, "time trial: orders a sample's rows; name those with sample"),
    }.values():
        with pytest.raises(UserError) as error:
            Dataset.from_frame("mine", frame, modalities={"a": "acc_*"}, **wanted)
        assert sentence in str(error.value)
        assert "--" not in str(error.value)
    with pytest.raises(UserError, match=r"^mine: 2 samples of 2 classes cannot be split: "):
        Dataset.from_frame("mine", table()[:3].assign(kind=["a", "b", "b"]), label="kind", split="20/40/40")


class _Pairs(torch.utils.data.Dataset[Any]):
    """Samples of some places: a sequence of one or two steps, a vector, and a label that is 3 or 7."""

    def __init__(self, places: slice, form: Callable[[Any, Any, Any], Any]) -> None:
        self.places, self.form = range(N)[places], form

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Any:
        k = self.places[i]
        return self.form(torch.tensor(numbers(1 + k % 2, 2, k)), torch.tensor(GYRO[k]), [3, 7][k % 2])


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda x, z, y: ({"x": x, "z": z}, y), ()),
        (lambda x, z, y: {"x": x, "z": z, "label": torch.tensor(y)}, ()),
        (lambda x, z, y: (x, z, y), ("x", "z")),
    ],
)
def test_torch_datasets(form: Callable[[Any, Any, Any], Any], names: tuple[str, ...]) -> None:
    data = Dataset.from_torch("mine", **{s: _Pairs(p, form) for s, p in PLACES.items()}, modalities=names)
    assert (data.features, data.label_names) == ({"x": 2, "z": 3}, ("3", "7"))
    assert data.train.modalities["x"].lengths.tolist() == [1, 2] * 3
    assert np.array_equal(data.test.modalities["z"].values, GYRO[8:].astype(np.float32))
    assert data.test.labels.tolist() == [0, 1] * 2
    alone = Dataset.from_torch("mine", _Pairs(slice(0, N), form), modalities=names)
    assert [len(split) for split in alone.splits.values()] == [8, 2, 2]
    with pytest.raises(UserError, match=r"^mine: sample 0 of train: is neither"):
        Dataset.from_torch("mine", _Pairs(slice(0, N), lambda x, z, y: (x, z, z, y)))


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ([(2,), (3,)], "mine: x has shape (3,) in sample 1 of train and (2,) in the first; "),
        ([(2, 2), (3, 3)], "mine: x has shape (3, 3) in sample 1 of train and (2, 2) in the first; "),
        ([(2, 2), (2,)], "mine: x has shape (2,) in sample 1 of train and (2, 2) in the first; "),
    ],
)
def test_torch_datasets_of_unequal_samples(shapes: list[tuple[int, ...]], sentence: str) -> None:
    samples = [{"label": i % 2, "z": torch.ones(2), "x": torch.ones(shape)} for i, shape in enumerate(shapes * 6)]
    with pytest.raises(UserError) as error:
        Dataset.from_torch("mine", samples)
    assert str(error.value).startswith(sentence)


def test_torch_splits_of_different_steps() -> None:
    splits = {
        name: [({"x": torch.tensor(numbers(steps, 2, 7 * i)), "z": torch.ones(2)}, i % 2) for i in range(6)]
        for name, steps in (("train", 2), ("valid", 2), ("test", 3))
    }
    data = Dataset.from_torch("mine", **splits)
    assert [split.modalities["x"].lengths.tolist() for split in data.splits.values()] == [[2] * 6, [2] * 6, [3] * 6]

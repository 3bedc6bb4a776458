"""What planning knows of a dataset."""

from __future__ import annotations

import numpy as np
import pytest

from s3ray.data import from_arrays
from s3ray.data.facts import DataFacts


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            1,
            "1 test sample can tell little: of an accuracy of 75%, 85 points either way stay open (95% interval), what",
        ),
        (40, "40 test samples can tell little: of an accuracy of 75%, 13 points either way stay open (95% interval),"),
        (72, "72 test samples can tell little: of an accuracy of 75%, 10 points"),
        (73, ""),
    ],
)
def test_few_test_samples_are_warned_of(test: int, said: str) -> None:
    def split(samples: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        values = np.random.default_rng(samples).normal(size=(samples, 2))
        return {"left": values, "right": values[:, :1]}, np.arange(samples) % 2

    told = [
        w
        for w in DataFacts.of(from_arrays("own", train=split(80), valid=split(8), test=split(test))).warnings
        if "tell" in w
    ]
    assert len(told) == bool(said)
    assert all(warning.startswith(said) for warning in told)

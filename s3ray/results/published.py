"""The paper's tables, as printed."""

from __future__ import annotations

from importlib.resources import files
from io import StringIO

import pandas as pd

SEEDS = 3  # behind every printed mean


def published_table(number: int) -> pd.DataFrame:
    """The paper's Table `number` as printed; percentages are strings, digit for digit."""
    text = (files("s3ray") / "published" / f"table{number}.csv").read_text()
    return pd.read_csv(StringIO(text), dtype=str)


def fitting_means(dataset: str, test_samples: int) -> tuple[int, int]:
    """How many of a dataset's printed mean accuracies can be means of three seeds on so many test samples.

    A mean of three is a multiple of 100 / (3 · samples) percent; a printed one is such a multiple to two digits.

    Returns:
        Those that can, and all distinct ones of Tables 1 to 3.
    """
    tables = [published_table(number) for number in (1, 2, 3)]
    means = {mean for t in tables for mean in t.loc[t["dataset"] == dataset, "accuracy_mean"]}
    unit = 100 / (SEEDS * test_samples)
    # Half a unit of the last digit, and what binary fractions lose.
    fit = [abs(round(float(mean) / unit) * unit - float(mean)) <= 0.005 + 1e-9 for mean in means]
    return sum(fit), len(fit)

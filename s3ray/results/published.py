"""The paper's tables, as printed."""

from __future__ import annotations

from importlib.resources import files
from io import StringIO

import pandas as pd

SEEDS = 3  # behind every printed mean
GRANULARITY = 8  # χ of Tables 2 and 3


def published_table(number: int) -> pd.DataFrame:
    """The paper's Table `number` as printed; percentages are strings, digit for digit."""
    text = (files("s3ray") / "published" / f"table{number}.csv").read_text()
    return pd.read_csv(StringIO(text), dtype=str)


def fitting_means(dataset: str, test_samples: int) -> tuple[int, int]:
    """How many of a dataset's printed mean accuracies can be means of three seeds on so many test samples.

    Returns:
        Those that can, and all distinct ones of Tables 1 to 3.
    """
    tables = [published_table(number) for number in (1, 2, 3)]
    means = {mean for t in tables for mean in t.loc[t["dataset"] == dataset, "accuracy_mean"]}
    return sum(is_mean_of_seeds(mean, test_samples) for mean in means), len(means)


def is_mean_of_seeds(mean: str, test_samples: int) -> bool:
    """Whether a printed mean can be one of three accuracies on so many samples.

    Such a mean is a multiple of 100 / (3 · samples) percent, printed to two digits.
    """
    unit = 100 / (SEEDS * test_samples)
    # Half a unit of the last digit, and what binary fractions lose.
    return abs(round(float(mean) / unit) * unit - float(mean)) <= 0.005 + 1e-9


def printed_beside(number: int, key: str, rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Per line (by `key`) and column of Table `number` the paper's cells, for those datasets that are its own."""
    real = set(rows.loc[rows["kind"] == "multibench", "dataset"])
    cells: dict[str, dict[str, str]] = {}
    for _, cell in published_table(number).iterrows():
        if cell["dataset"] in real:
            printed = f"{cell['accuracy_mean']} ({cell['accuracy_std']})"
            cells.setdefault(cell[key], {})[f"{cell['dataset']} (paper)"] = printed
    return cells

"""Accuracy by what samples have, on made-up rows."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pandas as pd
import pytest

from s3ray.results.exhibits import asked_for
from s3ray.results.exhibits.present import present_table

NAMES = ("first", "second")


def _rows(
    missing: dict[str, tuple[str, ...]], seeds: tuple[int, ...] = (0, 1, 2), ratios: Any = (1.0, 0.5)
) -> pd.DataFrame:
    """80 % at p = 1 and 82 % at .5, two points more of complete samples, ten less of each that lacks one; seeds a point
    apart. Per dataset the modalities that samples of test lack."""
    rows = []
    for (dataset, lacking), seed, p, split in itertools.product(missing.items(), seeds, ratios, ("valid", "test")):
        height = ({1.0: 80, 0.5: 82}[p] + seed - 1) / 100
        told = lacking if split == "test" else ()
        by_name = {name: {"accuracy": height - 0.1, "samples": 7} for name in told}
        rows.append(
            {
                "dataset": dataset, "method": "s3", "kind": "user", "scale": "smoke", "granularity": 8,
                "batch_size": 64, "branch": "suff+min", "reading": "", "seed": seed, "preservation_ratio": p,
                "split": split, "samples": 100, "accuracy": height,
                "accuracy_complete": height + 0.02 if told else None,
                "samples_complete": 60 if told else None,
                "accuracy_lacking": json.dumps(by_name) if told else None,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_a_line_at_p_1_and_at_p_star() -> None:
    table = present_table(_rows({"mine": NAMES}))
    assert table["p"].tolist() == ["1", "p* 0.5"]
    assert table["all (%)"].tolist() == ["80.00 (1.00)", "82.00 (1.00)"]
    assert table["complete (%)"].tolist() == ["82.00 (1.00)", "84.00 (1.00)"]
    assert table["without second (%)"].tolist() == ["70.00 (1.00)", "72.00 (1.00)"]
    assert set(table["n"]) == {3}
    counts = table[["samples", "complete samples", "samples without first", "samples without second"]].drop_duplicates()
    assert counts.to_numpy().tolist() == [[100, 60, 7, 7]]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_data_of_several_modalities_stand_beside_data_that_lack_none(seeds: tuple[int, ...]) -> None:
    table = present_table(_rows({"mine": ("first",), "yours": ("second",), "whole": ()}, seeds))
    assert table["dataset"].tolist() == ["mine (user data)"] * 2 + ["yours (user data)"] * 2
    assert table["without first (%)"].isna().tolist() == [False, False, True, True]


def test_without_a_curve_there_is_p_1_alone() -> None:
    assert present_table(_rows({"mine": NAMES}, ratios=(1.0,)))["p"].tolist() == ["1"]


def test_of_complete_data_there_is_no_table() -> None:
    assert present_table(_rows({"whole": ()})).empty
    columns = ["accuracy_complete", "samples_complete", "accuracy_lacking"]
    assert present_table(_rows({"whole": ()}).drop(columns=columns)).empty


def test_every_sweep_has_it() -> None:
    assert "present" in [exhibit.name for exhibit in asked_for("any", ())]

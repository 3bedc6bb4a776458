"""Where samples lack modalities, on made-up values whose means are known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from s3ray.results.columns import COLUMNS
from s3ray.results.exhibits import EXHIBITS
from s3ray.stages.missing import MissingPoint

EXHIBIT = EXHIBITS["missing_modalities"]
RATIOS = {"none": (1.0,), "suff+min": (1.0, 0.5, 0.1)}


def _results(datasets: tuple[str, ...] = ("three",), seeds: tuple[int, ...] = (0, 1, 2), χs: Any = (8,)) -> Any:
    """80 % at p = 1, 82 % at .5 and 70 % at .1, ten points less where 61 % are missing; without Selection 4 points
    less. Seeds a point apart."""
    rows, points = [], []
    for dataset, χ, branch, seed, split in itertools.product(datasets, χs, RATIOS, seeds, ("valid", "test")):
        for p in RATIOS[branch]:
            cell = {
                "dataset": dataset, "method": "s3", "kind": "simulated", "scale": "smoke", "granularity": χ,
                "batch_size": 64, "branch": branch, "reading": "", "seed": seed, "preservation_ratio": p,
                "split": split, "samples": 100,
            }  # fmt: skip
            height = {1.0: 80, 0.5: 82, 0.1: 70}[p] + seed - 1 - 4 * (branch == "none") - (χ == 2)
            rows.append(cell | {"accuracy": height / 100})
            gone = {0.0: 0.0, 0.1: 0.1, 0.75: 0.61 + (seed - 1) / 100}  # one modality stays: fewer than were drawn
            points += [
                cell | {"missing": q, "share_missing": share, "accuracy": (height - 20 * (q == 0.75) / 2) / 100}
                for q, share in gone.items()
            ]
    return cast(Any, SimpleNamespace(rows=pd.DataFrame(rows), missing=pd.DataFrame(points)))


def test_a_line_per_stage_and_a_column_per_share() -> None:
    (table,) = (one.frame for one in EXHIBIT.tables(_results()).values())
    assert table["p"].tolist() == ["1", "1", "p* 0.5"]
    assert table["method"].tolist() == ["S3, after Specialization", "S3, after Selection", "S3, after Selection"]
    assert table["0% missing"].tolist() == ["76.00 (1.00)", "80.00 (1.00)", "82.00 (1.00)"]
    assert table["61% missing"].tolist() == ["66.00 (1.00)", "70.00 (1.00)", "72.00 (1.00)"]
    assert set(table["n"]) == {3}


@pytest.mark.parametrize("datasets", [("three",), ("mine", "three")])
def test_a_panel_per_dataset_with_three_curves_of_the_largest_granularity(datasets: tuple[str, ...]) -> None:
    figures = EXHIBIT.figures(_results(datasets, χs=(2, 8)))
    (panels,) = figures["missing_modalities_batch_64"].panels
    assert [panel.title for panel in panels] == [f"{name} (simulated data), χ = 8" for name in datasets]
    for panel in panels:
        curves = {curve.label: curve for curve in panel.curves}
        assert list(curves) == ["after Specialization", "after Selection", "after Selection, at p*"]
        assert list(curves["after Selection, at p*"].x) == pytest.approx([0, 10, 61])
        assert list(curves["after Selection, at p*"].y) == pytest.approx([82, 82, 72])


def test_of_one_seed_and_without_a_finished_curve() -> None:
    results = _results(seeds=(0,))
    (table,) = (one.frame for one in EXHIBIT.tables(results).values())
    assert set(table["n"]) == {1}
    assert table["0% missing"].tolist() == ["75.00", "79.00", "81.00"]
    for name in ("rows", "missing"):
        frame = getattr(results, name)
        setattr(results, name, frame[frame["branch"] == "none"])
    (table,) = (one.frame for one in EXHIBIT.tables(results).values())
    assert table["p"].tolist() == ["1"]
    (panels,) = EXHIBIT.figures(results)["missing_modalities_batch_64"].panels
    assert [curve.label for curve in panels[0].curves] == ["after Specialization"]


def test_columns_are_described() -> None:
    assert set(MissingPoint.__dataclass_fields__) <= set(COLUMNS["missing"])

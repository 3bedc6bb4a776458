"""Which modality carries what, on made-up values whose means are known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from s3ray.results import labels
from s3ray.results.columns import COLUMNS
from s3ray.results.exhibits import EXHIBITS
from s3ray.stages.modalities import ModalityPoint

RATIOS = (1.0, 0.5, 0.1)
ALONE = {"first": 60.0, "second": 50.0, "third": 40.0}
EXHIBIT = EXHIBITS["modalities"]


def _results(modalities: tuple[str, ...] = tuple(ALONE), seeds: tuple[int, ...] = (0, 1, 2)) -> Any:
    """All reach 80 % at p = 1, 82 % at .5 and 70 % at .1; seeds a point apart. Ranked among the model, the first
    modality loses a tenth more than its part. χ = 2 is a point below χ = 8."""
    rows, points = [], []
    for reading, χ, branch, seed, p, split in itertools.product(
        ("", "ranked among: model"), (2, 8), ("none", "suff+min"), seeds, RATIOS, ("valid", "test")
    ):
        cell = {
            "dataset": "three", "method": "s3", "kind": "user", "scale": "smoke", "granularity": χ, "batch_size": 64,
            "branch": branch, "reading": reading, "seed": seed, "preservation_ratio": p, "split": split,
        }  # fmt: skip
        above = seed - 1 - (χ == 2)
        rows.append(cell | {"accuracy": ({1.0: 80, 0.5: 82, 0.1: 70}[p] + above) / 100, "samples": 100})
        for name in modalities:
            kept = p - 0.1 * p * (name == "first" and reading != "") * (p < 1)
            others = float("nan") if len(modalities) == 1 else (ALONE[name] + 10 + above) / 100
            points.append(
                cell | {"modality": name, "alone": (ALONE[name] + above) / 100, "without": others, "samples": 100}
                | {"pairs_kept": kept}
            )  # fmt: skip
    return cast(Any, SimpleNamespace(rows=pd.DataFrame(rows), modalities=pd.DataFrame(points)))


def test_the_table_has_p_1_and_the_chosen_p_of_every_curve() -> None:
    (table,) = (one.frame for one in EXHIBIT.tables(_results()).values())
    # 2 readings × 2 χ × 2 branches × 2 p × 3 modalities.
    assert len(table) == 2 * 2 * 2 * 2 * 3
    assert set(table["p"]) == {"1", "p* 0.5"}
    of = table.set_index(["reading", "χ", "method", "p", "modality"])
    selected = labels.title("s3", "suff+min")
    line = of.loc["ranked among: model", 8, selected, "p* 0.5", "first"]
    assert line["all (%)"] == "82.00 (1.00)"
    assert line["alone (%)"] == "60.00 (1.00)"
    assert line["all but it (%)"] == "70.00 (1.00)"
    assert line["its pairs kept (%)"] == "45.0 (0.0)"
    assert line["n"] == 3
    assert of.loc["as usual", 8, selected, "p* 0.5", "first"]["its pairs kept (%)"] == "50.0 (0.0)"


def test_a_figure_per_reading_shows_the_largest_granularity() -> None:
    figures = EXHIBIT.figures(_results())
    assert list(figures) == ["modalities_three_batch_64", "modalities_three_batch_64_ranked_among_model"]
    accuracies, kept = figures["modalities_three_batch_64_ranked_among_model"].panels
    assert accuracies[0].title == "after Specialization"
    curves = {curve.label: curve for curve in accuracies[1].curves}
    assert set(curves) == {
        "all modalities",
        *(f"{name} alone" for name in ALONE),
        *(f"all but {name}" for name in ALONE),
    }
    assert list(curves["all modalities"].x) == [1.0, 0.5, 0.1]
    assert list(curves["all modalities"].y) == pytest.approx([80, 82, 70])
    assert list(curves["all but third"].y) == pytest.approx([50, 50, 50])
    beyond = {curve.label: list(curve.y) for curve in kept[0].curves}
    assert beyond["pairs of first"] == pytest.approx([0, -5, -1])
    assert beyond["pairs of third"] == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(("modalities", "curves"), [(("first",), 2), (("first", "second"), 3)])
def test_of_one_and_of_two_there_is_nothing_to_leave_out(modalities: tuple[str, ...], curves: int) -> None:
    results = _results(modalities, seeds=(0,))
    (table,) = (one.frame for one in EXHIBIT.tables(results).values())
    assert set(table["n"]) == {1}
    assert not any("(" in text for text in table["alone (%)"])
    if len(modalities) == 1:
        assert set(table["all but it (%)"]) == {""}
    chart = EXHIBIT.figures(results)["modalities_three_batch_64"]
    assert len(chart.panels[0][0].curves) == curves


def test_columns_are_described() -> None:
    measured = set(ModalityPoint.__dataclass_fields__)
    assert measured <= set(COLUMNS["modalities"])

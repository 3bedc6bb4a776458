"""What experts add to the residual stream, and Figure 5's line without any, on made-up results (made_up.py)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import pytest

from s3ray.results import Results
from s3ray.results.curves import curve_grid
from s3ray.results.exhibits.contributions import EXHIBIT, contribution_chart, contribution_table

HEADINGS = ["dataset", "batch size", "χ", "modality", "layer", "initialisation", "Specialization"]


@pytest.fixture(scope="module")
def results(embedded: Any) -> Results:
    found: Results = embedded.results
    return found


def test_lines_and_headings(results: Results) -> None:
    """0.1 at the first of eight steps, 0.17 at the last, 0.2 more during Selection."""
    table = contribution_table(results.contributions)
    selections = [f"Selection ({branch})" for branch in ("suff+min", "suff", "min")]
    assert list(table.columns) == [*HEADINGS, *selections, "n"]
    assert len(table) == 3 * 3 * 2 * 2  # datasets and batch sizes, χ, modalities, layers
    own = table[(table["dataset"] == "digits (embedded data)") & (table["batch size"] == 64) & (table["χ"] == 8)]
    assert own[["modality", "layer"]].to_numpy().tolist() == [
        ["rows", 0],
        ["rows", 1],
        ["columns", 0],
        ["columns", 1],
    ]
    # χ adds 0.8, the layer 10, the second modality 1; seeds lie 0.1 apart.
    assert own.iloc[3, 5:].tolist() == ["21.8 (0.1)", "28.8 (0.1)", "48.8 (0.1)", "48.8 (0.1)", "48.8 (0.1)", 3]


def test_a_selection_that_was_not_trained_is_blank(results: Results) -> None:
    table = contribution_table(results.contributions)
    assert set(table.loc[table["χ"] == 2, "Selection (suff)"]) == {""}
    chosen = results.contributions[results.contributions["after"] != "Selection"]
    assert list(contribution_table(chosen).columns) == [*HEADINGS, "n"]


def test_one_seed_has_no_deviation(results: Results) -> None:
    table = contribution_table(results.contributions[results.contributions["seed"] == 1])
    assert table.iloc[0]["initialisation"] == "10.2"
    assert set(table["n"]) == {1}


def test_the_figure_has_a_curve_per_granularity_over_stages(results: Results) -> None:
    """Means over modalities (half a point) and layers (5 points)."""
    charts = EXHIBIT.figures(results)
    assert list(charts) == ["contributions_batch_64", "contributions_batch_128"]
    ((digits, simulated),) = charts["contributions_batch_64"].panels
    assert (digits.title, simulated.title) == ("digits (embedded data)", "latent_factors (simulated data)")
    assert [curve.label for curve in digits.curves] == ["χ = 2", "χ = 4", "χ = 8"]
    assert list(digits.curves[2].x) == [0.0, 1.0, 2.0]
    assert list(digits.curves[2].y) == pytest.approx([16.3, 23.3, 43.3])
    assert list(digits.curves[2].spread) == pytest.approx([0.1] * 3)
    assert len(charts["contributions_batch_128"].panels[0]) == 1


def test_without_selection_curves_end_before_it(results: Results) -> None:
    frame = results.contributions
    ((panel,),) = contribution_chart(frame[(frame["after"] != "Selection") & (frame["dataset"] == "digits")]).panels
    assert all(list(curve.x) == [0.0, 1.0] for curve in panel.curves)


def figure5(results: Results, controls: pd.DataFrame) -> Any:
    """Of latent_factors at χ = 8, whose Selection lies 55.64 high at p = 1; with its panel's heights."""
    rows = results.rows
    rows = rows[(rows["dataset"] == "latent_factors") & (rows["method"] == "s3") & (rows["granularity"] == 8)]
    rows = rows[rows["branch"].isin(["none", "suff+min"])]
    shown = dataclasses.replace(results, controls=controls)
    ((panel,),) = curve_grid(rows, shown, columns="dataset", title="").panels
    return panel


@pytest.mark.parametrize(("accuracy", "is_near"), [(0.45, True), (0.1, False)])
def test_figure_5_shows_what_no_expert_gives_near_or_in_words(results: Results, accuracy: float, is_near: bool) -> None:
    """The other dataset's 90 % is no part of it."""
    controls = results.controls.copy()
    here = (controls["control"] == "no expert") & (controls["dataset"] == "latent_factors")
    controls.loc[controls["control"] == "no expert", "accuracy"] = 0.9
    controls.loc[here, "accuracy"] = accuracy
    panel = figure5(results, controls)
    levels = {level.label: level.y for level in panel.levels}
    assert levels.get("no expert at all (p 0)") == (pytest.approx(100 * accuracy) if is_near else None)
    assert ("no expert 10.0 ↓" in panel.note.split("\n")) == (not is_near)


def test_figure_5_without_controls_has_no_such_line(results: Results) -> None:
    for controls in (pd.DataFrame(), results.controls[results.controls["control"] == "random"]):
        panel = figure5(results, controls)
        assert "no expert" not in panel.note
        assert "no expert at all (p 0)" not in {level.label for level in panel.levels}

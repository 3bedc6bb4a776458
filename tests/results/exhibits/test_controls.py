"""The router against chance: its table and charts, on made-up results that are known by formula (made_up.py)."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any

import pandas as pd
import pytest

from s3ray.results import Results
from s3ray.results.chart import Chart, Panel
from s3ray.results.controlled import controlled
from s3ray.results.drawing import draw
from s3ray.results.exhibits import EXHIBITS
from s3ray.results.exhibits.controls import EXHIBIT, control_chart, control_table
from s3ray.results.interactive import interactive

DIGITS_64 = "controls_digits_batch_64"


@pytest.fixture(scope="module")
def results(embedded: Any) -> Results:
    """χ = 2 and 8 alone: what a third adds takes seconds and shows nothing.

    Rows do not say which samples are right, so that intervals, of seeds alone, can be followed by hand.
    """
    found: Results = dataclasses.replace(embedded.results, rows=embedded.results.rows.drop(columns="correct"))
    rows, controls = (f[f["granularity"].isin([2, 8]) & (f["method"] == "s3")] for f in (found.rows, found.controls))
    return dataclasses.replace(found, rows=rows, controls=controls)


def place(frame: pd.DataFrame, **asked: Any) -> pd.DataFrame:
    for name, value in asked.items():
        frame = frame[frame[name] == value]
    return frame


def some(results: Results, **asked: Any) -> Results:
    """One configuration's."""
    return dataclasses.replace(results, rows=place(results.rows, **asked), controls=place(results.controls, **asked))


SELECTED: dict[str, Any] = {"dataset": "digits", "batch_size": 64, "granularity": 8, "branch": "suff+min"}


def chart_of(rows: pd.DataFrame, controls: pd.DataFrame) -> Panel:
    ((panel,),) = control_chart(rows, controls, controlled(rows, controls)).panels
    return panel


def heights(panel: Panel) -> dict[str, dict[float, float]]:
    return {c.label: dict(zip(c.x, (round(y, 6) for y in c.y), strict=True)) for c in panel.curves}


def test_a_line_by_hand(results: Results) -> None:
    """χ 8, batch size 64: 64.64 before Selection, 72.64 at the peak behind it.

    p* is 0.5 on validation, a point below the peak on test. Random pruning loses 5 points there, before Selection as
    well. All differences but those from floors are the same at every seed: one of 300 samples, 1/300/√6, is what they
    are known to, and t(0.975, 2) / √3 times that is 0.34 points. From a floor they lie a point apart: 2.48.
    """
    own = some(results, dataset="digits", batch_size=64, granularity=8)
    (line,) = place(control_table(controlled(own.rows, own.controls)), **{"Selection loss": "suff+min"}).to_dict(
        "records"
    )
    assert line == {
        "dataset": "digits (embedded data)",
        "χ": 8,
        "batch size": 64,
        "Selection loss": "suff+min",
        "n": 3,
        "p*": "0.5",
        "test at p*": "71.64",
        "over random": "+5.0 [+4.7, +5.3]",
        "router": "yes",
        "more than before Selection": "+0.0 [-0.5, +0.5]",
        "over no expert": "+26.6 [+24.2, +29.1]",
        "p 1 over no expert": "+21.6 [+19.2, +24.1]",
        "experts": "yes",
        "over untrained": "+36.6 [+34.2, +39.1]",
        "p 1 over untrained": "+31.6 [+29.2, +34.1]",
        "training": "yes",
    }


def test_a_difference_of_nothing_has_one_sign(results: Results) -> None:
    """Rounding makes a zero of either sign."""
    own = some(results, dataset="digits", batch_size=64, granularity=8)
    frame = controlled(own.rows, own.controls).assign(interaction=-1e-17)
    assert set(control_table(frame)["more than before Selection"].str.split().str[0]) == {"+0.0"}


def test_every_curve_has_a_line_and_what_was_not_measured_no_column(results: Results) -> None:
    tables = EXHIBIT.tables(results)
    assert list(tables) == ["controls"]
    table = tables["controls"].frame
    # digits at two batch sizes, latent_factors at one; two branches at χ 2, four at 8.
    assert len(table) == 3 * (2 + 4)
    assert "over smallest" not in table
    assert "over contribution" not in table
    before = table["Selection loss"] == "none"
    assert (table.loc[before, "more than before Selection"] == "").all()
    assert "no expert at all" not in tables["controls"].note


@pytest.mark.parametrize(
    ("control", "left_out"),
    [
        ("random", {"over random", "router", "more than before Selection"}),
        ("no expert", {"over no expert", "p 1 over no expert", "experts"}),
        ("untrained", {"over untrained", "p 1 over untrained", "training"}),
    ],
)
def test_a_control_that_is_not_there_has_no_column(results: Results, control: str, left_out: set[str]) -> None:
    own = some(results, dataset="digits", batch_size=64, granularity=8)
    whole = control_table(controlled(own.rows, own.controls))
    less = control_table(controlled(own.rows, own.controls[own.controls["control"] != control]))
    assert set(whole.columns) - set(less.columns) == left_out
    assert len(less) == len(whole)


def renamed(controls: pd.DataFrame, rule: str, lost: float) -> pd.DataFrame:
    """Another rule's curve, so many points below random pruning's."""
    own = controls[controls["control"] == "random"]
    return own.assign(control=rule, accuracy=own["accuracy"] - lost / 100)


def test_other_rules_have_a_column_and_a_curve_each(results: Results) -> None:
    own = some(results, **SELECTED)
    controls = pd.concat(
        [own.controls, renamed(own.controls, "smallest", 5), renamed(own.controls, "contribution", -2)]
    )
    (line,) = control_table(controlled(own.rows, controls)).to_dict("records")
    assert (line["over smallest"], line["over contribution"]) == ("+10.0 [+9.7, +10.3]", "+3.0 [+2.7, +3.3]")
    drawn = heights(chart_of(own.rows, controls))
    assert drawn["smallest weights kept"][0.5] == pytest.approx(61.64)
    assert drawn["largest contributions kept"][0.5] == pytest.approx(68.64)


def with_floor(results: Results, name: str, points: float) -> Results:
    """Results in which a floor gives what p = 1 gives, and so many points more."""
    full = place(results.rows, preservation_ratio=1.0).set_index(["seed", "split"])["accuracy"]
    controls = results.controls.copy()
    floor = controls["control"] == name
    places = pd.MultiIndex.from_frame(controls.loc[floor, ["seed", "split"]])
    controls.loc[floor, "accuracy"] = full.loc[places].to_numpy() + points / 100
    return dataclasses.replace(results, controls=controls)


WHERE = "digits, χ 8, batch size 64, suff+min"
HALF = "0.3"  # a step of 1/300/√6 at each of three seeds
FLOORS = {
    ("no expert", 0): ("experts do not matter here; a pruning curve says nothing", f"[-{HALF}, +{HALF}]"),
    ("no expert", 10): ("experts hurt here; a pruning curve says nothing", "[-10.3, -9.7]"),
    ("untrained", 0): ("training gained nothing here", f"[-{HALF}, +{HALF}]"),
    ("untrained", 10): ("training hurt here", "[-10.3, -9.7]"),
}


@pytest.mark.parametrize(("floor", "points"), FLOORS)
def test_where_a_floor_is_as_good_that_is_said_before_the_shape(results: Results, floor: str, points: float) -> None:
    own = with_floor(some(results, **SELECTED), floor, points)
    said, interval = FLOORS[floor, points]
    reaches = "no expert at all reaches" if floor == "no expert" else "untrained encoders reach"
    full = "all of them" if floor == "no expert" else "the trained"
    numbers = f"{reaches} {66.64 + points:.1f} and {full} 66.6 ({-points + 0.0:+.1f} {interval}, n = 3 seeds)"
    assert f"{WHERE}: {numbers}: {said}." in EXHIBITS["controls"].tables(own)["controls"].note
    (verdict,) = EXHIBITS["verdicts"].tables(own)["verdicts"].frame["verdict"]
    assert verdict == f"{said}; peak inside"
    words = chart_of(own.rows, own.controls).note.split("\n")
    assert words[:2] == [said, "shape: peak inside; at p* 0.5"] if floor == "no expert" else said in words


def test_where_controls_are_beaten_nothing_stands_before_the_shape(results: Results) -> None:
    own = some(results, **SELECTED)
    assert EXHIBITS["verdicts"].tables(own)["verdicts"].frame["verdict"].tolist() == ["peak inside"]


def test_one_seed_is_told_what_it_needs(results: Results) -> None:
    own = some(results, **SELECTED, seed=1)
    (line,) = EXHIBITS["verdicts"].tables(own)["verdicts"].frame.to_dict("records")
    assert (line["experts matter"], line["router's doing"], line["verdict"]) == ("one seed", "one seed", "undecided")
    assert line["needed"] == "more seeds: one tests no shape"


def test_curves_are_held_against_their_controls_once(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(rows: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
        asked.append(len(rows))
        return controlled(rows, controls)

    monkeypatch.setattr(import_module("s3ray.results.collect"), "controlled", counted)
    own = some(results, **SELECTED)
    for name in ("controls", "verdicts", "summary"):
        EXHIBITS[name].tables(own)
        EXHIBITS[name].figures(own)
    assert asked == [len(own.rows)]


def test_a_chart_per_dataset_and_batch_size_of_the_two_main_branches(results: Results) -> None:
    charts = EXHIBIT.figures(results)
    assert list(charts) == [DIGITS_64, "controls_digits_batch_128", "controls_latent_factors_batch_64"]
    chart: Chart = charts[DIGITS_64]
    assert chart.title == "The router against chance: digits (embedded data), batch size 64\ntest, mean ± std, n = 3"
    assert [row.title for row in chart.rows] == ["χ = 2\ntest accuracy (%)", "χ = 8\ntest accuracy (%)"]
    assert [[panel.title for panel in row] for row in chart.panels] == [
        ["after Specialization", "after Selection (suff+min)"],
        ["", ""],
    ]


def test_curves_begin_together_and_stand_where_they_were_measured(results: Results) -> None:
    before, after = EXHIBIT.figures(results)[DIGITS_64].panels[1]
    # Random pruning loses a point per tenth more, from where nothing is pruned.
    assert heights(before) == {
        "random pairs kept": {1.0: 64.64, 0.9: 62.64, 0.5: 54.64, 0.4: 52.64, 0.1: 46.64},
        "ranked by the router, before Selection": {1.0: 64.64, 0.9: 63.64, 0.5: 59.64, 0.4: 58.64, 0.1: 55.64},
        "p*, chosen on validation": {0.9: 63.64},
    }
    assert heights(after) == {
        "random pairs kept": {1.0: 66.64, 0.9: 66.64, 0.5: 66.64, 0.4: 66.64, 0.1: 60.64},
        "ranked by the router, after Selection": {1.0: 66.64, 0.9: 67.64, 0.5: 71.64, 0.4: 72.64, 0.1: 69.64},
        "p*, chosen on validation": {0.5: 71.64},
    }
    assert all(list(c.spread) == pytest.approx([1.0] * 5) for c in (*before.curves[:2], *after.curves[:2]))


def test_a_panel_says_what_is_shown_at_p_star_and_which_floors_lie_far_below(results: Results) -> None:
    """The curves of digits at batch size 64 reach from 42.6 to 73.6: 45 lies among them, 35 far below."""
    panel = EXHIBIT.figures(results)[DIGITS_64].panels[1][1]
    assert panel.note.split("\n") == [
        "shape: peak inside; at p* 0.5",
        "over random +5.0 [+4.7, +5.3]",
        "over no expert +26.6 [+24.2, +29.1]",
        "untrained 35.0 ↓",
    ]
    assert {level.label: level.y for level in panel.levels} == {"no expert at all (p 0)": pytest.approx(45.0)}


def test_words_stand_above_the_panels_where_no_data_are(results: Results) -> None:
    own = some(results, dataset="digits", batch_size=64)
    chart = EXHIBIT.figures(own)[DIGITS_64]
    figure = draw(chart)
    figure.draw_without_rendering()
    noted = [axis for axis in figure.axes if axis.texts]
    assert len(noted) == 4
    for axis in noted:
        (words,) = axis.texts
        assert words.get_window_extent().y0 >= axis.get_window_extent().y1
        assert axis.title.get_window_extent().y0 >= words.get_window_extent().y1 - 1 or not axis.get_title()
    notes = [panel["note"] for row in interactive(chart)["panels"] for panel in row]
    assert sum("at p*" in note for note in notes) == 4  # the page has them above its panels


def test_a_panel_alone_has_both_floors_in_words(results: Results) -> None:
    own = some(results, **SELECTED)
    panel = chart_of(own.rows, own.controls)
    assert panel.levels == []
    assert panel.note.split("\n")[-2:] == ["no expert 45.0 ↓", "untrained 35.0 ↓"]


def test_one_seed_has_no_interval(results: Results) -> None:
    own = some(results, **SELECTED, seed=1)
    (line,) = control_table(controlled(own.rows, own.controls)).to_dict("records")
    assert (line["n"], line["over random"], line["over no expert"]) == (1, "+5.0", "+26.6")
    assert (line["router"], line["experts"]) == ("one seed", "one seed")
    words = chart_of(own.rows, own.controls).note.split("\n")
    assert words[:2] == ["one seed: no shape can be tested; at p* 0.5", "over random +5.0"]


def test_of_p_1_alone_there_is_no_line_and_a_panel_without_words(results: Results) -> None:
    own = some(results, **SELECTED)
    rows = place(own.rows, preservation_ratio=1.0)
    assert control_table(controlled(rows, own.controls)).empty
    assert EXHIBIT.tables(dataclasses.replace(own, rows=rows))["controls"].frame.empty
    floors = own.controls[own.controls["control"] != "random"]
    panel = chart_of(rows, floors)
    assert heights(panel) == {"ranked by the router, after Selection": {1.0: 66.64}}
    assert panel.note.split("\n") == ["no expert 45.0 ↓", "untrained 35.0 ↓"]


@pytest.mark.parametrize("branch", ["none", "suff+min"])
def test_one_branch_has_one_column(results: Results, branch: str) -> None:
    own = some(results, **{**SELECTED, "branch": branch})
    panel = chart_of(own.rows, own.controls)
    assert len(panel.curves) == 3
    assert "more than before Selection" not in control_table(controlled(own.rows, own.controls))


def test_without_controls_there_is_no_chart(results: Results) -> None:
    assert EXHIBIT.figures(dataclasses.replace(results, controls=pd.DataFrame())) == {}


def test_where_nothing_was_held_against_a_curve_there_is_no_chart_of_it(results: Results) -> None:
    """The other batch size's controls are not there yet."""
    controls = results.controls[results.controls["batch_size"] == 64]
    charts = EXHIBIT.figures(dataclasses.replace(results, controls=controls))
    assert list(charts) == [DIGITS_64, "controls_latent_factors_batch_64"]

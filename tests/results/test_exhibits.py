"""Every exhibit of every sweep file, on results that are known by formula (made_up.py)."""

import html
import io
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from s3ray.errors import UserError
from s3ray.results import Results, labels
from s3ray.results.columns import COLUMNS
from s3ray.results.crossed import Crossed, right
from s3ray.results.curves import difference_grid
from s3ray.results.exhibits import EXHIBITS, answers, asked_for
from s3ray.results.published import published_table
from s3ray.results.render import charts, render, tables
from s3ray.results.report import write_report, write_results
from s3ray.store import Store
from s3ray.sweep import Study, load_sweep, make_plan

SWEEPS = {path.stem: path for path in (Path(__file__).parents[2] / "sweeps").glob("*.py")}
EVERY = {
    "summary",
    "verdicts",
    "references",
    "controls",
    "contributions",
    "crossed",
}  # tables of every sweep with cells
# Figures of every sweep with cells of S3.
DRAWN = {"controls_latent_factors_batch_64", "contributions_batch_64"}
OPEN = {"open_choices", "open_choices_shapes"}
# Tables and figures of each sweep over latent_factors at batch size 64.
PROMISED = {
    "table1_figure5": ({"table1", *EVERY}, {"figure5_batch_64", "figure5_differences_batch_64", *DRAWN}),
    "effect": ({"table1", *EVERY}, {"figure5_batch_64", "figure5_differences_batch_64", *DRAWN}),
    "figure3_batch_size": (
        {"table1", *EVERY},
        {"figure3_latent_factors", "figure3_differences_latent_factors", *DRAWN},
    ),
    "table2_methods": ({"table2", *EVERY}, DRAWN),
    "table2_tuned": ({"table2", *EVERY}, DRAWN),
    "table3_selection_losses": ({"table3", *EVERY}, {"table3_batch_64", *DRAWN}),
    "figure6_no_selection": (EVERY, {"figure6_batch_64", *DRAWN}),
    "figures7_10_router_entropy": (EVERY, {"figures7_10_latent_factors", *DRAWN}),
    # Of the usual reading, which other sweeps have, alone; a change takes two.
    "open_choices": ({*OPEN, *EVERY}, DRAWN),
    "table1_oracle_gain": ({"oracle_gain"}, {"oracle_gain"}),
    "tables4_5_parameters": ({"table4", "table5", "table5_all_layers"}, set()),
    "factors": (
        {"factors", "pruned", *EVERY},
        {"factors_latent_factors_batch_64", "pruned_latent_factors_batch_64", *DRAWN},
    ),
}


# Other sweeps' parts; no results; stage runs that no other sweep has (`exhibits/test_modalities.py` and its like).
ELSEWHERE = {"full_grid", "search_weights", "modalities", "missing_modalities"}


def test_every_sweep_file_promises_something() -> None:
    assert set(SWEEPS) == {*PROMISED, *ELSEWHERE}


def part_of(embedded: SimpleNamespace, sweep: Any) -> Any:
    """A sweep's plan over latent_factors alone; the full grid has committed all of it."""
    entries = {"latent_factors": embedded.plan.study.entries["latent_factors"]}
    return make_plan(load_sweep(SWEEPS[sweep]), Study(entries), embedded.store)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", PROMISED)
def test_a_sweep_writes_what_its_exhibits_promise_and_no_more(sweep: Any, embedded: SimpleNamespace) -> None:
    store = embedded.store
    results, written = write_results(part_of(embedded, sweep), store)
    assert results.study.startswith(f"{sweep}-")
    promised_tables, promised_figures = PROMISED[sweep]
    expected = {f"tables/{name}.{suffix}" for name in promised_tables for suffix in ("md", "csv", "tex")}
    expected |= {f"figures/{name}.{suffix}" for name in promised_figures for suffix in ("png", "pdf")}
    beside = {*(f"{name}.parquet" for name in COLUMNS), "info.json", "index.html"}
    assert set(written) - beside == expected
    page = store.read("results", results.study, "index.html").decode()
    assert {html.unescape(link) for link in re.findall('<a href="((?:figures|tables)/[^"]+)"', page)} == expected
    for name in written:
        content = store.read("results", results.study, name)
        if name.endswith(".csv"):
            assert len(pd.read_csv(io.BytesIO(content))) > 0, name
        elif name.endswith(".tex"):
            assert (content[:15], content[-14:]) == (b"\\begin{tabular}", b"\\end{tabular}\n"), name
        elif name.endswith(".png"):
            assert plt.imread(io.BytesIO(content)).ndim == 3, name
        elif name.endswith(".pdf"):
            assert (content[:5], content.rstrip()[-5:]) == (b"%PDF-", b"%%EOF"), name


def test_a_sweep_without_cells_writes_its_tables(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    plan = make_plan(load_sweep(SWEEPS["tables4_5_parameters"]), Study({}), store)
    results, written = write_results(plan, store)
    assert "tables/table4.csv" in written
    assert "table5.md" in store.names("results", results.study, "tables")
    assert "rows.parquet" not in store.names("results", results.study)


@pytest.mark.slow
def test_what_an_exhibit_comes_to_stands_first_in_the_report(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    results = Results.collect(make_plan(load_sweep(SWEEPS["table1_oracle_gain"]), Study({}), store), store)
    (answer,) = answers(results)
    page = Path(write_report(results, store)).read_text()
    assert 0 < page.index(html.escape(answer)) < page.index('id="run"')


def test_results_that_were_saved_are_loaded_as_they_were(embedded: SimpleNamespace, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    names = [name for name in COLUMNS if name not in ("modalities", "missing")]  # which the full grid does not ask for
    assert embedded.results.save(store) == [*(f"{name}.parquet" for name in names), "info.json"]
    loaded = Results.load(store)
    for name in names:
        # A stage that a branch does not have took None seconds, which a file holds as NaN.
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(embedded.results, name).infer_objects())
    assert loaded.info == {**embedded.results.info, "files": loaded.info["files"]}
    assert list(loaded.info["files"]) == [f"{name}.parquet" for name in names]
    for name in names:  # and say what their columns mean
        schema = pq.read_schema(io.BytesIO(store.read("results", loaded.study, f"{name}.parquet")))
        said = {field.name: field.metadata[b"description"].decode() for field in schema}
        assert said == {column: COLUMNS[name][column] for column in schema.names}
    # Three pairs of dataset and batch size, three seeds: 27 cells of S3, each with two curves of 5 ratios × 2 splits,
    # and at χ = 8 the other variants'; prior methods' outputs, each probed once.
    assert len(loaded.rows) == (27 * 2 + 9 * (len(labels.branches()) - 2)) * 10 + 9 * len(labels.prior_methods()) * 2
    assert loaded.info["datasets"]["digits"]["kind"] == "embedded"


def test_the_sweep_written_last_is_loaded_unless_one_is_named(embedded: SimpleNamespace, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for age, name in enumerate(("table1_figure5", "table3_selection_losses", "figure6_no_selection")):
        results = Results.collect(part_of(embedded, name), embedded.store)
        results.save(store)
        # In the order 1, 2, 0: neither the first nor the last by name or by creation.
        seconds = 1_000_000 + (1, 2, 0)[age]
        os.utime(tmp_path / "results" / results.study / "info.json", (seconds, seconds))
    assert Results.load(store).info["sweep"] == "table3_selection_losses"
    assert Results.load(store, "figure6_no_selection").info["sweep"] == "figure6_no_selection"


def test_results_that_are_not_there_are_one_sentence(embedded: SimpleNamespace, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(UserError, match=r"^--storage .*: holds no results of any sweep; run a sweep first$"):
        Results.load(store)
    embedded.results.save(store)
    known = f"known: full_grid, {embedded.results.study}"
    with pytest.raises(UserError, match=f"^--storage .*: holds no results of 'table1'; {known}$"):
        Results.load(store, "table1")
    with pytest.raises(UserError, match="holds no results of 'full_grit'; did you mean 'full_grid'"):
        Results.load(store, "full_grit")


@pytest.fixture(scope="module")
def rendered(embedded: SimpleNamespace) -> Any:
    return render(embedded.results)


@pytest.fixture(scope="module")
def made(rendered: Any) -> Any:
    return {name: table.frame for name, table in tables(rendered).items()}


@pytest.fixture(scope="module")
def beside_the_paper(multibench: SimpleNamespace) -> Any:
    return {name: table.frame for name, table in tables(render(multibench.results)).items()}


def line(table: Any, **values: Any) -> Any:
    """The one line with these values; underscores stand for spaces."""
    chosen = table
    for name, value in values.items():
        chosen = chosen[chosen[name.replace("_", " ")].astype(str) == str(value)]
    assert len(chosen) == 1
    return chosen.iloc[0]


def test_table_1_by_hand(made: Any) -> None:
    found = line(made["table1"], dataset="digits (embedded data)", batch_size=64, χ=8, Selection_loss="suff+min")
    # 60 + .64 + 8 / 2; Selection gives 2 at p = 1, 7 at p = .5, 8 at p = .4 and 5 at p = .1; a point between seeds.
    assert found.to_dict() == {
        "dataset": "digits (embedded data)",
        "batch size": 64,
        "χ": 8,
        "Selection loss": "suff+min",
        "Specialization": "64.64 (1.00)",
        "Selection": "66.64 (1.00)",
        "p 0.9": "67.64 (1.00)",
        "p 0.5": "71.64 (1.00)",
        "p 0.4": "72.64 (1.00)",
        "p 0.1": "69.64 (1.00)",
        "p 0": "45.00 (0.00)",
        "p*": "0.5",
        "test at p*": "71.64",
        "gain over p 1 [95 %]": "+5.00 ± 0.34",  # of 300 samples: t(.975, 2) · (1/3) / √6 / √3
        "oracle p": "0.4",
        "oracle test": "72.64",
        "n": 3,
    }
    found = line(made["table1"], dataset="digits (embedded data)", batch_size=128, χ=2)
    assert (found["Specialization"], found["p 0.4"]) == ("62.28 (1.00)", "70.28 (1.00)")
    found = line(made["table1"], dataset="latent_factors (simulated data)", χ=4)
    assert (found["Specialization"], found["p 0.4"]) == ("52.64 (1.00)", "60.64 (1.00)")
    # χ = 2 and 4 with one Selection loss, χ = 8 with three, for three pairs of dataset and batch size.
    assert len(made["table1"]) == 3 * (1 + 1 + len(labels.branches()) - 1)
    assert not made["table1"]["dataset"].str.contains("paper").any()


def test_table_1_has_the_papers_line_below_its_own(beside_the_paper: Any) -> None:
    table = beside_the_paper["table1"]
    place = int(line(table, dataset="mosi (multibench data)", χ=8, Selection_loss="suff+min").name)
    # As printed: what was put in, and what the paper has.
    printed = {"Specialization": "63.56 (2.18)", "Selection": "64.29 (1.27)", "p 0.7": "66.13 (0.51)"}
    for own in (table.iloc[place], table.iloc[place + 1]):
        assert own[list(printed)].to_dict() == printed
    assert table["dataset"].iloc[place + 1] == "mosi (paper)"
    # The paper chose p on test and printed no p*.
    assert table.loc[place + 1, ["p*", "test at p*", "oracle test", "n"]].tolist() == [""] * 4
    assert table["dataset"].eq("mosi (paper)").sum() == 3


PRINTED = dict.fromkeys(
    ("CLIP", "FactorCL-emb", "FactorCL-proj", "FOCAL", "JointOpt", "DisentangledSSL"),
    "no",
)
BEYOND_THE_PAPER = {"Cross-entropy, end to end": "yes", "SupCon, end to end": "yes"}
OURS_IN_ORDER = {
    "Specialization": "no",
    "+ Selection": "yes",
    "+ Sparsification (p* on validation)": "yes",
    "+ Sparsification (oracle: best p on test)": "yes",
    "most frequent training class": "no",
}


def test_table_2_has_methods_in_order_and_says_which_train_with_labels(made: Any) -> None:
    for _, table in made["table2"].groupby("batch size"):
        shown = dict(zip(table["method"], table["labels in training"], strict=True))
        shown.pop("logistic regression on raw features, the best inputs")
        lines = list(shown.items())
        assert lines[:6] == list(PRINTED.items())
        assert set(BEYOND_THE_PAPER.items()) <= set(lines[6:-5])
        assert lines[-5:] == list(OURS_IN_ORDER.items())
    own = len(labels.prior_methods()) + 6
    assert made["table2"]["batch size"].tolist() == ["64"] * own + ["128"] * own


def test_table_2_by_hand(made: Any) -> None:
    here = made["table2"][made["table2"]["batch size"] == "64"].set_index("method")["digits (embedded data)"]
    # Prior methods stand a point apart, from a point below 60.64.
    prior = here.loc["CLIP":"Specialization"].tolist()[:-1]
    assert prior == [f"{59.64 + i:.2f} (1.00)" for i in range(len(labels.prior_methods()))]
    assert here["Specialization"] == "64.64 (1.00)"
    assert here["+ Selection"] == "66.64 (1.00)"
    assert here["+ Sparsification (p* on validation)"] == "71.64 (1.00)"
    assert here["+ Sparsification (oracle: best p on test)"] == "72.64 (1.00)"
    assert here["most frequent training class"] == "50.00"
    assert here["logistic regression on raw features, the best inputs"] == "55.00"
    assert not any("paper" in column for column in made["table2"].columns)


def test_table_2_sets_the_paper_beside_and_its_sparsification_beside_the_oracle(beside_the_paper: Any) -> None:
    table = beside_the_paper["table2"].set_index("method")
    own, paper = table["mosi (multibench data)"], table["mosi (paper)"]
    assert (own["CLIP"], paper["CLIP"]) == ("64.24 (0.88)", "64.24 (0.88)")
    assert paper["DisentangledSSL"] == "65.16 (0.81)"
    oracle = "+ Sparsification (oracle: best p on test)"
    assert (own[oracle], paper[oracle]) == ("66.13 (0.51)", "66.13 (0.51)")
    assert paper["+ Sparsification (p* on validation)"] == ""
    assert paper["SupCon, end to end"] == ""  # of this project, not of the paper
    assert not any(f"{other} (paper)" in table.columns for other in ("mosei", "ur_funny", "mustard"))


def test_table_3_by_hand(made: Any, beside_the_paper: Any) -> None:
    table = made["table3"]
    branches = list(labels.branches())
    assert branches[:4] == ["none", "suff+min", "suff", "min"]
    assert table["Selection loss"].tolist() == branches * 2
    assert table["digits (embedded data)"].tolist()[:4] == [f"{x} (1.00)" for x in ("64.64", "66.64", "65.64", "64.64")]
    assert table["digits (embedded data)"].tolist()[len(branches) :][:2] == ["65.28 (1.00)", "67.28 (1.00)"]
    assert table["latent_factors (simulated data)"].tolist()[:2] == ["54.64 (1.00)", "56.64 (1.00)"]
    printed = ["63.56 (2.18)", "64.29 (1.27)", "65.31 (0.76)", "66.67 (1.31)"]
    beside = beside_the_paper["table3"]
    assert beside["mosi (paper)"].tolist()[:4] == beside["mosi (multibench data)"].tolist()[:4] == printed


def test_tables_4_and_5_have_the_papers_digits_in_its_layout(made: Any) -> None:
    columns = ["dataset", "granularity", "router_parameters_percent"]
    assert list(made["table4"].columns) == columns
    pd.testing.assert_frame_equal(made["table4"], published_table(4)[columns])
    table = made["table5"]
    assert list(table.columns) == ["dataset", "granularity", *(f"p 0.{tenth}" for tenth in range(9, 0, -1))]
    assert table.iloc[0].tolist()[:5] == ["mosei", "2", "96.61", "93.23", "89.84"]
    printed = published_table(5).set_index(["dataset", "granularity", "preservation_ratio"])[
        "active_parameters_percent"
    ]
    shown = table.set_index(["dataset", "granularity"]).rename(columns=lambda name: name.removeprefix("p ")).stack()
    assert len(shown) == len(printed) == 108
    assert shown.to_dict() == printed.to_dict()
    # With the experts of all five layers pruned less is left.
    every_layer = made["table5_all_layers"]
    assert (every_layer.iloc[:, 2:].astype(float) < table.iloc[:, 2:].astype(float)).all(axis=None)


def test_factors_by_hand(made: Any) -> None:
    table = made["factors"]
    assert set(table["dataset"]) == {"latent_factors (simulated data)"}
    found = line(table, batch_size=64, method="S3, after Selection", χ=8, p=0.5)
    # R² 0.9 of shared relevant factors at p = 1, 0.1 less per kind, times p; 0.01 between seeds.
    assert found["R² shared relevant"] == "0.45 (0.01)"
    assert found["R² nuisance"] == "0.25 (0.01)"
    assert found["share of variance (%) unique other"] == "20.00 (0.00)"
    assert (found["energy distance"], found["I(Z;Y) bound"]) == ("0.10 (0.00)", "0.25 (0.00)")
    assert line(table, method="JointOpt")["R² shared relevant"] == "0.90 (0.01)"
    # 5 ratios of 2 branches at each of 3 χ; prior methods' outputs once.
    of_s3 = table["method"].str.startswith("S3, ")
    assert of_s3.sum() == 5 * 2 * 3
    assert table.loc[~of_s3, "method"].is_unique


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "references", "factors", "verdicts"])
def test_what_stands_above_a_table_names_the_data_by_kind(name: str, rendered: Any) -> None:
    text = tables(rendered)[name].note
    assert "digits is embedded data (rows + columns, smoke scale)" in text
    assert "latent_factors is simulated data (first + second, smoke scale, best achievable 90.0)" in text


@pytest.fixture(scope="module")
def drawn(rendered: Any) -> Any:
    return charts(rendered)


def curves(panel: Any) -> Any:
    """The means drawn in a panel, by label."""
    return {curve.label: curve for curve in panel.curves if curve.spread}


def stars(panel: Any) -> Any:
    return [(*curve.x, *curve.y) for curve in panel.curves if curve.marker == "star"]


FIGURES = ("figure5", "figure5_differences", "figure6", "table3")  # one for each batch size
BY_DATASET = ("figure3", "figure3_differences", "figures7_10")
DATASETS = ("digits", "latent_factors")
AFTER, BEFORE = "after Selection: mean ± std, n = 3", "without Selection: mean ± std, n = 3"


def test_the_full_grid_makes_every_table_and_each_figure_once_per_dataset_or_batch_size(made: Any, drawn: Any) -> None:
    # Of all parts; readings, and what is of the paper's printed numbers alone, are sweeps of their own.
    assert set(made) == set().union(*(promised for promised, _ in PROMISED.values())) - {"oracle_gain", *OPEN}
    assert set(drawn) == {
        *(f"{name}_batch_{batch}" for name in FIGURES for batch in (64, 128)),
        *(
            f"{figure}_{dataset}"
            for figure in ("figure3", "figure3_differences", "figures7_10")
            for dataset in DATASETS
        ),
        "factors_latent_factors_batch_64",
        "pruned_latent_factors_batch_64",
        "controls_digits_batch_64",
        "controls_digits_batch_128",
        "controls_latent_factors_batch_64",
        "contributions_batch_64",
        "contributions_batch_128",
    }


def test_figure_3_has_a_column_per_batch_size(drawn: Any) -> None:
    chart = drawn["figure3_digits"]
    assert chart.title == "digits (embedded data, smoke scale)"
    assert [panel.title for panel in chart.panels[0]] == ["batch size 64", "batch size 128"]
    assert [axis.title for axis in chart.rows] == [f"χ = {χ}\ntest accuracy (%)" for χ in (2, 4, 8)]
    panel = chart.panels[1][1]
    shown = curves(panel)  # χ = 4: 60 + 1.28 + 2
    assert set(shown) == {AFTER, BEFORE}
    np.testing.assert_allclose(shown[AFTER].x, [1.0, 0.9, 0.5, 0.4, 0.1])
    np.testing.assert_allclose(shown[AFTER].y, [65.28, 66.28, 70.28, 71.28, 68.28])
    np.testing.assert_allclose(shown[AFTER].spread, [1.0] * 5)
    np.testing.assert_allclose(shown[BEFORE].y, [63.28, 62.28, 58.28, 57.28, 54.28])
    assert shown[AFTER].hover[2] == "after Selection\np 0.5\nmean 70.28 %\nstd 1.00\nn 3"
    assert stars(panel) == [(0.5, pytest.approx(70.28))]


def test_what_pruning_changes_is_drawn_with_the_interval_of_the_paired_difference(
    drawn: Any, embedded: SimpleNamespace
) -> None:
    chart = drawn["figure3_differences_digits"]
    assert [axis.title for axis in chart.rows] == [f"χ = {χ}\ndifference (points)" for χ in (2, 4, 8)]
    panel = chart.panels[1][1]  # χ = 4, batch size 128: up a point per tenth to p .4, then down
    shown = {curve.label: curve for curve in panel.curves}
    assert set(shown) == {"after Selection", "without Selection"}
    assert len({curve.marker for curve in shown.values()}) == 2  # told apart in print, too
    after = shown["after Selection"]
    assert list(after.x) == [0.9, 0.5, 0.4, 0.1]  # p = 1 is what the others are held against
    np.testing.assert_allclose(after.y, [1.0, 5.0, 6.0, 3.0])
    rows = embedded.results.rows
    own = rows[(rows["dataset"] == "digits") & (rows["granularity"] == 4) & (rows["batch_size"] == 128)]
    own = own[(own["branch"] == "suff+min") & (own["split"] == "test")]
    at = {p: right(own[own["preservation_ratio"] == p]) for p in (0.9, 1.0)}
    assert after.spread[0] == pytest.approx(100 * Crossed.between(at[0.9], at[1.0]).difference.half_width(0.95))
    assert after.hover[0].splitlines()[:3] == ["after Selection", "p 0.9", "+1.00 points"]
    assert after.hover[0].endswith("n 3, 300 samples")
    assert [level.y for level in panel.levels] == [0.0]


@pytest.mark.parametrize(("seeds", "ratios"), [((1,), (1.0, 0.5)), ((0, 1, 2), (1.0,)), ((0, 1), (0.5, 0.1))])
def test_differences_of_one_seed_one_ratio_or_without_p_1(embedded: SimpleNamespace, seeds: Any, ratios: Any) -> None:
    rows = embedded.results.rows
    own = rows[(rows["dataset"] == "digits") & (rows["method"] == "s3") & rows["seed"].isin(seeds)]
    chart = difference_grid(own[own["preservation_ratio"].isin(ratios)], columns="batch_size", title="t")
    if seeds != (1,):
        assert chart.is_empty
        return
    for curve in (curve for row in chart.panels for panel in row for curve in panel.curves):
        assert list(curve.x) == [0.5]
        assert np.isnan(curve.spread).all()  # of other seeds it says nothing
        assert curve.hover[0].endswith("one seed, 300 samples")


def test_figure_5_has_a_column_per_dataset(drawn: Any) -> None:
    chart = drawn["figure5_batch_64"]
    assert chart.title == "Pruning curves, batch size 64"
    names = ["digits (embedded data)", "latent_factors (simulated data)"]
    assert [panel.title for panel in chart.panels[0]] == names
    shown = curves(chart.panels[2][1])  # 50 + .64 + 4
    np.testing.assert_allclose(shown[AFTER].y, [56.64, 57.64, 61.64, 62.64, 59.64])
    assert shown[AFTER].color == labels.SELECTED


def test_figure_6_shows_the_curve_without_selection_alone_as_the_main_one(drawn: Any) -> None:
    for (panel,), χ in zip(drawn["figure6_batch_128"].panels, (2, 4, 8), strict=True):
        ((label, curve),) = curves(panel).items()
        assert (label, curve.color) == (BEFORE, labels.SELECTED)
        np.testing.assert_allclose(curve.y, [61.28 + χ / 2 - 10 * (1 - p) for p in curve.x])
        # Single seeds are drawn of the main curve only.
        (seeds,) = (curve for curve in panel.curves if curve.dash == "dot")
        assert len(seeds.y) == 3 * (5 + 1)
        assert np.isnan(seeds.y[5::6]).all()


def test_table_3_has_a_figure_with_a_curve_per_selection_loss(drawn: Any) -> None:
    ((panel,),) = drawn["table3_batch_128"].panels
    shown = curves(panel)
    assert [curve.color for curve in shown.values()] == [labels.branch_color(branch) for branch in labels.branches()]
    # 60 + 1.28 + 4, and what Selection gives at p = 1.
    assert [curve.y[0] for curve in shown.values()][:4] == pytest.approx([65.28, 67.28, 66.28, 65.28])
    assert len(stars(panel)) == len(labels.branches()) - 1
    assert not any(curve.dash == "dot" for curve in panel.curves)


def test_figures_7_to_10_show_the_means_per_granularity_at_the_usual_batch_size(drawn: Any) -> None:
    chart = drawn["figures7_10_digits"]
    assert chart.title == "digits (embedded data), batch size 64: routers during Selection (mean ± std, n = 3)"
    panels = [panel for row in chart.panels for panel in row]
    assert [panel.title for panel in panels] == ["rows, local", "rows, global", "columns, local", "columns, global"]
    for panel, modality, slope in zip(panels, (0, 0, 1, 1), (-0.01, 0, -0.01, 0), strict=True):
        assert [curve.label for curve in panel.curves] == ["χ = 2", "χ = 4", "χ = 8"]
        for curve, experts in zip(panel.curves, (16, 32, 64), strict=True):
            # ln of the experts, a unit between modalities, .64 of the batch size: 1.28 would be the other's.
            np.testing.assert_allclose(curve.y, math.log(experts) + modality + 0.64 + slope * np.arange(8))
            # Three seeds 0.1 apart.
            assert curve.band
            np.testing.assert_allclose(curve.spread, [0.1] * 8)


def test_factors_are_drawn_for_data_with_known_factors(drawn: Any) -> None:
    chart = drawn["factors_latent_factors_batch_64"]
    assert "latent_factors (simulated data)" in chart.title
    first = {curve.label: curve for curve in chart.panels[0][0].curves}
    np.testing.assert_allclose(first["unique relevant"].y, [0.7, 0.63, 0.35, 0.28, 0.07])


def test_a_sweep_that_names_no_exhibit_has_those_of_every_sweep() -> None:
    every = {*EVERY, "present"}  # which has a table only where samples lack modalities
    assert {exhibit.name for exhibit in asked_for("grid", [])} == every
    assert [exhibit.name for exhibit in asked_for("grid", ["table3", "figure5"])][:2] == ["table3", "figure5"]
    assert len(asked_for("grid", ["summary"])) == len(every)
    assert {name for sweep in SWEEPS.values() for name in load_sweep(sweep).exhibits} | every == set(EXHIBITS)


def test_an_exhibit_that_there_is_not_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match=r"^sweep grid: exhibits has 'tabel1', which there is not; did you mean 'table1'"
    ):
        asked_for("grid", ["tabel1"])

"""From a store to tables and figures, on results whose numbers are known."""

import dataclasses
import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.results import Results, collect, references
from s3ray.results.chart import Level, fitting
from s3ray.results.collect import studies
from s3ray.results.columns import COLUMNS
from s3ray.results.curves import curve_grid, near
from s3ray.results.report import write_report, write_results
from s3ray.settings import settings_for
from s3ray.store import Store
from s3ray.sweep import Study, StudyDataset, Sweep, make_plan
from s3ray.traces import sweep_of
from toy_runs import commit, overwrite

RATIOS = (1.0, 0.9, 0.5, 0.1)
SWEEP = Sweep(
    name="toy_grid",
    cells=lambda study: [study.cell("tiny", 8, 16, seed) for seed in (0, 1)],
    branches=("none", "suff+min"),
    exhibits=("table1", "figure3", "figure5"),
)


def accuracy(branch: Any, ratio: Any, split: Any, seed: Any) -> Any:
    """Selected: .70 at p 1, .80 at p .5, .60 at p .1; without Selection .50 throughout; seeds 1 point apart."""
    height = {1.0: 0.70, 0.9: 0.74, 0.5: 0.80, 0.1: 0.60}[ratio] if branch != "none" else 0.50
    return height + 0.01 * seed + (0.02 if split == "valid" else 0.0)


def metrics() -> Any:
    """Two steps: entropies of 1 and 0.5; experts' shares of 0.1, then 0.2 and 0.3 in the first and second layer."""
    buffer = io.BytesIO()
    names = [f"{scope}_entropy/{modality}" for scope in ("local", "global") for modality in ("left", "right")]
    shares = {f"expert_share/{m}/{layer}": [0.1, 0.2 + 0.1 * layer] for m in ("left", "right") for layer in (0, 1)}
    pd.DataFrame({"step": [0, 1], **{name: [1.0, 0.5] for name in names}, **shares}).to_parquet(buffer)
    return buffer.getvalue()


@pytest.fixture
def finished(tiny_dataset: Dataset, tmp_path: Path) -> Any:
    """A plan whose cells are committed with known rows, save the curve after Selection of seed 1's cell."""
    store = Store(str(tmp_path))
    study = Study(
        {
            "tiny": StudyDataset(
                DataFacts.of(tiny_dataset),
                "smoke",
                settings_for("tiny", "smoke", {"sparsification": {"ratios": list(RATIOS)}}),
            )
        }
    )
    filled(make_plan(SWEEP, study, store), store)
    return make_plan(SWEEP, study, store), store


def filled(plan: Any, store: Store) -> None:
    """Commit all of a plan's cells, save the curve after Selection of seed 1's."""
    for cell in plan.cells:
        commit(store, cell.training, {"rows.parquet": metrics()}, seconds=1.0)
        for branch in cell.branches:
            if branch.selection:
                commit(store, branch.selection, {"rows.parquet": metrics()}, seconds=2.0)
            for run in branch.curve:
                ratio = run.config.pruning.ratio if run.stage.name == "sparsification" else 1.0
                points = [
                    {
                        "preservation_ratio": ratio,
                        "split": split,
                        "accuracy": accuracy(branch.branch, ratio, split, cell.cell.seed),
                        "samples": 10**9,
                        "pairs_kept": int(100 * ratio),
                        "active_parameters": 1000 * ratio,
                        "active_parameters_paper": 900 * ratio,
                    }
                    for split in ("valid", "test")
                ]
                buffer = io.BytesIO()
                pd.DataFrame(points).to_parquet(buffer)
                commit(store, run, {"rows.parquet": buffer.getvalue()}, seconds=0.3, provenance={"torch": "2"})


def controlled(tiny_dataset: Dataset, folder: Path, controls: list[str], left_out: Any = None) -> Results:
    """Results of one cell and two branches, all runs committed but for those that `left_out` holds of.

    A control's accuracy is its p, no expert's 0.3, untrained's 0.2.
    """
    store = Store(str(folder))
    overrides = {"sparsification": {"ratios": [1.0, 0.5, 0.1], "controls": controls}}
    settings = settings_for("tiny", "smoke", overrides)
    study = Study({"tiny": StudyDataset(DataFacts.of(tiny_dataset), "smoke", settings)})
    sweep = Sweep(name="one", cells=lambda s: [s.cell("tiny", 8, 16, 0)], branches=("none", "suff+min"))
    (cell,) = make_plan(sweep, study, store).cells

    def commit_at(run: Any, accuracy: float) -> None:
        ratio = run.config.pruning.ratio if run.stage.name == "sparsification" else 1.0
        point = {"preservation_ratio": ratio, "split": "test", "accuracy": accuracy, "correct": b"\xf0"}
        buffer = io.BytesIO()
        pd.DataFrame([point]).to_parquet(buffer)
        commit(store, run, {"rows.parquet": buffer.getvalue()}, seconds=1.0, provenance={})

    for branch in cell.branches:
        for runs in branch.controls.values():
            for run in runs:
                if left_out is None or not left_out(branch, run):
                    commit_at(run, run.config.pruning.ratio)
    commit_at(cell.floors["no expert"], 0.3)
    commit_at(cell.floors["untrained"], 0.2)
    return Results.collect(make_plan(sweep, study, store), store)


FLOORS = [
    (branch, floor) for branch in ("none", "suff+min") for floor in (("no expert", 0.0, 0.3), ("untrained", 1.0, 0.2))
]


@pytest.mark.parametrize("controls", [[], ["smallest"], ["random", "smallest", "contribution"]])
def test_controls_are_a_line_per_branch_control_ratio_and_split(
    tiny_dataset: Dataset, tmp_path: Path, controls: list[str]
) -> None:
    found = controlled(tiny_dataset, tmp_path, controls).controls
    expected = [(b, c, p, p) for b in ("none", "suff+min") for c in controls for p in (0.5, 0.1)]
    expected += [(branch, *floor) for branch, floor in FLOORS]
    columns = ["branch", "control", "preservation_ratio", "accuracy"]
    assert list(found[columns].itertuples(index=False, name=None)) == expected
    assert set(found["seed"]) == {0}
    assert found.loc[found["control"] == "no expert", "identity"].nunique() == 1  # one run for both branches


def test_a_control_whose_curve_has_not_finished_has_no_lines(tiny_dataset: Dataset, tmp_path: Path) -> None:
    def left_out(branch: Any, run: Any) -> bool:
        return branch.branch == "none" and run.config.pruning.rule == "random" and run.config.pruning.ratio == 0.1

    found = controlled(tiny_dataset, tmp_path, ["random", "smallest"], left_out).controls
    counts = found.groupby(["branch", "control"]).size().to_dict()
    assert ("none", "random") not in counts
    assert counts["none", "smallest"] == counts["suff+min", "random"] == 2
    assert counts["none", "no expert"] == 1


def test_contributions_are_those_of_the_first_and_last_steps(finished: Any) -> None:
    plan, store = finished
    found = Results.collect(plan, store).contributions
    assert len(found) == 2 * 3 * 2 * 2  # seeds, moments, modalities, layers
    one = found[(found["seed"] == 1) & (found["modality"] == "right")]
    assert list(one[["branch", "after", "layer", "share"]].itertuples(index=False, name=None)) == [
        ("none", "initialisation", 0, 0.1),
        ("none", "initialisation", 1, 0.1),
        ("none", "Specialization", 0, 0.2),
        ("none", "Specialization", 1, pytest.approx(0.3)),
        ("suff+min", "Selection", 0, 0.2),
        ("suff+min", "Selection", 1, pytest.approx(0.3)),
    ]


def test_prior_methods_have_neither_controls_nor_contributions(tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    study = Study({"tiny": StudyDataset(DataFacts.of(tiny_dataset), "smoke", settings_for("tiny", "smoke"))})
    sweep = Sweep(name="prior", cells=lambda s: [s.prior("tiny", "clip", 16, 0)])
    for cell in make_plan(sweep, study, store).cells:
        for run in cell.runs:
            commit(store, run, {"rows.parquet": metrics()}, seconds=1.0, provenance={})
    results = Results.collect(make_plan(sweep, study, store), store)
    assert len(results.rows)
    assert results.controls.empty
    assert results.contributions.empty


def test_one_row_per_cell_branch_ratio_and_split_with_provenance(finished: Any) -> None:
    plan, store = finished
    rows = collect(plan, store)
    assert len(rows) == 2 * 2 * len(RATIOS) * 2
    keys = ["dataset", "granularity", "batch_size", "seed", "branch", "preservation_ratio", "split"]
    assert not rows.duplicated(keys).any()
    selected = rows[rows["branch"] == "suff+min"]
    assert selected["selection_seconds"].eq(2.0).all()
    assert rows.loc[rows["branch"] == "none", "selection_seconds"].isna().all()
    assert set(rows["kind"]) == {"simulated"}
    assert rows["data_fingerprint"].eq(plan.cells[0].facts.fingerprint).all()
    assert rows["identity"].nunique() == 4 * len(RATIOS)
    assert {"committed_at", "torch", "trained_identity", "modalities", "label_rule"} <= set(rows.columns)


def test_an_unfinished_curve_has_no_rows_rather_than_zeros(finished: Any) -> None:
    plan, store = finished
    last = plan.cells[1].branches[1].curve[-1]
    store.fs.delete_file(store.path("artifacts", "sparsification", last.identity, "commit.json"))
    again = make_plan(SWEEP, plan.study, store)
    rows = collect(again, store)
    assert len(rows) == 3 * len(RATIOS) * 2
    assert rows["accuracy"].notna().all()


@pytest.mark.usefixtures("without_pixels")
@pytest.mark.parametrize("harm", ["damaged", "gone", "committed as it is"])
def test_a_damaged_file_is_named_and_the_others_are_read(finished: Any, harm: str) -> None:
    plan, store = finished
    whole = Results.collect(plan, store)
    assert whole.info["left_out"] == []
    # Of seed 0's curve after Selection p = .5, and the metrics of its Selection.
    (branch,) = [branch for branch in plan.cells[0].branches if branch.branch == "suff+min"]
    for run in (branch.curve[2], branch.selection):
        marker = plan.committed[run.identity]
        path = Path(store.path("artifacts", marker.stage, marker.identity, marker.attempt, "rows.parquet"))
        if harm == "gone":
            path.unlink()
        elif harm == "committed as it is":
            overwrite(store, marker, "rows.parquet", b"no Parquet")
        else:
            path.write_bytes(b"not what was committed")
    plan = make_plan(SWEEP, plan.study, store) if harm == "committed as it is" else plan
    results = Results.collect(plan, store)
    lost = (whole.rows["seed"] == 0) & (whole.rows["branch"] == "suff+min") & (whole.rows["preservation_ratio"] == 0.5)
    expected = whole.rows[~lost].reset_index(drop=True)
    pd.testing.assert_frame_equal(results.rows.drop(columns="committed_at"), expected.drop(columns="committed_at"))
    assert len(results.entropies) == len(whole.entropies) / 2
    said = results.info["left_out"]
    assert len(said) == 2
    assert all("run again" in sentence and "rows.parquet" in sentence for sentence in said)


def test_the_written_table_has_the_layout_of_table_1(finished: Any) -> None:
    plan, store = finished
    study = write_results(plan, store)[0].study
    table = pd.read_csv(io.BytesIO(store.read("results", study, "tables", "table1.csv")), dtype=str)
    line = table.iloc[0]
    assert line["dataset"] == "tiny (simulated data)"
    # Two seeds one point apart: the mean lies half a point up, the sample deviation is 0.71.
    assert line["Specialization"] == "50.50 (0.71)"
    assert line["Selection"] == "70.50 (0.71)"
    assert [name for name in table.columns if name.startswith("p 0")] == ["p 0.9", "p 0.5", "p 0.1"]
    assert line["p 0.5"] == "80.50 (0.71)"
    assert (line["p*"], line["test at p*"], line["oracle p"]) == ("0.5", "80.50", "0.5")
    assert line["gain over p 1 [95 %]"] == "+10.00 ± 0.00"
    markdown = store.read("results", study, "tables", "table1.md").decode()
    assert "tiny is simulated data" in markdown
    assert "| 50.50 (0.71) |" in markdown


def test_figures_are_written_as_png_and_pdf_and_are_reproducible(finished: Any) -> None:
    plan, store = finished
    results, written = write_results(plan, store)
    figures = ["figures/figure3_tiny.png", "figures/figure3_tiny.pdf", "figures/figure5_batch_16.png"]
    first = {name: store.read("results", results.study, name) for name in figures}
    assert set(figures) <= set(written)
    assert first[figures[0]].startswith(b"\x89PNG")
    assert first[figures[1]].startswith(b"%PDF")
    write_results(plan, store)
    assert first == {name: store.read("results", results.study, name) for name in figures}


def test_figure_shows_mean_seeds_trend_and_p_star(finished: Any) -> None:
    plan, store = finished
    chart = curve_grid(collect(plan, store), Results.collect(plan, store), columns="batch_size", title="t")
    ((panel,),) = chart.panels
    assert chart.columns[0].inverted  # pruning goes to the right
    curves = {curve.label: curve for curve in panel.curves}
    assert list(curves) == [
        "without Selection: mean ± std, n = 2",
        "single seeds",
        "trend (quadratic)",
        "after Selection: mean ± std, n = 2",
        "p*, chosen on validation",
    ]
    star = curves["p*, chosen on validation"]
    assert (star.marker, star.x[0], star.y[0]) == ("star", 0.5, pytest.approx(80.5))
    seeds = curves["single seeds"]
    assert seeds.dash == "dot"
    np.testing.assert_allclose(seeds.y, [70.0, 74.0, 80.0, 60.0, math.nan, 71.0, 75.0, 81.0, 61.0, math.nan])
    assert curves["trend (quadratic)"].dash == "dash"


@pytest.mark.usefixtures("without_pixels")
def test_every_study_of_a_sweep_keeps_its_results(finished: Any, tmp_path: Path) -> None:
    """What an earlier call wrote over other data stays; a folder for a report holds one study."""
    plan, store = finished
    report = Store(str(tmp_path / "report"))
    other = Sweep(name="toy_grid", exhibits=("tables4_5",))
    first, _ = write_results(plan, store)
    again, _ = write_results(plan, store)
    assert again.study == first.study
    write_report(Results.load(store), report)
    assert "figure3_tiny.png" in report.names("figures")
    second, _ = write_results(make_plan(other, Study({}), store), store)
    write_report(Results.load(store), report)
    assert studies(store) == [second.study, first.study]
    assert {sweep_of(study) for study in studies(store)} == {"toy_grid"}
    assert Results.load(store, "toy_grid").rows.empty  # of a sweep the study written last
    assert len(Results.load(store, first.study).rows)
    assert report.names("figures") == []
    assert {name.partition(".")[0] for name in report.names("tables")} == {"table4", "table5", "table5_all_layers"}


def test_other_settings_are_another_study(finished: Any) -> None:
    plan, store = finished
    ((name, entry),) = plan.study.entries.items()
    longer = dataclasses.replace(entry.settings, seeds=(7, 8))
    other = dataclasses.replace(plan, study=Study({name: dataclasses.replace(entry, settings=longer)}))
    first, second = (Results.collect(one, store) for one in (plan, other))
    assert first.study != second.study
    assert sweep_of(first.study) == sweep_of(second.study) == "toy_grid"


@pytest.mark.parametrize("harm", ["emptied", "deleted", "info cut short"])
@pytest.mark.usefixtures("without_pixels")
def test_results_that_are_not_whole_are_one_sentence(finished: Any, harm: Any) -> None:
    plan, store = finished
    study = write_results(plan, store)[0].study
    name = "info.json" if harm == "info cut short" else "rows.parquet"
    if harm == "deleted":
        store.fs.delete_file(store.path("results", study, name))
    else:
        store.write(store.read("results", study, name)[: 0 if harm == "emptied" else 100], "results", study, name)
    with pytest.raises(UserError, match=rf"results/{study}/{name}: missing, damaged or being written; run the sweep"):
        Results.load(store)
    write_results(plan, store)
    assert len(Results.load(store).rows) == len(collect(plan, store))


def test_what_data_are_called_is_shown_as_it_is(tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Neither a formula to matplotlib, nor a cell's end or a tag to Markdown."""
    name = r"$\foo$ | <script>$a$"
    store = Store(str(tmp_path))
    overrides = {"sparsification": {"ratios": list(RATIOS)}}
    study = Study({name: StudyDataset(DataFacts.of(tiny_dataset), "smoke", settings_for("tiny", "smoke", overrides))})
    sweep = dataclasses.replace(SWEEP, cells=lambda study: [study.cell(name, 8, 16, seed) for seed in (0, 1)])
    filled(make_plan(sweep, study, store), store)
    written = write_results(make_plan(sweep, study, store), store)[0].study
    table = store.read("results", written, "tables", "table1.md").decode()
    assert "<script>" not in table
    rows = [line.replace(r"\|", "") for line in table.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    suffixes = [Path(file).suffix for file in store.names("results", written, "figures")]
    assert suffixes.count(".png") == suffixes.count(".pdf") == 5


def test_nothing_committed_writes_nothing(tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    study = Study(
        {
            "tiny": StudyDataset(
                DataFacts.of(tiny_dataset),
                "smoke",
                settings_for("tiny", "smoke", {"sparsification": {"ratios": list(RATIOS)}}),
            )
        }
    )
    assert write_results(make_plan(SWEEP, study, store), store)[1] == []
    assert not (tmp_path / "results").exists()


def commit_references(plan: Any, store: Any, *, raw_on_test: Any) -> Any:
    """Majority .40 on validation and a third on test; raw features .60 and `raw_on_test`. One run for all cells."""
    accuracies = {
        "majority class": {"valid": 0.4, "test": 3 / 9},
        "raw features": {"valid": 0.6, "test": raw_on_test},
    }
    points = [
        {"reference": name, "split": split, "accuracy": accuracy, "samples": 9, "probe_converged": True}
        for name, of_split in accuracies.items()
        for split, accuracy in of_split.items()
    ]
    buffer = io.BytesIO()
    pd.DataFrame(points).to_parquet(buffer)
    (run,) = {cell.reference.identity: cell.reference for cell in plan.cells}.values()
    commit(store, run, {"rows.parquet": buffer.getvalue()}, seconds=4.0, provenance={"torch": "2"})
    return make_plan(plan.sweep, plan.study, store)


def written_words(study: str, written: Any, store: Any) -> Any:
    return "".join(store.read("results", study, name).decode() for name in written if name.endswith(".md"))


def test_references_are_one_row_per_reference_and_split(finished: Any) -> None:
    plan, store = finished
    assert references(plan, store).empty
    rows = references(commit_references(plan, store, raw_on_test=0.55), store)
    columns = ["dataset", "kind", "scale", "reference", "split", "samples"]
    assert rows[columns].to_numpy().tolist() == [
        ["tiny", "simulated", "smoke", "majority class", "valid", 9],
        ["tiny", "simulated", "smoke", "majority class", "test", 9],
        ["tiny", "simulated", "smoke", "raw features", "valid", 9],
        ["tiny", "simulated", "smoke", "raw features", "test", 9],
    ]
    assert rows["accuracy"].tolist() == [0.4, 3 / 9, 0.6, 0.55]
    assert rows["seconds"].eq(4.0).all()
    assert rows["data_fingerprint"].eq(plan.cells[0].facts.fingerprint).all()


@pytest.mark.usefixtures("without_pixels")
def test_references_are_written_as_a_table(finished: Any) -> None:
    plan, store = finished
    results, written = write_results(plan, store)
    assert "tables/references.csv" not in written
    assert "most frequent training class" not in written_words(results.study, written, store)
    results, written = write_results(commit_references(plan, store, raw_on_test=0.5555), store)
    assert "tables/references.csv" in written
    words = written_words(results.study, written, store)
    assert "\n# References\n" in f"\n{words}".replace("\n## ", "\n# ")
    assert "| dataset | reference | validation | test |" in words
    assert "| tiny (simulated data) | most frequent training class | 40.00 | 33.33 |" in words
    assert "| tiny (simulated data) | logistic regression on raw features (all modalities) | 60.00 | 55.55 |" in words


@pytest.mark.parametrize(
    ("raw_on_test", "height", "words"),
    [
        # Curves between 50 and 81: a line may lie a quarter of that off.
        (0.55, 55.0, "majority class 33.3 ↓"),
        (0.43, 43.0, "majority class 33.3 ↓"),
        (0.88, 88.0, "majority class 33.3 ↓"),
        (1.00, None, "majority class 33.3 ↓\nbest raw features 100.0 ↑"),
        (0.10, None, "majority class 33.3 ↓\nbest raw features 10.0 ↓"),
    ],
    ids=["near", "a bit below", "a bit above", "far above", "far below"],
)
def test_references_are_lines_near_the_curves_and_words_far_from_them(
    finished: Any, raw_on_test: Any, height: Any, words: Any
) -> None:
    plan, store = finished

    def drawn(floor: Any) -> Any:
        chart = curve_grid(
            collect(plan, store),
            dataclasses.replace(Results.collect(plan, store), references=floor),
            columns="batch_size",
            title="t",
        )
        return chart.panels[0][0], chart.limits(0, 0)

    panel, extent = drawn(references(commit_references(plan, store, raw_on_test=raw_on_test), store))
    bare, bare_extent = drawn(pd.DataFrame())
    assert panel.note == words
    assert (bare.note, list(bare.levels)) == ("", [])
    if height is None:
        assert list(panel.levels) == []
        assert extent == bare_extent  # what is far away does not flatten the curves
    else:
        (level,) = panel.levels
        assert (level.label, level.y) == ("logistic regression on raw features, the best inputs", pytest.approx(height))
        assert extent[0] <= height <= extent[1]


def test_a_reference_is_words_only_where_no_axis_reaches() -> None:
    """Of panels on one scale one reference stretches the axis as far as another: both are drawn."""
    levels = {(0, name): [("floor", Level(y=y, color="black"))] for name, y in (("a", 57.7), ("b", 57.4), ("c", 40.0))}
    found = near(levels, [60.0, 70.0])  # a quarter of these: down to 57.5; with it the axis reaches 57.1
    assert [(len(drawn), words) for drawn, words in found.values()] == [(1, ""), (1, ""), (0, "floor 40.0 ↓")]
    assert near({(0, "a"): levels[0, "a"]}, []) == {(0, "a"): ([], "")}  # nothing is drawn there
    assert near(levels, [50.0])[0, "c"] == ([], "floor 40.0 ↓")  # one point alone


@pytest.mark.parametrize(
    ("heights", "shared"),
    [
        ([[[1.0, 3.0], [1.0, 2.5]]], "all"),
        ([[[1.0, 3.0]], [[10.0, 12.0]]], "row"),  # on one scale they would fill a fifth of it
        ([[[1.0, 3.0], []]], "all"),
        ([[[2.0]]], "all"),
        ([], "all"),
    ],
)
def test_panels_share_a_scale_where_each_fills_half_of_it(heights: Any, shared: Any) -> None:
    assert fitting(heights, "all", "row") == shared


def test_every_column_is_described(embedded: SimpleNamespace) -> None:
    for name, frame in embedded.results.frames.items():
        if name not in ("modalities", "missing"):  # which the full grid does not ask for
            assert set(frame.columns) == set(COLUMNS[name]), name


def test_markers_are_read_by_the_plan_alone(finished: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = finished
    opened = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, *parts: opened.append(parts[-1]) or read(self, *parts))
    results = Results.collect(plan, store)
    assert not results.rows.empty
    assert opened
    assert "commit.json" not in opened


def test_the_settings_that_numbers_depend_on_stand_with_the_results(tiny_dataset: Dataset, tmp_path: Path) -> None:
    def noted(**tables: Any) -> Any:
        study = Study.of({"tiny": tiny_dataset}, "smoke", {"batch_sizes": [8], **tables})
        plan = make_plan(SWEEP, study, Store(str(tmp_path)))
        return Results.collect(plan, Store(str(tmp_path))).info["datasets"]["tiny"]["settings"]

    own, other = noted(), noted(method={"focal": {"epochs": 2}}, specialization={"temperature": 0.3}, seeds=[5])
    assert own["batch_size"] == 8
    assert (own["method"]["focal"]["epochs"], other["method"]["focal"]["epochs"]) == (None, 2)
    assert other["specialization"].pop("temperature") == 0.3
    assert own["specialization"].pop("temperature") != 0.3
    other["method"]["focal"]["epochs"] = None
    assert other == own  # which seeds there are changes no number

"""Whatever is missing, everything is rendered: blank where there is nothing, no word of a library's, no warning.

A case is the full grid's results (made_up.py) with some rows taken away. The report renders all there is: tables in
Markdown, LaTeX, CSV and HTML, figures as PNG, PDF and on the page.
"""

import dataclasses
import io
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from s3ray.results import Results, best_ratios, summarize
from s3ray.results.render import render, tables
from s3ray.results.report import write_report, write_results
from s3ray.results.statistics import verdicts
from s3ray.search.findings import load_searches
from s3ray.search.journal import journal_storage
from s3ray.store import Store
from s3ray.sweep import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
BLANK = re.compile(r"(?<![\w.-])(nan|none|null|inf|<na>|nat)(?![\w-])", re.IGNORECASE)


def small(results: Any) -> Any:
    """Three ratios of one dataset at one batch size and two granularities: what a case needs, and quickly drawn."""
    whole = (results.rows, results.entropies, results.factors, results.controls, results.contributions)
    one = {"dataset": "latent_factors", "batch_size": 64}
    ratios = [1.0, 0.5, 0.1]
    chosen = [t[(t[list(one)] == pd.Series(one)).all(axis=1)] for t in whole]
    rows, entropies, factors, controls, contributions = (t[~(t["granularity"] == 2)] for t in chosen)
    references = results.references[results.references["dataset"] == one["dataset"]]
    # Tables 4 and 5 take no rows, and Figures 3 and 6 are drawn by what draws Figure 5.
    exhibits = [name for name in results.info["exhibits"] if name not in ("tables4_5", "figure3", "figure6")]
    datasets = {one["dataset"]: results.info["datasets"][one["dataset"]]}
    info = {**results.info, "datasets": datasets, "exhibits": exhibits}
    return Results(
        rows[rows["preservation_ratio"].isin(ratios)],
        controls[controls["preservation_ratio"].isin([*ratios, 0.0])],
        references,
        entropies,
        contributions,
        factors[factors["preservation_ratio"].isin(ratios)],
        pd.DataFrame(),
        pd.DataFrame(),
        info,
    )


def frames(results: Any) -> Any:
    return {name: table.frame for name, table in tables(render(results)).items()}


def keep(condition: Any) -> Any:
    """Of every table the rows for which `condition` holds, where it can be asked."""

    def case(results: Any) -> Any:
        def filtered(table: Any) -> Any:
            try:
                return table[condition(table)]
            except KeyError:
                return table

        changed = {name: filtered(table) for name, table in results.frames.items() if not table.empty}
        return dataclasses.replace(results, **{name: t if len(t) else pd.DataFrame() for name, t in changed.items()})

    return case


def unknown(condition: Any) -> Any:
    """Accuracies and other values of these rows are NaN."""

    def case(results: Any) -> Any:
        rows = results.rows.assign(accuracy=results.rows["accuracy"].mask(condition(results.rows)))
        factors = results.factors.assign(value=results.factors["value"].mask(results.factors["quantity"] == "R2"))
        return dataclasses.replace(results, rows=rows, factors=factors)

    return case


def without(*names: Any) -> Any:
    return lambda results: dataclasses.replace(results, **{name: pd.DataFrame() for name in names})


def held(condition: Any) -> Any:
    """The controls for which `condition` holds."""
    return lambda results: dataclasses.replace(results, controls=results.controls[condition(results.controls)])


CASES = {
    "two seeds": keep(lambda t: t["seed"] < 2),
    "one seed": keep(lambda t: t["seed"] == 1),
    "no seed": keep(lambda t: t["seed"] > 9),
    "one seed in one configuration": keep(lambda t: (t["seed"] == 0) | (t["granularity"] != 8)),
    "seeds differ by branch": keep(lambda t: (t["seed"] == 0) == (t["branch"] == "none")),
    "one configuration": keep(lambda t: (t["granularity"] == 4) & (t["branch"] == "suff+min")),
    "no row at p 1": keep(lambda t: (t["preservation_ratio"] < 1) | (t["granularity"] != 8)),
    "no row at p 1 anywhere": keep(lambda t: t["preservation_ratio"] < 1),
    "one ratio": keep(lambda t: t["preservation_ratio"] == 1),
    "a ratio of one seed": keep(lambda t: (t["preservation_ratio"] != 0.5) | (t["seed"] == 1)),
    "no validation": keep(lambda t: t["split"] == "test"),
    "no test": keep(lambda t: t["split"] == "valid"),
    "only references": without("rows", "entropies", "factors"),
    "no controls": without("controls"),
    "only floors": held(lambda t: t["control"].isin(["no expert", "untrained"])),
    "only random": held(lambda t: t["control"] == "random"),
    "controls lack a seed": held(lambda t: t["seed"] > 0),
    "a control lacks a seed": held(lambda t: (t["seed"] > 0) | (t["control"] != "random")),
    "controls of one seed": held(lambda t: t["seed"] == 0),
    "no references": without("references"),
    "references of validation": lambda r: dataclasses.replace(
        r, references=r.references[r.references["split"] == "valid"]
    ),
    "only prior methods": keep(lambda t: t["method"] != "s3"),
    "only S3": keep(lambda t: t["method"] == "s3"),
    "without Selection": keep(lambda t: t["branch"] == "none"),
    "only Selection": keep(lambda t: t["branch"] == "suff+min"),
    "accuracies of a seed unknown": unknown(lambda rows: rows["seed"] == 1),
    "accuracies unknown": unknown(lambda rows: rows["seed"] > -1),
    "accuracies at p 1 unknown": unknown(lambda rows: rows["preservation_ratio"] == 1),
    "provenance unknown": lambda r: dataclasses.replace(
        r, rows=r.rows.assign(torch=None, label_rule=np.nan, training_seconds=np.nan)
    ),
}


# A report takes a second or two: these few show the most kinds of hole, and come with every check.
FIRST = (
    "one seed",
    "no seed",
    "controls of one seed",
    "no row at p 1",
    "no validation",
    "only prior methods",
    "accuracies unknown",
)


@pytest.fixture(scope="module")
def whole(embedded: SimpleNamespace) -> Any:
    return small(embedded.results)


@pytest.fixture(autouse=True)
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn once, and their pixels not: that they can be drawn is what counts here."""

    def unpainted_render(figure: Any, suffix: Any) -> Any:
        if suffix == "png":
            figure.set_layout_engine("none")
            figure.draw_without_rendering()
        return suffix.encode()

    monkeypatch.setattr("s3ray.results.drawing.render", unpainted_render)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in FIRST else pytest.mark.slow) for case in CASES]
)
@pytest.mark.filterwarnings("error")
def test_what_is_missing_is_blank_everywhere(case: Any, whole: Any, tmp_path: Path, capfd: Any) -> None:
    results = CASES[case](whole)
    output = Store(str(tmp_path))
    write_report(results, output)
    assert capfd.readouterr() == ("", "")
    for path in sorted(tmp_path.rglob("*")):
        if path.suffix in (".md", ".tex", ".csv"):
            # `none` is the name of a Selection branch, and of the missing Selection.
            words = path.read_text().replace("`none`", "").replace("| none |", "||").replace("none &", "&")
            words = re.sub(r"(^|,)none(?=,)", r"\1", words, flags=re.MULTILINE)
            assert BLANK.findall(words) == [], path
            if path.suffix == ".csv":
                assert len(pd.read_csv(io.BytesIO(path.read_bytes()))), path
    page = (tmp_path / "index.html").read_text()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)
    assert [cell for cell in cells if BLANK.fullmatch(cell.strip()) and cell != "none"] == []
    assert "std nan" not in page.lower()


@pytest.mark.filterwarnings("error")
def test_one_seed_has_no_deviation_and_no_interval(whole: Any) -> None:
    shown = frames(CASES["one seed"](whole))
    assert {"table1", "table2", "table3", "factors", "verdicts"} <= set(shown)
    for name in ("table1", "table2", "table3", "factors", "verdicts"):
        own = shown[name].filter(regex="^(?!more|largest)").to_csv()
        # "(simulated data)", "(… best p on test)" and "(%)" are words; numbers in brackets are deviations.
        assert re.findall(r"±|\(\d[\d.]*\)|\(p [\d.]", own) == [], name


@pytest.mark.filterwarnings("error")
def test_a_sweep_of_one_seed_and_one_ratio_below_1_is_written(made_up: SimpleNamespace, tmp_path: Path) -> None:
    sweep = load_sweep(SWEEPS / "table1_figure5.py")
    overrides = {"seeds": [1], "granularities": [8], "batch_sizes": [64], "sparsification": {"ratios": [1.0, 0.5]}}
    plan, store = made_up.finished(sweep, ["digits"], tmp_path, overrides=overrides)
    results, written = write_results(plan, store)
    promised = {"tables/table1.md", "tables/verdicts.tex", "figures/figure5_batch_64.png", "tables/summary.csv"}
    assert promised <= set(written)
    line = (
        store.read("results", results.study, "tables", "table1.md").decode().splitlines()[-1].strip("| ").split(" | ")
    )
    assert line[:3] == ["digits (embedded data)", "64", "8"]
    # Specialization, Selection, p .5, p 0, p*, test at p*, its gain, the oracle likewise, n.
    assert line[4:] == ["64.64", "66.64", "71.64", "45.00", "0.5", "71.64", "+5.00", "0.5", "71.64", "1"]


@pytest.mark.parametrize("seeds", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_statistics_of_few_seeds(seeds: Any, whole: Any) -> None:
    rows = whole.rows[whole.rows["seed"] < seeds]
    summary, best, judged = summarize(rows), best_ratios(rows), verdicts(rows)
    assert len(best) == len(judged) == (6 if seeds else 0)  # χ 4: none and suff+min; χ 8: suff and min, too
    assert summary["n"].eq(seeds).all()
    assert summary["std"].isna().all() if seeds < 2 else summary["std"].notna().all()
    assert best["gain_half_width"].isna().all() if seeds < 2 else (best["gain_half_width"] > 0).all()
    if seeds == 1:
        assert set(judged["verdict"]) == {"undecided"}
        assert set(judged["claim"]) == {""}


def test_table_1_keeps_what_was_measured_where_p_star_cannot_be_chosen(whole: Any) -> None:
    lines = frames(CASES["no validation"](whole))["table1"].set_index(["χ", "Selection loss"])
    full = frames(whole)["table1"].set_index(["χ", "Selection loss"])
    measured = ["Specialization", "Selection", "p 0.5", "p 0.1"]
    pd.testing.assert_frame_equal(lines[measured], full[measured])
    assert (lines[["p*", "test at p*", "gain over p 1 [95 %]", "oracle p", "oracle test"]] == "").all(axis=None)
    # Without p = 1 at χ = 8 there is no gain, but the curve is there.
    holed = frames(CASES["no row at p 1"](whole))["table1"].set_index(["χ", "Selection loss"])
    assert holed.loc[(8, "suff+min"), ["Selection", "p*"]].tolist() == ["", ""]
    assert holed.loc[(8, "suff+min"), "p 0.5"] == full.loc[(8, "suff+min"), "p 0.5"]
    assert holed.loc[(4, "suff+min"), "p*"] == full.loc[(4, "suff+min"), "p*"]


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_searches_of_few_trials(trials: Any, whole: Any, tmp_path: Path) -> None:
    """None finished, one that diverged at its first seed, and another that was stopped."""
    store = Store(str(tmp_path))
    study = optuna.create_study(study_name="few", storage=journal_storage(store, "few"), direction="maximize")
    about = {"dataset": "own", "kind": "user", "scale": "smoke", "granularity": 8, "batch_size": 64, "seeds": [0, 1]}
    for name, value in {**about, "objective": "validation accuracy"}.items():
        study.set_user_attr(name, value)
    distribution = {"optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True)}
    for number in range(trials):
        attrs, values = ({"cause": "DivergedError: x"}, {}) if number == 0 else ({"p": 0.5}, {1: 0.7})
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED,
                params={"optimizer.learning_rate": 1e-3},
                distributions=distribution,
                user_attrs=attrs,
                intermediate_values=values,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searches = load_searches(store)
        assert len(searches) == (1 if trials else 0)
        write_report(dataclasses.replace(whole, info={**whole.info, "exhibits": []}), store, searches)
    page = (tmp_path / "index.html").read_text()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page, re.DOTALL)
    assert [cell for cell in cells if BLANK.fullmatch(cell.strip()) and cell != "none"] == []
    assert ("diverged" in cells) == (trials > 0)


@pytest.mark.parametrize("case", ["one seed", "no test", "only prior methods", "accuracies of a seed unknown"])
@pytest.mark.filterwarnings("error")
def test_holes_beside_the_paper(case: Any, multibench: SimpleNamespace, tmp_path: Path) -> None:
    results = multibench.results
    factors = pd.DataFrame(columns=["quantity", "value"])
    results = CASES[case](dataclasses.replace(results, factors=factors, info={**results.info, "exhibits": ["table2"]}))
    results = dataclasses.replace(results, factors=pd.DataFrame())
    write_report(results, Store(str(tmp_path)))
    compared = pd.read_csv(tmp_path / "tables" / "compare.csv", keep_default_na=False)
    judged = compared[(compared["dataset"] == "mosi") & (compared["table"] == 2)]
    assert (
        set(judged["verdict"])
        <= {
            "one seed": {"underpowered"},
            "no test": {"not run"},
            "only prior methods": {"underpowered", "reproduced", "not run"},
            "accuracies of a seed unknown": {"underpowered"},
        }[case]
    )
    for path in (tmp_path / "tables").glob("*.*"):
        words = path.read_text().replace("`none`", "").replace("| none |", "||").replace("none &", "&")
        assert BLANK.findall(re.sub(r"(^|,)none(?=,)", r"\1", words, flags=re.MULTILINE)) == [], path

"""Tables 1 and 2 by another metric than accuracy: what p* follows, what is shown, and why it may be blank."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.linear_model import RidgeCV
from sklearn.metrics import accuracy_score, mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lacking import lacking
from s3ray.data.dataset import Dataset, Split
from s3ray.errors import UserError
from s3ray.execution.cell import run_cell
from s3ray.model import build_model
from s3ray.model.config import ModelConfig
from s3ray.model.draws import generator
from s3ray.results import Results
from s3ray.results.columns import COLUMNS
from s3ray.results.exhibits import EXHIBITS
from s3ray.results.metrics import blank_because, by_metric
from s3ray.results.render import render
from s3ray.results.report import write_report
from s3ray.stages.encode import encode_splits
from s3ray.stages.metrics import METRICS
from s3ray.stages.sentiment import SENTIMENT, SentimentConfig
from s3ray.stages.stage import Context
from s3ray.store import Store
from s3ray.sweep import Plan, Study, Sweep, make_plan

RATIOS = (1.0, 0.5, 0.1)
# Better with pruning by MAE on validation at .1, by macro F1 at .5; accuracy is best at p .5.
VALUES = {
    "accuracy": (0.70, 0.80, 0.60),
    "macro_f1": (0.50, 0.60, 0.40),
    "mae": (1.4, 1.2, 1.1),
    "pearson_r": (0.2, 0.3, 0.4),
}


def results(rows: pd.DataFrame, metric: str) -> Results:
    tables = {name: pd.DataFrame() for name in COLUMNS if name != "rows"}
    return Results(rows=rows, **tables, info={"sweep": "toy", "datasets": {}}).by(metric)


def rows(**columns: Any) -> pd.DataFrame:
    """Of three seeds, a hundredth apart; test is validation."""
    lines = [
        {"dataset": "toy", "method": "s3", "kind": "user", "scale": "smoke", "granularity": 8, "batch_size": 64}
        | {
            "reading": "",
            "branch": "suff+min",
            "seed": seed,
            "split": split,
            "preservation_ratio": ratio,
            "samples": 100,
        }
        | {name: values[place] + 0.01 * seed for name, values in VALUES.items()}
        | {"active_parameters": 1.0, "active_parameters_paper": 1.0, "balanced_accuracy": 0.5}
        | {"auroc": math.nan, "scores_fingerprint": None, "sentiment_identity": "i"}
        for seed in range(3)
        for split in ("valid", "test")
        for place, ratio in enumerate(RATIOS)
    ]
    return pd.DataFrame(lines).assign(**columns)


def table1(metric: str, frame: pd.DataFrame) -> tuple[dict[str, Any], str, str]:
    """The line of the metric's table, its title and its note."""
    tables = EXHIBITS["table1"].tables(results(frame, metric))
    assert list(tables) == ["table1", f"table1_{metric}"]
    assert tables["table1"].frame["p*"].tolist() == ["0.5"]  # accuracy's stays as it is
    (line,) = tables[f"table1_{metric}"].frame.to_dict("records")
    return line, tables[f"table1_{metric}"].title, tables[f"table1_{metric}"].note


def test_p_star_is_chosen_by_the_metric_that_is_shown() -> None:
    line, title, note = table1("macro_f1", rows())
    assert title == "Table 1: macro F1 (%) through the three stages"
    assert (line["Selection"], line["p*"], line["test at p*"]) == ("51.00 (1.00)", "0.5", "61.00")
    assert line["gain over p 1 [95 %]"].startswith("+10.00 ± ")
    assert "In accuracy's place stands macro F1 throughout: p* is chosen by it, too." in note
    assert "Blank" not in note


def test_less_is_better_of_mae_and_a_gain_is_what_it_falls_by() -> None:
    line, title, note = table1("mae", rows())
    assert title == "Table 1: MAE through the three stages"
    assert (line["Selection"], line["p 0.1"]) == ("1.410 (0.010)", "1.110 (0.010)")
    assert (line["p*"], line["test at p*"], line["oracle p"], line["oracle test"]) == ("0.1", "1.110", "0.1", "1.110")
    assert line["gain over p 1 [95 %]"].startswith("+0.300 ± ")
    assert "chosen by it, too; less is better, and a gain is what it falls by." in note
    assert table1("pearson_r", rows())[0]["test at p*"] == "0.410"


def test_table_2_has_the_metrics_lines_and_not_the_papers() -> None:
    frame = rows(dataset="mosi", kind="multibench")
    tables = EXHIBITS["table2"].tables(results(frame, "pearson_r"))
    assert tables["table2_pearson_r"].title == "Table 2: S3 beside prior methods, Pearson's r"
    shown = tables["table2_pearson_r"].frame.set_index("method")["mosi (multibench data)"]
    assert shown.to_dict() == {
        "+ Selection": "0.210 (0.010)",
        "+ Sparsification (p* on validation)": "0.410 (0.010)",
        "+ Sparsification (oracle: best p on test)": "0.410 (0.010)",
    }
    assert "mosi (paper)" in tables["table2"].frame
    assert "mosi (paper)" not in tables["table2_pearson_r"].frame


def test_by_accuracy_tables_are_what_they_were() -> None:
    assert list(EXHIBITS["table1"].tables(results(rows(), "accuracy"))) == ["table1"]
    assert by_metric(pd.DataFrame(), "mae").empty
    with pytest.raises(UserError, match=r"^metric 'weighted': there is none of this name; did you mean 'weighted_f1'"):
        results(rows(), "weighted")


OLD = ["balanced_accuracy", "macro_f1", "auroc"]
BLANKS: dict[str, tuple[str, Callable[[], pd.DataFrame], str]] = {
    "old rows": ("macro_f1", lambda: rows().drop(columns=OLD), "computed before metrics were stored"),
    "old rows among new": (
        "macro_f1",
        lambda: pd.concat([rows()[rows()["seed"] > 0], rows()[rows()["seed"] == 0].drop(columns=OLD)]),
        "computed before metrics were stored (6 of 18 rows)",
    ),
    "a class lacks": ("auroc", rows, "a class is not in the split"),
    "no scores": ("acc2_nonzero", rows, "no sentiment scores at hand"),
    "neutrals alone": (
        "acc2_nonzero",
        lambda: rows(scores_fingerprint="f", acc2_nonzero=math.nan),
        "every sentiment is neutral",
    ),
    "not measured": (
        "mae",
        lambda: rows(mae=None, sentiment_identity=None),
        "not measured; run the sweep with --metric mae on data with sentiment scores",
    ),
    "constant": (
        "pearson_r",
        lambda: rows(pearson_r=math.nan),
        "sentiments or predictions are constant, or of one sample",
    ),
}


@pytest.mark.parametrize("case", BLANKS)
def test_what_is_blank_says_why(case: str) -> None:
    metric, made, reason = BLANKS[case]
    frame = made()
    assert blank_because(frame, metric) == {"toy": reason}
    for name in ("table1", "table2"):
        table = EXHIBITS[name].tables(results(frame, metric))[f"{name}_{metric}"]
        assert f"Blank: toy: {reason}." in table.note
        assert len(table.frame)
        if by_metric(frame, metric)["accuracy"].isna().all():
            assert table.frame.to_dict("records") == [{"dataset": "toy", f"no {METRICS[metric].title}": reason}]


def test_nothing_is_blank_where_nothing_is() -> None:
    assert blank_because(pd.DataFrame(), "mae") == blank_because(rows(), "mae") == {}


def scored(data: Dataset) -> Dataset:
    """In two classes, which follow from sentiments of which some are neutral."""

    def split(old: Split) -> Split:
        scores = np.resize([-2.0, 0.0, 1.0, -0.5, 2.5], len(old)).astype(np.float32)
        return dataclasses.replace(old, labels=(scores >= 0).astype(np.int64), scores=scores)

    return dataclasses.replace(data, **{name: split(old) for name, old in data.splits.items()})


SWEEP = Sweep(
    name="toy", cells=lambda study: [study.cell("toy", 2, 8, 0)], branches=("none", "suff+min"), exhibits=("table1",)
)


def plan_of(data: Dataset, store: Store, metric: str = "accuracy") -> Plan:
    overrides = {
        "model": {"width": 16, "heads": 2},
        "batch_sizes": [8],
        "specialization": {"optimizer": {"epochs": 1}},
        "selection": {"optimizer": {"epochs": 1}},
        "sparsification": {"ratios": [1.0, 0.5]},
    }
    return make_plan(dataclasses.replace(SWEEP, metric=metric), Study.of({"toy": data}, "smoke", overrides), store)


def test_sentiments_are_regressed_on_request_alone_and_change_no_identity(
    tiny_dataset: Dataset, tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    data = scored(tiny_dataset)
    (without,) = plan_of(dataclasses.replace(data, **_without_scores(data)), store).cells
    for metric in ("accuracy", "auroc", "acc2_nonzero"):
        (cell,) = plan_of(data, store, metric).cells
        assert cell.identity == without.identity
    (asked,) = plan_of(data, store, "mae").cells
    assert [run.identity for run in asked.runs if run.stage.name != "sentiment"] == [r.identity for r in without.runs]
    for branch in asked.branches:
        assert [run.config.pruning and run.config.pruning.ratio for run in branch.sentiment] == [None, 0.5]
        assert {run.data for run in branch.sentiment} == {data.scores_fingerprint()}
    with pytest.raises(
        UserError, match=r"^metric 'mae': needs sentiment scores, which none of toy has; prepare mosi or"
    ):
        plan_of(dataclasses.replace(data, **_without_scores(data)), store, "mae")


@pytest.mark.slow
def test_rows_tell_accuracy_by_what_samples_lack(tiny_dataset: Dataset, tmp_path: Path) -> None:
    """From training to the table, the report and its notes; of complete data they are empty."""
    store = Store(str(tmp_path))
    first = torch.randperm(26, generator=generator("order", 0, 0)).tolist()[:8]  # the first step's: nobody has `right`
    data = lacking(tiny_dataset, train={"right": first}, test={"right": [1, 2], "left": [4]})
    for own in (data, tiny_dataset):
        (cell,) = plan_of(own, store).cells
        run_cell(cell, own, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=60.0)
        plan = plan_of(own, store)
        found = Results.collect(plan, store)
        for frame in (found.rows, found.controls, found.references):
            for _, row in frame.iterrows():
                if own is tiny_dataset or row["split"] == "valid":
                    assert pd.isna(row["accuracy_complete"])
                    assert pd.isna(row["accuracy_lacking"])
                    assert pd.isna(row["samples_complete"])
                    continue
                right = np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=9).astype(bool)
                assert row["accuracy_complete"] == pytest.approx(right[[0, 3, 5, 6, 7, 8]].mean())
                assert row["samples_complete"] == 6
                assert json.loads(row["accuracy_lacking"]) == {
                    "left": {"accuracy": float(right[4]), "samples": 1},
                    "right": {"accuracy": pytest.approx(right[[1, 2]].mean()), "samples": 2},
                }
        shares = found.contributions
        assert shares["share"].notna().all()
        assert found.entropies["entropy"].notna().all()
        at_first = set(shares[shares["after"] == "initialisation"]["modality"])
        assert at_first == ({"left"} if own is data else {"left", "right"})
        sentence = "right is missing in 30.8% of train, 0.0% of valid, 22.2% of test"
        told = sentence in " ".join(one.note for one in render(found))
        assert told == (own is data)
        page = Path(write_report(found, Store(str(tmp_path / "report")))).read_text()
        assert ("left is missing in 0.0% of train, 0.0% of valid, 11.1% of test" in page) == (own is data)


def _without_scores(data: Dataset) -> dict[str, Split]:
    return {name: dataclasses.replace(split, scores=None) for name, split in data.splits.items()}


@pytest.mark.slow
def test_rows_have_what_predictions_and_scores_come_to(tiny_dataset: Dataset, tmp_path: Path) -> None:
    """From training to the table, and again from another set of scores: what is committed stays, Acc-2 follows them."""
    store, data = Store(str(tmp_path)), scored(tiny_dataset)

    def ran(data: Dataset, metric: str) -> Results:
        (cell,) = plan_of(data, store, metric).cells
        run_cell(cell, data, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=60.0)
        return Results.collect(plan_of(data, store, metric), store)

    found = ran(data, "mae")
    assert found.info["metric"] == "mae"
    assert len(found.rows) == 2 * 2 * 2  # branches, ratios, splits
    for frame in (found.rows, found.controls, found.references):
        for _, row in frame.iterrows():
            split = data.splits[row["split"]]
            right = np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=len(split)).astype(bool)
            predicted, polar = np.where(right, split.labels, 1 - split.labels), split.scores != 0
            assert row["acc2_nonnegative"] == pytest.approx(row["accuracy"])  # the labels' own rule
            assert row["acc2_nonzero"] == accuracy_score(split.scores[polar] > 0, predicted[polar] == 1)
            assert row["scores_fingerprint"] == data.scores_fingerprint()
            assert 0 <= row["auroc"] <= 1
    assert found.rows[["mae", "pearson_r", "sentiment_identity"]].notna().all(axis=None)
    other = dataclasses.replace(
        data, **{n: dataclasses.replace(s, scores=s.scores * np.float32(0.5)) for n, s in data.splits.items()}
    )
    assert other.fingerprint() == data.fingerprint()
    again = Results.collect(plan_of(other, store), store)
    assert again.rows["identity"].tolist() == found.rows["identity"].tolist()
    assert again.rows["mae"].isna().all()  # of other scores none was asked for, and the old ones' do not count
    halved = ran(other, "mae")
    assert (halved.rows["mae"] < found.rows["mae"]).all()


def test_the_ridge_probe_is_scikit_learns(tiny_dataset: Dataset) -> None:
    data = scored(tiny_dataset)
    config = ModelConfig(width=16, layers=1, granularity=2, expansion=2, ffn_multiple=2, heads=2)
    model = build_model(config, data.features, 0)
    asked = SentimentConfig(output="none", on_sphere=True, pruning=None)
    outcome = SENTIMENT.run(asked, SENTIMENT.visible(data), model, Context())
    encoded = encode_splits(model, data, output="none", on_sphere=True)
    by_hand = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 6, 9)))
    by_hand.fit(encoded["train"].z.astype(float), data.train.scores)
    assert [row["split"] for row in outcome.rows] == ["valid", "test"]
    for row in outcome.rows:
        scores, predicted = data.splits[row["split"]].scores, by_hand.predict(encoded[row["split"]].z.astype(float))
        assert row["mae"] == pytest.approx(mean_absolute_error(scores, predicted))
        assert row["pearson_r"] == pytest.approx(stats.pearsonr(scores, predicted)[0], abs=1e-6)
        assert (row["preservation_ratio"], row["samples"]) == (1.0, len(scores))

"""What is said of a cell whose encoders or routers have collapsed."""

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from s3ray.results import Results
from s3ray.results.collapse import equal_representations, one_expert
from s3ray.results.report import write_report, write_results
from s3ray.stages.probe import spread_of
from s3ray.store import Store
from s3ray.sweep import load_sweep, make_plan
from toy_runs import overwrite


def test_spread_is_0_of_equal_and_1_of_centred_representations() -> None:
    z = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    assert spread_of(np.ones((5, 3), np.float32)) == spread_of(np.zeros((5, 3), np.float32)) == 0.0
    assert spread_of(z - z.mean(0)) == pytest.approx(1.0, abs=1e-6)
    assert spread_of(7 * (z + 1)) == pytest.approx(spread_of(z + 1))
    assert math.isnan(spread_of(z[:1]))


@pytest.mark.parametrize(("spread", "collapsed"), [(None, False), (math.nan, False), (0.0, True), (2e-3, False)])
def test_representations_collapse_below_a_thousandth(spread: float | None, collapsed: bool) -> None:
    assert bool(equal_representations(spread)) is collapsed


@pytest.mark.parametrize(
    ("entropies", "experts", "words"),
    [
        ({}, 8, ""),
        ({"text": 1.0}, 8, ""),
        ({"text": 0.02}, 8, "all tokens of text on one expert"),
        ({"text": 0.02, "audio": 0.0, "vision": None}, 8, "all tokens of text and audio on one expert"),
        ({"text": 0.0}, 1, ""),
    ],
)
def test_routing_collapses_below_a_hundredth(entropies: dict[str, Any], experts: int, words: str) -> None:
    first = {f"global_entropy/{name}": 0.0 for name in entropies}
    last = {f"global_entropy/{name}": entropy for name, entropy in entropies.items()}
    assert one_expert([first, last], experts) == words
    assert one_expert([], experts) == ""


def _changed(plan: Any, store: Store, run: Any, **columns: Any) -> None:
    table = pd.read_parquet(io.BytesIO(store.artifact(run, "rows.parquet"))).assign(**columns)
    overwrite(store, plan.committed[run.identity], "rows.parquet", table.to_parquet())


@pytest.mark.slow
@pytest.mark.usefixtures("without_pixels")
def test_a_collapse_stands_in_the_row_and_in_the_report(made_up: SimpleNamespace, tmp_path: Path) -> None:
    sweep = load_sweep(Path(__file__).parents[2] / "sweeps" / "table1_figure5.py")
    plan, store = made_up.finished(sweep, ["digits"], tmp_path / "store", overrides={})
    cell = next(cell for cell in plan.cells if cell.cell.method == "s3")
    branch = next(branch for branch in cell.branches if branch.selection)
    whole = Results.collect(plan, store)
    assert whole.info["collapsed"] == []
    assert set(whole.rows["collapsed"]) == {""}
    _changed(plan, store, branch.curve[1], spread=0.0)
    modality = next(iter(cell.facts.features))
    _changed(plan, store, branch.selection, **{f"global_entropy/{modality}": 0.0})
    plan = make_plan(plan.sweep, plan.study, store)
    results, _ = write_results(plan, store)
    (sentence,) = results.info["collapsed"]
    assert sentence.startswith(f"{cell.cell} {branch.branch}, p ")
    assert f": all tokens of {modality} on one expert; all representations equal; its numbers mean" in sentence
    told = results.rows[results.rows["collapsed"].str.contains("equal")]
    assert (set(told["seed"]), set(told["branch"])) == ({cell.cell.seed}, {branch.branch})
    assert results.rows[results.rows["trained_identity"] == branch.trained.identity]["collapsed"].all()
    report = Store(str(tmp_path / "report"))
    write_report(Results.load(store), report)
    assert f'<p class="warning">{sentence}</p>' in report.read("index.html").decode()

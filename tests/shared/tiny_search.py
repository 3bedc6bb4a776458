"""A search over the tiny dataset, and cells whose results are made up instead of trained."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
import pandas as pd

import toy_runs
from s3ray.data import Dataset
from s3ray.data.facts import DataFacts
from s3ray.execution.drift import ROWS
from s3ray.methods import METHODS, S3
from s3ray.search.journal import journal_storage
from s3ray.search.space import Search
from s3ray.search.trials import Trials, open_study
from s3ray.settings import default_scale, settings_for
from s3ray.stages.sparsification import SPARSIFICATION
from s3ray.store import Store
from s3ray.sweep import Cell, CellPlan, Plan, Study, StudyDataset, Sweep, make_plan

# Smoke has learning rate 5e-3, 8 epochs, λ_min 1.
SPACE = {"specialization.optimizer.learning_rate": 10, "specialization.optimizer.epochs": 2, "selection.lambda_min": 4}


def study_of(dataset: Dataset, overrides: Mapping[str, Any] | None = None) -> Study:
    own = {"batch_sizes": [8], "sparsification": {"ratios": [1.0, 0.9, 0.5, 0.1]}}
    settings = settings_for("digits", default_scale("digits"), {**own, **(overrides or {})})
    return Study({"digits": StudyDataset(DataFacts.of(dataset), default_scale("digits"), settings)})


def plan_of(study: Study, store: Store, seeds: int = 3, methods: Sequence[str] = (S3,)) -> Plan:
    def cells(study: Study) -> Iterator[Cell]:
        for dataset, method, seed in itertools.product(study.datasets, methods, range(seeds)):
            batch_size = study.batch_sizes(dataset)[0]
            yield (
                study.cell(dataset, 8, batch_size, seed)
                if method == S3
                else study.prior(dataset, method, batch_size, seed)
            )

    return make_plan(Sweep(name="search", cells=cells, branches=("suff+min",)), study, store)


def space_of(method: str) -> dict[str, float]:
    """`SPACE` for S3; a prior method's is what it declares."""
    declared = {} if method == S3 else METHODS[method].space
    return {f"method.{method}.{name}": factor for name, factor in declared.items()} or dict(SPACE)


def search_of(study: Study, store: Store, method: str) -> Search:
    return Search.of(plan_of(study, store, methods=[method]), "digits", space_of(method), method)


def rows(accuracies: Mapping[float, float]) -> pd.DataFrame:
    """Points of a pruning curve: these accuracies on validation, others on train and test."""
    return pd.DataFrame(
        [
            {"preservation_ratio": p, "split": split, "accuracy": a if split == "valid" else 1.0 - a}
            for p, a in accuracies.items()
            for split in ("train", "valid", "test")
        ]
    )


def commit(store: Store, cell: CellPlan, accuracies: Mapping[float, float]) -> None:
    """The cell has run, with these accuracies on validation by preservation ratio, and 0 at others."""
    for run in (run for branch in cell.branches for run in branch.curve):
        ratio = run.config.pruning.ratio if run.stage is SPARSIFICATION else 1.0
        buffer = io.BytesIO()
        rows({ratio: accuracies.get(ratio, 0.0)}).to_parquet(buffer)
        toy_runs.commit(store, run, {ROWS: buffer.getvalue()}, seconds=1.0, provenance={})


Result = float | str  # of a cell: its accuracy at p = 0.5, or why it failed
Objective = Callable[[CellPlan], Result]


def opened(search: Search, store: Store) -> optuna.Study:
    """The study as another process opens it."""
    return open_study(search, journal_storage(store, search.name))


def searched(
    search: Search, store: Store, objective: Objective, *, trials: int, at_once: int = 1
) -> tuple[Trials, list[str]]:
    """Run a search as the engine does, `at_once` cells at a time, the oldest of them the first to end."""
    lines: list[str] = []
    tried = Trials(search, opened(search, store), store, trials=trials, seed=0, say=lines.append)
    running: list[tuple[int, CellPlan]] = []
    for found in tried.cells():
        if found is not None:
            running.append(found)
        if found is None or len(running) == at_once:
            number, cell = running.pop(0)
            end(tried, store, number, cell, objective(cell))
    return tried, lines


def end(tried: Trials, store: Store, number: int, cell: CellPlan, result: Result) -> None:
    if isinstance(result, float):
        unpruned = 0.0 if cell.cell.method == S3 else result  # which is no point of S3's
        commit(store, cell, {1.0: unpruned, 0.5: result, 0.1: result / 2})
    tried.tell(number, result if isinstance(result, str) else None)

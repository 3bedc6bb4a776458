"""A short sweep, run without Ray into a store that then has its results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

import s3ray
from s3ray import Dataset, FinishedStore
from s3ray.execution import run_cell
from s3ray.results.collect import Results

SHORT = {
    "granularities": [2],
    "batch_sizes": [8],
    "seeds": [0, 1],
    "model": {"width": 16, "heads": 2},
    "specialization": {"optimizer": {"epochs": 1}},
    "selection": {"optimizer": {"epochs": 1}},
    "sparsification": {"ratios": [1.0, 0.4], "batch_size": 8},
}


def compute(plan: s3ray.Plan, store: FinishedStore) -> None:
    """Run a plan's cells without Ray; their data are in the store as after a sweep."""
    for data in plan.study.data.values():
        store.store.publish_dataset(data)
    for cell in plan.cells:
        data, here = plan.study.data[cell.cell.dataset], torch.device("cpu")
        run_cell(cell, data, store.store, lambda event: None, device=here, checkpoint_interval=1e9)


def fill(
    store: FinishedStore, sweep: s3ray.Sweep, data: Dataset | Iterable[Dataset], overrides: dict[str, Any]
) -> s3ray.Plan:
    """Run a sweep without Ray and save its tables."""
    study = s3ray.study([data] if isinstance(data, Dataset) else data, overrides=overrides)
    compute(s3ray.plan(sweep, study, store), store)
    plan = s3ray.plan(sweep, study, store)
    Results.collect(plan, store.store).save(store.store)
    return plan

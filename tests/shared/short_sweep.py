"""A short sweep, run without Ray into a store that then has its results."""

from __future__ import annotations

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


def fill(store: FinishedStore, sweep: s3ray.Sweep, data: Dataset, overrides: dict[str, Any]) -> s3ray.Plan:
    """Run a sweep without Ray and save its tables."""
    study = s3ray.study([data], overrides=overrides)
    for cell in s3ray.plan(sweep, study, store).cells:
        run_cell(cell, data, store.store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=1e9)
    plan = s3ray.plan(sweep, study, store)
    Results.collect(plan, store.store).save(store.store)
    return plan

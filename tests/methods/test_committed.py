"""What a cell of a prior method leaves in the store."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pandas as pd
import pytest
import torch

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.execution.cell import run_cell
from s3ray.execution.drift import ROWS
from s3ray.methods import METHODS
from s3ray.model import ModelConfig
from s3ray.settings import settings_for
from s3ray.stages.training import OptimizerConfig
from s3ray.store import Store
from s3ray.sweep import Cell, CellPlan, curves, plan_cell

pytestmark = pytest.mark.slow  # trains

# 26 samples in batches of 8: three steps an epoch, six in all.
EPOCHS, BATCH, STEPS, HALF = 2, 8, 6, 3
OPTIMIZER = OptimizerConfig(epochs=EPOCHS, learning_rate=1e-2)


def _committed(method: str, data: Dataset, model: ModelConfig, folder: Path) -> tuple[CellPlan, Store]:
    settings = settings_for("tiny", "smoke")
    specialization = dataclasses.replace(settings.specialization, optimizer=OPTIMIZER)
    settings = dataclasses.replace(settings, model=model, specialization=specialization)
    cell = Cell(dataset="tiny", method=method, granularity=1, batch_size=BATCH, seed=0, scale="smoke")
    plan, store = plan_cell(cell, settings, DataFacts.of(data), curves(METHODS[method].outputs)), Store(str(folder))
    run_cell(plan, data, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=1e9)
    return plan, store


def test_rows_of_both_halves_keep_their_terms(tiny_dataset: Dataset, tiny_model: ModelConfig, tmp_path: Path) -> None:
    """DisentangledSSL records other terms in its second half than in its first."""
    plan, store = _committed("disentangledssl", tiny_dataset, tiny_model, tmp_path)
    rows = pd.read_parquet(io.BytesIO(store.artifact(plan.training, ROWS)))
    assert rows["step"].tolist() == list(range(STEPS))
    assert rows["loss"].notna().all()
    for term, first in {"coherence": True, "alignment": True, "specific": False, "orthogonality": False}.items():
        assert rows[term].notna().tolist() == [first] * HALF + [not first] * HALF
    # The loss of each half is made of what stands beside it.
    settings = plan.training.config.loss
    shared = rows["coherence"] - settings.alignment * rows["alignment"]
    private = rows["specific"] + settings.orthogonality * rows["orthogonality"]
    assert rows["loss"].to_numpy() == pytest.approx(shared.fillna(private).to_numpy(), rel=1e-5)


def test_every_output_is_probed_once_and_unpruned(
    tiny_dataset: Dataset, tiny_model: ModelConfig, tmp_path: Path
) -> None:
    plan, store = _committed("factorcl", tiny_dataset, tiny_model, tmp_path)
    assert store.markers(plan.runs).keys() == {run.identity for run in plan.runs}
    for branch in plan.branches:
        (probe,) = branch.curve
        assert branch.trained is plan.training
        rows = pd.read_parquet(io.BytesIO(store.artifact(probe, ROWS)))
        assert rows[["preservation_ratio", "split"]].to_numpy().tolist() == [[1.0, "valid"], [1.0, "test"]]
    emb, proj = (pd.read_parquet(io.BytesIO(store.artifact(b.curve[0], ROWS))) for b in plan.branches)
    # The heads are active where they are probed.
    assert (proj["active_parameters"] > emb["active_parameters"]).all()

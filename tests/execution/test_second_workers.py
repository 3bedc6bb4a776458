"""Two gloo workers come second: both go on from the first result. The workers are this file, run as a script."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor

import tiny_sweep
from gloo_workers import be_worker, run_workers
from s3ray.data.dataset import Dataset
from s3ray.execution import run_cell
from s3ray.stages.specialization import SPECIALIZATION
from s3ray.stages.stage import StageRun
from s3ray.store import Committed, Store


def of(store: Store) -> Any:
    return tiny_sweep.tiny_plan(store, seeds=1, epochs=1).cells[0]


def come_second(data: Dataset) -> dict[str, Any]:
    """Run a cell whose Specialization another writer commits first; what its model is built of from then on."""
    store, commit, restore = Store(f"{sys.argv[2]}/store"), Store.commit, SPECIALIZATION.restore
    assert restore is not None
    built: list[dict[str, Tensor]] = []

    def beaten(self: Store, run: StageRun, files: Any, **more: Any) -> Committed:
        if run.stage is SPECIALIZATION:
            ours = safetensors.load(files["weights.safetensors"])
            theirs = safetensors.save({name: tensor + 0.01 for name, tensor in ours.items()})
            commit(self, run, {**files, "weights.safetensors": theirs}, **more)
        return commit(self, run, files, **more)

    def noted(config: Any, inputs: Any, parent: Any, weights: Mapping[str, Tensor]) -> Any:
        built.append(dict(weights))
        return restore(config, inputs, parent, weights)

    Store.commit = beaten  # type: ignore[method-assign]
    object.__setattr__(SPECIALIZATION, "restore", noted)
    run_cell(of(store), data, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=1e9)
    return {str(index): weights for index, weights in enumerate(built)}


@pytest.mark.slow
def test_every_rank_goes_on_from_the_first_result(tmp_path: Path) -> None:
    ranks = run_workers(__file__, tiny_sweep.DATA, tmp_path)
    store = Store(str(tmp_path / "store"))
    cell = of(store)
    assert store.markers(cell.runs).keys() == {run.identity for run in cell.runs}
    stored = safetensors.load(store.artifact(cell.training, "weights.safetensors"))
    assert store.markers([cell.training])[cell.training.identity].workers == 2
    for built in ranks:
        assert built
        for weights in built.values():
            assert weights.keys() == stored.keys()
            assert all(torch.equal(weights[name], stored[name]) for name in stored)


if __name__ == "__main__":
    be_worker(come_second)

"""Two gloo workers train what one worker trains. The workers are this file, run as a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from s3ray.baselines import BASELINES, build_baseline, train_baseline
from s3ray.config import BaselineConfig, Method, ModelConfig, OptimizerConfig
from s3ray.data.dataset import Dataset

BATCH, STEPS = 12, 6  # 26 samples: two steps an epoch, three epochs
MODEL = ModelConfig(width=16, layers=1, granularity=1, expansion=1, ffn_multiple=2, heads=2, dropout=0.1)
CONFIG = BaselineConfig(temperature=0.2, critic_width=16)
OPTIMIZER = OptimizerConfig(epochs=3, learning_rate=1e-3)


def train_all(data: Dataset) -> dict[str, Any]:
    """Every method in float64; on one worker, or on every rank of a group."""
    results: dict[str, Any] = {}
    for method in BASELINES:
        model = build_baseline(method, MODEL, CONFIG, data.features, data.classes, seed=0).double()
        metrics = train_baseline(model, data.train, OPTIMIZER, batch_size=BATCH, seed=0)
        assert len(metrics) == STEPS
        results[method] = {"state": model.state_dict(), "metrics": metrics}
    return results


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    torch.save(train_all(Dataset.open(folder / "data")), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(tiny_dataset: Dataset) -> dict[str, Any]:
    return train_all(tiny_dataset)


@pytest.fixture(scope="module")
def ranks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    tiny_dataset.save(folder / "data")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def _gap(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference of a parameter tensor, relative to its largest entry."""
    return max(((first[k] - second[k]).abs().max() / second[k].abs().max()).item() for k in second)


@pytest.mark.slow
@pytest.mark.parametrize("method", BASELINES)
def test_parameters_equal_those_of_one_worker(
    alone: dict[str, Any], ranks: list[dict[str, Any]], method: Method
) -> None:
    tolerance = 1e-9
    start = build_baseline(method, MODEL, CONFIG, {"left": 5, "right": 3}, 3, seed=0).double().state_dict()
    assert _gap(alone[method]["state"], start) > 1e-3  # they moved by far more than the tolerance
    assert _gap(ranks[0][method]["state"], alone[method]["state"]) < tolerance
    assert _gap(ranks[1][method]["state"], ranks[0][method]["state"]) == 0.0
    for row, expected in zip(ranks[0][method]["metrics"], alone[method]["metrics"], strict=True):
        assert row == pytest.approx(expected, rel=10 * tolerance, abs=10 * tolerance)


if __name__ == "__main__":
    worker(int(sys.argv[1]), Path(sys.argv[2]))

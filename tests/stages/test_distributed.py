"""Two gloo workers do what one worker does: global losses, global noise, one curve.

The workers are this file, run as a script.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from s3ray.config import ModelConfig, OptimizerConfig, ProbeConfig, SelectionConfig, SpecializationConfig

from gloo_workers import be_worker, gap, run_workers
from s3ray.data.dataset import Dataset
from s3ray.model import build_model
from s3ray.stages import pruning_curve, s3_representation, select, specialize
from s3ray.stages.training import _order

BATCH, STEPS = 12, 20  # 26 samples: two steps an epoch, ten epochs
MODEL = ModelConfig(width=16, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2, dropout=0.1)
OPTIMIZER = OptimizerConfig(epochs=10, learning_rate=1e-3)
JOBS: dict[str, Any] = {
    "specialize": (specialize, SpecializationConfig(optimizer=OPTIMIZER)),
    "specialize, dropout views": (specialize, SpecializationConfig(optimizer=OPTIMIZER, views="dropout")),
    "select": (select, SelectionConfig(optimizer=OPTIMIZER)),
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def run_jobs(data: Dataset) -> dict[str, Any]:
    """Every stage in both precisions, and a pruning curve; on one worker, or on every rank of a group."""
    results: dict[str, Any] = {}
    for name, (stage, config) in JOBS.items():
        for precision, dtype in DTYPES.items():
            model = build_model(MODEL, data.features, seed=0).to(dtype)
            metrics = stage(model, data.train, config, batch_size=BATCH, seed=0)
            assert len(metrics) == STEPS
            results[f"{name} {precision}"] = {"state": model.state_dict(), "metrics": metrics}
    # Batches of 3 over 26, 10 and 9 samples: 9, 4 and 3, the first and last not even over two workers.
    model = build_model(MODEL, data.features, seed=0)
    results["curve"] = [
        (p.preservation_ratio, p.split, p.accuracy, p.samples, p.pairs_kept, p.pairs_routed)
        for p in pruning_curve(s3_representation(model), data, (1.0, 0.4), ProbeConfig(), batch_size=3)
    ]
    return results


@pytest.fixture(scope="module")
def alone(tiny_dataset: Dataset) -> dict[str, Any]:
    return run_jobs(tiny_dataset)


@pytest.fixture(scope="module")
def ranks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_workers(__file__, tiny_dataset, tmp_path_factory.mktemp("workers"))


def test_the_shards_differ_in_tokens(tiny_dataset: Dataset) -> None:
    """Else a mean of the ranks' means would pass for the global mean."""
    indices = _order(len(tiny_dataset.train), 0, 0)[:BATCH]
    for sequences in tiny_dataset.train.modalities.values():
        first, second = sequences.lengths[indices].reshape(2, -1).sum(axis=1)
        assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_parameters_equal_those_of_one_worker(
    alone: dict[str, Any], ranks: list[dict[str, Any]], job: str, precision: str, tolerance: float
) -> None:
    key = f"{job} {precision}"
    start = build_model(MODEL, {"left": 5, "right": 3}, seed=0).to(DTYPES[precision]).state_dict()
    assert gap(alone[key]["state"], start) > 1e-2  # they moved by far more than the tolerance
    assert gap(ranks[0][key]["state"], alone[key]["state"]) < tolerance
    assert gap(ranks[1][key]["state"], ranks[0][key]["state"]) == 0.0
    for row, expected in zip(ranks[0][key]["metrics"], alone[key]["metrics"], strict=True):
        assert row == pytest.approx(expected, rel=10 * tolerance, abs=10 * tolerance)


@pytest.mark.slow
def test_two_workers_give_the_curve_of_one(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["curve"] == alone["curve"]
    assert len(alone["curve"]) == 4
    assert ranks[1]["curve"] == []  # rank 0 probes


if __name__ == "__main__":
    be_worker(run_jobs)

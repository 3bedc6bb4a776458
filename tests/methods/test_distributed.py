"""Two gloo workers train what one worker trains. The workers are this file, run as a script."""

from __future__ import annotations

from typing import Any

import pytest

from gloo_workers import be_worker, gap, run_workers
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


@pytest.fixture(scope="module")
def alone(tiny_dataset: Dataset) -> dict[str, Any]:
    return train_all(tiny_dataset)


@pytest.fixture(scope="module")
def ranks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_workers(__file__, tiny_dataset, tmp_path_factory.mktemp("workers"))


@pytest.mark.slow
@pytest.mark.parametrize("method", BASELINES)
def test_parameters_equal_those_of_one_worker(
    alone: dict[str, Any], ranks: list[dict[str, Any]], method: Method
) -> None:
    tolerance = 1e-9
    start = build_baseline(method, MODEL, CONFIG, {"left": 5, "right": 3}, 3, seed=0).double().state_dict()
    assert gap(alone[method]["state"], start) > 1e-3  # they moved by far more than the tolerance
    assert gap(ranks[0][method]["state"], alone[method]["state"]) < tolerance
    assert gap(ranks[1][method]["state"], ranks[0][method]["state"]) == 0.0
    for row, expected in zip(ranks[0][method]["metrics"], alone[method]["metrics"], strict=True):
        assert row == pytest.approx(expected, rel=10 * tolerance, abs=10 * tolerance)


if __name__ == "__main__":
    be_worker(train_all)

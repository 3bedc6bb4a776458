"""Two gloo workers train what one worker trains. The workers are this file, run as a script."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from gloo_workers import be_worker, gap, run_workers
from prior_methods import configured
from s3ray.data.dataset import Dataset
from s3ray.methods import METHODS, MethodConfig
from s3ray.methods.method import build
from s3ray.model import ModelConfig
from s3ray.stages.stage import Context, Inputs
from s3ray.stages.training import OptimizerConfig

BATCH, STEPS = 12, 6  # 26 samples: two steps an epoch, three epochs
MODEL = ModelConfig(width=16, layers=1, ffn_multiple=2, heads=2, dropout=0.1)
VALUES = {
    "temperature": 0.2,
    "critic_width": 16,
    "private_weight": 1.0,
    "orthogonality": 1.0,
    "alignment": 1.0,
    "concentration": 1000.0,
}
OPTIMIZER = OptimizerConfig(epochs=3, learning_rate=1e-3)


@contextmanager
def _float64() -> Iterator[None]:
    """Models are built, and so trained, in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _config(method: str) -> MethodConfig:
    return configured(method, MODEL, OPTIMIZER, VALUES, batch_size=BATCH, seed=0)


def train_all(data: Dataset) -> dict[str, Any]:
    """Every method in float64; on one worker, or on every rank of a group."""
    results: dict[str, Any] = {}
    with _float64():
        for name, method in METHODS.items():
            outcome = method.stage.run(_config(name), data, None, Context())
            assert outcome.weights is not None
            results[name] = {"weights": dict(outcome.weights), "rows": outcome.rows}
    return results


@pytest.fixture(scope="module")
def alone(tiny_dataset: Dataset) -> dict[str, Any]:
    return train_all(tiny_dataset)


@pytest.fixture(scope="module")
def ranks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_workers(__file__, tiny_dataset, tmp_path_factory.mktemp("workers"))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_parameters_equal_those_of_one_worker(alone: dict[str, Any], ranks: list[dict[str, Any]], method: str) -> None:
    tolerance = 1e-9
    with _float64():
        start = build(METHODS[method].model, _config(method), Inputs({"left": 5, "right": 3}, 3)).state_dict()
    expected, (first, second) = alone[method], [each[method] for each in ranks]
    assert all(tensor.dtype == torch.float64 for tensor in expected["weights"].values())
    assert len(expected["rows"]) == len(first["rows"]) == STEPS
    assert gap(expected["weights"], start) > 1e-3  # they moved by far more than the tolerance
    assert gap(first["weights"], expected["weights"]) < tolerance
    assert gap(second["weights"], first["weights"]) == 0.0
    for row, other in zip(first["rows"], expected["rows"], strict=True):
        assert row == pytest.approx(other, rel=10 * tolerance, abs=10 * tolerance)


if __name__ == "__main__":
    be_worker(train_all)

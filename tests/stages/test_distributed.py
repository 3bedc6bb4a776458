"""Two gloo workers do what one worker does: global losses, global noise, one curve.

The workers are this file, run as a script.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gloo_workers import be_worker, gap, run_workers
from s3ray.data.dataset import Dataset, Split
from s3ray.model import ModelConfig, Pruning, S3Model, build_model
from s3ray.stages.probe import ProbeSettings, probed
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.specialization import SPECIALIZATION, SpecializationConfig, SpecializationSettings
from s3ray.stages.stage import Context, Outcome
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import VARIANTS, SelectionSettings

BATCH, STEPS = 12, 20  # 26 samples: two steps an epoch, ten epochs
MODEL = ModelConfig(width=16, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2, dropout=0.1)
OPTIMIZER = OptimizerConfig(epochs=10, learning_rate=1e-3)
JOBS = ("specialization", "specialization, dropout views", "selection")
DTYPES = {"float64": torch.float64, "float32": torch.float32}
# Batches of 3 over 26, 10 and 9 samples: 9, 4 and 3, the first and last not even over two workers.
PRUNINGS = (
    None,
    Pruning(ratio=1.0, pool=3),
    Pruning(ratio=0.4, pool=3),
    Pruning(ratio=0.4, pool=3, rule="random", seed=1),
    Pruning(ratio=0.4, pool=3, rule="smallest"),
    Pruning(ratio=0.4, pool=3, rule="contribution"),
    Pruning(ratio=0.0, pool=3),
)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What parameters are made of: a stage builds its own model."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _start(data: Dataset) -> S3Model:
    return build_model(MODEL, data.features, seed=0)


def _run(job: str, data: Dataset) -> Outcome:
    if job == "selection":
        configure = VARIANTS["suff+min"].configure
        assert configure is not None
        loss = configure(SelectionSettings())
        selection = SelectionConfig(
            variant="suff+min", version=1, loss=loss, optimizer=OPTIMIZER, batch_size=BATCH, seed=0
        )
        return SELECTION.run(selection, data, _start(data), Context())
    settings = SpecializationSettings(optimizer=OPTIMIZER, views="dropout" if job.endswith("views") else "same")
    specialization = SpecializationConfig(model=MODEL, training=settings, batch_size=BATCH, seed=0)
    return SPECIALIZATION.run(specialization, data, None, Context())


def run_jobs(data: Dataset) -> dict[str, Any]:
    """Every stage in both precisions, and a pruning curve; on one worker, or on every rank of a group."""
    results: dict[str, Any] = {}
    for job in JOBS:
        for precision, dtype in DTYPES.items():
            with default_dtype(dtype):
                outcome = _run(job, data)
            assert outcome.weights is not None
            assert all(weight.dtype == dtype for weight in outcome.weights.values())
            results[f"{job} {precision}"] = {"weights": dict(outcome.weights), "metrics": outcome.rows}
    model, classifier = _start(data), ProbeSettings().classifier
    results["curve"] = [
        tuple(value for name, value in row.items() if not name.endswith("_seconds"))
        for pruning in PRUNINGS
        for row in probed(model, data, classifier, output="none", on_sphere=True, pruning=pruning).rows
    ]
    return results


@pytest.fixture(scope="module")
def alone(tiny_dataset: Dataset) -> dict[str, Any]:
    return run_jobs(tiny_dataset)


@pytest.fixture(scope="module")
def ranks(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_workers(__file__, tiny_dataset, tmp_path_factory.mktemp("workers"))


def test_the_shards_differ_in_tokens(tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a mean of the ranks' means would pass for the global mean."""
    batches: list[NDArray[np.int64]] = []
    original = Split.batch

    def recorded(self: Split, indices: NDArray[np.int64]) -> dict[str, Any]:
        batches.append(indices)
        return original(self, indices)

    monkeypatch.setattr(Split, "batch", recorded)
    _run("selection", tiny_dataset)
    for sequences in tiny_dataset.train.modalities.values():
        first, second = sequences.lengths[batches[0]].reshape(2, -1).sum(axis=1)
        assert first != second


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_parameters_equal_those_of_one_worker(
    alone: dict[str, Any],
    ranks: list[dict[str, Any]],
    tiny_dataset: Dataset,
    job: str,
    precision: str,
    tolerance: float,
) -> None:
    key = f"{job} {precision}"
    with default_dtype(DTYPES[precision]):
        start = _start(tiny_dataset).state_dict()
    expected, first, second = alone[key]["weights"], ranks[0][key]["weights"], ranks[1][key]["weights"]
    assert gap(start, expected) > 1e-2  # they moved by far more than the tolerance
    assert gap(first, expected) < tolerance
    assert gap(second, first) == 0.0
    assert len(alone[key]["metrics"]) == STEPS
    for row, wanted in zip(ranks[0][key]["metrics"], alone[key]["metrics"], strict=True):
        assert row == pytest.approx(wanted, rel=10 * tolerance, abs=10 * tolerance)


@pytest.mark.slow
def test_two_workers_give_the_curve_of_one(alone: dict[str, Any], ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["curve"] == alone["curve"]
    assert len(alone["curve"]) == 2 * len(PRUNINGS)
    assert ranks[1]["curve"] == []  # rank 0 probes


if __name__ == "__main__":
    be_worker(run_jobs)

"""Measured against estimated seconds of every stage: `python benchmarks/stage_seconds.py [DATASET …]`.

One thread, smoke scale, one seed, some steps of training scaled up to the configured number; seconds of the CPU, which
other work on the machine disturbs least. The estimates of `s3ray plan` are ratios of these, for a machine whose cores
are all busy; the store corrects them by what it has measured.

`long_300` and `long_1250` are made up: 64 samples whose first modality has as many steps, the second 50.

With `modalities` in place of datasets: seconds of a training step on `latent_factors` seen through one, two and three
modalities alike, and where a quarter of each modality is missing; the least of several, taken in turns.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from s3ray.data import EMBEDDED
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.data.facts import DataFacts
from s3ray.model import TrainedModel
from s3ray.settings import settings_for
from s3ray.stages.missing import dropped
from s3ray.stages.stage import Context, Inputs, StageRun
from s3ray.stages.training import OptimizerConfig
from s3ray.sweep import Cell, curves, plan_cell

EPOCHS = 2
ROUNDS = 5


def long(steps: int) -> Dataset:
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        shapes = {"first": (size, steps, 20), "second": (size, 50, 20)}
        modalities = {name: Sequences.from_padded(rng.normal(size=shape)) for name, shape in shapes.items()}
        return Split(modalities, np.arange(size) % 2)

    return Dataset(f"long_{steps}", "simulated", split(64), split(16), split(16))


DATASETS: dict[str, Callable[[], Dataset]] = {
    **{name: embedded.load for name, embedded in EMBEDDED.items()},
    "long_300": lambda: long(300),
    "long_1250": lambda: long(1250),
}


def shortened(config: Any) -> tuple[Any, float]:
    """A stage's configuration with few epochs, and how much longer the whole takes."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, OptimizerConfig):
            return dataclasses.replace(config, **{field.name: dataclasses.replace(value, epochs=EPOCHS)}), (
                value.epochs / EPOCHS
            )
        if dataclasses.is_dataclass(value):
            inner, factor = shortened(value)
            if inner is not value:
                return dataclasses.replace(config, **{field.name: inner}), factor
    return config, 1.0


def measured(runs: Sequence[StageRun], data: Dataset) -> float:
    """Seconds of runs of one stage."""
    seconds = 0.0
    for run in runs:
        config, factor = shortened(run.config)
        parent = trained(run.parent, data) if run.parent else None
        started = time.process_time()
        outcome = run.stage.run(config, data, parent, Context())
        seconds += factor * (time.process_time() - started)
        if outcome.weights is not None:
            MODELS[run.identity] = outcome.weights
    return seconds


MODELS: dict[str, Any] = {}  # weights by identity


def trained(run: StageRun, data: Dataset) -> TrainedModel:
    parent = trained(run.parent, data) if run.parent else None
    assert run.stage.restore is not None
    return run.stage.restore(run.config, Inputs.of(data), parent, MODELS[run.identity])


def modalities() -> None:
    """Of each number of modalities, and with samples that lack some, beside two modalities."""
    torch.set_num_threads(1)
    usual = {count: latent_factors(LatentFactorsConfig(modalities=count)) for count in (1, 2, 3)}
    cases = {f"{count} modalities": data for count, data in usual.items()}
    cases |= {f"{count} modalities, 25% missing": dropped(usual[count], 0.25, 0) for count in (2, 3)}
    least: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for name, data in cases.items():
            cell = Cell(dataset=name, granularity=8, batch_size=64, seed=0, scale="smoke")
            settings = settings_for("latent_factors", "smoke")
            plan = plan_cell(cell, settings, DataFacts.of(data), curves(["suff+min"]))
            for run in (plan.training, plan.branches[0].trained):
                epochs = EPOCHS * shortened(run.config)[1]
                seconds = measured([run], data) / (epochs * (len(data.train) // 64))
                least[name, run.stage.name] = min(least.get((name, run.stage.name), seconds), seconds)
    for stage in ("specialization", "selection"):
        for name in cases:
            of_two = least[name, stage] / least["2 modalities", stage]
            print(f"{stage:<14} {name:<28} {1000 * least[name, stage]:6.1f} ms a step {of_two:5.2f} of 2 modalities")


def main(names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    print("dataset          χ batch  stage            measured  estimated  ratio")
    for name in names:
        data = DATASETS[name]()
        facts = DataFacts.of(data)
        for granularity in (2, 4, 8):
            for batch_size in (32,) if name.startswith("long") else (64, 128):
                cell = Cell(dataset=name, granularity=granularity, batch_size=batch_size, seed=0, scale="smoke")
                plan = plan_cell(cell, settings_for(name, "smoke"), facts, curves(["suff+min"]))
                (branch,) = plan.branches
                if not MODELS:
                    measured([plan.training], data)  # warm-up
                for stage, runs in (
                    ("specialization", [plan.training]),
                    ("selection", [branch.trained]),
                    ("sparsification", branch.curve),
                ):
                    seconds = measured(runs, data)
                    estimate = sum(plan.seconds[run.identity] for run in runs)
                    print(
                        f"{name:<16} {granularity} {batch_size:>5}  {stage:<14} {seconds:>7.1f}s {estimate:>9.1f}s "
                        f"{seconds / estimate:>6.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    if sys.argv[1:] == ["modalities"]:
        modalities()
    else:
        main(sys.argv[1:] or list(DATASETS))

"""A sweep of seconds, run as a program by the tests that start Ray: `python tiny_sweep.py STORAGE [WORKERS]`.

Exit code 1 if a cell failed. Environment variables: TINY_DIVERGE makes the cell of that seed diverge; TINY_SEEDS,
TINY_EPOCHS and TINY_INTERVAL (seconds between checkpoints) change its size.
"""

from __future__ import annotations

import dataclasses
import os
import sys

from rich.console import Console

from s3ray.cli.console import user_errors
from s3ray.data.embedded.digits import DigitsConfig, digits
from s3ray.data.facts import DataFacts
from s3ray.settings import Settings, settings_for
from s3ray.stages.training import OptimizerConfig
from s3ray.store import Store
from s3ray.sweep import CellPlan, Plan, Study, StudyDataset, Sweep, curves, make_plan, plan_cell

DATA = digits(DigitsConfig(held_out=700))


def settings(epochs: int = 6) -> Settings:
    smoke = settings_for("digits", "smoke")
    optimizer = OptimizerConfig(epochs=epochs, learning_rate=1e-3)
    return dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, width=16, heads=2),
        specialization=dataclasses.replace(smoke.specialization, optimizer=optimizer),
        selection=dataclasses.replace(smoke.selection, optimizer=dataclasses.replace(optimizer, epochs=1)),
        sparsification=dataclasses.replace(smoke.sparsification, ratios=(1.0, 0.5)),
        batch_sizes=(32,),
    )


def tiny_plan(store: Store, seeds: int = 2, epochs: int = 6) -> Plan:
    sweep = Sweep(
        name="tiny",
        cells=lambda study: [study.cell("digits", 2, 32, seed) for seed in range(seeds)],
        branches=("none", "suff+min"),
    )
    return make_plan(sweep, Study({"digits": StudyDataset(DataFacts.of(DATA), "smoke", settings(epochs))}), store)


def diverging(plan: Plan, seed: int) -> Plan:
    """The plan with a temperature so small for one seed that its loss is no longer finite."""

    def spoil(cell: CellPlan) -> CellPlan:
        if cell.cell.seed != seed:
            return cell
        own = plan.study.entries["digits"].settings
        special = dataclasses.replace(own.specialization, temperature=1e-45)
        spoilt = dataclasses.replace(own, specialization=special)
        return plan_cell(cell.cell, spoilt, cell.facts, curves(branch.branch for branch in cell.branches))

    return dataclasses.replace(plan, cells=tuple(spoil(cell) for cell in plan.cells))


if __name__ == "__main__":
    with user_errors():
        from s3ray.engine.preflight import Execution
        from s3ray.engine.run import run_plan

        store = Store(sys.argv[1])
        plan = tiny_plan(store, int(os.environ.get("TINY_SEEDS", 2)), int(os.environ.get("TINY_EPOCHS", 6)))
        if seed := os.environ.get("TINY_DIVERGE"):
            plan = diverging(plan, int(seed))
        workers = int(sys.argv[2]) if len(sys.argv) > 2 else 1
        interval = float(os.environ.get("TINY_INTERVAL", 0.2))
        execution = Execution(workers_per_trial=workers, checkpoint_interval=interval)
        outcome = run_plan(plan, store, {"digits": DATA}, execution, Console())
        for cell, cause in outcome.failures.items():
            print(f"FAILED {cell}: {cause}")
    sys.exit(bool(outcome.failures))

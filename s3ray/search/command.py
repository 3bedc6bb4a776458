"""What a search file runs once its command line is read: search, and write the best configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console

from s3ray.data import Dataset
from s3ray.engine.preflight import Execution, check_plan
from s3ray.search.space import Search, Space, best_configuration
from s3ray.store import Store
from s3ray.sweep import Plan


def search_all(
    plan: Plan,
    store: Store,
    data: Mapping[str, Dataset],
    space: Space,
    overrides: Mapping[str, Any],
    execution: Execution,
    *,
    trials: int,
    seed: int,
    console: Console,
) -> bool:
    """Search around every dataset of a plan; whether something is left to mend and to run again.

    Args:
        overrides: the `--config` that the plan was made with.

    Raises:
        UserError: the space or the settings cannot be searched, or the search cannot run.
    """
    from s3ray.engine.trials import run_searches

    searches = [Search.of(plan, name, space) for name in plan.study.datasets]
    check_plan(replace(plan, committed={}), store, execution)  # other configurations run even if this one is cached
    outcomes = run_searches(searches, store, data, execution, trials=trials, seed=seed, console=console)
    for search in searches:
        outcome = outcomes[search.dataset]
        lines = outcome.lines(search)
        if outcome.best is not None:
            file = ("search", search.name, "best.toml")
            store.write(best_configuration(search, outcome.best.params, overrides, lines), *file)
            lines += [f"python sweeps/full_grid.py --scale {search.entry.scale} --config {store.file_uri(*file)}"]
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)
    return any(outcome.failures or outcome.best is None for outcome in outcomes.values())

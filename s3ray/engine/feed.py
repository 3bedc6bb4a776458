"""Run cells that are not all known at the start, since which come next depends on how others ended.

One Tune trial = one cell = one Train worker group. A group of its own costs each cell its start, but so none has to be
killed: killing a trial kills Train's controller, and Ray frees the placement group only where its dashboard runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import ray.tune
from ray.tune.search import Searcher

from s3ray.engine.cluster import log_folder
from s3ray.engine.health import Health, Watched
from s3ray.engine.preflight import Capacity, Execution
from s3ray.engine.run import cause, finish
from s3ray.engine.worker import Pack
from s3ray.errors import UserError
from s3ray.execution.ledger import Ledger, PlannedCell, PlanRecord
from s3ray.store import Store
from s3ray.store.names import FILE, write_names
from s3ray.sweep import CellPlan

# Cells, each with a number of its own among those that run; None where none is known before another one has ended.
Cells: TypeAlias = Iterator[tuple[int, CellPlan] | None]
Tell: TypeAlias = Callable[[int, str | None], None]


def run_cells(
    cells: Cells, tell: Tell, run: str, store: Store, execution: Execution, capacity: Capacity, health: Health
) -> None:
    """Run cells until there are no more, as many at a time as the cluster can hold.

    Args:
        tell: told the number of each cell that ended, and of what cause it failed; None if it is in the store.
        run: the name of this call, under which the store keeps what is known of failures.

    Raises:
        UserError: as `cells` and `tell` raise it; what still runs ends with the connection.
        LostError: Ray or the storage is gone.
    """

    def trial(config: dict[str, Any]) -> None:
        cell: CellPlan = config["cell"]
        name = f"cell-{cell.identity[:8]}"
        Ledger(store, run).add(PlannedCell.of(cell, name, store.markers(cell.runs)))
        pack = Pack(
            name,
            run,
            (cell,),
            store.uri,
            execution.checkpoint_interval,
            conditions=store.honours_conditions,  # asked before, by the driver
            preemptible=not capacity.is_local,
        )
        finish(pack, store, execution, relay=False)
        # A text in any case: Tune prints a line of its own about a trial whose result has nothing to print.
        ray.tune.report({"cause": Ledger(store, run).failures().get(cell.identity, "")})

    slots = capacity.slots(execution)
    with store.explained("written", "make room or choose a place you may write to"):
        write_names(store, {}, "runs", run, FILE)  # its cells are named by the search
        Ledger(store, run).plan(PlanRecord.of_search(run, slots, execution.workers_per_trial, log_folder()))
    feed = _Feed(cells, tell)
    tuner = ray.tune.Tuner(
        # The trial only waits for its worker group; it runs on the head and takes none of the workers' CPUs.
        ray.tune.with_resources(trial, {"node:__internal_head__": 0.001}),
        tune_config=ray.tune.TuneConfig(
            search_alg=feed,
            num_samples=-1,
            max_concurrent_trials=slots,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=store.path("runs", run),
            storage_filesystem=store.fs,
            failure_config=ray.tune.FailureConfig(max_failures=2),
            callbacks=[Watched(health)],
            verbose=2 if execution.verbose else 0,
        ),
    )
    try:
        tuner.fit()
    except UserError:
        raise
    except Exception as error:  # Tune's own; what was running has failed of it
        if not feed.running:
            raise
        for number in feed.running.values():
            tell(number, cause(error))


class _Feed(Searcher):
    """Tune asks it for the next trial, again and again."""

    def __init__(self, cells: Cells, tell: Tell) -> None:
        super().__init__()
        self.running: dict[str, int] = {}  # numbers by Tune's trial
        self._cells, self._tell = cells, tell
        self._ended: list[tuple[int, str | None]] = []

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its searcher so that it could restore itself; a run here is never restored.
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # as Searcher has it
        while self._ended:  # told here, since Tune would take what is raised below for the trial's fault
            self._tell(*self._ended.pop(0))
        cell = next(self._cells, Searcher.FINISHED)
        if not isinstance(cell, tuple):
            return cell
        self.running[trial_id] = cell[0]
        return {"cell": cell[1]}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        lost = "the process that waited for its worker group ended; run again, with --verbose to see why"
        self._ended.append((self.running.pop(trial_id), lost if error or not result else result["cause"] or None))

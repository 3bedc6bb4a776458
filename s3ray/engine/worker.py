"""What a Train worker group does with its pack: cell after cell, each failing or finishing on its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import ray.train
import ray.train.torch
import torch

from s3ray.engine.cell import Event, from_rank_zero, run_cell
from s3ray.stages.collective import workers
from s3ray.store import Store
from s3ray.sweep import CellPlan

# A cell is given up when its worker group died this often without any progress in between.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Pack:
    """What one trial runs. Ray's dashboard shows it, so nothing in it is secret."""

    name: str
    run: str  # the call of the sweep that this pack belongs to
    cells: tuple[CellPlan, ...]
    storage: str
    checkpoint_interval: float


class Ledger:
    """Attempts and failures of the cells of one run, as small files that survive every process."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run

    def attempt(self, cell: CellPlan) -> int:
        """Note a start of `cell`; how many there were since it last made progress."""
        store = self._store
        runs = [run for run in cell.runs if store.marker(run) is None]
        step = max((store.checkpoint_step(run) or 0 for run in runs), default=0)
        progress = f"{len(cell.runs) - len(runs)}-{step}"
        folder = ("runs", self._run, "attempts", cell.specialization.identity, progress)
        number = len(store.names(*folder)) + 1
        store.write("", *folder, str(number))
        return number

    def fail(self, cell: CellPlan, cause: str) -> None:
        content = json.dumps({"cell": asdict(cell.cell), "cause": cause})
        self._store.write(content, "runs", self._run, "failures", f"{cell.specialization.identity}.json")

    def failures(self) -> dict[str, str]:
        """Cause per Specialization identity of the cells that failed in this run."""
        return {
            name.removesuffix(".json"): json.loads(self._store.read("runs", self._run, "failures", name))["cause"]
            for name in self._store.names("runs", self._run, "failures")
        }


class Reporter:
    """Sends events to Tune, several at once where they come together: a report may wait for the last one's
    pick-up."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._cells_finished = 0

    def __call__(self, event: Event) -> None:
        self._waiting.append(asdict(event))
        self._cells_finished += event.state == "cell_finished"
        if event.state != "finished":  # another event follows a finished stage at once
            # Tune turns what it is given into nested columns; the events travel as one string.
            ray.train.report({"events": json.dumps(self._waiting), "cells_finished": self._cells_finished})
            self._waiting = []


def run_pack(config: dict[str, Any]) -> None:
    """The `train_loop_per_worker`: run every cell of `config["pack"]` that has not failed or finished.

    With one worker, a failing cell is recorded and the next one starts. With several, the ranks may no longer
    be in step: the failure is recorded, the group restarts, and skips it.
    """
    pack: Pack = config["pack"]
    torch.set_num_threads(1)  # one CPU per worker; results must not depend on the machine's cores
    store = Store(pack.storage)
    ledger = Ledger(store, pack.run)
    report = Reporter()
    failed = from_rank_zero(ledger.failures)
    for cell in pack.cells:
        outcome = partial(Event, str(cell.cell), cell.cell.dataset)
        if cell.specialization.identity in failed:
            report(outcome("cell_failed", cause=failed[cell.specialization.identity]))
            continue
        try:
            _attempt(cell, pack, store, ledger, report)
        except Exception as error:
            cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            ledger.fail(cell, cause)
            if workers() > 1:
                raise
            report(outcome("cell_failed", cause=cause))
        else:
            report(outcome("cell_finished"))


def _attempt(cell: CellPlan, pack: Pack, store: Store, ledger: Ledger, report: Reporter) -> None:
    if from_rank_zero(lambda: ledger.attempt(cell)) > MAX_ATTEMPTS:
        raise RuntimeError(f"its worker died {MAX_ATTEMPTS} times without progress (out of memory?)")
    run_cell(
        cell,
        store.fetch_dataset(cell.facts.fingerprint),
        store,
        report,
        device=ray.train.torch.get_device(),
        checkpoint_interval=pack.checkpoint_interval,
    )

"""What a Train worker group does with its pack: cell after cell, each failing or finishing on its own."""

from __future__ import annotations

import json
import re
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist

from s3ray.engine.cluster import alive_nodes, log_folder
from s3ray.execution import Event, run_cell
from s3ray.execution.ledger import Ledger
from s3ray.execution.ranks import from_rank_zero
from s3ray.stages.collective import rank, workers
from s3ray.stages.training import DivergedError
from s3ray.store import Claims, DamagedError, LeaseLostError, Store
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
    conditions: bool  # whether the storage has conditional writes: one verdict for the whole sweep
    preemptible: bool = False  # its nodes may be taken away, with or without notice


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
    """The `train_loop_per_worker`: run every cell of `config["pack"]` that is neither complete nor given up.

    A diverging loss gives the cell up and the next one starts: the same inputs would diverge again, and all ranks
    meet it at the same step. Any other error may be a rank's or a disk's own: it ends the
    worker group, Train starts another, and the cell goes on from its last checkpoint, up to MAX_ATTEMPTS times
    without progress. What another sweep is at work on is left out.
    """
    pack: Pack = config["pack"]
    torch.set_num_threads(1)  # one CPU per worker; results must not depend on the machine's cores
    store = Store(pack.storage)
    store.honours_conditions = pack.conditions
    ledger, claims = Ledger(store, pack.run), Claims(store)
    report = Reporter()
    given_up = from_rank_zero(ledger.failures)
    for cell in pack.cells:
        outcome = partial(Event, str(cell.cell), cell.cell.dataset)
        if cell.identity in given_up:
            report(outcome("cell_failed", cause=given_up[cell.identity]))
            continue
        # Asked now: another sweep may have finished it since this pack was made.
        committed = set(from_rank_zero(partial(store.markers, cell.runs)))
        try:
            finished = not cell.missing(committed) or _attempt(cell, committed, pack, store, claims, ledger, report)
        except _GivenUpError as error:
            ledger.fail(cell, str(error))
            report(outcome("cell_failed", cause=str(error)))
        else:
            if finished:
                report(outcome("cell_finished"))


class _GivenUpError(Exception):
    """A cell must be given up, and the cause."""


def _attempt(
    cell: CellPlan, committed: set[str], pack: Pack, store: Store, claims: Claims, ledger: Ledger, report: Reporter
) -> bool:
    """Run a cell; whether all of it is there then. Otherwise the rest is another sweep's work."""
    number: int | None = 0  # of this attempt, once it is one

    def note_and_report(event: Event) -> None:
        nonlocal number
        if number == 0:  # something of it is ours to do, and begins
            note = partial(ledger.attempt, cell, committed, pack=pack.name, stage=event.stage, workers=_places())
            number = from_rank_zero(lambda: note(alive_nodes(), MAX_ATTEMPTS))
            if number is None:
                known = from_rank_zero(lambda: ledger.last_error(cell) or ledger.noted(pack.name))
                error = known or "its worker died (out of memory?)"
                raise _GivenUpError(f"{error}; given up after {MAX_ATTEMPTS} attempts without progress")
        report(event)

    try:
        data = store.fetch_dataset(cell.facts.content)
    except DamagedError as error:  # no later start would find it whole: the next sweep publishes it again
        ledger.fail(cell, _sentence(error))
        raise
    try:
        return run_cell(
            cell,
            data,
            store,
            note_and_report,
            committed,
            device=ray.train.torch.get_device(),
            checkpoint_interval=pack.checkpoint_interval,
            leaving=_leaving if pack.preemptible else None,
            claims=claims,
        )
    except LeaseLostError as error:  # another sweep may work on it now; whoever comes next goes on from its checkpoint
        with suppress(OSError):  # the storage is perhaps what kept it from being renewed
            if rank() == 0:  # no error of the cell's, and would hide one that comes later
                ledger.note(pack.name, _sentence(error))
        return False
    except _GivenUpError:
        raise
    except Exception as error:
        ledger.error(cell, number or 0, _sentence(error), traceback.format_exc())
        if isinstance(error, DivergedError):
            raise _GivenUpError(_sentence(error)) from error
        raise


def _places() -> list[dict[str, str]]:
    """Where the workers of this group run, and where Ray keeps their logs."""
    context = ray.get_runtime_context()
    here = {"node": context.get_node_id(), "worker": context.get_worker_id(), "logs": log_folder()}
    places = [here] * workers()
    if workers() > 1:
        dist.all_gather_object(places, here)
    return places


def _leaving() -> bool:
    """Whether a node of this worker group has been announced to be taken away; all ranks must ask together."""
    return ray.train.get_preemption_info() is not None


def _sentence(error: Exception) -> str:
    return with_memory_remedy(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def with_memory_remedy(cause: str) -> str:
    """A cause; if it is memory that was lacking, with what to lower."""
    if not re.search(r"low on memory|out of memory|OutOfMemory|MemoryError|enough memory|allocate memory", cause):
        return cause
    return f"{cause}; lower batch_sizes, model.width, model.layers or --max-steps, or use machines with more memory"

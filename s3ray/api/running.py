"""Build a study, plan a sweep over it, run it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Self

from rich.console import Console

from s3ray.api.finished import FinishedStore
from s3ray.data.dataset import Dataset
from s3ray.errors import LostError, UserError
from s3ray.execution import Event
from s3ray.execution.provenance import planned_machine
from s3ray.results.collect import study_of
from s3ray.results.exhibits import answers, asked_for
from s3ray.results.findings import findings
from s3ray.results.rounds import with_second_round
from s3ray.search.calibration import Calibration, asked_by, plan_calibrated
from s3ray.store import Store
from s3ray.store.names import FILE, await_gc, read_names, write_names
from s3ray.sweep import Cell, Plan, Study, Sweep, make_plan
from s3ray.sweep.budget import Budget, NoRoomError, Prices
from s3ray.sweep.timing import between, duration
from s3ray.terminal import Terminal
from s3ray.traces import new_run


def study(
    datasets: Mapping[str, Dataset] | Iterable[Dataset],
    *,
    scale: str | None = None,
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Study:
    """What a sweep fans out over.

    Args:
        datasets: by name, or of names of their own.
        scale: `paper` or `smoke`; by default each dataset's own, which for yours is smoke.
        overrides: what a `--config` file would hold: nested tables that change settings, of one dataset alone under
            `{"dataset": {name: …}}`.

    Raises:
        UserError: no dataset, what is none, two of one name, an unknown scale, or overrides that do not fit.
    """
    pairs = (
        list(datasets.items())
        if isinstance(datasets, Mapping)
        else [(getattr(data, "name", ""), data) for data in datasets]
    )
    for _, one in pairs:
        if not isinstance(one, Dataset):
            raise UserError(f"study: {one!r} is no dataset; give what s3ray.dataset or s3ray.Dataset.open returns")
    data = dict(pairs)
    if not data or len(data) < len(pairs):
        raise UserError(f"study: has datasets {[name for name, _ in pairs]}; give one or more, each name once")
    for name in data:
        if not name.isidentifier():
            raise UserError(f"study: {name!r} must be a plain word; rename it")
    return Study.of(data, scale, overrides, "overrides")


def plan(sweep: Sweep, study: Study, store: FinishedStore) -> Plan:
    """What a sweep would run and what the store already has (`Plan.summary`); runs nothing.

    Raises:
        UserError: a cell whose settings or data cannot work, no cell, or an exhibit that there is not.
    """
    asked_for(sweep.name, sweep.exhibits)
    return with_second_round(plan_calibrated(sweep, study, store.store, planned_machine()), store.store)


@dataclass(frozen=True)
class Ran:
    """How a run ended.

    Attributes:
        failures: cause per failed cell; the others are committed, and running again tries these again.
        study: name of the results that were written, for `FinishedStore`; None: there is nothing yet.
    """

    failures: Mapping[Cell, str]
    study: str | None


def run(
    plan: Plan,
    store: FinishedStore,
    *,
    workers_per_trial: int = 1,
    gpus_per_worker: float = 0.0,
    verbose: bool = False,
    budget: Budget | None = None,
) -> Ran:
    """Run what a plan misses and write the sweep's tables and figures, as its command line does; prints progress.

    Ray is used only if something is missing. A Ray that this process has stays as it was; else that of `RAY_ADDRESS`
    or of this machine is used, or one is started here and ended again.

    Args:
        workers_per_trial: DDP workers that train a cell together.
        gpus_per_worker: may be a fraction.
        verbose: show Ray's own output too.
        budget: of time or money, such as `s3ray.Budget.of("2h")`; cells for which it has no room are left out, and
            counted as what runs next time.

    Raises:
        UserError: the plan cannot run on this cluster or with this storage, the budget has room for no cell, or the
            results cannot be written.
        LostError: Ray or the storage was lost during the run. If Ray still holds this process eight seconds later, it
            ends, with the sentence and exit code 1, and a notebook's kernel with it: it would hang for good.
    """
    return execute(
        make_plan(plan.sweep, plan.study, store.store, plan.machine),  # others may have worked meanwhile
        store.store,
        Terminal(),
        workers_per_trial=workers_per_trial,
        gpus_per_worker=gpus_per_worker,
        verbose=verbose,
        budget=budget,
    )


def execute(
    plan: Plan,
    store: Store,
    console: Console,
    *,
    workers_per_trial: int,
    gpus_per_worker: float,
    verbose: bool,
    budget: Budget | None = None,
    prices: Prices | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Ran:
    """`run` of a plan that has just been made; own data are calibrated before, which a budget pays for, but whole."""
    started, calls = time.monotonic(), list[dict[str, Any]]()
    say = partial(console.print, highlight=False, soft_wrap=True)
    settings = {"workers_per_trial": workers_per_trial, "gpus_per_worker": gpus_per_worker, "verbose": verbose}

    def compute(what: str, plan: Plan, budget: Budget | None) -> tuple[Plan, Mapping[Cell, str]]:
        more = {"budget": budget, "spent": time.monotonic() - started, "prices": prices, "on_event": on_event}
        return _compute(what, plan, store, console, calls, asking.looked_up, settings, more)

    with _Asking(plan.sweep.name, store, say, calls) as asking:
        if plan.sweep.computes and (calibration := Calibration.of(plan.study, store, plan.machine)):
            calibration = calibration.after(*compute("calibration", calibration.plan, None), store)
            for line in calibration.told(store):
                say(line)
            plan = make_plan(plan.sweep, calibration.settled(store), store, plan.machine)
            if plan.pending:
                say(f"with what was chosen: {len(plan.pending)} cells, {duration(sum(plan.shares))} of one worker")
        plan, failures = compute("the sweep", plan, budget)
        if (second := with_second_round(plan, store, failures.keys())) is not plan:
            without = f", without the {len(failures)} that failed" if failures else ""
            say(f"second round: {len(second.cells) - len(plan.cells)} cells that follow from the first{without}")
            try:
                plan, failures = compute("its second round", second, budget)
            except NoRoomError as error:  # what the first has found is worth its tables
                say(f"{error}; what is there is written")
        from s3ray.results.report import write_results  # plotly and matplotlib, which nothing else of a run needs

        with (
            store.explained("written", "make room or choose a place you may write to; what was computed stays"),
            console.status("writing tables, figures and the report"),  # on a terminal alone
        ):
            results, written = write_results(plan, store, calls)
            if written:
                asking.finished(results.study, plan)
        if written:
            for answer in answers(results):
                say(answer)
            for dataset, sentences in findings(results).items():
                say("\n".join([f"{dataset}: {sentences[0]}", *(f"  {sentence}" for sentence in sentences[1:])]))
            for sentence in results.info["collapsed"]:
                say(f"warning: {sentence}", style="yellow")
            if left_out := results.info["left_out"]:
                lines = [
                    f"warning: {len(left_out)} left out of the results:",
                    *(f"  {sentence}" for sentence in left_out),
                ]
                say("\n".join(lines), style="yellow")
            say(f"report: {store.address('results', results.study, 'index.html')}")
        return Ran(failures, results.study if written else None)


class _Asking:
    """What a call asks for is named while it goes on, and by its study for good, so that `s3ray gc` leaves it alone."""

    def __init__(self, sweep: str, store: Store, say: Callable[..., None], calls: list[dict[str, Any]]) -> None:
        """`calls` gets an entry for all that was computed."""
        self._store, self._say, self._call, self._calls = store, say, new_run(sweep), calls
        self._fresh = set[str]()  # studies that had named nothing before
        self._names: dict[str, tuple[str, str | None]] = {}

    def __enter__(self) -> Self:
        return self

    def looked_up(self, plan: Plan) -> Plan:
        """Name what a plan asks for; the plan, looked up anew if anything may have been deleted since it was."""
        store = self._store
        self._names |= asked_by(plan, store)
        with store.explained("written", "make room or choose a place you may write to"):
            write_names(store, self._names, "runs", self._call, FILE)
            may_lack = await_gc(store, self._names, self._waiting)
            self._add(study_of(plan))
        if not may_lack:
            return plan
        return replace(plan, committed=store.markers(run for cell in plan.cells for run in cell.runs))

    def _waiting(self, who: str) -> None:
        self._say(f"s3ray gc is deleting what nobody asks for ({who}); waiting for it to end")

    def _add(self, study: str) -> None:
        """To what earlier calls of the study asked for, as long as their tables stand there."""
        earlier = read_names(self._store, "results", study, FILE)
        if earlier is None:
            self._fresh.add(study)
        write_names(self._store, {**(earlier or {}), **self._names}, "results", study, FILE)

    def finished(self, study: str, plan: Plan) -> None:
        """The tables of the study are this call's, and, where something is left of it, perhaps earlier ones'."""
        if plan.pending:
            self._add(study)
        else:
            write_names(self._store, self._names, "results", study, FILE)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._store.drop_run(self._call)
        if kind is not None and issubclass(kind, UserError) and not issubclass(kind, LostError) and not self._calls:
            with suppress(OSError):
                for study in self._fresh:  # refused before anything of it was computed
                    if self._store.names("results", study) == [FILE]:
                        self._store.drop("results", study)


def _compute(
    what: str,
    plan: Plan,
    store: Store,
    console: Console,
    calls: list[dict[str, Any]],
    look_up: Callable[[Plan], Plan],
    settings: Mapping[str, Any],
    more: Mapping[str, Any],
) -> tuple[Plan, Mapping[Cell, str]]:
    """Run what a plan misses; the plan as it then stands, and the cause per failed cell.

    Args:
        calls: gets what it took beside what was predicted.
        look_up: names what a plan asks for, and looks it up; once nothing stands in its way.
        settings: of `Execution`.
        more: of `run_plan`, whose errors it raises.
    """
    if not plan.pending:
        plan = look_up(plan)
    if not plan.pending:
        return plan, {}
    if lacking := {cell.cell.dataset for cell in plan.pending} - plan.study.data.keys():
        raise UserError(f"run: the study has no data of {', '.join(sorted(lacking))}; make it with s3ray.study")
    # Ray takes seconds to import; a sweep whose every cell is cached never does.
    from s3ray.engine.preflight import Execution
    from s3ray.engine.run import run_plan

    say = partial(console.print, highlight=False, soft_wrap=True)
    outcome = run_plan(plan, store, plan.study.data, Execution(**settings), console, look_up=look_up, **more)
    if not outcome.cells:  # another sweep has done it all meanwhile
        return outcome.plan, {}
    failures = outcome.failures
    per_cell = outcome.orchestration_seconds / outcome.cells
    busy = outcome.stage_seconds + outcome.orchestration_seconds
    left = len(outcome.plan.pending) - len(failures)
    say(
        f"{outcome.cells - len(failures)} cells done, {len(failures)} failed{f', {left} left' if left > 0 else ''} in "
        f"{duration(outcome.wall_seconds)} ({between(*outcome.predicted)} predicted); orchestration {per_cell:.1f} s "
        f"per cell ({outcome.orchestration_seconds / busy:.0%} of the worker time)"
    )
    calls.append(
        {
            "what": what,
            "cells": outcome.cells,
            "at_once": min(outcome.slots, outcome.cells),
            "predicted_seconds": [round(seconds, 1) for seconds in outcome.predicted],
            "seconds": round(outcome.wall_seconds, 1),
        }
    )
    for cell, cause in failures.items():
        say(f"FAILED {cell}: {cause}", style="bold red")
    return outcome.plan, failures

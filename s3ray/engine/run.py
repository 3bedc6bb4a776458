"""Run a plan: one Tune trial = one pack = one TorchTrainer worker group."""

from __future__ import annotations

import json
import math
import os
import re
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
from ray.exceptions import RayTaskError
from ray.tune.integration.ray_train import TuneReportCallback
from rich.console import Console

from s3ray.data import Dataset
from s3ray.engine import ENVIRONMENT
from s3ray.engine.cluster import (
    check_nodes_can_write,
    connected,
    free_placement_groups,
    local_capacity,
    log_folder,
    waiting_for,
)
from s3ray.engine.health import Health, Watched
from s3ray.engine.metrics import SweepMetrics
from s3ray.engine.preflight import Capacity, Execution, check_memory, check_plan, check_storage, unguarded
from s3ray.engine.progress import Progress, States
from s3ray.engine.worker import MAX_ATTEMPTS, Pack, run_pack, with_memory_remedy
from s3ray.errors import STAYS, LostError, UserError
from s3ray.execution import Event
from s3ray.execution.ledger import Ledger, PlanRecord
from s3ray.store import Claims, Store
from s3ray.store.claims import RENEW_SECONDS
from s3ray.store.leftovers import clear_leftovers
from s3ray.store.names import FILE, names_of, write_names
from s3ray.sweep import Cell, CellPlan, Plan, make_plan, packed, timing
from s3ray.sweep.budget import Budget, Groups, Prices
from s3ray.sweep.memory import largest
from s3ray.sweep.plan import schedule, worked_last
from s3ray.sweep.timing import Experience, Took, between
from s3ray.traces import new_run

MAX_RESTARTS = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    plan: Plan  # made anew, with what is in the store now
    failures: Mapping[Cell, str]  # cause per failed cell
    wall_seconds: float
    stage_seconds: float
    slots: int
    cells: int  # that this run worked on
    predicted: tuple[float, float] = (0.0, 0.0)  # wall seconds, at least and at most, before it began

    @property
    def orchestration_seconds(self) -> float:
        """Worker-slot seconds that no stage used: start-up, reports, commits, idling at the end."""
        return max(self.wall_seconds * min(self.slots, self.cells) - self.stage_seconds, 0.0)


def run_plan(
    plan: Plan,
    store: Store,
    data: Mapping[str, Dataset],
    execution: Execution,
    console: Console,
    budget: Budget | None = None,
    spent: float = 0.0,
    prices: Prices | None = None,
    look_up: Callable[[Plan], Plan] = lambda plan: plan,
    on_event: Callable[[Event], None] | None = None,
) -> Outcome:
    """Run what `plan` misses; returns when every pending cell is committed or has failed.

    Args:
        data: the datasets by name, published to the store for the workers.
        budget: cells for which it has no room are left out.
        spent: seconds of it that are gone.
        prices: of the cloud that it runs on; then what it costs is said.
        look_up: called with the plan once nothing stands in its way; gives it as it is to be run.
        on_event: told whatever happens to a cell.

    Raises:
        UserError: the plan cannot run on this cluster or with this storage; NoRoomError: the budget has room for no
            cell.
        LostError: Ray or the storage is gone.
    """
    if not plan.pending:
        return Outcome(plan, {}, 0.0, 0.0, slots=0, cells=0)
    started = time.monotonic()
    check_plan(plan, store, execution)
    execution = replace(execution, memory_per_worker=largest(plan, execution.workers_per_trial)[0])

    def say(sentence: str) -> None:
        if sentence:
            console.print(sentence, highlight=False, soft_wrap=True)

    def groups(capacity: Capacity) -> Groups:
        return Groups(capacity.slots(execution), execution.workers_per_trial, execution.gpus_per_worker)

    if budget is not None and not ray.is_initialized() and (here := local_capacity()):
        budget.fitting(plan, groups(here), spent)  # before Ray is started, which takes seconds
    if warning := unguarded(store):
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    with usable(plan, store, execution, console) as (capacity, health):
        slots = capacity.slots(execution)
        if budget is not None:
            budget.fitting(plan, groups(capacity), spent)
        plan = look_up(plan)
        if not plan.pending:
            return Outcome(plan, {}, 0.0, 0.0, slots=0, cells=0)
        if budget is not None:
            whole, plan = plan, budget.fitting(plan, groups(capacity), spent)
            say(budget.told(whole, plan))
        if prices is not None:
            say(prices.told(plan, groups(capacity)))
        with store.explained("written", "make room or choose a place you may write to"):
            for name in {cell.cell.dataset for cell in plan.pending}:
                store.publish_dataset(data[name])
        run = new_run(plan.sweep.name)
        packs = _packs(plan, run, store, execution, capacity)
        predicted, at_once = plan.wall_range(slots, execution.workers_per_trial), min(slots, len(packs))
        say(
            f"{len(plan.pending)} cells in {len(packs)} packs, {at_once} at a time, {between(*predicted)} in all; "
            f"starting worker groups"
        )
        ledger = Ledger(store, run)
        with store.explained("written", "make room or choose a place you may write to"):
            names = {cell.identity: pack.name for pack in packs for cell in pack.cells}
            write_names(store, names_of(run for cell in plan.cells for run in cell.runs), "runs", run, FILE)
            ledger.plan(PlanRecord.of(plan, names, at_once, execution.workers_per_trial, log_folder()))
        metrics = SweepMetrics(plan)

        def watch(events: list[Event], states: States) -> None:
            metrics(events, states)
            if on_event is not None:
                for event in events:
                    on_event(event)

        by_pack = [[str(cell.cell) for cell in pack.cells] for pack in packs]
        with ledger.ending(), Progress(plan, by_pack, at_once, console, watch, waiting_for) as progress:
            errors = _tune(packs, store, slots, execution, progress, health)
    # Not watched any more: what follows needs no Ray, and must not be cut off.
    try:
        after = make_plan(plan.sweep, plan.study, store, plan.machine)
        with store.explained("read", "check the place and your access to it"):
            known = ledger.failures()
    except UserError as error:  # its cells have failed of it before anybody else noticed
        raise LostError(f"{error}; {STAYS}") from error
    failures = failures_of(after, packs, known, ledger, errors)
    if failures:
        ledger.end()
    else:
        store.drop_run(run)
    seconds = time.monotonic() - started
    if not failures:
        with suppress(OSError):  # the next plan estimates worse
            remember(plan, after, packs, slots, execution.workers_per_trial, seconds, store)
    return Outcome(after, failures, seconds, progress.stage_seconds, slots, len(plan.pending), predicted)


def _packs(plan: Plan, run: str, store: Store, execution: Execution, capacity: Capacity) -> list[Pack]:
    return [
        Pack(
            f"pack-{i:03d}",
            run,
            tuple(cells),
            store.uri,
            execution.checkpoint_interval,
            conditions=store.honours_conditions,
            preemptible=not capacity.is_local,
        )
        for i, cells in enumerate(packed(plan, capacity.slots(execution)))
    ]


def remember(
    before: Plan, after: Plan, packs: list[Pack], slots: int, workers: int, seconds: float, store: Store
) -> None:
    """Keep what stages and starts took, for the plans to come."""
    # Of this run's own cells: others may have worked on the same sweep.
    asked = {run.identity for pack in packs for cell in pack.cells for run in cell.runs}
    fresh = {name: after.committed[name] for name in asked & after.committed.keys() - before.committed.keys()}
    machine = worked_last(fresh.values())
    if machine is None:
        return
    # Of the machines of a cluster those that are alike: stages by their kind, starts by that of the last.
    stages = [
        (marker.stage, Took(marker.seconds * marker.workers, before.estimates[identity]))
        for identity, marker in fresh.items()
        if marker.machine == machine
    ]
    counted: set[str] = set()
    took = []
    for pack in packs:
        own = {run.identity for cell in pack.cells for run in cell.runs} & fresh.keys() - counted
        counted |= own
        took.append([fresh[identity].seconds * fresh[identity].workers for identity in own])
    rounds = math.ceil(len(packs) / slots)
    starts = Took(
        max(seconds - schedule(took, slots, workers), 0.1), timing.RAY_SECONDS + rounds * timing.GROUP_SECONDS
    )
    Experience.load(store, machine).with_run(stages, starts).save(store, machine)


@contextmanager
def usable(plan: Plan, store: Store, execution: Execution, console: Console) -> Iterator[tuple[Capacity, Health]]:
    """A cluster that can run this with this storage, until the context is left, and who watches that both stay.

    Raises:
        UserError: there is none.
        LostError: Ray or the storage is gone; as the body asks `Health.check`.
    """
    if not ray.is_initialized() and (here := local_capacity()):
        here.slots(execution)  # before Ray is started, which takes seconds
        check_memory(plan, execution, here)
    health = Health(store)
    starting = console.status("starting Ray" if local_capacity() else "connecting to Ray")  # on a terminal alone
    starting.start()
    try:
        with connected(execution) as capacity, health:
            capacity.slots(execution)
            check_memory(plan, execution, capacity)
            check_storage(store, capacity)
            with store.explained("cleared", "check your access to it"):
                clear_leftovers(store)
            if not capacity.is_local:
                check_nodes_can_write(store.uri)
            starting.stop()
            yield capacity, health
    finally:
        starting.stop()
        health.over()


def _tune(
    packs: list[Pack], store: Store, slots: int, execution: Execution, progress: Progress, health: Health
) -> dict[str, BaseException | str]:
    """Fan the packs out; the error per pack whose trial ended in one, or the text of Tune's file about it."""
    by_name = {pack.name: pack for pack in packs}

    def trial(config: dict[str, Any]) -> None:
        _work(by_name[config["pack"]], store, execution)

    # The trial only waits for its worker group; it runs on the head and takes none of the workers' CPUs.
    trainable = ray.tune.with_resources(trial, {"node:__internal_head__": 0.001})
    tuner = ray.tune.Tuner(
        trainable,
        param_space={"pack": ray.tune.grid_search(list(by_name))},
        tune_config=ray.tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=True),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=store.path("runs", packs[0].run),
            storage_filesystem=store.fs,
            failure_config=ray.tune.FailureConfig(max_failures=2),
            callbacks=[_Relay(progress), Watched(health)],
            verbose=2 if execution.verbose else 0,
        ),
    )
    try:
        results = tuner.fit()
    except LostError:
        raise
    except Exception as error:  # Tune's own; what was committed stays, and the other cells have failed of it
        return dict.fromkeys(by_name, error)
    # In the order of the grid: a trial that ended before its first result has no configuration to tell it by.
    every = zip(by_name, (results[i] for i in range(len(results))), strict=False)
    return {name: result.error for name, result in every if result.error is not None}


def finish(pack: Pack, store: Store, execution: Execution, *, relay: bool = True) -> None:
    """Fit worker groups until every cell of the pack is complete or given up.

    What another sweep is at work on is awaited here, where waiting holds none of the cluster's resources. Cells are
    given up when their worker group could not be started, or failed, MAX_ATTEMPTS times without progress in between.

    Args:
        relay: pass the workers' reports on to Tune.
    """
    # Train reads them here, in a process that does not inherit them from a Ray that somebody else started.
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    claims, ledger = Claims(store), Ledger(store, pack.run)
    cells, attempts, reached = list(pack.cells), 0, list[str]()
    free, failure = list[CellPlan](), None
    while True:
        committed = store.markers(run for cell in cells for run in cell.runs)
        if failure is not None:
            last, reached = reached, [ledger.progress(cell, committed) for cell in cells]
            attempts = attempts + 1 if reached == last else 1
            if attempts == MAX_ATTEMPTS:
                attempts = 0
                for cell in free:
                    if cell.missing(committed):
                        known = ledger.last_error(cell) or cause(failure)
                        ledger.fail(cell, f"{known}; given up after {MAX_ATTEMPTS} attempts without progress")
        given_up = ledger.failures()
        cells = [cell for cell in cells if cell.missing(committed) and cell.identity not in given_up]
        if not cells:
            return
        failure = None
        ready = {claim for cell in cells for claim in cell.ready(committed)}
        nobodys = {claim for claim in ready if claims.free(claim)}
        if free := [cell for cell in cells if cell.ready(committed) & nobodys]:
            try:
                _fit(pack, store, execution, relay)
            except Exception as error:
                failure = error
                with suppress(OSError):
                    ledger.note(pack.name, cause(error), _in_full(error))
        else:
            time.sleep(RENEW_SECONDS)


def cause(error: BaseException | str) -> str:
    """What lies below the errors that Ray wraps around it, in one line; of memory that was lacking, what to lower.

    Args:
        error: or the text of Tune's file of errors, which is all that is known of a trial whose process died.
    """
    if isinstance(error, str):
        last = re.split(r"Failure # \d+ \(occurred at [^)]*\)", error)[-1].strip()
        raised = re.findall(r"^[\w.]+(?:Error|Exception)\b.*", last, re.MULTILINE)
        return _in_one_line(raised[-1] if last.startswith("Traceback") and raised else last)
    while True:
        failures = getattr(error, "worker_failures", None)
        inner = [
            getattr(error, "controller_failure", None),
            next(iter(failures.values()), None) if failures else None,
            getattr(error, "_base_exc", None),
            error.cause if isinstance(error, RayTaskError) else None,
        ]
        below = next((found for found in inner if isinstance(found, BaseException) and found is not error), None)
        if below is None:
            break
        error = below
    return _in_one_line(f"{type(error).__name__}: {error}")


def _in_one_line(told: str) -> str:
    text = " ".join(told.split())
    return with_memory_remedy(text if len(text) <= 300 else text[:300] + "…")


def _in_full(error: BaseException | str) -> str:
    return error if isinstance(error, str) else "".join(traceback.format_exception(error))


def _work(pack: Pack, store: Store, execution: Execution) -> None:
    """The Tune trial: finish the pack, and report so."""
    finish(pack, store, execution)
    # Another sweep may have finished some: the display must know.
    given_up = Ledger(store, pack.run).failures()
    events = [
        Event(
            str(cell.cell),
            cell.cell.dataset,
            "cell_failed" if cell.identity in given_up else "cell_finished",
            cause=given_up.get(cell.identity, ""),
        )
        for cell in pack.cells
    ]
    ray.tune.report({"events": json.dumps([asdict(event) for event in events])})


def _fit(pack: Pack, store: Store, execution: Execution, relay: bool) -> None:
    trainer = ray.train.torch.TorchTrainer(
        run_pack,
        train_loop_config={"pack": pack},
        scaling_config=ray.train.ScalingConfig(
            num_workers=execution.workers_per_trial,
            use_gpu=execution.gpus_per_worker > 0,
            resources_per_worker=execution.resources_per_worker,
        ),
        # NCCL refuses two ranks on one GPU, which fractions allow.
        torch_config=ray.train.torch.TorchConfig(backend="gloo" if execution.gpus_per_worker < 1 else "nccl"),
        run_config=ray.train.RunConfig(
            # A name of its own: progress lives in the store, so Train must not restore an earlier attempt.
            name=f"{pack.name}-{uuid.uuid4().hex[:6]}",
            storage_path=store.path("runs", pack.run, "train"),
            storage_filesystem=store.fs,
            # Ray annotates the V1 classes.
            callbacks=[_Causes(pack), *([TuneReportCallback()] if relay else [])],  # type: ignore[list-item]
            # The ledger bounds the attempts of a cell, and nodes taken away with notice do not count at all; these
            # bounds end a group that never gets that far.
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                max_failures=MAX_RESTARTS + len(pack.cells),
                controller_failure_limit=MAX_ATTEMPTS if pack.preemptible else 0,  # nodes that leave during a start
            ),
        ),
    )
    try:
        trainer.fit()
    finally:
        free_placement_groups()


class _Causes(ray.train.UserCallback):
    """Notes why a worker group ended, which the next one cannot know if a worker was killed."""

    def __init__(self, pack: Pack) -> None:
        self._storage, self._run, self._pack = pack.storage, pack.run, pack.name

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        with suppress(OSError, UserError):
            error = next(iter(worker_exceptions.values()))
            Ledger(Store(self._storage), self._run).note(self._pack, cause(error), _in_full(error))


class _Relay(ray.tune.Callback):
    """Passes the workers' events on to the progress display."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its callbacks so that it could restore itself; a run here is never restored.
        return {}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
        self._progress.update(Event(**event) for event in json.loads(result.get("events", "[]")))

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        self._progress.update([])  # whoever watches wants to hear from us while nothing happens, too


def failures_of(
    after: Plan, packs: list[Pack], known: Mapping[str, str], ledger: Ledger, errors: Mapping[str, BaseException | str]
) -> dict[Cell, str]:
    """Cells that are still not complete, with what is known of the reason.

    From now on the ledger knows it, too, if the storage takes it.

    Args:
        known: causes that the ledger has, by identity.
        errors: by pack.
    """
    failures: dict[Cell, str] = {}
    for pack in packs:
        left = [cell for cell in pack.cells if cell.missing(after.committed)]
        unknown, told = [cell for cell in left if cell.identity not in known], ""
        if unknown:
            error = errors.get(pack.name)
            told = f"{pack.name} ended before it was complete; run again, with --verbose to see why"
            told = told if error is None else cause(error)
            with suppress(OSError):
                if error is not None:
                    ledger.note(pack.name, told, _in_full(error))
                for cell in unknown:
                    ledger.fail(cell, told)
        failures |= {cell.cell: known.get(cell.identity, told) for cell in left}
    return failures

"""What a search file runs once its command line is read: search, and write the best configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import optuna
from rich.console import Console

from s3ray.data import Dataset
from s3ray.engine.preflight import Execution, check_plan, unguarded
from s3ray.errors import UserError
from s3ray.execution.ledger import Ledger, PlanRecord
from s3ray.methods import S3
from s3ray.search.journal import journal_storage
from s3ray.search.outcome import SearchOutcome
from s3ray.search.space import Search, Space, best_configuration
from s3ray.search.trials import Trials, counted, name_trials, open_study, try_again
from s3ray.settings import read_all
from s3ray.store import Claims, HeldError, Store
from s3ray.store.names import FILE, write_names
from s3ray.sweep import Plan
from s3ray.sweep.memory import largest
from s3ray.traces import new_run


def search_all(
    plan: Plan,
    store: Store,
    data: Mapping[str, Dataset],
    spaces: Mapping[str, Space],
    configs: Sequence[str],
    execution: Execution,
    *,
    trials: int,
    seed: int,
    console: Console,
) -> bool:
    """Search around every dataset of a plan, for every method, until each study has `trials` trials.

    Args:
        spaces: by method, S3 included if it is searched; the plan has the cells of each.
        configs: the files of `--config` that the plan was made with.
        seed: of the sampler.

    Returns:
        Whether something is left to mend and to run again.

    Raises:
        UserError: the space or the settings cannot be searched, the cluster or the storage cannot be used, a journal
            is damaged, or another process is at work on one of the studies.
    """
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    methods = sorted(spaces, key=lambda method: method != S3)  # S3 first
    searches = [Search.of(plan, name, spaces[method], method) for name in plan.study.datasets for method in methods]
    anew = replace(plan, committed={})  # other configurations run even if this one is cached
    check_plan(anew, store, execution)
    if warning := unguarded(store):  # before anything is claimed
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
    execution = replace(execution, memory_per_worker=largest(anew, execution.workers_per_trial)[0])
    with ExitStack() as stack:
        holds = {search.name: stack.enter_context(_held(search, store, say)) for search in searches}
        studies = {search.name: _opened(search, store, console) for search in searches}
        for search in searches:
            with store.explained("written", "make room or choose a place you may write to"):
                name_trials(search, studies[search.name], store)
        failures: dict[str, list[str]] = {}
        if lacking := [search for search in searches if counted(studies[search.name]) < trials]:
            # Ray takes seconds to import; a search that has all its trials never does.
            from s3ray.engine.cluster import log_folder
            from s3ray.engine.feed import run_cells
            from s3ray.engine.run import usable

            with usable(anew, store, execution, console) as (capacity, health):
                for search in lacking:
                    name = f"search-{search.name}"
                    run = new_run(name)
                    ledger, slots = Ledger(store, run), capacity.slots(execution)
                    with store.explained("written", "make room or choose a place you may write to"):
                        store.publish_dataset(data[search.dataset])
                        write_names(store, {}, "runs", run, FILE)  # its cells are named by the search
                        ledger.plan(PlanRecord.of_search(name, slots, execution.workers_per_trial, log_folder()))
                    study = studies[search.name]
                    try_again(study)
                    done = counted(study)
                    at_once = min(slots, trials - done)
                    say(f"{search.name}: {done} of {trials} trials done, {at_once} at a time; starting worker groups")
                    tried = Trials(search, study, store, trials=trials, seed=seed, say=say, holds=holds[search.name])
                    with ledger.ending():
                        run_cells(tried.cells(), tried.tell, run, store, execution, capacity, health)
                    failures[search.name] = tried.failures
                    if tried.failures:
                        ledger.end()
                    else:
                        store.drop_run(run)
        outcomes = [SearchOutcome.of(studies[search.name], failures.get(search.name, ())) for search in searches]
    overrides = read_all(configs)
    tuned: dict[str, list[str]] = {}  # files by scale
    for search, outcome in zip(searches, outcomes, strict=True):
        lines = outcome.lines(search)
        if outcome.best is not None:
            file = ("search", search.name, "best.toml")
            store.write(best_configuration(search, outcome.best.params, overrides, lines), *file)
            tuned.setdefault(search.entry.scale, []).append(store.file_uri(*file))
        for line in lines:
            say(line)
    alone = list(spaces) == [S3]
    for scale, files in tuned.items():
        # S3's file holds what the search was given, too; a prior method's, which comes later, its own table alone.
        every = [f"--config {file}" for file in (files if alone else [*configs, *files])]
        say(" ".join([f"s3ray sweep {'full_grid' if alone else 'table2_tuned'} --scale {scale}", *every]))
    return any(outcome.failures or outcome.best is None for outcome in outcomes)


def _opened(search: Search, store: Store, console: Console) -> optuna.Study:
    storage = journal_storage(store, search.name)
    if storage.cut:
        console.print(f"warning: {storage.cut}", style="yellow", highlight=False, soft_wrap=True)
    return open_study(search, storage)


@contextmanager
def _held(search: Search, store: Store, say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """The study is ours alone, as long as what it yields says so; UserError if another process is at work on it."""

    def waiting(holder: str) -> None:
        say(f"{search.name}: was claimed by {holder}; waiting some seconds for a sign of life")

    with ExitStack() as held:
        try:
            with store.explained("written", "make room or choose a place you may write to"):
                holds = held.enter_context(Claims(store).hold(f"search-{search.name}", waiting))
        except HeldError as error:
            raise UserError(
                f"study {search.name}: another search is at work on it ({error}); wait for it to end, then run again: "
                f"what it has found counts"
            ) from None
        yield holds

"""A search's trials, their cells' results made up: what Optuna is told, what is stopped, how it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import tiny_search
from s3ray.data import Dataset
from s3ray.errors import UserError
from s3ray.execution import gc
from s3ray.execution.stored import stored
from s3ray.search.journal import journal_storage
from s3ray.search.outcome import SearchOutcome
from s3ray.search.space import Search
from s3ray.search.trials import Trials, counted, name_trials, try_again
from s3ray.store import Store
from s3ray.sweep import CellPlan
from tiny_search import Objective, Result, end, opened, searched

RATE = "specialization.optimizer.learning_rate"
DIVERGED = "DivergedError: the loss became nan at step 3 of 9; lower the learning rate or raise the temperature"
DIED = "its worker died (out of memory?); given up after 3 attempts without progress"


def told(*trials: Sequence[Result]) -> Objective:
    """Results trial by trial, for cells one at a time; a trial has as many as it runs cells."""
    results: Iterator[Result] = iter([result for trial in trials for result in trial])
    return lambda cell: next(results)


def test_the_first_configuration_is_the_scales_own(search: Search, store: Store) -> None:
    searched(search, store, told([0.5] * 3, [0.6] * 3), trials=2)
    first, second = opened(search, store).trials  # not enqueued again
    assert first.params == search.defaults() != second.params
    assert first.user_attrs["default"]
    assert opened(search, store).user_attrs["seeds"] == [0, 1, 2]
    outcome = SearchOutcome.of(opened(search, store), [])
    assert outcome.default is not None
    assert outcome.lines(search)[1] == "best on validation: 60.0% at p=0.5 (the scale's own: 50.0%)"


def test_a_trial_runs_its_configuration_seed_after_seed(search: Search, store: Store) -> None:
    ran: list[tuple[int, float]] = []

    def objective(cell: CellPlan) -> float:
        ran.append((cell.cell.seed, cell.training.config.training.optimizer.learning_rate))
        return 0.5

    searched(search, store, objective, trials=1)
    assert ran == [(0, 3e-3), (1, 3e-3), (2, 3e-3)]


def test_a_trial_reports_the_mean_of_its_seeds_so_far(search: Search, store: Store) -> None:
    tried = Trials(search, opened(search, store), store, trials=1, seed=0, say=lambda line: None)
    curves = iter([{0.9: 0.6, 0.5: 0.8}, {0.9: 0.9, 0.5: 0.4}, {0.9: 0.9, 0.5: 0.9}])
    best = []
    for found in tried.cells():
        assert found is not None
        number, cell = found
        tiny_search.commit(store, cell, next(curves))
        tried.tell(number, None)
        best.append(opened(search, store).trials[0].user_attrs["p"])
    assert best == [0.5, 0.9, 0.9]  # chosen anew each time, on the mean curve
    (trial,) = opened(search, store).trials
    assert trial.intermediate_values == pytest.approx({1: 0.8, 2: 0.75, 3: 0.8})
    assert trial.value == pytest.approx(0.8)


def test_a_stopped_trial_is_pruned_and_never_the_best(search: Search, store: Store) -> None:
    _, lines = searched(search, store, told([0.80, 0.72, 0.73], [0.79]), trials=2)
    whole, stopped = opened(search, store).trials
    assert (whole.state, whole.value) == (TrialState.COMPLETE, pytest.approx(0.75))
    assert (stopped.state, stopped.value, stopped.intermediate_values) == (TrialState.PRUNED, 0.79, {1: 0.79})
    assert opened(search, store).best_trial.number == whole.number
    assert stopped.user_attrs["p"] == 0.5
    assert lines[0].startswith("[1/2] 75.0% at p=0.5 (best 75.0%, about ")
    assert lines[1] == "[2/2] 79.0% at p=0.5 after 1 of 3 seeds, stopped (best 75.0%)"


def test_halves_go_on_after_each_seed_and_earlier_calls_count(search: Search, store: Store) -> None:
    trials = [
        [0.70, 0.70, 0.70],
        [0.60],  # the worse of two
        [0.72, 0.58],  # the best after one seed, the worse after two
        [0.75, 0.73, 0.10],  # never stopped after its last seed, at which nothing is left to save
    ]
    searched(search, store, told(*trials), trials=4)
    assert [len(trial.intermediate_values) for trial in opened(search, store).trials] == [3, 1, 2, 3]
    searched(search, store, told([0.71]), trials=5)
    assert opened(search, store).trials[-1].state is TrialState.PRUNED


def test_a_search_over_one_seed_stops_nothing(tiny_dataset: Dataset, store: Store) -> None:
    plan = tiny_search.plan_of(tiny_search.study_of(tiny_dataset), store, seeds=1)
    search = Search.of(plan, "digits", tiny_search.SPACE)
    searched(search, store, told([0.7], [0.6], [0.5]), trials=3)
    assert {trial.state for trial in opened(search, store).trials} == {TrialState.COMPLETE}


def test_several_at_once_go_on_before_others_begin(search: Search, store: Store) -> None:
    ran: list[tuple[float, int]] = []

    def objective(cell: CellPlan) -> float:
        ran.append((cell.training.config.training.optimizer.learning_rate, cell.cell.seed))
        return 0.7

    searched(search, store, objective, trials=3, at_once=2)
    assert [seed for _, seed in ran] == [0, 0, 1, 1, 2, 2, 0, 1, 2]
    assert len({rate for rate, _ in ran}) == 3


def test_a_diverged_trial_counts_and_one_whose_worker_died_does_not(search: Search, store: Store) -> None:
    tried, lines = searched(search, store, told([0.7, DIVERGED], [DIED]), trials=2)
    study = opened(search, store)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "FAIL"]
    assert study.trials[0].user_attrs["stage"] == "specialization"
    assert counted(study) == 1
    assert lines == [f"[1/2] diverged: {DIVERGED}", f"[1/2] FAILED {DIED}"] or "left" in lines[0]
    assert SearchOutcome.of(study, tried.failures).lines(search) == [
        f"digits: 1 configurations tried: 0 on all 3 seeds, 0 stopped, 1 diverged; 1 failed ({DIED}); mend that and "
        f"run again"
    ]
    # The next call makes up for it.
    searched(search, store, told([0.7, 0.7, 0.7]), trials=2)
    assert counted(opened(search, store)) == 2


def test_a_result_that_is_damaged_fails_its_trial_alone(search: Search, store: Store) -> None:
    tried, [(number, cell)] = begun(search, store, 1)
    tiny_search.commit(store, cell, {0.5: 0.7})
    payload, *_ = Path(store.base).glob("artifacts/sparsification/*/*/rows.parquet")
    payload.write_bytes(bytes(payload.stat().st_size))
    tried.tell(number, None)
    (cause,) = tried.failures
    assert "damaged, and set aside as" in cause
    assert opened(search, store).trials[0].state is TrialState.FAIL


def test_a_search_without_a_best_says_why(search: Search, store: Store) -> None:
    (line,) = SearchOutcome.of(opened(search, store), []).lines(search)
    assert line.endswith("; none ran on all seeds yet; raise --trials")
    searched(search, store, told([DIVERGED], [DIVERGED], [DIVERGED]), trials=3)
    rates = [trial.params[RATE] for trial in opened(search, store).trials]
    because = (
        f"the loss became nan in specialization, in 3 of 3, at {RATE} {min(rates):.3g} … {max(rates):.3g} and "
        f"specialization.temperature 0.2; lower that learning rate or raise that temperature in --config"
    )
    (line,) = SearchOutcome.of(opened(search, store), []).lines(search)
    assert line == f"digits: 3 configurations tried: 0 on all 3 seeds, 0 stopped, 3 diverged; {because}"


def test_a_study_that_lacks_attributes_gets_them(search: Search, store: Store) -> None:
    """Killed right after it was made, it has none; the report needs them."""
    storage = journal_storage(store, search.name)
    optuna.create_study(storage=storage, study_name=search.name, direction="maximize")
    assert opened(search, store).user_attrs == search.attributes


def begun(search: Search, store: Store, cells: int) -> tuple[Trials, list[tuple[int, CellPlan]]]:
    """A search with so many cells running."""
    tried = Trials(search, opened(search, store), store, trials=9, seed=0, say=lambda line: None)
    asked = tried.cells()
    found = [found for _ in range(cells) if (found := next(asked)) is not None]
    return tried, found


def test_what_a_killed_search_was_running_is_tried_again_first(search: Search, store: Store) -> None:
    begun(search, store, 2)
    running = [trial.params for trial in opened(search, store).trials]
    study = opened(search, store)
    try_again(study)
    try_again(study)  # killed again before it began
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    begun(search, store, 2)
    again = opened(search, store).trials[2:]
    assert [trial.params for trial in again] == running
    # The scale's own configuration is still known as such.
    assert [trial.user_attrs for trial in again] == [{"default": True, "again": 0}, {"again": 1}]


@pytest.mark.parametrize("result", [0.7, DIVERGED, DIED])
def test_a_search_whose_study_another_took_over_ends(search: Search, store: Store, result: Result) -> None:
    """A process that stood still (a laptop that slept) goes on when its claim is long stale."""
    first, running = begun(search, store, 2)
    try_again(opened(search, store))  # another process
    for number, cell in running:
        with pytest.raises(UserError, match=f"^study {search.name}: another search took it over while this one stood"):
            end(first, store, number, cell, result)
    states = [trial.state.name for trial in opened(search, store).trials]
    assert states == ["FAIL", "FAIL", "WAITING", "WAITING"]


def test_a_search_whose_claim_is_lost_tells_its_study_nothing_more(search: Search, store: Store) -> None:
    study, held = opened(search, store), [True]
    tried = Trials(search, study, store, trials=9, seed=0, say=lambda line: None, holds=lambda: held[0])
    cells = tried.cells()
    number, _ = next(cells)
    held[0] = False
    for go_on in (lambda: tried.tell(number, DIVERGED), lambda: next(cells)):
        with pytest.raises(UserError, match=f"^study {search.name}: another search took it over while this one stood"):
            go_on()
    assert [trial.state.name for trial in opened(search, store).trials] == ["RUNNING"]


def test_a_journal_that_cannot_be_written_ends_the_search(
    search: Search, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (Path(store.base) / "search" / search.name / "names").mkdir(parents=True)
    store.is_local = False  # so that it is written through the store
    tried, [(number, cell)] = begun(search, store, 1)
    tiny_search.commit(Store(store.base), cell, {0.5: 0.7})

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(UserError, match=r"its journal cannot be written \(no space left\); mend that, then run again"):
        tried.tell(number, None)


def test_what_it_tries_is_named_and_stays(search: Search, store: Store) -> None:
    searched(search, store, told([0.5] * 3, [0.6] * 3), trials=2)
    cells = [cell for trial in opened(search, store).trials for cell in search.plans(trial.params)]
    asked = {run.identity for cell in cells for run in cell.runs}
    there = store.markers(run for cell in cells for run in cell.runs).keys()
    (found,) = stored(store).searches
    assert found.results.things == len(there & asked) > 0
    assert gc.find(store).garbage == gc.find(store).unknown == ()
    # One of an earlier version, which said nothing, does so once it is called again.
    shutil.rmtree(store.path("search", search.name, "names"))
    assert len(gc.find(store).unknown) == 1
    name_trials(search, opened(search, store), store)
    assert gc.find(store).garbage == gc.find(store).unknown == ()

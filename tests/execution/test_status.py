"""How calls stand, from stores that were made by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import calls
from s3ray.execution.ledger import Ledger, PlannedCell, PlanRecord
from s3ray.execution.status import AtWork, Watch
from s3ray.store import Claims, Store
from s3ray.store.claims import LEASE_SECONDS
from s3ray.traces import new_run
from toy_runs import commit

WHO = "process 17 on far, since 2026-11-26 18:15 UTC"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def test_nothing_is_at_work(store: Store) -> None:
    assert Watch(store).look() == []
    store.write("", "runs", "Nov20_myhost", "events")  # another program's
    assert Watch(store).look() == []


def test_a_call_of_an_earlier_version_is_named_with_its_failures(store: Store) -> None:
    run = "tiny-20261126-181500-abcdef"
    store.write("RuntimeError: x", "runs", run, "failures", "f" * 64)
    (call,) = Watch(store).look()
    assert (call.name, call.started, call.is_known, call.alive) == ("tiny", "2026-11-26T18:15:00+00:00", False, None)
    assert call.failed == {"f" * 64: "RuntimeError: x"}


@pytest.mark.parametrize(
    ("process", "alive"), [("", True), (calls.DEAD, False), (calls.ELSEWHERE, None)], ids=["ours", "dead", "elsewhere"]
)
def test_a_process_of_this_machine_lives_or_does_not(
    store: Store, tiny_sweep: ModuleType, process: str, alive: bool | None
) -> None:
    calls.begun(store, tiny_sweep.tiny_plan(store), process=process)
    (call,) = Watch(store).look()
    assert (call.alive, call.total, call.done, call.at_work, call.failed) == (alive, 2, 0, (), {})
    assert call.seconds is None


def test_a_call_that_says_so_has_ended_whoever_lives(store: Store, tiny_sweep: ModuleType) -> None:
    plan = tiny_sweep.tiny_plan(store)
    _, ledger = calls.begun(store, plan)
    ledger.fail(plan.cells[1], "DivergedError: x")
    ledger.end()
    (call,) = Watch(store).look()
    assert call.alive is False
    assert call.ended is not None
    assert call.failed == {str(plan.cells[1].cell): "DivergedError: x"}
    for cell in plan.cells:
        for run in cell.runs:
            commit(store, run)
    assert Watch(store).look() == []  # another call has done what it left


def test_cells_are_done_at_work_failed_or_wait(store: Store, tiny_sweep: ModuleType) -> None:
    plan = tiny_sweep.tiny_plan(store, seeds=5)
    done, training, measuring, failed, _ = plan.cells
    for run in done.runs:
        commit(store, run)
    plan = tiny_sweep.tiny_plan(store, seeds=5)  # one was there before
    _, ledger = calls.begun(store, plan)
    commit(store, measuring.training)
    store.save_checkpoint(training.training, 40, b"")
    ledger.fail(failed, "DivergedError: x")
    calls.claimed(store, failed.training)  # whoever has it does not work for this call
    with Claims(store).take(training.training.claim), Claims(store).take(measuring.training.claim):
        (call,) = Watch(store).look()
    assert (call.total, call.done, call.alive) == (5, 1, True)
    assert call.failed == {str(failed.cell): "DivergedError: x"}
    first, second = call.at_work
    assert (first.cell, first.stage, first.step, first.alive) == (str(training.cell), "specialization", 40, True)
    assert (second.cell, second.stage, second.step) == (str(measuring.cell), "sparsification none", None)
    (call,) = Watch(store).look()  # their claims were released
    assert call.at_work == ()


@pytest.mark.parametrize("conditions", [True, False])
def test_who_works_elsewhere_is_seen_by_claims_that_are_renewed(
    store: Store, tiny_sweep: ModuleType, conditions: bool
) -> None:
    store.honours_conditions = conditions
    plan = tiny_sweep.tiny_plan(store)
    cell = plan.cells[0]
    calls.begun(store, plan, process=calls.ELSEWHERE)
    now = [0.0]
    watch = Watch(store, lambda: now[0])

    def look(seconds: float, beat: int) -> tuple[bool | None, tuple[AtWork, ...]]:
        now[0] += seconds
        calls.claimed(store, cell.training, beat)
        (call,) = watch.look()
        return call.alive, call.at_work

    def at_work(alive: bool | None) -> tuple[AtWork, ...]:
        return (AtWork(str(cell.cell), "specialization", None, WHO, alive),)

    assert look(0, 1) == (None, at_work(None))
    assert look(3, 1) == (None, at_work(None))
    assert look(3, 2) == (True, at_work(True))
    assert look(LEASE_SECONDS - 1, 2) == (True, at_work(True))
    assert look(1, 2) == (False, ())
    assert look(1, 3) == (True, at_work(True))  # it had slept


def test_what_is_done_by_now_goes_with_its_folder(store: Store, tiny_sweep: ModuleType) -> None:
    run, _ = calls.begun(store, tiny_sweep.tiny_plan(store))
    watch = Watch(store)
    assert len(watch.look()) == 1
    store.drop_run(run)
    assert watch.look() == []


def test_of_several_calls_the_newest_is_first_and_a_search_has_the_cells_so_far(
    store: Store, tiny_sweep: ModuleType
) -> None:
    plan = tiny_sweep.tiny_plan(store)
    old = Ledger(store, "tiny-20261126-181500-abcdef")
    packs = {cell.identity: "pack-000" for cell in plan.cells}
    old.plan(PlanRecord.of(plan, packs, 1, 1, ""))
    run = new_run("search-digits")
    Ledger(store, run).plan(PlanRecord.of_search("search-digits", 2, 1, ""))
    search, sweep = Watch(store).look()
    assert (search.name, search.kind, search.total, search.seconds) == ("search-digits", "search", 0, None)
    assert sweep.name == "tiny"
    for cell in plan.cells:
        Ledger(store, run).add(PlannedCell.of(cell, "cell", ()))
    for part in plan.cells[0].runs:
        commit(store, part)
    search, _ = Watch(store).look()
    assert (search.total, search.done, search.seconds) == (2, 1, None)


def test_seconds_left_are_what_was_estimated_corrected_by_what_this_call_took(
    store: Store, tiny_sweep: ModuleType
) -> None:
    plan = tiny_sweep.tiny_plan(store, seeds=4)
    _, ledger = calls.begun(store, plan)
    record = ledger.planned()
    assert record is not None
    seconds = {run.identity: run.seconds or 0.0 for cell in record.cells for run in cell.runs}
    (call,) = Watch(store).look()
    assert call.seconds is None
    for run in plan.cells[0].runs:  # everything takes as long as was estimated
        commit(store, run, seconds=seconds[run.identity])
    own = [run.identity for run in plan.cells[1].runs if run.identity != plan.cells[0].reference.identity]
    cell = sum(seconds[identity] for identity in own)
    (call,) = Watch(store).look()
    # Three cells on two groups: shared evenly at least; at most the longest comes last.
    assert call.seconds == pytest.approx((3 * cell / 2, 3 * cell / 2 + cell / 2), rel=0.01)
    with Claims(store).take(plan.cells[1].training.claim):
        (call,) = Watch(store).look()
    assert call.seconds is not None
    assert call.seconds[0] == pytest.approx(cell, rel=0.01)  # of what is at work nothing may be left

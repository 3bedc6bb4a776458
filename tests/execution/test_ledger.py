"""What a call keeps of its plan, and of its cells' attempts, errors and failures."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s3ray.execution.ledger import Ledger, PlannedCell, PlanRecord, calls
from s3ray.store import Store
from s3ray.sweep.plan import CellPlan
from s3ray.traces import named, new_run
from toy_runs import commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def cell(tiny_sweep: ModuleType, store: Store) -> CellPlan:
    found: CellPlan = tiny_sweep.tiny_plan(store, seeds=1).cells[0]
    return found


def test_attempts_count_from_the_last_progress(store: Store, cell: Any) -> None:
    def attempt(run: str = "run") -> int | None:
        return Ledger(store, run).attempt(cell, store.markers(cell.runs), ["node"], ["node"], 2)

    assert [attempt() for _ in range(4)] == [1, 2, None, None]
    store.save_checkpoint(cell.training, 10, b"")
    assert [attempt() for _ in range(3)] == [3, 4, None]
    commit(store, cell.training, {}, seconds=1.0, provenance={})
    assert attempt() == 5
    assert attempt("another run") == 1
    assert [entry["progress"].endswith("-10") for entry in Ledger(store, "run").attempts(cell.identity)] == [
        *(False, False),
        *(True, True),
        False,
    ]


def test_attempts_on_nodes_that_were_taken_away_do_not_count(store: Store, cell: Any) -> None:
    ledger = Ledger(store, "run")
    assert ledger.attempt(cell, (), ["a", "b"], ["a", "b", "c"], 1) == 1
    assert ledger.attempt(cell, (), ["a", "c"], ["a", "c"], 1) == 2  # b is gone
    assert ledger.attempt(cell, (), ["a", "c"], ["a", "c"], 1) is None
    assert ledger.attempt(cell, (), ["d"], ["d"], 1) == 3


def test_the_first_error_of_an_attempt_is_kept_and_failures_are_listed(store: Store, cell: Any) -> None:
    ledger = Ledger(store, "run")
    assert ledger.last_error(cell) is None
    ledger.error(cell, 1, "OSError: disk", "Traceback:\n  line 1")
    ledger.error(cell, 1, "RuntimeError: connection closed by peer")  # another rank's, which follows
    assert ledger.last_error(cell) == "OSError: disk"
    assert ledger.errors(cell.identity) == {1: ("OSError: disk", "Traceback:\n  line 1")}
    ledger.error(cell, 2, "OSError: another disk")
    assert ledger.last_error(cell) == "OSError: another disk"
    assert ledger.failures() == {}
    ledger.fail(cell, "DivergedError: [x] ü")
    assert ledger.failures() == {cell.identity: "DivergedError: [x] ü"}


def test_why_a_worker_group_ended_is_noted_for_the_next(store: Store) -> None:
    ledger = Ledger(store, "run")
    assert ledger.noted("pack-000") is None
    for told in ("first", "last"):
        ledger.note("pack-000", told)
    assert Ledger(store, "run").noted("pack-000") == "last"
    assert [told.cause for told in ledger.notes("pack-000")] == ["first", "last"]
    assert ledger.noted("pack-001") is None
    assert ledger.notes("pack-001") == []


def test_a_plan_is_read_as_it_was_written(store: Store, tiny_sweep: ModuleType) -> None:
    plan = tiny_sweep.tiny_plan(store)
    commit(store, plan.cells[0].training)
    packs = {cell.identity: f"pack-00{number}" for number, cell in enumerate(plan.cells)}
    record = PlanRecord.of(tiny_sweep.tiny_plan(store), packs, slots=2, workers=1, logs="here:/tmp/ray")
    ledger = Ledger(store, "run")
    assert ledger.planned() is None
    ledger.plan(record)
    assert ledger.planned() == record
    assert (record.name, record.kind, record.total) == ("tiny", "sweep", 2)
    assert [cell.cell for cell in record.cells] == [str(cell.cell) for cell in plan.cells]
    assert record.cells[0].runs[0].seconds is None  # was committed before
    for planned, cell in zip(record.cells, plan.cells, strict=True):
        assert sorted(run.identity for run in planned.runs) == sorted(run.identity for run in cell.runs)
        known = {run.identity for run in planned.runs}
        assert all(run.parent is None or run.parent in known for run in planned.runs)
    search = PlanRecord.of_search(new_run("search-digits"), slots=2, workers=1, logs="")
    assert search.name == "search-digits"
    ledger.plan(search)
    assert ledger.planned() == search
    assert ledger.added() == []
    ledger.add(PlannedCell.of(plan.cells[1], "cell", ()))
    assert [cell.cell for cell in ledger.added()] == [str(plan.cells[1].cell)]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2, "name": "x"}', "\0"])
def test_a_plan_of_another_version_is_none(store: Store, content: str) -> None:
    store.write(content, "runs", "run", "plan.json")
    assert Ledger(store, "run").planned() is None


def test_calls_are_known_by_their_names_the_newest_first(store: Store) -> None:
    assert calls(store) == []
    earlier = ["a-b-20261126-181500-abcdef", "a-20261126-181501-p0123abcd-1-2-abcdef"]
    for run in [*earlier, new := new_run("tiny"), "Nov20_myhost", "a-20269926-181500-abcdef"]:
        store.write("", "runs", run, "file")
    assert calls(store) == [new, *reversed(earlier)]
    about = named(new)
    assert about is not None
    assert about[0] == "tiny"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", about[1])
    assert named(earlier[0]) == ("a-b", "2026-11-26T18:15:00+00:00")

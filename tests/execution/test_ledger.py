"""What a call keeps of its plan, and of its cells' attempts, errors and failures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import calls
from s3ray.digests import signed
from s3ray.errors import LostError, UserError
from s3ray.execution.ledger import Ledger, PlannedCell, PlanRecord
from s3ray.execution.ledger import calls as known_calls
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


def attempted(
    ledger: Ledger, cell: CellPlan, nodes: list[str], alive: list[str], most: int, committed: Collection[str] = ()
) -> int | None:
    workers = [calls.worker(node) for node in nodes]
    return ledger.attempt(cell, committed, alive, most, pack="pack-000", stage="specialization", workers=workers)


def test_attempts_count_from_the_last_progress(store: Store, cell: Any) -> None:
    def attempt(run: str = "run") -> int | None:
        return attempted(Ledger(store, run), cell, ["node"], ["node"], 2, store.markers(cell.runs))

    assert [attempt() for _ in range(4)] == [1, 2, None, None]
    store.save_checkpoint(cell.training, 10, b"")
    assert [attempt() for _ in range(3)] == [3, 4, None]
    commit(store, cell.training, {}, seconds=1.0, provenance={})
    assert attempt() == 5
    assert attempt("another run") == 1
    attempts = Ledger(store, "run").attempts(cell.identity)
    assert [number for number, entry in attempts.items() if entry.progress.endswith("-10")] == [3, 4]
    assert list(attempts) == [1, 2, 3, 4, 5]


def test_attempts_on_nodes_that_were_taken_away_do_not_count(store: Store, cell: Any) -> None:
    ledger = Ledger(store, "run")
    assert attempted(ledger, cell, ["a", "b"], ["a", "b", "c"], 1) == 1
    assert attempted(ledger, cell, ["a", "c"], ["a", "c"], 1) == 2  # b is gone
    assert attempted(ledger, cell, ["a", "c"], ["a", "c"], 1) is None
    assert attempted(ledger, cell, ["d"], ["d"], 1) == 3


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
    assert {number: told.cause for number, told in ledger.notes("pack-000").items()} == {1: "first", 2: "last"}
    assert ledger.noted("pack-001") is None
    assert ledger.notes("pack-001") == {}


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
    search = PlanRecord.of_search("search-digits", slots=2, workers=1, logs="")
    ledger.plan(search)
    assert ledger.planned() == search
    assert ledger.added() == []
    ledger.add(PlannedCell.of(plan.cells[1], "cell", ()))
    assert [cell.cell for cell in ledger.added()] == [str(plan.cells[1].cell)]


OTHERS = ["", "[]", "{}", '{"name": "x"}', json.dumps(signed({"name": "x"})), json.dumps(signed({"cells": 3})), "\0"]


@pytest.mark.parametrize("content", [*(text.encode() for text in OTHERS), b"\xff\xfe"])
def test_what_is_damaged_or_of_another_version_is_left_out(store: Store, cell: Any, content: bytes) -> None:
    ledger = Ledger(store, "run")
    store.write(content, "runs", "run", "plan.json")
    store.write(content, "runs", "run", "ended")
    assert ledger.planned() is None
    assert ledger.ended() is None
    sound = calls.attempted(ledger, cell)
    ledger.add(PlannedCell.of(cell, "cell", ()))
    for folder in (("cells",), ("attempts", cell.identity)):
        store.write(content, "runs", "run", *folder, "000000")
    assert list(ledger.attempts(cell.identity)) == [sound]
    assert [one.cell for one in ledger.added()] == [str(cell.cell)]


def test_a_changed_letter_in_a_plan_is_found(store: Store, tiny_sweep: ModuleType) -> None:
    run, ledger = calls.begun(store, tiny_sweep.tiny_plan(store))
    store.write(store.read("runs", run, "plan.json").replace(b"tiny", b"time"), "runs", run, "plan.json")
    assert ledger.planned() is None


READERS: list[Callable[[Ledger, str], object]] = [
    lambda ledger, cell: ledger.failures(),
    lambda ledger, cell: ledger.attempts(cell),
    lambda ledger, cell: ledger.errors(cell),
    lambda ledger, cell: ledger.notes("pack-000"),
    lambda ledger, cell: ledger.added(),
]


@pytest.mark.parametrize("read", READERS)
def test_a_call_that_takes_its_folder_with_it_harms_no_reader(
    store: Store,
    cell: Any,
    tiny_sweep: ModuleType,
    read: Callable[[Ledger, str], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes between a list of the folder and the reading of its files."""
    run, ledger = calls.begun(store, tiny_sweep.tiny_plan(store, seeds=1))
    ledger.error(cell, calls.attempted(ledger, cell), "OSError: disk")
    ledger.fail(cell, "OSError: disk")
    ledger.note("pack-000", "OSError: disk")
    ledger.add(PlannedCell.of(cell, "cell", ()))
    assert read(ledger, cell.identity)
    names = Store.names

    def list_then_lose(self: Store, *parts: str) -> list[str]:
        found = names(self, *parts)
        store.drop_run(run)
        return found

    monkeypatch.setattr(Store, "names", list_then_lose)
    assert not read(Ledger(store, run), cell.identity)


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError, LostError])
def test_however_a_call_ends_its_end_is_noted(store: Store, error: type[BaseException]) -> None:
    ledger = Ledger(store, "run")
    with ledger.ending():
        pass
    assert ledger.ended() is None
    with pytest.raises(error), ledger.ending():
        raise error("…")
    assert ledger.ended() is not None


def test_calls_are_known_by_their_names_the_newest_first(store: Store) -> None:
    assert known_calls(store) == []
    earlier = ["a-b-20261126-181500-abcdef", "a-20261126-181501-p0123abcd-1-2-abcdef"]
    for run in [*earlier, new := new_run("tiny"), "Nov20_myhost", "a-20269926-181500-abcdef"]:
        store.write("", "runs", run, "file")
    assert known_calls(store) == [new, *reversed(earlier)]
    about = named(new)
    assert about is not None
    assert about[0] == "tiny"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", about[1])
    assert named(earlier[0]) == ("a-b", "2026-11-26T18:15:00+00:00")

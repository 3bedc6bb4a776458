"""The ledger of attempts and failures, without Ray."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s3ray.engine.worker import Ledger
from s3ray.store import Store
from s3ray.sweep.plan import CellPlan
from toy_runs import commit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def cell(tiny_sweep: ModuleType, store: Store) -> CellPlan:
    return tiny_sweep.tiny_plan(store, seeds=1).cells[0]


def test_attempts_count_from_the_last_progress(store: Store, cell: Any) -> None:
    def attempt(run: str = "run") -> int:
        return Ledger(store, run).attempt(cell, store.markers(cell.runs), ["node"], ["node"])

    assert [attempt() for _ in range(3)] == [1, 2, 3]
    store.save_checkpoint(cell.training, 10, b"")
    assert [attempt() for _ in range(2)] == [1, 2]
    commit(store, cell.training, {}, seconds=1.0, provenance={})
    assert attempt() == 1
    assert attempt("another run") == 1


def test_attempts_on_nodes_that_were_taken_away_do_not_count(store: Store, cell: Any) -> None:
    ledger = Ledger(store, "run")
    assert ledger.attempt(cell, (), ["a", "b"], ["a", "b", "c"]) == 1
    assert ledger.attempt(cell, (), ["a", "c"], ["a", "c"]) == 1  # b is gone
    assert ledger.attempt(cell, (), ["a", "c"], ["a", "c"]) == 2
    assert ledger.attempt(cell, (), ["d"], ["d"]) == 1


def test_the_first_error_is_kept_and_failures_are_listed(store: Store, cell: Any) -> None:
    ledger = Ledger(store, "run")
    assert ledger.last_error(cell) is None
    ledger.error(cell, "OSError: disk")
    ledger.error(cell, "RuntimeError: connection closed by peer")
    assert ledger.last_error(cell) == "OSError: disk"
    assert ledger.failures() == {}
    ledger.fail(cell, "DivergedError: [x] ü")
    assert ledger.failures() == {cell.identity: "DivergedError: [x] ü"}

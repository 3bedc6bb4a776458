"""The ledger of attempts and failures, without Ray."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s3ray.engine import worker as module
from s3ray.engine.run import cause
from s3ray.engine.worker import Ledger, Pack, run_pack
from s3ray.store import DamagedError, LeaseLostError, Store
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


def test_memory_that_was_lacking_comes_with_what_to_lower() -> None:
    """Of a trial whose process died Tune tells the text of a file alone."""
    death = "Failure # 1 (occurred at 2026-11-26_19-03-20)\nConnectionError: gone\nFailure # 2 (occurred at x)\n"
    told = cause(f"{death}1 worker(s) were killed due to the node running low on memory.\nMemory was 3.7 of 4 GB\n")
    assert told.startswith(
        "1 worker(s) were killed due to the node running low on memory. Memory was 3.7 of 4 GB; lower "
    )
    traceback = (
        'Traceback (most recent call last):\n  File "x.py", line 1\nray.exceptions.ActorDiedError: it died.\n\tpid: 1\n'
    )
    assert cause(f"{death}{traceback}") == "ray.exceptions.ActorDiedError: it died."
    assert cause(RuntimeError("CUDA out of memory. Tried\nmore")).startswith(
        "RuntimeError: CUDA out of memory. Tried more; "
    )
    assert cause(ValueError("wrong")) == "ValueError: wrong"
    assert cause("") == ""


def test_why_a_worker_group_ended_is_noted_for_the_next(store: Store) -> None:
    ledger = Ledger(store, "run")
    assert ledger.noted("pack-000") is None
    for told in ("first", "last"):
        ledger.note("pack-000", told)
    assert Ledger(store, "run").noted("pack-000") == "last"
    assert ledger.noted("pack-001") is None


def test_workers_have_the_sweeps_verdict_and_a_lost_lease_is_no_error_of_the_cell(
    store: Store, cell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept as the cell's, it would hide the lack of memory that comes later."""
    verdicts: list[bool] = []

    def loses(_cell: object, _data: object, store: Store, *_: object, **__: object) -> bool:
        verdicts.append(store.honours_conditions)
        raise LeaseLostError

    monkeypatch.setattr(module, "run_cell", loses)
    monkeypatch.setattr(module.ray.train.torch, "get_device", lambda: None)
    monkeypatch.setattr(Store, "fetch_dataset", lambda *_: None)
    for verdict in (True, False):
        run_pack({"pack": Pack("pack-000", "run", (cell,), store.uri, 60.0, conditions=verdict)})
    assert verdicts == [True, False]
    ledger = Ledger(store, "run")
    assert ledger.last_error(cell) is None
    assert (ledger.noted("pack-000") or "").startswith("LeaseLostError: ")


def test_a_cell_whose_data_are_gone_is_given_up_at_once(store: Store, cell: Any) -> None:
    """Worker groups started 63 times, since what fails before a cell's first event is no attempt of it."""
    pack = Pack("pack-000", "run", (cell,), store.uri, 60.0, conditions=True)
    with pytest.raises(DamagedError, match="is not whole; run the sweep again"):
        run_pack({"pack": pack})
    (failed,) = Ledger(store, "run").failures().items()
    assert failed[0] == cell.identity
    assert failed[1].endswith("the published dataset is not whole; run the sweep again, which publishes it again")

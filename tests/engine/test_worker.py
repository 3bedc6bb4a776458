"""What a worker group does with its pack, without Ray."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from s3ray.engine import worker as module
from s3ray.engine.run import cause, failures_of
from s3ray.engine.worker import Pack, run_pack
from s3ray.execution.ledger import Ledger
from s3ray.store import DamagedError, LeaseLostError, Store
from s3ray.sweep.plan import CellPlan


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def cell(tiny_sweep: ModuleType, store: Store) -> CellPlan:
    return tiny_sweep.tiny_plan(store, seeds=1).cells[0]


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

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)  # perhaps why the lease was lost: the other cells come next
    run_pack({"pack": Pack("pack-000", "run", (cell,), store.uri, 60.0, conditions=True)})


def test_a_cell_whose_data_are_gone_is_given_up_at_once(store: Store, cell: Any) -> None:
    """Worker groups started 63 times, since what fails before a cell's first event is no attempt of it."""
    pack = Pack("pack-000", "run", (cell,), store.uri, 60.0, conditions=True)
    with pytest.raises(DamagedError, match="is not whole; run the sweep again"):
        run_pack({"pack": pack})
    (failed,) = Ledger(store, "run").failures().items()
    assert failed[0] == cell.identity
    assert failed[1].endswith("the published dataset is not whole; run the sweep again, which publishes it again")


def test_a_storage_that_takes_nothing_hides_no_failure(
    store: Store, tiny_sweep: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of cells that failed is what one has to see then."""
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    pack = Pack("pack-000", "run", plan.cells, store.uri, 60.0, conditions=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "write", full)
    ledger = Ledger(store, "run")
    failures = failures_of(plan, [pack], {}, ledger, {"pack-000": OSError(28, "No space left on device")})
    assert failures == {plan.cells[0].cell: "OSError: [Errno 28] No space left on device"}

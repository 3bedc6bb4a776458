"""What is told of a cell that failed or is at work, of each way in which one ends; from a ledger written by hand."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

import calls
from s3ray.errors import UserError
from s3ray.execution import run_cell
from s3ray.execution.ledger import Ledger
from s3ray.execution.logs import explained
from s3ray.execution.tensorboard import Curve, last_rows
from s3ray.stages.training import DivergedError
from s3ray.store import Claims, Store
from s3ray.sweep import Plan
from toy_runs import commit

TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in step\nOSError: disk\nin specialization'
RAYS = "    on node 0123456789ab, Ray's logs: far:/tmp/ray/session/logs, files *4711* in it and in train/"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def plan(tiny_sweep: ModuleType, store: Store) -> Plan:
    found: Plan = tiny_sweep.tiny_plan(store)
    return found


@pytest.fixture
def ledger(store: Store, plan: Plan) -> Ledger:
    return calls.begun(store, plan)[1]


def told(store: Store, label: str = "seed=0") -> str:
    return "\n".join(explained(store, label))


def test_an_exception_in_a_stage_with_its_traceback_and_what_came_before_it(
    store: Store, plan: Plan, ledger: Ledger
) -> None:
    cell = plan.cells[0]
    curve = Curve(store, cell.cell, cell.training, "specialization")
    curve.begin(0)
    rows = [{"step": float(s), "loss": 3.0 - s, "rep": 2.0, "local_entropy/rows": 1.0} for s in range(8)]
    for end in (4, 8):
        for _ in range(4):
            curve.stepped()
        curve.write(rows[:end])
    assert [row["step"] for row in last_rows(store, str(cell.cell), "digits", "specialization", "x" * 8)] == []
    number = calls.attempted(ledger, cell)
    store.save_checkpoint(cell.training, 8, b"")
    ledger.error(cell, number, "OSError: disk", TRACEBACK)
    again = calls.attempted(ledger, cell)
    ledger.error(cell, again, "OSError: disk", TRACEBACK)
    ledger.fail(cell, "OSError: disk; given up after 3 attempts without progress")
    runs = len(cell.runs)
    lines = told(store).splitlines()
    assert lines[0].startswith(f"{cell.cell}: tiny, since 20")
    assert lines[1:3] == [
        "  given up: OSError: disk; given up after 3 attempts without progress",
        f"  0 of {runs} stage runs are there, the next is specialization",
    ]
    assert lines[3].endswith("Ray's logs of the call in here:/tmp/ray/session/logs")
    first = lines.index(next(line for line in lines if line.startswith("  attempt 1: ")))
    assert lines[first].endswith(f"began with specialization, {runs} stage runs missing")
    assert lines[first + 1 : first + 4] == [
        RAYS,
        f"    reached specialization, {runs} stage runs missing, a checkpoint at step 8",
        "    OSError: disk",
    ]
    assert lines[first + 4 : first + 8] == [f"      {line}" for line in TRACEBACK.splitlines()]
    assert "    ended in specialization, its last checkpoint at step 8" in lines
    table = lines[lines.index("  the last steps of specialization that were kept:") + 1 :]
    assert [line.split() for line in table] == [
        ["step", "loss", "rep"],
        *([str(step), str(3 - step), "2"] for step in range(3, 8)),
    ]


@pytest.mark.slow
def test_a_diverged_loss_with_the_terms_at_its_last_finite_step(
    store: Store, tiny_sweep: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    (cell,) = plan.cells
    _, ledger = calls.begun(store, plan)
    calls.attempted(ledger, cell)
    rate = torch.optim.AdamW.step
    steps: list[int] = []

    def spoil(self: torch.optim.AdamW, *arguments: object) -> object:
        steps.append(len(steps))
        if len(steps) == 5:
            self.param_groups[0]["lr"] = 1e39
        return rate(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", spoil)
    with pytest.raises(DivergedError, match="at step 6 of 72") as raised:
        run_cell(
            cell, tiny_sweep.DATA, store, lambda _: None, device=torch.device("cpu"), checkpoint_interval=float("inf")
        )
    assert raised.value.__notes__ == ["in specialization, after step 5 of 72"]
    ledger.error(cell, 1, f"DivergedError: {raised.value}", "the traceback")
    ledger.fail(cell, f"DivergedError: {raised.value}")
    lines = told(store).splitlines()
    assert f"    DivergedError: {raised.value}" in lines
    header, *rows = lines[lines.index("  the last steps of specialization that were kept:") + 1 :]
    assert header.split() == ["step", "loss", "rep", "dsc", "imp", "load", "local", "global"]
    assert [row.split()[0] for row in rows] == ["0", "1", "2", "3", "4"]


def test_a_killed_worker_and_a_group_that_could_not_start_after_it(store: Store, plan: Plan, ledger: Ledger) -> None:
    cell = plan.cells[0]
    for _ in range(2):
        calls.attempted(ledger, cell)
        ledger.note("pack-000", "ActorDiedError: the worker died", "all that Ray says\nof it")
    ledger.note("pack-000", "RuntimeError: no such interface", "its traceback")
    text = told(store)
    assert text.count("    worker group: ActorDiedError: the worker died\n      all that Ray says\n      of it") == 2
    assert text.count("    worker group: RuntimeError: no such interface\n      its traceback") == 1
    assert "given up" not in text


def test_out_of_memory(store: Store, plan: Plan, ledger: Ledger) -> None:
    """Of a trial whose process died; none of the cell's stages has begun."""
    cause = "1 worker(s) were killed due to the node running low on memory; lower batch_sizes"
    ledger.note("pack-000", cause, "Memory on the node was 3.7 of 4 GB\nTop processes: …")
    ledger.fail(plan.cells[0], cause)
    text = told(store)
    assert f"  given up: {cause}\n" in text
    assert "  none of its stages has begun\n" in text
    assert f"    {cause}\n      Memory on the node was 3.7 of 4 GB\n      Top processes: …" in text


def test_a_group_that_could_not_start_is_told_once(store: Store, plan: Plan, ledger: Ledger) -> None:
    for _ in range(3):
        ledger.note("pack-000", "RuntimeError: no_such_interface", "Traceback:\n  gloo")
    ledger.fail(plan.cells[0], "RuntimeError: no_such_interface; given up after 3 attempts without progress")
    text = told(store)
    assert "    RuntimeError: no_such_interface (3 times)\n      Traceback:\n        gloo" in text


def test_a_cell_after_which_its_group_went_on_is_not_told_of_the_groups_end(
    store: Store, plan: Plan, ledger: Ledger
) -> None:
    first, second = plan.cells
    ledger.error(first, calls.attempted(ledger, first), "DivergedError: the loss became nan", "the traceback")
    ledger.fail(first, "DivergedError: the loss became nan")
    calls.attempted(ledger, second)
    ledger.note("pack-000", "ActorDiedError: the worker died")
    assert "ActorDiedError" not in told(store, "seed=0")
    assert "ActorDiedError" in told(store, "seed=1")


def test_a_cell_at_work_a_finished_and_a_waiting_one(store: Store, plan: Plan, ledger: Ledger) -> None:
    first, second = plan.cells
    calls.attempted(ledger, first)
    with Claims(store).take(first.training.claim):
        assert "    at work, or was: specialization is claimed by process " in told(store)
    for run in first.runs:
        commit(store, run)
    text = told(store)
    assert "  done: all of it is in the store" in text
    assert "the last steps" not in text
    assert "  none of its stages has begun" in told(store, str(second.cell))


def test_a_cell_in_several_calls_is_told_where_something_happened(
    store: Store, plan: Plan, ledger: Ledger, tiny_sweep: ModuleType
) -> None:
    assert told(store).count("digits χ=2 batch=32 seed=0: tiny, since ") == 1
    _, other = calls.begun(store, plan)
    for one in (ledger, other):
        calls.attempted(one, plan.cells[0])
    assert told(store).count("digits χ=2 batch=32 seed=0: tiny, since ") == 2


def test_an_empty_store_has_no_cells(store: Store) -> None:
    with pytest.raises(UserError, match="no sweep is at work on it or has left a failed cell"):
        explained(store, "digits")

"""What a cell claims, what it leaves to others, and that a claim that is lost stops it, on every rank.

The two workers are this file, run as a script.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch

from gloo_workers import be_worker, run_workers
from s3ray.data.dataset import Dataset
from s3ray.execution import Event, run_cell
from s3ray.execution.audit import audit
from s3ray.execution.cell import labelled
from s3ray.execution.checkpoints import StageMonitor
from s3ray.execution.tensorboard import Curve
from s3ray.stages.collective import rank
from s3ray.stages.stage import StageRun
from s3ray.stages.training import Metrics
from s3ray.store import Claims, LeaseLostError, Store
from s3ray.store import claims as module
from s3ray.store.claims import LEASE_SECONDS, Claim
from s3ray.sweep import CellPlan
from toy_runs import toy_run

pytestmark = pytest.mark.slow  # trains, starts processes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def cell(tiny_sweep: ModuleType, store: Store) -> CellPlan:
    return cast("CellPlan", tiny_sweep.tiny_plan(store, seeds=1).cells[0])


def run(cell: CellPlan, data: Dataset, store: Store, report: Any, claims: Claims) -> bool:
    return run_cell(cell, data, store, report, device=torch.device("cpu"), checkpoint_interval=1e9, claims=claims)


def selection_of(cell: CellPlan) -> StageRun:
    selection = cell.branches[1].selection
    assert selection is not None
    return selection


def test_a_run_is_claimed_with_the_model_that_it_trains_or_measures(cell: CellPlan) -> None:
    none, selected = cell.branches
    of_training = [cell.training, *none.curve, cell.floors["no expert"]]
    assert {part.claim for part in of_training} == {cell.training.identity}
    assert {part.claim for part in selected.runs} == {selection_of(cell).identity}
    assert [part.claim for part in (cell.floors["untrained"], cell.reference)] == [
        cell.floors["untrained"].identity,
        cell.reference.identity,
    ]


def test_what_is_said_together_is_claimed_together(cell: CellPlan) -> None:
    """The untrained encoder was computed under the claim of what was said with it, and by two sweeps at once."""
    claims: dict[str, set[str]] = {}
    for label, part in labelled(cell):
        claims.setdefault(label, set()).add(part.claim)
    assert {len(found) for found in claims.values()} == {1}


def test_cells_that_differ_in_what_follows_a_training_claim_the_same(tiny_sweep: ModuleType, cell: CellPlan) -> None:
    """Sweeps that differ only in their controls, or in their branches, each trained; the claim was all of a cell's."""
    from s3ray.sweep import curves, plan_cell

    other = plan_cell(cell.cell, tiny_sweep.settings(), cell.facts, curves(["suff"]))
    assert other.identity != cell.identity
    assert other.training.claim == cell.training.claim


def test_what_another_sweep_works_on_is_left_to_it(tiny_sweep: ModuleType, store: Store, cell: CellPlan) -> None:
    def done(*, while_claimed: list[StageRun]) -> tuple[bool, list[str]]:
        events: list[Event] = []
        other, ours = Claims(store), Claims(store)
        if not while_claimed:
            complete = run(cell, tiny_sweep.DATA, store, events.append, ours)
        for claimed in while_claimed:
            with other.take(claimed.claim):
                complete = run(cell, tiny_sweep.DATA, store, events.append, ours)
        return complete, [event.stage for event in events if event.state == "finished"]

    assert done(while_claimed=[cell.training]) == (False, ["untrained", "reference"])
    assert done(while_claimed=[selection_of(cell)]) == (
        False,
        ["specialization", "sparsification none", "controls"],
    )
    assert done(while_claimed=[]) == (True, ["selection suff+min", "sparsification suff+min"])
    assert done(while_claimed=[cell.training, selection_of(cell)]) == (True, [])  # nothing is left to claim


def test_a_lost_claim_stops_the_training(
    tiny_sweep: ModuleType, store: Store, cell: CellPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    times = iter(range(0, 10**9, int(LEASE_SECONDS)))
    other = Claims(store, clock=lambda: float(next(times)))
    lost: list[float] = []

    def take_over(event: Event) -> None:
        if (event.state, event.stage) == ("started", "specialization"):
            while not other.free(cell.training.claim):
                pass
            lost.append(time.monotonic())

    with pytest.raises(LeaseLostError, match=r"^its claim could not be renewed in time, or another sweep has taken it"):
        run(cell, tiny_sweep.DATA, store, take_over, Claims(store))
    assert time.monotonic() - lost[0] < 5.0
    assert store.markers(cell.runs) == {}
    found = store.conditional.read(f"claims/{cell.training.claim}/claim.json")
    assert found is not None
    claim = Claim.parse(found[0])
    assert (claim.epoch, claim.owner) == (2, "")  # as the other one left it


class _NoCurve:
    def begin(self, step: int) -> None:
        pass

    def stepped(self) -> None:
        pass

    def write(self, metrics: Metrics) -> None:
        pass


def _steps_until_lost(data: Dataset) -> dict[str, Any]:
    """Rank 1 is not asked, and its steps take another time; it stops at the same one."""
    answers = iter([True] * 4 + [False])
    monitor = StageMonitor(
        Store("/nowhere"),
        toy_run(),
        None,
        cast("Curve", _NoCurve()),
        1e9,
        lambda step, total, metrics: None,
        0,
        holds=lambda: next(answers) if rank() == 0 else True,
    )
    for step in range(1, 1000):
        time.sleep(0.001 if rank() == 0 else 0.002)
        try:
            monitor.stepped(step, 10**6, lambda: {})
        except LeaseLostError:
            return {"step": step}
    return {"step": 0}


def test_a_checkpoint_serves_only_who_starts_from_the_same_result(tmp_path: Path) -> None:
    """The parent's weights were found damaged and computed again meanwhile, elsewhere perhaps."""
    store, run = Store(str(tmp_path)), toy_run(1, toy_run())

    def monitor(parent: str) -> StageMonitor:
        return StageMonitor(store, run, parent, cast("Curve", _NoCurve()), 0.0, lambda *_: None, 0)

    snapshot = {"step": 3, "metrics": []}
    monitor("first attempt").stepped(3, 10, lambda: snapshot)
    assert monitor("first attempt").resume(lambda _: True) == snapshot
    assert monitor("second attempt").resume(lambda _: True) is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(tmp_path: Path) -> None:
    store, run, told = Store(str(tmp_path)), toy_run(), list[str]()

    def monitor() -> StageMonitor:
        curve = cast("Curve", _NoCurve())
        return StageMonitor(store, run, None, curve, 0.0, lambda *_: None, 0, damaged=told.append)

    for step in (3, 4):
        monitor().stepped(step, 10, lambda step=step: {"step": step, "metrics": []})
    name = store.names("checkpoints", run.identity)[-1]
    store.write(b"damaged", "checkpoints", run.identity, name)
    faults = audit(store).faults
    assert [name in fault and "the next run of its sweep deletes it" in fault for fault in faults] == [True]
    assert monitor().resume(lambda _: True) == {"step": 3, "metrics": []}
    assert [name in sentence and "an earlier one serves" in sentence for sentence in told] == [True]
    assert audit(store).faults == []


def test_all_ranks_stop_at_the_same_step(tiny_dataset: Dataset, tmp_path: Path) -> None:
    first, second = run_workers(__file__, tiny_dataset, tmp_path)
    assert first["step"] == second["step"] == 1 + 2 + 4 + 8 + 16


if __name__ == "__main__":
    be_worker(_steps_until_lost)

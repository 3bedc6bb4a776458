"""Calls of sweeps as they stand in a store, made by hand: no Ray, nothing is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence

from s3ray.execution.ledger import Ledger, PlanRecord
from s3ray.stages.stage import StageRun
from s3ray.store import Claim, Store
from s3ray.sweep import CellPlan, Plan
from s3ray.traces import new_run, tag

ELSEWHERE = "p00000000-17-4"  # a process of another machine
DEAD = re.sub(r"\d+$", "1", tag())  # one of this machine whose number was given again


def begun(store: Store, plan: Plan, *, process: str = "", slots: int = 2) -> tuple[str, Ledger]:
    """A call of this plan, by this process or another one; its name, and what it keeps."""
    run = new_run("tiny").replace(tag(), process or tag())
    ledger = Ledger(store, run)
    packs = {cell.identity: "pack-000" for cell in plan.pending}
    ledger.plan(PlanRecord.of(plan, packs, slots, 1, "here:/tmp/ray/session/logs"))
    return run, ledger


def claimed(store: Store, run: StageRun, beat: int = 0, *, process: str = ELSEWHERE, owner: str = "x") -> None:
    """Somebody has claimed a run, and renewed it so often; without an owner the claim was released."""
    claim = Claim(1, owner, beat, process, "process 17 on far, since 2026-11-26 18:15 UTC")
    store.write(claim.content(), "claims", run.claim, "claim.json")


def worker(node: str) -> dict[str, str]:
    return {"node": node, "worker": "4711", "logs": "far:/tmp/ray/session/logs"}


def attempted(ledger: Ledger, cell: CellPlan, committed: Sequence[str] = (), stage: str = "specialization") -> int:
    """The next attempt at a cell, on one worker."""
    workers = [worker("0123456789abcdef")]
    alive = [workers[0]["node"]]
    number = ledger.attempt(cell, committed, alive, 3, pack="pack-000", stage=stage, workers=workers)
    assert number is not None
    return number

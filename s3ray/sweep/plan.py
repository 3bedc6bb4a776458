"""The plan: sweep × store → what is cached, what must run, at what estimated cost."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from s3ray.config import Branch, Cell, Settings
from s3ray.errors import UserError
from s3ray.stages import VERSIONS
from s3ray.store import Marker, StageRun, Store
from s3ray.sweep import cost
from s3ray.sweep.grid import DataFacts, Study, Sweep
from s3ray.sweep.packs import make_packs

_TRAINING = frozenset({"specialization", "selection", "baseline"})  # the other stages encode and probe


@dataclass(frozen=True)
class BranchPlan:
    """A branch's stage runs; without Selection the trained model itself is pruned and probed."""

    branch: Branch
    selection: StageRun | None
    curve: StageRun  # Sparsification with its probes; of a prior method the probe alone
    kept: StageRun | None = None

    @property
    def runs(self) -> list[StageRun]:
        return [run for run in (self.selection, self.curve, self.kept) if run is not None]


@dataclass(frozen=True)
class CellPlan:
    """A cell with everything that a worker needs to run it."""

    cell: Cell
    settings: Settings
    facts: DataFacts
    training: StageRun  # Specialization, or a prior method's
    branches: tuple[BranchPlan, ...]
    reference: StageRun  # the same for all cells of a dataset
    seconds: Mapping[str, float]  # estimate per identity

    @cached_property
    def runs(self) -> list[StageRun]:
        """Every stage run, parents first."""
        return [self.training, *(run for branch in self.branches for run in branch.runs), self.reference]

    @cached_property
    def identity(self) -> str:
        """sha256 over the identities of all runs: equal cells are the same computation."""
        return hashlib.sha256("".join(run.identity for run in self.runs).encode()).hexdigest()

    def missing(self, committed: Mapping[str, Marker]) -> list[StageRun]:
        return [run for run in self.runs if run.identity not in committed]


@dataclass(frozen=True)
class Plan:
    """A sweep over a study, reconciled with a store."""

    sweep: Sweep
    study: Study
    cells: tuple[CellPlan, ...]
    committed: Mapping[str, Marker]
    naive: Mapping[str, int]  # stage runs if nothing were shared: every curve with all that leads to it

    @cached_property
    def pending(self) -> tuple[CellPlan, ...]:
        """Cells with something to run; of cells that are the same computation, the first."""
        first = {cell.identity: cell for cell in reversed(self.cells)}
        return tuple(c for c in self.cells if first[c.identity] is c and c.missing(self.committed))

    @cached_property
    def speeds(self) -> Mapping[str, float]:
        """Per stage, how many times longer it took in the store than its estimates say.

        A stage that was never measured borrows from those that work as it does, and where there are none from the
        others.
        """
        runs = {run.identity: (run, cell.seconds[run.identity]) for cell in self.cells for run in cell.runs}

        def known(stages: Iterable[str], prior: float) -> float:
            found = [
                (self.committed[run.identity].seconds, estimate)
                for run, estimate in runs.values()
                if run.stage in stages and run.identity in self.committed
            ]
            return cost.corrected(sum(m for m, _ in found), sum(e for _, e in found), prior)

        speeds = {}
        for stage in VERSIONS:
            alike = _TRAINING if stage in _TRAINING else VERSIONS.keys() - _TRAINING
            speeds[stage] = known([stage], known(alike - {stage}, known(VERSIONS.keys() - alike, 1.0)))
        return speeds

    def seconds(self, cell: CellPlan) -> float:
        """Estimated seconds of what a cell still misses."""
        return sum(self.speeds[run.stage] * cell.seconds[run.identity] for run in cell.missing(self.committed))

    @cached_property
    def shares(self) -> list[float]:
        """Estimated seconds of every pending cell; what cells share, such as references, is the first one's."""
        counted: set[str] = set()
        shares = []
        for cell in self.pending:
            missing = {run.identity: run for run in cell.missing(self.committed) if run.identity not in counted}
            counted |= missing.keys()
            shares.append(sum(self.speeds[run.stage] * cell.seconds[name] for name, run in missing.items()))
        return shares

    def wall_seconds(self, slots: int, workers: int = 1) -> float:
        """Estimated seconds until a run ends that starts Ray and has `slots` worker groups of `workers` at a time."""
        if not self.pending:
            return 0.0
        free = [0.0] * slots
        for pack in make_packs(self.shares, self.shares, slots=slots):
            heapq.heapreplace(free, free[0] + cost.GROUP_SECONDS + sum(pack) / workers)
        return cost.RAY_SECONDS + max(free)

    def summary(self) -> dict[str, Any]:
        """Counts per stage and the estimated cost, for `s3ray plan`."""
        stages: dict[str, dict[str, int]] = {}
        for stage in VERSIONS:
            runs = {run.identity for cell in self.cells for run in cell.runs if run.stage == stage}
            cached = len(runs & set(self.committed))
            if runs:
                stages[stage] = {
                    "naive": self.naive[stage],
                    "unique": len(runs),
                    "cached": cached,
                    "to_run": len(runs) - cached,
                }
        waiting = sum(bool(cell.missing(self.committed)) for cell in self.cells)
        return {
            "sweep": self.sweep.name,
            "cells": {"total": len(self.cells), "cached": len(self.cells) - waiting, "to_run": waiting},
            "stages": stages,
            "estimated_worker_seconds": round(sum(self.shares), 1),
            "datasets": {
                name: {
                    "kind": entry.facts.kind,
                    "scale": entry.scale,
                    "classes": entry.facts.classes,
                    "samples": dict(entry.facts.samples),
                    "fingerprint": entry.facts.fingerprint,
                    "warnings": list(entry.facts.warnings),
                }
                for name, entry in self.study.entries.items()
            },
        }


def plan_cell(
    cell: Cell, settings: Settings, facts: DataFacts, branches: tuple[Branch, ...], kept: bool = False
) -> CellPlan:
    """Derive a cell's stage runs, their identities and their estimated seconds."""
    seconds: dict[str, float] = {}

    def run(stage: str, config: Mapping[str, Any], parent: StageRun | None, estimate: float) -> StageRun:
        planned = StageRun(stage, VERSIONS[stage], config, parent.identity if parent else None, facts.fingerprint)
        seconds[planned.identity] = estimate
        return planned

    is_s3 = cell.method == "s3"
    trained = {**asdict(cell), "model": asdict(settings.model)}
    if is_s3:
        trained |= {"specialization": asdict(settings.specialization)}
        estimate = cost.specialization_seconds(settings, facts, cell.batch_size)
        training = run("specialization", trained, None, estimate)
    else:
        trained |= {"baseline": asdict(settings.baseline), "optimizer": asdict(settings.specialization.optimizer)}
        training = run("baseline", trained, None, cost.baseline_seconds(settings, facts, cell))
    curve_stage = "sparsification" if is_s3 else "probe"
    ratios = settings.sparsification.ratios if is_s3 else (1.0,)
    evaluation = {
        "ratios": ratios,
        "batch_size": settings.sparsification.batch_size,
        "probe": asdict(settings.probe),
    }
    plans = []
    for branch in branches:
        selection = None
        if is_s3 and branch != "none":
            estimate = cost.selection_seconds(settings, facts, cell.batch_size)
            selection = run("selection", asdict(settings.selection.for_branch(branch)), training, estimate)
        probed = evaluation if is_s3 else {**evaluation, "branch": branch}
        parent, estimate = selection or training, cost.curve_seconds(settings, facts, ratios)
        curve = run(curve_stage, probed, parent, estimate)
        measured = run("kept", probed, parent, cost.kept_seconds(settings, facts, ratios)) if kept else None
        plans.append(BranchPlan(branch, selection, curve, measured))
    reference = run("reference", {"probe": asdict(settings.probe)}, None, cost.reference_seconds(facts))
    return CellPlan(cell, settings, facts, training, tuple(plans), reference, seconds)


def make_plan(sweep: Sweep, study: Study, store: Store) -> Plan:
    """Expand a sweep and look up what the store has; a cell that several parts ask for stands there once.

    Raises:
        UserError: a cell whose settings or data cannot work, or a sweep without cells.
    """
    wanted: dict[Cell, dict[Branch, bool]] = {}
    naive: Counter[str] = Counter()
    for cell, branches, kept in sweep.requests(study):
        entry = wanted.setdefault(cell, {})
        for branch in branches:
            entry[branch] = entry.get(branch, False) or kept
        alone = plan_cell(cell, study.settings(cell), study.entries[cell.dataset].facts, branches, kept)
        naive.update(run.stage for branch in alone.branches for run in [alone.training, *branch.runs])
        naive[alone.reference.stage] += 1
    cells = tuple(
        plan_cell(
            cell, study.settings(cell), study.entries[cell.dataset].facts, tuple(branches), any(branches.values())
        )
        for cell, branches in wanted.items()
    )
    if not cells and sweep.computes:
        raise UserError(f"sweep {sweep.name}: yields no cell; give it datasets")
    return Plan(sweep, study, cells, store.markers(run for cell in cells for run in cell.runs), naive)

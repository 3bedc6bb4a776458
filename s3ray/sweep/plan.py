"""The plan: sweep × store → what is cached, what must run, at what estimated cost."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

from s3ray.config import Branch, Cell, Settings, UserError
from s3ray.stages import VERSIONS
from s3ray.store import Marker, StageRun, Store
from s3ray.sweep import cost
from s3ray.sweep.grid import DataFacts, Study, Sweep


@dataclass(frozen=True)
class BranchPlan:
    """A branch's stage runs; `none` has no Selection and prunes the specialised model itself."""

    branch: Branch
    selection: StageRun | None
    curve: StageRun


@dataclass(frozen=True)
class CellPlan:
    """A cell with everything that a worker needs to run it."""

    cell: Cell
    settings: Settings
    facts: DataFacts
    specialization: StageRun
    branches: tuple[BranchPlan, ...]
    reference: StageRun  # the same for all cells of a dataset
    seconds: Mapping[str, float]  # estimate per identity

    @cached_property
    def runs(self) -> list[StageRun]:
        """Every stage run, parents first."""
        runs = [self.specialization]
        for branch in self.branches:
            runs += [run for run in (branch.selection, branch.curve) if run is not None]
        return [*runs, self.reference]

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

    @cached_property
    def pending(self) -> tuple[CellPlan, ...]:
        """Cells with something to run; of cells that are the same computation, the first."""
        first = {cell.identity: cell for cell in reversed(self.cells)}
        return tuple(c for c in self.cells if first[c.identity] is c and c.missing(self.committed))

    @cached_property
    def speed(self) -> float:
        """How many times longer stages of this sweep took, in the store, than their estimates say."""
        ratios = [
            self.committed[run.identity].seconds / cell.seconds[run.identity]
            for cell in self.cells
            for run in cell.runs
            if run.identity in self.committed
        ]
        return median(ratios) if ratios else 1.0

    def seconds(self, cell: CellPlan) -> float:
        """Estimated seconds of what a cell still misses."""
        return self.speed * sum(cell.seconds[run.identity] for run in cell.missing(self.committed))

    def summary(self) -> dict[str, Any]:
        """Counts per stage and the estimated cost, for `s3ray plan`."""
        stages: dict[str, dict[str, int]] = {}
        for stage in VERSIONS:
            runs = [run.identity for cell in self.cells for run in cell.runs if run.stage == stage]
            # Without the store, every branch of a cell would train its own Specialization.
            naive = len(runs) if stage != "specialization" else sum(len(c.branches) for c in self.cells)
            cached = len(set(runs) & set(self.committed))
            stages[stage] = {
                "naive": naive,
                "unique": len(set(runs)),
                "cached": cached,
                "to_run": len(set(runs)) - cached,
            }
        waiting = sum(bool(cell.missing(self.committed)) for cell in self.cells)
        return {
            "sweep": self.sweep.name,
            "cells": {"total": len(self.cells), "cached": len(self.cells) - waiting, "to_run": waiting},
            "stages": stages,
            "estimated_worker_seconds": round(sum(self.seconds(cell) for cell in self.pending), 1),
            "datasets": {
                name: {
                    "kind": entry.facts.kind,
                    "scale": entry.scale,
                    "classes": entry.facts.classes,
                    "samples": dict(entry.facts.samples),
                    "fingerprint": entry.facts.fingerprint,
                }
                for name, entry in self.study.entries.items()
            },
        }


def plan_cell(cell: Cell, settings: Settings, facts: DataFacts, branches: tuple[Branch, ...]) -> CellPlan:
    """Derive a cell's stage runs, their identities and their estimated seconds."""

    def run(stage: str, config: Mapping[str, Any], parent: StageRun | None) -> StageRun:
        return StageRun(stage, VERSIONS[stage], config, parent.identity if parent else None, facts.fingerprint)

    specialization = run(
        "specialization",
        {**asdict(cell), "model": asdict(settings.model), "specialization": asdict(settings.specialization)},
        None,
    )
    evaluation = {"sparsification": asdict(settings.sparsification), "probe": asdict(settings.probe)}
    seconds = {specialization.identity: cost.specialization_seconds(settings, facts, cell.batch_size)}
    plans = []
    for branch in branches:
        selection = None
        if branch != "none":
            selection = run("selection", asdict(settings.selection.for_branch(branch)), specialization)
            seconds[selection.identity] = cost.selection_seconds(settings, facts, cell.batch_size)
        curve = run("sparsification", evaluation, selection or specialization)
        seconds[curve.identity] = cost.curve_seconds(settings, facts)
        plans.append(BranchPlan(branch, selection, curve))
    reference = run("reference", {"probe": asdict(settings.probe)}, None)
    seconds[reference.identity] = cost.reference_seconds(facts)
    return CellPlan(cell, settings, facts, specialization, tuple(plans), reference, seconds)


def make_plan(sweep: Sweep, study: Study, store: Store) -> Plan:
    """Expand a sweep and look up what the store has.

    Raises:
        UserError: a cell whose settings or data cannot work, or a sweep without cells.
    """
    cells = tuple(
        plan_cell(cell, study.settings(cell), study.entries[cell.dataset].facts, sweep.branches)
        for cell in sweep.cells(study)
    )
    if not cells:
        raise UserError(f"sweep {sweep.name}: yields no cell; give it datasets")
    return Plan(sweep, study, cells, store.markers(run for cell in cells for run in cell.runs))

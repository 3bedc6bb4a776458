"""Sweeps of two rounds: what the second asks depends on what came out of the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from s3ray.results.collect import Results
from s3ray.store import Store
from s3ray.sweep import Cell, Plan, Study, make_plan


def with_second_round(plan: Plan, store: Store) -> Plan:
    """A plan with the cells that follow from its results, once all of them are there; others as they are."""
    then, first = plan.sweep.then, plan.sweep.cells
    if then is None or plan.pending:
        return plan
    second = list(then(plan.study, Results.collect(plan, store)))

    def cells(study: Study) -> Iterator[Cell]:
        yield from first(study)
        yield from second

    return make_plan(replace(plan.sweep, cells=cells, then=None), plan.study, store, plan.machine)

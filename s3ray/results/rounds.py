"""Sweeps of two rounds: what the second asks depends on what came out of the first."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from s3ray.results.collect import Results
from s3ray.store import Store
from s3ray.sweep import Cell, Plan, Study, make_plan


def with_second_round(plan: Plan, store: Store, failed: Collection[Cell] = ()) -> Plan:
    """A plan with the cells that follow from its results, once all of them are there; others as they are.

    Args:
        failed: cells that are not waited for. Where a file is damaged the second round is not planned: it would follow
            from less than was measured.
    """
    then, first = plan.sweep.then, plan.sweep.cells
    if then is None or any(cell.cell not in failed for cell in plan.pending):
        return plan
    results = Results.collect(plan, store)
    second = [] if results.info["left_out"] else list(then(plan.study, results))
    if not second:
        return plan

    def cells(study: Study) -> Iterator[Cell]:
        yield from first(study)
        yield from second

    return make_plan(replace(plan.sweep, cells=cells, then=None), plan.study, store, plan.machine)

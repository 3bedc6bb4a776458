"""Whether two stores hold the same rows of a sweep, bit for bit."""

from __future__ import annotations

import dataclasses

import pandas as pd

from s3ray.results import Results
from s3ray.store import Store
from s3ray.sweep import Plan


def tables(store: Store, plan: Plan) -> dict[str, pd.DataFrame]:
    """All tables of a plan's cells, without what is of the clock: all seconds, and when a result was committed."""
    committed = store.markers(run for cell in plan.cells for run in cell.runs)
    results = Results.collect(dataclasses.replace(plan, committed=committed), store)
    assert results.info["left_out"] == []
    return {name: table.filter(regex="^(?!committed_at$|(.*_)?seconds$)") for name, table in results.frames.items()}


def assert_same_rows(store: Store, expected: Store, plan: Plan) -> None:
    """Of all columns but those of the clock."""
    found, wanted = tables(store, plan), tables(expected, plan)
    assert not wanted["rows"].empty
    for name, table in wanted.items():
        pd.testing.assert_frame_equal(found[name], table, check_exact=True, obj=name)

"""All means, for whoever computes on."""

from __future__ import annotations

from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.statistics import summarize


def _tables(results: Results) -> dict[str, Table]:
    return {"summary": Table(summarize(results.rows))}


EXHIBIT = Exhibit(name="summary", title="All means", tables=_tables, everywhere=True, on_page=False)

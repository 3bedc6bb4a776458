"""Figure 6: pruning right after Specialization, a figure per batch size."""

from __future__ import annotations

from s3ray.results.chart import Chart
from s3ray.results.collect import Results
from s3ray.results.curves import NOTE, by_batch_size
from s3ray.results.exhibit import Exhibit


def _figures(results: Results) -> dict[str, Chart]:
    rows = results.rows[(results.rows["method"] == "s3") & (results.rows["branch"] == "none")]
    return by_batch_size(results, rows, "figure6", "Pruning without Selection")


EXHIBIT = Exhibit(name="figure6", title="Figure 6: pruning without Selection", note=NOTE, figures=_figures)

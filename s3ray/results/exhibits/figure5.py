"""Figure 5: pruning curves, a figure per batch size."""

from __future__ import annotations

from s3ray.results.chart import Chart
from s3ray.results.collect import Results
from s3ray.results.curves import DIFFERENCES, NOTE, by_batch_size, difference_grid
from s3ray.results.exhibit import Exhibit


def _figures(results: Results) -> dict[str, Chart]:
    rows = results.rows[(results.rows["method"] == "s3") & results.rows["branch"].isin(["none", "suff+min"])]
    differences = {
        f"figure5_differences_batch_{batch_size}": difference_grid(
            own, columns="dataset", title=f"Pruning curves, batch size {batch_size}"
        )
        for batch_size, own in rows.groupby("batch_size")
    }
    return {**by_batch_size(results, rows, "figure5", "Pruning curves"), **differences}


EXHIBIT = Exhibit(
    name="figure5",
    title="Figure 5: pruning curves",
    note=f"{NOTE} Grey: the same model pruned without Selection. {DIFFERENCES}",
    figures=_figures,
)

"""Figure 3: pruning curves over batch sizes, a figure per dataset."""

from __future__ import annotations

from s3ray.results.chart import Chart
from s3ray.results.collect import Results
from s3ray.results.curves import DIFFERENCES, NOTE, curve_grid, difference_grid
from s3ray.results.exhibit import Exhibit


def _figures(results: Results) -> dict[str, Chart]:
    rows = results.rows[(results.rows["method"] == "s3") & results.rows["branch"].isin(["none", "suff+min"])]
    charts = {}
    for dataset, own in rows.groupby("dataset", sort=False):
        title = f"{dataset} ({own['kind'].iloc[0]} data, {own['scale'].iloc[0]} scale)"
        charts[f"figure3_{dataset}"] = curve_grid(own, results, columns="batch_size", title=title)
        charts[f"figure3_differences_{dataset}"] = difference_grid(own, columns="batch_size", title=title)
    return charts


EXHIBIT = Exhibit(
    name="figure3",
    title="Figure 3: pruning curves over batch sizes",
    note=f"{NOTE} Grey: the same model pruned without Selection. {DIFFERENCES}",
    figures=_figures,
)

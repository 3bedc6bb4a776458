"""Table 3: Selection losses, and their pruning curves, which are beyond the paper."""

from __future__ import annotations

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Chart
from s3ray.results.collect import Results
from s3ray.results.curves import by_batch_size
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import accuracies_over_seeds
from s3ray.results.published import GRANULARITY, printed_beside


def _rows(results: Results) -> pd.DataFrame:
    rows = results.rows
    return rows[(rows["method"] == "s3") & (rows["granularity"] == GRANULARITY)]


def _tables(results: Results) -> dict[str, Table]:
    return {"table3": Table(table3(_rows(results)))}


def _figures(results: Results) -> dict[str, Chart]:
    return by_batch_size(results, _rows(results), "table3", "Pruning curves per Selection loss")


def table3(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per (batch size, Selection loss): test accuracy in percent at χ = 8 and p = 1, a column per dataset."""
    chosen = rows[(rows["split"] == "test") & (rows["granularity"] == GRANULARITY) & rows["accuracy"].notna()]
    chosen = chosen[chosen["preservation_ratio"] == 1.0]
    printed = printed_beside(3, "selection_loss", rows)
    table = []
    for batch_size, here in chosen.groupby("batch_size"):
        for branch in labels.branches():
            line = {"batch size": str(batch_size), "Selection loss": branch}
            for (dataset, kind), own in here[here["branch"] == branch].groupby(["dataset", "kind"], sort=False):
                line[f"{dataset} ({kind} data)"] = accuracies_over_seeds(own["accuracy"])
            if len(line) > 2:
                table.append(line | printed.get(branch, {}))
    return pd.DataFrame(table).fillna("")


EXHIBIT = Exhibit(
    name="table3",
    title="Table 3: Selection losses, accuracy (%)",
    note="Test accuracy, mean over seeds (sample standard deviation), χ = 8; the table at p = 1. Selection uses "
    "labels; 'none' is Specialization. Stars: p*, chosen on validation.",
    tables=_tables,
    figures=_figures,
)

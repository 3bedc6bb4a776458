"""Write a sweep's results next to its artifacts."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import pandas as pd

from s3ray.results.collect import collect, references
from s3ray.results.figures import curve_grid, render
from s3ray.results.statistics import best_ratios, summarize
from s3ray.results.tables import markdown, reference_table, table1
from s3ray.store import Store
from s3ray.sweep import Plan


def write_results(plan: Plan, store: Store) -> list[str]:
    """Collect a plan's rows and write tables and figures to `results/<sweep>/`; returns what was written."""
    rows = collect(plan, store)
    if rows.empty:
        return []
    written: list[str] = []

    def write(name: str, content: bytes | str) -> None:
        store.write(content, "results", plan.sweep.name, name)
        written.append(name)

    summary, best, floor = summarize(rows), best_ratios(rows), references(plan, store)
    table = table1(summary, best)
    _write_figures(rows, best, floor, write)
    text = _heading(plan) + markdown(table)
    if not floor.empty:
        text += "\n## References\n\n" + markdown(reference_table(floor))
        write("references.csv", floor.to_csv(index=False))
    write("table1.md", text)
    write("table1.csv", table.to_csv(index=False))
    write("summary.csv", summary.to_csv(index=False))
    write("best_ratios.csv", best.to_csv(index=False))
    write("rows.parquet", rows.to_parquet(index=False))
    return written


def _heading(plan: Plan) -> str:
    datasets = ", ".join(
        f"{name}: {e.facts.kind} data, {' + '.join(e.facts.features)}"
        + (f", {e.facts.label_rule}" if e.facts.label_rule else "")
        + (f" (best achievable {100 * e.facts.best_accuracy:.1f})" if e.facts.best_accuracy else "")
        for name, e in plan.study.entries.items()
    )
    return (
        f"# {plan.sweep.title}: test accuracy (%)\n\n"
        f"{datasets}. Mean over seeds (sample standard deviation). p* is chosen on validation among the ratios "
        f"below 1; the oracle is chosen on test and stands here for comparison only. Selection uses labels.\n\n"
    )


def _write_figures(
    rows: pd.DataFrame, best: pd.DataFrame, floor: pd.DataFrame, write: Callable[[str, bytes], None]
) -> None:
    figures = {}
    datasets = list(rows["dataset"].unique())
    for dataset in datasets:  # the layout of Figure 3
        own, own_best = rows[rows["dataset"] == dataset], best[best["dataset"] == dataset]
        figures[f"pruning_curves_{dataset}"] = curve_grid(
            own,
            own_best,
            floor,
            columns="batch_size",
            column_values=sorted(own["batch_size"].unique()),
            title=f"{dataset} ({own['kind'].iloc[0]} data, {own['scale'].iloc[0]} scale)",
        )
    for batch_size in sorted(rows["batch_size"].unique()):  # the layout of Figure 5
        own, own_best = rows[rows["batch_size"] == batch_size], best[best["batch_size"] == batch_size]
        figures[f"pruning_curves_batch_{batch_size}"] = curve_grid(
            own,
            own_best,
            floor,
            columns="dataset",
            column_values=[d for d in datasets if d in set(own["dataset"])],
            title=f"Pruning curves, batch size {batch_size}",
        )
    for name, figure in figures.items():
        for suffix in ("png", "pdf"):
            write(f"{name}.{suffix}", render(figure, suffix))
        plt.close(figure)

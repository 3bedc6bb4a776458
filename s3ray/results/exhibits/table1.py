"""Table 1: accuracy through the three stages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import gain, shown, summarized
from s3ray.results.metrics import by_metric, metric_table
from s3ray.results.published import published_table
from s3ray.results.statistics import best_ratios, summarize
from s3ray.stages.metrics import METRICS, Metric

_PINNED = ("batch size", "χ", "Selection loss", "p*", "test at p*", "gain over p 1 [95 %]")


def _title(metric: str) -> str:
    return f"Table 1: {METRICS[metric].title}{METRICS[metric].unit} through the three stages"


def _note(metric: str) -> str:
    return (
        f"Test {METRICS[metric].title}, mean over seeds (sample standard deviation). p 0: no expert is computed at "
        "all. p* is chosen on validation among the ratios below 1; the oracle is chosen on test and stands here for "
        "comparison only. Selection uses labels."
    )


def _tables(results: Results) -> dict[str, Table]:
    s3 = results.rows[results.rows["method"] == "s3"]
    tables = {}
    for metric in results.metrics:
        rows = by_metric(s3, metric)
        frame = table1(summarize(rows), best_ratios(rows), _no_expert(by_metric(results.controls, metric)), metric)
        name = "table1" if metric == "accuracy" else f"table1_{metric}"
        table = metric_table(metric, frame, s3, _title(metric), _note(metric))
        tables[name] = replace(table, pinned=_PINNED)
    return tables


def _no_expert(controls: pd.DataFrame) -> pd.DataFrame:
    if controls.empty:
        return controls
    return summarize(controls[(controls["control"] == "no expert") & controls["accuracy"].notna()])


def table1(
    summary: pd.DataFrame, best: pd.DataFrame, no_expert: pd.DataFrame, metric: str = "accuracy"
) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, Selection branch): test accuracy in percent, `mean (std)`.

    Columns: Specialization; Selection; a column per ratio below 1; p 0, where no expert is computed; then p* with its
    test accuracy, the gain over p = 1 with its 95 % interval, the oracle and n. What was not measured is blank, and so
    is what p* takes where validation or p = 1 is missing. Of another metric all values are as `by_metric` has them, and
    the paper has no lines.
    """
    unit = METRICS[metric]
    keys = ["dataset", "kind", "scale", "batch_size", "granularity"]
    test = summary[(summary["split"] == "test") & summary["mean"].notna()]
    choices = {tuple(choice[[*keys, "branch"]]): choice for _, choice in best.iterrows()}
    floors = {tuple(floor[[*keys, "branch"]]): floor for _, floor in no_expert.iterrows() if floor["split"] == "test"}
    lines: list[dict[str, Any]] = []
    for cell, means in test.groupby(keys, sort=False):
        dataset, kind, _, batch_size, granularity = cell
        curves = {str(name): own.set_index("preservation_ratio") for name, own in means.groupby("branch", sort=False)}
        for branch, selected in curves.items():
            if branch == "none":
                continue
            line = {
                "dataset": f"{dataset} ({kind} data)",
                "batch size": batch_size,
                "χ": granularity,
                "Selection loss": branch,
                "Specialization": _at(curves.get("none"), 1.0, unit),
                "Selection": _at(selected, 1.0, unit),
            }
            line |= {f"p {p:g}": _over_seeds(selected.loc[p], unit) for p in selected.index if p < 1.0}
            if (*cell, branch) in floors:
                line["p 0"] = _over_seeds(floors[*cell, branch], unit)
            choice = choices.get((*cell, branch))
            if choice is not None:
                line |= {
                    "p*": f"{choice['p_star']:g}",
                    "test at p*": shown(choice["test"], unit),
                    "gain over p 1 [95 %]": gain(choice["gain"], choice["gain_half_width"], unit),
                    "oracle p": f"{choice['oracle_p']:g}",
                    "oracle test": shown(choice["oracle_test"], unit),
                }
            lines.append(line | {"n": selected["n"].max()})
            if kind == "multibench" and branch == "suff+min" and metric == "accuracy":
                lines.append(_printed_line(str(dataset), granularity))
    if not lines:
        return pd.DataFrame()
    ratios = {name for line in lines for name in line if name.startswith("p 0")}
    columns = ["dataset", "batch size", "χ", "Selection loss", "Specialization", "Selection"]
    columns += sorted(ratios, key=lambda name: -float(name.removeprefix("p ")))
    columns += ["p*", "test at p*", "gain over p 1 [95 %]", "oracle p", "oracle test", "n"]
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("")


def _at(curve: pd.DataFrame | None, ratio: float, metric: Metric) -> str:
    return _over_seeds(curve.loc[ratio], metric) if curve is not None and ratio in curve.index else ""


def _over_seeds(row: Any, metric: Metric) -> str:
    return summarized(row["mean"], row["std"], metric)


def _printed_line(dataset: str, granularity: Any) -> dict[str, Any]:
    """The paper's line of Table 1 for the same dataset and χ."""
    line = {"dataset": f"{dataset} (paper)", "batch size": "", "χ": granularity}
    printed = published_table(1)
    own = (printed["dataset"] == dataset) & (printed["granularity"] == str(granularity))
    for _, cell in printed[own].iterrows():
        name = cell["stage"].capitalize() if cell["preservation_ratio"] == "1.0" else f"p {cell['preservation_ratio']}"
        line[name] = f"{cell['accuracy_mean']} ({cell['accuracy_std']})"
    return line


EXHIBIT = Exhibit(
    name="table1",
    title=_title("accuracy"),
    note=_note("accuracy"),
    tables=_tables,
)

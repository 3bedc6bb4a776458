"""Tables by another metric than accuracy, and why one of them may be blank.

The rules, written before results

- In a table of another metric that metric takes accuracy's place throughout: p* is the ratio below 1 that is best in it
  on *validation*, the oracle the one that is best in it on test, gains are paired differences in it. So each table
  chooses by what it shows. Every other table and figure, and every verdict, stays by accuracy.
- Whoever looks at many metrics and quotes the best has chosen on test; name the metric before the run (`--metric`).
- Less is better of MAE. It stands here negated, so that higher is better of every metric, and is shown as it is; its
  gain is what it falls by.
- Intervals take a value to be known no better than to 1 / samples, as an accuracy is (`statistics.py`): one sample of
  N moves any of these by about that.
"""

from __future__ import annotations

import math

import pandas as pd

from s3ray.results.exhibit import Table
from s3ray.stages.metrics import METRICS


def by_metric(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows with a metric in accuracy's place, higher being better; missing where rows lack it."""
    if rows.empty or name == "accuracy":
        return rows
    values = pd.to_numeric(rows[name]) if name in rows else pd.Series(math.nan, rows.index)
    return rows.assign(accuracy=math.copysign(1.0, METRICS[name].factor) * values)


def metric_table(name: str, frame: pd.DataFrame, rows: pd.DataFrame, title: str, note: str) -> Table:
    """A table of a metric, with what its reader must know; what is missing, it says why.

    Args:
        rows: of which the table was made; where all lack the metric, the reasons stand in the table's place.
    """
    metric, blanks = METRICS[name], blank_because(rows, name)
    if name != "accuracy":
        better = "; less is better, and a gain is what it falls by" if metric.factor < 0 else ""
        note += f" In accuracy's place stands {metric.title} throughout: p* is chosen by it, too{better}."
    if blanks and name != "accuracy":
        note += f" Blank: {'; '.join(f'{dataset}: {reason}' for dataset, reason in blanks.items())}."
    if frame.empty and name != "accuracy":
        frame = pd.DataFrame(list(blanks.items()), columns=["dataset", f"no {metric.title}"])
    return Table(frame, title=title, note=note)


def blank_because(rows: pd.DataFrame, name: str) -> dict[str, str]:
    """Per dataset that lacks a metric in some of its rows, why."""
    if rows.empty:
        return {}
    why = {str(dataset): _why(own, name) for dataset, own in rows.groupby("dataset", sort=False)}
    return {dataset: reason for dataset, reason in why.items() if reason}


def _why(rows: pd.DataFrame, name: str) -> str:
    """Of one dataset's rows; empty if all have the metric."""

    def lacks(column: str) -> pd.Series[bool]:
        return rows[column].isna() if column in rows else pd.Series(True, rows.index)

    # In turn: rows that lack this column lack the metric for this reason; what is left, for the last one.
    reasons, last = {
        "probe": ({"balanced_accuracy": "computed before metrics were stored"}, "a class is not in the split"),
        "scores": ({"scores_fingerprint": "no sentiment scores at hand"}, "every sentiment is neutral"),
        "regression": (
            {"sentiment_identity": f"not measured; run the sweep with --metric {name} on data with sentiment scores"},
            "sentiments or predictions are constant, or of one sample",
        ),
    }[METRICS[name].source]
    blank, said = lacks(name), []
    for applies, reason in [*((lacks(column), reason) for column, reason in reasons.items()), (blank, last)]:
        if count := int((blank & applies).sum()):
            said.append(reason if count == len(rows) else f"{reason} ({count} of {len(rows)} rows)")
        blank = blank & ~applies
    return "; ".join(said)

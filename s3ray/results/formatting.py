"""Numbers in words, and tables as Markdown and LaTeX."""

from __future__ import annotations

import math
import re

import pandas as pd

from s3ray.results import labels
from s3ray.stages.metrics import METRICS, Metric
from s3ray.stages.reference import MAJORITY, MISSING

_ACCURACY = METRICS["accuracy"]


def percent(share: float) -> str:
    return shown(share, _ACCURACY)


def shown(value: float, metric: Metric) -> str:
    """A value of `by_metric` as people know it."""
    return mean_std(metric.factor * value, math.nan, metric.digits)


def gain(difference: float, half_width: float = math.nan, metric: Metric = _ACCURACY) -> str:
    """In the metric's unit, such as points, with its sign: + is better.

    One seed has no interval; one of shares that leads beyond ± 100 is cut off (`statistics`).
    """
    unit, digits = abs(metric.factor), metric.digits
    if pd.isna(difference):
        return ""
    interval = f" ± {unit * half_width:.{digits}f}" if pd.notna(half_width) else ""
    if metric.factor == 100 and abs(difference) + half_width > 1.0:
        ends = (max(difference - half_width, -1), min(difference + half_width, 1))
        interval = " [" + ", ".join(f"{unit * end:+.{digits}f}" for end in ends) + "]"
    return f"{unit * difference:+.{digits}f}{interval}"


def mean_std(mean: float, std: float, digits: int = 2) -> str:
    """`mean (std)` as the paper prints it; one seed has no deviation, none no mean."""
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" + (f" ({std:.{digits}f})" if pd.notna(std) else "")


def over_seeds(n: int) -> str:
    """What a mean is of; one seed has no deviation."""
    return f"mean ± std, n = {n}" if n > 1 else f"n = {n}"


def accuracies_over_seeds(accuracies: pd.Series[float], metric: Metric = _ACCURACY) -> str:
    """`mean (std)` in percent, or in the metric's unit of values of `by_metric`."""
    return summarized(accuracies.mean(), accuracies.std(ddof=1), metric)


def summarized(mean: float, std: float, metric: Metric = _ACCURACY) -> str:
    """`mean (std)` likewise."""
    return mean_std(metric.factor * mean, abs(metric.factor) * std, metric.digits)


def references_on_test(references: pd.DataFrame, dataset: str) -> dict[str, float]:
    """A dataset's test accuracies by `labels.references`; none if none were measured.

    Of the references on raw features the one that is best on validation stands for all.
    """
    own = references[references["dataset"] == dataset] if len(references) else references
    if own.empty:
        return {}
    on_test = own[own["split"] == "test"].set_index("reference")["accuracy"].dropna()
    named = {MAJORITY: MAJORITY, labels.BEST_RAW: best_raw(own) or ""}
    return {name: float(on_test[reference]) for name, reference in named.items() if reference in on_test.index}


def best_raw(references: pd.DataFrame) -> str | None:
    """Of a dataset's references the one on raw features that is best on validation, of equals the first; if any."""
    valid = references[(references["split"] == "valid") & ~references["reference"].isin([MAJORITY, MISSING])]
    accuracies = valid.set_index("reference")["accuracy"].dropna()
    return str(accuracies.idxmax()) if len(accuracies) else None


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell as text; what is missing is blank."""
    # Not astype(str) alone, which keeps NaN from pandas 3 on.
    return table.astype(object).where(table.notna(), "").astype(str)


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table."""
    header = [_cell(str(name)) for name in table.columns]
    rows = [[_cell(cell) for cell in row] for row in readable(table).to_numpy().tolist()]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def without_tags(text: str) -> str:
    """Text in Markdown, where what looks like a tag of HTML would be one."""
    return re.sub("<(?=[A-Za-z/!?])", "&lt;", text)


def _cell(text: str) -> str:
    return " ".join(without_tags(text).replace("|", r"\|").splitlines())


def latex(table: pd.DataFrame) -> str:
    """A tabular environment of booktabs."""
    return table.to_latex(index=False, escape=True, na_rep="")

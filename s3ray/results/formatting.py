"""Numbers in words, and tables as Markdown and LaTeX."""

from __future__ import annotations

import math

import pandas as pd

from s3ray.results import labels
from s3ray.stages.reference import MAJORITY


def percent(share: float) -> str:
    return "" if pd.isna(share) else f"{100 * share:.2f}"


def gain(share: float, half_width: float = math.nan) -> str:
    """In points, with its sign; one seed has no interval, and one that leads beyond ± 100 is cut off (`statistics`)."""
    interval = f" ± {percent(half_width)}" if pd.notna(half_width) else ""
    if abs(share) + half_width > 1.0:
        interval = f" [{100 * max(share - half_width, -1):+.2f}, {100 * min(share + half_width, 1):+.2f}]"
    return "" if pd.isna(share) else f"{100 * share:+.2f}" + interval


def mean_std(mean: float, std: float, digits: int = 2) -> str:
    """`mean (std)` as the paper prints it; one seed has no deviation, none no mean."""
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" + (f" ({std:.{digits}f})" if pd.notna(std) else "")


def over_seeds(n: int) -> str:
    """What a mean is of; one seed has no deviation."""
    return f"mean ± std, n = {n}" if n > 1 else f"n = {n}"


def accuracies_over_seeds(accuracies: pd.Series[float]) -> str:
    """`mean (std)` in percent."""
    return mean_std(100 * accuracies.mean(), 100 * accuracies.std(ddof=1))


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
    valid = references[(references["split"] == "valid") & (references["reference"] != MAJORITY)]
    accuracies = valid.set_index("reference")["accuracy"].dropna()
    return str(accuracies.idxmax()) if len(accuracies) else None


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Every cell as text; what is missing is blank."""
    # Not astype(str) alone, which keeps NaN from pandas 3 on.
    return table.astype(object).where(table.notna(), "").astype(str)


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table."""
    header = [str(name) for name in table.columns]
    lines = [header, ["---"] * len(header), *readable(table).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def latex(table: pd.DataFrame) -> str:
    """A tabular environment of booktabs."""
    return table.to_latex(index=False, escape=True, na_rep="")

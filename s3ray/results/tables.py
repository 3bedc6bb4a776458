"""Tables in the layout of the paper's Table 1."""

from __future__ import annotations

from typing import Any

import pandas as pd

REFERENCES = {
    "majority class": "most frequent training class",
    "raw features": "logistic regression on mean-pooled raw features",
}


def table1(summary: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, Selection branch): test accuracy in percent, `mean (std)`.

    Columns: Specialization; Selection; a column per ratio below 1; then p* with its test accuracy, the gain over
    p = 1 with its 95 % interval, the oracle and n.
    """
    test = summary[summary["split"] == "test"]
    lines = []
    for _, choice in best[best["branch"] != "none"].iterrows():
        keys = ["dataset", "kind", "scale", "batch_size", "granularity"]
        cell = test[(test[keys] == choice[keys]).all(axis=1)]
        unselected = cell[cell["branch"] == "none"].set_index("preservation_ratio")
        selected = cell[cell["branch"] == choice["branch"]].set_index("preservation_ratio")
        line = {
            "dataset": f"{choice['dataset']} ({choice['kind']} data)",
            "batch size": choice["batch_size"],
            "χ": choice["granularity"],
            "Selection loss": choice["branch"],
            "Specialization": _accuracy(unselected.loc[1.0]) if 1.0 in unselected.index else "",
            "Selection": _accuracy(selected.loc[1.0]),
        }
        for ratio in sorted((p for p in selected.index if p < 1.0), reverse=True):
            line[f"p {ratio:g}"] = _accuracy(selected.loc[ratio])
        line |= {
            "p*": f"{choice['p_star']:g}",
            "test at p*": f"{100 * choice['test']:.2f}",
            "gain over p 1 [95 %]": f"{100 * choice['gain']:+.2f}" + _interval(choice["gain_half_width"]),
            "oracle p": f"{choice['oracle_p']:g}",
            "oracle test": f"{100 * choice['oracle_test']:.2f}",
            "n": choice["n"],
        }
        lines.append(line)
    return pd.DataFrame(lines)


def reference_table(references: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, reference): accuracy in percent on validation and test."""
    lines = []
    for (dataset, kind, reference), rows in references.groupby(["dataset", "kind", "reference"], sort=False):
        accuracy = rows.set_index("split")["accuracy"]
        lines.append(
            {
                "dataset": f"{dataset} ({kind} data)",
                "reference": REFERENCES[str(reference)],
                "validation": f"{100 * accuracy['valid']:.2f}",
                "test": f"{100 * accuracy['test']:.2f}",
            }
        )
    return pd.DataFrame(lines)


def markdown(table: pd.DataFrame) -> str:
    """A GitHub table."""
    header = [str(name) for name in table.columns]
    lines = [header, ["---"] * len(header), *table.astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _interval(half_width: float) -> str:
    return f" ± {100 * half_width:.2f}" if pd.notna(half_width) else ""


def _accuracy(row: Any) -> str:
    deviation = f" ({100 * row['std']:.2f})" if pd.notna(row["std"]) else ""
    return f"{100 * row['mean']:.2f}{deviation}"

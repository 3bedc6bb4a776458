"""Tables in the layout of the paper's Tables 1 to 3, and those of verdicts and references."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from s3ray.results.published import published_table

REFERENCES = {
    "majority class": "most frequent training class",
    "raw features": "logistic regression on mean-pooled raw features",
}


def table1(summary: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, Selection branch): test accuracy in percent, `mean (std)`.

    Columns: Specialization; Selection; a column per ratio below 1; then p* with its test accuracy, the gain over
    p = 1 with its 95 % interval, the oracle and n. What was not measured is blank, and so is what p* takes where
    validation or p = 1 is missing.
    """
    keys = ["dataset", "kind", "scale", "batch_size", "granularity"]
    test = summary[(summary["split"] == "test") & summary["mean"].notna()]
    choices = {tuple(choice[[*keys, "branch"]]): choice for _, choice in best.iterrows()}
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
                "Specialization": _at(curves.get("none"), 1.0),
                "Selection": _at(selected, 1.0),
            }
            line |= {f"p {p:g}": _accuracy(selected.loc[p]) for p in selected.index if p < 1.0}
            choice = choices.get((*cell, branch))
            if choice is not None:
                line |= {
                    "p*": f"{choice['p_star']:g}",
                    "test at p*": percent(choice["test"]),
                    "gain over p 1 [95 %]": _gain(choice["gain"], choice["gain_half_width"]),
                    "oracle p": f"{choice['oracle_p']:g}",
                    "oracle test": percent(choice["oracle_test"]),
                }
            lines.append(line | {"n": selected["n"].max()})
            if kind == "multibench" and branch == "suff+min":
                lines.append(_printed_line(str(dataset), granularity))
    if not lines:
        return pd.DataFrame()
    ratios = {name for line in lines for name in line if name.startswith("p 0")}
    columns = ["dataset", "batch size", "χ", "Selection loss", "Specialization", "Selection"]
    columns += sorted(ratios, key=lambda name: -float(name.removeprefix("p ")))
    columns += ["p*", "test at p*", "gain over p 1 [95 %]", "oracle p", "oracle test", "n"]
    return pd.DataFrame(lines, columns=columns, dtype=object).fillna("")


def _at(curve: pd.DataFrame | None, ratio: float) -> str:
    return _accuracy(curve.loc[ratio]) if curve is not None and ratio in curve.index else ""


def _printed_line(dataset: str, granularity: Any) -> dict[str, Any]:
    """The paper's line of Table 1 for the same dataset and χ."""
    line = {"dataset": f"{dataset} (paper)", "batch size": "", "χ": granularity}
    printed = published_table(1)
    own = (printed["dataset"] == dataset) & (printed["granularity"] == str(granularity))
    for _, cell in printed[own].iterrows():
        name = cell["stage"].capitalize() if cell["preservation_ratio"] == "1.0" else f"p {cell['preservation_ratio']}"
        line[name] = f"{cell['accuracy_mean']} ({cell['accuracy_std']})"
    return line


METHODS = {
    ("clip", "none"): "CLIP",
    ("factorcl", "emb"): "FactorCL-emb",
    ("factorcl", "proj"): "FactorCL-proj",
    ("focal", "none"): "FOCAL",
    ("jointopt", "none"): "JointOpt",
    ("disentangledssl", "none"): "DisentangledSSL",
    ("supcon", "none"): "SupCon, end to end",
    ("cross_entropy", "none"): "Cross-entropy, end to end",
}
_WITH_LABELS = {"SupCon, end to end", "Cross-entropy, end to end"}
GRANULARITY = 8  # of Tables 2 and 3


def table2(rows: pd.DataFrame, best: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """A line per (batch size, method): test accuracy in percent, `mean (std)`, a column per dataset.

    Prior methods, then S3's stages at χ = 8 (Sparsification at p*, and at the oracle's p, which is what the
    paper prints), then the references. Beside real data stand the paper's own numbers.
    """
    test = rows[(rows["split"] == "test") & rows["accuracy"].notna()]
    s3 = test[(test["method"] == "s3") & (test["granularity"] == GRANULARITY)]
    choices = best[(best["branch"] == "suff+min") & (best["granularity"] == GRANULARITY)]
    lines: dict[tuple[int, str], dict[str, str]] = {}

    def put(name: str, accuracies: pd.Series[float]) -> None:
        if len(accuracies):
            lines.setdefault((batch_size, name), {})[column] = _mean_std(accuracies)

    for dataset, kind, batch_size in rows[["dataset", "kind", "batch_size"]].drop_duplicates().itertuples(index=False):
        column = f"{dataset} ({kind} data)"
        here = test[(test["dataset"] == dataset) & (test["batch_size"] == batch_size)]
        own = s3[(s3["dataset"] == dataset) & (s3["batch_size"] == batch_size)]
        for (method, branch), name in METHODS.items():
            put(name, here.loc[(here["method"] == method) & (here["branch"] == branch), "accuracy"])
        full = own[own["preservation_ratio"] == 1.0]
        put("Specialization", full.loc[full["branch"] == "none", "accuracy"])
        selected = own[own["branch"] == "suff+min"]
        put("+ Selection", full.loc[full["branch"] == "suff+min", "accuracy"])
        chosen = choices[(choices["dataset"] == dataset) & (choices["batch_size"] == batch_size)]
        for _, choice in chosen.iterrows():
            for label, ratio in (
                ("p* on validation", choice["p_star"]),
                ("oracle: best p on test", choice["oracle_p"]),
            ):
                accuracies = selected.loc[selected["preservation_ratio"] == ratio, "accuracy"]
                put(f"+ Sparsification ({label})", accuracies)
        for name, accuracy in references_on_test(references, dataset).items():
            lines.setdefault((batch_size, REFERENCES[name]), {})[column] = percent(accuracy)
    order = [*METHODS.values(), "Specialization", "+ Selection"]
    order += ["+ Sparsification (p* on validation)", "+ Sparsification (oracle: best p on test)", *REFERENCES.values()]
    printed = _published(2, "method", rows)
    table = []
    for batch_size, name in sorted(lines, key=lambda key: (key[0], order.index(key[1]))):
        labels = name in _WITH_LABELS or name.startswith("+")
        line = {"batch size": str(batch_size), "method": name, "labels in training": "yes" if labels else "no"}
        paper = printed.get("+ Sparsification" if "oracle" in name else name, {})
        table.append(line | lines[batch_size, name] | paper)
    return pd.DataFrame(table).fillna("")


def table3(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per (batch size, Selection loss): test accuracy in percent at χ = 8 and p = 1, a column per dataset."""
    chosen = rows[(rows["split"] == "test") & (rows["granularity"] == GRANULARITY) & rows["accuracy"].notna()]
    chosen = chosen[chosen["preservation_ratio"] == 1.0]
    printed = _published(3, "selection_loss", rows)
    table = []
    for batch_size, here in chosen.groupby("batch_size"):
        for branch in ("none", "suff+min", "suff", "min"):
            line = {"batch size": str(batch_size), "Selection loss": branch}
            for (dataset, kind), own in here[here["branch"] == branch].groupby(["dataset", "kind"], sort=False):
                line[f"{dataset} ({kind} data)"] = _mean_std(own["accuracy"])
            if len(line) > 2:
                table.append(line | printed.get(branch, {}))
    return pd.DataFrame(table).fillna("")


def _published(number: int, key: str, rows: pd.DataFrame) -> dict[str, dict[str, str]]:
    """The paper's cells per line and column, for those datasets that are the paper's own."""
    real = set(rows.loc[rows["kind"] == "multibench", "dataset"])
    cells: dict[str, dict[str, str]] = {}
    for _, cell in published_table(number).iterrows():
        if cell["dataset"] in real:
            printed = f"{cell['accuracy_mean']} ({cell['accuracy_std']})"
            cells.setdefault(cell[key], {})[f"{cell['dataset']} (paper)"] = printed
    return cells


def _mean_std(accuracies: pd.Series[float]) -> str:
    return _accuracy({"mean": accuracies.mean(), "std": accuracies.std(ddof=1)})


def verdict_table(verdicts: pd.DataFrame) -> pd.DataFrame:
    """A line per curve: p*, its gains on test in points with their p-values, the ends, the steps, and the verdict."""
    lines = []
    for _, curve in verdicts.iterrows():
        more = curve["more_seeds"]
        seeds = "more than 100" if math.isinf(more) else f"{more:.0f}"
        lines.append(
            {
                "dataset": f"{curve['dataset']} ({curve['kind']} data)",
                "χ": curve["granularity"],
                "batch size": curve["batch_size"],
                "Selection loss": curve["branch"],
                "n": curve["n"],
                "p*": f"{curve['p_star']:g}",
                "gain over p 1": _tested(curve["gain_full"], curve["p_full"]),
                "over the smallest p": _tested(curve["gain_smallest"], curve["p_smallest"]),
                "smallest p over p 1": _tested(curve["ends"], curve["p_ends"]),
                "largest rise": percent(curve["rise"]),
                "largest fall": percent(curve["fall"]),
                "verdict": curve["verdict"],
                "more seeds needed": f"{seeds} for {curve['claim']}" if curve["claim"] else "",
                "oracle p": f"{curve['oracle_p']:g}",
            }
        )
    return pd.DataFrame(lines)


def _tested(gain: float, p_value: float) -> str:
    return _gain(gain) + (f" (p {p_value:.2g})" if pd.notna(gain) and pd.notna(p_value) else "")


def references_on_test(references: pd.DataFrame, dataset: str) -> dict[str, float]:
    """A dataset's test accuracies by reference; none if none were measured."""
    if references.empty:
        return {}
    own = references[(references["dataset"] == dataset) & (references["split"] == "test")]
    return {str(name): float(accuracy) for name, accuracy in own.set_index("reference")["accuracy"].dropna().items()}


def reference_table(references: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, reference): accuracy in percent on validation and test."""
    lines = []
    for (dataset, kind, reference), rows in references.groupby(["dataset", "kind", "reference"], sort=False):
        accuracy = rows.set_index("split")["accuracy"]
        lines.append(
            {
                "dataset": f"{dataset} ({kind} data)",
                "reference": REFERENCES[str(reference)],
                "validation": percent(accuracy.get("valid", math.nan)),
                "test": percent(accuracy.get("test", math.nan)),
            }
        )
    return pd.DataFrame(lines)


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


def percent(share: float) -> str:
    return "" if pd.isna(share) else f"{100 * share:.2f}"


def _gain(share: float, half_width: float = math.nan) -> str:
    """In points, with its sign; one seed has no interval."""
    interval = f" ± {percent(half_width)}" if pd.notna(half_width) else ""
    return "" if pd.isna(share) else f"{100 * share:+.2f}" + interval


def _accuracy(row: Any) -> str:
    return mean_std(100 * row["mean"], 100 * row["std"])


def mean_std(mean: float, std: float, digits: int = 2) -> str:
    """`mean (std)` as the paper prints it; one seed has no deviation, none no mean."""
    if pd.isna(mean):
        return ""
    return f"{mean:.{digits}f}" + (f" ({std:.{digits}f})" if pd.notna(std) else "")

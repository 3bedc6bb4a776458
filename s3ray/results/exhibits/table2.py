"""Table 2: S3 beside prior methods."""

from __future__ import annotations

import pandas as pd

from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import accuracies_over_seeds, references_on_test, shown
from s3ray.results.metrics import by_metric, metric_table
from s3ray.results.published import GRANULARITY, printed_beside
from s3ray.results.statistics import best_ratios
from s3ray.stages.metrics import METRICS

_CHOICES = ("p* on validation", "oracle: best p on test")


def _title(metric: str) -> str:
    return f"Table 2: S3 beside prior methods, {METRICS[metric].title}{METRICS[metric].unit}"


def _note(metric: str) -> str:
    return (
        f"Test {METRICS[metric].title}, mean over seeds (sample standard deviation). χ = 8. p* is chosen on validation "
        "among the ratios below 1; the oracle is chosen on test and stands here for comparison only. The paper's own "
        "Sparsification row is the oracle."
    )


def _tables(results: Results) -> dict[str, Table]:
    tables = {}
    for metric in results.metrics:
        rows, references = by_metric(results.rows, metric), by_metric(results.references, metric)
        frame = table2(rows, best_ratios(rows[rows["method"] == "s3"]), references, metric)
        note = f"{_note(metric)}{_calibrated(results)}"
        name = "table2" if metric == "accuracy" else f"table2_{metric}"
        tables[name] = metric_table(metric, frame, results.rows, _title(metric), note)
    return tables


def _calibrated(results: Results) -> str:
    """Of whose data settings were chosen by S3's accuracy: prior methods share them."""
    chosen = [name for name, facts in results.info.get("datasets", {}).items() if facts.get("calibrated")]
    said = " settings were chosen by the accuracy of S3; tuned against tuned is sweeps/table2_tuned.py."
    return f" Of {', '.join(chosen)}{said}" if chosen else ""


def table2(rows: pd.DataFrame, best: pd.DataFrame, references: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """A line per (batch size, method): test accuracy in percent, `mean (std)`, a column per dataset.

    Prior methods, then S3's stages at χ = 8 (Sparsification at p*, and at the oracle's p, which is what the
    paper prints), then the references. Beside real data stand the paper's own numbers. Of another metric all values are
    as `by_metric` has them, and the paper has none.
    """
    unit = METRICS[metric]
    test = rows[(rows["split"] == "test") & rows["accuracy"].notna()]
    s3 = test[(test["method"] == "s3") & (test["granularity"] == GRANULARITY)]
    choices = best[(best["branch"] == "suff+min") & (best["granularity"] == GRANULARITY)]
    lines: dict[tuple[int, str], dict[str, str]] = {}

    def put(name: str, accuracies: pd.Series[float]) -> None:
        if len(accuracies):
            lines.setdefault((batch_size, name), {})[column] = accuracies_over_seeds(accuracies, unit)

    for dataset, kind, batch_size in rows[["dataset", "kind", "batch_size"]].drop_duplicates().itertuples(index=False):
        column = f"{dataset} ({kind} data)"
        here = test[(test["dataset"] == dataset) & (test["batch_size"] == batch_size)]
        own = s3[(s3["dataset"] == dataset) & (s3["batch_size"] == batch_size)]
        for method, branch in labels.prior_methods():
            name = labels.title(method, branch)
            put(name, here.loc[(here["method"] == method) & (here["branch"] == branch), "accuracy"])
        full = own[own["preservation_ratio"] == 1.0]
        put("Specialization", full.loc[full["branch"] == "none", "accuracy"])
        selected = own[own["branch"] == "suff+min"]
        put("+ Selection", full.loc[full["branch"] == "suff+min", "accuracy"])
        chosen = choices[(choices["dataset"] == dataset) & (choices["batch_size"] == batch_size)]
        for _, choice in chosen.iterrows():
            for label, ratio in zip(_CHOICES, (choice["p_star"], choice["oracle_p"]), strict=True):
                accuracies = selected.loc[selected["preservation_ratio"] == ratio, "accuracy"]
                put(f"+ Sparsification ({label})", accuracies)
        for name, accuracy in references_on_test(references, dataset).items():
            lines.setdefault((batch_size, labels.reference_title(name)), {})[column] = shown(accuracy, unit)
    with_labels = {labels.title(*output): labels.uses_labels(*output) for output in labels.prior_methods()}
    with_labels |= {"Specialization": False, "+ Selection": True}
    with_labels |= {f"+ Sparsification ({label})": True for label in _CHOICES}
    with_labels |= {labels.reference_title(name): False for name in labels.references()}
    order = list(with_labels)
    printed = printed_beside(2, "method", rows) if metric == "accuracy" else {}
    table = []
    for batch_size, name in sorted(lines, key=lambda key: (key[0], order.index(key[1]))):
        said = "yes" if with_labels[name] else "no"
        line = {"batch size": str(batch_size), "method": name, "labels in training": said}
        paper = printed.get("+ Sparsification" if "oracle" in name else name, {})
        table.append(line | lines[batch_size, name] | paper)
    return pd.DataFrame(table).fillna("")


EXHIBIT = Exhibit(
    name="table2",
    title=_title("accuracy"),
    note=_note("accuracy"),
    tables=_tables,
)

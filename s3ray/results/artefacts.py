"""The paper's artefacts from a sweep's results: tables and figures in its layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from s3ray.results.collect import Results
from s3ray.results.figures import curve_grid, entropy_grid, render
from s3ray.results.kept import is_shown, kept_figure, kept_table
from s3ray.results.parameters import parameter_table
from s3ray.results.statistics import ALPHA, CONFIGURATION, best_ratios, summarize, verdicts
from s3ray.results.tables import latex, markdown, reference_table, table1, table2, table3, verdict_table
from s3ray.store import Store
from s3ray.sweep import Artefact, Plan

Tables = dict[str, pd.DataFrame]
Figures = dict[str, Figure]


def write_results(plan: Plan, store: Store) -> list[str]:
    """Collect a plan's rows and write tables and figures to `results/<sweep>/`; returns what was written.

    The folder holds the results of one study: those of an earlier call, over other data perhaps, give way.
    """
    results = Results.collect(plan, store)
    if results.rows.empty and plan.cells:
        return []
    files: dict[str, bytes | str] = {}
    for name, figure in figures(results).items():
        for suffix in ("png", "pdf"):
            files[f"{name}.{suffix}"] = render(figure, suffix)
        plt.close(figure)
    for name, table in tables(results).items():
        files[f"{name}.md"] = f"# {title(name)}\n\n{note(name, results)}\n\n{markdown(table)}"
        files[f"{name}.csv"] = table.to_csv(index=False)
        files[f"{name}.tex"] = latex(table)
    return results.save(store, files)


def tables(results: Results) -> Tables:
    """The tables of a sweep's artefacts, by file name."""
    made: Tables = {}
    for artefact in results.info["artefacts"]:
        if artefact in _TABLES and (artefact in _WITHOUT_ROWS or not results.rows.empty):
            made |= _TABLES[artefact](results)
    if not results.rows.empty:
        made["summary"] = summarize(results.rows)
        made["verdicts"] = verdict_table(verdicts(results.rows))
    if not results.references.empty:
        made["references"] = reference_table(results.references)
    return {name: table for name, table in made.items() if not table.empty}


def figures(results: Results) -> Figures:
    """The figures of a sweep's artefacts, by file name; the caller closes them."""
    made: Figures = {}
    for artefact in results.info["artefacts"]:
        if artefact in _FIGURES and not results.rows.empty:
            made |= _FIGURES[artefact](results)
    return made


_TITLES = {
    "table1": "Table 1: accuracy (%) through the three stages",
    "table2": "Table 2: S3 beside prior methods, accuracy (%)",
    "table3": "Table 3: Selection losses, accuracy (%)",
    "table4": "Table 4: router parameters",
    "table5": "Table 5: active parameters",
    "verdicts": "The reverse U, tested",
    "summary": "All means",
    "compare": "Each printed number beside ours",
    "references": "References",
    "what_is_kept": "What representations keep",
    "figure3": "Figure 3: pruning curves over batch sizes",
    "figure5": "Figure 5: pruning curves",
    "figure6": "Figure 6: pruning without Selection",
    "figures7_10": "Figures 7–10: router entropy during Selection",
}


def title(name: str) -> str:
    """A heading for the file `name`, which may go on after its artefact's name."""
    best = max((key for key in _TITLES if name.startswith(key)), key=len, default=None)
    rest = name.removeprefix(best or "").strip("_").replace("_", " ")
    return (_TITLES[best] if best else name) + (f", {rest}" if rest and best else "")


def note(name: str, results: Results) -> str:
    """What a reader must know of a table: the data, and how its numbers were made."""
    if name.startswith(("table4", "table5")):
        return _NOTES[name]
    datasets = "; ".join(_dataset_note(name, facts) for name, facts in results.info["datasets"].items())
    text = _NOTES.get(name, "")
    if name == "verdicts":
        text += f" {_by_chance(results.rows)}"
    return f"{text} Data: {datasets}.".strip()


def _by_chance(rows: pd.DataFrame) -> str:
    """What luck alone may do to so many curves, each of which is judged by itself."""
    curves = len(rows.loc[rows["preservation_ratio"] < 1.0, CONFIGURATION].drop_duplicates())
    return (
        f"Each curve is judged by itself, so of {curves} without any effect up to {ALPHA * curves:.1f} would be called "
        f"`peak inside` by chance, and up to {ALPHA * curves:.1f} `falling` or `rising`."
    )


_SEEDS = "Test accuracy, mean over seeds (sample standard deviation)."
_CHOICE = (
    "p* is chosen on validation among the ratios below 1; the oracle is chosen on test and stands here for "
    "comparison only."
)
_NOTES = {
    "table1": f"{_SEEDS} {_CHOICE} Selection uses labels.",
    "table2": f"{_SEEDS} χ = 8. {_CHOICE} The paper's own Sparsification row is the oracle.",
    "table3": f"{_SEEDS} χ = 8, p = 1. Selection uses labels; `none` is Specialization.",
    "table4": "Counted on instantiated models; the paper's table digit for digit.",
    "table5": "Percent of the active parameters at p = 1, as the paper counts them: the attention of all layers, the "
    "experts of one.",
    "table5_all_layers": "The honest count: the experts of every layer.",
    "what_is_kept": "Test values, means over a kind's factors and over seeds (sample standard deviation over seeds).",
    "compare": "Ours, the printed number and their difference in percent with its 90 % interval. Rules: "
    "s3ray/results/compare.py.",
    "references": "What needs no representation learning: the floor of every curve.",
    "verdicts": "Paired tests over seeds on test. `peak inside`: p*, chosen on validation, is above p = 1 and above "
    "the smallest p; `falling` and `rising`, towards the smallest p: the ends differ and no step against it is shown; "
    "`flat`: equal within the margin. Rises and falls are the mean curve's largest steps, in points. Rules: "
    "s3ray/results/statistics.py.",
}


def _dataset_note(name: str, facts: Mapping[str, object]) -> str:
    modalities = facts["modalities"]
    assert isinstance(modalities, list)
    text = f"{name} is {facts['kind']} data ({' + '.join(modalities)}, {facts['scale']} scale"
    if facts["label_rule"]:
        text += f", {facts['label_rule']}"
    if isinstance(facts["best_accuracy"], float):
        text += f", best achievable {100 * facts['best_accuracy']:.1f}"
    return text + ")"


def _s3(results: Results) -> pd.DataFrame:
    return results.rows[results.rows["method"] == "s3"]


def _table1(results: Results) -> Tables:
    rows = _s3(results)
    return {"table1": table1(summarize(rows), best_ratios(rows))}


def _table2(results: Results) -> Tables:
    return {"table2": table2(results.rows, best_ratios(_s3(results)), results.references)}


def _table3(results: Results) -> Tables:
    return {"table3": table3(_s3(results))}


def _parameters(results: Results) -> Tables:
    table4, table5 = (parameter_table(number, all_layers=True) for number in (4, 5))

    def by_ratio(column: str) -> pd.DataFrame:
        wide = table5.pivot_table(
            index=["dataset", "granularity"], columns="preservation_ratio", values=column, aggfunc="first", sort=False
        )
        return wide.rename(columns=lambda ratio: f"p {ratio}").reset_index().rename_axis(columns=None)

    return {
        "table4": table4.drop(columns="all_layers_percent"),  # which counts all layers anyway
        "table5": by_ratio("active_parameters_percent"),
        "table5_all_layers": by_ratio("all_layers_percent"),
    }


def _what_is_kept(results: Results) -> Tables:
    return {} if results.kept.empty else {"what_is_kept": kept_table(results.kept)}


_TABLES: Mapping[Artefact, Callable[[Results], Tables]] = {
    "table1": _table1,
    "table2": _table2,
    "table3": _table3,
    "tables4_5": _parameters,
    "what_is_kept": _what_is_kept,
}
_WITHOUT_ROWS = ("tables4_5", "what_is_kept")


def _figure3(results: Results) -> Figures:
    """Per dataset: χ × batch size."""
    rows = _s3(results)
    rows = rows[rows["branch"].isin(["none", "suff+min"])]
    best = best_ratios(rows)
    return {
        f"figure3_{dataset}": curve_grid(
            own,
            best[best["dataset"] == dataset],
            results.references,
            columns="batch_size",
            column_values=sorted(own["batch_size"].unique()),
            title=f"{dataset} ({own['kind'].iloc[0]} data, {own['scale'].iloc[0]} scale)",
        )
        for dataset, own in rows.groupby("dataset", sort=False)
    }


def _figure5(results: Results) -> Figures:
    rows = _s3(results)
    selected = rows[rows["branch"].isin(["none", "suff+min"])]
    return _by_batch_size(results, selected, "figure5", "Pruning curves, batch size {}")


def _figure6(results: Results) -> Figures:
    rows = _s3(results)
    unselected = rows[rows["branch"] == "none"]
    return _by_batch_size(results, unselected, "figure6", "Pruning without Selection, batch size {}")


def _by_batch_size(results: Results, rows: pd.DataFrame, name: str, heading: str) -> Figures:
    """Per batch size: χ × dataset."""
    best = best_ratios(rows)
    return {
        f"{name}_batch_{batch_size}": curve_grid(
            own,
            best[best["batch_size"] == batch_size],
            results.references,
            columns="dataset",
            column_values=list(own["dataset"].unique()),
            title=heading.format(batch_size),
        )
        for batch_size, own in rows.groupby("batch_size")
    }


def _figures7_10(results: Results) -> Figures:
    made: Figures = {}
    entropies = results.entropies
    if entropies.empty:
        return made
    for dataset, facts in results.info["datasets"].items():
        usual = (entropies["dataset"] == dataset) & (entropies["batch_size"] == facts["batch_size"])
        own = entropies[usual & (entropies["branch"] == "suff+min")]
        if not own.empty:
            heading = f"{dataset} ({facts['kind']} data), batch size {facts['batch_size']}: routers during Selection"
            made[f"figures7_10_{dataset}"] = entropy_grid(own, title=heading)
    return made


def _kept_figures(results: Results) -> Figures:
    if results.kept.empty:
        return {}
    return {
        f"what_is_kept_{dataset}_batch_{batch_size}": kept_figure(own)
        for (dataset, batch_size), own in results.kept.groupby(["dataset", "batch_size"], sort=False)
        if is_shown(own)
    }


_FIGURES: Mapping[Artefact, Callable[[Results], Figures]] = {
    "figure3": _figure3,
    "figure5": _figure5,
    "figure6": _figure6,
    "figures7_10": _figures7_10,
    "what_is_kept": _kept_figures,
}

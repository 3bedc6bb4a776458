"""Pruning curves in the layout of the paper's Figures 3 and 5, with the curve without Selection behind."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s3ray.results.tables import REFERENCES, references_on_test

SELECTED, UNSELECTED, REFERENCE = "#1f5fa8", "#9a9a9a", "#2e7d32"
BRANCH_LABELS = {
    "none": "without Selection",
    "suff+min": "after Selection",
    "suff": "after Selection (suff)",
    "min": "after Selection (min)",
}


def curve_grid(
    rows: pd.DataFrame,
    best: pd.DataFrame,
    references: pd.DataFrame,
    *,
    columns: str,
    column_values: Sequence[Any],
    title: str,
) -> Figure:
    """A panel per (χ, value of `columns`): test accuracy against p.

    Solid: mean over seeds, with one sample standard deviation as error bars. Dotted: single seeds. Dashed:
    quadratic trend of the mean. Star: p*, chosen on validation. Grey: the same model pruned without Selection.
    Green: the dataset's references, as lines where they lie near the curves and in words where they don't.
    """
    granularities = sorted(rows["granularity"].unique())
    figure, axes = plt.subplots(
        len(granularities),
        len(column_values),
        figsize=(3.6 * len(column_values) + 0.6, 2.5 * len(granularities) + 1.0),
        sharex=True,
        # Accuracies of different datasets have no common scale; those of one dataset do.
        sharey="col" if columns == "dataset" else True,
        squeeze=False,
        layout="constrained",
    )
    for row, granularity in enumerate(granularities):
        for column, value in enumerate(column_values):
            axis = axes[row, column]
            chosen = (rows["granularity"] == granularity) & (rows[columns] == value)
            stars = best[(best["granularity"] == granularity) & (best[columns] == value)]
            shown = rows[chosen & (rows["split"] == "test") & rows["accuracy"].notna()]
            _panel(axis, shown, stars)
            for dataset in shown["dataset"].unique():
                floor = references_on_test(references, dataset)
                _references(axis, {name: 100 * accuracy for name, accuracy in floor.items()})
            if row == 0:
                axis.set_title(_name(rows, columns, value))
            if row == len(granularities) - 1:
                axis.set_xlabel("preservation ratio p")
            if column == 0:
                axis.set_ylabel(f"χ = {granularity}\ntest accuracy (%)")
    axes[0, 0].xaxis.set_inverted(True)  # shared by all panels: pruning goes to the right
    shown = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        shown |= dict(zip(labels, handles, strict=True))
    figure.legend(
        shown.values(),
        shown.keys(),
        loc="outside lower center",
        ncols=min(len(column_values), 3),
        frameon=False,
        fontsize=9,
    )
    figure.suptitle(title)
    return figure


def _name(rows: pd.DataFrame, columns: str, value: Any) -> str:
    if columns != "dataset":
        return f"batch size {value}"
    kind = rows.loc[rows["dataset"] == value, "kind"].iloc[0]
    return f"{value} ({kind} data)"


def _panel(axis: Axes, rows: pd.DataFrame, stars: pd.DataFrame) -> None:
    branches = sorted(rows["branch"].unique(), key=lambda b: b != "none")
    for branch in branches:
        behind = branch != branches[-1]  # the curve without Selection, if there is one with it
        color = UNSELECTED if behind else SELECTED
        curves = 100 * rows[rows["branch"] == branch].pivot_table(
            index="preservation_ratio", columns="seed", values="accuracy"
        ).sort_index(ascending=False)
        mean, ratios = curves.mean(axis=1), curves.index.to_numpy()
        if not behind:
            for number, seed in enumerate(curves):
                label = "single seeds" if number == 0 else None
                axis.plot(ratios, curves[seed], ":", color=color, linewidth=0.9, alpha=0.6, label=label)
            if len(ratios) > 3:
                trend = np.polynomial.Polynomial.fit(ratios, mean, 2)
                axis.plot(ratios, trend(ratios), "--", color="#d9822b", linewidth=1.2, label="trend (quadratic)")
        axis.errorbar(
            ratios,
            mean,
            yerr=curves.std(axis=1, ddof=1) if curves.shape[1] > 1 else None,
            color=color,
            linewidth=1.8,
            elinewidth=0.8,
            capsize=2,
            marker="o",
            markersize=3,
            zorder=3,
            label=f"{BRANCH_LABELS.get(branch, branch)}: {over_seeds(curves.shape[1])}",
        )
        star = stars[stars["branch"] == branch]
        if not behind and len(star) and (p_star := star["p_star"].iloc[0]) in mean:
            axis.plot(
                p_star,
                mean[p_star],
                "*",
                color="#c0392b",
                markersize=12,
                zorder=4,
                label="p*, chosen on validation",
            )
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def entropy_grid(entropies: pd.DataFrame, *, title: str) -> Figure:
    """A panel per (modality, scope): router entropy in nats against Selection step, a line per χ (Figures 7–10).

    Lines are means over seeds, bands one sample standard deviation.
    """
    modalities = list(dict.fromkeys(entropies["modality"]))
    figure, axes = plt.subplots(
        len(modalities), 2, figsize=(7.4, 2.6 * len(modalities) + 0.9), sharex=True, squeeze=False, layout="constrained"
    )
    for row, modality in enumerate(modalities):
        for column, scope in enumerate(("local", "global")):
            axis = axes[row, column]
            own = entropies[(entropies["modality"] == modality) & (entropies["scope"] == scope)]
            for number, (granularity, lines) in enumerate(own.groupby("granularity")):
                steps = lines.groupby("step")["entropy"].agg(["mean", "std"])
                color = plt.colormaps["viridis"](0.15 + 0.35 * number)
                axis.plot(steps.index, steps["mean"], color=color, linewidth=1.5, label=f"χ = {granularity}")
                low, high = steps["mean"] - steps["std"], steps["mean"] + steps["std"]
                axis.fill_between(steps.index, low, high, color=color, alpha=0.2, linewidth=0)
            axis.set_title(f"{modality}, {scope}", fontsize=10)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axis.set_ylabel("router entropy (nats)")
            if row == len(modalities) - 1:
                axis.set_xlabel("Selection step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    seeds = entropies["seed"].nunique()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(f"{title} ({over_seeds(seeds)})", fontsize=11)
    return figure


def over_seeds(n: int) -> str:
    """What a mean is of; one seed has no deviation."""
    return f"mean ± std, n = {n}" if n > 1 else f"n = {n}"


def _references(axis: Axes, accuracies: Mapping[str, float]) -> None:
    low, high = axis.get_ylim()
    outside = []
    for name, accuracy in accuracies.items():
        # Not at the price of the curves: a line may stretch the axis by a third of its height.
        if low - (high - low) / 3 <= accuracy <= high + (high - low) / 3:
            style = "-." if name == "raw features" else ":"
            axis.axhline(accuracy, color=REFERENCE, linestyle=style, linewidth=1.1, zorder=1, label=REFERENCES[name])
        else:
            outside.append(f"{name} {accuracy:.1f} {'↓' if accuracy < low else '↑'}")
    if outside:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
        axis.text(
            0.02, 0.03, "\n".join(outside), transform=axis.transAxes, fontsize=7, color=REFERENCE, zorder=5, bbox=box
        )


def render(figure: Figure, suffix: str) -> bytes:
    """The figure as PNG or PDF bytes, without a timestamp, so that equal results give equal files."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata)
    return buffer.getvalue()

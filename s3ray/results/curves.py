"""Pruning curves as a grid of panels, which several exhibits show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Level, Panel, Shared
from s3ray.results.collect import Results
from s3ray.results.formatting import over_seeds, references_on_test
from s3ray.results.statistics import best_ratios

NOTE = (
    "Test accuracy against the share p of (token, expert) pairs that is kept. Solid: mean over seeds, bars of one "
    "sample standard deviation; dotted: single seeds; dashed: quadratic trend of the mean; star: p*, chosen on "
    "validation. Level and dark: no expert computed at all. Level and green: what needs no representation learning. In "
    "words, above a panel, what lies far from the curves."
)
RATIOS = Axis(title="preservation ratio p", inverted=True, step=0.2)  # pruning goes to the right


def by_batch_size(results: Results, rows: pd.DataFrame, name: str, title: str) -> dict[str, Chart]:
    """A chart per batch size, a column per dataset: `name` and `title` go on with the batch size."""
    return {
        f"{name}_batch_{batch_size}": curve_grid(
            own, results, columns="dataset", title=f"{title}, batch size {batch_size}"
        )
        for batch_size, own in rows.groupby("batch_size")
    }


def curve_grid(rows: pd.DataFrame, results: Results, *, columns: str, title: str) -> Chart:
    """A panel per (χ, value of `columns`): test accuracy in percent against p.

    Args:
        rows: of S3, as collected. Of one branch, and that without Selection behind it, single seeds and trend are
            shown, too; of more the means alone, each in its color.
        columns: `dataset` or `batch_size`.
    """
    best = best_ratios(rows)
    granularities = sorted(rows["granularity"].unique())
    values = list(rows[columns].unique()) if columns == "dataset" else sorted(rows[columns].unique())
    test = rows[(rows["split"] == "test") & rows["accuracy"].notna()]
    curves = {
        (row, column): list(_curves(*(t[(t["granularity"] == g) & (t[columns] == value)] for t in (test, best))))
        for row, g in enumerate(granularities)
        for column, value in enumerate(values)
    }
    # Accuracies of different datasets have no common scale; those of one dataset do.
    shared: Shared = "column" if columns == "dataset" else "all"

    def panel(row: int, column: int) -> Panel:
        one_scale = [own for (_, c), own in curves.items() if shared == "all" or c == column]
        heights = [height for own in one_scale for curve in own for height in curve.extent()]
        own = curves[row, column]
        here = rows[(rows[columns] == values[column]) & (rows["granularity"] == granularities[row])]
        levels, note = near([*_no_expert(here, results.controls), *_references(here, results)] if own else [], heights)
        heading = _heading(rows, columns, values[column]) if row == 0 else ""
        return Panel(title=heading, curves=own, levels=levels, note=note, note_color=labels.REFERENCE)

    return Chart(
        title=title,
        panels=[[panel(row, column) for column in range(len(values))] for row in range(len(granularities))],
        columns=[RATIOS] * len(values),
        rows=[Axis(title=f"χ = {granularity}\ntest accuracy (%)") for granularity in granularities],
        shared_y=shared,
    )


def _heading(rows: pd.DataFrame, columns: str, value: Any) -> str:
    if columns != "dataset":
        return f"batch size {value}"
    kind = rows.loc[rows["dataset"] == value, "kind"].iloc[0]
    return f"{value} ({kind} data)"


def _curves(rows: pd.DataFrame, best: pd.DataFrame) -> Iterator[Curve]:
    """Of one panel, those behind first."""
    branches = [branch for branch in labels.branches() if branch in set(rows["branch"])]
    is_one = len([branch for branch in branches if branch != "none"]) < 2
    stars = []
    for branch in branches:
        is_main = is_one and branch == branches[-1]
        seeds = 100 * rows[rows["branch"] == branch].pivot_table(
            index="preservation_ratio", columns="seed", values="accuracy"
        ).sort_index(ascending=False)
        mean, ratios = seeds.mean(axis=1), seeds.index.to_numpy()
        color = labels.SELECTED if is_main else labels.branch_color(branch)
        if is_main:
            yield _single_seeds(seeds, color)
            if len(ratios) > 3:
                trend = np.polynomial.Polynomial.fit(ratios, mean, 2)(ratios)
                style: dict[str, Any] = {"dash": "dash", "width": 1.2, "label": "trend (quadratic)"}
                yield Curve(x=list(ratios), y=list(trend), color="#d9822b", **style)
        name = labels.branch_title(branch)
        spread = seeds.std(axis=1, ddof=1)
        points = zip(ratios, mean, spread, seeds.count(axis=1), strict=True)
        yield Curve(
            x=list(ratios),
            y=list(mean),
            spread=list(spread),
            color=color,
            label=f"{name}: {over_seeds(seeds.shape[1])}",
            hover=[told(name, f"p {p:g}", m, std, n, " %") for p, m, std, n in points],
            width=1.8,
            marker="circle",
        )
        star = best[best["branch"] == branch]
        is_starred = is_main or (not is_one and branch != "none")
        if is_starred and len(star) and (p_star := star["p_star"].iloc[0]) in mean:
            stars.append((p_star, mean[p_star], labels.STAR if is_one else color))
    for p_star, height, color in stars:
        # Says nothing itself: its curve's point lies under it and says more.
        style = {"width": 0.0, "marker": "star", "size": 12.0, "label": "p*, chosen on validation"}
        yield Curve(x=[p_star], y=[height], color=color, **style)


def _single_seeds(seeds: pd.DataFrame, color: str) -> Curve:
    """One curve, interrupted between seeds."""
    x, y, hover = [], [], []
    for seed, accuracies in seeds.items():
        x += [*accuracies.index, accuracies.index[-1]]
        y += [*accuracies, math.nan]
        hover += [*(f"seed {seed}\np {p:g}\n{accuracy:.2f} %" for p, accuracy in accuracies.items()), ""]
    return Curve(x=x, y=y, color=color, hover=hover, dash="dot", width=0.9, opacity=0.6, label="single seeds")


def told(name: str, place: str, mean: float, std: float, n: float, unit: str = "") -> str:
    """What the page says at a point: where, mean, standard deviation and n."""
    spread = [f"std {std:.2f}"] if pd.notna(std) else []
    return "\n".join([name, place, f"mean {mean:.2f}{unit}", *spread, f"n {n:.0f}"])


def _no_expert(rows: pd.DataFrame, controls: pd.DataFrame) -> Iterator[tuple[str, Level]]:
    if controls.empty:
        return
    keys = ["dataset", "batch_size", "granularity"]
    own = controls[(controls["control"] == "no expert") & (controls["split"] == "test")]
    accuracy = 100 * own.merge(rows[keys].drop_duplicates())["accuracy"].mean()
    if pd.notna(accuracy):
        title, color = labels.control_title("no expert"), labels.control_color("no expert")
        yield "no expert", Level(y=accuracy, color=color, label=title, dash="dot")


def _references(rows: pd.DataFrame, results: Results) -> Iterator[tuple[str, Level]]:
    for dataset in rows["dataset"].unique():
        for name, accuracy in references_on_test(results.references, str(dataset)).items():
            style: dict[str, Any] = {"dash": "dashdot" if name == labels.BEST_RAW else "dot"}
            title = labels.reference_title(name)
            yield name, Level(y=100 * accuracy, color=labels.REFERENCE, label=title, **style)


def near(
    named: Iterable[tuple[str, Level]], heights: Sequence[float], stretch: float = 1 / 3
) -> tuple[list[Level], str]:
    """The lines that lie near the curves, which reach these heights, and words for the rest.

    Args:
        stretch: by how much of its height a line may stretch the axis.
    """
    if not heights:
        return [], ""
    low, high = min(heights), max(heights)
    reach = stretch * (high - low) or 1.0  # not at the price of the curves
    levels, outside = [], []
    for name, level in named:
        if low - reach <= level.y <= high + reach:
            levels.append(level)
        else:
            outside.append(f"{name} {level.y:.1f} {'↓' if level.y < low else '↑'}")
    return levels, "\n".join(outside)

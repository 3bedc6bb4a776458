"""Pruning curves as a grid of panels, which several exhibits show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Level, Panel, around, fitting
from s3ray.results.collect import Results
from s3ray.results.controlled import ONE_SEED, Compared, compared
from s3ray.results.formatting import over_seeds, references_on_test
from s3ray.results.statistics import CONFIGURATION, best_ratios

NOTE = (
    "Test accuracy against the share p of (token, expert) pairs that is kept. Solid: mean over seeds, bars of one "
    "sample standard deviation, those of two curves a little beside each other; dotted: single seeds; dashed: "
    "quadratic trend of the mean; star: p*, chosen on validation. Level and dark: no expert computed at all. Level and "
    "green: what needs no representation learning. In words, above a panel, what lies far from the curves; an arrow "
    "says on which side. Panels have one scale where the curves of each fill half of it."
)
DIFFERENCES = (
    "Last, what pruning changes: the difference from p = 1, of the same seeds and samples, with its 95 % interval "
    "(seeds and test samples random; where rows do not say which samples are right, seeds alone). Whether bars of two "
    "accuracies overlap says little about it."
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
    granularities, values = _places(rows, columns)
    test = rows[(rows["split"] == "test") & rows["accuracy"].notna()]

    def of(frame: pd.DataFrame, row: int, column: int) -> pd.DataFrame:
        own: pd.DataFrame = frame[(frame["granularity"] == granularities[row]) & (frame[columns] == values[column])]
        return own

    curves = [
        [list(_curves(of(test, row, column), of(best, row, column))) for column in range(len(values))]
        for row in range(len(granularities))
    ]
    heights = [[[h for curve in own for h in curve.extent()] for own in line] for line in curves]
    # Accuracies of different datasets have no common scale; those of one dataset do.
    shared = fitting(heights, "column", "") if columns == "dataset" else fitting(heights, "all", "row")
    scales: dict[Hashable, list[tuple[int, int]]] = {}
    for row, column in itertools.product(range(len(granularities)), range(len(values))):
        scales.setdefault({"all": 0, "row": row, "column": column}.get(shared, (row, column)), []).append((row, column))
    beside: dict[tuple[int, int], tuple[list[Level], str]] = {}
    for places in scales.values():
        levels = {
            (r, c): [*_no_expert(of(rows, r, c), results.controls), *_references(of(rows, r, c), results)]
            for r, c in places
            if curves[r][c]
        }
        beside |= near(levels, [h for r, c in places for h in heights[r][c]])

    def panel(row: int, column: int) -> Panel:
        levels, note = beside.get((row, column), ([], ""))
        heading = _heading(rows, columns, values[column]) if row == 0 else ""
        own = curves[row][column]
        return Panel(title=heading, curves=own, levels=levels, note=note, note_color=labels.REFERENCE)

    return Chart(
        title=title,
        panels=[[panel(row, column) for column in range(len(values))] for row in range(len(granularities))],
        columns=[RATIOS] * len(values),
        rows=[Axis(title=f"χ = {granularity}\ntest accuracy (%)") for granularity in granularities],
        shared_y=shared,
    )


def difference_grid(rows: pd.DataFrame, *, columns: str, title: str) -> Chart:
    """A panel per (χ, value of `columns`): test accuracy minus that at p = 1, paired, against p, in points.

    Bars are 95 % intervals of `controlled.compared`: seeds and test samples random where rows say which are right, else
    seeds. One seed, whose interval says nothing of others, has none.

    Args:
        rows, columns: as of `curve_grid`; empty where nothing was measured at p = 1 and below.
    """
    granularities, values = _places(rows, columns)
    known = rows[(rows["split"] == "test") & rows["accuracy"].notna()]
    measured: dict[tuple[int, Any], list[Curve]] = {}
    for _, own in known.groupby(CONFIGURATION, sort=False):
        if curve := _differences(own):
            measured.setdefault((own["granularity"].iloc[0], own[columns].iloc[0]), []).append(curve)
    zero = [Level(y=0.0, color="black", width=0.6)]
    panels = [
        [
            Panel(title="" if row else _heading(rows, columns, value), curves=measured.get((g, value), ()), levels=zero)
            for value in values
        ]
        for row, g in enumerate(granularities)
    ]
    means = [y for own in measured.values() for curve in own for y in (min(curve.y), max(curve.y), 0.0)] or [0.0]
    ends = [height for own in measured.values() for curve in own for height in curve.extent()] or [0.0]
    # Of two seeds an interval may lead to ± 100: it runs out of the panel, else it would be all that is seen.
    room = max(max(means) - min(means), 1.0)
    low, high = around([max(min(ends), min(means) - room), min(max(ends), max(means) + room)])
    return Chart(
        title=f"{title}: what pruning changes\ntest accuracy minus that at p = 1, paired; bars: 95 % intervals",
        panels=panels,
        columns=[RATIOS] * len(values),
        rows=[Axis(title=f"χ = {g}\ndifference (points)", limits=(low, high)) for g in granularities],
        shared_y="all",
        panel_size=(3.6, 2.0),
    )


def _differences(rows: pd.DataFrame) -> Curve | None:
    """Of one configuration's test rows."""
    full = rows[rows["preservation_ratio"] == 1.0]
    ratios = sorted({float(p) for p in rows["preservation_ratio"] if p < 1.0}, reverse=True)
    beside = {p: compared(0.0, rows[rows["preservation_ratio"] == p], full) for p in ratios}
    found = {p: one for p, one in beside.items() if one.seeds}
    if not found:
        return None
    branch = str(rows["branch"].iloc[0])
    name = labels.branch_title(branch)
    return Curve(
        x=list(found),
        y=[100 * one.difference.mean for one in found.values()],
        spread=[100 * one.difference.half_width(0.95) if one.seeds > 1 else math.nan for one in found.values()],
        color=labels.branch_color(branch),
        label=name,
        hover=[f"{name}\np {p:g}\n{_told_difference(one)}" for p, one in found.items()],
        width=1.4,
        marker=labels.branch_marker(branch),
        size=4.0,
    )


def _told_difference(one: Compared) -> str:
    low, high = one.difference.interval(0.95)
    lines = [f"{100 * one.difference.mean:+z.2f} points"]
    if one.seeds > 1:
        lines.append(f"95 % interval {100 * low:+z.2f} to {100 * high:+z.2f}")
    samples = [f"{one.samples:.0f} samples"] if one.samples > 0 else []
    return "\n".join([*lines, ", ".join([ONE_SEED if one.seeds == 1 else f"n {one.seeds}", *samples])])


def _places(rows: pd.DataFrame, columns: str) -> tuple[list[int], list[Any]]:
    """χ of every row of panels, and the value of every column."""
    values = list(rows[columns].unique()) if columns == "dataset" else sorted(rows[columns].unique())
    return sorted(rows["granularity"].unique()), values


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
            marker=labels.branch_marker(branch),
            size=4.5,
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
    named: Mapping[tuple[int, Any], Iterable[tuple[str, Level]]], heights: Sequence[float], stretch: float = 1 / 4
) -> dict[tuple[int, Any], tuple[list[Level], str]]:
    """Of each panel of one scale the lines that are drawn, and words with an arrow for those far from all curves.

    Args:
        named: by panel.
        heights: what curves reach on this scale.
        stretch: by how much of the curves' height lines may stretch it either way, which is not at their price.
    """
    panels = {place: list(lines) for place, lines in named.items()}
    if not heights:
        return {place: ([], "") for place in panels}
    every = [level.y for lines in panels.values() for _, level in lines]
    room = stretch * (max(heights) - min(heights)) or 1.0
    low, high = min(heights) - room, max(heights) + room
    # What stands on the axis as it is then, margin included, is drawn as well: never words for what could be seen.
    drawn = [*heights, *(y for y in every if low <= y <= high)]
    while more := [y for y in every if y not in drawn and around(drawn)[0] <= y <= around(drawn)[1]]:
        drawn += more

    def words(name: str, level: Level) -> str:
        return f"{name} {level.y:.1f} {'↓' if level.y < min(heights) else '↑'}"

    return {
        place: (
            [level for _, level in lines if level.y in drawn],
            "\n".join(words(name, level) for name, level in lines if level.y not in drawn),
        )
        for place, lines in panels.items()
    }

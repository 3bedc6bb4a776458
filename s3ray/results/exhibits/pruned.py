"""What pruning takes from a simulation's tokens, by the kind of factor that they express; beyond the paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Level, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import RATIOS, told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.exhibits.factors import CONFIGURATION, KIND_COLORS, kinds_in, means_on_test
from s3ray.results.formatting import mean_std, over_seeds

_WEIGHT, _KEPT = "routing weight", "share of pairs kept"
_ALL = -1  # layers together
_PADDING = "padding"
_COLORS = {**KIND_COLORS, _PADDING: "#222222"}


def _tables(results: Results) -> dict[str, Table]:
    return {"pruned": Table(pruned_table(results.factors))}


def _figures(results: Results) -> dict[str, Chart]:
    return {
        f"pruned_{dataset}_batch_{batch_size}": pruned_chart(own)
        for (dataset, batch_size), own in _of_routing(results.factors).groupby(["dataset", "batch_size"], sort=False)
        if not means_on_test(own).empty
    }


def pruned_table(points: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, branch, p, layer): test values per kind of factor, `mean (std)`.

    Shares are in percent. The layer `all` is the mean over layers. Std and n are over seeds.
    """
    points = _of_routing(points)
    summary = means_on_test(pd.concat([points.assign(layer=_ALL), points]), "layer")
    positions = summary["branch"].map(labels.branches().index)
    ordered = summary.assign(position=positions).sort_values(
        ["dataset", "batch_size", "granularity", "position", "preservation_ratio", "layer"],
        ascending=[True] * 4 + [False, True],
    )
    kinds = [*kinds_in(points), *([_PADDING] if _PADDING in set(points["factor_kind"]) else [])]
    lines = []
    for place, values in ordered.groupby([*CONFIGURATION, "layer"], sort=False):
        dataset, kind, batch_size, method, branch, granularity, ratio, layer = place
        found = values[["quantity", "factor_kind", "mean", "std"]].itertuples(index=False, name=None)
        measured = {(quantity, factor_kind): (mean, std) for quantity, factor_kind, mean, std in found}
        line = {
            "dataset": f"{dataset} ({kind} data)",
            "batch size": batch_size,
            "method": labels.title(str(method), str(branch)),
            "χ": granularity,
            "p": f"{ratio:g}",
            "layer": "all" if layer == _ALL else f"{layer:.0f}",
        }
        for quantity, heading, scale, digits in ((_KEPT, "pairs kept (%)", 100, 1), (_WEIGHT, "weight", 1, 4)):
            for factor_kind in kinds:
                mean, std = measured.get((quantity, factor_kind), (math.nan, math.nan))
                line[f"{heading} {factor_kind}"] = mean_std(scale * mean, scale * std, digits)
        lines.append(line | {"n": values["n"].max()})
    return pd.DataFrame(lines)


def pruned_chart(points: pd.DataFrame) -> Chart:
    """Kept pairs beyond p and mean routing weights against p: a column per branch, two rows for the ends of χ.

    Test values of one dataset at one batch size: means over a kind's factors, layers and seeds; bands are one sample
    standard deviation over seeds.
    """
    settings = points[["dataset", "kind", "batch_size"]].drop_duplicates()
    assert len(settings) == 1, f"a figure is of one dataset at one batch size, not of {len(settings)}"
    dataset, kind, batch_size = settings.iloc[0]
    summary = means_on_test(_of_routing(points))
    branches = [branch for branch in labels.branches() if branch in set(summary["branch"])]
    granularities = sorted({summary["granularity"].min(), summary["granularity"].max()})
    rows = [(granularity, quantity) for granularity in granularities for quantity in (_KEPT, _WEIGHT)]
    headings = ["after Specialization" if branch == "none" else labels.branch_title(branch) for branch in branches]

    def panel(number: int, column: int) -> Panel:
        granularity, quantity = rows[number]
        here = (summary["branch"] == branches[column]) & (summary["granularity"] == granularity)
        return Panel(
            title="" if number else headings[column],
            curves=_curves(summary[here & (summary["quantity"] == quantity)], quantity),
            levels=[Level(y=0.0, color="black", width=0.6)] if quantity == _KEPT else [],
        )

    panels = [[panel(number, column) for column in range(len(branches))] for number in range(len(rows))]
    # Points have one scale throughout. Weights grow with Selection: on its scale those before would lie on each other.
    beyond = [
        abs(height)
        for (_, quantity), row in zip(rows, panels, strict=True)
        if quantity == _KEPT
        for drawn in row
        for curve in drawn.curves
        for height in curve.extent()
    ]
    reach = 1.05 * max(beyond) or 1.0
    axes = {
        _KEPT: Axis(title="pairs kept, more or\nless than p (points)", limits=(-reach, reach)),
        _WEIGHT: Axis(title="mean routing weight"),
    }
    return Chart(
        title=f"What pruning takes: {dataset} ({kind} data), batch size {batch_size}\n"
        f"by what a token expresses; test values, {over_seeds(summary['n'].max())}",
        panels=panels,
        columns=[RATIOS] * len(branches),
        rows=[replace(axes[quantity], title=f"χ = {g}\n{axes[quantity].title}") for g, quantity in rows],
        panel_size=(3.4, 2.2),
    )


def _curves(summary: pd.DataFrame, quantity: str) -> list[Curve]:
    curves = []
    for factor_kind, color in _COLORS.items():
        own = summary[summary["factor_kind"] == factor_kind].sort_values("preservation_ratio", ascending=False)
        if own.empty:
            continue
        ratios = own["preservation_ratio"]
        scale, origin = (100, ratios) if quantity == _KEPT else (1, 0 * ratios)
        means, deviations = scale * (own["mean"] - origin), scale * own["std"]
        points = zip(ratios, scale * own["mean"], deviations, own["n"], strict=True)
        curves.append(
            Curve(
                x=list(ratios),
                y=list(means),
                spread=list(deviations),
                band=True,
                color=color,
                label=factor_kind,
                hover=[told(f"{quantity}: {factor_kind}", f"p {p:g}", *values) for p, *values in points],
                marker="circle",
                size=2.5,
            )
        )
    return curves


def _of_routing(points: pd.DataFrame) -> pd.DataFrame:
    return points[points["quantity"].isin([_WEIGHT, _KEPT])]


EXHIBIT = Exhibit(
    name="pruned",
    title="What pruning takes",
    note="Every token of the simulation expresses one factor. By the factor's kind: the share of its tokens' "
    "(token, expert) pairs that pruning keeps, in the figure as points above or below p (a kind below the line loses "
    "more than its part), and their mean routing weight over all routed pairs, kept or not (in the figure every panel "
    "has its own scale). Test values, means over factors, layers and seeds (sample standard deviation over seeds: in "
    "brackets and as bands).",
    reads=("factors",),
    tables=_tables,
    figures=_figures,
)

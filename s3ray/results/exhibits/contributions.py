"""How much do experts matter? The variance that they add to the residual stream."""

from __future__ import annotations

from typing import Any

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import mean_std, over_seeds

_AFTER = ("initialisation", "Specialization", "Selection")
_COLORS = {2: "#8e44ad", 4: "#2980b9", 8: "#c0392b"}


def _tables(results: Results) -> dict[str, Table]:
    return {"contributions": Table(contribution_table(results.contributions))}


def contribution_table(contributions: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, modality, layer): shares in percent, `mean (std)`, a column per stage."""
    keys = ["dataset", "kind", "batch_size", "granularity", "modality", "layer"]
    lines = []
    for place, own in contributions.groupby(keys, sort=False):
        dataset, kind, batch_size, granularity, modality, layer = place
        line = {
            "dataset": f"{dataset} ({kind} data)",
            "batch size": batch_size,
            "χ": granularity,
            "modality": modality,
            "layer": layer,
        }
        for after, branch in own[["after", "branch"]].drop_duplicates().itertuples(index=False, name=None):
            shares = 100 * own[(own["after"] == after) & (own["branch"] == branch)]["share"]
            line[_heading(after, branch)] = mean_std(shares.mean(), shares.std(ddof=1), 1)
        lines.append(line | {"n": own["seed"].nunique()})
    table = pd.DataFrame(lines).fillna("")
    return table[[*table.columns.drop("n"), "n"]]  # also where the first line has fewer Selections than others


def _heading(after: str, branch: str) -> str:
    """What the stage is called; there are several Selections."""
    return f"{after} ({branch})" if after == "Selection" else after


def _figures(results: Results) -> dict[str, Chart]:
    frame = results.contributions
    chosen = frame[(frame["after"] != "Selection") | (frame["branch"] == "suff+min")]
    return {
        f"contributions_batch_{batch_size}": contribution_chart(own) for batch_size, own in chosen.groupby("batch_size")
    }


def contribution_chart(contributions: pd.DataFrame) -> Chart:
    """A panel per dataset, a curve per χ over initialisation and stages: mean over modalities and layers."""
    datasets = list(contributions["dataset"].unique())
    batch_size = contributions["batch_size"].iloc[0]

    def panel(dataset: str) -> Panel:
        own = contributions[contributions["dataset"] == dataset]
        curves = [_curve(own[own["granularity"] == g], g) for g in sorted(own["granularity"].unique())]
        return Panel(title=f"{dataset} ({own['kind'].iloc[0]} data)", curves=curves)

    places = Axis(ticks=dict(enumerate(("start", *_AFTER[1:]))))
    return Chart(
        title=f"How much do experts matter? Batch size {batch_size}, {over_seeds(contributions['seed'].nunique())}",
        panels=[[panel(dataset) for dataset in datasets]],
        columns=[places] * len(datasets),
        rows=[Axis(title="variance added by the experts\n(% of the residual stream's)")],
        shared_y="all",
    )


def _curve(rows: pd.DataFrame, granularity: int) -> Curve:
    per_seed = 100 * rows.groupby(["after", "seed"])["share"].mean().unstack()
    per_seed = per_seed.reindex([after for after in _AFTER if after in per_seed.index])
    mean, spread = per_seed.mean(axis=1), per_seed.std(axis=1, ddof=1)
    points = zip(per_seed.index, mean, spread, per_seed.count(axis=1), strict=True)
    style: dict[str, Any] = {"color": _COLORS.get(granularity, labels.SELECTED), "marker": "circle", "size": 4.0}
    return Curve(
        x=[float(_AFTER.index(str(after))) for after in per_seed.index],
        y=list(mean),
        spread=list(spread),
        label=f"χ = {granularity}",
        hover=[told(f"χ = {granularity}", str(after), m, std, n, " %") for after, m, std, n in points],
        **style,
    )


EXHIBIT = Exhibit(
    name="contributions",
    title="How much do experts matter?",
    note="How much of a token's variance over its features the experts of a layer add, as a share of the residual "
    "stream's behind them: at 0 % they do nothing. Measured on the training batch of a stage's first or last step.",
    reads=("contributions",),
    tables=_tables,
    figures=_figures,
    everywhere=True,
)

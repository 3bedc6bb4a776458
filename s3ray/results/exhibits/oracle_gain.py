"""The printed gains of the best p over p = 1, beside what flat curves give by chance; takes no rows."""

from __future__ import annotations

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Panel
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.oracle_gain import NULLS, printed_gains
from s3ray.results.statistics import ALPHA

_COLORS = dict(zip(NULLS, ("#4c78a8", "#d9822b"), strict=True))
_NOTE = (
    "Table 1 as printed, no result of ours: the gain of the best of nine p over p = 1, both on test, in points. The "
    "best of nine lies above one even where a curve is truly flat; two kinds of noise say by how much. White noise: "
    "every point has an error of its own. Random walk: errors add up from one p to the next. The size of either is "
    "estimated from the curve itself, and that it is an estimate is counted."
)


def _tables(results: Results) -> dict[str, Table]:
    gains = printed_gains()
    note = (
        f"{_NOTE} {finding()} Each curve is judged by itself. Expected: a flat curve's mean gain, and in brackets what "
        "it exceeds in 5 of 100 cases. The shape is where the largest printed number stands. Binomial standard error: "
        "of one accuracy at p = 1, for scale. Rules: s3ray/results/oracle_gain.py."
    )
    return {"oracle_gain": Table(gains, note=note, readable=_readable(gains))}


def finding() -> str:
    """How many of the printed gains exceed what chance gives."""
    gains = printed_gains()
    curves = len(gains.drop_duplicates(["dataset", "granularity"]))
    exceeding = gains.loc[gains["p_value"] < ALPHA, "null"].value_counts()
    counts = {f"{'a ' * (null == 'random walk')}{null}": int(exceeding.get(null, 0)) for null in NULLS}
    found = " and ".join(f"{count} exceed{'s' * (count == 1)} {null}" for null, count in counts.items())
    return (
        f"Of {curves} printed gains of the best p over p = 1, {found} (p-value < {ALPHA:g}); "
        f"{ALPHA * curves:.1f} would by chance if all curves were flat."
    )


def _readable(gains: pd.DataFrame) -> pd.DataFrame:
    """A line per curve, the nulls side by side."""
    lines = []
    for (dataset, granularity), own in gains.groupby(["dataset", "granularity"], sort=False):
        curve = own.iloc[0]
        line = {
            "dataset": f"{dataset} (paper)",
            "χ": granularity,
            "test samples": curve["samples"],
            "binomial standard error": f"{curve['binomial_error']:.2f}",
            "shape": curve["shape"],
            "best p": f"{curve['oracle_p']:g}",
            "gain over p 1": f"{curve['gain']:+.2f}",
            "over the smallest p": f"{curve['over_smallest']:+.2f}",
        }
        for _, chance in own.iterrows():
            line[f"{chance['null']}: expected"] = f"{chance['expected']:+.2f} ({chance['high']:+.2f})"
            line[f"{chance['null']}: p-value"] = _p_value(chance["p_value"])
        exceeded = own.loc[own["p_value"] < ALPHA, "null"]
        lines.append(line | {"exceeds": ", ".join(exceeded) or "neither"})
    return pd.DataFrame(lines)


def _p_value(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _figures(results: Results) -> dict[str, Chart]:
    gains = printed_gains()
    granularities = sorted(gains["granularity"].unique())
    places = {granularity: float(place) for place, granularity in enumerate(granularities)}
    panels = [
        Panel(title=f"{dataset}, {own['samples'].iloc[0]} test samples", curves=_curves(own, places))
        for dataset, own in gains.groupby("dataset", sort=False)
    ]
    chart = Chart(
        title="What the paper's printed curves can carry: the gain of the best p over p = 1 (star), and the gains of "
        "truly flat curves",
        panels=[panels],
        columns=[Axis(title="granularity χ", ticks={place: f"{g}" for g, place in places.items()})] * len(panels),
        rows=[Axis(title="best p over p 1 (points)")],
        panel_size=(2.7, 2.8),
    )
    return {"oracle_gain": chart}


def _curves(gains: pd.DataFrame, places: dict[int, float]) -> list[Curve]:
    """Of one dataset: per null its intervals and means, then what was printed."""
    curves = []
    for shift, (null, own) in zip((-0.15, 0.15), gains.groupby("null", sort=False), strict=True):
        x = [places[granularity] + shift for granularity in own["granularity"]]
        color, hover = _COLORS[str(null)], []
        for place, (_, chance) in zip(x, own.iterrows(), strict=True):
            ends = [chance["low"], chance["high"]]
            label = f"{null}: 5 to 95 % of flat curves, dot: mean"
            curves.append(Curve(x=[place] * 2, y=ends, color=color, width=3.0, label=label))
            hover.append(
                f"{null}, χ = {chance['granularity']}\nexpected {chance['expected']:+.2f}\n"
                f"5 to 95 %: {ends[0]:+.2f} to {ends[1]:+.2f}\np-value {_p_value(chance['p_value'])}"
            )
        means = list(own["expected"])
        curves.append(Curve(x=x, y=means, color=color, hover=hover, width=0.0, marker="circle", size=6.0))
    printed = gains.drop_duplicates("granularity")
    hover = [
        f"printed, χ = {curve['granularity']}\n{curve['gain']:+.2f} at p {curve['oracle_p']:g}\n{curve['shape']}"
        for _, curve in printed.iterrows()
    ]
    star = Curve(
        x=[places[granularity] for granularity in printed["granularity"]],
        y=list(printed["gain"]),
        color=labels.STAR,
        hover=hover,
        label="printed",
        width=0.0,
        marker="star",
        size=12.0,
    )
    return [*curves, star]


EXHIBIT = Exhibit(
    name="oracle_gain",
    title="What the paper's printed pruning curves can carry",
    note=_NOTE,
    reads=(),
    finding=lambda results: finding(),
    tables=_tables,
    figures=_figures,
)

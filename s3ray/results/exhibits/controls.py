"""The router against chance: every pruning curve beside what it is held against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Level, Panel, fitting
from s3ray.results.collect import Results
from s3ray.results.controlled import ONE_SEED, conclusion, points, warnings
from s3ray.results.curves import RATIOS, near, told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import over_seeds, percent
from s3ray.results.statistics import CONFIGURATION, verdicts

_CURVES = ("random", "smallest", "contribution")
_PINNED = ("χ", "batch size", "Selection loss", "n", "p*", "test at p*", "over random", "router", "experts", "training")
_FLOORS = ("no expert", "untrained")
_NOTE = (
    "Test accuracy against the share p of (token, expert) pairs that is kept: those that the router ranks first, and "
    "as many chosen otherwise. All curves begin at p = 1, where nothing is pruned. Bands: one standard deviation over "
    "seeds. Star: p*, chosen on validation. In words: that experts do not matter, where that is so; the verdict on the "
    "curve's shape; at p* its differences from random pruning and from computing no expert at all (p = 0), in "
    "points with 95 % intervals; and where the untrained encoder is as good."
)
_TABLE_NOTE = (
    "At p*, chosen on validation: test accuracy, and its differences from the controls in points with 95 % intervals, "
    "seeds and test samples both random (of one seed samples alone; where rows do not say which samples are right, "
    "seeds alone). Router: is ranked pruning above random pruning there? Experts: is p = 1 above p = 0, where none is "
    "computed? Training: is p = 1 above the untrained encoder? A no says that the difference is shown to be less than "
    "a point; where experts do not matter, or hurt, a pruning curve says nothing. Rules: s3ray/results/controlled.py."
)


def _tables(results: Results) -> dict[str, Table]:
    judged = results.controlled
    return {"controls": Table(control_table(judged), note=f"{_TABLE_NOTE} {warnings(judged)}".strip(), pinned=_PINNED)}


def control_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A line per curve, differences in points."""
    lines = []
    for _, curve in frame.iterrows():
        lines.append(
            {
                "dataset": f"{curve['dataset']} ({curve['kind']} data)",
                "χ": curve["granularity"],
                "batch size": curve["batch_size"],
                "Selection loss": curve["branch"],
                "n": curve["n"],
                "p*": f"{curve['p_star']:g}",
                "test at p*": percent(curve["test"]),
                "over random": points(curve, "over_random"),
                "router": curve["router"],
                "more than before Selection": points(curve, "interaction"),
                "over no expert": points(curve, "over_no_expert"),
                "p 1 over no expert": points(curve, "full_over_no_expert"),
                "experts": curve["experts"],
                "over untrained": points(curve, "over_untrained"),
                "p 1 over untrained": points(curve, "full_over_untrained"),
                "training": curve["training"],
                "over smallest": points(curve, "over_smallest"),
                "over contribution": points(curve, "over_contribution"),
            }
        )
    table = pd.DataFrame(lines)
    # Controls that nobody asked for are no columns of blanks.
    return table.loc[:, [name for name in table if not (table[name] == "").all()]]


def _figures(results: Results) -> dict[str, Chart]:
    rows = results.rows[(results.rows["method"] == "s3") & results.rows["branch"].isin(["none", "suff+min"])]
    if results.controls.empty:
        return {}
    places = ["dataset", "batch_size"]
    controlled_places = set(results.controls[places].itertuples(index=False, name=None))
    return {
        f"controls_{dataset}_batch_{batch_size}": control_chart(own, results.controls, results.controlled)
        for (dataset, batch_size), own in rows.groupby(places, sort=False)
        if (dataset, batch_size) in controlled_places
    }


def control_chart(rows: pd.DataFrame, controls: pd.DataFrame, judged: pd.DataFrame) -> Chart:
    """A row per χ, a column per branch, of one dataset at one batch size: kept by rank, and kept otherwise.

    In each panel stand whether experts matter, the verdict on its shape, p* and the differences from controls there.

    Args:
        judged: of `controlled`; lines of other rows don't count.
    """
    dataset, kind, batch_size = rows[["dataset", "kind", "batch_size"]].drop_duplicates().iloc[0]
    controls = controls[(controls["dataset"] == dataset) & (controls["batch_size"] == batch_size)]
    judged = judged.merge(verdicts(rows)[[*CONFIGURATION, "verdict"]], on=CONFIGURATION)
    granularities = sorted(rows["granularity"].unique())
    branches = [branch for branch in labels.branches() if branch in set(rows["branch"])]

    def of(frame: pd.DataFrame, granularity: int, branch: str) -> pd.DataFrame:
        return frame[(frame["granularity"] == granularity) & (frame["branch"] == branch)]

    drawn = {(g, b): list(_curves(of(rows, g, b), of(controls, g, b), b)) for g in granularities for b in branches}
    heights = {place: [height for curve in curves for height in curve.extent()] for place, curves in drawn.items()}
    shared = fitting([[heights[g, b] for b in branches] for g in granularities], "all", "row")
    beside: dict[tuple[int, str], tuple[list[Level], str]] = {}
    for scale in [granularities] if shared == "all" else [[g] for g in granularities]:
        floors = {(g, b): _floors(of(controls, g, b)) for g in scale for b in branches}
        beside |= near(floors, [height for place in floors for height in heights[place]])

    def panel(granularity: int, branch: str) -> Panel:
        title = "after Specialization" if branch == "none" else f"after Selection ({branch})"
        curves = drawn[granularity, branch]
        verdict = of(judged, granularity, branch)
        if len(verdict):
            curves = [*curves, _star(verdict.iloc[0])]
        levels, outside = beside[granularity, branch]
        words = [_words(verdict.iloc[0])] if len(verdict) else []
        return Panel(
            title=title if granularity == granularities[0] else "",
            curves=curves,
            levels=levels,
            note="\n".join([*words, *filter(None, [outside])]),
        )

    return Chart(
        title=f"The router against chance: {dataset} ({kind} data), batch size {batch_size}\n"
        f"test, {over_seeds(rows['seed'].nunique())}",
        panels=[[panel(granularity, branch) for branch in branches] for granularity in granularities],
        columns=[RATIOS] * len(branches),
        rows=[Axis(title=f"χ = {granularity}\ntest accuracy (%)") for granularity in granularities],
        shared_y=shared,
        panel_size=(4.2, 2.6),
    )


def _curves(rows: pd.DataFrame, controls: pd.DataFrame, branch: str) -> Iterator[Curve]:
    """Means over seeds with their deviations, controls behind; all begin at p = 1, where nothing is pruned."""
    test = rows[rows["split"] == "test"]
    full = test[test["preservation_ratio"] == 1.0]
    for control in _CURVES:
        own = controls[(controls["control"] == control) & (controls["split"] == "test")]
        if len(own):
            title, color = labels.control_title(control), labels.control_color(control)
            style: dict[str, Any] = {"dash": "dash", "marker": labels.control_marker(control)}
            yield _curve(pd.concat([full, own]), title, color, **style)
    title = f"ranked by the router, {'before' if branch == 'none' else 'after'} Selection"
    yield _curve(test, title, labels.branch_color(branch), width=2.2, marker=labels.branch_marker(branch))


def _curve(rows: pd.DataFrame, title: str, color: str, **style: Any) -> Curve:
    seeds = 100 * rows.pivot_table(index="preservation_ratio", columns="seed", values="accuracy")
    seeds = seeds.sort_index(ascending=False)
    mean, spread, ratios = seeds.mean(axis=1), seeds.std(axis=1, ddof=1), list(seeds.index)
    points = zip(ratios, mean, spread, seeds.count(axis=1), strict=True)
    return Curve(
        x=ratios,
        y=list(mean),
        spread=list(spread),
        band=True,
        color=color,
        label=title,
        hover=[told(title, f"p {p:g}", m, std, n, " %") for p, m, std, n in points],
        size=4.5,
        **style,
    )


def _star(verdict: pd.Series[Any]) -> Curve:
    style: dict[str, Any] = {"width": 0.0, "marker": "star", "size": 12.0, "label": "p*, chosen on validation"}
    return Curve(x=[verdict["p_star"]], y=[100 * verdict["test"]], color=labels.STAR, **style)


def _floors(controls: pd.DataFrame) -> Iterator[tuple[str, Level]]:
    for name in _FLOORS:
        accuracy = 100 * controls[(controls["control"] == name) & (controls["split"] == "test")]["accuracy"].mean()
        if pd.notna(accuracy):
            yield (
                name,
                Level(y=accuracy, color=labels.control_color(name), label=labels.control_title(name), dash="dot"),
            )


def _words(verdict: pd.Series[Any]) -> str:
    """What a reader takes away: first whether there is anything to prune, then the shape, and differences at p*."""
    differences = [("over random", "over_random"), ("over no expert", "over_no_expert")]
    told = [f"{name} {points(verdict, column)}" for name, column in differences if pd.notna(verdict[column])]
    shape = f"shape: {verdict['verdict']}" if verdict["n"] > 1 else f"{ONE_SEED}: no shape can be tested"
    before, training = conclusion(verdict, "experts"), conclusion(verdict, "training")
    return "\n".join(filter(None, [before, f"{shape}; at p* {verdict['p_star']:g}", *told, training]))


EXHIBIT = Exhibit(
    name="controls",
    title="The router against chance",
    note=_NOTE,
    reads=("rows", "controls"),
    tables=_tables,
    figures=_figures,
    everywhere=True,
)

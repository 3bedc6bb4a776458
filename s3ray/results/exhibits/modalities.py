"""Which modality carries what, and what pruning leaves of it; beyond the paper."""

from __future__ import annotations

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Dash, Level, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import RATIOS, told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import mean_std, over_seeds
from s3ray.results.statistics import CONFIGURATION, best_ratios

_COLORS = ("#2980b9", "#d9822b", "#2e7d32", "#8e44ad", "#c0392b", "#16a085")
_PLACE = [*CONFIGURATION, "preservation_ratio", "seed"]


def _tables(results: Results) -> dict[str, Table]:
    return {"modalities": Table(modality_table(_on_test(results)))}


def _figures(results: Results) -> dict[str, Chart]:
    points = _on_test(results)
    return {
        "_".join(["modalities", str(dataset), "batch", str(batch_size), *_words(str(reading))]): modality_chart(own)
        for (dataset, batch_size, reading), own in points.groupby(["dataset", "batch_size", "reading"], sort=False)
    }


def _words(reading: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in reading).split()


def _on_test(results: Results) -> pd.DataFrame:
    """What was measured on test, in percent, with the accuracy of all modalities (`all`) and each curve's `p_star`."""
    points, rows = results.modalities, results.rows
    rows = rows[rows["method"].isin(points["method"].unique())]
    together = rows[rows["split"] == "test"][[*_PLACE, "accuracy"]].rename(columns={"accuracy": "all"})
    stars = best_ratios(rows)[[*CONFIGURATION, "p_star"]]
    test = points[points["split"] == "test"].merge(together, how="left").merge(stars, how="left")
    shares = ["all", "alone", "without", "pairs_kept"]
    return test.assign(**{name: 100 * test[name].astype(float) for name in shares})


def modality_table(points: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, reading, χ, branch, p = 1 and p*, modality): test values, `mean (std)`."""
    positions = [labels.position(*output) for output in zip(points["method"], points["branch"], strict=True)]
    order = ["dataset", "batch_size", "reading", "granularity", "position", "preservation_ratio"]
    chosen = (points["preservation_ratio"] == 1.0) | (points["preservation_ratio"] == points["p_star"])
    ordered = points.assign(position=positions)[chosen]
    ordered = ordered.sort_values(order, ascending=[True] * 5 + [False], kind="stable")
    lines = []
    for place, own in ordered.groupby([*order, "modality"], sort=False):
        dataset, batch_size, reading, granularity, _, ratio, modality = place
        line = {
            "dataset": f"{dataset} ({own['kind'].iloc[0]} data)",
            "batch size": batch_size,
            "reading": reading or "as usual",
            "method": labels.title(own["method"].iloc[0], own["branch"].iloc[0]),
            "χ": granularity,
            "p": "1" if ratio == 1.0 else f"p* {ratio:g}",
            "modality": modality,
        }
        for column, heading, digits in (
            ("all", "all (%)", 2),
            ("alone", "alone (%)", 2),
            ("without", "all but it (%)", 2),
            ("pairs_kept", "its pairs kept (%)", 1),
        ):
            line[heading] = mean_std(own[column].mean(), own[column].std(ddof=1), digits)
        lines.append(line | {"n": own["seed"].nunique()})
    return pd.DataFrame(lines)


def modality_chart(points: pd.DataFrame) -> Chart:
    """Accuracies of each modality alone and of all but it, and its pairs kept beyond p, against p; a column per branch.

    Test values of one dataset, batch size and reading, of S3 at its largest χ: means over seeds; bands are one sample
    standard deviation over seeds.
    """
    settings = points[["dataset", "kind", "batch_size", "reading"]].drop_duplicates()
    assert len(settings) == 1, f"a figure is of one dataset, batch size and reading, not of {len(settings)}"
    dataset, kind, batch_size, reading = settings.iloc[0]
    granularity = points["granularity"].max()
    points = points[points["granularity"] == granularity]
    modalities = list(dict.fromkeys(points["modality"]))
    branches = [branch for branch in labels.branches() if branch in set(points["branch"])]
    headings = ["after Specialization" if branch == "none" else labels.branch_title(branch) for branch in branches]

    def accuracies(own: pd.DataFrame) -> list[Curve]:
        curves = _curve(own[own["modality"] == modalities[0]], "all", "all modalities", "black")
        for place, name in enumerate(modalities):
            here, color = own[own["modality"] == name], _COLORS[place % len(_COLORS)]
            curves += _curve(here, "alone", f"{name} alone", color)
            if len(modalities) > 2:  # of two, one alone is the other left out
                curves += _curve(here, "without", f"all but {name}", color, "dash")
        return curves

    def kept(own: pd.DataFrame) -> list[Curve]:
        beyond = own.assign(beyond=own["pairs_kept"] - 100 * own["preservation_ratio"])
        named = [(name, beyond[beyond["modality"] == name]) for name in modalities]
        return [
            curve
            for place, (name, here) in enumerate(named)
            for curve in _curve(here, "beyond", f"pairs of {name}", _COLORS[place % len(_COLORS)])
        ]

    def panels(draw: str) -> list[Panel]:
        drawn = []
        for branch, heading in zip(branches, headings, strict=True):
            own = points[points["branch"] == branch]
            if draw == "accuracies":
                drawn.append(Panel(title=heading, curves=accuracies(own)))
            else:
                levels = [Level(y=0.0, color="black", width=0.6)]
                drawn.append(Panel(title="", curves=kept(own), levels=levels))
        return drawn

    return Chart(
        title=f"Which modality carries what: {dataset} ({kind} data), χ = {granularity}, batch size {batch_size}"
        f"{', ' + reading if reading else ''}\ntest values, {over_seeds(points['seed'].nunique())}",
        panels=[panels("accuracies"), panels("kept")],
        columns=[RATIOS] * len(branches),
        rows=[Axis(title="test accuracy (%)"), Axis(title="pairs kept, more or\nless than p (points)")],
        shared_y="row",
        panel_size=(3.4, 2.4),
        legend_per_row=True,
    )


def _curve(points: pd.DataFrame, column: str, label: str, color: str, dash: Dash = "solid") -> list[Curve]:
    """Means over seeds against p; none where nothing was measured."""
    values = points.dropna(subset=[column]).groupby("preservation_ratio")[column].agg(["mean", "std", "count"])
    values = values.sort_index(ascending=False)
    if values.empty:
        return []
    hover = [told(label, f"p {p:g}", *own) for p, own in zip(values.index, values.to_numpy(), strict=True)]
    return [
        Curve(
            x=list(values.index),
            y=list(values["mean"]),
            spread=list(values["std"]),
            band=True,
            color=color,
            dash=dash,
            label=label,
            hover=hover,
            marker="circle",
            size=2.5,
        )
    ]


EXHIBIT = Exhibit(
    name="modalities",
    title="Which modality carries what",
    note="Test accuracy of probes of all modalities' representations side by side, of each one's alone, and of all but "
    "it, at p = 1 and at p* (chosen on validation); and the share of each modality's (token, expert) pairs that is "
    "kept: p for each, up to the rounding of pools, where pairs are ranked among those of a layer and modality. Means "
    "over seeds (sample standard deviation: in brackets and as bands).",
    reads=("rows", "modalities"),
    tables=_tables,
    figures=_figures,
    readings=True,
)

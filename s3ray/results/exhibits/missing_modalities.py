"""What accuracy is left where samples lack modalities; beyond the paper."""

from __future__ import annotations

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import mean_std, over_seeds
from s3ray.results.statistics import CONFIGURATION, best_ratios

_PLACE = ["dataset", "kind", "batch_size", "granularity"]


def _tables(results: Results) -> dict[str, Table]:
    return {"missing_modalities": Table(missing_table(on_test(results)))}


def _figures(results: Results) -> dict[str, Chart]:
    points = on_test(results)
    return {
        f"missing_modalities_batch_{batch_size}": missing_chart(own) for batch_size, own in points.groupby("batch_size")
    }


def on_test(results: Results) -> pd.DataFrame:
    """Test accuracies in percent of what is shown of every branch, p = 1 and p*: `shown`, `order`, `p`, `gone`.

    `gone` is the share that is missing in truth, in percent: of a dataset's draws with one probability the mean.
    """
    points = results.missing
    stars = best_ratios(results.rows)[[*CONFIGURATION, "p_star"]]
    test = points[points["split"] == "test"].merge(stars, how="left")
    full, starred = test["preservation_ratio"] == 1.0, test["preservation_ratio"] == test["p_star"]
    chosen = test[full | starred]
    called = [
        "after Specialization" if branch == "none" else labels.branch_title(branch) for branch in chosen["branch"]
    ]
    pruned = chosen["preservation_ratio"] < 1.0
    positions = [labels.position("s3", branch) for branch in chosen["branch"]]
    return chosen.assign(
        shown=[f"{name}, at p*" if at else name for name, at in zip(called, pruned, strict=True)],
        order=[2 * position + at for position, at in zip(positions, pruned, strict=True)],
        p=[f"p* {p:g}" if p < 1.0 else "1" for p in chosen["preservation_ratio"]],
        accuracy=100 * chosen["accuracy"].astype(float),
        gone=100 * chosen.groupby(["dataset", "missing"])["share_missing"].transform("mean"),
    )


def missing_table(points: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, χ, branch, p = 1 and p*): test accuracy per share missing, `mean (std)`."""
    lines, heads = [], dict[str, float]()
    for (dataset, kind, batch_size, granularity, _), own in points.groupby([*_PLACE, "order"]):
        line = {
            "dataset": f"{dataset} ({kind} data)",
            "batch size": batch_size,
            "χ": granularity,
            "method": f"S3, {own['shown'].iloc[0].removesuffix(', at p*')}",
            "p": own["p"].iloc[0],
        }
        for share, values in own.groupby("gone")["accuracy"]:
            heads[head := f"{float(str(share)):.0f}% missing"] = float(str(share))
            line[head] = mean_std(values.mean(), values.std(ddof=1))
        lines.append(line | {"n": own["seed"].nunique()})
    # Data of other numbers of modalities have other shares.
    places = ["dataset", "batch size", "χ", "method", "p", *sorted(heads, key=lambda head: heads[head]), "n"]
    return pd.DataFrame(lines, columns=places)


def missing_chart(points: pd.DataFrame) -> Chart:
    """Test accuracy against the share missing, a panel per dataset, of S3 at its largest χ.

    Means over seeds of one batch size; bands are one sample standard deviation over seeds.
    """
    datasets, panels = list(dict.fromkeys(points["dataset"])), []
    for dataset in datasets:
        own = points[points["dataset"] == dataset]
        own = own[own["granularity"] == own["granularity"].max()]
        title = f"{dataset} ({own['kind'].iloc[0]} data), χ = {own['granularity'].iloc[0]}"
        panels.append(Panel(title=title, curves=[_curve(line) for _, line in own.groupby("order")]))
    return Chart(
        title=f"Where samples lack modalities, batch size {points['batch_size'].iloc[0]}\n"
        f"test accuracy, {over_seeds(points['seed'].nunique())}",
        panels=[panels],
        columns=[Axis(title="share of modalities\nthat is missing (%)") for _ in datasets],
        rows=[Axis(title="test accuracy (%)")],
    )


def _curve(points: pd.DataFrame) -> Curve:
    branch, name = points["branch"].iloc[0], points["shown"].iloc[0]
    values = points.groupby("gone")["accuracy"].agg(["mean", "std", "count"])
    pruned = points["preservation_ratio"].iloc[0] < 1.0
    hover = [
        told(name, f"{share:.0f}% missing", *own) for share, own in zip(values.index, values.to_numpy(), strict=True)
    ]
    return Curve(
        x=list(map(float, values.index)),
        y=list(values["mean"]),
        spread=list(values["std"]),
        band=True,
        color=labels.STAR if pruned else labels.branch_color(branch),
        label=name,
        hover=hover,
        marker="circle",
    )


EXHIBIT = Exhibit(
    name="missing_modalities",
    title="Where samples lack modalities",
    note="Test accuracy where each modality of every sample is dropped with one probability and at least one stays; a "
    "share is that of all samples' modalities that is missing then. "
    "Encoders are those trained on the data as they are; the probe is fitted on a training split that lacks as much, "
    "with a column per modality that tells who lacks it (ours). At p = 1, and at p*, chosen on validation data as they "
    "are. Means over seeds (sample standard deviation: in brackets and as bands).",
    reads=("rows", "missing"),
    tables=_tables,
    figures=_figures,
)

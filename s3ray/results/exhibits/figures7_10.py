"""Figures 7–10: router entropy during Selection, a figure per dataset."""

from __future__ import annotations

import pandas as pd

from s3ray.results.chart import Axis, Chart, Curve, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import told
from s3ray.results.exhibit import Exhibit
from s3ray.results.formatting import over_seeds

_COLORS = ("#443983", "#21918c", "#90d743", "#e8a838", "#b3446c")  # of rising χ
_SCOPES = ("local", "global")
_POINTS = 300  # of a line: as many as its width shows


def _figures(results: Results) -> dict[str, Chart]:
    charts = {}
    for dataset, facts in results.info["datasets"].items():
        entropies = results.entropies
        usual = (entropies["dataset"] == dataset) & (entropies["batch_size"] == facts["batch_size"])
        own = entropies[usual & (entropies["branch"] == "suff+min")]
        if not own.empty:
            title = f"{dataset} ({facts['kind']} data), batch size {facts['batch_size']}: routers during Selection"
            charts[f"figures7_10_{dataset}"] = entropy_grid(own, title=title)
    return charts


def entropy_grid(entropies: pd.DataFrame, *, title: str) -> Chart:
    """A panel per (modality, scope): router entropy in nats against Selection step, a line per χ."""
    window = -(-(int(entropies["step"].max()) + 1) // _POINTS)
    steps = entropies.assign(step=entropies["step"] // window * window)
    keys = ["modality", "scope", "granularity"]
    per_seed = steps.groupby([*keys, "step", "seed"], sort=False)["entropy"].mean().reset_index()
    lines = dict(iter(per_seed.groupby(keys)))
    modalities = list(dict.fromkeys(entropies["modality"]))
    granularities = sorted(entropies["granularity"].unique())

    def panel(modality: str, scope: str) -> Panel:
        own = [(χ, lines[modality, scope, χ]) for χ in granularities if (modality, scope, χ) in lines]
        curves = [_curve(points, f"χ = {χ}", _COLORS[granularities.index(χ) % len(_COLORS)]) for χ, points in own]
        return Panel(title=f"{modality}, {scope}", curves=curves)

    told_steps = "Selection step" if window == 1 else f"Selection step (means of {window})"
    return Chart(
        title=f"{title} ({over_seeds(entropies['seed'].nunique())})",
        panels=[[panel(modality, scope) for scope in _SCOPES] for modality in modalities],
        columns=[Axis(title=told_steps)] * len(_SCOPES),
        rows=[Axis(title="router entropy (nats)")] * len(modalities),
    )


def _curve(points: pd.DataFrame, label: str, color: str) -> Curve:
    steps = points.groupby("step")["entropy"].agg(["mean", "std", "count"])
    return Curve(
        x=list(map(float, steps.index)),
        y=list(steps["mean"]),
        spread=list(steps["std"]),
        band=True,
        color=color,
        label=label,
        hover=[told(label, f"step {step}", *values) for step, *values in steps.itertuples(name=None)],
        width=1.5,
    )


EXHIBIT = Exhibit(
    name="figures7_10",
    title="Figures 7–10: router entropy during Selection",
    note="Means over seeds, bands of one sample standard deviation, at the usual batch size. Local: of each token's "
    "distribution over experts; global: of the batch's mean distribution.",
    reads=("entropies",),
    figures=_figures,
)

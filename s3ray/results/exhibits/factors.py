"""What representations hold of a simulation's factors, as a table and figures; beyond the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Dash, Level, Panel
from s3ray.results.collect import Results
from s3ray.results.curves import RATIOS, told
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import mean_std, over_seeds
from s3ray.stages.factors import TOGETHER

CONFIGURATION = ["dataset", "kind", "batch_size", "method", "branch", "granularity", "preservation_ratio"]
_QUANTITY = ["quantity", "factor_kind"]

# Shared blue, by two alone green, unique red; the task's factors dark, the others light. Nuisance is grey.
KIND_COLORS = {
    "shared relevant": labels.SELECTED,
    "shared other": "#8fb8de",
    "shared by two relevant": "#2e8b57",
    "shared by two other": "#a8d5ba",
    "unique relevant": "#c0392b",
    "unique other": "#e8a49c",
    "nuisance": labels.UNSELECTED,
}
_SHARED = [kind for kind in KIND_COLORS if kind.startswith("shared")]
_SHARE, _DISTANCE, _BETWEEN = "share of variance", "energy distance", "energy distance between values"
_NATS = {"I(X;Z) bound": labels.REFERENCE, "I(Z;Y) bound": "#d9822b", "I(Z;X|Y) surrogate": "#6a4c93"}
_HEADINGS = {"R2": "R²", _SHARE: "share of variance (%)"}


class _Line(NamedTuple):
    quantity: str
    factor_kind: str
    color: str
    dash: Dash
    label: str


_PANELS: Mapping[str, list[_Line]] = {  # a row of panels each
    "R²": [_Line("R2", kind, color, "solid", kind) for kind, color in KIND_COLORS.items()],
    "share of variance (%)": [_Line(_SHARE, kind, color, "solid", kind) for kind, color in KIND_COLORS.items()],
    "energy distance": [
        *(_Line(_DISTANCE, k, KIND_COLORS[k], "solid", f"between modalities,\ngiven a {k} factor") for k in _SHARED),
        *(_Line(_BETWEEN, k, KIND_COLORS[k], "dash", f"between values of\na {k} factor") for k in _SHARED),
    ],
    "nats": [_Line(quantity, "", color, "solid", quantity) for quantity, color in _NATS.items()],
}


def _tables(results: Results) -> dict[str, Table]:
    return {"factors": Table(factor_table(results.factors))}


def _figures(results: Results) -> dict[str, Chart]:
    return {
        f"factors_{dataset}_batch_{batch_size}": factor_chart(own)
        for (dataset, batch_size), own in results.factors.groupby(["dataset", "batch_size"], sort=False)
        if not means_on_test(own).empty
    }


def factor_table(points: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, method, χ, p): test values, means over a kind's factors, `mean (std)`.

    Std and n are over seeds. Energy distances are means over all shared factors.
    """
    energy = points["quantity"].str.startswith("energy")
    summary = means_on_test(points.assign(factor_kind=points["factor_kind"].mask(energy, "")))
    columns = [(quantity, kind) for quantity in ("R2", _SHARE) for kind in kinds_in(points)]
    columns += [(quantity, "") for quantity in (_DISTANCE, "energy coefficient", _BETWEEN)]
    columns += [(quantity, "") for quantity in (*_NATS, "1 - cosine to class mean")]
    positions = [labels.position(*output) for output in zip(summary["method"], summary["branch"], strict=True)]
    ordered = summary.assign(position=positions).sort_values(
        ["dataset", "batch_size", "position", "method", "granularity", "preservation_ratio"],
        ascending=[True] * 5 + [False],
    )
    lines = []
    for configuration, values in ordered.groupby(CONFIGURATION, sort=False):
        dataset, kind, batch_size, method, branch, granularity, ratio = configuration
        measured = values[[*_QUANTITY, "mean", "std"]].itertuples(index=False, name=None)
        cells = {(quantity, factor_kind): mean_std(mean, std) for quantity, factor_kind, mean, std in measured}
        line = {
            "dataset": f"{dataset} ({kind} data)",
            "batch size": batch_size,
            "method": labels.title(str(method), str(branch)),
            "χ": granularity,
            "p": f"{ratio:g}",
        }
        for quantity, factor_kind in columns:
            name = f"{_HEADINGS.get(quantity, quantity)} {factor_kind}".strip()
            line[name] = cells.get((quantity, factor_kind), "")
        lines.append(line | {"n": values["n"].max()})
    return pd.DataFrame(lines)


def kinds_in(points: pd.DataFrame) -> list[str]:
    """The kinds that a table has columns of; what two modalities share alone only if there are three or more."""
    found = set(points["factor_kind"])
    return [kind for kind in KIND_COLORS if kind in found or not kind.startswith("shared by two")]


def factor_chart(points: pd.DataFrame) -> Chart:
    """R², shares of variance, energy distances and bounds against p, for one dataset at one batch size.

    A column per branch of S3 at its largest χ, then one for the methods that are not pruned. Test values: means
    over a kind's factors and over seeds; bands and error bars are one sample standard deviation over seeds.
    """
    settings = points[["dataset", "kind", "batch_size"]].drop_duplicates()
    assert len(settings) == 1, f"a figure is of one dataset at one batch size, not of {len(settings)}"
    dataset, kind, batch_size = settings.iloc[0]
    summary = means_on_test(points)
    s3, others = summary[summary["method"] == "s3"], summary[summary["method"] != "s3"]
    s3 = s3[s3["granularity"] == s3["granularity"].max()]
    branches = [branch for branch in labels.branches() if branch in set(s3["branch"])]
    methods = sorted(set(others[["method", "branch"]].itertuples(index=False, name=None)))
    methods.sort(key=lambda output: labels.position(*output))

    columns = [RATIOS] * len(branches)
    headings = ["after Specialization" if branch == "none" else labels.branch_title(branch) for branch in branches]
    widths = [1.0] * len(branches)
    if methods:
        columns.append(Axis(ticks={float(place): labels.title(*output) for place, output in enumerate(methods)}))
        headings.append("other methods (p = 1)")
        widths.append(0.25 + 0.11 * len(methods))

    panels = []
    for number, lines in enumerate(_PANELS.values()):
        drawn = [_curves(s3[s3["branch"] == branch], lines) for branch in branches]
        drawn += [_levels(others, methods, lines)] * bool(methods)
        named = zip(headings, drawn, strict=True)
        zero = [Level(y=0.0, color="black", width=0.6)]
        panels.append([Panel(title="" if number else title, curves=own, levels=zero) for title, own in named])
    s3_setting = f", S3 at χ = {s3['granularity'].iloc[0]}" if branches else ""
    return Chart(
        title=f"What representations keep: {dataset} ({kind} data){s3_setting}, batch size {batch_size}\n"
        f"test values, {over_seeds(summary['n'].max())}",
        panels=panels,
        columns=columns,
        rows=[
            _share_axis(name) if lines[0].quantity == _SHARE else Axis(title=name) for name, lines in _PANELS.items()
        ],
        shared_y="row",
        widths=widths,
        panel_size=(3.4, 2.2),
        legend_per_row=True,
    )


def _share_axis(title: str) -> Axis:
    """Logarithmic: factors fade by orders of magnitude. Linear below 1 %: by chance a share is negative."""
    return Axis(
        title=title, symlog=True, ticks={place: f"{place}" for place in (0, 1, 3, 10, 30, 100)}, limits=(-0.6, 100)
    )


def _curves(summary: pd.DataFrame, lines: Sequence[_Line]) -> list[Curve]:
    curves = []
    for quantity, factor_kind, color, dash, label in lines:
        own = summary[(summary["quantity"] == quantity) & (summary["factor_kind"] == factor_kind)]
        own = own.sort_values("preservation_ratio", ascending=False)
        points = own[["preservation_ratio", "mean", "std", "n"]].itertuples(index=False, name=None)
        if len(own):
            curves.append(
                Curve(
                    x=list(own["preservation_ratio"]),
                    y=list(own["mean"]),
                    spread=list(own["std"]),
                    band=True,
                    color=color,
                    dash=dash,
                    label=label,
                    hover=[told(label, f"p {p:g}", *values) for p, *values in points],
                    marker="circle",
                    size=2.5,
                )
            )
    return curves


def _levels(summary: pd.DataFrame, methods: Sequence[tuple[str, str]], lines: Sequence[_Line]) -> list[Curve]:
    """A short horizontal line per method, its deviation at the middle."""
    curves = []
    for quantity, factor_kind, color, dash, label in lines:
        own = summary[(summary["quantity"] == quantity) & (summary["factor_kind"] == factor_kind)]
        found = own.set_index(["method", "branch"]).reindex(list(methods))[["mean", "std", "n"]]
        x, y, spread, hover = [], [], [], []
        for place, (output, (mean, std, n)) in enumerate(
            zip(methods, found.itertuples(index=False, name=None), strict=True)
        ):
            x += [place - 0.35, place, place + 0.35, place + 0.35]
            y += [mean, mean, mean, math.nan]
            spread += [math.nan, std, math.nan, math.nan]
            words = told(label, labels.title(*output), mean, std, n) if pd.notna(mean) else ""
            hover += [words, words, words, ""]
        if found["mean"].notna().any():
            drawn = Curve(x=x, y=y, spread=spread, color=color, dash=dash, label=label, hover=hover, width=1.8)
            curves.append(drawn)
    return curves


def means_on_test(points: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Mean, std and n over seeds of what was read from all modalities on test; each seed the mean over factors.

    Shares of variance are in percent. What routing has is also averaged over layers.

    Args:
        more: columns whose values are kept apart.
    """
    test = points[(points["split"] == "test") & (points["modality"] == TOGETHER) & points["value"].notna()]
    test = test.assign(value=test["value"].where(test["quantity"] != _SHARE, 100 * test["value"]))
    keys = [*CONFIGURATION, *_QUANTITY, *more]
    per_seed = test.groupby([*keys, "seed"], sort=False)["value"].mean().reset_index()
    return (
        per_seed.groupby(keys, sort=False)["value"]
        .agg(mean="mean", std=lambda values: values.std(ddof=1), n="count")
        .reset_index()
    )


EXHIBIT = Exhibit(
    name="factors",
    title="What representations keep",
    note="Test values, means over a kind's factors and over seeds (sample standard deviation over seeds: in brackets, "
    "as bands and bars).",
    reads=("factors",),
    tables=_tables,
    figures=_figures,
)

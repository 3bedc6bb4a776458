"""What was kept of a simulation's factors, as a table and a figure; the measurements are `s3ray.stages.kept`'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s3ray.results.figures import BRANCH_LABELS, REFERENCE, SELECTED, UNSELECTED, over_seeds
from s3ray.results.tables import METHODS, mean_std

_CONFIGURATION = ["dataset", "kind", "batch_size", "method", "branch", "granularity", "preservation_ratio"]
_QUANTITY = ["quantity", "factor_kind"]

# Shared blue, unique red; the task's factors dark, the others light. Nuisance is grey.
_COLORS = {
    "shared relevant": SELECTED,
    "shared other": "#8fb8de",
    "unique relevant": "#c0392b",
    "unique other": "#e8a49c",
    "nuisance": UNSELECTED,
}
_SHARE, _DISTANCE, _BETWEEN = "share of variance", "energy distance", "energy distance between values"
_NATS = {"I(X;Z) bound": REFERENCE, "I(Z;Y) bound": "#d9822b", "I(Z;X|Y) surrogate": "#6a4c93"}
_HEADINGS = {"R2": "R²", _SHARE: "share of variance (%)"}
_Curve = tuple[str, str, str, str, str]  # quantity, kind of factor, color, line style, label
_PANELS: Mapping[str, list[_Curve]] = {  # a row of panels each
    "R²": [("R2", kind, color, "-", kind) for kind, color in _COLORS.items()],
    "share of variance (%)": [(_SHARE, kind, color, "-", kind) for kind, color in _COLORS.items()],
    "energy distance": [
        *((_DISTANCE, k, _COLORS[k], "-", f"between modalities,\ngiven a {k} factor") for k in list(_COLORS)[:2]),
        *((_BETWEEN, k, _COLORS[k], "--", f"between values of\na {k} factor") for k in list(_COLORS)[:2]),
    ],
    "nats": [(quantity, "", color, "-", quantity) for quantity, color in _NATS.items()],
}


def kept_table(points: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, method, χ, p): test values, means over a kind's factors, `mean (std)`.

    Std and n are over seeds. Energy distances are means over all shared factors.
    """
    energy = points["quantity"].str.startswith("energy")
    summary = _summary(points.assign(factor_kind=points["factor_kind"].mask(energy, "")))
    columns = [(quantity, kind) for quantity in ("R2", _SHARE) for kind in _COLORS]
    columns += [(quantity, "") for quantity in (_DISTANCE, "energy coefficient", _BETWEEN)]
    columns += [(quantity, "") for quantity in (*_NATS, "1 - cosine to class mean")]
    positions = [_position(method) for method in zip(summary["method"], summary["branch"], strict=True)]
    ordered = summary.assign(position=positions).sort_values(
        ["dataset", "batch_size", "position", "method", "granularity", "preservation_ratio"],
        ascending=[True] * 5 + [False],
    )
    lines = []
    for configuration, values in ordered.groupby(_CONFIGURATION, sort=False):
        dataset, kind, batch_size, method, branch, granularity, ratio = configuration
        measured = values[[*_QUANTITY, "mean", "std"]].itertuples(index=False, name=None)
        cells = {(quantity, factor_kind): mean_std(mean, std) for quantity, factor_kind, mean, std in measured}
        line = {
            "dataset": f"{dataset} ({kind} data)",
            "batch size": batch_size,
            "method": _name(str(method), str(branch)),
            "χ": granularity,
            "p": f"{ratio:g}",
        }
        for quantity, factor_kind in columns:
            name = f"{_HEADINGS.get(quantity, quantity)} {factor_kind}".strip()
            line[name] = cells.get((quantity, factor_kind), "")
        lines.append(line | {"n": values["n"].max()})
    return pd.DataFrame(lines)


def is_shown(points: pd.DataFrame) -> bool:
    """Whether there is anything to draw: test values of both modalities."""
    return not _summary(points).empty


def kept_figure(points: pd.DataFrame) -> Figure:
    """R², shares of variance, energy distances and bounds against p, for one dataset at one batch size.

    A column per branch of S3 at its largest χ, then one for the methods that are not pruned. Test values: means
    over a kind's factors and over seeds; bands and error bars are one sample standard deviation over seeds.
    """
    settings = points[["dataset", "kind", "batch_size"]].drop_duplicates()
    assert len(settings) == 1, f"a figure is of one dataset at one batch size, not of {len(settings)}"
    dataset, kind, batch_size = settings.iloc[0]
    summary = _summary(points)
    s3, others = summary[summary["method"] == "s3"], summary[summary["method"] != "s3"]
    s3 = s3[s3["granularity"] == s3["granularity"].max()]
    branches = [branch for branch in BRANCH_LABELS if branch in set(s3["branch"])]
    methods = sorted(set(others[["method", "branch"]].itertuples(index=False, name=None)))
    methods.sort(key=_position)
    widths = [1.0] * len(branches) + [0.25 + 0.11 * len(methods)] * bool(methods)
    figure, axes = plt.subplots(
        len(_PANELS),
        len(widths),
        figsize=(3.4 * sum(widths) + 2.4, 2.2 * len(_PANELS) + 0.8),
        sharex="col",
        sharey="row",
        squeeze=False,
        width_ratios=widths,
        layout="constrained",
    )
    for row, (quantity, curves) in zip(axes, _PANELS.items(), strict=True):
        for axis, branch in zip(row, branches, strict=False):
            _curves(axis, s3[s3["branch"] == branch], curves)
        if methods:
            _levels(row[-1], others, methods, curves)
        for axis in row:
            axis.axhline(0.0, color="black", linewidth=0.6, zorder=0)
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(quantity)
        if curves[0][0] == _SHARE:
            # Logarithmic: factors fade by orders of magnitude. Linear below 1 %: by chance a share is negative.
            row[0].set_yscale("symlog", linthresh=1, linscale=0.5)
            row[0].yaxis.set_major_formatter("{x:g}")
            row[0].set_yticks([0, 1, 3, 10, 30, 100])
            row[0].set_ylim(-0.6, 100)
        # Beside its row: the rows' curves have nothing to do with each other.
        row[-1].legend(
            *row[0].get_legend_handles_labels(),
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            frameon=False,
            fontsize=8,
        )
    for axis, top, branch in zip(axes[-1], axes[0], branches, strict=False):
        axis.set_xlabel("preservation ratio p")
        axis.xaxis.set_inverted(True)  # pruning goes to the right
        top.set_title("after Specialization" if branch == "none" else BRANCH_LABELS[branch], fontsize=10)
    if methods:
        axes[-1, -1].set_xticks(range(len(methods)), [_name(*m) for m in methods], rotation=90, fontsize=8)
        axes[0, -1].set_title("other methods (p = 1)", fontsize=10)
    s3_setting = f", S3 at χ = {s3['granularity'].iloc[0]}" if branches else ""
    figure.suptitle(
        f"What representations keep: {dataset} ({kind} data){s3_setting}, batch size {batch_size}\n"
        f"test values, {over_seeds(summary['n'].max())}",
        fontsize=11,
    )
    return figure


def _curves(axis: Axes, summary: pd.DataFrame, curves: Sequence[_Curve]) -> None:
    for quantity, factor_kind, color, style, label in curves:
        own = summary[(summary["quantity"] == quantity) & (summary["factor_kind"] == factor_kind)]
        own = own.sort_values("preservation_ratio", ascending=False)
        ratios, mean = own["preservation_ratio"], own["mean"]
        axis.plot(ratios, mean, style, color=color, linewidth=1.6, marker="o", markersize=2.5, label=label)
        axis.fill_between(ratios, mean - own["std"], mean + own["std"], color=color, alpha=0.2, linewidth=0)


def _levels(axis: Axes, summary: pd.DataFrame, methods: Sequence[tuple[str, str]], curves: Sequence[_Curve]) -> None:
    """A short horizontal line per method."""
    for quantity, factor_kind, color, style, label in curves:
        own = summary[(summary["quantity"] == quantity) & (summary["factor_kind"] == factor_kind)]
        found = own.set_index(["method", "branch"]).reindex(list(methods))
        x = [end for position in range(len(methods)) for end in (position - 0.35, position + 0.35, float("nan"))]
        y = [end for mean in found["mean"] for end in (mean, mean, float("nan"))]
        axis.plot(x, y, style, color=color, linewidth=1.8, label=label)
        axis.errorbar(range(len(methods)), found["mean"], yerr=found["std"], fmt="none", color=color, elinewidth=0.8)


def _summary(points: pd.DataFrame) -> pd.DataFrame:
    """Mean, std and n over seeds of what was read from both modalities on test; each seed the mean over factors.

    Shares are in percent.
    """
    test = points[(points["split"] == "test") & (points["modality"] == "both") & points["value"].notna()]
    test = test.assign(value=test["value"].where(test["quantity"] != _SHARE, 100 * test["value"]))
    keys = [*_CONFIGURATION, *_QUANTITY]
    per_seed = test.groupby([*keys, "seed"], sort=False)["value"].mean().reset_index()
    return (
        per_seed.groupby(keys, sort=False)["value"]
        .agg(mean="mean", std=lambda values: values.std(ddof=1), n="count")
        .reset_index()
    )


def _position(method: tuple[str, str]) -> int:
    """S3 by branch, then Table 2's methods, then any other."""
    order = [*(("s3", branch) for branch in BRANCH_LABELS), *METHODS]
    return order.index(method) if method in order else len(order)


def _name(method: str, branch: str) -> str:
    if method == "s3":
        return f"S3, {BRANCH_LABELS[branch]}"
    return METHODS.get((method, branch), method if branch == "none" else f"{method}-{branch}")

"""One page with everything a sweep has shown: self-contained HTML, and its figures and tables as files."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from s3ray.errors import UserError
from s3ray.results.artefacts import figures, note, tables, title
from s3ray.results.collect import Results
from s3ray.results.compare import compare_results
from s3ray.results.compare import summary as compare_summary
from s3ray.results.figures import BRANCH_LABELS, SELECTED, UNSELECTED, render
from s3ray.results.statistics import best_ratios
from s3ray.results.tables import latex, markdown, mean_std, readable, references_on_test
from s3ray.search.findings import SearchResults
from s3ray.store import Store
from s3ray.sweep.cost import duration

_COLORS = {"none": UNSELECTED, "suff+min": SELECTED, "suff": "#7b4fa3", "min": "#d9822b"}  # per branch
# Drawn interactively on the page; the files keep the printed ones.
_INTERACTIVE = ("figure3", "figure5")
_HIDDEN = ("summary",)
_CSS_PIXELS = 96  # per inch


def write_report(results: Results, output: Store, searches: Sequence[SearchResults] = ()) -> str:
    """Write `index.html`, `figures/` and `tables/` to `output`; returns where the page is.

    The page needs no network: scripts and pictures are inside. Files of an earlier report give way.

    Raises:
        UserError: a page is there that is no report.
    """
    if "index.html" in output.names() and "files.json" not in output.names():
        raise UserError(f"{output.address('index.html')}: is somebody's own; choose another folder for the report")
    files: dict[str, bytes | str] = {}
    pictures = []
    for name, figure in figures(results).items():
        for suffix in ("png", "pdf"):
            picture = render(figure, suffix)
            files[f"figures/{name}.{suffix}"] = picture
            if suffix == "png" and not name.startswith(_INTERACTIVE):
                width = round(_CSS_PIXELS * figure.get_figwidth())
                pictures.append({"title": title(name), "png": base64.b64encode(picture).decode(), "width": width})
        plt.close(figure)
    shown = []
    all_tables = tables(results)
    if _is_real(results):
        all_tables["compare"] = compare_results(results)
    for name, table in all_tables.items():
        # What is computed with rather than read: its CSV file holds it as it is, all else this.
        shorter = _readable_comparison(table) if name == "compare" else table
        text = {"md": markdown(shorter), "csv": table.to_csv(index=False), "tex": latex(shorter)}
        for suffix, content in text.items():
            files[f"tables/{name}.{suffix}"] = content
        if name not in _HIDDEN:
            shown.append({"name": name, "title": title(name), "note": note(name, results), **_cells(shorter)})
    for search in searches:
        files[f"tables/{search.name}.csv"] = search.trials.to_csv(index=False)
    files["index.html"] = _render(results, pictures, shown, all_tables, searches)
    output.write_folder(files, {"sweep": results.info["sweep"]}, listing="files.json")
    return output.address("index.html")


def _is_real(results: Results) -> bool:
    return bool(len(results.rows)) and bool((results.rows["kind"] == "multibench").all())


def _render(
    results: Results,
    pictures: list[dict[str, Any]],
    shown: list[dict[str, Any]],
    tables: Mapping[str, pd.DataFrame],
    searches: Sequence[SearchResults],
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("s3ray.results"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    info = results.info
    stages = info["plan"]["stages"]
    cost = [
        {"stage": stage, **counts, "took": duration(info["stage_seconds"].get(stage, 0.0))}
        for stage, counts in stages.items()
    ]
    return environment.get_template("report.html.j2").render(
        info=info,
        cost=cost,
        total=duration(sum(info["stage_seconds"].values())),
        curves=_curves(results, tables),
        searches=[_search(search) for search in searches],
        pictures=pictures,
        tables=shown,
        comparison=compare_summary(tables["compare"]) if "compare" in tables else None,
        provenance=_provenance(results.rows),
        plotly=get_plotlyjs(),
        version=version("s3ray"),
    )


def _provenance(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Every distinct value of what the rows were computed with."""
    columns = ["code_revision", "s3ray", "torch", "scikit_learn", "ray", "python", "hardware", "workers"]
    return {name: sorted(rows[name].dropna().astype(str).unique()) for name in columns if name in rows}


def _cells(table: pd.DataFrame) -> dict[str, Any]:
    """A table's rows and columns; of those that hold words (`+ Selection`) or nothing, that they do."""
    rows = readable(table).to_numpy().tolist()
    words = [all(cell.lstrip("+ ")[:1].isalpha() for cell in column if cell) for column in zip(*rows, strict=True)]
    return {"columns": list(zip(map(str, table.columns), words, strict=True)), "rows": rows}


def _signed(points: float, digits: int = 2) -> str:
    return f"{round(points, digits) + 0.0:+.{digits}f}"  # no -0.00


def _readable_comparison(comparison: pd.DataFrame) -> pd.DataFrame:
    """A line per printed number: ours, the paper's, the difference with its 90 % interval, the verdict."""
    lines = []
    for _, line in comparison.iterrows():
        digits = 4 if line["table"] == 4 else 2
        interval = f" [{_signed(line['low'])}, {_signed(line['high'])}]" if pd.notna(line["low"]) else ""
        difference = _signed(line["difference"], digits) + interval if pd.notna(line["difference"]) else ""
        lines.append(
            {
                "table": line["table"],
                "dataset": line["dataset"],
                "χ": line["granularity"],
                "entry": line["entry"],
                "p": f"{line['preservation_ratio']:g}" if pd.notna(line["preservation_ratio"]) else "",
                "ours": "" if pd.isna(line["mean"]) else mean_std(line["mean"], line["std"], digits),
                "n": f"{line['n']:.0f}" if pd.notna(line["n"]) else "",
                "paper": mean_std(line["published_mean"], line["published_std"], digits),
                "difference [90 %]": difference,
                "verdict": line["verdict"],
                "note": line["note"],
            }
        )
    return pd.DataFrame(lines)


def _curves(results: Results, tables: Mapping[str, pd.DataFrame]) -> list[dict[str, Any]]:
    """Per dataset the interactive pruning curves: heading, height in pixels and plotly's JSON."""
    if results.rows.empty:
        return []
    summary, rows = tables["summary"], results.rows
    chosen = (summary["method"] == "s3") & (summary["split"] == "test") & summary["mean"].notna()
    best = best_ratios(rows[(rows["method"] == "s3") & (rows["branch"] == "suff+min")])  # the branch with a star
    curves = []
    for dataset, own in summary[chosen].groupby("dataset", sort=False):
        figure = _curve_grid(
            own, best[best["dataset"] == dataset], references_on_test(results.references, str(dataset))
        )
        heading = f"{dataset} ({own['kind'].iloc[0]} data, {own['scale'].iloc[0]} scale)"
        curves.append(_embedded(heading, figure))
    return curves


def _embedded(heading: str, figure: go.Figure) -> dict[str, Any]:
    # A name with a tag in it must not end the script element.
    json = str(figure.to_json()).replace("<", "\\u003c")
    return {"title": heading, "height": figure.layout.height, "json": json}


def _search(search: SearchResults) -> dict[str, Any]:
    for _, figure in search.figures:
        figure.update_layout(template="plotly_white", title=None, margin={"t": 50, "b": 50})
    table = search.trials.rename(columns={"accuracy": "validation (%)"})
    table.columns = table.columns.str.replace("optimizer.", "", regex=False)
    figures = [_embedded(heading, figure) for heading, figure in search.figures]
    return {"name": search.name, "title": search.title, "note": search.note, "figures": figures, **_cells(table)}


def _curve_grid(summary: pd.DataFrame, best: pd.DataFrame, references: Mapping[str, float]) -> go.Figure:
    """χ × batch size: test accuracy against p; hovering a point gives mean, std and n."""
    granularities, batches = sorted(summary["granularity"].unique()), sorted(summary["batch_size"].unique())
    titles = [f"χ = {granularity}, batch {batch}" for granularity in granularities for batch in batches]
    figure = make_subplots(
        len(granularities), len(batches), shared_xaxes=True, shared_yaxes=True, subplot_titles=titles,
        vertical_spacing=0.08, horizontal_spacing=0.03,
    )  # fmt: skip
    named: set[str] = set()
    for (granularity, batch, branch), curve in summary.groupby(["granularity", "batch_size", "branch"]):
        place = {"row": granularities.index(granularity) + 1, "col": batches.index(batch) + 1}
        curve = curve.sort_values("preservation_ratio", ascending=False)
        name = BRANCH_LABELS[str(branch)]
        figure.add_trace(_trace(curve, name, _COLORS[str(branch)], name not in named), **place)
        named.add(name)
        if branch == "suff+min":
            keys = (best["granularity"] == granularity) & (best["batch_size"] == batch)
            for _, choice in best[keys].iterrows():
                figure.add_trace(_star(choice, "p*" not in named), **place)
                named.add("p*")
    if "raw features" in references:
        figure.add_hline(100 * references["raw features"], line={"color": "#2e7d32", "dash": "dashdot", "width": 1})
    figure.update_xaxes(autorange="reversed", dtick=0.2)
    figure.update_xaxes(title_text="preservation ratio p", row=len(granularities))
    figure.update_yaxes(title_text="test accuracy (%)", col=1)
    figure.update_layout(
        height=270 * len(granularities) + 60, template="plotly_white", margin={"l": 60, "r": 20, "t": 70, "b": 50},
        legend={"orientation": "h", "y": 1.0, "yanchor": "top", "yref": "container"}, hovermode="closest",
    )  # fmt: skip
    return figure


def _trace(curve: pd.DataFrame, name: str, color: str, is_first: bool) -> Any:
    return go.Scatter(
        x=curve["preservation_ratio"].tolist(),
        y=(100 * curve["mean"]).tolist(),
        error_y={"array": (100 * curve["std"]).tolist(), "thickness": 1, "width": 3},
        hovertemplate=[
            f"{name}<br>p %{{x}}<br>mean %{{y:.2f}} %"
            + (f"<br>std {100 * std:.2f}" if pd.notna(std) else "")
            + f"<br>n {n}<extra></extra>"
            for std, n in zip(curve["std"], curve["n"], strict=True)
        ],
        mode="lines+markers",
        line={"color": color, "width": 2},
        name=name,
        legendgroup=name,
        showlegend=is_first,
    )


def _star(choice: Any, is_first: bool) -> Any:
    return go.Scatter(
        x=[choice["p_star"]],
        y=[100 * choice["test"]],
        hoverinfo="skip",  # its curve's point lies under it and says more
        mode="markers",
        marker={"symbol": "star", "size": 14, "color": "#c0392b"},
        name="p*, chosen on validation",
        legendgroup="p*",
        showlegend=is_first,
    )

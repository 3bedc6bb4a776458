"""What a sweep has shown: one self-contained page, and its figures and tables as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

import s3ray
from s3ray.data.facts import told_missing
from s3ray.errors import UserError
from s3ray.results.collect import Results
from s3ray.results.columns import PROVENANCE
from s3ray.results.compare import comparison_table
from s3ray.results.compare import summary as compare_summary
from s3ray.results.exhibit import Table
from s3ray.results.exhibits import answers
from s3ray.results.findings import findings
from s3ray.results.formatting import readable
from s3ray.results.interactive import interactive
from s3ray.results.render import Rendered, chart_files, charts, render, table_files, tables
from s3ray.search.findings import SearchResults
from s3ray.store import Store
from s3ray.sweep import Plan
from s3ray.sweep.timing import between, duration

_LONG = 12  # lines; a table with more is folded by dataset


def write_results(plan: Plan, store: Store, calls: Sequence[Mapping[str, Any]] = ()) -> tuple[Results, list[str]]:
    """Collect a plan's rows; write tables, figures and the page to `results/<study>/`, if there is anything to show.

    Args:
        calls: what was predicted of the calls that computed it just now, and what they took; without any, of those
            that did before.

    Returns:
        Both: the tables, and the names of the files.
    """
    results = Results.collect(plan, store)
    if results.rows.empty and plan.cells:
        return results, []
    if not calls:
        with suppress(FileNotFoundError, UserError):  # damaged: they are written anew
            calls = store.folder_info("results", results.study).get("calls", ())
    results = replace(results, info={**results.info, "calls": list(calls)})
    return results, results.save(store, _files(results))


def write_report(results: Results, output: Store, searches: Sequence[SearchResults] = ()) -> str:
    """Write `index.html`, `figures/` and `tables/` to `output`; returns where the page is.

    The page needs no network: scripts and figures are inside. Files of an earlier report give way.

    Raises:
        UserError: a page is there that is no report.
    """
    if "index.html" in output.names() and "files.json" not in output.names():
        raise UserError(f"{output.address('index.html')}: is somebody's own; choose another folder for the report")
    output.write_folder(_files(results, searches), {"sweep": results.info["sweep"]}, listing="files.json")
    return output.address("index.html")


def _files(results: Results, searches: Sequence[SearchResults] = ()) -> dict[str, bytes | str]:
    """The page, and what it links to."""
    rendered = render(results)
    beside = {"compare": comparison_table(results)} if _is_real(results) else {}
    files: dict[str, bytes | str] = {}
    for name, chart in charts(rendered).items():
        files |= {f"figures/{name}.{suffix}": picture for suffix, picture in chart_files(chart).items()}
    for name, table in (tables(rendered) | beside).items():
        files |= {f"tables/{name}.{suffix}": text for suffix, text in table_files(table).items()}
    for search in searches:
        files[f"tables/{search.name}.csv"] = search.trials.to_csv(index=False)
    files["index.html"] = _page(results, rendered, beside, searches, list(files))
    return files


def _is_real(results: Results) -> bool:
    rows = results.usual.rows
    return bool(len(rows)) and bool((rows["kind"] == "multibench").all())


def _page(
    results: Results,
    rendered: list[Rendered],
    beside: Mapping[str, Table],
    searches: Sequence[SearchResults],
    files: Sequence[str],
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
    on_page = [one for one in rendered if one.exhibit.on_page]
    drawn = [_figures(one) for one in on_page if one.charts]
    picture = drawn[0]["figures"].pop(0) if drawn else None  # stands beside the findings
    shown = {**tables(on_page), **beside}
    return environment.get_template("report.html.j2").render(
        info=info,
        told_missing=told_missing,
        answers=answers(results),
        findings=findings(results),
        cost=cost,
        calls=[_predicted(call) for call in info.get("calls", ())],
        total=duration(sum(info["stage_seconds"].values())),
        picture=picture,
        exhibits=drawn,
        searches=[_search(search) for search in searches],
        tables=[
            {"name": name, "title": t.title, "note": t.note, **_cells(t.shown, t.pinned)} for name, t in shown.items()
        ],
        comparison=compare_summary(beside["compare"].frame) if beside else None,
        provenance=_provenance(results.rows),
        plotly=get_plotlyjs() if searches else None,  # 4.9 MB, of which browsers read one a second
        files=_linked(files),
        version=s3ray.__version__,
    )


def _predicted(call: Mapping[str, Any]) -> str:
    return (
        f"Computed last, of {call['what']}: {call['cells']} cells, {call['at_once']} at a time, in "
        f"{duration(call['seconds'])}; {between(*call['predicted_seconds'])} had been predicted."
    )


def _linked(files: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is beside the page: name, and per kind of file its link."""
    linked: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        name, _, suffix = file.rpartition(".")
        linked.setdefault(name.partition("/")[2], []).append((suffix, quote(file)))
    return sorted(linked.items())


def _figures(rendered: Rendered) -> dict[str, Any]:
    figures = [_embedded(chart.title, interactive(chart)) for chart in rendered.charts.values()]
    return {"name": rendered.exhibit.name, "title": rendered.exhibit.title, "note": rendered.note, "figures": figures}


def _provenance(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Every distinct value of what the rows were computed with."""
    shared = [name for name in PROVENANCE if name not in ("identity", "data_fingerprint", "committed_at")]
    return {name: sorted(rows[name].dropna().astype(str).unique()) for name in shared if name in rows}


def _cells(table: pd.DataFrame, pinned: Sequence[str] = ()) -> dict[str, Any]:
    """A table in groups of rows: one, or of a long table one per dataset, which is then no column if all rows name it.

    Columns are those of `pinned` first, each with whether it holds words (`+ Selection`) or nothing, and whether it is
    pinned.
    """
    text = readable(table.rename(columns=str))
    groups = [("", text)]
    if "dataset" in text and len(text) > _LONG:
        # The paper's lines, `mosi (paper)`, stand with ours, `mosi (multibench data)`.
        by_dataset = list(text.groupby(text["dataset"].str.partition(" (")[0], sort=False))
        if len(by_dataset) > 1:
            groups = [(_summary(own), own) for _, own in by_dataset]
    is_told = len(groups) > 1 and all(own["dataset"].nunique() == 1 for _, own in groups)
    known = [name for name in pinned if name in text] or list(text.columns[is_told : is_told + 1])
    first = [] if is_told or "dataset" in known or "dataset" not in text else ["dataset"]
    front = [*first, *known]
    order = [*front, *(name for name in text if name not in front and not (is_told and name == "dataset"))]
    columns = [
        (name, all(cell.lstrip("+ ")[:1].isalpha() for cell in text[name] if cell), name in front) for name in order
    ]
    return {
        "columns": columns,
        "groups": [{"title": title, "rows": own[order].to_numpy().tolist()} for title, own in groups],
    }


def _summary(rows: pd.DataFrame) -> str:
    """What stands on a folded part of a table: whose lines, how many, and what they come to."""
    verdicts = dict(rows["verdict"].value_counts()) if "verdict" in rows else {}
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if verdict)
    return f"{rows['dataset'].iloc[0]}: {len(rows)} lines" + (f" ({counts})" if counts else "")


def _embedded(heading: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    # A name with a tag in it must not end the script element.
    text = json.dumps(figure, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return {"title": heading, "json": text}


def _search(search: SearchResults) -> dict[str, Any]:
    for _, figure in search.figures:
        figure.update_layout(template="plotly_white", title=None, margin={"t": 50, "b": 50})
    table = search.trials.rename(columns={"accuracy": "validation (%)"})
    table.columns = table.columns.str.replace("optimizer.", "", regex=False)
    figures = [_embedded(heading, json.loads(figure.to_json())) for heading, figure in search.figures]
    return {"name": search.name, "title": search.title, "note": search.note, "figures": figures, **_cells(table)}

"""A sweep's exhibits, built once: for its folder of results, and for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from s3ray.data.facts import told_missing
from s3ray.results.chart import Chart
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.exhibits import asked_for
from s3ray.results.formatting import latex, markdown, without_tags


@dataclass(frozen=True)
class Rendered:
    """An exhibit with what was made of it.

    Attributes:
        note: the exhibit's, and the data.
        tables: by file name, with title and note.
        charts: by file name.
    """

    exhibit: Exhibit
    note: str
    tables: Mapping[str, Table]
    charts: Mapping[str, Chart]


def render(results: Results) -> list[Rendered]:
    """What a sweep's exhibits come to.

    Raises:
        UserError: the sweep names an exhibit that there is not.
    """
    data = _data_note(results)
    rendered = []
    for exhibit in asked_for(results.info["sweep"], results.info["exhibits"]):
        seen = exhibit.seen(results)
        if any(seen.frames[name].empty for name in exhibit.reads):
            continue
        about = f" Data: {data}." if exhibit.reads else ""
        tables = {
            name: replace(t, title=t.title or exhibit.title, note=f"{t.note or exhibit.note}{about}".strip())
            for name, t in exhibit.tables(seen).items()
            if not t.frame.empty
        }
        charts = {name: chart for name, chart in exhibit.figures(seen).items() if not chart.is_empty}
        rendered.append(Rendered(exhibit, f"{exhibit.note}{about}".strip(), tables, charts))
    return rendered


def tables(rendered: list[Rendered]) -> dict[str, Table]:
    """All tables, by file name."""
    return {name: table for one in rendered for name, table in one.tables.items()}


def charts(rendered: list[Rendered]) -> dict[str, Chart]:
    """All figures, by file name."""
    return {name: chart for one in rendered for name, chart in one.charts.items()}


def chart_files(chart: Chart) -> dict[str, bytes]:
    """A figure's files by suffix."""
    from s3ray.results import drawing  # matplotlib takes a second to import, and few commands draw

    figure = drawing.draw(chart)
    return {suffix: drawing.render(figure, suffix) for suffix in drawing.SUFFIXES}


def table_files(table: Table) -> dict[str, str]:
    """A table's files by suffix: CSV for those who compute on, Markdown and LaTeX for those who read."""
    head = without_tags(f"# {table.title}\n\n{table.note}")
    return {
        "md": f"{head}\n\n{markdown(table.shown)}",
        "csv": table.frame.to_csv(index=False),
        "tex": latex(table.shown),
    }


def _data_note(results: Results) -> str:
    return "; ".join(_about_dataset(name, facts) for name, facts in results.info["datasets"].items())


def _about_dataset(name: str, facts: Mapping[str, Any]) -> str:
    text = f"{name} is {facts['kind']} data ({' + '.join(facts['modalities'])}, {facts['scale']} scale"
    if facts.get("missing"):
        text += f", {told_missing(facts['missing'], facts['samples'])}"
    if facts["label_rule"]:
        text += f", {facts['label_rule']}"
    if isinstance(facts["best_accuracy"], float):
        text += f", best achievable {100 * facts['best_accuracy']:.1f}"
    return text + ")"

"""Charts as the report's page shows them, by plotly: hovering a point says what it is."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import plotly.io
from matplotlib.scale import SymmetricalLogTransform
from plotly.subplots import make_subplots

from s3ray.results.chart import Axis, Chart, Curve, Level, Panel
from s3ray.results.drawing import SYMLOG

_SHARED: dict[str, Any] = {"": False, "row": True, "column": "columns", "all": "all"}
_PIXELS = 96  # per inch
_POINT = 4 / 3  # pixels
_NARROWEST = 190  # of a panel of width 1, in pixels: a narrower page scrolls
_NOTE_LINE, _LETTER = 15, 5.5  # pixels of a note's line and letter
_TEMPLATE = plotly.io.templates["plotly_white"].to_plotly_json()
_SYMLOG = SymmetricalLogTransform(base=10, **SYMLOG)


def interactive(chart: Chart) -> dict[str, Any]:
    """The chart as plotly.js takes it, `data` and `layout`, of numbers and words alone: ready for JSON.

    Its `layout.meta` says how it is to be laid out on a narrow screen: the least `width` in pixels at which it can be
    read, and of what its panels, one below the other, are made (`columns`, `panels`, their `height` and the `words`
    above each in pixels); none of the latter where every row has a legend of its own.
    """
    rows, columns = len(chart.rows), len(chart.columns)
    lines = [chart.note_lines(row) for row in range(rows)]
    between = _NOTE_LINE * max(lines[1:], default=0)
    panel_height = _PIXELS * chart.panel_size[1]
    height = rows * panel_height + (rows - 1) * between + _NOTE_LINE * lines[0] + 130
    grid = make_subplots(
        rows,
        columns,
        shared_xaxes="columns",
        shared_yaxes=_SHARED[chart.shared_y],
        column_widths=chart.relative_widths,
        subplot_titles=[_text(panel.title) or " " for row in chart.panels for panel in row],
        vertical_spacing=(40 + between) / height if rows > 1 else 0.0,
        horizontal_spacing=(0.05 if chart.shared_y in ("", "column") else 0.03) if columns > 1 else 0.0,
    )
    # Plain from here on: plotly's own objects take seconds to set so many properties.
    layout: dict[str, Any] = grid.to_plotly_json()["layout"]
    every = [panel for row in chart.panels for panel in row]
    for place, (title, panel) in enumerate(zip(layout["annotations"], every, strict=True)):
        own = place + 1 if place else ""
        above = _NOTE_LINE * (panel.note.count("\n") + 1 if panel.note else 0)
        title |= {"font": {"size": 13}, "xref": f"x{own} domain", "x": 0.5, "yref": f"y{own} domain", "y": 1}
        title["yshift"] = above + 2
    data: list[dict[str, Any]] = []
    named: set[tuple[str, str]] = set()
    for row, (panels, y) in enumerate(zip(chart.panels, chart.rows, strict=True)):
        legend = f"legend{row + 1 if row else ''}" if chart.legend_per_row else "legend"
        for column, (panel, x) in enumerate(zip(panels, chart.columns, strict=True)):
            number = str(row * columns + column + 1) if row + column else ""
            axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}

            def entry(label: str, rank: int, legend: str = legend, axes: dict[str, Any] = axes) -> dict[str, Any]:
                is_first = bool(label) and (legend, label) not in named
                named.add((legend, label))
                shown = {"name": _text(label), "legendgroup": f"{legend} {label}", "legend": legend}
                return {"type": "scatter", **axes, **shown, "showlegend": is_first, "legendrank": rank}

            data += [_level(level, panel, entry(level.label, 3), y) for level in panel.levels]
            for curve in panel.curves:
                shown = entry(curve.label, 1 if curve.spread else 2)
                if any(map(math.isfinite, curve.spread)):
                    spread = _band if curve.band else _bars
                    data.append(spread(curve, {**shown, "showlegend": False}, y))
                data.append(_trace(curve, shown, y))
            if panel.note:
                layout["annotations"].append(
                    {
                        **{"text": _text(panel.note), "showarrow": False, "align": "left"},
                        # Above the panel: every corner inside may hold data.
                        **{"xref": f"x{number} domain", "x": 0, "xanchor": "left"},
                        **{"yref": f"y{number} domain", "y": 1, "yanchor": "bottom"},
                        **{"font": {"size": 11, "color": panel.note_color}},
                    }
                )
            layout[f"xaxis{number}"] |= _x_axis(x, x.title if row == rows - 1 else "")
            extent = chart.extent(row, column)
            layout[f"yaxis{number}"] |= _y_axis(y, extent, "" if column else y.title)
    words = _LETTER * max(len(line) for panel in every for line in panel.note.split("\n"))
    layout |= _legends(chart, layout)
    layout |= {
        "height": round(height),
        "template": _TEMPLATE,
        "margin": {"l": 70, "r": 15, "t": 55 + _NOTE_LINE * lines[0], "b": 50},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "meta": {
            "width": round(max(_NARROWEST, words) * sum(chart.relative_widths) + 70 + 190 * chart.legend_per_row),
        }
        | (
            {}
            if chart.legend_per_row
            else {
                "columns": columns,
                "panels": rows * columns,
                "height": round(panel_height),
                "words": _NOTE_LINE * max(lines) + 30,
            }
        ),
    }
    return {"data": [{k: v for k, v in trace.items() if v is not None} for trace in data], "layout": layout}


def _legends(chart: Chart, layout: dict[str, Any]) -> dict[str, Any]:
    if not chart.legend_per_row:
        # At the figure's lower end, however many lines it takes: plotly keeps that much below the axis' name.
        return {
            "legend": {
                "orientation": "h",
                "x": 0,
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "font": {"size": 12},
            }
        }
    legends = {}
    for row in range(1, len(chart.rows) + 1):
        first = (row - 1) * len(chart.columns) + 1
        domain = layout[f"yaxis{first if row > 1 else ''}"]["domain"]
        place = {"x": 1.01, "y": sum(domain) / 2, "yanchor": "middle", "font": {"size": 11}}
        legends[f"legend{row if row > 1 else ''}"] = {**place, "tracegroupgap": 0}
    return legends


def _trace(curve: Curve, entry: dict[str, Any], y: Axis) -> dict[str, Any]:
    lines = curve.width > 0
    return dict(
        x=_rounded(curve.x),
        y=_rounded(_heights(curve, y)),
        mode="+".join(["lines"] * lines + ["markers"] * bool(curve.marker)),
        line={"color": curve.color, "dash": curve.dash, "width": _POINT * curve.width} if lines else None,
        marker={"symbol": curve.marker, "size": _POINT * curve.size + 1, "color": curve.color}
        if curve.marker
        else None,
        opacity=curve.opacity,
        hoverinfo="text" if curve.hover else "skip",
        hovertext=[_text(words) for words in curve.hover] or None,
        **entry,
    )


def _level(level: Level, panel: Panel, entry: dict[str, Any], y: Axis) -> dict[str, Any]:
    """As wide as the panel's curves. No shape: those are no part of hovering, and lie upon curves or below the grid."""
    x = [place for curve in panel.curves for place in curve.x] or [0.0]
    return dict(
        x=_rounded([min(x), max(x)]),
        y=_rounded([_height(level.y, y)] * 2),
        mode="lines",
        line={"color": level.color, "dash": level.dash, "width": _POINT * level.width},
        hoverinfo="text" if level.label else "skip",
        hovertext=_text(f"{level.label}\n{level.y:.2f}"),
        **entry,
    )


def _bars(curve: Curve, entry: dict[str, Any], y: Axis) -> dict[str, Any]:
    """Bars where a spread is known; plotly draws caps even where it is not."""
    middle, low, high = (_heights(curve, y, by) for by in (0, -1, 1))
    known = [i for i, edge in enumerate(low) if math.isfinite(edge)]
    return dict(
        x=_rounded(curve.x[i] for i in known),
        y=_rounded(middle[i] for i in known),
        error_y={
            "array": _rounded(high[i] - middle[i] for i in known),
            "arrayminus": _rounded(middle[i] - low[i] for i in known),
            "symmetric": False,
            "thickness": 1,
            "width": 3,
            "color": curve.color,
        },
        mode="markers",
        marker={"opacity": 0, "color": curve.color},
        hoverinfo="skip",
        **entry,
    )


def _band(curve: Curve, entry: dict[str, Any], y: Axis) -> dict[str, Any]:
    low, high = (_heights(curve, y, by) for by in (-1, 1))
    known = [i for i, edge in enumerate(low) if math.isfinite(edge)]
    around = [*known, *reversed(known)]
    edges = [*(high[i] for i in known), *(low[i] for i in reversed(known))]
    return dict(
        x=_rounded([curve.x[i] for i in around]),
        y=_rounded(edges),
        mode="lines",
        line={"width": 0, "color": curve.color},
        fill="toself",
        opacity=0.2,
        fillcolor=curve.color,
        hoverinfo="skip",
        **entry,
    )


def _heights(curve: Curve, y: Axis, spreads: int = 0) -> list[float]:
    """Where a curve is drawn, and where one spread above or below it is."""
    reach = [spreads * s for s in curve.spread] if spreads else [0.0] * len(curve.y)
    return [_height(height + by, y) for height, by in zip(curve.y, reach, strict=True)]


def _height(value: float, y: Axis) -> float:
    """Where a value stands; plotly has no axis that is logarithmic on both sides of 0."""
    return float(_SYMLOG.transform(np.array([value]))[0]) if y.symlog else value


def _rounded(values: Iterable[float]) -> list[float | None]:
    """As many digits as a screen can show: a page holds many numbers."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def _x_axis(x: Axis, title: str) -> dict[str, Any]:
    step = {"dtick": x.step} if x.step else {}
    return (
        {"title": {"text": _text(title)}, "autorange": "reversed" if x.inverted else True}
        | step
        | _ticks(x, -90 if x.turned else None)
    )


def _y_axis(y: Axis, extent: tuple[float, float] | None, title: str) -> dict[str, Any]:
    """Ranges are said: axes that match each other do not always find theirs."""
    named = {"title": {"text": _text(title)}} | _ticks(y, None)
    if y.limits:
        return named | {"range": [_height(end, y) for end in y.limits]}
    if extent is None:
        return named
    low, high = (_height(end, y) for end in extent)
    margin = 0.06 * (high - low) or 1.0
    return named | {"range": [low - margin, high + margin]}


def _ticks(axis: Axis, angle: int | None) -> dict[str, Any]:
    if not axis.ticks:
        return {}
    places = [_height(place, axis) for place in axis.ticks]
    return {"tickvals": places, "ticktext": [_text(words) for words in axis.ticks.values()], "tickangle": angle}


def _text(words: str) -> str:
    """Words as plotly takes them, which is a kind of HTML."""
    return html.escape(words, quote=False).replace("\n", "<br>")

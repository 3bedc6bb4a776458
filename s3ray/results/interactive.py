"""Charts as the report's page takes them, where `templates/charts.js` draws them: hovering a point says what it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from s3ray.results.chart import Axis, Chart, Curve, Level

_PIXELS = 96  # per inch
_NARROWEST = 190  # of a panel of width 1, in pixels: on a narrower page panels stand one below the other


def interactive(chart: Chart) -> dict[str, Any]:
    """The chart as numbers, words, lists and dictionaries: ready for JSON.

    Beside the chart's own fields it has `height`, of a panel in pixels, `least`, the width in pixels from which on
    panels stand side by side, and each panel's `limits`.
    """
    panels = [
        [
            {
                "title": panel.title,
                "note": panel.note,
                "note_color": panel.note_color,
                "limits": chart.limits(row, column),
                "curves": [_told(curve) for curve in panel.curves],
                "levels": [_told(level) for level in panel.levels],
            }
            for column, panel in enumerate(line)
        ]
        for row, line in enumerate(chart.panels)
    ]
    return {
        "title": chart.title,
        "panels": panels,
        "columns": [_axis(axis) | {"limits": chart.reach(column)} for column, axis in enumerate(chart.columns)],
        "rows": [_axis(axis) for axis in chart.rows],
        "shared_y": chart.shared_y,
        "widths": chart.relative_widths,
        "legend_per_row": chart.legend_per_row,
        "height": round(_PIXELS * chart.panel_size[1]),
        "least": round(_NARROWEST * sum(chart.relative_widths) + 40 if len(chart.columns) > 1 else 0),
    }


def _told(drawn: Curve | Level) -> dict[str, Any]:
    return {field.name: _plain(getattr(drawn, field.name)) for field in fields(drawn)}


def _axis(axis: Axis) -> dict[str, Any]:
    ticks = [[place, words] for place, words in axis.ticks.items()] or None
    return {field.name: getattr(axis, field.name) for field in fields(axis)} | {"ticks": ticks, "turned": axis.turned}


def _plain(value: Any) -> Any:
    """As many digits as a screen can show, since a page holds many numbers; what is missing is null."""
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

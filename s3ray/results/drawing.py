"""Charts as PNG and PDF files, by matplotlib."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from matplotlib.transforms import Affine2DBase, ScaledTranslation

from s3ray.results.chart import Axis, Chart, Curve, Panel

SUFFIXES = ("png", "pdf")
SYMLOG: dict[str, Any] = {"linthresh": 1, "linscale": 0.5}
_LEVEL = 1  # zorder, below curves
_SHARED: dict[str, Any] = {"": False, "row": "row", "column": "col", "all": True}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_MARKERS = {"": "", "circle": "o", "square": "s", "triangle": "^", "diamond": "D", "star": "*"}
_LEGEND_INCHES, _HANDLE_INCHES = 2.0, 0.6  # beside a row; of an entry, its words apart
_LETTER_INCHES = 0.07
_NARROWEST = 6.4
_NOTE_POINTS = 9  # of a note's line
_APART = 3  # points between the bars of two curves at one x


def draw(chart: Chart) -> Figure:
    width = max(chart.panel_size[0] * sum(chart.relative_widths) + 0.6, _NARROWEST)
    width += _LEGEND_INCHES if chart.legend_per_row else 0.0
    labels = chart.labels
    entry = _HANDLE_INCHES + _LETTER_INCHES * max(map(len, labels), default=0)
    columns = min(max(int(width / entry), 1), max(len(labels), 1))
    height = chart.panel_size[1] * len(chart.rows) + 0.9
    height += _NOTE_POINTS / 72 * sum(map(chart.note_lines, range(len(chart.rows))))
    if not chart.legend_per_row:
        height += 0.22 * -(-len(labels) // columns)
    height += _LETTER_INCHES * max(
        len(words) for x in chart.columns for words in ("", *(x.ticks.values() if x.turned else ()))
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(
        len(chart.rows),
        len(chart.columns),
        sharex="col",
        sharey=_SHARED[chart.shared_y],
        squeeze=False,
        width_ratios=chart.relative_widths,
    )
    for line, (row, panels, y) in enumerate(zip(axes, chart.panels, chart.rows, strict=True)):
        for column, (axis, panel, x) in enumerate(zip(row, panels, chart.columns, strict=True)):
            _panel(axis, panel, figure.dpi_scale_trans)
            _scale(axis, x, y)
            axis.set_xlim(*sorted(chart.reach(column), reverse=x.inverted))
            axis.set_ylim(*chart.limits(line, column))
            note_lines = panel.note.count("\n") + 1 if panel.note else 0
            axis.set_title(_literal(panel.title), fontsize=10, pad=6 + _NOTE_POINTS * note_lines)
        row[0].set_ylabel(_literal(y.title))
    for axis, x in zip(axes[-1], chart.columns, strict=True):
        axis.set_xlabel(_literal(x.title))
        if x.turned:
            axis.tick_params(axis="x", rotation=90, labelsize=8)
    if chart.legend_per_row:
        # Beside its row: the rows' curves have nothing to do with each other.
        for row in axes:
            entries = _entries(row)
            where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)}
            row[-1].legend(entries.values(), entries.keys(), frameon=False, fontsize=8, **where)
    elif entries := _entries(axes.flat):
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )
    # Some 13 letters to an inch.
    title = "\n".join(textwrap.fill(line, int(13 * width)) for line in chart.title.split("\n"))
    figure.suptitle(_literal(title), fontsize=11)
    return figure


def _literal(words: str) -> str:
    """Words of which nothing is a formula, whatever data are called."""
    return words.replace("$", r"\$")


def render(figure: Figure, suffix: str) -> bytes:
    """The figure as PNG or PDF bytes, without a timestamp, so that equal results give equal files."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
    # Tight: the layout goes by ticks that a shared scale may change to wider ones, which pushed labels out of sight.
    figure.savefig(buffer, format=suffix, dpi=150, metadata=metadata, bbox_inches="tight", pad_inches=0.05)
    return buffer.getvalue()


def _panel(axis: Axes, panel: Panel, inches: Affine2DBase) -> None:
    for level in panel.levels:
        label = _literal(level.label) or "_level"  # matplotlib lists no label that begins so
        style: dict[str, Any] = {"color": level.color, "linestyle": _DASHES[level.dash], "linewidth": level.width}
        axis.axhline(level.y, zorder=_LEVEL, label=label, **style)
    barred = [curve for curve in panel.curves if curve.has_bars]
    for number, curve in enumerate(panel.curves):
        shift = _APART * (barred.index(curve) - (len(barred) - 1) / 2) if curve.has_bars else 0.0
        _curve(axis, curve, _LEVEL + 1 + 0.01 * number, shift, inches)
    if panel.note:
        # Above the panel: every corner inside may hold data.
        above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom"}
        axis.annotate(_literal(panel.note), (0, 1), (0, 3), fontsize=7, color=panel.note_color, **above)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _curve(axis: Axes, curve: Curve, zorder: float, shift: float, inches: Affine2DBase) -> None:
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    spread = np.asarray(curve.spread, float)
    style: dict[str, Any] = {
        "color": curve.color,
        "linestyle": _DASHES[curve.dash] if curve.width else "",
        "linewidth": curve.width,
        "marker": _MARKERS[curve.marker],
        "markersize": curve.size,
        "alpha": curve.opacity,
        "zorder": zorder,
        "label": _literal(curve.label) or "_curve",
    }
    if len(spread) and curve.band:
        axis.fill_between(x, y - spread, y + spread, color=curve.color, alpha=0.15, linewidth=0)
    if curve.has_bars:
        beside = axis.transData + ScaledTranslation(shift / 72, 0, inches)
        axis.errorbar(x, y, yerr=spread, elinewidth=0.8, capsize=2, transform=beside, **style)
    else:
        axis.plot(x, y, **style)


def _scale(axis: Axes, x: Axis, y: Axis) -> None:
    if x.ticks:
        axis.set_xticks(list(x.ticks), list(map(_literal, x.ticks.values())))
    if x.step:
        axis.xaxis.set_major_locator(MultipleLocator(x.step))
    if y.symlog:
        axis.set_yscale("symlog", **SYMLOG)
    if y.ticks:
        axis.set_yticks(list(y.ticks), list(map(_literal, y.ticks.values())))


def _entries(axes: Iterable[Axes]) -> dict[str, Any]:
    """What a legend of these panels shows: each label once, curves with a spread first, levels last."""
    entries: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)

    def rank(entry: tuple[str, Any]) -> int:
        _, handle = entry
        return 1 if isinstance(handle, ErrorbarContainer) else 3 if handle.get_zorder() == _LEVEL else 2

    return dict(sorted(entries.items(), key=rank))

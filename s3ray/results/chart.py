"""A figure as data, of which `drawing` makes PNG and PDF files and `interactive` what the report's page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Dash = Literal["solid", "dash", "dot", "dashdot"]
Marker = Literal["", "circle", "square", "triangle", "diamond", "star"]
Shared = Literal["", "row", "column", "all"]
MARGIN = 0.05  # of a panel's height, above and below what is drawn


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points joined by a line; NaN in `y` interrupts it.

    Attributes:
        x, y: equally many.
        spread: one standard deviation at every point, NaN where there is none; or empty.
        band: the spread is a band, not bars. Curves of a panel that have bars stand a little beside each other.
        label: in the legend, where curves with the same one are one entry; not there if empty.
        hover: what the page says at every point; nothing if empty.
        width: of the line in points; 0 leaves the markers alone.
        size: of the markers in points.
    """

    x: Sequence[float]
    y: Sequence[float]
    color: str
    spread: Sequence[float] = ()
    band: bool = False
    label: str = ""
    hover: Sequence[str] = ()
    dash: Dash = "solid"
    width: float = 1.6
    opacity: float = 1.0
    marker: Marker = ""
    size: float = 3.0

    @property
    def has_bars(self) -> bool:
        return not self.band and any(map(math.isfinite, self.spread))

    def extent(self) -> list[float]:
        """Every known height that it reaches, its spread included."""
        reach = [0.0 if math.isnan(s) else s for s in self.spread] or [0.0] * len(self.y)
        pairs = [(y, s) for y, s in zip(self.y, reach, strict=True) if not math.isnan(y)]
        return [edge for y, s in pairs for edge in (y - s, y + s)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line across a panel."""

    y: float
    color: str
    label: str = ""
    dash: Dash = "solid"
    width: float = 1.1


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A column's x axis or a row's y axis.

    Attributes:
        inverted: high values come first.
        ticks: words by position; by default numbers where the library puts them.
        step: between two ticks.
        symlog: logarithmic, and linear between -1 and 1.
    """

    title: str = ""
    inverted: bool = False
    ticks: Mapping[float, str] = field(default_factory=dict)
    step: float | None = None
    symlog: bool = False
    limits: tuple[float, float] | None = None

    @property
    def turned(self) -> bool:
        """Whether words of an x axis stand upright, since they would not fit side by side."""
        return len(self.ticks) > 3 and max(map(len, self.ticks.values())) > 3


@dataclass(frozen=True, kw_only=True)
class Panel:
    """`curves` lie upon each other in their order, above `levels`; `note` stands above them, where no data are."""

    title: str = ""
    curves: Sequence[Curve] = ()
    levels: Sequence[Level] = ()
    note: str = ""
    note_color: str = "black"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A grid of panels.

    Attributes:
        panels: rows of as many panels as there are columns.
        columns: their x axes, each shared by its column and named below it.
        rows: their y axes, named at their left.
        shared_y: the panels that have one scale.
        widths: of the columns, relative; equal if empty.
        panel_size: width and height of a panel of width 1, in inches.
        legend_per_row: a legend beside every row instead of one below the figure.
    """

    title: str
    panels: Sequence[Sequence[Panel]]
    columns: Sequence[Axis]
    rows: Sequence[Axis]
    shared_y: Shared = ""
    widths: Sequence[float] = ()
    panel_size: tuple[float, float] = (3.6, 2.5)
    legend_per_row: bool = False

    @property
    def is_empty(self) -> bool:
        return not any(panel.curves for row in self.panels for panel in row)

    def limits(self, row: int, column: int) -> tuple[float, float]:
        """Of a panel's y axis: those of its row if it has any, else what is drawn on its scale, and a margin."""
        if own := self.rows[row].limits:
            return own
        rows = self.panels if self.shared_y in ("column", "all") else [self.panels[row]]
        every_column = self.shared_y in ("row", "all")
        panels = [panel for line in rows for panel in (line if every_column else [line[column]])]
        heights = [height for panel in panels for curve in panel.curves for height in curve.extent()]
        return around([*heights, *(level.y for panel in panels for level in panel.levels)] or [0.0])

    def reach(self, column: int) -> tuple[float, float]:
        """The limits of a column's x axis, the lower one first."""
        return around([x for row in self.panels for curve in row[column].curves for x in curve.x] or [0.0])

    def note_lines(self, row: int) -> int:
        """Of the longest note in a row of panels."""
        return max((panel.note.count("\n") + 1 if panel.note else 0 for panel in self.panels[row]), default=0)

    @property
    def labels(self) -> set[str]:
        """All that legends name."""
        panels = [panel for row in self.panels for panel in row]
        curves = {curve.label for panel in panels for curve in panel.curves}
        return (curves | {level.label for panel in panels for level in panel.levels}) - {""}

    @property
    def relative_widths(self) -> list[float]:
        return list(self.widths) or [1.0] * len(self.columns)


def around(heights: Sequence[float]) -> tuple[float, float]:
    """The limits of an axis on which these lie."""
    low, high = min(heights), max(heights)
    margin = MARGIN * (high - low) or 1.0
    return low - margin, high + margin


def fitting(heights: Sequence[Sequence[Sequence[float]]], wide: Shared, narrow: Shared) -> Shared:
    """Which panels have one scale: as `wide` says, but as `narrow` does where a panel would then be half empty.

    Args:
        heights: what curves reach, by row and column; those without are nobody's concern.
    """

    def scale(row: int, column: int) -> list[float]:
        rows = heights if wide in ("column", "all") else [heights[row]]
        return [h for line in rows for own in (line if wide in ("row", "all") else [line[column]]) for h in own]

    places = [(r, c) for r, line in enumerate(heights) for c, own in enumerate(line) if own]
    spans = [(max(heights[r][c]) - min(heights[r][c]), max(scale(r, c)) - min(scale(r, c))) for r, c in places]
    return wide if all(own >= 0.5 * common for own, common in spans) else narrow

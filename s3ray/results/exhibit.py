"""What a table or figure of the paper, or beyond it, declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from s3ray.results.chart import Chart
from s3ray.results.collect import Results


@dataclass(frozen=True)
class Table:
    """A table as it is shown; a file of its own.

    Attributes:
        title: its heading, the exhibit's if empty.
        note: what stands above it, the exhibit's if empty.
        readable: what is read in its place, where the table is one to compute with; CSV files hold that.
        pinned: on the page these columns come first and stay in sight while others scroll: what a line is of, and what
            decides. The first one if empty.
    """

    frame: pd.DataFrame
    title: str = ""
    note: str = ""
    readable: pd.DataFrame | None = None
    pinned: Sequence[str] = ()

    @property
    def shown(self) -> pd.DataFrame:
        """What is read."""
        return self.frame if self.readable is None else self.readable


def _no_tables(results: Results) -> Mapping[str, Table]:
    return {}


def _no_figures(results: Results) -> Mapping[str, Chart]:
    return {}


def _no_finding(results: Results) -> str:
    return ""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or figure: all that other rooms need to know of it.

    Attributes:
        name: what sweeps ask for.
        title: its heading.
        note: what a reader must know of it; the data are named after it.
        reads: the tables of `Results` that it cannot do without. It is left out where one of them is empty, and
            takes no data at all if it names none.
        tables: builds its tables, by file name; one without lines is left out.
        figures: builds its figures, by file name; one without curves is left out.
        finding: what it comes to in a sentence, for whoever runs it; empty if there is nothing to say.
        readings: it tells readings apart (`Sweep.readings`); others see the usual one alone.
        everywhere: every sweep has it, asked for or not.
        on_page: the report's page shows it; its files are written anyway.
    """

    name: str
    title: str
    note: str = ""
    reads: tuple[str, ...] = ("rows",)
    tables: Callable[[Results], Mapping[str, Table]] = _no_tables
    figures: Callable[[Results], Mapping[str, Chart]] = _no_figures
    finding: Callable[[Results], str] = _no_finding
    readings: bool = False
    everywhere: bool = False
    on_page: bool = True

    def seen(self, results: Results) -> Results:
        """What of the results it tells."""
        return results if self.readings else results.usual

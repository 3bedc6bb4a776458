"""Progress for people: one live table on a terminal, one line per event elsewhere."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from s3ray.errors import printable
from s3ray.execution import Event
from s3ray.sweep import Plan
from s3ray.sweep.timing import corrected, duration

# dataset → state → number of cells; the states are pending, running, done, cached, failed.
States = Mapping[str, Mapping[str, int]]
SILENCE = 60.0  # seconds without anything at work


class Progress:
    """Counts cells by state, remembers what runs, and estimates what is left.

    Used as a context manager around a sweep; `update` takes the events in the order they happened.
    """

    def __init__(
        self,
        plan: Plan,
        slots: int,
        console: Console,
        watch: Callable[[list[Event], States], None] | None = None,
        waiting_for: Callable[[], str] | None = None,
    ) -> None:
        """`watch` is told the same events, and where all cells stand after them; `waiting_for` says what is known of
        why nothing runs."""
        self._console, self._watch, self._waiting_for = console, watch, waiting_for
        self._slots = slots
        self._started = time.monotonic()
        pending = {str(cell.cell) for cell in plan.pending}
        self._total = Counter(cell.cell.dataset for cell in plan.cells)
        self._cached = Counter(c.cell.dataset for c in plan.cells if str(c.cell) not in pending)
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._running: dict[str, Event] = {}
        self._estimates = {str(cell.cell): plan.seconds(cell) for cell in plan.pending}
        self._left = dict(self._estimates)
        self._measured: defaultdict[str, float] = defaultdict(float)  # stage seconds per cell
        self._begun: dict[str, float] = {}  # when a cell that is not finished began
        self._heard = self._started  # when something last happened
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
            self._live.start()
        if self._watch is not None:
            self._watch([], self.states())
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, events: Iterable[Event]) -> None:
        fresh = []
        for event in events:
            if event.cell not in self._left:  # a restarted worker group reports its finished cells again
                continue
            fresh.append(event)
            self._count(event)
            if (self._live is None or event.state == "damaged") and (line := self._line(event)):
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)
        self._waiting(bool(fresh))
        if self._watch is not None:
            self._watch(fresh, self.states())

    def _waiting(self, heard: bool) -> None:
        """Say so once in a while when nothing runs: nodes take minutes to come, spot machines hours."""
        if heard or self._running:
            self._heard = time.monotonic()
        elif self._left and time.monotonic() - self._heard >= SILENCE:
            silence, self._heard = time.monotonic() - self._heard, time.monotonic()
            if self._live is None:
                line = f"{self._position} waiting  nothing has run for {duration(silence)}"
                if self._waiting_for is not None:
                    line += f"; {self._waiting_for()}"
                self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _count(self, event: Event) -> None:
        if event.state == "finished":
            self._measured[event.cell] += event.seconds
        if event.state in ("started", "step"):
            self._running[event.cell] = event
            self._begun.setdefault(event.cell, time.monotonic())
            return
        if event.state in ("cell_finished", "cell_failed"):
            counter = self._done if event.state == "cell_finished" else self._failed
            counter[event.dataset] += 1
            self._running.pop(event.cell, None)
            del self._left[event.cell]

    @property
    def stage_seconds(self) -> float:
        """Seconds that stages took, over all worker groups."""
        return sum(self._measured.values())

    def states(self) -> States:
        """Where the cells stand."""
        running = Counter(event.dataset for event in list(self._running.values()))
        states = {}
        for dataset, total in self._total.items():
            known = {
                "running": running[dataset],
                "done": self._done[dataset],
                "cached": self._cached[dataset],
                "failed": self._failed[dataset],
            }
            states[dataset] = {"pending": total - sum(known.values())} | known
        return states

    @property
    def _finished(self) -> int:
        return sum((self._done + self._cached + self._failed).values())

    @property
    def _position(self) -> str:
        return f"[{self._finished}/{sum(self._total.values())}]"

    def eta(self) -> float | None:
        """Seconds left: the estimates, corrected by what the finished cells took, less what the running ones have had;
        None before the first has finished."""
        finished = self._estimates.keys() - self._left.keys()
        if not finished or not self._left:
            return None
        now = time.monotonic()
        pace = corrected(
            sum(self._measured[cell] for cell in finished), sum(self._estimates[cell] for cell in finished)
        )
        left = [
            # A cell that takes longer than was estimated is still not done.
            max(pace * estimate - (now - self._begun.get(cell, now)), 0.05 * pace * estimate)
            for cell, estimate in self._left.items()
        ]
        return max(max(left), sum(left) / min(self._slots, len(left)))

    def _eta_text(self) -> str:
        eta = self.eta()
        return f"about {duration(eta)} left" if eta is not None else ""

    def _line(self, event: Event) -> str:
        position = self._position
        match event.state:
            case "cell_finished":
                eta = self._eta_text()
                return f"{position} done     {event.cell}" + (f" ({eta})" if eta else "")
            case "cell_failed":
                return f"{position} FAILED   {event.cell}: {event.cause}"
            case "damaged":
                return f"{position} damaged  {event.cell}: {event.cause}"
            case "finished":
                return f"{position} finished {event.cell} {event.stage} in {event.seconds:.1f} s"
            case "step":
                return f"{position} running  {event.cell} {event.stage} step {event.step}/{event.total}"
            case "started":
                return ""
        return ""

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("dataset", "cells", "done", "cached", "running", "failed"):
            table.add_column(name, justify="left" if name == "dataset" else "right")
        for dataset, cells in self.states().items():
            table.add_row(
                dataset,
                str(sum(cells.values())),
                *(str(cells[state]) for state in ("done", "cached", "running")),
                Text(str(cells["failed"]), style="bold red" if cells["failed"] else ""),
            )
        lines = [
            Text(printable(f"  {e.cell}  {e.stage}") + (f"  step {e.step}/{e.total}" if e.total else ""), style="dim")
            for e in list(self._running.values())  # updated by another thread than the one that draws
        ]
        elapsed = f"{duration(time.monotonic() - self._started)} elapsed"
        return Group(table, *lines, Text(", ".join(filter(None, [elapsed, self._eta_text()]))))

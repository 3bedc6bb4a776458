"""Progress for people: on a terminal one picture of all cells, which is drawn anew; elsewhere one line per event.

What is left is said as a range, by the estimates, corrected by what the finished cells took. A pack's cells run one
after the other, so packs are what is counted. At least: less what the running cells have had, the rest is shared evenly
by the worker groups, or the pack with the longest rest ends last. At most: running cells have just begun, and the packs
run in their order, each after the start of its worker group unless it is at work. More time of any pack never ends such
an order sooner, since packs do not wait for each other: at least is never above at most.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from s3ray.errors import printable
from s3ray.execution import Event
from s3ray.methods import S3
from s3ray.sweep import Cell, Plan
from s3ray.sweep.plan import schedule
from s3ray.sweep.timing import GROUP_SECONDS, between, corrected, duration

# dataset → state → number of cells; the states are pending, running, done, cached, failed.
States = Mapping[str, Mapping[str, int]]
# Seconds without anything at work after which a line says so; each time twice as many, up to the second.
SILENCE, LONG_SILENCE = 5.0, 60.0

_SIGNS = {  # state → sign, style, words
    "done": ("■", "green", "done"),
    "cached": ("□", "blue", "from the store"),
    "running": ("▶", "yellow", "running"),
    "pending": ("·", "dim", "to come"),
    "failed": ("✗", "bold red", "failed"),
}
_MOST_SIGNS = 24  # in a place of the grid; of more cells the numbers are shown
_LATEST = 3  # accuracies and failures that are shown


class Progress:
    """Counts cells by state, remembers what runs, and estimates what is left.

    Used as a context manager around a sweep; `update` takes the events in the order they happened.
    """

    def __init__(
        self,
        plan: Plan,
        packs: Sequence[Sequence[str]],
        at_once: int,
        console: Console,
        watch: Callable[[list[Event], States], None] | None = None,
        waiting_for: Callable[[], str] | None = None,
    ) -> None:
        """Nothing has happened yet.

        Args:
            packs: names of the pending cells by worker group, in the order in which these start.
            at_once: worker groups at a time, no more than there are packs.
            watch: told the same events, and where all cells stand after them.
            waiting_for: says what is known of why nothing runs.
        """
        self._console, self._watch, self._waiting_for = console, watch, waiting_for
        self._packs, self._at_once = packs, at_once
        self._started = time.monotonic()
        pending = {str(cell.cell) for cell in plan.pending}
        self._ends = {str(cell.cell): "pending" if str(cell.cell) in pending else "cached" for cell in plan.cells}
        self._grid = defaultdict[tuple[str, str], list[str]](list)  # cells by row and column
        for cell in plan.cells:
            self._grid[_place(cell.cell)].append(str(cell.cell))
        self._latest: list[Text] = []  # accuracies and failures
        self._why_idle = ""
        self._total = Counter(cell.cell.dataset for cell in plan.cells)
        self._cached = Counter(c.cell.dataset for c in plan.cells if str(c.cell) not in pending)
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._running: dict[str, Event] = {}
        self._starts = plan.experience.starts
        self._estimates = {str(cell.cell): plan.seconds(cell) for cell in plan.pending}
        self._left = dict(self._estimates)
        self._measured: defaultdict[str, float] = defaultdict(float)  # stage seconds per cell
        self._begun: dict[str, float] = {}  # when a cell that is not finished began
        self._heard, self._patience = self._started, SILENCE  # when something last happened
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
            self._heard, self._patience, self._why_idle = time.monotonic(), SILENCE, ""
            return
        silence = time.monotonic() - self._heard
        if not self._left or silence < self._patience:
            return
        self._patience = silence + min(max(silence, SILENCE), LONG_SILENCE)
        self._why_idle = self._waiting_for() if self._waiting_for is not None else ""
        if self._live is None:
            line = f"{self._position} waiting  nothing has run for {duration(silence)}"
            line += f"; {self._why_idle}" if self._why_idle else ""
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _count(self, event: Event) -> None:
        if event.state == "finished":
            self._measured[event.cell] += event.seconds
            if _accuracy(event):
                self._show(f"{event.cell} {event.stage}: {_accuracy(event)}", "")
        if event.state in ("started", "step"):
            self._running[event.cell] = event
            self._begun.setdefault(event.cell, time.monotonic())
            return
        if event.state in ("cell_finished", "cell_failed"):
            counter = self._done if event.state == "cell_finished" else self._failed
            counter[event.dataset] += 1
            self._ends[event.cell] = "done" if event.state == "cell_finished" else "failed"
            if event.state == "cell_failed":
                self._show(f"FAILED {event.cell}: {event.cause}", "bold red")
            self._running.pop(event.cell, None)
            del self._left[event.cell]

    def _show(self, text: str, style: str) -> None:
        """Among the latest; failures stay longer than accuracies."""
        self._latest.append(Text(printable(text), style=style))
        while len(self._latest) > _LATEST:
            del self._latest[next((i for i, one in enumerate(self._latest) if not one.style), 0)]

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

    def eta(self) -> tuple[float, float] | None:
        """Seconds left, at least and at most; None before the first cell has finished."""
        unfinished = set(self._left)
        finished = self._estimates.keys() - unfinished
        if not finished or not unfinished:
            return None
        now = time.monotonic()
        pace = corrected(
            sum(self._measured[cell] for cell in finished), sum(self._estimates[cell] for cell in finished)
        )
        slower = self._starts.corrected()
        rests, whole = list[float](), list[list[float]]()
        for pack in self._packs:
            if not (cells := [cell for cell in pack if cell in unfinished]):
                continue
            needed = {cell: pace * self._estimates[cell] for cell in cells}
            # A cell that takes longer than was estimated is still not done.
            had = {cell: now - self._begun.get(cell, now) for cell in cells}
            rests.append(sum(max(needed[cell] - had[cell], 0.05 * needed[cell]) for cell in cells))
            start = 0.0 if any(cell in self._begun for cell in pack) else slower * GROUP_SECONDS
            whole.append([start, *needed.values()])
        return max(max(rests), sum(rests) / self._at_once), schedule(whole, self._at_once)

    def _eta_text(self) -> str:
        eta = self.eta()
        return f"about {between(*eta)} left" if eta is not None else ""

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
                told = f"{position} finished {event.cell} {event.stage} in {event.seconds:.1f} s"
                return told + (f": {_accuracy(event)}" if _accuracy(event) else "")
            case "step":
                return f"{position} running  {event.cell} {event.stage} step {event.step}/{event.total}"
            case "started":
                return ""
        return ""

    def _render(self) -> Group:
        """What is drawn; another thread than the one that updates it does so."""
        running = list(self._running.values())
        rows = list(dict.fromkeys(row for row, _ in self._grid))
        columns = list(dict.fromkeys(column for _, column in self._grid))
        grid = Table(box=None, pad_edge=False)
        for name in ("", *columns):
            grid.add_column(name)
        now = self._ends | {event.cell: "running" for event in running}
        for row in rows:
            grid.add_row(row, *(_signs([now[cell] for cell in self._grid.get((row, c), ())]) for c in columns))
        there = Counter(now.values())
        legend = Text("  ").join(
            Text(f"{sign} {there[state]} {words}", style=style)
            for state, (sign, style, words) in _SIGNS.items()
            if there[state]
        )
        start = "1 worker group starts" if self._at_once == 1 else f"{self._at_once} worker groups start"
        idle = self._why_idle or start if not running and self._left else ""
        at_work = [
            printable(f"  {e.cell}  {e.stage}") + (f"  step {e.step}/{e.total}" if e.total else "") for e in running
        ]
        elapsed = f"{duration(time.monotonic() - self._started)} elapsed"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=sum(self._total.values()), completed=self._finished, width=30),
            ", ".join(filter(None, [self._position, elapsed, self._eta_text()])),
        )
        lines = [Text(line, style="dim") for line in at_work or [f"  {idle}" if idle else ""] if line]
        return Group(grid, legend, bar, *lines, *self._latest)


def _place(cell: Cell) -> tuple[str, str]:
    """Row and column of the grid."""
    return (cell.dataset, f"χ {cell.granularity}") if cell.method == S3 else (f"{cell.dataset} {cell.method}", "prior")


def _signs(states: Sequence[str]) -> Text:
    """A sign per cell, or how many are in each state."""
    if len(states) <= _MOST_SIGNS:
        return Text("").join(Text(_SIGNS[state][0], style=_SIGNS[state][1]) for state in states)
    there = Counter(states)
    return Text(" ").join(
        Text(f"{sign}{there[state]}", style=style) for state, (sign, style, _) in _SIGNS.items() if there[state]
    )


def _accuracy(event: Event) -> str:
    """What a curve's results say for people."""
    accuracy = event.metrics.get("valid_accuracy")
    return "" if accuracy is None else f"at best {accuracy:.1%} on validation"

"""How the calls of sweeps and searches on a store stand, from the store alone. No Ray here.

Whether a call is alive: a process of this machine lives or does not (`traces.has_died`). Of any other it is known only
by its workers' claims: one that is renewed between two looks has an owner; what was not renewed for the time of a lease
has none any more.

The rule of the seconds left, written before results: what this call's finished stage runs took, over what was estimated
for them, corrects the estimates of what is missing, per stage and where a stage has none over all of them
(`timing.corrected`). The lower end takes what is at work for nearly done and the rest for shared evenly among the
worker groups; the upper end takes what is at work for just begun and the order for the worst: seconds / groups +
(1 - 1 / groups) · the longest cell (Graham 1969). Before any run of the call has finished nothing is said, nor of what
nobody is at work on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from s3ray.execution.ledger import Ledger, PlannedCell, PlannedRun, PlanRecord, calls
from s3ray.store import Claim, Marker, Store, standing
from s3ray.store.claims import LEASE_SECONDS, elapsed
from s3ray.store.names import FILE
from s3ray.sweep.timing import corrected
from s3ray.traces import has_died, named


@dataclass(frozen=True, slots=True)
class AtWork:
    """A cell that somebody has claimed.

    Attributes:
        stage: as it is called, the first that is missing of what is claimed.
        step: of its last checkpoint, if there is one.
        who: the owner of the claim, where, and since when.
        alive: whether the owner is known to be; None: not known from here.
    """

    cell: str
    stage: str
    step: int | None
    who: str
    alive: bool | None


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a sweep or search.

    Attributes:
        run: its folder in `runs/`.
        is_known: whether it left a record of its plan that this version reads.
        alive: whether it goes on; None: not known from here.
        ended: when it ended, if it says so.
        total: cells of the sweep, those that were there before included; of a search those so far.
        failed: cause per cell.
        seconds: that are left, at least and at most.
    """

    run: str
    name: str
    kind: str
    started: str
    who: str
    is_known: bool
    alive: bool | None
    ended: str | None
    total: int
    done: int
    at_work: tuple[AtWork, ...]
    failed: Mapping[str, str]
    seconds: tuple[float, float] | None


class Watch:
    """Looks at a store, again and again; remembers what cannot change, and how claims stood before."""

    def __init__(self, store: Store, clock: Callable[[], float] = elapsed) -> None:
        self._store, self._clock = store, clock
        self._records: dict[str, PlanRecord] = {}
        self._committed: dict[str, Marker] = {}
        self._seen: dict[str, tuple[Claim, float, bool]] = {}  # a claim, since when, whether it was another one before

    def look(self) -> list[Call]:
        """The calls that run or have left something, the newest first.

        Raises:
            UserError: the store cannot be read.
        """
        with self._store.explained("read", "check the place and your access to it"):
            found = [self._call(run) for run in calls(self._store)]
        return [call for call in found if call is not None]

    def _call(self, run: str) -> Call | None:
        ledger = Ledger(self._store, run)
        name, started = named(run) or (run, "")
        died, ended, failures = has_died(run), ledger.ended(), ledger.failures()
        alive = None if died is None else not died
        record = self._records.get(run) or ledger.planned()
        if record is None:
            if not self._store.folders("runs", run) and not set(self._store.names("runs", run)) - {FILE}:
                return None  # it has just gone, since it is done, or has only said what it asks for
            return Call(run, name, "", started, "", False, False if ended else alive, ended, 0, 0, (), failures, None)
        self._records[run] = record
        cells = record.cells or ledger.added()
        self._committed = committed_of(self._store, cells, self._committed)
        left = [cell for cell in cells if missing_of(cell, self._committed)]
        if record.cells and not left and (ended or alive is False):
            return None  # another call has done what it left
        failed = {cell.cell: failures[cell.identity] for cell in left if cell.identity in failures}
        open_cells = [cell for cell in left if cell.identity not in failures]
        at_work = self._at_work(open_cells)
        if ended:
            alive = False
        elif alive is None:
            known = [one.alive for one in at_work]
            alive = True if True in known else False if known and set(known) == {False} else None
        # An ended call's cells may be another's work by now; what has lost its owner is nobody's.
        at_work = [one for one in at_work if one.alive is not False]
        total = record.total or len(cells)
        return Call(
            run,
            record.name,
            record.kind,
            record.started,
            record.who,
            True,
            alive,
            ended,
            total,
            total - len(left),
            tuple(at_work),
            failed,
            None if alive is False else self._seconds(record, cells, open_cells, {one.cell for one in at_work}),
        )

    def _at_work(self, cells: Iterable[PlannedCell]) -> list[AtWork]:
        """Cells of which something that can be done next is claimed."""
        claimed: dict[str, tuple[PlannedCell, PlannedRun]] = {}
        for cell in cells:
            for run in missing_of(cell, self._committed):
                if run.parent is None or run.parent in self._committed:
                    claimed.setdefault(run.claim, (cell, run))
        found = self._store.parallel(lambda key: standing(self._store, key), claimed)
        at_work = []
        for claim, (cell, run) in zip(found, claimed.values(), strict=True):
            if claim is not None and claim.owner:
                step = self._store.checkpoint_step(run)
                at_work.append(AtWork(cell.cell, run.label, step, claim.who, self._is_renewed(run.claim, claim)))
        return at_work

    def _is_renewed(self, key: str, claim: Claim) -> bool | None:
        """Whether the owner of a claim is alive, as far as that is known."""
        now = self._clock()
        before = self._seen.get(key)
        if before is None or before[0] != claim:
            self._seen[key] = before = (claim, now, before is not None)
        died = has_died(claim.process)
        if died is not None:
            return not died
        if now - before[1] >= LEASE_SECONDS:
            return False
        return True if before[2] else None

    def _seconds(
        self, record: PlanRecord, cells: Iterable[PlannedCell], left: list[PlannedCell], at_work: set[str]
    ) -> tuple[float, float] | None:
        """By the rule above."""
        finished = [
            (run, marker.seconds * marker.workers)
            for run in {run.identity: run for cell in cells for run in cell.runs}.values()
            if run.seconds is not None and (marker := self._committed.get(run.identity)) is not None
        ]
        if record.kind == "search" or not finished or not left:
            return None

        def pace(runs: list[tuple[PlannedRun, float]], prior: float) -> float:
            return corrected(sum(took for _, took in runs), sum(run.seconds or 0.0 for run, _ in runs), prior)

        overall = pace(finished, 1.0)
        paces = {
            stage: pace([one for one in finished if one[0].stage == stage], overall)
            for stage in {run.stage for cell in left for run in cell.runs}
        }
        counted: set[str] = set()  # what cells share is the first one's
        needed: dict[str, float] = {}
        for cell in left:
            runs = [run for run in missing_of(cell, self._committed) if run.identity not in counted]
            counted |= {run.identity for run in runs}
            needed[cell.cell] = sum(paces[run.stage] * (run.seconds or 0.0) for run in runs) / record.workers
        waiting = [seconds for cell, seconds in needed.items() if cell not in at_work]
        least = max(sum(waiting) / record.slots, max(waiting, default=0.0))
        most = sum(needed.values()) / record.slots + (1 - 1 / record.slots) * max(needed.values())
        return least, most


def committed_of(
    store: Store, cells: Iterable[PlannedCell], known: Mapping[str, Marker] = MappingProxyType({})
) -> dict[str, Marker]:
    """Markers of the cells' runs that count, beside those that are known; what stands on none is not asked for."""
    committed = dict(known)
    runs = {run.identity: run for cell in cells for run in cell.runs}
    asked = [run for run in runs.values() if run.parent is None]
    while asked:
        lines = {run.identity: _line(run, runs) for run in asked if run.identity not in committed}
        committed |= store.markers_of(lines)
        there = {run.identity for run in asked} & committed.keys()
        asked = [run for run in runs.values() if run.parent in there]
    return committed


def missing_of(cell: PlannedCell, committed: Collection[str]) -> list[PlannedRun]:
    """The runs of a cell whose identities are not among those committed."""
    return [run for run in cell.runs if run.identity not in committed]


def _line(run: PlannedRun, runs: Mapping[str, PlannedRun]) -> list[tuple[str, str]]:
    """A run and its ancestors, as `Store.markers_of` takes them."""
    line = [(run.stage, run.identity)]
    while run.parent is not None:
        run = runs[run.parent]
        line.append((run.stage, run.identity))
    return line

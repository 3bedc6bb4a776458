"""What a call of a sweep or search leaves in `runs/<run>/`: its plan, and what became of its cells. No Ray here.

    plan.json                    what is asked for, by whom, since when; of a search without cells
    cells/<cell>                 of a search, its cells, as they come
    attempts/<cell>/<number>     a start of a cell: when, where, at which stage, how far it was
    errors/<cell>/<number>       why that attempt ended: the cause in the first line, the traceback below
    causes/<pack>/<number>       why a worker group of the pack ended or left a cell, likewise
    failures/<cell>              why the cell is given up
    ended                        when the call ended, if something is left, in whatever way it did

`<cell>` is a cell's identity. A call that leaves nothing to explain takes its folder with it, also while others read
it; what is gone by then, or damaged, or of another version, is left out of what is read.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from s3ray.digests import digest_of, signed
from s3ray.execution.cell import labelled
from s3ray.store import Store
from s3ray.sweep import CellPlan, Plan
from s3ray.traces import named

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A stage run as a plan's record has it.

    Attributes:
        label: what it is called, such as `selection suff+min`.
        parent: identity of the run that it starts from; one of the same cell.
        seconds: estimated, of one worker; None if it was committed before.
    """

    stage: str
    label: str
    identity: str
    claim: str
    parent: str | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell that a call has to run; its runs stand parents first, and `pack` names the worker group's notes."""

    cell: str
    dataset: str
    identity: str
    pack: str
    runs: tuple[PlannedRun, ...]

    @classmethod
    def of(
        cls, plan: CellPlan, pack: str, committed: Collection[str], speeds: Mapping[str, float] | None = None
    ) -> PlannedCell:
        """Of a cell's plan; `speeds` corrects the estimates, by stage."""

        def seconds(identity: str, stage: str) -> float | None:
            known = identity in committed
            return None if known else round((speeds or {}).get(stage, 1.0) * plan.seconds[identity], 3)

        runs = (
            PlannedRun(
                run.stage.name,
                label,
                run.identity,
                run.claim,
                run.parent.identity if run.parent else None,
                seconds(run.identity, run.stage.name),
            )
            for label, run in labelled(plan)
        )
        return cls(str(plan.cell), plan.cell.dataset, plan.identity, pack, tuple(runs))

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> PlannedCell:
        return cls(**{**plain, "runs": tuple(PlannedRun(**run) for run in plain["runs"])})


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What a call set out to do.

    Attributes:
        kind: `sweep`, or `search`, whose cells are not known beforehand.
        started: when, UTC, by the clock of the machine that it runs on.
        who: the process and its machine.
        slots: worker groups at a time.
        workers: of each.
        logs: where Ray keeps its own, on the machine that started the call.
        total: cells of the sweep, those committed before included; of a search 0.
        cells: those to run.
    """

    name: str
    kind: str
    started: str
    who: str
    slots: int
    workers: int
    logs: str
    total: int = 0
    cells: tuple[PlannedCell, ...] = ()

    @classmethod
    def of(cls, plan: Plan, packs: Mapping[str, str], slots: int, workers: int, logs: str) -> PlanRecord:
        """Of a sweep's plan; `packs` has the name of each pending cell's, by identity."""
        cells = (PlannedCell.of(cell, packs[cell.identity], plan.committed, plan.speeds) for cell in plan.pending)
        return cls(plan.sweep.name, "sweep", _now(), _who(), slots, workers, logs, len(plan.cells), tuple(cells))

    @classmethod
    def of_search(cls, name: str, slots: int, workers: int, logs: str) -> PlanRecord:
        return cls(name, "search", _now(), _who(), slots, workers, logs)

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> PlanRecord:
        return cls(**{**plain, "cells": tuple(map(PlannedCell.restored, plain["cells"]))})


@dataclass(frozen=True, slots=True)
class Attempt:
    """A start of a cell.

    Attributes:
        at: when, UTC.
        nodes: of its workers.
        progress: how far the cell was (`Ledger.progress`).
        pack: what its worker group's notes are kept under.
        notes: how many of these there were before.
        stage: with which it began.
        workers: of each the node, Ray's name of the worker, and where Ray keeps its logs.
    """

    at: str
    nodes: Sequence[str]
    progress: str
    pack: str
    notes: int
    stage: str
    workers: Sequence[Mapping[str, str]]


class Told(NamedTuple):
    """An error as it was kept."""

    cause: str
    traceback: str

    @classmethod
    def of(cls, content: bytes) -> Told:
        cause, _, traceback = content.decode().partition("\n")
        return cls(cause, traceback)


class Ledger:
    """Plan, attempts, errors and failures of the cells of one run, as small files that survive every process."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._read = partial(store.read, "runs", run)
        self._names = partial(store.names, "runs", run)

    def _write(self, content: str, *parts: str) -> None:
        self._store.write(content, "runs", self._run, *parts)

    def _write_table(self, table: Any, *parts: str) -> None:
        self._write(json.dumps(signed(asdict(table))), *parts)

    def _each(self, parse: Callable[[bytes], _T], *folder: str) -> dict[str, _T]:
        """What the files of a folder say, by their names, in order."""
        found = {}
        for name in self._names(*folder):
            with _unread():
                found[name] = parse(self._read(*folder, name))
        return found

    def plan(self, record: PlanRecord) -> None:
        self._write_table(record, "plan.json")

    def add(self, cell: PlannedCell) -> None:
        """A search goes on with this cell."""
        self._write_table(cell, "cells", cell.identity)

    def planned(self) -> PlanRecord | None:
        """What the call set out to do; None if it left no record that this version reads."""
        with _unread():
            return PlanRecord.restored(_table(self._read("plan.json")))
        return None

    def added(self) -> list[PlannedCell]:
        """A search's cells so far."""
        return list(self._each(lambda content: PlannedCell.restored(_table(content)), "cells").values())

    def end(self) -> None:
        """The call is over, and something is left; others on this machine know it in any case."""
        with suppress(OSError):
            self._write(_now(), "ended")

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Notes the end of a call that does not get beyond this context."""
        try:
            yield
        except BaseException:
            self.end()
            raise

    def ended(self) -> str | None:
        with _unread():
            when = self._read("ended").decode()
            return when if dt.datetime.fromisoformat(when).tzinfo is not None else None
        return None

    def attempt(
        self,
        cell: CellPlan,
        committed: Collection[str],
        alive: Collection[str],
        most: int,
        *,
        pack: str,
        stage: str,
        workers: Sequence[Mapping[str, str]],
    ) -> int | None:
        """Note a start of `cell`; its number, from 1. None if `most` made no progress: the cell is given up.

        Starts on a node that is no longer among those `alive` do not count: the cell has not failed when its
        machine was taken away.

        Args:
            pack, stage, workers: as `Attempt` has them.
        """
        progress = self.progress(cell, committed)
        alike = [entry for entry in self.attempts(cell.identity).values() if entry.progress == progress]
        if sum(set(alive).issuperset(entry.nodes) for entry in alike) >= most:
            return None
        notes, nodes = len(self._names("causes", pack)), sorted({worker["node"] for worker in workers})
        number = len(self._names("attempts", cell.identity)) + 1
        entry = Attempt(_now(), nodes, progress, pack, notes, stage, workers)
        self._write_table(entry, "attempts", cell.identity, _numbered(number))
        return number

    def attempts(self, cell: str) -> dict[int, Attempt]:
        """What was noted of a cell's attempts, by their numbers."""
        return _by_number(self._each(lambda content: Attempt(**_table(content)), "attempts", cell))

    def progress(self, cell: CellPlan, committed: Collection[str]) -> str:
        """How far the cell is: the number of stage runs it misses, and the step of its last checkpoint."""
        missing = cell.missing(committed)
        step = max((self._store.checkpoint_step(run) or 0 for run in missing if run.stage.trains), default=0)
        return f"{len(missing)}-{step}"

    def error(self, cell: CellPlan, attempt: int, cause: str, traceback: str = "") -> None:
        """Remember why an attempt ended; of several ranks' errors the first, which the others follow from."""
        if _numbered(attempt) not in self._names("errors", cell.identity):
            self._write(f"{cause}\n{traceback}", "errors", cell.identity, _numbered(attempt))

    def errors(self, cell: str) -> dict[int, Told]:
        """By attempt; 0 before the first."""
        return _by_number(self._each(Told.of, "errors", cell))

    def last_error(self, cell: CellPlan) -> str | None:
        """The cause of the last attempt that ended in an error of its own."""
        known = [*self.errors(cell.identity).values()]
        return known[-1].cause if known else None

    def note(self, pack: str, cause: str, traceback: str = "") -> None:
        """Why a worker group of the pack ended or left a cell."""
        self._write(f"{cause}\n{traceback}", "causes", pack, _numbered(len(self._names("causes", pack)) + 1))

    def notes(self, pack: str) -> dict[int, Told]:
        """By their numbers, in order."""
        return _by_number(self._each(Told.of, "causes", pack))

    def noted(self, pack: str) -> str | None:
        """The cause that was noted last."""
        known = [*self.notes(pack).values()]
        return known[-1].cause if known else None

    def fail(self, cell: CellPlan, cause: str) -> None:
        """The cell is given up for this run."""
        self._write(cause, "failures", cell.identity)

    def failures(self) -> dict[str, str]:
        """Cause per identity of the cells that were given up."""
        return self._each(bytes.decode, "failures")


def calls(store: Store) -> list[str]:
    """The names of the calls that run or have left something, the newest first."""
    known = {run: about[1] for run in store.folders("runs") if (about := named(run)) is not None}
    return sorted(known, key=lambda run: known[run], reverse=True)


def shown(when: str) -> str:
    """A time of the ledger, as people read it."""
    return f"{dt.datetime.fromisoformat(when).astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def _unread() -> Iterator[None]:
    """Goes on after it where what is read is gone, damaged, or of another version."""
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        yield


def _table(content: bytes) -> dict[str, Any]:
    """What `_write_table` wrote; ValueError if it is something else."""
    plain: dict[str, Any] = json.loads(content)
    if plain.pop("digest") != digest_of(plain):
        raise ValueError
    return plain


def _numbered(number: int) -> str:
    return f"{number:06d}"  # sorted by name they stand in order


def _by_number(found: Mapping[str, _T]) -> dict[int, _T]:
    return {int(name): value for name, value in found.items() if name.isdecimal()}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"

"""What a call of a sweep or search leaves in `runs/<run>/`: its plan, and what became of its cells. No Ray here.

    plan.json                    what is asked for, by whom, since when; of a search without cells
    cells/<cell>                 of a search, its cells, as they come
    attempts/<cell>/<number>     a start of a cell: when, where, at which stage, how far it was
    errors/<cell>/<number>       why that attempt ended: the cause in the first line, the traceback below
    causes/<pack>/<number>       why a worker group of the pack ended or left a cell, likewise
    failures/<cell>              why the cell is given up
    ended                        when the call ended, if something is left to explain

`<cell>` is a cell's identity. A call that leaves nothing to explain takes its folder with it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

from s3ray.execution.cell import labelled
from s3ray.store import Store
from s3ray.sweep import CellPlan, Plan
from s3ray.traces import named

_FORMAT = 1


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
    def of_search(cls, run: str, slots: int, workers: int, logs: str) -> PlanRecord:
        return cls((named(run) or (run,))[0], "search", _now(), _who(), slots, workers, logs)


class Told(NamedTuple):
    """An error as it was kept."""

    cause: str
    traceback: str


class Ledger:
    """Plan, attempts, errors and failures of the cells of one run, as small files that survive every process."""

    def __init__(self, store: Store, run: str) -> None:
        self._store, self._run = store, run
        self._read = partial(store.read, "runs", run)
        self._names = partial(store.names, "runs", run)

    def _write(self, content: str, *parts: str) -> None:
        self._store.write(content, "runs", self._run, *parts)

    def plan(self, record: PlanRecord) -> None:
        self._write(json.dumps({"format": _FORMAT, **asdict(record)}), "plan.json")

    def add(self, cell: PlannedCell) -> None:
        """A search goes on with this cell."""
        self._write(json.dumps(asdict(cell)), "cells", cell.identity)

    def planned(self) -> PlanRecord | None:
        """What the call set out to do; None if it left no record that this version reads."""
        try:
            plain = json.loads(self._read("plan.json"))
            if plain.pop("format") != _FORMAT:
                return None
            return PlanRecord(**{**plain, "cells": tuple(map(PlannedCell.restored, plain["cells"]))})
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def added(self) -> list[PlannedCell]:
        """A search's cells so far."""
        return [PlannedCell.restored(json.loads(self._read("cells", name))) for name in self._names("cells")]

    def end(self) -> None:
        """The call is over, and something is left."""
        self._write(_now(), "ended")

    def ended(self) -> str | None:
        try:
            return self._read("ended").decode()
        except FileNotFoundError:
            return None

    def attempt(
        self,
        cell: CellPlan,
        committed: Collection[str],
        nodes: Collection[str],
        alive: Collection[str],
        most: int,
        **about: Any,
    ) -> int | None:
        """Note a start of `cell` on `nodes`; its number, from 1. None if `most` made no progress: the cell is given up.

        Starts on a node that is no longer among those `alive` do not count: the cell has not failed when its
        machine was taken away.

        Args:
            about: what else is to be known of it later: its pack, stage, workers.
        """
        earlier, progress = self.attempts(cell.identity), self.progress(cell, committed)
        alike = [entry for entry in earlier if entry["progress"] == progress]
        if sum(set(alive).issuperset(entry["nodes"]) for entry in alike) >= most:
            return None
        number, notes = len(earlier) + 1, len(self._names("causes", str(about.get("pack"))))
        entry = {"at": _now(), "nodes": sorted(nodes), "progress": progress, "notes": notes, **about}
        self._write(json.dumps(entry), "attempts", cell.identity, _numbered(number))
        return number

    def attempts(self, cell: str) -> list[dict[str, Any]]:
        """What was noted of a cell's attempts, the first one first."""
        return [json.loads(self._read("attempts", cell, name)) for name in self._names("attempts", cell)]

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
        return {int(name): self._told("errors", cell, name) for name in self._names("errors", cell)}

    def last_error(self, cell: CellPlan) -> str | None:
        """The cause of the last attempt that ended in an error of its own."""
        names = self._names("errors", cell.identity)
        return self._told("errors", cell.identity, names[-1]).cause if names else None

    def note(self, pack: str, cause: str, traceback: str = "") -> None:
        """Why a worker group of the pack ended or left a cell."""
        self._write(f"{cause}\n{traceback}", "causes", pack, _numbered(len(self._names("causes", pack)) + 1))

    def notes(self, pack: str) -> list[Told]:
        return [self._told("causes", pack, name) for name in self._names("causes", pack)]

    def noted(self, pack: str) -> str | None:
        """The cause that was noted last."""
        names = self._names("causes", pack)
        return self._told("causes", pack, names[-1]).cause if names else None

    def _told(self, *parts: str) -> Told:
        cause, _, traceback = self._read(*parts).decode().partition("\n")
        return Told(cause, traceback)

    def fail(self, cell: CellPlan, cause: str) -> None:
        """The cell is given up for this run."""
        self._write(cause, "failures", cell.identity)

    def failures(self) -> dict[str, str]:
        """Cause per identity of the cells that were given up."""
        return {name: self._read("failures", name).decode() for name in self._names("failures")}


def calls(store: Store) -> list[str]:
    """The names of the calls that run or have left something, the newest first."""
    known = {run: about[1] for run in store.folders("runs") if (about := named(run)) is not None}
    return sorted(known, key=lambda run: known[run], reverse=True)


def shown(when: str) -> str:
    """A time of the ledger, as people read it."""
    return f"{dt.datetime.fromisoformat(when).astimezone(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _numbered(number: int) -> str:
    return f"{number:06d}"  # sorted by name they stand in order


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"

"""Processes and their store in simulated time, one event after another: what happens is what is asked to happen.

What a process asks of the storage (simulated_storage.py) is under way until it is carried out, once or more often, and
its reply until it arrives, if it does; anything may overtake anything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from s3ray.digests import signed
from s3ray.errors import UserError
from s3ray.execution import gc
from s3ray.execution.checkpoints import StageMonitor
from s3ray.execution.tensorboard import Curve
from s3ray.stages.stage import Stage, StageRun
from s3ray.store import Claims, LeaseLostError, Marker, leftovers, names
from s3ray.store.claims import RENEW_SECONDS
from s3ray.store.conditional import DELETED
from s3ray.store.names import FILE, GC, names_of, write_names
from simulated_storage import (
    Asked,
    Files,
    Process,
    SimulatedStorage,
    Task,
    ask,
    cache_folder,
    opened,
    parsed,
    prepared_data,
    version_of,
)
from toy_runs import ToyConfig

STEPS = 2  # of what trains, with a checkpoint between them; what measures has none
STEP_SECONDS = 2.0


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is computed here")


_TRAINS = Stage("train", 1, ToyConfig, _never, _never, restore=_never)
_MEASURES = Stage("measure", 1, ToyConfig, _never, _never)
_MODEL = StageRun(_TRAINS, ToyConfig(seed=0), None, "data")
# What is computed; a measurement is claimed with the model that it measures.
RUNS: dict[str, StageRun] = {
    "model": _MODEL,
    "child": StageRun(_TRAINS, ToyConfig(seed=1), _MODEL, "data"),
    **{f"point{number}": StageRun(_MEASURES, ToyConfig(seed=number), _MODEL, "data") for number in (2, 3)},
}


NAMES = names_of(RUNS.values())


class ViolationError(AssertionError):
    """Something that must never be."""


class _Curve:
    """Of a training that nobody looks at."""

    def begin(self, step: int) -> None: ...

    def stepped(self) -> None: ...

    def write(self, rows: object) -> None: ...


class World:
    """Everything, and what of it is known to be true for ever. Only within `simulated`.

    Attributes:
        known: per run the attempt that somebody was told of.
        harmed: attempts of which a file was damaged: they and what stands on them may be replaced, no others.
    """

    def __init__(
        self, clocks: list[tuple[float, float]], *, fetching: bool = False, synced: bool = True, older: bool = False
    ) -> None:
        """`clocks` are those of the first processes: their offsets and rates. `fetching`: they fetch the data, too.

        `older`: all is there from before, and nobody asks for it yet.
        """
        self.storage, self.now, self.count = SimulatedStorage(synced=synced), 0.0, 0
        self.known: dict[str, str] = {}
        self.harmed: set[str] = set()
        self.under_way: list[Asked] = []
        self.tasks: list[Task] = []
        self.processes: list[Process] = []
        self.violated = self.collected = False
        self._fetching, self._published = fetching, False
        # Somebody asks for something else: where nobody asks for anything, gc deletes nothing.
        self._put(f"results/other/{FILE}", json.dumps(signed({"runs": {}})).encode())
        for name in RUNS if older else ():
            self._put_result(name)
        for offset, rate in clocks:
            self.start(offset, rate)

    def _put_result(self, name: str) -> None:
        run, parent = RUNS[name], _parent(name)
        attempt, weights = self.uuid().hex[:12], name.encode()
        marker = Marker(
            identity=run.identity,
            document=run.document,
            parent_stage=run.parent.stage.name if run.parent else None,
            parent_attempt=self._markers()[parent]["attempt"] if parent else None,
            inputs=None,
            attempt=attempt,
            files={"weights": (len(weights), version_of(weights))},
            seconds=1.0,
            committed_at="2026-01-01T00:00:00+00:00",
            provenance={},
        )
        for file, content in {f"{attempt}/weights": weights, "commit.json": marker.content()}.items():
            self._put(f"artifacts/{run.stage.name}/{run.identity}/{file}", content)

    def _put(self, key: str, content: bytes) -> None:
        """From before the beginning."""
        self.storage.there[f"bucket/{key}"] = self.storage.on_disk[f"bucket/{key}"] = content, 0.0

    def uuid(self) -> uuid.UUID:
        self.count += 1
        return uuid.UUID(hashlib.md5(str(self.count).encode()).hexdigest())

    def has_died(self, name: str) -> bool | None:
        """Of every other process it is never known whether it lives."""
        found = re.search(r"p00000000-(\d+)-0", name)
        if found is None or int(found[1]) % 2:
            return None
        return not any(process.number == int(found[1]) for process in self.processes)

    def start(self, offset: float, rate: float) -> None:
        """A process with a sweep of its own; every other one does what it can in the other order."""
        process = self._process(offset, rate)
        order = list(RUNS)[:: -1 if len(self.processes) % 2 else 1]
        self.begin(process, lambda: self._sweep(process, order))

    def _process(self, offset: float, rate: float) -> Process:
        self.count += 1
        store = copy.copy(opened())
        store.fs = Files()
        process = Process(self.count, offset, rate, self, store)
        self.processes.append(process)
        return process

    def collect_garbage(self, alone: int = 0) -> Process:
        """A process deletes what nobody asks for; at first, for so many steps, nobody else does anything."""
        self.collected, process = True, self._process(0.0, 1.0)
        process.claiming = GC

        def collect() -> None:
            with suppress(OSError, UserError):
                gc.delete(process.store)

        self.begin(process, collect)
        others = [other for other in self.processes if other is not process and not other.paused]
        for other in others:
            other.paused = True
        for turn in range(alone):
            self.go_on(turn)
        for other in others:
            other.paused = False
        return process

    def begin(self, process: Process, function: Callable[[], object]) -> Task:
        """A thread of a process."""
        task = Task(process, function, self.now)
        self.tasks.append(task)
        return task

    def end(self) -> None:
        for task in self.tasks:
            task.kill()

    # What happens. Each takes a number, and does nothing if it fits nothing.

    def go_on(self, number: int) -> None:
        """What is next, for one of those that can go on; if nobody can, time passes until somebody does."""
        ready = [task for task in self.tasks if task.wakes is not None and task.wakes <= self.now and _runs(task)]
        # What a process asked before it stood still is carried out; the reply waits for it.
        asked = [asked for asked in self.under_way if asked.task is not None and (_runs(asked.task) or not asked.reply)]
        if not ready and not asked and number % 2:
            asked = [asked for asked in self.under_way if asked.task is None]
        if ready or asked:
            chosen = (ready + asked)[number % (len(ready) + len(asked))]
            if isinstance(chosen, Task):
                chosen.wakes = None
                self._resume(chosen)
            elif chosen.reply:
                self._answer(chosen)
            else:
                self._carry_out(chosen)
        else:
            waking = [task.wakes for task in self.tasks if task.wakes is not None and _runs(task)]
            if waking:
                self.now = max(self.now, min(waking))
        self.check()

    def carry_out(self, number: int) -> None:
        """Carry out any request, also one that was before; its sender hears nothing yet."""
        on_condition = [
            asked for asked in self.under_way if asked.operation == "put" and asked.arguments[2] is not None
        ]
        if asked := on_condition if on_condition and number % 2 else self.under_way:
            self._carry_out(asked[number // 2 % len(asked)])
            self.check()

    def time_out(self, number: int) -> None:
        """A reply does not come. The request may still be carried out, later and more than once."""
        waiting = [asked for asked in self.under_way if asked.task is not None and _runs(asked.task)]
        if waiting:
            asked = waiting[number % len(waiting)]
            task, asked.task = asked.task, None
            assert task is not None
            self._resume(task, OSError("timed out"))
            self.check()

    def lose(self, number: int) -> None:
        """A request or its reply is lost; whoever waits for it hears of that."""
        if self.under_way:
            asked = self.under_way.pop(number % len(self.under_way))
            if asked.task is not None:
                self._fail_soon(asked)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.check()

    def pause(self, number: int) -> None:
        """Stop a process, or let it go on."""
        process = self._one_of_them(number)
        process.paused = not process.paused

    def crash(self, number: int) -> None:
        """A process ends, and a new one starts; what the old one asked is still under way."""
        process = self._one_of_them(number)
        for asked in self.under_way:
            if asked.task is not None and asked.task.process is process:
                asked.task = None
        for task in self.tasks:
            if task.process is process:
                task.kill()
        self.tasks = [task for task in self.tasks if task.process is not process]
        self.processes.remove(process)
        self.start(process.offset, process.rate)

    def _one_of_them(self, number: int) -> Process:
        """Every other time one that is at work, if there is any."""
        working = [process for process in self.processes if any(c.held is not None for c in process.claimed)]
        chosen = working if working and number % 2 else self.processes
        return chosen[number // 2 % len(chosen)]

    def power_failure(self) -> None:
        """The storage starts again, with what is on its disk; what was under way is lost."""
        self.storage.power_failure()
        under_way, self.under_way = self.under_way, []
        for asked in under_way:
            if asked.task is not None:
                self._fail_soon(asked)
        self.check()

    def sync(self, number: int) -> None:
        """The storage's disk catches up with a key."""
        keys = sorted(self.storage.there.keys() | self.storage.on_disk.keys())
        if keys:
            self.storage.sync(keys[number % len(keys)])

    def damage(self, number: int) -> None:
        """A bit of a checkpoint or of a committed result flips; every other time of the one that others stand on."""
        markers = self._markers()
        folders = {marker["attempt"] for marker in markers.values()} | {run.identity for run in RUNS.values()}
        keys = [key for key in sorted(self.storage.there) if key.split("/")[-2] in folders and key[-5:] != ".json"]
        of_model = [key for key in keys if "model" in markers and key.split("/")[-2] == markers["model"]["attempt"]]
        if chosen := of_model if number % 2 else keys:
            key = chosen[number // 2 % len(chosen)]
            self.storage.damage(key)
            self.harmed.add(key.split("/")[-2])
            for run, marker in markers.items():
                if self._may_be_replaced(marker["attempt"], marker["parent_attempt"]):
                    self.known.pop(run, None)

    def settle(self) -> None:
        """Nothing fails any more: everybody goes on until all is done."""
        for process in self.processes:
            process.paused = False
        for turn in range(20_000):
            if all(task.done for task in self.tasks) and not self.under_way:
                break
            self.go_on(turn)
            self.tasks = [task for task in self.tasks if not task.done]
        else:
            raise self._violation(f"no end: {sorted(self.storage.there)}")
        markers = self._markers()
        for name in RUNS:
            parent = _parent(name)
            if name not in markers:
                raise self._violation(f"{name}: is not done")
            if parent and markers[name]["parent_attempt"] != markers[parent]["attempt"]:
                raise self._violation(f"{name}: all has ended, and its parent's attempt is another")

    # What must be true.

    def check(self) -> None:
        working = [p.claimed[c] for p in self.processes for c in p.claimed if c.held is not None and c.holds()]
        if len(working) > 1 and len(working) > len(set(working)):
            raise self._violation("two owners may work on the same")
        if self.storage.changed:
            self.storage.changed = False
            self._check_storage()

    def _check_storage(self) -> None:
        there, markers = self.storage.there, self._markers()
        for name, run in RUNS.items():
            marker = markers.get(name)
            if marker is None:
                if name in self.known and (not self.collected or any(name in p.told for p in self.processes)):
                    raise self._violation(f"{name}: {self.known[name]} is lost")
                self.known.pop(name, None)  # nobody asks for it
                continue
            attempt = marker["attempt"]
            if self._may_be_replaced(marker["attempt"], marker["parent_attempt"]):
                continue
            if self.known.get(name, attempt) != attempt:
                raise self._violation(f"{name}: was {self.known[name]}, is {attempt}")
            for file, (_, sha256) in marker["files"].items():
                content, _ = there.get(f"bucket/artifacts/{run.stage.name}/{run.identity}/{attempt}/{file}", (b"", 0))
                if version_of(content) != sha256:
                    raise self._violation(f"{name}: {attempt} has not its payload")
            parent = _parent(name)
            if parent and (parent not in markers or markers[parent]["attempt"] != marker["parent_attempt"]):
                raise self._violation(f"{name}: its parent's attempt {marker['parent_attempt']} is lost")
        data = f"bucket/data/{prepared_data()[2]}"
        if f"{data}/manifest.json" in there:
            listed = parsed(there[f"{data}/manifest.json"][0])["arrays"]
            if any(f"{data}/{name}.npy" not in there for name in listed):
                raise self._violation("published, but not whole")
        elif self._published:
            raise self._violation("what was published is lost")
        for process in self.processes:
            if process.run and f"bucket/runs/{process.run}/{FILE}" not in there:
                raise self._violation(f"{process.run}: cleared while it runs")

    def _markers(self) -> dict[str, dict[str, Any]]:
        """The markers that stand there, whether they count or not."""
        keys = {name: f"bucket/artifacts/{run.stage.name}/{run.identity}/commit.json" for name, run in RUNS.items()}
        there = self.storage.there
        return {name: parsed(there[key][0]) for name, key in keys.items() if there.get(key, (DELETED,))[0] != DELETED}

    def _may_be_replaced(self, attempt: str, of_parent: str | None) -> bool:
        return attempt in self.harmed or of_parent in self.harmed

    def _violation(self, sentence: str) -> ViolationError:
        self.violated = True
        return ViolationError(sentence)

    # How it goes on.

    def _carry_out(self, asked: Asked) -> None:
        reply = self.storage.do(self.now, asked.operation, *asked.arguments)
        if asked.task is None and asked.reply:  # of the second time nobody waits for a reply
            self.under_way.remove(asked)
        asked.reply = [reply]

    def _answer(self, asked: Asked) -> None:
        self.under_way.remove(asked)
        if asked.task is not None:
            self._resume(asked.task, asked.reply[0])

    def _fail_soon(self, asked: Asked) -> None:
        """As soon as its process runs, whoever waits hears that the request failed."""
        asked.reply = [OSError("lost")]
        self.under_way.append(asked)

    def _resume(self, task: Task, answer: Any = None) -> None:
        asked = task.resume(answer)
        if asked is None:
            return
        if asked[0] == "sleep":
            task.wakes = self.now + asked[1] / task.process.rate
        else:
            self.under_way.append(Asked(asked[0], asked[1:], task))

    # What a process does, as `s3ray/execution/cell.py` does it.

    def _sweep(self, process: Process, order: list[str]) -> None:
        store, claims = process.store, Claims(process.store, process.clock)
        is_prepared = False
        while True:
            try:
                if not is_prepared:
                    self._prepare(process)
                    is_prepared = True
                done = store.markers(RUNS.values())
                for name in order:
                    self._told(process, name, done.get(RUNS[name].identity))
                left = [name for name in order if RUNS[name].identity not in done]
                if not left:
                    break
                for name in left:
                    self._try(process, claims, name)
            except (OSError, UserError, LeaseLostError):
                pass
            ask("sleep", RENEW_SECONDS)
        self._name_for_good(process)
        run, process.run = process.run, ""
        store.drop_run(run)

    def _name_for_good(self, process: Process) -> None:
        while True:
            try:
                return write_names(process.store, NAMES, "results", "study", FILE)
            except OSError:
                ask("sleep", RENEW_SECONDS)

    def _prepare(self, process: Process) -> None:
        store = process.store
        if not process.run:
            leftovers.clear_leftovers(store)
            run = f"sweep-20260101-000000-{process.tag}-{self.uuid().hex[:6]}"
            write_names(store, NAMES, "runs", run, FILE)
            process.run = run
        names.await_gc(store, NAMES)
        data, _, content = prepared_data()
        store.publish_dataset(data)
        self._published = True
        if self._fetching:
            shutil.rmtree(cache_folder() / "s3ray" / "data" / content, ignore_errors=True)
            store.fetch_dataset(content)

    def _try(self, process: Process, claims: Claims, name: str) -> None:
        """Compute and commit what a name stands for, if that can be done now."""
        run, store, parent = RUNS[name], process.store, None
        if run.parent is not None:
            parent = self._told(process, "model", store.marker(run.parent))
            if parent is None:
                return
            store.payload(parent, "weights")
        process.claiming = run.claim
        with claims.take(run.claim) as holds:
            if holds is None:
                claims.free(run.claim)
            elif not self._told(process, name, store.marker(run)):  # done meanwhile
                self._compute(process, name, parent, holds)

    def _compute(self, process: Process, name: str, parent: Marker | None, holds: Callable[[], bool]) -> None:
        run, of_parent = RUNS[name], parent.attempt if parent else None
        if not holds():
            raise LeaseLostError
        if run.stage.trains:
            monitor = StageMonitor(process.store, run, of_parent, _CURVE, 0.0, _ignored, 0, holds=holds)
            begun = monitor.resume(lambda snapshot: True)
            if begun is not None and begun["stands_on"] != of_parent:
                raise self._violation(f"{name}: goes on from a checkpoint of a parent that is lost")
            for step in range(begun["step"] if begun else 0, STEPS):
                ask("sleep", STEP_SECONDS)
                snapshot = {"step": step + 1, "metrics": [], "stands_on": of_parent}
                monitor.stepped(step + 1, STEPS, lambda snapshot=snapshot: snapshot)
        else:
            ask("sleep", STEP_SECONDS)
        weights = f"{process.tag} {self.uuid()}".encode()
        committed = process.store.commit(run, {"weights": weights}, seconds=1.0, provenance={}, parent=parent)
        self._told(process, name, committed.marker)

    def _told(self, process: Process, name: str, marker: Marker | None) -> Marker | None:
        """What somebody was told of counts for ever, unless it was damaged."""
        if marker is None or self._may_be_replaced(marker.attempt, marker.parent_attempt):
            return marker
        if self.known.setdefault(name, marker.attempt) != marker.attempt:
            raise self._violation(f"{name}: was {self.known[name]}, is {marker.attempt}")
        process.told.add(name)
        return marker


_CURVE = cast(Curve, _Curve())


def _ignored(*_: object) -> None: ...


def _parent(name: str) -> str | None:
    return next((other for other, run in RUNS.items() if run is RUNS[name].parent), None)


def _runs(task: Task) -> bool:
    return not task.process.paused

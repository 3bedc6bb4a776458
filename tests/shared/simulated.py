"""Processes and their store in simulated time, one event after another: what happens is what is asked to happen.

The claims' protocol is the real one (`s3ray.store.claims.Claimant`); commit, checkpoint, publish and clean-up are
written down here as the store does them, request by request. What a process asks of the store is under way until it is
carried out, once or more often, and its reply until it arrives, if it does; anything may overtake anything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from s3ray.store.claims import RENEW_SECONDS, Claim, Claimant, Read, Steps

# What is computed: its parent, and the claim under which it is: that of the model that it trains or measures.
POINTS = [f"point{number}" for number in range(3)]
RUNS: dict[str, tuple[str | None, str]] = {
    "model": (None, "model"),
    "child": ("model", "child"),
    **dict.fromkeys(POINTS, ("model", "model")),
}
STEPS = 2  # of what trains, with a checkpoint after each; what measures has one and no checkpoint
STEP_SECONDS = 2.0


class ViolationError(AssertionError):
    """Something that must never be."""


@dataclass
class Asked:
    """A request that is under way: an operation, its arguments, and the task that waits for the reply."""

    operation: str
    arguments: tuple[Any, ...]
    task: Task | None
    reply: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Task:
    """A thread of a process."""

    process: Process
    steps: Generator[Any, Any, Any]
    wakes: float | None = None  # when, if it sleeps
    done: bool = False


@dataclass(eq=False)
class Process:
    name: str
    offset: float  # of its clock
    rate: float
    alive: bool = True
    paused: bool = False
    claimants: dict[str, Claimant] = field(default_factory=dict)


class SimulatedStore:
    """Keys and what they hold. A version is the content itself, as on storage whose versions are checksums.

    Args:
        conditions: checked; without them every write succeeds.
        synced: what was written is on the disk before that is answered; otherwise a power failure may take it.
    """

    def __init__(self, *, conditions: bool = True, synced: bool = True) -> None:
        self._conditions, self._synced = conditions, synced
        self.there: dict[str, Any] = {}
        self.on_disk: dict[str, Any] = {}
        self.changed = False  # since somebody looked

    def do(self, operation: str, key: str, *arguments: Any) -> Any:
        reply: Any = None
        if operation == "read":
            return (self.there[key], self.there[key]) if key in self.there else None
        if operation == "list":
            return sorted(name for name in self.there if name.startswith(key))
        self.changed = True
        if operation == "delete":
            self.there.pop(key, None)
        elif operation == "put" or self._allowed(operation, key, *arguments):
            reply = self.there[key] = arguments[0]
        if self._synced:
            self.sync(key)
        return reply

    def _allowed(self, operation: str, key: str, content: Any, version: Any = None) -> bool:
        return not self._conditions or self.there.get(key) == version

    def sync(self, key: str) -> None:
        if key in self.there:
            self.on_disk[key] = self.there[key]
        else:
            self.on_disk.pop(key, None)

    def power_failure(self) -> None:
        self.there, self.changed = dict(self.on_disk), True


class World:
    """Everything, and what of it is known to be true for ever.

    Attributes:
        known: per run the attempt that somebody was told of.
    """

    def __init__(self, clocks: list[tuple[float, float]], **store: bool) -> None:
        """`clocks` are those of the first processes: their offsets and rates."""
        self.store, self.now, self.count = SimulatedStore(**store), 0.0, 0
        self.known: dict[str, str] = {}
        self.claims = sorted({claim for _, claim in RUNS.values()})
        self.under_way: list[Asked] = []
        self.tasks: list[Task] = []
        self.processes: list[Process] = []
        for offset, rate in clocks:
            self.start(offset, rate)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def start(self, offset: float, rate: float) -> None:
        """A process with a sweep of its own; every other one does what it can in the other order."""
        process = Process(self.name("process"), offset, rate)
        self.processes.append(process)
        self.tasks.append(Task(process, self._sweep(process, list(RUNS)[:: -1 if len(self.processes) % 2 else 1]), 0.0))

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
        if self.under_way:
            self._carry_out(self.under_way[number % len(self.under_way)])
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
        process = self.processes[number % len(self.processes)]
        process.paused = not process.paused

    def crash(self, number: int) -> None:
        """A process ends, and a new one starts; what the old one asked is still under way."""
        process = self.processes[number % len(self.processes)]
        if process.alive:
            process.alive = False
            self.tasks = [task for task in self.tasks if task.process is not process]
            for asked in self.under_way:
                if asked.task is not None and asked.task.process is process:
                    asked.task = None
            self.processes.remove(process)
            self.start(process.offset, process.rate)

    def power_failure(self) -> None:
        """The storage starts again, with what is on its disk; what was under way is lost."""
        self.store.power_failure()
        under_way, self.under_way = self.under_way, []
        for asked in under_way:
            if asked.task is not None:
                self._fail_soon(asked)
        self.check()

    def sync(self, number: int) -> None:
        """The storage's disk catches up with a key."""
        keys = sorted(self.store.there.keys() | self.store.on_disk.keys())
        if keys:
            self.store.sync(keys[number % len(keys)])

    def settle(self) -> None:
        """Nothing fails any more: everybody goes on until all is done."""
        for process in self.processes:
            process.paused = False
        for turn in range(4000):
            if all(task.done for task in self.tasks) and not self.under_way:
                return
            self.go_on(turn)
            self.tasks = [task for task in self.tasks if not task.done]
        raise ViolationError(f"no end: {sorted(self.store.there)}")

    # What must be true.

    def check(self) -> None:
        for claim in self.claims:
            holding = [claimant for p in self.processes if (claimant := p.claimants.get(claim)) and claimant.held]
            if len(holding) > 1 and sum(claimant.holds() for claimant in holding) > 1:
                raise ViolationError(f"{claim}: two owners may work")
        if not self.store.changed:
            return
        self.store.changed = False
        there = self.store.there
        for run, (parent, _) in RUNS.items():
            marker = there.get(f"marker/{run}")
            if marker is None:
                if run in self.known:
                    raise ViolationError(f"{run}: {self.known[run]} is lost")
                continue
            attempt, of_parent = marker
            if self.known.get(run, attempt) != attempt:
                raise ViolationError(f"{run}: was {self.known[run]}, is {attempt}")
            if f"payload/{run}/{attempt}" not in there:
                raise ViolationError(f"{run}: {attempt} has no payload")
            if parent and there.get(f"marker/{parent}", (None,))[0] != of_parent:
                raise ViolationError(f"{run}: its parent's attempt {of_parent} is lost")
        if "data/manifest" in there and not {"data/features", "data/labels"} <= there.keys():
            raise ViolationError("published, but not whole")

    def _told(self, key: str, marker: tuple[str, str | None] | None) -> None:
        if marker is not None:
            run = key.removeprefix("marker/")
            if self.known.setdefault(run, marker[0]) != marker[0]:
                raise ViolationError(f"{run}: was {self.known[run]}, is {marker[0]}")

    # How it goes on.

    def _carry_out(self, asked: Asked) -> None:
        reply = self.store.do(asked.operation, *asked.arguments)
        if asked.task is None and asked.reply:  # of the second time nobody waits for a reply
            self.under_way.remove(asked)
        asked.reply = [reply]

    def _answer(self, asked: Asked) -> None:
        self.under_way.remove(asked)
        if asked.task is None:
            return
        key, reply = asked.arguments[0], asked.reply[0]
        if key.startswith("marker/") and isinstance(reply, tuple):
            self._told(key, reply[0] if asked.operation == "read" else reply)
        self._resume(asked.task, reply)

    def _fail_soon(self, asked: Asked) -> None:
        """As soon as its process runs, whoever waits hears that the request failed."""
        assert asked.task is not None
        asked.reply = [OSError("lost")]
        self.under_way.append(asked)

    def _resume(self, task: Task, answer: Any = None) -> None:
        try:
            wanted = task.steps.throw(answer) if isinstance(answer, OSError) else task.steps.send(answer)
        except StopIteration:
            task.done = True
            return
        if isinstance(wanted, float):
            task.wakes = self.now + wanted / task.process.rate
        else:
            self.under_way.append(Asked(wanted[0], wanted[1:], task))

    # What a process does.

    def _sweep(self, process: Process, order: list[str]) -> Generator[Any, Any, None]:
        while True:
            try:
                yield from _publish()
                left = 0
                for run in order:
                    parent, claim = RUNS[run]
                    of_parent = None
                    if (yield "read", f"marker/{run}") is not None:
                        continue
                    left += 1
                    if parent is not None:
                        marker = yield "read", f"marker/{parent}"
                        if marker is None:
                            continue
                        of_parent = marker[0][0]
                    yield from self._claimed(process, run, of_parent, claim)
                if not left:
                    return
            except OSError:
                pass
            yield RENEW_SECONDS

    def _claimed(self, process: Process, run: str, of_parent: str | None, claim: str) -> Generator[Any, Any, None]:
        if claim not in process.claimants:
            process.claimants[claim] = Claimant(
                Claim(0, process.name, process=process.name),
                lambda: process.offset + self.now * process.rate,
                # Of every other one it is never known whether it lives.
                lambda name: int(name[-1]) % 2 == 0 and not any(p.name == name and p.alive for p in self.processes),
            )
        claimant = process.claimants[claim]
        if not (yield from _on(claim, claimant.take())):
            yield from _on(claim, claimant.clear())
            return
        keeper = Task(process, self._keep(claim, claimant, lambda: left), self.now + RENEW_SECONDS / process.rate)
        left = False
        self.tasks.append(keeper)
        failed = False
        try:
            yield from self._work(claimant, run, of_parent)
        except OSError:
            failed = True
        left = True
        while not keeper.done:  # joined
            yield 0.5
        try:
            yield from _on(claim, claimant.release())
        except OSError:
            failed = True
        if failed:
            raise OSError(run)

    def _keep(self, claim: str, claimant: Claimant, left: Callable[[], bool]) -> Generator[Any, Any, None]:
        while not left():
            with suppress(OSError):
                yield from _on(claim, claimant.renew())
            yield RENEW_SECONDS

    def _work(self, claimant: Claimant, run: str, of_parent: str | None) -> Generator[Any, Any, None]:
        if (yield "read", f"marker/{run}") is not None:  # done meanwhile
            return
        done = 0
        checkpoints = yield "list", f"checkpoint/{run}/"
        if checkpoints and (found := (yield "read", checkpoints[-1])) is not None:
            done, stands_on = found[0]
            if stands_on != of_parent:
                raise ViolationError(f"{run}: goes on from a checkpoint of a parent that is lost")
        for step in range(done, 1 if run in POINTS else STEPS):
            yield STEP_SECONDS
            if not claimant.holds():
                return
            if run not in POINTS:
                yield "put", f"checkpoint/{run}/{step + 1}", (step + 1, of_parent)
        attempt = self.name("attempt")
        yield "put", f"payload/{run}/{attempt}", "weights"
        try:
            marker = yield "create", f"marker/{run}", (attempt, of_parent)
        except OSError:
            marker = None
        if marker is None:  # somebody was first, or the reply was lost
            found = yield "read", f"marker/{run}"
            if found is None:
                raise OSError("not committed")
            marker = found[0]
        # What nobody needs any more: checkpoints, and what others tried.
        for name in (yield "list", f"checkpoint/{run}/"):
            yield "delete", name
        for name in (yield "list", f"payload/{run}/"):
            if name != f"payload/{run}/{marker[0]}":
                yield "delete", name


def _publish() -> Generator[Any, Any, None]:
    if (yield "read", "data/manifest") is None:
        for name in ("features", "labels", "manifest"):  # the last says that all are there
            yield "put", f"data/{name}", name


def _on(key: str, steps: Steps[Any]) -> Generator[Any, Any, Any]:
    """What the claims' protocol asks, as requests to the store."""
    answer: Any = None
    failure: OSError | None = None
    while True:
        try:
            asked = steps.throw(failure) if failure else steps.send(answer)
        except StopIteration as end:
            return end.value
        failure = None
        try:
            if isinstance(asked, Read):
                answer = yield "read", f"claim/{key}"
            else:
                operation = "create" if asked.over is None else "replace"
                answer = yield operation, f"claim/{key}", asked.claim, asked.over
        except OSError as error:
            failure = error


def _runs(task: Task) -> bool:
    return task.process.alive and not task.process.paused

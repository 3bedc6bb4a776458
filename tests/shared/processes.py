"""Drivers: processes that take a small sweep through its whole life without Ray, and what befalls them on the way.

Run as a program, this file is a nursery: it imports everything once and forks a driver for each line that it reads, so
that a driver starts in milliseconds. A driver does what `s3ray.engine.run` and a worker do, with their functions, and
tells in its log what it computed. What befalls it (`Driver.point`) is patched into it here; s3ray knows nothing of it.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime as dt
import errno
import io
import json
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pyarrow import ArrowException

from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.execution import run_cell
from s3ray.execution.checkpoints import StageMonitor
from s3ray.execution.ledger import Ledger, PlanRecord
from s3ray.results import report
from s3ray.settings import settings_for
from s3ray.stages.training import OptimizerConfig
from s3ray.store import Claims, LeaseLostError, Store
from s3ray.store import claims as leases
from s3ray.store.leftovers import clear_leftovers
from s3ray.sweep import CellPlan, Plan, Study, StudyDataset, Sweep, make_plan
from s3ray.traces import new_run
from tiny_data import tiny_dataset

DATA = tiny_dataset()
PATIENCE = 120.0  # seconds; only catches a hang
DONE, GAVE_UP, WRONG = 0, 1, 3  # exit codes: WRONG is an exception that users should not see
ATTEMPTS = 3  # at a cell, as of the engine
PACK = "pack-000"


def plan_of(store: Store) -> Plan:
    """Two cells of six stage runs each, seconds in all."""
    smoke = settings_for("latent_factors", "smoke")
    optimizer = OptimizerConfig(epochs=2, learning_rate=1e-3)
    settings = dataclasses.replace(
        smoke,
        model=dataclasses.replace(smoke.model, width=8, layers=1, heads=2),
        specialization=dataclasses.replace(smoke.specialization, optimizer=optimizer),
        selection=dataclasses.replace(smoke.selection, optimizer=dataclasses.replace(optimizer, epochs=1)),
        sparsification=dataclasses.replace(smoke.sparsification, ratios=(1.0, 0.5), controls=()),
        probe=dataclasses.replace(smoke.probe, max_iterations=20),
        batch_sizes=(8,),
    )
    sweep = Sweep(
        name="tiny",
        cells=lambda study: [study.cell("tiny", 2, 8, seed) for seed in range(2)],
        branches=("suff+min",),
    )
    return make_plan(sweep, Study({"tiny": StudyDataset(DataFacts.of(DATA), "smoke", settings)}), store)


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What a driver works on, and what befalls it.

    Attributes:
        folder: its log, its errors and its copies of data; outside the store.
        point: where it happens, such as `marker`, or `checkpoint fsync` for an fsync within a checkpoint; the `Points`.
        nth: at which time that this point is passed, from 1.
        does: `kill`, `stop` (SIGSTOP), or an errno by name, which is raised.
        times: how often it is raised, from then on.
        interval: seconds between checkpoints.
        lease: seconds of a claim's; 0: as usual. It is renewed eight times as often.
        offsets: seconds by which the host's clock is wrong, one of them after the other.
        rate: seconds of its clock of elapsed time per second.
    """

    uri: str
    folder: str
    point: str = ""
    nth: int = 1
    does: str = ""
    times: int = 1
    interval: float = 0.0
    lease: float = 0.0
    offsets: tuple[float, ...] = ()
    rate: float = 1.0


class Points:
    """The moments that a driver passes, by name; something happens at one of them.

    Attributes:
        counts: how often each was passed.
    """

    def __init__(self, driver: Driver, log: Callable[..., None]) -> None:
        self.counts: Counter[str] = Counter()
        self._driver, self._log, self._inside = driver, log, threading.local()

    def pass_by(self, name: str) -> None:
        driver = self._driver
        for point in (name, *(f"{outer} {name}" for outer in getattr(self._inside, "of", ()))):
            self.counts[point] += 1
            if point == driver.point and driver.nth <= self.counts[point] < driver.nth + driver.times:
                self._log("befell", does=driver.does)
                if driver.does in ("kill", "stop"):
                    os.kill(os.getpid(), signal.SIGKILL if driver.does == "kill" else signal.SIGSTOP)
                else:
                    number = getattr(errno, driver.does)
                    raise OSError(number, os.strerror(number))

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        self.pass_by(name)
        before = getattr(self._inside, "of", ())
        self._inside.of = (*before, name)
        try:
            yield
        finally:
            self._inside.of = before

    def watch(self, owner: Any, attribute: str, name: Callable[..., str] | str) -> None:
        """Calls of a function are a point, or have points within; `name` may depend on the arguments, '' is none."""
        inner = getattr(owner, attribute)

        def watched(*args: Any, **kwargs: Any) -> Any:
            called = name if isinstance(name, str) else name(*args, **kwargs)
            if not called:
                return inner(*args, **kwargs)
            with self.within(called):
                result = inner(*args, **kwargs)
            self.pass_by(f"after {called}")
            return result

        setattr(owner, attribute, watched)

    def watch_all(self, store: Store) -> None:
        for name in ("fsync", "replace", "link", "rename"):
            self.watch(os, name, name)

        def opened(file: Any, mode: str = "r", *_: Any, **__: Any) -> str:
            return "open" if set(mode) & set("wxa") else ""

        self.watch(builtins, "open", opened)
        self.watch(io, "open", opened)  # of pathlib
        for name in ("commit", "save_checkpoint", "publish_dataset", "write_folder", "write"):
            self.watch(Store, name, name)
        self.watch(StageMonitor, "stepped", "step")
        for name in ("create", "replace"):
            self.watch(
                type(store.conditional), name, lambda _, key, *__: "marker" if key.endswith("commit.json") else "claim"
            )


def _distort(driver: Driver) -> None:
    """Wrong clocks, short leases."""
    if driver.lease:
        leases.RENEW_SECONDS, leases.STOP_SECONDS = driver.lease / 8, driver.lease * 2 / 3
        leases.LEASE_SECONDS = driver.lease
    if driver.offsets:
        right, draw = time.time, random.Random(driver.folder)

        def wrong() -> float:
            return right() + draw.choice(driver.offsets)

        class Wrong(dt.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return cls.fromtimestamp(wrong(), tz)

        time.time, dt.datetime = wrong, Wrong  # type: ignore[misc]
    if driver.rate != 1.0 and hasattr(time, "CLOCK_BOOTTIME"):
        asked = time.clock_gettime
        time.clock_gettime = lambda which: asked(which) * (driver.rate if which == time.CLOCK_BOOTTIME else 1.0)


def drive(driver: Driver) -> int:
    """The exit code."""
    folder, number = Path(driver.folder), os.getpid()
    lines = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def log(event: str, **more: Any) -> None:
        line = {"at": time.monotonic(), "process": number, "event": event, **more}
        os.write(lines, f"{json.dumps(line)}\n".encode())

    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    torch.set_num_threads(1)
    _distort(driver)
    points = Points(driver, log)
    try:
        store = Store(driver.uri)
        points.watch_all(store)
        _log_work(log)
        _live(store, driver, log)
        log("done", points=points.counts)
        return DONE
    except (UserError, OSError, ArrowException) as error:
        log("gave up", cause=f"{type(error).__name__}: {error}")
        return GAVE_UP
    except BaseException:
        traceback.print_exc()
        return WRONG


def _log_work(log: Callable[..., None]) -> None:
    """Tell what is claimed, what is computed, and whether it counts."""
    commit, take, stepped = Store.commit, Claims.take, StageMonitor.stepped

    def committed(self: Any, run: Any, files: Any, **more: Any) -> Any:
        log("computed", identity=run.identity, claim=run.claim)
        found = commit(self, run, files, **more)
        log("committed", identity=run.identity, claim=run.claim, first=found.is_first)
        return found

    def went(self: Any, step: int, total: int, snapshot: Any) -> None:
        log("step", step=step, total=total)
        stepped(self, step, total, snapshot)

    @contextmanager
    def taken(self: Any, key: str) -> Iterator[Any]:
        with take(self, key) as holds:
            if holds is not None:
                log("claimed", claim=key)
            yield holds

    Store.commit, Claims.take, StageMonitor.stepped = committed, taken, went  # type: ignore[method-assign,assignment]


def _live(store: Store, driver: Driver, log: Callable[..., None]) -> None:
    """As the engine does it, one worker, in this process."""
    with store.explained("written", "choose a place you may write to"):
        store.check_writable()
        log("conditions", honoured=store.honours_conditions)
    with store.explained("cleared", "check your access to it"):
        clear_leftovers(store)
    with store.explained("written", "make room"):
        store.publish_dataset(DATA)
    plan = plan_of(store)
    run = new_run(plan.sweep.name)
    ledger = Ledger(store, run)
    claims, failures = Claims(store), Counter[str]()
    cells = list(plan.pending)
    if cells:
        with store.explained("written", "make room"):
            ledger.plan(PlanRecord.of(plan, {cell.identity: PACK for cell in cells}, 1, 1, driver.folder))
    while cells:
        committed = store.markers(part for cell in cells for part in cell.runs)
        cells = [cell for cell in cells if cell.missing(committed)]
        worked = False
        for cell in cells:
            try:
                if not any(list(map(claims.free, cell.ready(committed)))):
                    continue
                worked = True
                _attempt(cell, committed, store, driver, claims, ledger, log)
            except (OSError, ArrowException, UserError) as error:
                worked = False
                failures[cell.identity] += 1
                log("failed", cell=str(cell.cell), cause=f"{type(error).__name__}: {error}")
                if failures[cell.identity] == ATTEMPTS:
                    raise
        if cells and not worked:
            time.sleep(0.2)
    plan = plan_of(store)
    with store.explained("written", "make room; what was computed stays"):
        results, _ = report.write_results(plan, store)
    for sentence in results.info["left_out"]:
        log("left out", cause=sentence)
    store.drop_run(run)


def _attempt(
    cell: CellPlan,
    committed: Collection[str],
    store: Store,
    driver: Driver,
    claims: Claims,
    ledger: Ledger,
    log: Callable[..., None],
) -> None:
    here = {"node": "here", "worker": str(os.getpid()), "logs": driver.folder}
    begun = False

    def report(event: Any) -> None:
        nonlocal begun
        if not begun:
            begun = True
            ledger.attempt(cell, committed, (), ATTEMPTS, pack=PACK, stage=event.stage, workers=[here])
        if event.state in ("started", "finished", "damaged"):
            log(event.state, stage=event.stage, cause=event.cause)

    data = store.fetch_dataset(cell.facts.content)
    cpu = torch.device("cpu")
    try:
        run_cell(cell, data, store, report, device=cpu, checkpoint_interval=driver.interval, claims=claims)
    except LeaseLostError:
        log("lost its lease")


class Process:
    """A driver that was started."""

    def __init__(self, number: int, driver: Driver, codes: Path) -> None:
        self.number, self.driver, self._code = number, driver, codes / str(number)

    def poll(self) -> int | None:
        """Its exit code, negative: the signal that ended it; None while it lives."""
        return int(self._code.read_text()) if self._code.exists() else None

    def wait(self, until: Callable[[], bool] = lambda: False) -> int | None:
        """Until it has ended, or `until` holds."""
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None and not until():
            assert time.monotonic() < deadline, f"it hangs: {self.told()}"
            time.sleep(0.01)
        return code

    def signal(self, which: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.number, which)

    def stands_still(self) -> bool:
        with suppress(OSError):
            return Path(f"/proc/{self.number}/stat").read_text().rpartition(") ")[2].startswith("T")
        return False

    def log(self) -> list[dict[str, Any]]:
        file = Path(self.driver.folder, "log")
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in map(json.loads, lines) if line["process"] == self.number]

    def happened(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == event]

    def told(self) -> str:
        """For people, why it ended."""
        errors = Path(self.driver.folder, f"errors-{self.number}").read_text()
        return "\n".join([*(json.dumps(line) for line in self.log()[-8:]), errors])


class Nursery:
    """Starts drivers, in a process of its own; none outlives `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # no threads when it forks
        environment |= dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "made-up")
        environment |= {"AWS_EC2_METADATA_DISABLED": "true"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def start(self, driver: Driver) -> Process:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(dataclasses.asdict(driver)) + "\n")
        self._process.stdin.flush()
        return Process(int(self._answer()), driver, self._folder)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)


def nurse(codes: Path) -> None:
    """Fork a driver per line of the standard input, note how each ended, and end them all with the input."""
    report.render = lambda results: []  # exhibits: nothing here is about them, and they take seconds
    with tempfile.TemporaryDirectory() as folder:  # once itself, so that nothing is left to import
        torch.set_num_threads(1)
        _live(Store(f"{folder}/store"), Driver(uri="", folder=folder), lambda event, **more: None)
    living: set[int] = set()
    with open(0, "rb", buffering=0) as orders:
        print("ready", flush=True)
        while True:
            if select.select([orders], [], [], 0.01)[0]:
                if not (line := orders.readline()):
                    break
                if (number := os.fork()) == 0:
                    told = json.loads(line)
                    _be(Driver(**{**told, "offsets": tuple(told["offsets"])}))
                living.add(number)
                print(number, flush=True)
            _collect(living, codes, os.WNOHANG)
    for number in living:
        os.kill(number, signal.SIGKILL)
    _collect(living, codes, 0)


def _be(driver: Driver) -> None:
    """Become a driver."""
    code = WRONG
    try:
        errors = os.open(f"{driver.folder}/errors-{os.getpid()}", os.O_WRONLY | os.O_CREAT)
        for stream, of in ((1, errors), (2, errors), (0, os.open(os.devnull, os.O_RDONLY))):
            os.dup2(of, stream)
        code = drive(driver)
        sys.stderr.flush()
    finally:
        os._exit(code)


def _collect(living: set[int], codes: Path, how: int) -> None:
    while living:
        number, status = os.waitpid(-1, how)
        if number == 0:
            return
        living.remove(number)
        part = codes / f"{number}.part"
        part.write_text(str(os.waitstatus_to_exitcode(status)))
        part.rename(codes / str(number))


if __name__ == "__main__":
    nurse(Path(sys.argv[1]))
